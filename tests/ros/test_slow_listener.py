"""A listener that stops taking its images must not hold up the worker, the status, or anybody else."""

import signal

from images import random_thermal, random_visible
from processes import running
from robot import wait_until

PAIRS = 80  # of VGA: two tasks of them are more than the shared memory of the DDS profile holds


def test_a_listener_that_hangs_holds_up_nobody(start_robot, tmp_path):
    robot = start_robot("/")
    robot.connect_cameras()
    with running("vifa_ros.recorder", "--node", "/fusion_node", "--output", tmp_path) as recorder:
        robot.wait_for_status(lambda status: all(task.wanted for task in status.tasks), "the recorder to listen")
        robot.listen("bright")
        recorder.send_signal(signal.SIGSTOP)
        visible, thermal = random_visible(480, 640), random_thermal(480, 640)
        for i in range(1, PAIRS + 1):
            robot.deliver("visible", visible, 1.0 + 0.1 * i)
            robot.deliver("thermal", thermal, 1.0 + 0.1 * i)
            wait_until(lambda n=i: robot.node._worker.counts().processed == n, f"pair {i} to be processed")
        wait_until(lambda: len(robot.images["bright"]) == PAIRS, "the other listener to hear every image")
        status = robot.wait_for_status(lambda status: status.processed == PAIRS, "the status")
    assert [task.published for task in status.tasks] == [PAIRS, PAIRS]
