"""DeepLabV3+ with a MobileNetV2 or ResNet-18 encoder, from segmentation_models_pytorch (MIT).

Source: Chen et al., "Encoder-decoder with atrous separable convolution for semantic image segmentation", ECCV 2018.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vifa_training.data.base import Batch
from vifa_training.tasks.base import TaskNetwork, TaskNetworkError
from vifa_training.tasks.following import resize_like
from vifa_training.tasks.segmentation_loss import segmentation_loss


class DeepLabV3Plus(TaskNetwork):
    """The library's own network, run part by part: where it enlarges by a factor, this follows the size at hand."""

    kind = "segmentation"
    licence = "MIT"
    encoder: ClassVar[str]

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.network = _library(self.name).DeepLabV3Plus(self.encoder, encoder_weights=None, classes=classes)

    def loss(self, image: Tensor, batch: Batch) -> Tensor:
        """See `TaskNetwork.loss` and `segmentation_loss`."""
        if batch.mask is None:
            raise TaskNetworkError(f"{self.name} learns from masks, and the batch has none")
        return segmentation_loss(self.predict(image)["logits"], batch.mask)

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        decoder = self.network.decoder
        features = self.network.encoder(image)
        detail = decoder.block1(features[2])
        context = resize_like(self._context(features[-1]), detail, align_corners=True)
        decoded = decoder.block2(torch.cat([context, detail], dim=1))
        logits = self.network.segmentation_head[0](decoded)
        return {"logits": resize_like(logits, image, align_corners=True).float()}

    def _context(self, deepest: Tensor) -> Tensor:
        """Atrous spatial pyramid pooling and what follows it, at the size of the encoder's last features."""
        pyramid, *rest = self.network.decoder.aspp
        *convolutions, pooling = pyramid.convs
        levels = [convolution(deepest) for convolution in convolutions]
        pooled = _pool(pooling, deepest)
        context = pyramid.project(torch.cat([*levels, resize_like(pooled, deepest, align_corners=False)], dim=1))
        return nn.Sequential(*rest)(context)


def _pool(pooling: nn.Sequential, maps: Tensor) -> Tensor:
    """The mean of each whole map, convolved and normalised: (B,C,1,1).

    Over a batch of one image there is no variance to normalise by: then the running statistics serve.
    """
    _, *parts = pooling
    pooled = maps.mean(dim=(2, 3), keepdim=True)
    for part in parts:
        alone = isinstance(part, nn.BatchNorm2d) and len(maps) == 1
        pooled = _normalise_by_running(part, pooled) if alone else part(pooled)
    return pooled


def _normalise_by_running(norm: nn.BatchNorm2d, maps: Tensor) -> Tensor:
    return F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def _library(name: str) -> Any:
    """segmentation_models_pytorch.

    Raises:
        TaskNetworkError: it is not there, or torchvision, which it imports, does not fit torch.
    """
    try:
        import segmentation_models_pytorch
    except (ImportError, RuntimeError) as error:
        raise TaskNetworkError(
            f"{name} needs segmentation_models_pytorch ({error}): pip install 'vifa-perception[segmentation]', "
            "or `make environment-training`"
        ) from None
    return segmentation_models_pytorch


class DeepLabV3PlusMobileNetV2(DeepLabV3Plus):
    """4.4 M parameters."""

    name = "deeplabv3plus_mobilenet_v2"
    encoder = "mobilenet_v2"


class DeepLabV3PlusResNet18(DeepLabV3Plus):
    """12.3 M parameters."""

    name = "deeplabv3plus_resnet18"
    encoder = "resnet18"
