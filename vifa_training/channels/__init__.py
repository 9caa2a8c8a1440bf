"""Which channels of a backbone's layers look alike, and which of them hold what was learned (section 3.2)."""

from vifa_training.channels.analysis import Choice, KeyChannels, LayerChannels, analyse, choose
from vifa_training.channels.files import load_channels, remember, save_channels

__all__ = ["Choice", "KeyChannels", "LayerChannels", "analyse", "choose", "load_channels", "remember", "save_channels"]
