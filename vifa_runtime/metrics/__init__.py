"""Image fusion metrics as this field counts them, each a pure NumPy function."""

from vifa_runtime.metrics.entropy import entropy
from vifa_runtime.metrics.spatial_frequency import spatial_frequency
from vifa_runtime.metrics.ssim import fusion_ssim, fusion_ssim_mean, ssim
from vifa_runtime.metrics.vif import fusion_vif, vif

__all__ = [
    "entropy",
    "fusion_ssim",
    "fusion_ssim_mean",
    "fusion_vif",
    "spatial_frequency",
    "ssim",
    "vif",
]
