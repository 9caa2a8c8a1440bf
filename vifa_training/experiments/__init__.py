"""The paper's comparisons on folds of real data: each a sequence of trainings that can be stopped and gone on with."""

DEFAULT_TASKS = "msrs-detection,cwfid-segmentation"
DEFAULT_SEQUENCE = "msrs-detection@day,msrs-detection@night,cwfid-segmentation"
