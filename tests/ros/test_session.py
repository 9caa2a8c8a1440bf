"""Player, fusion node and recorder on real topics: everything is accounted for, and one lost increment shows."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rclpy.executors import SingleThreadedExecutor
from robot import Spinner, laws_hold, wait_until

from vifa_ros import demo
from vifa_ros.outputs import TaskOutput
from vifa_ros.pairing import PairingBuffer
from vifa_ros.players import PlayerNode, PlaySettings
from vifa_ros.recorder import Recorder, to_dictionary
from vifa_ros.worker import Worker

FRAMES, RATE = 24, 40.0
SETTLED = 25  # equal statuses one after the other, 20 of them a second


class Scenes:
    """Small noisy pairs; the thermal image of every fifth is all NaN, so that the node must drop its pair."""

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        thermal = rng.normal(20, 5, (12, 16)).astype(np.float32)
        if index % 5 == 0:
            thermal[:] = np.nan
        return rng.integers(0, 256, (12, 16, 3), np.uint8), thermal


class Session:
    """A fusion node with a recorder that listens to all tasks, ready for the player."""

    def __init__(self, start_robot, **parameters) -> None:
        self.robot = start_robot("/", **parameters)
        self.recorder = Recorder("/fusion_node")
        self._spinner = Spinner(SingleThreadedExecutor(), self.recorder)
        self.robot.connect_cameras()
        self.robot.wait_for_status(
            lambda status: status.tasks and all(task.wanted for task in status.tasks), "the recorder to listen"
        )

    def run(self) -> dict:
        """Play some frames, of which each camera drops a few, and return the row of the summary."""
        settings = PlaySettings(rate=RATE, frames=FRAMES, skew=0.002, drop=0.2, seed=3)
        player = PlayerNode(Scenes(), settings)
        assert player.wait_for_listeners(10.0)
        player.play()
        self._wait_until_settled()
        player.destroy_node()
        self._spinner.stop()
        heard = {"results": self.recorder.results, "status": to_dictionary(self.recorder.status)}
        return demo.summarise(demo.DemoSettings(None, FRAMES / RATE, RATE, "tiny", Path()), player.sent, heard)["rows"][
            0
        ]

    def _wait_until_settled(self) -> None:
        def counts(status) -> tuple:
            return status.visible.received, status.thermal.received, status.formed, status.processed

        def is_settled() -> bool:
            last = self.robot.statuses[-SETTLED:]
            return len({counts(status) for status in last}) == 1 and last[-1].visible.received > 0

        wait_until(is_settled, "the end of the session")


def forget_once(owner, method: str, forget, applies=lambda *_: True):
    """Wrap a method: after its first call that `applies(result, self, *arguments)`, call `forget(self, *arguments)`."""
    original, done = getattr(owner, method), []

    def wrapped(self, *arguments):
        result = original(self, *arguments)
        if not done and applies(result, self, *arguments):
            done.append(True)
            forget(self, *arguments)
        return result

    return owner, method, wrapped


def forget_frame(counter: str, applies=lambda *_: True):
    """Undo one increment of a stream's counter."""

    def forget(buffer: PairingBuffer, stream: str, *_: object) -> None:
        take_one(buffer._streams[stream], counter)

    return forget_once(PairingBuffer, "add", forget, applies)


def forget_pair(method: str, counter: str, applies=lambda *_: True):
    """Undo one increment of a worker's counter."""
    return forget_once(Worker, method, lambda worker, _: take_one(worker, counter), applies)


def take_one(owner: object, counter: str) -> None:
    value = getattr(owner, counter)
    if isinstance(value, Counter):
        value[next(iter(+value))] -= 1
    else:
        setattr(owner, counter, value - 1)


def lose_result(recorder: Recorder, output: str, *_: object) -> None:
    recorder.results[output].pop()


TAMPERINGS = {
    "received": lambda: forget_frame("received"),
    "paired": lambda: forget_frame("paired", lambda pairs, *_: pairs),
    "frame dropped": lambda: forget_frame("dropped", lambda _, buffer, stream, *__: buffer._streams[stream].dropped),
    "formed": lambda: forget_pair("submit", "_formed"),
    "processed": lambda: forget_pair("_finish", "_processed", lambda _, __, reason: reason is None),
    "pair dropped": lambda: forget_pair("_finish", "_dropped", lambda _, __, reason: reason is not None),
    "published": lambda: forget_once(TaskOutput, "publish", lambda output, *_: take_one(output, "published")),
    "result": lambda: forget_once(Recorder, "_receive", lose_result),
}
BREAK_NO_LAW = {"published", "result"}


def test_a_session_is_fully_accounted_for(start_robot):
    row = Session(start_robot).run()
    assert row["unaccounted"] == 0 and row["unaccounted_by_check"] == {}
    assert 0 < row["frames_sent"]["visible"] < FRAMES
    assert row["processed"] == row["published"]["bright"] == row["published"]["dim"] > 0
    assert row["dropped"]["pair.bad_image"] > 0
    assert row["dropped"]["visible.no_partner"] > 0 and row["dropped"]["thermal.no_partner"] > 0


def test_a_session_in_which_something_is_found_is_fully_accounted_for(start_robot, finding_bundle):
    session = Session(start_robot, bundle=str(finding_bundle))
    row = session.run()
    assert row["unaccounted"] == 0 and row["unaccounted_by_check"] == {}
    assert row["published"] == dict.fromkeys(("bright", "cells", "glare"), row["processed"])
    assert row["detections"] == {"cells": row["processed"]} and row["masks"] == {"glare": row["processed"]}
    assert set(session.recorder.results) == {
        *("bright/image", "cells/image", "cells/detections", "cells/overlay"),
        *("glare/image", "glare/mask", "glare/overlay"),
    }


@pytest.mark.parametrize("output", ["cells/detections", "glare/overlay"])
def test_one_lost_message_of_what_was_found_is_unaccounted_for(start_robot, finding_bundle, monkeypatch, output):
    monkeypatch.setattr(
        *forget_once(Recorder, "_receive", lose_result, lambda _, __, received, *___: received == output)
    )
    row = Session(start_robot, bundle=str(finding_bundle)).run()
    assert row["unaccounted_by_check"] == {f"results of {output}": 2}, "against published, and against processed"


@pytest.mark.parametrize("counter", TAMPERINGS)
def test_one_missing_increment_is_unaccounted_for(start_robot, monkeypatch, counter):
    monkeypatch.setattr(*TAMPERINGS[counter]())
    session = Session(start_robot)
    assert session.run()["unaccounted"] != 0
    assert laws_hold(session.recorder.status) == (counter in BREAK_NO_LAW)
