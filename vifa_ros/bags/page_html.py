"""Markup whose text is always escaped: whatever is not `Html` is text, wherever it comes from.

Every element is closed, so that a page made here parses as XML too.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

NO_VALUE = "–"

_EMPTY = frozenset({"br", "circle", "img", "line", "link", "meta", "path", "rect", "wbr"})
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_SEAMS = re.compile("(?<=[./_])")


class Html(str):
    """Markup that is whole and safe to put into a page."""

    __slots__ = ()


def text(content: Any) -> Html:
    """Content as markup: `Html` as it is, nothing for None, and of all else the escaped text.

    Characters that no page may hold, such as NUL and halves of surrogate pairs, become U+FFFD.
    """
    if isinstance(content, Html):
        return content
    return Html("" if content is None else html.escape(_FORBIDDEN.sub("\ufffd", str(content))))


def join(parts: Iterable[Any], between: Any = "") -> Html:
    """The parts one after the other, with `between` between them; each is text or `Html`."""
    return Html(text(between).join(text(part) for part in parts))


def tag(element: str, /, *content: Any, **attributes: Any) -> Html:
    """One element.

    Args:
        content: text or `Html`; None is nothing.
        attributes: an underscore stands for a hyphen, one at the end is dropped (`class_`); None leaves one out.
    """
    named = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None)
    start = element + "".join(f' {key}="{text(value)}"' for key, value in named)
    return Html(f"<{start} />" if element in _EMPTY else f"<{start}>{join(content)}</{element}>")


def noted(content: Any, note: Any) -> Html:
    """Content with a note in small print below it; None or nothing is no note."""
    return join([content, " ", tag("small", note)]) if note else text(content)


def hidden_text(content: Any) -> Html:
    """Text that is read out but not seen."""
    return tag("span", content, class_="unseen")


def breakable(name: str) -> Html:
    """A long name that may be broken after its dots, slashes and underscores."""
    return join(_SEAMS.split(name), tag("wbr"))


def is_number(value: Any) -> bool:
    """Whether a value of a report is a number, NaN included; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a value of a report is a number that can be drawn."""
    return is_number(value) and math.isfinite(value)


def number(value: Any, decimals: int = 4) -> Html:
    """A number to read, with all its digits in `<data value>`; a dash for None and NaN.

    Args:
        decimals: of fractions up to 100000; larger ones, and those that would be zero, have four significant digits.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return tag("span", tag("span", NO_VALUE, aria_hidden="true"), hidden_text("no value"))
    return tag("data", plain_number(value, decimals), value=value) if is_number(value) else text(value)


def plain_number(value: float, decimals: int = 4) -> str:
    """As `number`, the digits to read alone; of numbers that are not NaN."""
    size = abs(value)
    if math.isinf(size):
        shown = "∞"
    elif isinstance(value, int):
        shown = f"{size:,d}"
    else:
        shown = f"{size:.{decimals}f}" if size == 0 or 10**-decimals <= size < 1e5 else f"{size:.4g}"
    return f"−{shown}" if value < 0 else shown


@dataclass(frozen=True)
class Column:
    """A column of a table: its header, and the class of its cells.

    `number` sets them flush right; a `picture` repeats what other cells say, and is left out where it is narrow.
    """

    title: Any
    class_: str | None = None


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[Any]]) -> Html:
    """A table in a box of its own, which scrolls sideways where the screen is narrow.

    Args:
        rows: each with one cell a column, text or `Html`; the first one is its row's header.
    """
    heads = (tag("th", column.title, scope="col", class_=column.class_) for column in columns)
    body = (
        tag(
            "tr",
            tag("th", cells[0], scope="row"),
            *(tag("td", cell, class_=of.class_) for of, cell in zip(columns[1:], cells[1:], strict=True)),
        )
        for cells in rows
    )
    whole = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *heads)),
        tag("tbody", join(body, "\n")),
    )
    return tag("div", whole, class_="scroll", tabindex="0", role="group", aria_label=caption)
