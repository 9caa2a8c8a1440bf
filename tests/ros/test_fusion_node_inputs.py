"""What the node takes in: compressed images, alignments, pairings, publishers that don't fit."""

import array

import cv2
import numpy as np
import pytest
from images import expected_bright, random_thermal, random_visible
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from robot import CAMERA_QOS, LATE_QOS, drops, laws_hold, make_header, wait_until
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from vifa.msg import FusionStatus
from vifa_runtime.alignment import Alignment
from vifa_runtime.alignment_files import write_alignment
from vifa_runtime.pixel_maps import HomographyMap

VISIBLE, THERMAL = random_visible(), random_thermal()


# Compressed images.


def compressed(pixels: np.ndarray, stamp: float, frame: str) -> CompressedImage:
    data = cv2.imencode(".png", pixels[:, :, ::-1] if pixels.ndim == 3 else pixels)[1]
    return CompressedImage(header=make_header(stamp, frame), format="png", data=array.array("B", data.tobytes()))


def test_compressed_topics_are_fused_and_a_broken_image_is_counted_and_told(start_robot):
    transports = {"visible.transport": "compressed", "thermal.transport": "compressed"}
    robot = start_robot(**transports, **{"thermal.mode": "fixed"})  # 0 to 65535
    cameras = {
        stream: robot.friend.create_publisher(CompressedImage, f"{stream}/image_raw/compressed", CAMERA_QOS)
        for stream in ("visible", "thermal")
    }
    robot.listen("bright")
    robot.wait_for_state("active")
    for camera in cameras.values():
        wait_until(camera.get_subscription_count, "a listener")

    def show(stamp: float, visible: CompressedImage | None = None) -> None:
        cameras["visible"].publish(visible or compressed(VISIBLE, stamp, "visible_camera"))
        cameras["thermal"].publish(compressed(THERMAL.astype(np.uint16) * 257, stamp, "thermal_camera"))

    show(1.0)
    np.testing.assert_array_equal(robot.wait_for_image("bright", 1.0), expected_bright(VISIBLE, THERMAL))
    broken = compressed(VISIBLE, 2.0, "visible_camera")
    broken.data = broken.data[: len(broken.data) // 4]
    show(2.0, broken)
    status = robot.wait_for_status(lambda status: drops(status.dropped).get("bad_image"), "a dropped pair")
    assert "pair dropped: the visible PNG cannot be decoded" in status.message
    broken.data, broken.header.stamp.sec = array.array("B", b"no image"), 3
    show(3.0, broken)
    status = robot.wait_for_status(lambda status: drops(status.visible.dropped).get("bad_image"), "a dropped frame")
    assert "neither JPEG nor PNG" in status.visible.problem and "/visible/image_raw/compressed" in status.message
    show(4.0)
    robot.wait_for_image("bright", 4.0)
    assert robot.wait_for_status(lambda status: status.processed == 2, "two pairs").level == FusionStatus.OK


def test_compressed_results_are_made_for_who_listens_to_them(robot):
    robot.listen_to("bright/image/compressed")
    robot.connect_cameras()
    smooth = cv2.GaussianBlur(random_visible(240, 320), (0, 0), 3)
    dark = np.zeros((240, 320), np.uint8)
    robot.show_pair(smooth, dark, 1.0)
    sent = robot.wait_for("bright/image/compressed", 1.0)
    found = cv2.imdecode(np.frombuffer(sent.data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert np.abs(found.astype(int) - smooth).mean() < 2
    assert robot.set_parameter("jpeg_quality", 10).successful
    robot.show_pair(smooth, dark, 2.0)
    assert len(robot.wait_for("bright/image/compressed", 2.0).data) < len(sent.data) / 2


# Alignment.


def test_an_alignment_file_is_obeyed(start_robot, tmp_path):
    matrix = (1.0, 0.0, 4.0, 0.0, 1.0, 2.0, 0.0, 0.0, 1.0)  # the thermal image lies 4 right and 2 down
    alignment = Alignment("homography", HomographyMap(matrix, (8, 12), (16, 24)), soft_border=0)
    write_alignment(tmp_path / "alignment.yaml", alignment)
    robot = start_robot(**{"alignment.mode": "file", "alignment.file": str(tmp_path / "alignment.yaml")})
    robot.listen("bright")
    robot.connect_cameras()
    visible, thermal = random_visible(16, 24), random_thermal(8, 12)
    robot.show_pair(visible, thermal, 1.0)
    wanted = visible.copy()
    wanted[2:10, 4:16] = expected_bright(visible[2:10, 4:16], thermal)
    np.testing.assert_array_equal(robot.wait_for_image("bright", 1.0), wanted)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alignment.mode": "file"}, "alignment.mode is file, but alignment.file is empty; name an alignment file"),
        ({"alignment.mode": "file", "alignment.file": "/nowhere.yaml"}, "/nowhere.yaml: is missing; check the path"),
        (
            {"alignment.mode": "cameras", "alignment.extrinsics": "/nowhere.yaml"},
            "/nowhere.yaml: is missing; check the path",
        ),
    ],
)
def test_an_alignment_that_cannot_be_had_fails_configure(start_robot, parameters, message):
    robot = start_robot(**parameters)
    status = robot.wait_for_status(lambda status: status.level == FusionStatus.ERROR, "an error")
    assert status.message == message
    assert robot.state() == "unconfigured"


def info(size: tuple[int, int], focal: float) -> CameraInfo:
    height, width = size
    k = [focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0]
    return CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5, k=k)


def test_both_calibrations_and_extrinsics_from_a_file_align(start_robot, tmp_path):
    (tmp_path / "extrinsics.yaml").write_text(
        "rotation: {rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}\ntranslation: [0, 0, 0]\n"
    )
    robot = start_robot(
        **{
            "alignment.mode": "cameras",
            "alignment.extrinsics": str(tmp_path / "extrinsics.yaml"),
            "alignment.soft_border": 0,
        }
    )
    robot.listen("bright")
    robot.connect_cameras()
    visible, thermal = random_visible(16, 24), random_thermal(8, 12)
    robot.show_pair(visible, thermal, 1.0)
    status = robot.wait_for_status(lambda status: drops(status.dropped).get("no_calibration"), "a dropped pair")
    assert status.message.startswith("pair dropped: alignment.mode is cameras, but nothing came on visible/camera_info")
    infos = {
        stream: robot.friend.create_publisher(CameraInfo, f"{stream}/camera_info", LATE_QOS)
        for stream in ("visible", "thermal")
    }
    for publisher in infos.values():
        wait_until(publisher.get_subscription_count, "a listener")
    # Equal focal lengths in pixels: the smaller thermal image lies in the middle, pixel on pixel.
    infos["visible"].publish(info((16, 24), 20.0))
    infos["thermal"].publish(info((8, 12), 20.0))
    wait_until(lambda: len(robot.node.cameras.infos) == 2, "both calibrations")
    robot.show_pair(visible, thermal, 2.0)
    wanted = visible.copy()
    wanted[4:12, 6:18] = expected_bright(visible[4:12, 6:18], thermal)
    np.testing.assert_array_equal(robot.wait_for_image("bright", 2.0), wanted)
    assert robot.wait_for_status(lambda status: status.processed == 1, "a pair").level == FusionStatus.OK


# Pairing.


def test_a_slow_thermal_camera_is_used_again(start_robot):
    robot = start_robot(pairing="reuse_thermal", max_reuse_age=0.25, slop=0.01)
    robot.listen("bright")
    robot.connect_cameras()
    thermal = [random_thermal(seed=seed) for seed in range(2)]
    robot.deliver("thermal", thermal[0], 1.0)
    for number in range(6):
        robot.deliver("visible", VISIBLE, 1.0 + number / 30)
    robot.deliver("thermal", thermal[1], 1.2)
    robot.deliver("visible", VISIBLE, 1.2 + 1e-3)
    for stamp, image in [(1.0, 0), (1 + 5 / 30, 0), (1.2 + 1e-3, 1)]:
        np.testing.assert_array_equal(robot.wait_for_image("bright", stamp), expected_bright(VISIBLE, thermal[image]))
    status = robot.wait_for_status(lambda status: status.formed == 7, "seven pairs")
    assert (status.thermal.paired, status.thermal.reused) == (2, 5)
    assert (status.visible.paired, status.visible.reused) == (7, 0)
    assert laws_hold(status)


def test_frames_are_paired_by_arrival_where_stamps_are_bad(start_robot):
    robot = start_robot(stamps="arrival", slop=10.0)
    robot.listen("bright")
    robot.connect_cameras()
    robot.deliver("visible", VISIBLE, 5000.0)
    robot.deliver("thermal", THERMAL, 1.0)
    np.testing.assert_array_equal(robot.wait_for_image("bright", 5000.0), expected_bright(VISIBLE, THERMAL))


def test_a_frame_without_a_partner_is_let_go_by_the_clock(start_robot):
    robot = start_robot(max_wait=0.2)
    robot.connect_cameras()
    robot.deliver("visible", VISIBLE, 1.0)
    status = robot.wait_for_status(lambda status: drops(status.visible.dropped), "a dropped frame")
    assert drops(status.visible.dropped) == {"timed_out": 1} and status.visible.waiting == 0


# Publishers.


@pytest.fixture
def stranger(ros):
    """A node of another participant: one participant cannot have two types on one topic."""
    context = Context()
    context.init()
    node = Node("stranger", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


def test_a_publisher_of_another_type_is_named(robot, stranger):
    stranger.create_publisher(CompressedImage, f"{robot.friend.get_namespace()}/thermal/image_raw", 5)
    status = robot.wait_for_status(lambda status: "/stranger" in status.thermal.problem, "a problem")
    assert status.thermal.problem == (
        "/stranger publishes sensor_msgs/msg/CompressedImage, this node takes sensor_msgs/msg/Image; "
        "check remapping and transport"
    )
    assert status.level == FusionStatus.ERROR and "/thermal/image_raw: " in status.message


def test_a_publisher_whose_qos_does_not_fit_is_named_with_what_does_not(start_robot):
    namespace = "/robot_of_qos"
    override = f"qos_overrides.{namespace}/visible/image_raw.subscription.reliability"
    robot = start_robot(namespace, **{override: "reliable"})
    status = robot.wait_for_status(lambda status: status.visible.problem, "a problem")
    assert status.visible.problem == (
        f"the QoS of {namespace}/friend does not fit this node's (best effort publisher and reliable subscription); "
        "change qos_overrides of one of both"
    )
    assert status.thermal.problem == ""


def test_two_publishers_on_one_topic_are_named(robot):
    second = robot.friend.create_publisher(Image, "visible/image_raw", CAMERA_QOS)
    status = robot.wait_for_status(lambda status: "2 publishers" in status.visible.problem, "a problem")
    assert "mix their images; remap all but one" in status.visible.problem
    robot.friend.destroy_publisher(second)
    robot.wait_for_status(lambda status: not status.visible.problem, "no problem")


def test_a_publisher_that_is_more_than_the_node_asks_for_is_fine(robot):
    robot.friend.destroy_publisher(robot.cameras["visible"])
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.cameras["visible"] = robot.friend.create_publisher(Image, "visible/image_raw", qos)
    robot.listen("bright")
    robot.connect_cameras()
    robot.show_pair(VISIBLE, THERMAL, 1.0)
    np.testing.assert_array_equal(robot.wait_for_image("bright", 1.0), expected_bright(VISIBLE, THERMAL))
    assert robot.statuses[-1].visible.problem == ""
