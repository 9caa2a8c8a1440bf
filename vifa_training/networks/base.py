"""What every fusion network offers to training, distillation and export."""

from __future__ import annotations

from torch import Tensor, nn

Features = dict[str, Tensor]


class FusionNetwork(nn.Module):
    """A shared backbone and one thin head a task.

    Attributes:
        name: the registry's name.
        size_multiple: height and width of its input must be multiples of this.
        backbone: (visible_y (B,1,H,W), thermal (B,1,H,W)), both 0..1 -> named feature tensors.
        heads: task -> module, features -> fused luma (B,1,H,W) before the clamp to 0..1.
    """

    name: str
    size_multiple: int
    backbone: nn.Module
    heads: nn.ModuleDict

    def forward(self, visible_y: Tensor, thermal: Tensor) -> dict[str, Tensor]:
        """Fused luma of every task, shape (B,1,H,W), before the clamp to 0..1 (so that losses keep a gradient)."""
        features = self.backbone(visible_y, thermal)
        return {task: head(features) for task, head in self.heads.items()}
