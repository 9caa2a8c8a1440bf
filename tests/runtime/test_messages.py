"""What messages tell of values and errors: one line, of a length to read."""

import pytest

from vifa_runtime.messages import first_line, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1"), ("a\nb", r"'a\nb'"), (None, "None"), ("x" * 99, "'" + "x" * 39)],
)
def test_a_value_is_shown_in_one_short_line(value, text):
    assert shown(value) == text


def test_a_number_that_python_refuses_to_print():
    assert shown(10**5000) in ("a huge number", "1" + "0" * 39)  # Python before 3.10.7 prints it


def test_an_error_is_its_first_line():
    assert first_line(ValueError("\nthe reason\nand much more")) == "the reason"
    assert first_line("x" * 1000) == "x" * 300
    assert first_line("x" * 1000, 20) == "x" * 20
    assert first_line(ValueError()) == ""
