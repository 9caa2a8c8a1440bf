"""Image pairs on disk: which belong together, how they are read and written, and what is wrong with bad ones."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vifa_runtime.pairs import (
    PARTS,
    PairError,
    find_pairs,
    find_part,
    match_pairs,
    read_thermal,
    read_visible,
    spread_evenly,
    write_image,
)

RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def save(path, image=RGB):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[:, :, ::-1] if image.ndim == 3 else image)
    return path


def names(pairs):
    return [pair.name for pair in pairs]


@pytest.fixture
def folder(tmp_path):
    """vi/ and ir/ with the pairs a, b and c."""
    for name in ("b", "a", "c"):
        save(tmp_path / "vi" / f"{name}.png")
        save(tmp_path / "ir" / f"{name}.png", RGB[:, :, 0])
    return tmp_path


def test_pairs_are_found_by_name_in_order(folder):
    pairs = find_pairs(folder)
    assert names(pairs) == ["a", "b", "c"]
    assert (pairs[1].visible, pairs[1].thermal) == (folder / "vi" / "b.png", folder / "ir" / "b.png")


@pytest.mark.parametrize("named", [("visible", "thermal"), ("vi", "thermal")])
def test_the_long_names_of_the_folders_are_known(folder, named):
    (folder / "vi").rename(folder / "v")
    (folder / "v").rename(folder / named[0])
    (folder / "ir").rename(folder / named[1])
    assert names(find_pairs(folder)) == ["a", "b", "c"]


def test_suffixes_may_differ_and_other_files_are_passed_over(folder):
    save(folder / "vi" / "d.JPG")
    save(folder / "ir" / "d.tiff", RGB[:, :, 0])
    (folder / "vi" / "notes.txt").write_text("x")
    save(folder / "ir" / ".hidden.png")
    assert names(find_pairs(folder)) == ["a", "b", "c", "d"]


def test_two_files_are_a_pair_whatever_their_names(folder):
    (pair,) = match_pairs(folder / "vi" / "a.png", folder / "ir" / "b.png")
    assert (pair.name, pair.visible, pair.thermal) == ("a", folder / "vi" / "a.png", folder / "ir" / "b.png")


def test_files_without_a_partner_are_all_named(folder):
    (folder / "ir" / "b.png").unlink()
    save(folder / "ir" / "z.png", RGB[:, :, 0])
    with pytest.raises(PairError, match="add or remove these files") as caught:
        find_pairs(folder)
    assert f"{folder / 'vi' / 'b.png'}, {folder / 'ir' / 'z.png'}" in str(caught.value)


def test_of_many_files_without_a_partner_five_are_named_and_the_others_counted(folder):
    for number in range(12):
        save(folder / "vi" / f"n{number:02}.png")
    with pytest.raises(PairError, match=r"n04\.png and 7 more;"):
        find_pairs(folder)


def test_two_files_of_one_name_are_refused(folder):
    save(folder / "vi" / "a.bmp")
    with pytest.raises(PairError, match=r"a\.png and .*a\.bmp share a name; keep one of them"):
        find_pairs(folder)


@pytest.mark.parametrize("lost", ["vi", "ir"])
def test_a_missing_folder_is_named(folder, lost):
    (folder / lost).rename(folder / "other")
    with pytest.raises(PairError, match=f"{folder} has no folder {lost}/ or"):
        find_pairs(folder)


def test_folders_without_images(tmp_path):
    (tmp_path / "vi").mkdir()
    (tmp_path / "ir").mkdir()
    with pytest.raises(PairError, match="no images in"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("place", ["nowhere", "vi/a.png"])
def test_a_folder_beside_something_else(folder, place):
    with pytest.raises(PairError, match=f"{place} does not exist or is not a folder"):
        match_pairs(folder / place, folder / "ir")


@pytest.fixture(params=[5, 10, 25, 103])
def many(request, tmp_path):
    """A root with the folder `data` that holds so many pairs; nothing in them is read."""
    for number in range(request.param):
        for side in ("vi", "ir"):
            (tmp_path / "data" / side).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / side / f"{number:05}.png").touch()
    return tmp_path, request.param


def test_parts_are_disjoint_complete_and_of_the_stated_shares(many):
    root, count = many
    parts = {part: names(find_part(root, f"data@{part}")) for part in PARTS}
    assert sorted([*parts["train"], *parts["val"], *parts["test"]]) == names(find_part(root, "data"))
    assert len(parts["val"]) == len(parts["test"]) == count // 10
    assert all(part == sorted(part) for part in parts.values())


def test_parts_are_the_same_on_every_machine(tmp_path):
    """By `printf 00000 | sha256sum` and so on, sorted."""
    for side in ("vi", "ir"):
        (tmp_path / "data" / side).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "data" / side / f"{number:05}.png").touch()
    assert names(find_part(tmp_path, "data@val")) == ["00009", "00015"]
    assert names(find_part(tmp_path, "data@test")) == ["00006", "00014"]


def test_an_unknown_part_is_named(folder):
    with pytest.raises(PairError, match="the part 'dev' is unknown; use one of train, val, test"):
        find_part(folder.parent, f"{folder.name}@dev")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".PNG"])
def test_what_was_written_is_read_in_rgb_order(tmp_path, suffix):
    write_image(tmp_path / "new" / f"a{suffix}", RGB)
    image = read_visible(tmp_path / "new" / f"a{suffix}")
    np.testing.assert_array_equal(image, RGB)
    assert image.flags.c_contiguous


def test_a_gray_image_is_written_and_read_as_three_equal_channels(tmp_path):
    write_image(tmp_path / "a.png", RGB[:, :, 0])
    np.testing.assert_array_equal(read_visible(tmp_path / "a.png"), np.repeat(RGB[:, :, :1], 3, axis=2))
    np.testing.assert_array_equal(read_thermal(tmp_path / "a.png"), RGB[:, :, 0])


@pytest.mark.parametrize(
    ("suffix", "dtype"), [(".png", np.uint8), (".png", np.uint16), (".tiff", np.uint16), (".tiff", np.float32)]
)
def test_thermal_images_keep_their_depth(tmp_path, suffix, dtype):
    image = (RGB[:, :, 0].astype(np.float64) * 100.25).astype(dtype)
    read = read_thermal(save(tmp_path / f"a{suffix}", image))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, image)


def test_a_thermal_image_saved_as_colour_becomes_gray(tmp_path):
    gray = np.repeat(RGB[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(read_thermal(save(tmp_path / "a.png", gray)), gray[:, :, 0])


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (RGB[:, :, 0].astype(np.float64), "holds float64; expected 8-bit, 16-bit or 32-bit float"),
        (RGB.astype(np.uint16), "expected one thermal channel"),
    ],
)
def test_thermal_images_of_another_depth_are_refused(tmp_path, image, reason):
    with pytest.raises(PairError, match=reason):
        read_thermal(save(tmp_path / "a.tiff", image))


def png_that_promises(width, height):
    """A PNG whose header is right and asks for more pixels than any memory holds."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [read_visible, read_thermal])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty; replace or remove it"),
        (b"hello", "is not a readable image; replace or remove it"),
        (cv2.imencode(".png", RGB)[1].tobytes()[:-100], "is not a readable image"),
        (cv2.imencode(".jpg", RGB)[1].tobytes()[:200], "is not a readable image"),
        (png_that_promises(100_000, 100_000), "is not a readable image"),
    ],
    ids=["empty", "text", "half a PNG", "half a JPEG", "a PNG of ten billion pixels"],
)
def test_unreadable_images_are_named(tmp_path, read, data, reason):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(PairError, match=f"{path} {reason}"):
        read(path)


@pytest.mark.parametrize("read", [read_visible, read_thermal])
def test_a_missing_file_and_a_folder_are_named(tmp_path, read):
    with pytest.raises(PairError, match=r"cannot read .*none\.png: No such file"):
        read(tmp_path / "none.png")
    with pytest.raises(PairError, match=f"cannot read {tmp_path}: Is a directory"):
        read(tmp_path)


def test_an_unknown_suffix_is_not_written(tmp_path):
    with pytest.raises(PairError, match="has no image suffix; use one of"):
        write_image(tmp_path / "a.gif", RGB)
    assert list(tmp_path.iterdir()) == []


@given(st.integers(1, 50), st.integers(1, 60))
def test_pairs_are_spread_evenly(count, most):
    """Each once, in their order, and between any two neighbours as many are left out, give or take one."""
    chosen = spread_evenly(list(range(count)), most)
    assert len(chosen) == min(count, most) and chosen[0] == 0
    gaps = np.diff([*chosen, count])
    assert gaps.min() >= 1 and np.ptp(gaps) <= 1
