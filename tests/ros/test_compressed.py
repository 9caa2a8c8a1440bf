"""Compressed images: what a decoder makes of them, what is refused by name, and what the node sends."""

import array
from contextlib import suppress

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import random_thermal, random_visible
from PIL import Image as Picture
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from vifa_ros.compressed import make_jpeg, view_compressed
from vifa_ros.conversions import ConversionError


def message(data: bytes, kind: str = "") -> CompressedImage:
    return CompressedImage(format=kind, data=array.array("B", data))


def encoded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def test_a_png_in_colour_is_exact_and_rgb():
    rgb = random_visible(20, 30)
    sent = message(encoded(np.ascontiguousarray(rgb[:, :, ::-1])), "rgb8; png compressed bgr8")
    np.testing.assert_array_equal(view_compressed(sent, "visible").to_rgb(), rgb)


def test_a_gray_png_is_a_visible_image_too():
    gray = random_thermal(20, 30)
    rgb = view_compressed(message(encoded(gray)), "visible").to_rgb()
    np.testing.assert_array_equal(rgb, np.repeat(gray[:, :, None], 3, axis=2))


def test_a_jpeg_equals_what_another_decoder_makes_of_it(tmp_path):
    smooth = cv2.GaussianBlur(random_visible(64, 96), (0, 0), 3)
    path = tmp_path / "a.jpg"
    Picture.fromarray(smooth).save(path, quality=95)
    found = view_compressed(message(path.read_bytes(), "jpeg"), "visible").to_rgb()
    assert np.abs(found.astype(int) - np.asarray(Picture.open(path)).astype(int)).max() <= 3  # rounding of two libjpegs


def test_an_orientation_tag_is_left_alone(tmp_path):
    path, exif = tmp_path / "a.jpg", Picture.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Picture.fromarray(random_visible(16, 48)).save(path, exif=exif)
    assert view_compressed(message(path.read_bytes()), "visible").to_rgb().shape == (16, 48, 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_thermal_counts_of_8_and_16_bits_are_exact(dtype):
    counts = (random_thermal(24, 32).astype(np.uint32) * 257 % (np.iinfo(dtype).max + 1)).astype(dtype)
    found = view_compressed(message(encoded(counts), "mono16; png compressed "), "thermal").to_thermal()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, counts)


def test_a_coloured_thermal_image_becomes_its_gray_level():
    bgr = random_visible(8, 8)
    found = view_compressed(message(encoded(bgr)), "thermal").to_thermal()
    np.testing.assert_array_equal(found, cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY))


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", bytes(12) + b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(30)])
def test_what_is_neither_jpeg_nor_png_is_refused_before_it_is_paired(data):
    with pytest.raises(ConversionError, match=r"the thermal image is neither JPEG nor PNG .*compressedDepth"):
        view_compressed(message(data, "16UC1; compressedDepth png"), "thermal")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_file_that_is_cut_off_is_refused_or_partly_read_and_never_crashes(suffix):
    whole = encoded(random_visible(40, 40), suffix)
    for length in (12, 60, len(whole) // 2):
        try:
            assert view_compressed(message(whole[:length]), "visible").to_rgb().shape == (40, 40, 3)
        except ConversionError as error:
            assert "cannot be decoded" in str(error)


@given(st.binary(max_size=200), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_are_an_image_or_refused(tail, magic):
    view = view_compressed(message(magic + tail), "thermal")
    for decode in (view.to_rgb, view.to_thermal):
        with suppress(ConversionError):  # the one error there may be; any other fails
            assert decode().size > 0


@pytest.mark.parametrize("quality", [1, 90, 100])
def test_what_the_node_sends_is_a_jpeg_in_rgb_that_another_decoder_reads(quality, tmp_path):
    smooth = cv2.GaussianBlur(random_visible(64, 96), (0, 0), 8)
    sent = make_jpeg(smooth, quality, Header(frame_id="camera"))
    assert (sent.header.frame_id, sent.format) == ("camera", "rgb8; jpeg compressed bgr8")
    (tmp_path / "a.jpg").write_bytes(bytes(sent.data))
    found = np.asarray(Picture.open(tmp_path / "a.jpg"))
    error = np.abs(found.astype(int) - smooth.astype(int)).mean()
    assert found.shape == smooth.shape and error < (2 if quality >= 90 else 40)
