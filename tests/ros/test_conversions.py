"""Image messages to arrays and back, against messages built byte by byte."""

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from images import COLOUR_ENCODINGS, LAYOUTS, VISIBLE_ENCODINGS, build_message, random_thermal, random_visible
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from vifa_ros.conversions import ConversionError, ImageMessage, make_image, read_stamp, view_image

HAS_CV_BRIDGE = importlib.util.find_spec("cv_bridge") is not None
GRAY_ENCODINGS = [encoding for encoding in LAYOUTS if encoding not in COLOUR_ENCODINGS]
DTYPES = {"B": np.uint8, "H": np.uint16, "f": np.float32}
PADDINGS = pytest.mark.parametrize("padding", [0, 1, 7])
ENDIANNESS = pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])


def gray_pixels(encoding: str) -> np.ndarray:
    """Values (5,7) that use the whole range of an encoding, so that swapped bytes show."""
    code = LAYOUTS[encoding][0]
    rng = np.random.default_rng(3)
    if code == "f":
        return rng.normal(0, 1e3, (5, 7)).astype(np.float32)
    return rng.integers(0, np.iinfo(DTYPES[code]).max, (5, 7), DTYPES[code], endpoint=True)


@PADDINGS
@ENDIANNESS
@pytest.mark.parametrize("encoding", COLOUR_ENCODINGS)
def test_colour_becomes_rgb(encoding, padding, big_endian):
    pixels = random_visible()
    rgb = view_image(build_message(encoding, pixels, padding, big_endian), "visible").to_rgb()
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb, pixels)


@PADDINGS
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_gray_becomes_rgb_by_repeating(encoding, padding):
    pixels = random_thermal()
    rgb = view_image(build_message(encoding, pixels, padding), "visible").to_rgb()
    np.testing.assert_array_equal(rgb, np.stack([pixels] * 3, axis=-1))


@PADDINGS
@ENDIANNESS
@pytest.mark.parametrize("encoding", GRAY_ENCODINGS)
def test_thermal_keeps_its_values_and_type(encoding, padding, big_endian):
    pixels = gray_pixels(encoding)
    thermal = view_image(build_message(encoding, pixels, padding, big_endian), "thermal").to_thermal()
    assert thermal.dtype == pixels.dtype and thermal.dtype.isnative
    np.testing.assert_array_equal(thermal, pixels)


@PADDINGS
@pytest.mark.parametrize("encoding", COLOUR_ENCODINGS)
def test_a_colour_thermal_image_becomes_its_gray_level(encoding, padding):
    pixels = random_visible()
    thermal = view_image(build_message(encoding, pixels, padding), "thermal").to_thermal()
    luma = pixels @ [0.299, 0.587, 0.114]
    assert thermal.dtype == np.uint8
    np.testing.assert_allclose(thermal, luma, atol=1)


@pytest.mark.parametrize(
    ("encoding", "stream"),
    [("rgb8", "visible"), ("mono8", "thermal"), ("8UC1", "thermal")]
    + [(encoding, "thermal") for encoding in ("mono16", "16UC1", "32FC1")],
)
@PADDINGS
def test_nothing_is_copied_where_the_layout_allows_it(encoding, stream, padding):
    pixels = random_visible() if encoding == "rgb8" else gray_pixels(encoding)
    message = build_message(encoding, pixels, padding, big_endian=sys.byteorder == "big")
    view = view_image(message, stream)
    result = view.to_rgb() if stream == "visible" else view.to_thermal()
    assert np.shares_memory(result, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("encoding", LAYOUTS)
def test_looking_at_a_message_copies_nothing(encoding):
    pixels = random_visible() if encoding in COLOUR_ENCODINGS else gray_pixels(encoding)
    message = build_message(encoding, pixels, padding=3)
    assert np.shares_memory(view_image(message, "thermal").pixels, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("encoding", ["mono16", "16UC1", "32FC1"])
def test_more_than_eight_bits_are_no_visible_image(encoding):
    with pytest.raises(ConversionError, match=f"{encoding} is no visible image; publish rgb8"):
        view_image(build_message(encoding, gray_pixels(encoding)), "visible")


@pytest.mark.parametrize(("encoding", "step"), [("rgb8", 29), ("mono8", 9), ("mono16", 19), ("32FC1", 39)])
def test_a_step_smaller_than_a_row_is_refused(encoding, step):
    message = Image(height=6, width=10, encoding=encoding, step=step, data=bytes(6 * 40))
    with pytest.raises(ConversionError, match=f"step {step} is too small for 10 pixels of {encoding}"):
        view_image(message, "thermal")


def test_a_step_larger_than_the_data_is_refused():
    message = build_message("rgb8", random_visible())
    message.step += 1
    with pytest.raises(ConversionError, match="data has 180 bytes, but step 31 x height 6 = 186"):
        view_image(message, "visible")


def test_missing_data_is_refused():
    message = build_message("mono8", random_thermal())
    message.data = message.data[:-1]
    with pytest.raises(ConversionError, match="data has 59 bytes"):
        view_image(message, "thermal")


@pytest.mark.parametrize(("height", "width"), [(0, 10), (6, 0), (0, 0)])
def test_an_empty_image_is_refused(height, width):
    message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    with pytest.raises(ConversionError, match=f"the image is empty \\({width}x{height}\\)"):
        view_image(message, "visible")


@pytest.mark.skipif(HAS_CV_BRIDGE, reason="cv_bridge is installed here, so nothing is missing")
def test_without_cv_bridge_other_encodings_are_refused_by_name():
    message = Image(height=2, width=2, encoding="yuv422", step=4, data=bytes(8))
    with pytest.raises(ConversionError, match=r"'yuv422' needs cv_bridge, which is not installed.*rgb8"):
        view_image(message, "visible")


@pytest.mark.parametrize("error", [AttributeError("newbyteorder"), ImportError("cv_bridge_boost"), TypeError("pair")])
def test_whatever_cv_bridge_raises_is_a_refusal(monkeypatch, error):
    """A build for NumPy 1 beside NumPy 2 fails in its own ways, which must not end the node."""

    class Bridge:
        def imgmsg_to_cv2(self, message, wanted):
            raise error

    monkeypatch.setitem(sys.modules, "cv_bridge", SimpleNamespace(CvBridge=Bridge))
    message = Image(height=2, width=2, encoding="bayer_rggb16", step=4, data=bytes(8), is_bigendian=1)
    with pytest.raises(ConversionError, match=f"cv_bridge cannot convert encoding 'bayer_rggb16': {error}"):
        view_image(message, "visible")


@pytest.mark.skipif(not HAS_CV_BRIDGE, reason="cv_bridge is not installed here (there is none on PyPI)")
class TestCvBridge:
    def test_gray_yuv422_becomes_gray_rgb(self):
        message = Image(height=2, width=4, encoding="yuv422", step=8, data=bytes([128, 90] * 8))
        rgb = view_image(message, "visible").to_rgb()
        assert rgb.shape == (2, 4, 3)
        assert np.ptp(rgb) <= 2

    def test_an_even_bayer_image_stays_even(self):
        message = Image(height=6, width=8, encoding="bayer_rggb8", step=8, data=bytes([77] * 48))
        rgb = view_image(message, "visible").to_rgb()
        np.testing.assert_array_equal(rgb, np.full((6, 8, 3), 77))

    def test_an_unknown_encoding_is_refused_by_name(self):
        message = Image(height=2, width=2, encoding="nonsense", step=4, data=bytes(8))
        with pytest.raises(ConversionError, match="nonsense"):
            view_image(message, "visible")


def test_the_published_message_uses_its_memory_again():
    output = ImageMessage("rgb8")
    first = output.fill(random_visible(seed=1), Header())
    memory = np.frombuffer(first.data, np.uint8)
    second = output.fill(random_visible(seed=2), Header())
    assert second is first
    assert np.shares_memory(memory, np.frombuffer(second.data, np.uint8))


@pytest.mark.parametrize("sizes", [[(4, 6), (8, 2), (4, 6)], [(4, 6), (6, 4)], [(9, 9), (1, 1)]])
def test_the_published_message_follows_every_size(sizes):
    output = ImageMessage("rgb8")
    for height, width in sizes:
        rgb = random_visible(height, width)
        message = output.fill(rgb, Header(frame_id="camera"))
        assert (message.height, message.width, message.step) == (height, width, 3 * width)
        assert (message.encoding, message.header.frame_id) == ("rgb8", "camera")
        assert bytes(message.data) == rgb.tobytes()


def test_the_published_message_takes_cropped_images():
    rgb = random_visible(12, 12)[2:8, 3:9]
    assert bytes(ImageMessage("rgb8").fill(rgb, Header()).data) == rgb.tobytes()


def test_the_published_message_takes_masks_of_every_size_cropped_or_not():
    output = ImageMessage("mono8")
    for mask in (random_thermal(4, 6), random_thermal(8, 2), random_thermal(12, 12)[2:8, 3:9]):
        message = output.fill(mask, Header(frame_id="camera"))
        assert (message.height, message.width, message.step) == (*mask.shape, mask.shape[1])
        assert (message.encoding, message.header.frame_id) == ("mono8", "camera")
        assert bytes(message.data) == mask.tobytes()


@st.composite
def images(draw):
    """An encoding and pixels that fit it, sometimes not contiguous."""
    encoding = draw(st.sampled_from(sorted(LAYOUTS)))
    code, channels = LAYOUTS[encoding]
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    shape = shape if len(channels) == 1 else (*shape, len(channels))
    pixels = draw(numpy_strategies.arrays(DTYPES[code], shape))
    return encoding, pixels[::-1] if draw(st.booleans()) else pixels


@given(images())
def test_pixels_survive_the_way_into_a_message_and_out_again(image):
    encoding, pixels = image
    message = make_image(pixels, encoding, Header(frame_id="camera"))
    assert (message.encoding, message.header.frame_id) == (encoding, "camera")
    assert message.step * message.height == len(message.data)
    view = view_image(message, "thermal")
    np.testing.assert_array_equal(view.pixels, pixels)
    assert not np.shares_memory(view.pixels, pixels)


@pytest.mark.parametrize("encoding", VISIBLE_ENCODINGS)
def test_a_made_message_is_what_the_encoding_says(encoding):
    pixels = random_visible() if encoding in COLOUR_ENCODINGS else random_thermal()
    built = build_message(encoding, pixels)
    channels = {"rgb8": pixels, "bgr8": pixels[..., ::-1], "mono8": pixels, "8UC1": pixels}
    if encoding not in channels:
        alpha = np.full((*pixels.shape[:2], 1), 77, np.uint8)
        colours = pixels if encoding == "rgba8" else pixels[..., ::-1]
        channels[encoding] = np.concatenate([colours, alpha], axis=-1)
    assert bytes(make_image(channels[encoding], encoding, Header()).data) == bytes(built.data)


def test_a_stamp_is_read_to_the_nanosecond():
    header = Header()
    header.stamp.sec, header.stamp.nanosec = 1_700_000_000, 123_456_789
    assert read_stamp(header) == 1_700_000_000_123_456_789


def test_a_negative_stamp_is_refused():
    header = Header()
    header.stamp.sec = -3
    with pytest.raises(ConversionError, match=r"negative \(-3 s\)"):
        read_stamp(header)
