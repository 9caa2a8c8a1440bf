"""Metrics as this field counts them, each a pure NumPy function: of fused images, of boxes, of masks."""

from vifa_runtime.metrics.detection import Detections, DetectionScores, Truth, average_precision, mean_average_precision
from vifa_runtime.metrics.entropy import entropy
from vifa_runtime.metrics.segmentation import class_iou, confusion_matrix, mean_iou
from vifa_runtime.metrics.spatial_frequency import spatial_frequency
from vifa_runtime.metrics.ssim import fusion_ssim, fusion_ssim_mean, ssim
from vifa_runtime.metrics.vif import fusion_vif, vif

__all__ = [
    "DetectionScores",
    "Detections",
    "Truth",
    "average_precision",
    "class_iou",
    "confusion_matrix",
    "entropy",
    "fusion_ssim",
    "fusion_ssim_mean",
    "fusion_vif",
    "mean_average_precision",
    "mean_iou",
    "spatial_frequency",
    "ssim",
    "vif",
]
