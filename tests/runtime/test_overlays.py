"""Boxes, labels and masks drawn over an image."""

import numpy as np
import pytest

from vifa_runtime.bundle import Task, TaskClass
from vifa_runtime.metrics import Detections
from vifa_runtime.palette import default_colours
from vifa_runtime.pipeline import Results
from vifa_runtime.render import draw_detections, draw_mask, render_overlay

VGA = (480, 640)
RED, YELLOW = TaskClass("person", (200, 0, 0)), TaskClass("car", (250, 250, 0))
CLASSES = (RED, YELLOW)
GRAY = 77


def plain(size=VGA):
    return np.full((*size, 3), GRAY, np.uint8)


def found(*rows):
    """Detections from rows (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(table[:, :4].astype(np.float32), table[:, 4].astype(np.float32), table[:, 5].astype(np.int64))


def has(image, colour):
    """Where an image is of exactly this colour, (H,W)."""
    return (image == np.array(colour, np.uint8)).all(axis=2)


def test_a_box_is_drawn_on_its_edge_in_the_colour_of_its_class():
    """A small image, so that lines are one pixel wide."""
    image = plain((200, 300))
    drawn = draw_detections(image, found((20, 50, 80, 120, 0.9, 0), (120, 60, 280, 190, 0.8, 1)), CLASSES)
    assert (drawn.shape, drawn.dtype) == (image.shape, np.uint8)
    assert (image == GRAY).all()
    for colour, (x1, y1, x2, y2) in ((RED.colour, (20, 50, 80, 120)), (YELLOW.colour, (120, 60, 280, 190))):
        frame = np.zeros((200, 300), bool)
        frame[y1:y2, x1:x2] = True
        frame[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = False
        np.testing.assert_array_equal(has(drawn, colour)[y1:], frame[y1:])  # above lies the label
    assert (drawn[190:] == GRAY).all()


def label_of(drawn, top, left, colour, height=30, width=200):
    """Rows and columns of the ground of the label near a corner of a box, and the picture in it."""
    part = drawn[max(0, top - height) : top, left : left + width]
    rows, columns = np.nonzero(has(part, colour))
    return part[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@pytest.mark.parametrize(("label", "ink_is_dark"), [(0, False), (1, True)])
def test_the_label_can_be_read_at_vga(label, ink_is_dark):
    """Letters of ten rows at least, of full contrast, on a ground of the class's colour."""
    colour = CLASSES[label].colour
    drawn = draw_detections(plain(), found((100, 200, 180, 320, 0.9, label)), CLASSES)
    part = label_of(drawn, 199, 100, colour).astype(int)
    ink = part.max(axis=2) < 60 if ink_is_dark else part.min(axis=2) > 200
    rows, columns = np.nonzero(ink)
    assert rows.max() - rows.min() >= 9
    assert columns.max() - columns.min() > 40
    assert has(part, colour).mean() > 0.5


def test_the_label_tells_class_and_score():
    """Other words and numbers give other pictures; the same ones the same."""

    def label(name, score):
        drawn = draw_detections(plain(), found((100, 200, 180, 320, score, 0)), [TaskClass(name, RED.colour)])
        return drawn[170:200].tobytes()

    pictures = {label("person", 0.91), label("person", 0.19), label("animal", 0.91)}
    assert len(pictures) == 3
    assert label("person", 0.91) == label("person", 0.912) in pictures


@pytest.mark.parametrize(
    "box", [(0, 0, 50, 60), (600, 0, 640, 90), (639, 479, 640, 480), (0, 470, 5, 480), (0, 0, 640, 480)]
)
def test_labels_of_boxes_at_the_edge_stay_inside(box):
    drawn = draw_detections(plain(), found((*box, 0.5, 0)), CLASSES)
    height, width = label_size()
    assert has(drawn, RED.colour).sum() > 0.5 * height * width


def label_size():
    drawn = draw_detections(plain(), found((300, 200, 301, 201, 0.5, 0)), CLASSES)
    rows, columns = np.nonzero(has(drawn, RED.colour))
    return rows.max() - rows.min(), columns.max() - columns.min()


def test_better_boxes_lie_on_top():
    both = [(100, 200, 180, 320, 0.9, 0), (100, 200, 180, 320, 0.3, 1)]
    for rows in (both, both[::-1]):
        drawn = draw_detections(plain(), found(*rows), CLASSES)
        assert has(drawn, RED.colour)[250, 100]


def test_nothing_found_is_the_image_itself_in_a_copy():
    image = plain()
    drawn = draw_detections(image, found(), CLASSES)
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3), (2000, 3000)])
def test_images_of_any_size_can_be_drawn_on(size):
    height, width = size
    drawn = draw_detections(plain(size), found((0, 0, width, height, 1, 0), (0, 0, 0.3, 0.3, 0.1, 1)), CLASSES)
    assert drawn.shape == (*size, 3)
    assert (drawn != GRAY).any()


def test_names_of_any_script_do_not_crash():
    draw_detections(plain(), found((10, 40, 90, 90, 1, 0)), [TaskClass("Größe 熱", (9, 9, 9))])


def test_views_are_drawn_on_as_they_look():
    image = np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)[::-1, 4:70]
    for drawn in (
        draw_detections(image, found(), CLASSES),
        draw_mask(image, np.full(image.shape[:2], 255, np.uint8), CLASSES),
    ):
        np.testing.assert_array_equal(drawn, image)


def test_a_mask_is_blended_and_unknown_pixels_are_left_alone():
    image, mask = plain((4, 6)), np.full((4, 6), 255, np.uint8)
    mask[0], mask[1], mask[2] = 0, 1, 2  # of a class, of another, of none
    drawn = draw_mask(image, mask, CLASSES, opacity=0.25)
    np.testing.assert_allclose(drawn[0, 0], 0.75 * GRAY + 0.25 * np.array(RED.colour), atol=0.5)
    np.testing.assert_allclose(drawn[1, 5], 0.75 * GRAY + 0.25 * np.array(YELLOW.colour), atol=0.5)
    assert (drawn[2:] == GRAY).all()
    assert (image == GRAY).all()


@pytest.mark.parametrize(("opacity", "level"), [(0, (GRAY, GRAY, GRAY)), (1, RED.colour)])
def test_opacity_from_nothing_to_all(opacity, level):
    drawn = draw_mask(plain((2, 2)), np.zeros((2, 2), np.uint8), CLASSES, opacity)
    assert (drawn == np.array(level, np.uint8)).all()


def test_a_mask_of_254_classes():
    classes = [TaskClass(f"class {n}", colour) for n, colour in enumerate(default_colours(254))]
    drawn = draw_mask(plain((16, 16)), np.arange(256, dtype=np.uint8).reshape(16, 16), classes, 1)
    np.testing.assert_array_equal(drawn.reshape(-1, 3)[:254], [found.colour for found in classes])
    assert (drawn.reshape(-1, 3)[254:] == GRAY).all()


def test_the_overlay_of_each_kind_of_task():
    image, mask = plain((40, 60)), np.zeros((40, 60), np.uint8)
    fused = {"plain": image, "boxes": image, "areas": image}
    results = Results(fused, {}, {"boxes": found((10, 20, 40, 39, 0.9, 0))}, {"areas": mask})
    overlay = render_overlay(results, Task("boxes", "detection", classes=CLASSES))
    np.testing.assert_array_equal(overlay, draw_detections(image, results.detections["boxes"], CLASSES))
    assert (overlay != GRAY).any()
    overlay = render_overlay(results, Task("areas", "segmentation", classes=CLASSES))
    np.testing.assert_array_equal(overlay, draw_mask(image, mask, CLASSES))
    assert (overlay != GRAY).all(axis=2).all()
    overlay = render_overlay(results, Task("plain", "fusion"))
    np.testing.assert_array_equal(overlay, image)
    assert not np.shares_memory(overlay, image)
