"""PIAFusion's objective: its classifier of day and night, its weights, its terms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from objective_cases import number, random_image, street_batch, train_on

from vifa_training.data.base import Batch
from vifa_training.networks import build_network
from vifa_training.objectives.fusion_loss import magnitude_loss
from vifa_training.objectives.illumination import (
    IlluminationClassifier,
    day_or_night,
    train_illumination_classifier,
    visible_weight,
)
from vifa_training.objectives.piafusion import PIAFusionObjective, illumination_loss


def bright_or_dark(step: int) -> Batch:
    """Eight images, day brighter than night, otherwise noise."""
    generator = torch.Generator().manual_seed(step)
    night = torch.rand(8, generator=generator) < 0.5
    level = torch.where(night, 0.25, 0.6).view(8, 1, 1, 1)
    visible = level + 0.2 * (torch.rand((8, 3, 32, 32), generator=generator) - 0.5)
    return Batch(visible, visible[:, :1], tags=tuple(("night",) if dark else ("day", "town") for dark in night))


class Says:
    """A classifier of one answer."""

    def __init__(self, day: float, night: float) -> None:
        self.scores = torch.tensor([[day, night]], dtype=torch.float32)

    def __call__(self, visible: torch.Tensor) -> torch.Tensor:
        return self.scores.expand(len(visible), 2)


def prepared(**options: float) -> PIAFusionObjective:
    objective = PIAFusionObjective(["fused"], classifier_steps=1, **options)
    objective.prepare(bright_or_dark, report=lambda line: None)
    return objective


def test_classifier_has_the_published_size() -> None:
    classifier = IlluminationClassifier()
    published = [(3, 16), (16, 32), (32, 64), (64, 128)]
    assert [(c.in_channels, c.out_channels) for c in classifier.convolutions] == published
    convolutions = sum(16 * a * b + b for a, b in published)
    assert sum(p.numel() for p in classifier.parameters()) == convolutions + 128 * 129 + 2 * 129
    assert [tuple(c.stride) for c in classifier.convolutions] == [(2, 2)] * 4
    assert classifier(torch.rand(3, 3, 64, 48)).shape == (3, 2)


def test_classifier_learns_day_from_night_and_is_frozen_then() -> None:
    classifier = IlluminationClassifier()
    assert not any(p.requires_grad for p in classifier.parameters())
    accuracy = train_illumination_classifier(classifier, bright_or_dark, steps=60, learning_rate=1e-3)
    assert accuracy > 0.95
    assert not any(p.requires_grad for p in classifier.parameters())
    unseen = bright_or_dark(1000)
    by_day = torch.tensor(["day" in tags for tags in unseen.tags])
    weights = visible_weight(classifier(unseen.visible)).flatten()
    assert weights[by_day].min() > 0.5 > weights[~by_day].max()


def test_the_rate_is_constant_for_half_of_the_steps_and_then_falls_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []

    class Watched(torch.optim.Adam):
        def step(self, closure=None) -> None:
            rates.append(self.param_groups[0]["lr"])
            super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Watched)
    train_illumination_classifier(IlluminationClassifier(), bright_or_dark, steps=8, learning_rate=1.0)
    assert rates == [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("tags", [("town",), (), ("day", "night")])
def test_a_sample_that_is_neither_day_nor_night_is_named(tags: tuple[str, ...]) -> None:
    batch = replace(bright_or_dark(0), tags=(*bright_or_dark(0).tags[:5], tags, *bright_or_dark(0).tags[6:]))
    with pytest.raises(ValueError, match=r"'day' or 'night'.*sample 5 of a batch"):
        day_or_night(batch)


def test_a_batch_without_any_tags_is_an_error() -> None:
    with pytest.raises(ValueError, match="sample 0 of a batch has no tag"):
        PIAFusionObjective(["fused"]).prepare(lambda step: replace(bright_or_dark(step), tags=()))


def test_visible_weight_by_hand() -> None:
    scores = torch.tensor([[3.0, 1.0], [2.0, -5.0], [-1.0, 4.0], [-1.0, -2.0], [0.0, 0.0]])
    assert visible_weight(scores).flatten().tolist() == [0.75, 1.0, 0.0, 0.5, 0.5]


def test_illumination_loss_by_hand() -> None:
    fused, visible, thermal = (torch.full((2, 1, 8, 8), value) for value in (0.5, 0.8, 0.6))
    share = torch.tensor([0.75, 0.0]).view(2, 1, 1, 1)
    expected = (0.25 * 0.1 + 0.75 * 0.3 + 0.1) / 2
    assert number(illumination_loss(fused, visible, thermal, share)) == pytest.approx(expected, rel=1e-5)


def test_the_three_terms_are_weighed_as_published() -> None:
    objective = prepared()
    objective.classifier.forward = Says(3, 1)
    batch = street_batch()
    fused, visible, thermal = random_image(1, 32, 32).expand(2, -1, -1, -1), batch.visible_y, batch.thermal
    loss = objective(lambda v, t: {"fused": fused}, batch, 0.0)
    illumination = 0.25 * (fused - thermal).abs().mean() + 0.75 * (fused - visible).abs().mean()
    maximum = (fused - torch.maximum(visible, thermal)).abs().mean()
    expected = 3 * illumination + 7 * maximum + 50 * magnitude_loss(fused, visible, thermal)
    assert number(loss) == pytest.approx(number(expected), rel=1e-5)


@pytest.mark.parametrize("day,night,followed", [(2, 0, "visible"), (0, 2, "thermal")])
def test_by_day_the_visible_image_costs_nothing_and_by_night_the_thermal_one(day, night, followed) -> None:
    objective = prepared(maximum=0, gradient=0)
    objective.classifier.forward = Says(day, night)
    batch = street_batch()
    sources = {"visible": batch.visible_y, "thermal": batch.thermal}
    for name, source in sources.items():
        loss = number(objective(lambda v, t, source=source: {"fused": source}, batch, 0.0))
        assert (loss == 0) == (name == followed)


def test_tasks_are_summed() -> None:
    one, two = PIAFusionObjective(["a"], classifier_steps=1), PIAFusionObjective(["a", "b"], classifier_steps=1)
    one.prepare(bright_or_dark, report=lambda line: None)
    two.load_state_dict(one.state_dict())
    batch = street_batch()
    fused = {"a": batch.visible_y, "b": batch.thermal}
    apart = [one(lambda v, t, image=image: {"a": image}, batch, 0.0) for image in fused.values()]
    assert number(two(lambda v, t: fused, batch, 0.0)) == pytest.approx(number(sum(apart)), rel=1e-5)


def test_the_classifier_is_trained_once_and_part_of_the_checkpoint() -> None:
    objective = PIAFusionObjective(["fused"], classifier_steps=3)
    with pytest.raises(RuntimeError, match="call prepare"):
        objective(build_network("nano", ["fused"]), street_batch(), 0.0)
    lines: list[str] = []
    objective.prepare(bright_or_dark, report=lines.append)
    assert "day or night" in lines[0]
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    objective.prepare(bright_or_dark, report=lines.append)
    assert len(lines) == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in objective.state_dict().items())
    assert not any(parameter.requires_grad for parameter in objective.parameters())

    again = PIAFusionObjective(["fused"])
    again.load_state_dict(before)
    again.prepare(lambda step: pytest.fail("it is trained"), report=lines.append)
    assert torch.equal(again.classifier(street_batch().visible), objective.classifier(street_batch().visible))


def test_the_fusion_phase_leaves_the_classifier_alone() -> None:
    objective = prepared()
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    network = build_network("nano", ["fused"])
    assert objective.opponent_loss(network, street_batch(), 0.5) is None
    train_on(network, objective, street_batch(), steps=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in objective.state_dict().items())


def test_no_step_for_the_classifier_is_an_error() -> None:
    with pytest.raises(ValueError, match="classifier_steps"):
        PIAFusionObjective(["fused"], classifier_steps=0)


def test_piafusion_learns_by_it() -> None:
    network = build_network("piafusion", ["fused"])
    assert train_on(network, prepared(), street_batch(side=24), steps=30, rate=5e-4) < 0.8
