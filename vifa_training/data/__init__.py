"""Data sets of visible-thermal pairs, each a small indexable class, and batches drawn from them."""

from vifa_training.data.augment import Augmentation, draw_batch, whole_batch
from vifa_training.data.base import Batch, DataError, DataSet, Sample
from vifa_training.data.check import check
from vifa_training.data.combine import Concatenation, Subset, spread_evenly
from vifa_training.data.folds import contiguous_folds
from vifa_training.data.opening import open_checked, open_data

__all__ = [
    "Augmentation",
    "Batch",
    "Concatenation",
    "DataError",
    "DataSet",
    "Sample",
    "Subset",
    "check",
    "contiguous_folds",
    "draw_batch",
    "open_checked",
    "open_data",
    "spread_evenly",
    "whole_batch",
]
