"""What tasks find, as messages of vision_msgs. Masks are images: see `conversions.ImageMessage`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass

from vifa_runtime.bundle import Task, TaskClass
from vifa_runtime.metrics import Detections


def make_detections(detections: Detections, classes: Sequence[TaskClass], header: Any) -> Detection2DArray:
    """All detections of one image, in the order in which they are given; a message without any where nothing was found.

    Args:
        detections: boxes (N,4), x1 y1 x2 y2 in pixels, scores (N,) and labels (N,) of `classes`.
        classes: of the task; a detection's class_id is the name of its class.
        header: of the image in which they were found; every detection has it too.
    """
    rows = zip(*(np.asarray(column).tolist() for column in detections), strict=True)  # plain numbers
    found = [_make_detection(box, score, classes[label].name, header) for box, score, label in rows]
    return Detection2DArray(header=header, detections=found)


def make_label_info(task: Task, stamp: Any) -> LabelInfo:
    """The names of a task's classes by the ids in its masks, and the score above which it detects; 0 for masks."""
    info = LabelInfo(threshold=task.score if task.kind == "detection" else 0.0)
    info.header.stamp = stamp
    info.class_map = [VisionClass(class_id=number, class_name=found.name) for number, found in enumerate(task.classes)]
    return info


def _make_detection(box: Sequence[float], score: float, name: str, header: Any) -> Detection2D:
    left, top, right, bottom = box
    detection = Detection2D(header=header)
    detection.bbox.center.position.x, detection.bbox.center.position.y = (left + right) / 2, (top + bottom) / 2
    detection.bbox.size_x, detection.bbox.size_y = right - left, bottom - top
    result = ObjectHypothesisWithPose()
    result.hypothesis.class_id, result.hypothesis.score = name, score
    detection.results = [result]
    return detection
