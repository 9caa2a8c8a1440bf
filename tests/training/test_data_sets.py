"""Each data set, written here in its published layout: what it gives, and what it says of missing and wrong files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from data_cases import noise, write_folder, write_m3fd, write_msrs, write_pair, write_text, write_vedai

from vifa_runtime.pairs import choose_names, find_part, write_image
from vifa_training.data.base import DataError, DataSet
from vifa_training.data.cache import SampleCache
from vifa_training.data.check import check
from vifa_training.data.folder import Folder
from vifa_training.data.m3fd import M3fd
from vifa_training.data.msrs import Msrs, MsrsDetection
from vifa_training.data.roadscene import RoadScene
from vifa_training.data.street import StreetData
from vifa_training.data.vedai import Vedai

TWELVE = [f"{i:05}" for i in range(12)]


def refusal(make: object, *arguments: object, **options: object) -> tuple[str, ...]:
    with pytest.raises(DataError) as error:
        check(make(*arguments, **options))  # a class
    return error.value.problems


def parts_of(make: object, folder: Path) -> dict[str, list[str]]:
    return {part: list(make(folder, part).names) for part in ("train", "val", "test")}


def assert_divided(parts: dict[str, list[str]], names: list[str]) -> None:
    assert sorted(name for some in parts.values() for name in some) == sorted(names)
    assert all(some == sorted(some) for some in parts.values())


def test_a_plain_folder_with_boxes_and_masks(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", ["a", "b"], labels="1 0.5 0.5 0.5 0.5\n", mask=3)
    write_text(folder / "classes.txt", "person\ncar\n")
    write_text(folder / "mask_classes.txt", "0 soil\n1 crop\n2 weed\n3 stone\n")
    dataset = Folder(folder)
    assert (list(dataset.classes), list(dataset.mask_classes)) == (["person", "car"], ["soil", "crop", "weed", "stone"])
    sample = dataset[1]
    assert (sample.name, dataset.names, len(dataset)) == ("b", ["a", "b"], 2)
    assert (sample.visible == noise(24, 32, 1)).all()
    assert (sample.thermal == noise(24, 32, 1001, 1)).all()
    assert sample.boxes is not None and sample.labels is not None and sample.mask is not None
    assert sample.boxes.tolist() == [[8, 6, 24, 18]]
    assert sample.labels.tolist() == [1]
    assert (sample.mask == 3).all()


def test_a_plain_folder_without_labels(tmp_path: Path) -> None:
    dataset: DataSet = Folder(write_folder(tmp_path, ["a"]))
    assert (dataset[0].boxes, dataset[0].labels, dataset[0].mask) == (None, None, None)
    assert not dataset.classes and not dataset.mask_classes
    with pytest.raises(IndexError):
        dataset[1]
    with pytest.raises(IndexError):
        dataset[-1]


def test_where_class_names_come_from(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set" / "train", ["a"], mask=1)
    assert list(Folder(folder).mask_classes) == []
    write_text(tmp_path / "set" / "classes.txt", "soil\ncrop\n")
    dataset = Folder(folder)
    assert list(dataset.classes) == list(dataset.mask_classes) == ["soil", "crop"]
    assert list(Folder(folder, classes=["x", "y"]).mask_classes) == ["x", "y"]


def test_the_parts_of_a_plain_folder_are_those_of_the_runtime(tmp_path: Path) -> None:
    names = [f"n{i}" for i in range(23)]
    folder = write_folder(tmp_path / "set", names)
    parts = parts_of(Folder, folder)
    assert_divided(parts, names)
    assert [len(some) for some in parts.values()] == [19, 2, 2]
    for part, some in parts.items():
        assert some == [pair.name for pair in find_part(tmp_path, f"set@{part}")]


def test_thermal_files_of_three_channels_become_gray_and_other_depths_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ["a", "b"])
    gray = noise(24, 32, 5, 1)
    write_image(folder / "ir" / "a.png", np.repeat(gray[:, :, None], 3, axis=2))
    cv2.imwrite(str(folder / "ir" / "b.png"), gray.astype(np.uint16) * 200)
    assert (Folder(folder)[0].thermal == gray).all()
    assert refusal(Folder, folder) == (f"{folder / 'ir' / 'b.png'} holds uint16; convert it to 8 bits",)


def test_samples_are_kept_and_read_only(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ["a"], labels="0 0.5 0.5 1 1", mask=0)
    dataset = Folder(folder)
    sample = dataset[0]
    (folder / "vi" / "a.png").unlink()
    assert dataset[0] is sample
    for array in (sample.visible, sample.thermal, sample.boxes, sample.labels, sample.mask):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_a_full_cache_keeps_what_it_has() -> None:
    dataset = StreetData(3, size=(64, 64))
    size = sum(array.nbytes for array in vars(dataset[0]).values() if isinstance(array, np.ndarray))
    cache, read = SampleCache(size + 100), []

    def make(index: int) -> object:
        read.append(index)
        return dataset[index]

    for index in (0, 1, 0, 1):
        assert cache.get(index, make).name == dataset.names[index]
    assert read == [0, 1, 1]


def test_everything_wrong_in_a_folder_is_told_at_once(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ["good", "small", "torn", "bad", "far", "bare"], labels="0 0.5 0.5 0.5 0.5", mask=1)
    write_text(folder / "classes.txt", "person")
    write_text(folder / "mask_classes.txt", "soil\ncrop")
    write_image(folder / "vi" / "lonely.png", noise(4, 4))
    write_image(folder / "ir" / "single.png", noise(4, 4, 0, 1))
    write_image(folder / "ir" / "small.png", noise(12, 32, 0, 1))
    (folder / "vi" / "torn.png").write_bytes(b"no image")
    write_text(folder / "labels" / "bad.txt", "0 1 2\n5 0.5 0.5 0.1 0.1\n")
    write_image(folder / "masks" / "far.png", np.full((24, 32), 2, np.uint8))
    (folder / "labels" / "bare.txt").unlink()
    write_text(folder / "labels" / "nobody.txt")
    expected = [
        f"{folder / 'vi' / 'lonely.png'} has no partner",
        f"{folder / 'ir' / 'single.png'} has no partner",
        f"{folder / 'labels' / 'nobody.txt'} belongs to no image",
        f"{folder / 'labels' / 'bare.txt'} is missing; an empty file means that nothing is there",
        f"{folder / 'labels' / 'bad.txt'}, line 1: has 3 words",
        f"{folder / 'labels' / 'bad.txt'}, line 2: has class 5, but there are 1",
        f"{folder / 'masks' / 'far.png'} has the class ids 2; expected 0..1",
        f"{folder / 'ir' / 'small.png'} is 32x12 but {folder / 'vi' / 'small.png'} is 32x24; align them",
        f"{folder / 'vi' / 'torn.png'} is not a readable image",
    ]
    problems = refusal(Folder, folder)
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


def test_a_long_list_is_cut_and_says_so(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, TWELVE, labels="0 0.5 0.5")
    for name in TWELVE:
        (folder / "vi" / f"{name}.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        check(Folder(folder))
    assert len(error.value.problems) == 24
    lines = str(error.value).splitlines()
    assert lines[0] == "24 problems:"
    assert len(lines) == 22
    assert lines[-1].strip() == "... and 4 more"


@pytest.mark.parametrize("make", [Folder, M3fd, Msrs, MsrsDetection, RoadScene, Vedai])
def test_missing_and_empty_folders_are_named(make: object, tmp_path: Path) -> None:
    assert all(str(tmp_path) in problem for problem in refusal(make, tmp_path / "gone"))
    empty = {
        Folder: ("vi", "ir"),
        M3fd: ("Vis", "Ir", "Annotation"),
        Msrs: ("train/vi", "train/ir", "train/Segmentation_labels", "test/vi", "test/ir", "test/Segmentation_labels"),
        MsrsDetection: ("vi", "ir", "labels"),
        RoadScene: ("crop_LR_visible", "cropinfrared"),
        Vedai: ("Vehicules512", "Annotations512"),
    }[make]
    for name in empty:
        (tmp_path / name).mkdir(parents=True)
    assert "holds no images" in refusal(make, tmp_path)[0]


@pytest.mark.parametrize("make", [Folder, M3fd, RoadScene])
def test_unknown_and_empty_parts_are_refused(make: object, tmp_path: Path) -> None:
    write_folder(tmp_path, ["a"], labels="")
    write_pair(tmp_path / "crop_LR_visible" / "a.jpg", tmp_path / "cropinfrared" / "a.jpg")
    assert "part 'best' is unknown; use one of train, val, test" in refusal(make, tmp_path, "best")[0]
    assert "1 pairs are too few for a part 'val'; use 10 or more" in refusal(make, tmp_path, "val")[0]


@pytest.mark.parametrize("downloaded", [True, False])
def test_m3fd_in_both_layouts(downloaded: bool, tmp_path: Path) -> None:
    dataset = M3fd(write_m3fd(tmp_path, TWELVE, downloaded))
    sample = dataset[3]
    assert sample.boxes is not None and sample.labels is not None
    assert sample.boxes.tolist() == [[8, 6, 16, 18]]
    assert [dataset.classes[i] for i in sample.labels] == ["Car"]
    # YOLO text counts in the order of the authors' code.
    assert dataset.classes == ("People", "Car", "Bus", "Lamp", "Motorcycle", "Truck")
    assert_divided(parts_of(M3fd, tmp_path), TWELVE)


def test_the_lists_of_m3fd_are_followed(tmp_path: Path) -> None:
    write_m3fd(tmp_path, TWELVE)
    write_text(tmp_path / "meta" / "train.txt", "\n".join(f"{name}.png" for name in TWELVE[:4]))
    write_text(tmp_path / "meta" / "val.txt", "00009.png\n")
    assert M3fd(tmp_path, "train").names == TWELVE[:4]
    assert M3fd(tmp_path, "val").names == ["00009"]
    assert len(M3fd(tmp_path)) == 12
    assert refusal(M3fd, tmp_path, "test") == (f"{tmp_path / 'meta'} lists no part 'test'; use one of train, val",)
    write_text(tmp_path / "meta" / "val.txt", "00099.png\n")
    assert "lists 00099, which is no pair" in refusal(M3fd, tmp_path, "val")[0]


def test_wrong_annotations_of_m3fd_are_named(tmp_path: Path) -> None:
    write_m3fd(tmp_path, ["a", "b"])
    path = tmp_path / "Annotation" / "b.xml"
    path.write_text(path.read_text().replace("Car", "Tank"))
    assert refusal(M3fd, tmp_path)[0].startswith(f"{path}, line 1: the class 'Tank' is unknown")


def test_msrs_for_segmentation(tmp_path: Path) -> None:
    train = [f"{i:05}{'DN'[i % 2]}" for i in range(20)]
    test = [f"{i:05}D" for i in range(30, 33)]
    dataset = Msrs(write_msrs(tmp_path, train, test))
    assert len(dataset) == 23
    sample = dataset[1]
    assert sample.mask is not None and (sample.mask == 2).all()
    assert sample.boxes is None
    assert dataset.mask_classes[2] == "person" and len(dataset.mask_classes) == 9
    assert (dataset[0].tags, sample.tags) == (("day",), ("night",))
    parts = parts_of(Msrs, tmp_path)
    assert_divided(parts, train + test)
    assert parts["test"] == test
    assert parts["val"] == choose_names(train, "val") and len(parts["val"]) == 2
    assert "part 'best' is unknown" in refusal(Msrs, tmp_path, "best")[0]
    write_image(tmp_path / "train" / "Segmentation_labels" / f"{train[0]}.png", np.full((24, 32), 9, np.uint8))
    (tmp_path / "test" / "Segmentation_labels" / f"{test[0]}.png").unlink()
    problems = refusal(Msrs, tmp_path)
    assert len(problems) == 2 and "is missing" in problems[0] and "class ids 9; expected 0..8" in problems[1]


def test_msrs_for_detection(tmp_path: Path) -> None:
    write_folder(tmp_path / "detection", TWELVE, labels="2 0.25 0.5 0.5 1\n0 0.5 0.5 0.5 0.5\n")
    for folder in (tmp_path, tmp_path / "detection"):
        dataset = MsrsDetection(folder)
        sample = dataset[0]
        assert sample.boxes is not None and sample.labels is not None
        assert [dataset.classes[i] for i in sample.labels] == ["car", "person"]
        assert sample.boxes.tolist() == [[0, 0, 16, 24], [8, 6, 24, 18]]
        assert_divided(parts_of(MsrsDetection, folder), TWELVE)


def test_roadscene(tmp_path: Path) -> None:
    for seed, name in enumerate(TWELVE):
        write_pair(tmp_path / "crop_LR_visible" / f"{name}.png", tmp_path / "cropinfrared" / f"{name}.png", seed)
    dataset = RoadScene(tmp_path)
    assert (dataset[2].visible == noise(24, 32, 2)).all()
    assert (dataset[2].thermal == noise(24, 32, 1002, 1)).all()
    assert_divided(parts_of(RoadScene, tmp_path), TWELVE)


@pytest.mark.parametrize("resolution,table", [(512, False), (1024, False), (512, True), (1024, True)])
def test_vedai_in_both_resolutions_and_layouts(resolution: int, table: bool, tmp_path: Path) -> None:
    write_vedai(tmp_path, ["00000000", "00000003"], resolution, table)
    dataset = Vedai(tmp_path, resolution=resolution)
    check(dataset)
    assert dataset.names == ["00000000", "00000003"]
    sample = dataset[1]
    assert sample.boxes is not None and sample.labels is not None
    assert sample.thermal.shape == (resolution, resolution)
    assert (sample.thermal == noise(resolution, resolution, 1001, 1)).all()
    assert sample.boxes.tolist() == [[180, 80, 221, 121]]
    assert dataset.classes[sample.labels[0]] == "truck"


def test_vedai_images_that_cannot_be_trained_on_are_left_out(tmp_path: Path) -> None:
    write_vedai(tmp_path, ["00000000", "00000001", "00000002"])
    (tmp_path / "Annotations512" / "00000001.txt").unlink()
    write_text(tmp_path / "Annotations512" / "00000002.txt", "200 100 2 1 0\n")
    dataset = Vedai(tmp_path)
    assert dataset.names == ["00000000"]
    assert dataset.left_out == ["00000001", "00000002"]


def test_the_first_fold_of_vedai_is_its_test_part(tmp_path: Path) -> None:
    names = [f"{i:08}" for i in range(14)]
    write_vedai(tmp_path, names)
    assert [len(some) for some in parts_of(Vedai, tmp_path).values()] == [12, 1, 1]
    write_text(tmp_path / "Annotations512" / "fold01.txt", "\n".join(names[3:]))
    write_text(tmp_path / "Annotations512" / "fold01test.txt", "00000000\n1\n00000002\n")
    parts = parts_of(Vedai, tmp_path)
    assert_divided(parts, names)
    assert parts["test"] == names[:3]
    assert len(parts["val"]) == 1


def test_what_is_wrong_in_vedai_is_told_at_once(tmp_path: Path) -> None:
    write_vedai(tmp_path, ["00000000", "00000001", "00000002"])
    annotations, images = tmp_path / "Annotations512", tmp_path / "Vehicules512"
    write_text(annotations / "00000001.txt", "1 2 3\n")
    write_text(annotations / "00000009.txt")
    write_image(images / "00000000_ir.png", noise(512, 500, 0, 1))
    (images / "00000002_ir.png").unlink()
    problems = refusal(Vedai, tmp_path)
    for start in (
        f"{images / '00000002_co.png'} has no partner",
        f"{annotations / '00000001.txt'}, line 1: has 3 columns",
        f"{annotations / '00000009.txt'} annotates 00000009, which is no pair",
        f"{images / '00000000_ir.png'} is 500x512 but",
    ):
        assert any(problem.startswith(start) for problem in problems), start
    write_vedai(tmp_path / "mixed", ["00000000"], 512)
    (tmp_path / "mixed" / "Vehicules512").rename(tmp_path / "mixed" / "Vehicules1024")
    (tmp_path / "mixed" / "Annotations512").rename(tmp_path / "mixed" / "Annotations1024")
    assert "is 512x512, but annotated at 1024x1024" in refusal(Vedai, tmp_path / "mixed", resolution=1024)[0]


def test_synthetic_streets() -> None:
    dataset = StreetData(20, seed=1, size=(96, 128))
    check(dataset)
    assert len(set(dataset.names)) == len(dataset) == 20
    samples = [dataset[i] for i in range(20)]
    night = [sample.visible.mean() for sample in samples if sample.tags == ("night",)]
    day = [sample.visible.mean() for sample in samples if sample.tags == ("day",)]
    assert len(night) == len(day) == 10
    assert max(night) < min(day)
    assert all(sample.thermal.dtype == np.uint8 and sample.thermal.max() == 255 for sample in samples)
    assert {int(label) for sample in samples for label in sample.labels} == {0, 1}
    again = StreetData(20, seed=1, size=(96, 128))[7]
    assert (again.visible == samples[7].visible).all() and (again.boxes == samples[7].boxes).all()
    assert (StreetData(20, seed=2, size=(96, 128))[7].visible != again.visible).any()
    # No two frames show the same.
    assert len({sample.visible.tobytes() for sample in samples}) == 20


def test_parts_of_streets_share_no_street() -> None:
    parts = {part: StreetData(50, 1, part, (64, 64)) for part in ("train", "val", "test")}
    assert [len(dataset) for dataset in parts.values()] == [40, 5, 5]
    seeds = [int(seed) for dataset in parts.values() for seed in dataset._seeds]
    assert len(seeds) == len(set(seeds))
    with pytest.raises(DataError, match="no pair in the part 'val'; ask for 10 or more"):
        StreetData(9, part="val")
