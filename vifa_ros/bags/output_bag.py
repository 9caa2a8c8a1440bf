"""What the node would have published for the pairs of a bag, as a bag that RViz and Foxglove play."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vifa_ros.bags.camera_pairs import BagPair
from vifa_ros.bags.messages import make_compressed, make_detections, make_header, make_image, make_label_info
from vifa_ros.bags.writing import BagWriter
from vifa_runtime.bundle import Task
from vifa_runtime.metrics import Labels
from vifa_runtime.pipeline import Results
from vifa_runtime.render import render_overlay

NODE = "/fusion_node"
RAW, JPEG = "raw", "jpeg"
IMAGES = (RAW, JPEG)
QUALITY = 90  # of JPEG, as the node's default


class OutputBag:
    """Writes results under the node's names of topics and with the visible images' headers."""

    def __init__(self, bag: BagWriter, tasks: Sequence[Task], images: str) -> None:
        """Begin.

        Args:
            bag: open; closed by whoever opened it.
            tasks: of the bundle.
            images: `raw`, or `jpeg` for <topic>/compressed.
        """
        self._bag, self._tasks, self._images = bag, tasks, images
        self._told: set[str] = set()

    def write(self, pair: BagPair, results: Results) -> None:
        """Write what was made of one pair, at the time at which the pair was complete."""
        header = make_header(pair.visible_stamp, pair.visible_frame_id)
        for task in self._tasks:
            if task.name not in results.fused:
                continue
            place = f"{NODE}/{task.name}"
            if task.classes and task.name not in self._told:
                names = [known.name for known in task.classes]
                self._bag.write(f"{place}/label_info", pair.arrival, make_label_info(names, header), latched=True)
                self._told.add(task.name)
            self._write_image(f"{place}/image", pair.arrival, results.fused[task.name], header)
            if task.name in results.detections:
                found = results.detections[task.name]
                labels = Labels(np.asarray(found.boxes), np.asarray(found.labels))
                names = [known.name for known in task.classes]
                message = make_detections(labels, np.asarray(found.scores).tolist(), names, header)
                self._bag.write(f"{place}/detections", pair.arrival, message)
            if task.name in results.masks:
                self._bag.write(f"{place}/mask", pair.arrival, make_image(results.masks[task.name], "mono8", header))
            if task.kind != "fusion":
                self._write_image(f"{place}/overlay", pair.arrival, render_overlay(results, task), header)

    def _write_image(self, topic: str, arrival: int, pixels: NDArray[np.uint8], header: Any) -> None:
        if self._images == JPEG:
            message = make_compressed(pixels, "rgb8", JPEG, QUALITY, header)
            self._bag.write(f"{topic}/compressed", arrival, message)
        else:
            self._bag.write(topic, arrival, make_image(pixels, "rgb8", header))
