"""Coloured points and alignment by /tf_static on a running node, every point computed by hand."""

import math

import numpy as np
import pytest
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from images import expected_bright, random_thermal, random_visible
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import CAMERA_QOS, LATE_QOS, make_header, robots, wait_until
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField
from tf2_msgs.msg import TFMessage

from vifa.msg import FusionStatus
from vifa_ros.colouring import chain, find_classes
from vifa_runtime.bundle import Task, TaskClass
from vifa_runtime.metrics import Detections
from vifa_runtime.pipeline import Results
from vifa_runtime.pixel_maps import Extrinsics

SIZE = (12, 16)
VISIBLE, THERMAL = random_visible(*SIZE), random_thermal(*SIZE)
FOCAL = 10.0
STILL = Quaternion(w=1.0)
LIDAR_TO_OPTICAL = Quaternion(x=0.5, y=-0.5, z=0.5, w=0.5)  # of x ahead, y left, z up: REP 103's usual one


def info(size=SIZE, frame="visible_camera") -> CameraInfo:
    height, width = size
    k = [FOCAL, 0.0, (width - 1) / 2, 0.0, FOCAL, (height - 1) / 2, 0.0, 0.0, 1.0]
    message = CameraInfo(height=height, width=width, distortion_model="plumb_bob", d=[0.0] * 5, k=k)
    message.header.frame_id = frame
    return message


def cloud(points, stamp: float, frame: str = "lidar") -> PointCloud2:
    data = np.asarray(points, np.float32)
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate("xyz")]
    message = PointCloud2(header=make_header(stamp, frame), height=1, width=len(data), fields=fields, is_dense=True)
    message.point_step, message.row_step, message.data = 12, 12 * len(data), data.tobytes()
    return message


def rows(message: PointCloud2) -> np.ndarray:
    """The points of a coloured cloud as a structured array."""
    kinds = {PointField.FLOAT32: "f4", PointField.UINT8: "u1", PointField.UINT16: "u2"}
    dtype = np.dtype(
        {
            "names": [field.name for field in message.fields],
            "formats": [kinds[field.datatype] for field in message.fields],
            "offsets": [field.offset for field in message.fields],
            "itemsize": message.point_step,
        }
    )
    return np.frombuffer(bytes(message.data), dtype)


def rgb_of(table: np.ndarray) -> np.ndarray:
    packed = table["rgb"].copy().view(np.uint32)
    return np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=1)


class Scene:
    """A node with points, whose friend publishes camera_info, transforms and clouds."""

    def __init__(self, robot) -> None:
        self.robot, friend = robot, robot.friend
        static = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.tf = friend.create_publisher(TFMessage, "/tf_static", static)
        self.clouds = friend.create_publisher(PointCloud2, "points", CAMERA_QOS)
        self.infos = {
            s: friend.create_publisher(CameraInfo, f"{s}/camera_info", LATE_QOS) for s in ("visible", "thermal")
        }
        self.coloured: list[PointCloud2] = []

    def listen(self, task: str) -> None:
        self.robot.friend.create_subscription(
            PointCloud2, f"fusion_node/{task}/points", self.coloured.append, QoSProfile(depth=20)
        )
        self.robot.wait_for_status(
            lambda status: any(t.wanted for t in status.tasks if t.name == task), f"{task} to be wanted"
        )
        self.robot.connect_cameras()
        for publisher in (self.clouds, *self.infos.values(), self.tf):
            wait_until(publisher.get_subscription_count, f"a listener on {publisher.topic_name}")

    def place(self, parent: str, child: str, x=0.0, y=0.0, z=0.0, rotation=STILL) -> None:
        header = make_header(0.0, parent)
        transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=rotation)
        self.tf.publish(
            TFMessage(transforms=[TransformStamped(header=header, child_frame_id=child, transform=transform)])
        )

    def calibrate(self) -> None:
        self.infos["visible"].publish(info())
        wait_until(lambda: "visible" in self.robot.node.cameras.infos, "the calibration")

    def colour(self, message: PointCloud2, stamp: float, thermal=THERMAL) -> PointCloud2:
        """Publish a cloud and a pair until the coloured cloud comes."""
        before = len(self.coloured)
        self.clouds.publish(message)
        wait_until(lambda: self.robot.node._colourer._cloud is not None, "the cloud to arrive")
        self.robot.show_pair(VISIBLE, thermal, stamp)
        wait_until(lambda: len(self.coloured) > before, f"coloured points; status: {self.robot.statuses[-1:]}")
        return self.coloured[-1]


@pytest.fixture
def scene(start_robot):
    """A scene with a node that has points and fuses."""
    return Scene(start_robot(points=True, **{"thermal.scale": 0.5, "thermal.offset": -10.0}))


def pixel(column: int, row: int, depth: float) -> tuple[float, float, float]:
    """The point of the optical frame that lies in the middle of a pixel."""
    return ((column - 7.5) / FOCAL * depth, (row - 5.5) / FOCAL * depth, depth)


def test_points_get_the_fused_colour_and_the_temperature_of_their_pixel(scene):
    scene.listen("bright")
    scene.calibrate()
    # The lidar sits 1 m above the camera and looks the same way, by its own axes: x ahead, y left, z up.
    scene.place("visible_camera", "lidar", y=-1.0, rotation=LIDAR_TO_OPTICAL)
    wait_until(lambda: knows(scene, "visible_camera", "lidar"), "the transform")
    optical = [pixel(3, 2, 4.0), pixel(15, 11, 2.0), pixel(0, 0, 30.0)]
    seen = [(z, -x, -(y + 1.0)) for x, y, z in optical]
    unseen = [(-5.0, 0.0, 0.0), (1.0, 50.0, 0.0), (math.nan, 0.0, 0.0)]
    answer = scene.colour(cloud([*seen, *unseen], 1.0), 1.02)
    table = rows(answer)
    assert (answer.header.frame_id, answer.header.stamp.sec) == ("lidar", 1)
    np.testing.assert_allclose([[p["x"], p["y"], p["z"]] for p in table], seen, atol=1e-6)
    fused = expected_bright(VISIBLE, THERMAL)
    np.testing.assert_array_equal(rgb_of(table), [fused[2, 3], fused[11, 15], fused[0, 0]])
    degrees = THERMAL * 0.5 - 10.0
    np.testing.assert_allclose(table["temperature"], [degrees[2, 3], degrees[11, 15], degrees[0, 0]])
    assert (table["class_id"] == 255).all()


def knows(scene, target, source) -> bool:
    try:
        scene.robot.node._transforms.lookup(target, source, 10**9)
    except ValueError:
        return False
    return True


def test_points_far_from_every_pair_in_time_are_left_and_those_without_a_way_are_told(scene):
    scene.listen("bright")
    scene.calibrate()
    scene.clouds.publish(cloud([pixel(3, 2, 4.0)], 5.0))
    wait_until(lambda: scene.robot.node._colourer._cloud is not None, "the cloud to arrive")
    scene.robot.show_pair(VISIBLE, THERMAL, 1.0)
    scene.robot.wait_for_status(lambda status: status.processed == 1, "the pair")
    assert scene.coloured == [] and scene.robot.statuses[-1].message == ""
    scene.robot.show_pair(VISIBLE, THERMAL, 5.05)
    status = scene.robot.wait_for_status(lambda status: "points" in status.message, "a warning")
    assert status.level == FusionStatus.WARN and "lidar" in status.message and "visible_camera" in status.message
    scene.place("visible_camera", "lidar")
    wait_until(lambda: knows(scene, "visible_camera", "lidar"), "the transform")
    scene.colour(cloud([pixel(3, 2, 4.0)], 6.0), 6.0)
    assert scene.robot.wait_for_status(lambda status: status.processed == 3, "pairs").message == ""


def test_a_cloud_that_cannot_be_read_is_told(scene):
    scene.listen("bright")
    scene.calibrate()
    broken = cloud([pixel(3, 2, 4.0)], 1.0, "visible_camera")
    broken.fields = broken.fields[:2]
    scene.clouds.publish(broken)
    wait_until(lambda: scene.robot.node._colourer._cloud is not None, "the cloud to arrive")
    scene.robot.show_pair(VISIBLE, THERMAL, 1.0)
    status = scene.robot.wait_for_status(lambda status: status.message, "a warning")
    assert status.message.startswith("points: ") and "z" in status.message


def test_without_points_there_is_no_such_topic(robot):
    robot.connect_cameras()
    topics = [publisher.topic_name for publisher in robot.node.publishers]
    assert not [topic for topic in topics if topic.endswith("/points")]
    robot.subscribe_points = robot.friend.create_publisher(PointCloud2, "points", CAMERA_QOS)
    assert robot.subscribe_points.get_subscription_count() == 0


def test_points_get_the_class_of_their_pixel(ros, finding_bundle):
    with robots(finding_bundle) as start:
        scene = Scene(start(points=True))
        scene.listen("glare")
        scene.calibrate()
        robot = scene.robot
        robot.listen_to("glare/mask")
        points = [pixel(column, row, 3.0) for row in range(12) for column in range(16)]
        table = rows(scene.colour(cloud(points, 1.0, "visible_camera"), 1.0))
        mask = robot.wait_for("glare/mask", 1.0)
        np.testing.assert_array_equal(table["class_id"], np.frombuffer(mask.data, np.uint8))
        assert len(set(table["class_id"])) > 1


def test_a_detection_s_class_is_that_of_its_box_the_best_on_top():
    classes = (TaskClass("cold", (0, 0, 9)), TaskClass("hot", (9, 0, 0)))
    task = Task(name="cells", kind="detection", classes=classes, score=0.5, iou=0.5, max_detections=10)
    boxes = np.float32([[2, 1, 6, 5], [4, 3, 9, 8]])
    found = Detections(boxes, np.float32([0.9, 0.6]), np.int64([1, 0]))
    results = Results({"cells": np.zeros((10, 12, 3), np.uint8)}, {}, {"cells": found})
    ids = find_classes(results, task)
    assert ids.dtype == np.uint8 and (ids[1:5, 2:6] == 1).all() and ids[7, 8] == 0 and ids[4, 7] == 0
    assert (ids == 255).sum() == 120 - 16 - 25 + 4


def test_transforms_are_chained_in_order():
    quarter = Extrinsics((0, -1, 0, 1, 0, 0, 0, 0, 1), (1.0, 0.0, 0.0))  # a quarter turn about z, then 1 m along x
    step = Extrinsics((1, 0, 0, 0, 1, 0, 0, 0, 1), (0.0, 2.0, 0.0))
    both = chain(quarter, step)
    point = np.array([3.0, 4.0, 5.0])
    moved = np.reshape(both.rotation, (3, 3)) @ point + both.translation
    np.testing.assert_allclose(moved, [1 - (4 + 2), 3, 5])


def test_both_calibrations_and_tf_static_align(start_robot):
    robot = start_robot(**{"alignment.mode": "cameras", "alignment.soft_border": 0})
    robot.listen("bright")
    robot.connect_cameras()
    scene = Scene(robot)
    visible, thermal = random_visible(16, 24), random_thermal(8, 12)
    for stream, size in (("visible", (16, 24)), ("thermal", (8, 12))):
        wait_until(scene.infos[stream].get_subscription_count, "a listener")
        scene.infos[stream].publish(info(size, f"{stream}_optical"))
    wait_until(lambda: len(robot.node.cameras.infos) == 2, "both calibrations")
    robot.show_pair(visible, thermal, 1.0)
    status = robot.wait_for_status(lambda status: "tf_static" in status.message, "what is missing")
    assert status.message.endswith("publish it on /tf_static, or set alignment.extrinsics")
    # 10 m away (alignment.distance), 4 m to the left is 4 pixels to the left.
    scene.place("visible_optical", "thermal_optical", x=-4.0)
    wait_until(lambda: knows(scene, "visible_optical", "thermal_optical"), "the transform")
    robot.show_pair(visible, thermal, 2.0)
    wanted = visible.copy()
    wanted[4:12, 2:14] = expected_bright(visible[4:12, 2:14], thermal)
    np.testing.assert_array_equal(robot.wait_for_image("bright", 2.0), wanted)
