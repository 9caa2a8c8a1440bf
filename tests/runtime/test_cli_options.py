"""How the commands read a size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vifa_runtime.backends import BackendError
from vifa_runtime.backends.engine_cache import size_text
from vifa_runtime.cli_options import LARGEST_SIDE, parse_size

SIDES = st.integers(16, LARGEST_SIDE)


@given(SIDES, SIDES)
def test_a_size_is_read_as_it_is_written(height, width):
    assert parse_size(size_text((height, width)), 16) == (height, width)


@given(st.integers(0, 15) | st.integers(LARGEST_SIDE + 1, 10**9), SIDES, st.booleans())
def test_a_side_out_of_range_is_refused(wrong, right, is_width):
    text = f"{wrong}x{right}" if is_width else f"{right}x{wrong}"
    with pytest.raises(BackendError, match=f"--size must be WIDTHxHEIGHT of 16 to 8192 pixels.* got '{text}'"):
        parse_size(text, 16)


NO_SIZES = ["", "x", "640", "640x", "x480", "640X480", "-64x64", "64x64x64", "64 x64", "64x64\n", "²x²", "6e2x64"]


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BackendError, match="--size must be WIDTHxHEIGHT"):
        parse_size(text, 0)
