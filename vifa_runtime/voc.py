"""The XML of Pascal VOC annotations: objects with their lines, by a parser that knows no entities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.parsers import expat

_OBJECT = ("annotation", "object")
_DEEPEST = 16  # annotations nest four tags


class VocError(ValueError):
    """An annotation that is no plain XML; the message says what is wrong."""


@dataclass(frozen=True)
class VocObject:
    """One labelled object: the line of its tag, its name, and the texts of its `bndbox` by tag."""

    line: int
    name: str
    box: Mapping[str, str]


@dataclass
class VocAnnotation:
    """What an annotation holds: objects, and (height, width) in pixels where it states them."""

    objects: list[VocObject] = field(default_factory=list)
    size: tuple[int, int] | None = None


def parse_voc_xml(data: bytes) -> VocAnnotation:
    """Read the parts of an annotation that are used here; everything else is passed over.

    Raises:
        VocError: it is no XML, its root is not `annotation`, or it declares a document type: entities could make a
            small file fill the memory or read other files.
    """
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = lambda tag, _: reader.start(tag, parser.CurrentLineNumber)
    parser.EndElementHandler = lambda _: reader.end()
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise VocError(f"is no XML ({error}); replace it") from None
    return reader.annotation


def _refuse_doctype(*_: object) -> None:
    raise VocError("declares a document type; remove the DOCTYPE")


class _Reader:
    """Collects texts by the path of their tags."""

    def __init__(self) -> None:
        self.annotation = VocAnnotation()
        self._path: list[str] = []
        self._line = 0
        self._texts: dict[tuple[str, ...], str] = {}

    def start(self, tag: str, line: int) -> None:
        if not self._path and tag != "annotation":
            raise VocError(f"holds <{tag[:40]}>, not an <annotation>; replace it")
        if len(self._path) == _DEEPEST:
            raise VocError(f"nests more than {_DEEPEST} tags; replace it")
        self._path.append(tag)
        if tuple(self._path) == _OBJECT:
            self._line = line
            self._texts.clear()

    def text(self, text: str) -> None:
        key = tuple(self._path)
        self._texts[key] = self._texts.get(key, "") + text

    def end(self) -> None:
        path = tuple(self._path)
        if path == _OBJECT:
            self._finish_object()
        elif path == ("annotation", "size"):
            self._finish_size()
        self._path.pop()

    def _finish_object(self) -> None:
        inside = {path[2:]: text.strip() for path, text in self._texts.items() if path[:2] == _OBJECT}
        box = {path[1]: text for path, text in inside.items() if len(path) == 2 and path[0] == "bndbox"}
        self.annotation.objects.append(VocObject(self._line, inside.get(("name",), ""), box))

    def _finish_size(self) -> None:
        texts = [self._texts.get(("annotation", "size", key), "").strip() for key in ("height", "width")]
        if all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts):
            self.annotation.size = int(texts[0]), int(texts[1])
