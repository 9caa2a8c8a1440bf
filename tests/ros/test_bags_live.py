"""`vifa evaluate --live`: a bag played into the real node, and the same report as of the bag without it."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from evaluations import run, settings_of, write_bag_of, write_labels, write_pairs
from hypothesis import given
from hypothesis import strategies as st
from robot import robots, wait_until
from vision_msgs.msg import Detection2DArray

from vifa_ros.bag_player import BagPlayer
from vifa_ros.bags.errors import BagError
from vifa_ros.bags.live import DETECTIONS, IMAGE, NOT_HEARD, NodeCounts, ResultQueue
from vifa_ros.bags.opening import Bag
from vifa_ros.bags.session import METRICS
from vifa_ros.findings import make_detections
from vifa_ros.listening import read_detections
from vifa_ros.live_evaluating import evaluate_live
from vifa_runtime.bundle import load_bundle
from vifa_runtime.metrics import Detections

NODE = "/live/fusion_node"
STREAMS = ("visible", "thermal")
HEARD = [f"/live/{stream}/image_raw" for stream in STREAMS]
REMAP = [f"/{stream}/{name}:=/live/{stream}/{name}" for stream in STREAMS for name in ("image_raw", "camera_info")]


class Playing:
    """Plays a bag into a node, waiting before each message until all pairs before it are through."""

    def __init__(self, bag: Path, robot) -> None:
        self._bag, self._robot = bag, robot
        self.player: BagPlayer
        self._thread = threading.Thread(target=self._play, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _play(self) -> None:
        with Bag(self._bag) as bag:
            rules = [part for rule in REMAP for part in ("-r", rule)]
            options = {"use_global_arguments": False, "cli_args": ["--ros-args", *rules]}
            self.player = BagPlayer(bag, rate=1000.0, **options)
            try:
                self._robot.connect_cameras()
                assert self.player.wait_for_listeners(60.0)
                for camera in (found for found in self.player.publishers if found.topic_name in HEARD):
                    wait_until(camera.get_subscription_count, f"a listener on {camera.topic_name}")
                self.player.play(self._wait)
            finally:
                self.player.destroy_node()

    def _wait(self, topic: str, number: int) -> None:
        if not topic.endswith("image_raw"):
            return
        sent = {stream: self.player.sent[f"/{stream}/image_raw"] for stream in STREAMS}
        counts = self._robot.node.cameras.counts
        wait_until(lambda: all(counts(stream).received == sent[stream] for stream in STREAMS), f"{sent} to arrive")
        wait_until(lambda: not self._robot.node.make_status().in_flight, "the pairs to be processed")


def measure_live(bag: Path, folder: Path, bundle: Path, robot, quiet: float = 2.0, **options) -> dict:
    assert robot.change_state("deactivate") and robot.change_state("activate")  # no frames of the test before
    playing = Playing(bag, robot)
    settings = settings_of(metrics=METRICS, **options)
    try:
        told = evaluate_live(bag, folder, NODE, str(bundle), settings, 60.0, quiet, playing.start)
    finally:
        playing.join()
    report = json.loads((folder / "report.json").read_text())
    assert {key: report[key] for key in told} == json.loads(json.dumps(told))
    return report


@pytest.fixture(scope="module")
def recorded(finding_bundle, tmp_path_factory):
    folder = write_labels(write_pairs(tmp_path_factory.mktemp("live") / "pairs", 8), finding_bundle)
    return write_bag_of(folder, folder.parent / "bag", skew=0.004)


@pytest.fixture(scope="module")
def live_robot(ros, finding_bundle):
    """A node that goes by the bag's clock."""
    with robots(finding_bundle) as start:
        robot = start("/live", use_sim_time=True)
        robot.wait_for_state("active")
        yield robot


def test_a_bag_played_into_the_node_gives_the_same_report_as_the_bag_alone(
    live_robot, finding_bundle, recorded, tmp_path
):
    alone = run(recorded, tmp_path / "alone", finding_bundle, as_published=True)
    live = measure_live(recorded, tmp_path / "live", finding_bundle, live_robot)
    assert {row["metric"] for row in live["rows"]} >= {"en", "vif", "ssim", "map50_all", "miou"}
    assert live["rows"] == alone["rows"], "every task, metric and tag, to the bit"
    assert live["frames"] == alone["frames"] and len({row["stamp"] for row in live["frames"]}) == 8
    assert live["drops"] == alone["drops"] == []
    counted = ("stream", "received", "paired", "dropped")
    assert [[row[key] for key in counted] for row in live["streams"]] == [[stream, 8, 8, 0] for stream in STREAMS]
    assert {row["file"] for row in live["worst"]} == {row["file"] for row in alone["worst"]}
    assert live["meta"]["settings"]["results"] == f"of the node {NODE}"
    assert {row["stage"] for row in live["latency"]} >= {"fusion", "publish", "latency"}


def test_of_what_the_node_drops_the_rest_is_measured_and_the_reasons_are_told(
    live_robot, finding_bundle, recorded, tmp_path
):
    alone = run(recorded, tmp_path / "alone", finding_bundle, as_published=True)
    fuse, calls = live_robot.node._worker._handle, []

    def lose_some(pipeline, pair):
        calls.append(pair)
        return "superseded" if len(calls) in (3, 8) else fuse(pipeline, pair)

    live_robot.node._worker._handle = lose_some
    try:
        live = measure_live(recorded, tmp_path / "live", finding_bundle, live_robot)
    finally:
        live_robot.node._worker._handle = fuse
    lost = {2, 7}
    assert live["frames"] == [row for row in alone["frames"] if row["index"] not in lost]
    assert live["drops"] == [{"what": "pair", "reason": "superseded", "count": 2}]
    assert any(note.startswith("2 of 8 pairs") for note in live["meta"]["notes"])


def test_another_bundle_than_the_nodes_is_refused(live_robot, tiny_bundle, recorded, tmp_path):
    with pytest.raises(BagError, match="runs finding, not tiny"):
        measure_refused(recorded, tmp_path / "out", tiny_bundle, NODE, 60.0)


def test_a_node_that_is_not_there_is_refused(ros, finding_bundle, recorded, tmp_path):
    with pytest.raises(BagError, match="/nobody says nothing"):
        measure_refused(recorded, tmp_path / "out", finding_bundle, "/nobody", 0.2)
    assert not any(tmp_path.iterdir())


def test_where_nothing_is_played_nothing_is_written(live_robot, finding_bundle, recorded, tmp_path):
    with pytest.raises(BagError, match="got no image"):
        measure_refused(recorded, tmp_path / "out", finding_bundle, NODE, 2.0)
    assert not any(tmp_path.iterdir())


def measure_refused(bag: Path, folder: Path, bundle: Path, node: str, wait: float) -> None:
    evaluate_live(bag, folder, node, str(bundle), settings_of(), wait, 1.0)


# What comes and what does not


def queue_of(bundle: Path, folder: Path) -> ResultQueue:
    """Of `bright`, with an image alone, and `cells`, with boxes too."""
    return ResultQueue([task for task in load_bundle(bundle).tasks if task.name != "glare"], folder)


def nothing() -> Detections:
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@given(st.data())
def test_pairs_get_their_own_results_whatever_is_lost_and_in_whatever_order_topics_come(
    finding_bundle, tmp_path_factory, data
):
    folder = tmp_path_factory.mktemp("queue")
    queue, stamps = queue_of(finding_bundle, folder), range(0, 60, 10)
    kept = {key: data.draw(st.sets(st.sampled_from(stamps)), label=str(key)) for key in queue.outputs}
    strangers = data.draw(st.sets(st.integers(0, 59).filter(lambda stamp: stamp % 10)), label="of no pair")
    streams = {key: sorted(kept[key] | strangers) for key in queue.outputs}
    order = data.draw(st.permutations([key for key, found in streams.items() for _ in found]), label="order")
    taken = {}

    def take_all():
        taken.update({stamp: queue.take(stamp) for stamp in stamps})

    asking = threading.Thread(target=take_all, daemon=True)
    asking.start()
    for key in order:
        stamp = streams[key].pop(0)
        queue.add(*key, stamp, nothing() if key[1] == DETECTIONS else np.full((2, 3, 3), stamp, np.uint8))
    queue.end()
    asking.join(60.0)
    whole = set.intersection(*kept.values())
    assert {stamp for stamp, results in taken.items() if results is not None} == whole
    for stamp in whole:
        assert {task: image[0, 0, 0] for task, image in taken[stamp].fused.items()} == {"bright": stamp, "cells": stamp}


def test_a_dropped_pair_is_known_as_soon_as_a_later_one_came_so_that_nothing_piles_up(finding_bundle, tmp_path):
    queue = queue_of(finding_bundle, tmp_path)
    for task, output in queue.outputs:
        queue.add(task, output, 2, nothing() if output == DETECTIONS else np.zeros((2, 3, 3), np.uint8))
    answers = []
    asking = threading.Thread(target=lambda: answers.append(queue.take(1)), daemon=True)
    asking.start()
    asking.join(10.0)
    assert answers == [None]
    assert queue.take(2) is not None


def test_who_waits_hears_what_went_wrong(finding_bundle, tmp_path):
    queue = queue_of(finding_bundle, tmp_path)
    queue.end(BagError("the node is gone"))
    with pytest.raises(BagError, match="the node is gone"):
        queue.take(0)


def test_results_that_wait_take_no_memory_and_their_files_go(finding_bundle, tmp_path):
    queue = queue_of(finding_bundle, tmp_path)
    for stamp in (1, 2):
        for task, output in queue.outputs:
            queue.add(task, output, stamp, nothing() if output == DETECTIONS else np.zeros((2, 3, 3), np.uint8))
    assert len([*tmp_path.iterdir()]) == sum(output == IMAGE for _, output in queue.outputs) * 2
    assert queue.take(2) is not None, "what came before belongs to no pair"
    assert not [*tmp_path.iterdir()] and queue.heard == 2


FLOATS = st.integers(0, 2000 * 4096).map(lambda number: number / 4096)  # pixels that float32 holds


@given(st.lists(st.tuples(FLOATS, FLOATS, FLOATS, FLOATS, st.floats(0, 1, width=32), st.integers(0, 2)), max_size=5))
def test_boxes_come_back_from_messages_as_they_were(finding_bundle, found):
    classes = next(task for task in load_bundle(finding_bundle).tasks if task.name == "cells").classes
    rows = [(*sorted((a, b)), *sorted((c, d)), score, label) for a, b, c, d, score, label in found]
    boxes = np.array([(left, top, right, bottom) for left, right, top, bottom, *_ in rows], np.float32).reshape(-1, 4)
    scores, labels = np.array([row[4] for row in rows], np.float32), np.array([row[5] for row in rows], int)
    published = Detections(boxes, scores, labels)
    message = make_detections(published, classes, Detection2DArray().header)
    for ours, theirs in zip(read_detections(message, classes), published, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_pairs_that_were_processed_and_not_heard_are_counted():
    counts = NodeCounts(lost={("pair", "superseded"): 2, ("thermal", "bad_image"): 0}, processed=9, heard=8)
    assert counts.drops() == [
        {"what": "pair", "reason": "superseded", "count": 2},
        {"what": "pair", "reason": NOT_HEARD, "count": 1},
    ]
