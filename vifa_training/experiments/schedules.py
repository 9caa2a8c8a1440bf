"""How long fusion networks are trained without labels, by preset."""

from vifa_training.schedule import Schedule

FUSION = {
    "smoke": Schedule(steps=4, batch=2, crop=64, validate_every=4),
    "cpu": Schedule(steps=3000, batch=8, crop=128, learning_rate=2e-3, validate_every=3000),
    "paper": Schedule(steps=20000, batch=16, crop=128, learning_rate=2e-3, freeze_norms=0.2, validate_every=20000),
}
