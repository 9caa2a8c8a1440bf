"""~/enable, ~/save_frame and <task>.max_rate_hz on a running node."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from images import expected_bright, expected_dim, random_thermal, random_visible
from robot import drops, robots, wait_until
from std_srvs.srv import SetBool, Trigger

from vifa.msg import FusionStatus
from vifa_ros import saving

VISIBLE, THERMAL = random_visible(), random_thermal()


@pytest.fixture
def saver(start_robot, tmp_path):
    """A running node that saves into a folder of its own; nobody listens to it."""
    robot = start_robot(save_folder=str(tmp_path / "frames"))
    robot.connect_cameras()
    return robot


def save(robot) -> Trigger.Response:
    return robot.call(Trigger, "save_frame", Trigger.Request())


def test_a_saved_frame_holds_the_pair_and_every_task_s_result_though_nobody_listens(saver, tmp_path):
    with saver.filming("visible", image=VISIBLE), saver.filming("thermal", image=THERMAL):
        answer = save(saver)
    folder = Path(answer.message)
    assert answer.success and folder.parent == tmp_path / "frames"
    pictures = {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in folder.glob("*.png")}
    assert set(pictures) == {"visible.png", "thermal.png", "bright.png", "dim.png"}
    np.testing.assert_array_equal(pictures["visible.png"], VISIBLE[:, :, ::-1])
    np.testing.assert_array_equal(pictures["thermal.png"], THERMAL)
    np.testing.assert_array_equal(pictures["bright.png"], expected_bright(VISIBLE, THERMAL)[:, :, ::-1])
    np.testing.assert_array_equal(pictures["dim.png"], expected_dim(VISIBLE, THERMAL)[:, :, ::-1])
    about = json.loads((folder / "frame.json").read_text())
    assert folder.name == f"{about['stamp_ns'] // 10**9}.{about['stamp_ns'] % 10**9:09d}"
    assert about["milliseconds"]["fusion"] > 0
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_frame_after_a_saved_one_is_nobody_s_business_again(saver):
    with saver.filming("visible", image=VISIBLE), saver.filming("thermal", image=THERMAL):
        assert save(saver).success
        status = saver.wait_for_status(lambda status: drops(status.dropped).get("nobody_listens", 0) > 3, "drops")
        later = saver.wait_for_status(lambda later: later.formed > status.formed + 3, "pairs")
    assert later.processed == status.processed


def test_degrees_are_saved_as_they_are(saver):
    degrees = THERMAL.astype(np.float32) / 7
    with saver.filming("visible", image=VISIBLE), saver.filming("thermal", image=degrees, encoding="32FC1"):
        answer = save(saver)
    found = cv2.imread(str(Path(answer.message) / "thermal.tiff"), cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, degrees)


def test_what_is_found_is_saved_too(ros, finding_bundle, tmp_path):
    with robots(finding_bundle) as start:
        robot = start(save_folder=str(tmp_path))
        robot.connect_cameras()
        with robot.filming("visible", image=VISIBLE), robot.filming("thermal", image=THERMAL):
            folder = Path(save(robot).message)
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("visible.png", "thermal.png", "frame.json", "bright.png", "cells.png", "cells_overlay.png"),
        *("glare.png", "glare_overlay.png", "glare_mask.png"),
    }
    found = json.loads((folder / "frame.json").read_text())["detections"]["cells"]
    assert all(set(entry) == {"box", "score", "class"} and len(entry["box"]) == 4 for entry in found)


def test_without_a_pair_it_says_what_is_missing(saver, monkeypatch):
    monkeypatch.setattr("vifa_ros.fusion_node.SAVE_TIMEOUT", 0.3)
    answer = save(saver)
    assert not answer.success
    assert answer.message.startswith("no pair was processed for 0.3 s; are both cameras running?")


def test_an_inactive_node_saves_nothing(saver):
    assert saver.change_state("deactivate")
    assert save(saver).message == "not active (state inactive); activate the node first"


def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(saver, tmp_path, monkeypatch):
    """The third file meets /dev/full, which is what a full file system answers."""
    with saver.filming("visible", image=VISIBLE), saver.filming("thermal", image=THERMAL):
        first = save(saver)
        write, written = saving.write_image, []

        def write_until_full(path: Path, pixels) -> None:
            written.append(path)
            if len(written) == 3:
                Path("/dev/full").write_bytes(b"a byte")
            write(path, pixels)

        monkeypatch.setattr(saving, "write_image", write_until_full)
        answer = save(saver)
        monkeypatch.undo()
        assert save(saver).success
    assert not answer.success
    assert answer.message == f"save_folder {tmp_path / 'frames'}: No space left on device"
    assert len(written) == 3
    assert len(list((tmp_path / "frames").iterdir())) == 2 and Path(first.message).is_dir()
    assert all((folder / "frame.json").is_file() for folder in (tmp_path / "frames").iterdir())


def test_a_folder_that_cannot_be_made_is_named(start_robot, tmp_path):
    (tmp_path / "file").write_text("")
    robot = start_robot(save_folder=str(tmp_path / "file" / "frames"))
    robot.connect_cameras()
    with robot.filming("visible"), robot.filming("thermal"):
        answer = save(robot)
    assert not answer.success and answer.message.startswith(f"save_folder {tmp_path}/file/frames: Not a directory")


def test_a_disabled_node_computes_nothing_counts_and_says_so(robot):
    robot.listen("bright")
    robot.connect_cameras()
    with robot.filming("visible"), robot.filming("thermal"):
        robot.wait_for_status(lambda status: status.processed > 2, "pairs")
        answer = robot.call(SetBool, "enable", SetBool.Request(data=False))
        assert (answer.success, answer.message) == (True, "disabled")
        status = robot.wait_for_status(lambda status: drops(status.dropped).get("disabled", 0) > 3, "dropped pairs")
        assert (status.level, status.message) == (FusionStatus.WARN, "disabled by the service ~/enable")
        assert status.showing == "nothing"
        later = robot.wait_for_status(lambda later: later.formed > status.formed + 3, "pairs")
        assert later.processed == status.processed
        assert robot.call(SetBool, "enable", SetBool.Request(data=True)).message == "enabled"
        robot.wait_for_status(lambda later: later.processed > status.processed + 2, "pairs")
        assert robot.statuses[-1].showing == "both"


def test_it_stays_disabled_through_a_transition(robot):
    robot.call(SetBool, "enable", SetBool.Request(data=False))
    assert robot.change_state("deactivate") and robot.change_state("activate")
    robot.wait_for_status(lambda status: status.message == "disabled by the service ~/enable", "the reason")


def test_a_task_s_rate_is_limited_and_that_of_others_is_not(robot):
    robot.listen("bright", "dim")
    robot.connect_cameras()
    assert robot.set_parameter("dim.max_rate_hz", 10.0).successful
    for number in range(31):
        stamp = 1.0 + number / 30
        robot.deliver("visible", VISIBLE, stamp)
        robot.deliver("thermal", THERMAL, stamp)
        robot.wait_for_image("bright", stamp)
    wait_until(lambda: len(robot.images["dim"]) == 11, "every third pair")
    status = robot.wait_for_status(lambda status: status.processed == 31, "all pairs")
    assert drops(status.dropped) == {}
    assert [task.published for task in status.tasks] == [31, 11]


def test_a_pair_that_no_task_wants_yet_is_counted(start_robot):
    robot = start_robot(**{"bright.max_rate_hz": 1.0})
    robot.listen("bright")
    robot.connect_cameras()
    for stamp in (1.0, 1.1, 1.2, 2.0):
        robot.deliver("visible", VISIBLE, stamp)
        robot.deliver("thermal", THERMAL, stamp)
        wait_until(lambda: robot.node._worker.counts().in_flight == 0, "the pair to be worked on")
    status = robot.wait_for_status(lambda status: status.formed == 4, "four pairs")
    assert (status.processed, drops(status.dropped)) == (2, {"not_due": 2})


@pytest.mark.parametrize("rate", [-1.0, 1e6])
def test_a_rate_out_of_range_is_refused(robot, rate):
    robot.connect_cameras()
    assert not robot.set_parameter("bright.max_rate_hz", rate).successful


def test_a_wrong_rate_at_the_start_is_a_failure_that_names_it(start_robot):
    robot = start_robot(**{"bright.max_rate_hz": -1.0})
    status = robot.wait_for_status(lambda status: status.level == FusionStatus.ERROR, "an error")
    assert "bright.max_rate_hz" in status.message
    assert robot.state() == "unconfigured"
