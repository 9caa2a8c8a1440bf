"""What task networks are shown: by hand, against OpenCV, and against the exported bundle."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from task_toys import InMemory, exported, lively_network, noise_sample

from vifa_runtime.backends import Options, prepare
from vifa_runtime.pipeline import FusionPipeline
from vifa_training.data import Sample
from vifa_training.pictures import SOURCES, Fused, Pictures, replace_luma, show_average, show_thermal, show_visible


def one_pixel(rgb: tuple[int, int, int], thermal: int) -> Sample:
    return Sample("p", np.array([[rgb]], np.uint8), np.array([[thermal]], np.uint8))


def test_visible_and_thermal_are_what_the_cameras_saw() -> None:
    sample = noise_sample("a", 9, 14)
    np.testing.assert_array_equal(show_visible(sample), sample.visible)
    thermal = show_thermal(sample)
    assert thermal.shape == (9, 14, 3)
    assert all(np.array_equal(thermal[:, :, channel], sample.thermal) for channel in range(3))
    assert list(SOURCES) == ["visible", "thermal", "average"]


@pytest.mark.parametrize(
    ("rgb", "thermal", "shown"),
    [
        ((100, 150, 200), 40, (50, 100, 150)),  # luma 140.75, average 90.375: 50.375 less
        ((10, 20, 30), 255, (128, 138, 148)),  # luma 18.15, average 136.575: 118.425 more
        ((250, 200, 20), 0, (153, 103, 0)),  # luma 194.43: 97.215 less, and blue ends at 0
        ((250, 200, 20), 255, (255, 230, 50)),  # 30.285 more, and red ends at 255
    ],
)
def test_the_average_by_hand(rgb: tuple[int, int, int], thermal: int, shown: tuple[int, int, int]) -> None:
    assert tuple(show_average(one_pixel(rgb, thermal))[0, 0]) == shown


def test_replacing_the_luma_rounds_to_the_nearest_level_and_ties_to_even() -> None:
    rgb = np.array([[[100, 100, 100], [101, 101, 101], [0, 10, 250]]], np.uint8)
    luma = 0.587 * 10 + 0.114 * 250
    fused = np.array([[100.5, 101.5, luma + 9.4]]) / 255
    assert replace_luma(rgb, fused)[0].tolist() == [[100, 100, 100], [102, 102, 102], [9, 19, 255]]


@pytest.fixture(scope="module", params=["nano", "tardal"])
def bundled(request: pytest.FixtureRequest) -> tuple[Fused, FusionPipeline]:
    network, bundle = exported(request.param)
    return Fused(network, "second"), FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1)))


@pytest.mark.parametrize("size", [(64, 96), (41, 70), (33, 47)])
def test_a_fused_picture_is_what_the_robot_sees(bundled: tuple[Fused, FusionPipeline], size: tuple[int, int]) -> None:
    fused, pipeline = bundled
    sample = noise_sample("a", *size)
    shown, expected = fused(sample), pipeline.process(sample.visible, sample.thermal, tasks=["second"]).fused["second"]
    assert shown.dtype == np.uint8 and shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).max() <= 1
    assert (shown != expected).mean() < 0.01, "but for ties of rounding"
    assert np.abs(shown.astype(int) - sample.visible).mean() > 3, "the head changes the image"


def test_the_fused_luma_is_of_the_task_that_was_asked_for_and_in_range() -> None:
    network, sample = lively_network("nano", ["first", "second"], spread=2.0), noise_sample("a", 20, 28)
    first, second = (Fused(network.train(), task).luma(sample) for task in ("first", "second"))
    assert first.shape == (20, 28) and first.dtype == np.float32
    assert not np.array_equal(first, second)
    assert first.min() == 0 and first.max() == 1
    assert not network.training


def labelled(height: int, width: int) -> Sample:
    boxes = np.array([[4, 6, 20, 18], [0, 0, width, height]], np.float32)
    mask = np.random.default_rng(1).integers(0, 3, (height, width), np.uint8)
    return noise_sample("a", height, width, boxes=boxes, labels=np.array([1, 0]), mask=mask, tags=("night",))


@pytest.mark.parametrize("shrink", [2, 3])
def test_shrinking_is_opencvs_area_average_and_labels_follow(shrink: int) -> None:
    sample = labelled(37, 50)
    small = Pictures(InMemory(sample), show_visible, shrink)[0]
    rows, columns = 37 // shrink, 50 // shrink
    whole = [image[: rows * shrink, : columns * shrink] for image in (sample.visible, sample.thermal)]
    for shown, image in zip((small.visible, small.thermal), whole, strict=True):
        np.testing.assert_array_equal(shown, cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA))
    right, bottom = columns * shrink, rows * shrink
    expected = np.array([[4, 6, 20, 18], [0, 0, right, bottom]], np.float32) / shrink
    np.testing.assert_allclose(small.boxes, expected, rtol=1e-6)
    assert small.labels.tolist() == [1, 0]
    middle = shrink // 2
    np.testing.assert_array_equal(small.mask, sample.mask[middle:bottom:shrink, middle:right:shrink])
    assert (small.name, small.tags) == ("a", ("night",))


def test_without_shrinking_only_the_visible_image_changes() -> None:
    sample = labelled(37, 50)
    shown = Pictures(InMemory(sample), show_thermal)[0]
    np.testing.assert_array_equal(shown.visible, show_thermal(sample))
    for field in ("thermal", "boxes", "labels", "mask"):
        np.testing.assert_array_equal(getattr(shown, field), getattr(sample, field))


def test_each_sample_is_fused_once() -> None:
    asked: list[str] = []

    def picture(sample: Sample) -> np.ndarray:
        asked.append(sample.name)
        return sample.visible

    pairs = InMemory(*(replace(noise_sample("", 24, 24, seed), name=str(seed)) for seed in range(3)))
    pictures = Pictures(pairs, picture, 2)
    for _ in range(3):
        for index in (2, 0, 1):
            assert pictures[index].name == str(index)
    assert asked == ["2", "0", "1"] and pairs.read == [1, 1, 1]
    assert len(pictures) == 3 and pictures.names == ["0", "1", "2"]
    assert not pictures[0].visible.flags.writeable


def test_pictures_name_the_classes_of_their_data_set() -> None:
    class Named(InMemory):
        classes, mask_classes = ("car",), ("road", "car")

    pictures = Pictures(Named(labelled(24, 24)), show_visible)
    assert (pictures.classes, pictures.mask_classes) == (("car",), ("road", "car"))
