"""Metrics as this field counts them, each a pure function of arrays: of fused images, of boxes, of masks.

Of boxes and masks they pool over any multiset of images, which the bootstrap draws to tell how sure a value is.
"""

from vifa_runtime.metrics.bootstrap import (
    Comparison,
    Estimate,
    bootstrap_estimate,
    bootstrap_interval,
    draw_resamples,
    paired_bootstrap,
)
from vifa_runtime.metrics.detection import (
    DetectionScores,
    average_precision,
    mean_average_precision,
    pooled_average_precision,
    pooled_detection_scores,
    pooled_map50,
)
from vifa_runtime.metrics.entropy import entropy
from vifa_runtime.metrics.matching import (
    DetectionMatches,
    Detections,
    ImageMatches,
    Labels,
    match_detections,
    match_image,
    pool_matches,
)
from vifa_runtime.metrics.segmentation import (
    class_iou,
    confusion_matrices,
    confusion_matrix,
    mean_iou,
    pooled_confusion,
)
from vifa_runtime.metrics.spatial_frequency import spatial_frequency
from vifa_runtime.metrics.ssim import fusion_ssim, fusion_ssim_mean, ssim
from vifa_runtime.metrics.vif import fusion_vif, vif

__all__ = [
    "Comparison",
    "DetectionMatches",
    "DetectionScores",
    "Detections",
    "Estimate",
    "ImageMatches",
    "Labels",
    "average_precision",
    "bootstrap_estimate",
    "bootstrap_interval",
    "class_iou",
    "confusion_matrices",
    "confusion_matrix",
    "draw_resamples",
    "entropy",
    "fusion_ssim",
    "fusion_ssim_mean",
    "fusion_vif",
    "match_detections",
    "match_image",
    "mean_average_precision",
    "mean_iou",
    "paired_bootstrap",
    "pool_matches",
    "pooled_average_precision",
    "pooled_confusion",
    "pooled_detection_scores",
    "pooled_map50",
    "spatial_frequency",
    "ssim",
    "vif",
]
