"""Values and errors of others as a part of one line that a person reads."""

from __future__ import annotations


def shown(value: object) -> str:
    """A value as it is written in Python, in at most 40 characters."""
    try:
        return f"{value!r:.40}"
    except ValueError:  # an integer of more digits than Python prints
        return "a huge number"


def first_line(error: object, longest: int = 300) -> str:
    """The first line of what an error says, in at most `longest` characters."""
    return str(error).strip().partition("\n")[0][:longest]
