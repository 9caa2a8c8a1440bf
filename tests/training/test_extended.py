"""The extended data set: images to imitate beside the pairs that they were fused from."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from stage2_cases import noise_pairs, random_luma
from task_toys import InMemory, noise_sample

from vifa_training.data import DataError, Sample
from vifa_training.distillation.extended import ExtendedData


def test_what_is_read_is_what_was_fused(tmp_path: Path) -> None:
    pairs, made = noise_pairs(), []

    def fuse(sample: Sample) -> np.ndarray:
        made.append(sample.name)
        luma = np.random.default_rng(len(made)).random((40, 48), np.float32)
        luma[0, :4] = [0, 1, 0.5, 1 / 65535]
        return luma

    extended = ExtendedData(pairs, fuse, tmp_path / "extended")
    assert made == pairs.names == extended.names and len(extended) == 3
    for index, name in enumerate(pairs.names):
        sample, expected = extended[index], np.random.default_rng(index + 1).random((40, 48), np.float32)
        assert sample.fused.dtype == np.float32
        np.testing.assert_allclose(sample.fused[1:], expected[1:], rtol=0, atol=0.5001 / 65535)
        assert sample.fused[0, [0, 1, 3]].tolist() == [0, 1, np.float32(1) / np.float32(65535)]
        np.testing.assert_array_equal(sample.visible, pairs[index].visible)
        assert sample.name == name
    assert np.abs(extended[0].fused - extended[1].fused).mean() > 0.1


def test_it_is_made_once(tmp_path: Path) -> None:
    ExtendedData(noise_pairs(), random_luma, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = ExtendedData(noise_pairs(), lambda sample: pytest.fail("is there already"), tmp_path)
    assert len(again[2].fused) == 40
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_an_interrupted_making_goes_on(tmp_path: Path) -> None:
    made: list[str] = []

    def fuse(sample: Sample) -> np.ndarray:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(sample.name)
        return random_luma(sample)

    with pytest.raises(KeyboardInterrupt):
        ExtendedData(noise_pairs(4), fuse, tmp_path)
    (tmp_path / ".pair2.png.part").write_bytes(b"half of")  # what a killed process leaves
    rest: list[str] = []
    extended = ExtendedData(noise_pairs(4), lambda sample: rest.append(sample.name) or random_luma(sample), tmp_path)
    assert (made, rest) == (["pair0", "pair1"], ["pair2", "pair3"])
    assert [extended[index].fused.shape for index in range(4)] == [(40, 48)] * 4


@pytest.mark.parametrize("fault", ["broken", "empty", "other size", "8 bits", "colour"])
def test_a_file_that_is_no_fused_image_is_named_with_the_mend(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "extended"
    extended = ExtendedData(noise_pairs(), random_luma, folder)
    path = folder / "pair1.png"
    levels = np.full((40, 48), 30_000, np.uint16)
    contents = {
        "broken": path.read_bytes()[:200],
        "empty": b"",
        "other size": cv2.imencode(".png", levels[:39])[1].tobytes(),
        "8 bits": cv2.imencode(".png", (levels >> 8).astype(np.uint8))[1].tobytes(),
        "colour": cv2.imencode(".png", np.dstack([levels] * 3))[1].tobytes(),
    }
    path.write_bytes(contents[fault])
    assert extended[0].fused is not None
    with pytest.raises(DataError, match=r"extended/pair1\.png is no image of this pair; remove .*extended") as refusal:
        extended[1]
    assert "\n" not in str(refusal.value)


def test_two_pairs_of_one_name_are_refused(tmp_path: Path) -> None:
    pairs = InMemory(noise_sample("a", 24, 24), noise_sample("b", 24, 24), noise_sample("a", 24, 24, 1))
    with pytest.raises(DataError, match="two samples are called a; rename one"):
        ExtendedData(pairs, random_luma, tmp_path)
