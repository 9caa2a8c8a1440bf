"""What tasks find as messages: there and back through the bytes that go over the wire."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from rclpy.serialization import deserialize_message, serialize_message
from robot import boxes_of, make_header
from vision_msgs.msg import Detection2DArray, LabelInfo

from vifa_ros.findings import make_detections, make_label_info
from vifa_runtime.bundle import Task, TaskClass
from vifa_runtime.metrics import Detections

LARGEST = 16384  # pixels a side
HEADER = make_header(12.5, "visible_camera")
names = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=64)
classes = st.lists(names, min_size=1, max_size=254, unique=True).map(
    lambda chosen: tuple(TaskClass(name, (0, 0, 0)) for name in chosen)
)


@st.composite
def findings(draw):
    """Classes, and detections of them: upright boxes with or without area, anywhere in the largest image."""
    known = draw(classes)
    count = draw(st.integers(0, 6))
    pixels = st.floats(0, LARGEST, width=32)
    corners = draw(numpy_strategies.arrays(np.float32, (count, 2, 2), elements=pixels))
    scores = draw(numpy_strategies.arrays(np.float32, count, elements=st.floats(0, 1, width=32)))
    labels = draw(numpy_strategies.arrays(np.int64, count, elements=st.integers(0, len(known) - 1)))
    return known, Detections(np.sort(corners, axis=1).reshape(-1, 4), scores, labels)


def through_the_wire(message):
    return deserialize_message(serialize_message(message), type(message))


@given(findings())
def test_detections_survive_the_way_into_a_message_and_out_again(finding):
    known, detections = finding
    message = through_the_wire(make_detections(detections, known, HEADER))
    assert isinstance(message, Detection2DArray) and message.header == HEADER
    found = boxes_of(message)
    assert [known[label].name for label in detections.labels] == [name for name, *_ in found]
    np.testing.assert_array_equal([score for _, score, *_ in found], detections.scores)
    boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for _, _, x, y, w, h in found]
    np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), detections.boxes, rtol=0, atol=1e-9)


@given(findings())
def test_every_detection_stands_for_itself(finding):
    known, detections = finding
    for detection in make_detections(detections, known, HEADER).detections:
        assert detection.header == HEADER
        assert len(detection.results) == 1
        assert (detection.id, detection.bbox.center.theta) == ("", 0.0)
        assert not np.any(detection.results[0].pose.covariance)


@given(classes, st.floats(0, 1, width=32))
def test_label_info_maps_every_id_to_its_name(known, score):
    task = Task("cells", "detection", classes=known, score=score)
    info = through_the_wire(make_label_info(task, HEADER.stamp))
    assert isinstance(info, LabelInfo)
    assert {entry.class_id: entry.class_name for entry in info.class_map} == dict(enumerate(c.name for c in known))
    assert len(info.class_map) == len(known)
    assert info.threshold == score
    assert (info.header.stamp, info.header.frame_id) == (HEADER.stamp, "")


def test_masks_have_no_threshold():
    task = Task("glare", "segmentation", classes=(TaskClass("dark", (0, 0, 0)),))
    assert make_label_info(task, HEADER.stamp).threshold == 0.0


def test_detections_whose_parts_do_not_fit_together_are_refused():
    detections = Detections(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="shorter"):
        make_detections(detections, (TaskClass("red", (255, 0, 0)),), HEADER)
