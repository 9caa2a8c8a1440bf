"""Data sets of visible-thermal pairs, each a small indexable class."""

from vifa_training.data.pair_folder import PairFolder, Sample

__all__ = ["PairFolder", "Sample"]
