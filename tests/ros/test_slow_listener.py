"""A listener that stops taking its images must not hold up the worker, the status, or anybody else."""

import signal

import pytest
from images import random_thermal, random_visible
from processes import running
from robot import wait_until

PAIRS = 80  # of VGA: two tasks of them are more than the shared memory of the DDS profile holds


@pytest.mark.parametrize("bundle", ["tiny_bundle", "finding_bundle"])
def test_a_listener_that_hangs_holds_up_nobody(start_robot, tmp_path, request, bundle):
    robot = start_robot("/", bundle=str(request.getfixturevalue(bundle)))
    robot.connect_cameras()
    with running("vifa_ros.recorder", "--node", "/fusion_node", "--output", tmp_path) as recorder:
        robot.wait_for_status(lambda status: all(task.wanted for task in status.tasks), "the recorder to listen")
        others = ["bright/image"] if bundle == "tiny_bundle" else ["bright/image", "cells/detections", "glare/overlay"]
        robot.listen_to(*others)
        recorder.send_signal(signal.SIGSTOP)
        visible, thermal = random_visible(480, 640), random_thermal(480, 640)
        for i in range(1, PAIRS + 1):
            robot.deliver("visible", visible, 1.0 + 0.1 * i)
            robot.deliver("thermal", thermal, 1.0 + 0.1 * i)
            wait_until(lambda n=i: robot.node._worker.counts().processed == n, f"pair {i} to be processed")
        for output in others:
            wait_until(lambda o=output: len(robot.heard[o]) == PAIRS, f"the other listener to hear every {output}")
        status = robot.wait_for_status(lambda status: status.processed == PAIRS, "the status")
    assert {task.published for task in status.tasks} == {PAIRS}
