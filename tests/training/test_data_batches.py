"""Crops, mirrors and scales: pair, boxes and mask stay together, and chance comes from the generator alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vifa_training.data import Augmentation, Batch, DataError, Sample, draw_batch, whole_batch
from vifa_training.data.street import StreetData
from vifa_training.data.transforms import clip_boxes, crop, mirror, resize

PLAIN = Augmentation(mirror=0, stretch=0)
quick = settings(deadline=None, derandomize=True, database=None, max_examples=80)


class Fixed:
    """Samples in memory as a data set."""

    classes = mask_classes = ("background", "thing")

    def __init__(self, *samples: Sample) -> None:
        self.samples = samples
        self.names = [sample.name for sample in samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def painted(box: tuple[int, int, int, int], size: tuple[int, int] = (40, 60)) -> Sample:
    """A rectangle that is 200 in both images, on 100, and 1 in the mask."""
    left, top, right, bottom = box
    gray, mask = np.full(size, 100, np.uint8), np.zeros(size, np.uint8)
    gray[top:bottom, left:right] = 200
    mask[top:bottom, left:right] = 1
    boxes = np.array([box], np.float32)
    return Sample("p", np.repeat(gray[:, :, None], 3, axis=2), gray, boxes, np.array([1]), mask, ("day",))


def extent(where: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(where)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


boxes_in_60x40 = st.tuples(st.integers(0, 50), st.integers(0, 30), st.integers(4, 60), st.integers(4, 40)).map(
    lambda b: (b[0], b[1], min(60, b[0] + b[2]), min(40, b[1] + b[3]))
)


@quick
@given(boxes_in_60x40, st.integers(8, 80), st.integers(8, 80), st.integers(0, 10**6))
def test_box_image_and_mask_agree_after_drawing(
    box: tuple[int, int, int, int], height: int, width: int, seed: int
) -> None:
    batch = draw_batch(
        Fixed(painted(box)), 3, (height, width), np.random.default_rng(seed), Augmentation(stretch=0, kept_share=0)
    )
    assert batch.boxes is not None and batch.labels is not None and batch.mask is not None
    for i in range(3):
        visible, thermal, mask = batch.visible[i, 0].numpy(), batch.thermal[i, 0].numpy(), batch.mask[i].numpy()
        known = mask != 255
        assert ((visible == np.float32(200 / 255)) == (mask == 1))[known].all()
        assert (visible == thermal).all()
        if (mask == 1).any():
            assert batch.boxes[i].tolist() == [extent(mask == 1)]
            assert batch.labels[i].tolist() == [1]
        else:
            assert len(batch.boxes[i]) == len(batch.labels[i]) == 0


@quick
@given(boxes_in_60x40, st.integers(0, 10**6))
def test_they_agree_after_scaling_within_a_pixel(box: tuple[int, int, int, int], seed: int) -> None:
    augmentation = Augmentation(stretch=0, scale=(0.6, 1.8), kept_share=0)
    batch = draw_batch(Fixed(painted(box)), 2, 48, np.random.default_rng(seed), augmentation)
    assert batch.boxes is not None and batch.mask is not None
    for boxes, mask, visible in zip(batch.boxes, batch.mask.numpy(), batch.visible[:, 0].numpy(), strict=True):
        if len(boxes):
            assert (boxes >= 0).all() and (boxes <= 48).all()
            if (mask == 1).any():
                np.testing.assert_allclose(boxes[0], extent(mask == 1), atol=1.01)
            # Halfway between both grays is the edge in the image too.
            bright = (visible > 150 / 255) & (mask != 255)
            if bright.any():
                np.testing.assert_allclose(boxes[0], extent(bright), atol=1.01)


def test_a_crop_by_hand() -> None:
    sample = painted((10, 5, 20, 15))
    cut = crop(sample, (10, 12), (20, 30), 0.3)
    assert cut.boxes is not None and cut.labels is not None and cut.mask is not None
    assert cut.boxes.tolist() == [[0, 0, 8, 5]]  # 40 of 100 pixels are inside
    assert cut.labels.tolist() == [1]
    assert (cut.visible == sample.visible[10:30, 12:42]).all() and (cut.thermal == sample.thermal[10:30, 12:42]).all()
    assert (cut.mask == sample.mask[10:30, 12:42]).all()
    less = crop(sample, (10, 12), (20, 30), 0.41)
    assert less.boxes is not None and less.boxes.shape == (0, 4)
    assert less.labels is not None and less.labels.shape == (0,)


def test_boxes_that_remain_by_hand() -> None:
    boxes = np.array([[-5, 0, 5, 10], [-8, 0, 2, 10], [0, 0, 10, 0.5], [20, 20, 30, 30], [2, 3, 4, 5]], np.float32)
    clipped, kept = clip_boxes(boxes, (10, 10), 0.3)
    assert kept.tolist() == [True, False, False, False, True]  # half inside; a fifth; too thin; outside; inside
    assert clipped.tolist() == [[0, 0, 5, 10], [2, 3, 4, 5]]
    assert clip_boxes(boxes[1:2], (10, 10), 0.2)[1].tolist() == [True]


def test_small_images_are_padded_by_their_edge_and_unknown_in_the_mask() -> None:
    ramp = np.arange(12, dtype=np.uint8).reshape(3, 4)
    sample = Sample(
        "s", np.repeat(ramp[:, :, None], 3, axis=2), ramp, np.array([[1, 1, 3, 2]], np.float32), np.array([0])
    )
    batch = draw_batch(Fixed(replace(sample, mask=ramp % 2)), 20, (5, 4), np.random.default_rng(0), PLAIN)
    assert batch.mask is not None and batch.boxes is not None
    tops = set()
    for thermal, mask, boxes in zip(255 * batch.thermal[:, 0].numpy(), batch.mask.numpy(), batch.boxes, strict=True):
        top = int(np.nonzero((mask != 255).all(axis=1))[0][0])
        tops.add(top)
        assert np.rint(thermal).tolist() == ramp[np.clip(np.arange(5) - top, 0, 2)].tolist()
        assert ((mask == 255).sum(), boxes.tolist()) == (8, [[1, 1 + top, 3, 2 + top]])
    assert tops == {0, 1, 2}


@quick
@given(boxes_in_60x40)
def test_mirroring_twice_changes_nothing(box: tuple[int, int, int, int]) -> None:
    sample = painted(box)
    once, twice = mirror(sample), mirror(mirror(sample))
    assert once.boxes is not None and once.mask is not None
    assert once.boxes.tolist() == [extent(once.mask == 1)] == [extent(once.thermal == 200)]
    assert (twice.visible == sample.visible).all() and (twice.boxes == sample.boxes).all()


def test_resizing_by_hand() -> None:
    half = resize(painted((10, 4, 20, 16)), (30, 20))
    assert half.boxes is not None and half.mask is not None
    assert half.boxes.tolist() == [[5, 2, 10, 8]] == [extent(half.mask == 1)]
    assert set(np.unique(half.mask)) == {0, 1}
    assert half.visible.shape == (20, 30, 3) and half.thermal[4, 6] == 200
    sample = painted((11, 5, 20, 16))
    odd = resize(replace(sample, mask=5 * sample.mask), (41, 27))
    assert odd.mask is not None and set(np.unique(odd.mask)) == {0, 5}  # no class in between


def tensors(batch: Batch) -> list[torch.Tensor]:
    assert batch.boxes is not None and batch.labels is not None and batch.mask is not None
    return [batch.visible, batch.thermal, batch.mask, *batch.boxes, *batch.labels]


def test_the_generator_alone_decides() -> None:
    dataset = StreetData(6, size=(64, 96))
    augmentation = Augmentation(scale=(0.8, 1.5))
    first, again = (draw_batch(dataset, 8, 48, np.random.default_rng(5), augmentation) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(again), strict=True))
    assert first.tags == again.tags
    other = draw_batch(dataset, 8, 48, np.random.default_rng(6), augmentation)
    assert not torch.equal(first.visible, other.visible)
    rng = np.random.default_rng(5)
    draw_batch(dataset, 8, 48, rng, augmentation)
    assert not torch.equal(first.visible, draw_batch(dataset, 8, 48, rng, augmentation).visible)


def test_shapes_ranges_and_types() -> None:
    batch = draw_batch(StreetData(6, size=(64, 96)), 5, (32, 40), np.random.default_rng(0))
    assert batch.visible.shape == (5, 3, 32, 40) and batch.thermal.shape == (5, 1, 32, 40)
    assert batch.visible.dtype == batch.thermal.dtype == torch.float32
    assert batch.visible.is_contiguous() and batch.thermal.is_contiguous()
    assert batch.boxes is not None and batch.labels is not None and batch.mask is not None
    assert batch.mask.shape == (5, 32, 40) and batch.mask.dtype == torch.int64
    assert all(boxes.dtype == torch.float32 and boxes.shape[1:] == (4,) for boxes in batch.boxes)
    assert all(labels.dtype == torch.int64 for labels in batch.labels)
    for image in (batch.visible, batch.thermal):
        assert image.min() >= 0 and 0.3 < image.max() <= 1
    assert len(batch.tags) == 5 and set(batch.tags) <= {("day",), ("night",)}


def test_mirrors_stretches_and_places_come_as_often_as_stated() -> None:
    gray = np.tile(np.arange(100, 140, dtype=np.uint8), (40, 1))
    dataset = Fixed(Sample("ramp", np.repeat(gray[:, :, None], 3, axis=2), gray))
    batch = draw_batch(dataset, 400, 20, np.random.default_rng(0))
    mirrored = batch.visible[:, 0, 0, 0] > batch.visible[:, 0, 0, -1]
    lefts = torch.round(255 * batch.visible[:, 0, 0].amin(dim=1)) - 100
    stretched = (batch.thermal[:, 0, 0].amax(dim=1) - batch.thermal[:, 0, 0].amin(dim=1)) > 0.3
    assert 160 < mirrored.sum() < 240 and 160 < stretched.sum() < 240
    assert 60 < (mirrored & stretched).sum() < 140
    assert set(lefts.int().tolist()) == set(range(21))
    # Stretched by the limits of the whole image, not of the crop, and finer than gray levels.
    low, high = np.percentile(gray[::4, ::4], [1, 99.5])
    i = int(torch.nonzero(stretched)[0])
    expected = ((255 * batch.visible[i, 0]).round() - low) / (high - low)
    torch.testing.assert_close(batch.thermal[i, 0], expected.clamp(0, 1).float(), atol=1e-5, rtol=0)
    for setting, share in ((0.0, 0), (1.0, 400)):
        batch = draw_batch(dataset, 400, 20, np.random.default_rng(0), Augmentation(mirror=setting, stretch=setting))
        assert (batch.visible[:, 0, 0, 0] > batch.visible[:, 0, 0, -1]).sum() == share


def test_scales_are_within_their_limits() -> None:
    dataset = Fixed(painted((20, 10, 40, 30)))
    sides = []
    for seed in range(60):
        augmentation = Augmentation(stretch=0, scale=(0.5, 2), kept_share=1)
        batch = draw_batch(dataset, 1, (100, 110), np.random.default_rng(seed), augmentation)
        assert batch.boxes is not None
        for left, top, right, bottom in batch.boxes[0].tolist():
            assert right - left == pytest.approx(bottom - top, rel=0.03)  # a square stays one
            sides.append(right - left)
    assert 9.5 <= min(sides) < 13 and 33 < max(sides) <= 40.5
    assert 17 < np.median(sides) < 24  # as often smaller as larger


def test_samples_with_and_without_labels_in_one_batch() -> None:
    labelled = painted((5, 5, 20, 20))
    bare = replace(labelled, boxes=None, labels=None, mask=None)
    firsts = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        mixed = draw_batch(Fixed(labelled, bare), 12, 16, rng, PLAIN)
        assert mixed.boxes is None and mixed.labels is None
        assert mixed.mask is not None
        unknown = (mixed.mask == 255).flatten(1).all(dim=1)
        assert 0 < unknown.sum() < 12
        firsts.add(bool(unknown[0]))
    assert firsts == {True, False}
    batch = draw_batch(Fixed(bare), 2, 16, rng)
    assert (batch.boxes, batch.labels, batch.mask) == (None, None, None)


def test_a_whole_sample_is_cut_to_a_multiple() -> None:
    sample = painted((40, 20, 60, 40), (45, 61))
    batch = whole_batch(sample, 8)
    assert batch.boxes is not None and batch.mask is not None
    assert batch.visible.shape == (1, 3, 40, 56) and batch.mask.shape == (1, 40, 56)
    assert batch.boxes[0].tolist() == [[40, 20, 56, 40]]
    np.testing.assert_array_equal((255 * batch.thermal[0, 0]).round().numpy(), sample.thermal[:40, :56])
    assert whole_batch(sample).visible.shape == (1, 3, 45, 61)
    assert batch.tags == (("day",),)
    with pytest.raises(DataError, match="p is 61x45, smaller than 64x64"):
        whole_batch(sample, 64)


@pytest.mark.parametrize(
    "setting,reason",
    [
        ({"mirror": 1.5}, "mirror must be in 0..1, got 1.5"),
        ({"kept_share": -0.1}, "kept_share must be in 0..1"),
        ({"scale": (2.0, 1.0)}, "scale must be two ascending numbers"),
        ({"scale": (0.0, 1.0)}, "scale must be two ascending numbers"),
    ],
)
def test_impossible_augmentations_are_refused(setting: dict, reason: str) -> None:
    with pytest.raises(DataError) as refusal:
        Augmentation(**setting)
    assert reason in str(refusal.value)
