"""An image to imitate goes with its pair: through crops, mirrors, scales and batches."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from task_toys import InMemory, noise_sample

from vifa_training.data import Augmentation, Sample, draw_batch, whole_batch
from vifa_training.data.transforms import crop, mirror, resize
from vifa_training.trainer import _share


def imitated(height: int = 40, width: int = 56) -> Sample:
    """The image to imitate is the thermal one, so that both have to stay equal."""
    sample = noise_sample("p", height, width)
    return replace(sample, fused=sample.thermal / np.float32(255))


def test_it_follows_a_crop_and_repeats_the_edge_outside() -> None:
    sample = imitated()
    cut = crop(sample, (-3, 20), (20, 50))
    np.testing.assert_array_equal(cut.fused, cut.thermal / np.float32(255))
    np.testing.assert_array_equal(cut.fused[3:, :36], sample.fused[:17, 20:])
    np.testing.assert_array_equal(cut.fused[0], cut.fused[3])


def test_it_follows_a_mirror_and_a_scale() -> None:
    sample = imitated()
    np.testing.assert_array_equal(mirror(sample).fused, sample.fused[:, ::-1])
    small, large = resize(sample, (28, 20)), resize(sample, (84, 60))
    assert small.fused.dtype == large.fused.dtype == np.float32, "not rounded to gray levels"
    np.testing.assert_allclose(small.fused, cv2.resize(sample.fused, (28, 20), interpolation=cv2.INTER_AREA))
    np.testing.assert_allclose(small.fused, sample.fused.reshape(20, 2, 28, 2).mean(axis=(1, 3)), atol=1e-6)
    np.testing.assert_allclose(large.fused, cv2.resize(sample.fused, (84, 60), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.7, 1.4)])
def test_it_follows_whatever_is_drawn(scale: tuple[float, float]) -> None:
    drawn = draw_batch(
        InMemory(imitated()), 6, (24, 32), np.random.default_rng(0), Augmentation(stretch=0, scale=scale)
    )
    assert drawn.fused.shape == drawn.thermal.shape == (6, 1, 24, 32) and drawn.fused.dtype == torch.float32
    torch.testing.assert_close(drawn.fused, drawn.thermal, rtol=0, atol=1.01 / 255)


def test_a_batch_has_it_only_where_every_sample_does() -> None:
    with_it, without = imitated(), replace(imitated(), name="q", fused=None)
    rng = np.random.default_rng(0)
    assert draw_batch(InMemory(with_it), 3, 16, rng).fused is not None
    assert draw_batch(InMemory(without), 3, 16, rng).fused is None
    assert draw_batch(InMemory(with_it, without), 12, 16, rng).fused is None
    whole = whole_batch(with_it, 16)
    np.testing.assert_array_equal(whole.fused[0, 0], with_it.fused[:32, :48])


def test_it_moves_and_is_shared_with_the_batch() -> None:
    batch = draw_batch(InMemory(imitated()), 4, 16, np.random.default_rng(0))
    assert batch.to("cpu").fused is not None and batch.to(torch.device("meta")).fused.device.type == "meta"
    assert torch.equal(_share(batch, 1, 2).fused, batch.fused[1::2])


def test_every_image_of_a_batch_keeps_its_name() -> None:
    pairs = InMemory(*(replace(imitated(), name=f"p{level}", thermal=np.full((40, 56), level)) for level in range(5)))
    batch = draw_batch(pairs, 6, 16, np.random.default_rng(0), Augmentation(stretch=0))
    for shared in (batch, _share(batch, 1, 2), batch.to("cpu")):
        levels = shared.thermal[:, 0, 0, 0]
        assert shared.names == tuple(f"p{int(level)}" for level in levels) and len(set(shared.names)) > 1
    assert whole_batch(pairs[3]).names == ("p3",)
