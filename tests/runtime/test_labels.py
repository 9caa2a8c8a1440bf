"""Label readers: hand-made files of each format, round trips, and what each says of bad ones."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vifa_runtime.labels import (
    VEDAI_CLASSES,
    LabelError,
    Labels,
    check_mask,
    format_yolo,
    parse_vedai,
    parse_vedai_table,
    parse_voc,
    parse_yolo,
    read_mask,
    read_text,
    read_voc,
    read_yolo,
)

NAMES = ("People", "Car")


def voc(objects: str = "", size: str = "<size><width>100</width><height>50</height><depth>3</depth></size>") -> bytes:
    return f"<annotation>\n<filename>0.png</filename>\n{size}\n{objects}</annotation>\n".encode()


def voc_object(name="Car", box=(10, 5, 30, 25)) -> str:
    edges = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inside = "".join(f"<{key}>{value}</{key}>" for key, value in edges if value is not None)
    return f"<object>\n<name>{name}</name>\n<bndbox>{inside}</bndbox></object>\n"


def test_yolo_boxes_by_hand():
    # Centre (25, 20) of an image 100 wide and 40 high, 20 by 10 pixels: from (15, 15) to (35, 25).
    labels = parse_yolo("2 0.25 0.5 0.2 0.25\n\n 0  0.5  0.5 1 1  ", (40, 100), 3, "a.txt")
    assert labels.labels.tolist() == [2, 0]
    np.testing.assert_allclose(labels.boxes, [[15, 15, 35, 25], [0, 0, 100, 40]], atol=1e-5)
    assert (labels.boxes.dtype, labels.labels.dtype) == (np.float32, np.int64)


def test_an_empty_file_means_that_nothing_is_there():
    for labels in (
        parse_yolo("", (4, 4), 1, ""),
        parse_vedai(" \n", (4, 4), ""),
        parse_voc(voc(), (50, 100), NAMES, ""),
    ):
        assert labels.boxes.shape == (0, 4)
        assert labels.labels.shape == (0,)


def test_yolo_boxes_are_clipped_to_the_image():
    labels = parse_yolo("0 0.05 0.95 0.2 0.2", (100, 100), 1, "")
    np.testing.assert_allclose(labels.boxes, [[0, 85, 15, 100]], atol=1e-4)


@given(
    st.integers(1, 2000),
    st.integers(1, 2000),
    st.lists(st.tuples(*[st.floats(0, 1) for _ in range(4)], st.integers(0, 8)), max_size=5),
)
def test_yolo_text_round_trips(height, width, drawn):
    boxes = []
    for x1, y1, x2, y2, _ in drawn:
        left, right = sorted((x1 * width, x2 * width))
        top, bottom = sorted((y1 * height, y2 * height))
        boxes.append((left, top, max(right, left + 0.01 * width), max(bottom, top + 0.01 * height)))
    boxes = np.clip(np.array(boxes, np.float32).reshape(-1, 4), 0, [width, height] * 2).astype(np.float32)
    keep = ((boxes[:, 2:] - boxes[:, :2]) > [0.005 * width, 0.005 * height]).all(axis=1)
    labels = Labels(boxes[keep], np.array([row[4] for row in drawn], np.int64)[keep])
    again = parse_yolo(format_yolo(labels, (height, width)), (height, width), 9, "")
    assert again.labels.tolist() == labels.labels.tolist()
    np.testing.assert_allclose(again.boxes, labels.boxes, atol=1e-3)
    assert (again.boxes >= 0).all() and (again.boxes <= [width, height] * 2).all()


@pytest.mark.parametrize(
    "line,reason",
    [
        ("0 0.5 0.5 0.1", "has 4 words"),
        ("0 0.5 0.5 0.1 0.1 0.9", "has 6 words"),
        ("3 0.5 0.5 0.1 0.1", "class 3, but there are 3"),
        ("-1 0.5 0.5 0.1 0.1", "'-1'; expected a whole number"),
        ("0.0 0.5 0.5 0.1 0.1", "'0.0'; expected a whole number"),
        ("car 0.5 0.5 0.1 0.1", "'car'; expected a whole number"),
        ("0 0.5 nan 0.1 0.1", "expected numbers"),
        ("0 0.5 inf 0.1 0.1", "expected numbers"),
        ("0 0.5 half 0.1 0.1", "expected numbers"),
        ("0 320 240 64 48", "expected shares of the image in 0..1"),
        ("0 -0.1 0.5 0.5 0.5", "expected shares of the image in 0..1"),
        ("0 0.5 0.5 0 0.1", "without area"),
        ("0 0.5 0.5 0.1 -0.0005", "without area"),
        ("0 1.0005 0.5 0.0002 0.1", "outside the image"),
    ],
)
def test_wrong_yolo_lines_are_named_by_file_and_line(line, reason):
    with pytest.raises(LabelError, match=r"a\.txt, line 2: ") as refusal:
        parse_yolo(f"0 0.5 0.5 0.1 0.1\n{line}\n", (480, 640), 3, "a.txt")
    assert reason in str(refusal.value)


def test_all_wrong_lines_of_a_file_are_told_at_once():
    with pytest.raises(LabelError) as refusal:
        parse_yolo("1 2\n0 0.5 0.5 0.1 0.1\n9 0.5 0.5 0.1 0.1\n", (4, 4), 1, "a.txt")
    assert [problem[:13] for problem in refusal.value.problems] == ["a.txt, line 1", "a.txt, line 3"]


def test_classes_are_not_checked_where_nobody_named_them():
    assert parse_yolo("77 0.5 0.5 0.1 0.1", (4, 4), None, "").labels.tolist() == [77]


def test_voc_boxes_by_hand():
    data = voc(voc_object("car") + voc_object("People", (90.5, -3, 120, 60)))
    labels = parse_voc(data, (50, 100), NAMES, "a.xml")
    assert labels.labels.tolist() == [1, 0]
    assert labels.boxes.tolist() == [[10, 5, 30, 25], [90.5, 0, 100, 50]]


def test_boxes_of_parts_and_unknown_sizes_are_passed_over():
    part = "<part><name>wheel</name><bndbox><xmin>0</xmin></bndbox></part>"
    thing = voc_object().replace("</object>", f"{part}</object>")
    for size in ("", "<size><width>0</width><height>0</height></size>", "<size><width>x</width></size>"):
        assert parse_voc(voc(thing, size), (50, 100), NAMES, "").boxes.tolist() == [[10, 5, 30, 25]]


@pytest.mark.parametrize(
    "thing,reason",
    [
        (voc_object("Tram"), "line 4: the class 'Tram' is unknown; use one of people, car"),
        (voc_object(box=(1, 2, None, None)), "line 4: the box lacks xmax, ymax"),
        (voc_object(box=(30, 5, 10, 25)), "line 4: the box has no area"),
        (voc_object(box=(200, 5, 300, 25)), "line 4: the box is outside the image"),
        (voc_object(box=("a", 5, 10, 25)), "line 4: has 'a 5 10 25'; expected numbers"),
        ("<object></object>", "line 4: the class '' is unknown"),
        (voc_object() + voc_object("Tram"), "line 7: the class 'Tram'"),
    ],
)
def test_wrong_voc_objects_are_named_by_line(thing, reason):
    with pytest.raises(LabelError, match=r"^a\.xml, ") as refusal:
        parse_voc(voc(thing), (50, 100), NAMES, "a.xml")
    assert reason in str(refusal.value)


def test_an_annotation_of_another_size_is_refused():
    with pytest.raises(LabelError, match=r"a\.xml: is made for an image of 100x50, the image is 50x25"):
        parse_voc(voc(), (25, 50), NAMES, "a.xml")


BOMB = b'<!DOCTYPE a [<!ENTITY x "1"><!ENTITY y "&x;&x;&x;">]>' + voc().replace(b"0.png", b"&y;")
THIEF = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + voc().replace(b"0.png", b"&x;")


@pytest.mark.parametrize(
    "data,reason",
    [
        (BOMB, "DOCTYPE"),
        (THIEF, "DOCTYPE"),
        (BOMB.decode().encode("utf-16"), "DOCTYPE"),
        (b"<!DOCTYPE a SYSTEM 'http://localhost/a.dtd'>" + voc(), "DOCTYPE"),
        (b"", "is no XML"),
        (b"no xml", "is no XML"),
        (voc()[:-5], "is no XML"),
        (voc().replace(b"0.png", b"&nbsp;"), "is no XML"),
        (b"<html></html>", "holds <html>, not an <annotation>"),
        (b"<annotation>" + b"<a>" * 10**5, "nests more than"),
    ],
)
def test_dangerous_and_broken_xml_is_refused(data, reason):
    with pytest.raises(LabelError, match=r"^a\.xml: ") as refusal:
        parse_voc(data, (50, 100), NAMES, "a.xml")
    assert reason in str(refusal.value)


# x y orientation class contained occluded x1..x4 y1..y4
ROW = "200.5 100.5 0.7 2 1 0 180 205 221 196 98 80 103 121"


def test_vedai_corners_become_upright_boxes_by_hand():
    labels = parse_vedai(ROW, (512, 512), "a.txt")
    assert labels.boxes.tolist() == [[180, 80, 221, 121]]
    assert [VEDAI_CLASSES[i] for i in labels.labels] == ["truck"]


def test_both_vedai_layouts_hold_the_same():
    words = ROW.split()
    table_row = " ".join([*words[:3], *words[6:], "002", *words[4:6]])
    table = parse_vedai_table(f"00000001 {table_row}\n00000007 {table_row}\n00000001 {table_row}", (512, 512), "a")
    one = parse_vedai(ROW, (512, 512), "a.txt")
    assert sorted(table) == ["00000001", "00000007"]
    assert table["00000007"].boxes.tolist() == one.boxes.tolist()
    assert table["00000001"].labels.tolist() == 2 * one.labels.tolist()


@pytest.mark.parametrize(
    "code,name", [(1, "car"), (7, "other"), (8, "other"), (11, "pickup"), (23, "boat"), (31, "plane")]
)
def test_vedai_codes(code, name):
    words = ROW.split()
    labels = parse_vedai(" ".join([*words[:3], str(code), *words[4:]]), (512, 512), "")
    assert VEDAI_CLASSES[labels.labels[0]] == name


def test_vedai_vehicles_at_the_edge_and_outside():
    inside, outside = "0 0 0 1 0 0 -20 10 10 -20 -5 -5 30 30", "0 0 0 1 0 0 -20 -5 -5 -20 4 4 9 9"
    assert parse_vedai(f"{inside}\n{outside}", (512, 512), "").boxes.tolist() == [[0, 0, 10, 30]]


def test_vedai_rows_without_corners_make_an_image_unusable():
    assert parse_vedai(f"{ROW}\n200 100 2 1 0", (512, 512), "") is None
    assert parse_vedai_table("00000003 200 100 2 1 0", (512, 512), "") == {"00000003": None}


@pytest.mark.parametrize(
    "line,reason",
    [
        ("1 2 3", "has 3 columns; expected 14"),
        (ROW.replace(" 2 1 0 ", " 3 1 0 "), "class code 3; expected one of 1, 2, 4"),
        (ROW.replace("180", "x"), "expected numbers"),
    ],
)
def test_wrong_vedai_rows_are_named_by_line(line, reason):
    with pytest.raises(LabelError, match=r"a\.txt, line 2: ") as refusal:
        parse_vedai(f"{ROW}\n{line}", (512, 512), "a.txt")
    assert reason in str(refusal.value)
    with pytest.raises(LabelError, match=r"b\.txt, line 1: has 4 columns; expected 15"):
        parse_vedai_table("00000001 1 2 3", (512, 512), "b.txt")


def test_masks_of_one_or_three_equal_channels(tmp_path):
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    for image in (ids, np.repeat(ids[:, :, None], 3, axis=2)):
        cv2.imwrite(str(tmp_path / "m.png"), image)
        assert read_mask(tmp_path / "m.png", 3).tolist() == ids.tolist()


@pytest.mark.parametrize(
    "image,reason",
    [
        (np.array([[0, 3, 254]], np.uint8), "has the class ids 3, 254; expected 0..2, or 255 for unknown"),
        (np.arange(99, dtype=np.uint8)[None], "has the class ids 3, 4, 5, 6, 7, ...; expected 0..2"),
        (np.array([[[0, 0, 1]]], np.uint8), "is a colour image"),
        (np.zeros((2, 2), np.uint16), "holds uint16"),
    ],
)
def test_wrong_masks_are_named(image, reason):
    with pytest.raises(LabelError, match=r"^m\.png ") as refusal:
        check_mask(image, 3, "m.png")
    assert reason in str(refusal.value)


@given(hnp.arrays(np.uint8, (3, 4)), st.integers(1, 254))
def test_a_mask_passes_exactly_if_its_ids_are_in_range(mask, count):
    if ((mask >= count) & (mask != 255)).any():
        with pytest.raises(LabelError):
            check_mask(mask, count, "")
    else:
        assert (check_mask(mask, count, "") == mask).all()


def test_files_that_cannot_be_read_are_named(tmp_path):
    for read in (lambda path: read_yolo(path, (4, 4), 1), lambda path: read_voc(path, (4, 4), NAMES), read_text):
        with pytest.raises(Exception, match=r"cannot read .*gone\.txt: No such file"):
            read(tmp_path / "gone.txt")
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    with pytest.raises(LabelError, match=r"latin\.txt is no text in UTF-8"):
        read_text(tmp_path / "latin.txt")
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 1 1\n")
    assert read_yolo(tmp_path / "marked.txt", (4, 4), 1).boxes.tolist() == [[0, 0, 4, 4]]
