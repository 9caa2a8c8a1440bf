"""Detection and segmentation through a running fusion node: what it finds, and what it does for whom."""

from itertools import count

import numpy as np
import pytest
from bundles import write_finding_bundle
from images import expected_bright, random_thermal, random_visible
from robot import boxes_of, drops, laws_hold, make_header, mask_of, pixels_of, wait_until
from sensor_msgs.msg import CameraInfo
from task_graphs import GLARE, expected_mask

from vifa_ros import fusion_node, outputs
from vifa_ros.conversions import ImageMessage
from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import load_bundle
from vifa_runtime.metrics import Detections
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.render import draw_detections, render_overlay

SIZES = [(16, 24), (7, 9), (1, 1), (33, 18), (48, 64)]
EVERYTHING = ["bright/image", "cells/image", "cells/detections", "cells/overlay"]
EVERYTHING += ["glare/image", "glare/mask", "glare/overlay"]
RED, GREEN, BLUE = (255, 0, 0), (0, 204, 0), (0, 0, 153)
stamps = count(1)


def paint(size, *patches, side=4):
    """A black picture (H,W,3) with squares of `side` pixels, each (top, left, colour)."""
    picture = np.zeros((*size, 3), np.uint8)
    for top, left, colour in patches:
        picture[top : top + side, left : left + side] = colour
    return picture


def dark(size):
    """A thermal image that adds nothing."""
    return np.zeros(size, np.uint8)


@pytest.fixture(scope="module")
def everything(start_for_module, finding_bundle):
    """A node of which every output is heard, for all tests that leave it as it is."""
    robot = start_for_module(bundle=str(finding_bundle))
    robot.wait_for_state("active")
    robot.listen_to(*EVERYTHING)
    robot.connect_cameras()
    return robot


@pytest.fixture
def finder(start_robot, finding_bundle):
    """An active node with nobody listening yet."""
    robot = start_robot(bundle=str(finding_bundle))
    robot.wait_for_state("active")
    return robot


@pytest.fixture(scope="module")
def pipeline(finding_bundle):
    """The same bundle without a node."""
    bundle = load_bundle(finding_bundle)
    pipeline = FusionPipeline(bundle, prepare("onnxruntime", bundle, Options(threads=1)))
    yield pipeline
    pipeline.close()


def show(robot, visible, thermal, *listened):
    """Show a pair with the next stamp and wait for one message of each output."""
    stamp = float(next(stamps))
    robot.show_pair(visible, thermal, stamp)
    return [robot.wait_for(output, stamp) for output in listened]


# What is found.


def test_detections_are_boxes_in_visible_pixels_the_best_first(everything):
    """A cell's box reaches 2 pixels beyond it on each side, where the image does."""
    visible = paint((16, 24), (4, 8, RED), (12, 0, GREEN), (0, 20, BLUE), (12, 20, (127, 127, 127)))
    (message,) = show(everything, visible, dark((16, 24)), "cells/detections")
    assert boxes_of(message) == [
        ("red", 1.0, 10, 6, 8, 8),
        ("green", pytest.approx(0.8), 3, 13, 6, 6),
        ("blue", pytest.approx(0.6), 21, 3, 6, 6),
    ]


def test_what_only_the_thermal_camera_sees_is_found(everything):
    thermal = dark((16, 24))
    thermal[8:12, 4:8] = 255
    (message,) = show(everything, paint((16, 24)), thermal, "cells/detections")
    assert sorted(boxes_of(message)) == [(name, 1.0, 6, 10, 8, 8) for name in ("blue", "green", "red")]


def test_an_image_with_nothing_in_it_gives_an_empty_message(everything):
    (message,) = show(everything, paint((16, 24)), dark((16, 24)), "cells/detections")
    assert message.detections == []


def test_boxes_and_masks_of_a_bundle_that_works_at_another_size_are_in_visible_pixels(start_robot, tmp_path):
    robot = start_robot(bundle=str(write_finding_bundle(tmp_path / "half", working_size=[16, 24])))
    robot.wait_for_state("active")
    robot.listen_to("cells/detections", "glare/mask")
    robot.connect_cameras()
    visible = paint((32, 48), (8, 16, (255, 255, 255)), side=8)
    detections, mask = show(robot, visible, dark((32, 48)), "cells/detections", "glare/mask")
    assert sorted(boxes_of(detections)) == [(name, 1.0, 20, 12, 16, 16) for name in ("blue", "green", "red")]
    np.testing.assert_array_equal(mask_of(mask), expected_mask(visible))


@pytest.mark.parametrize("size", [*SIZES, SIZES[0]])
def test_every_output_is_that_of_the_pipeline_at_every_size_also_one_after_the_other(everything, pipeline, size):
    visible, thermal = random_visible(*size), random_thermal(*size)
    expected = pipeline.process(visible, thermal, None)
    names = [task.name for task in pipeline.bundle.tasks if task.kind == "detection" for task in task.classes]
    messages = dict(zip(EVERYTHING, show(everything, visible, thermal, *EVERYTHING), strict=True))
    for task in pipeline.bundle.tasks:
        np.testing.assert_array_equal(pixels_of(messages[f"{task.name}/image"]), expected.fused[task.name])
        if task.kind != "fusion":
            overlay = render_overlay(expected, task)
            np.testing.assert_array_equal(pixels_of(messages[f"{task.name}/overlay"]), overlay)
    np.testing.assert_array_equal(mask_of(messages["glare/mask"]), expected_mask(expected_bright(visible, thermal)))
    boxes, scores, labels = expected.detections["cells"]
    found = boxes_of(messages["cells/detections"])
    assert [name for name, *_ in found] == [names[label] for label in labels]
    np.testing.assert_array_equal([score for _, score, *_ in found], scores)
    corners = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for _, _, x, y, w, h in found]
    np.testing.assert_allclose(np.reshape(corners, (-1, 4)), boxes, atol=1e-9)


def test_every_output_carries_the_header_of_the_visible_image(everything):
    stamp = float(next(stamps))
    everything.show("thermal", dark((16, 24)), stamp + 0.01)
    everything.show("visible", paint((16, 24), (4, 8, RED)), stamp)
    header = make_header(stamp, "visible_camera")
    messages = {output: everything.wait_for(output, stamp) for output in EVERYTHING}
    assert {output: message.header for output, message in messages.items()} == dict.fromkeys(EVERYTHING, header)
    (detection,) = messages["cells/detections"].detections
    assert detection.header == header


# What the overlay shows.


def test_the_overlay_is_the_image_where_nothing_is_found(everything):
    visible = paint((16, 24), (4, 8, (90, 90, 90)))
    image, overlay = show(everything, visible, dark((16, 24)), "cells/image", "cells/overlay")
    np.testing.assert_array_equal(pixels_of(overlay), pixels_of(image))


def test_the_overlay_differs_from_the_image_where_a_box_and_its_name_are(everything, pipeline):
    visible = paint((96, 128), (60, 40, RED))
    image, overlay = show(everything, visible, dark((96, 128)), "cells/image", "cells/overlay")
    image, overlay = pixels_of(image), pixels_of(overlay)
    found = Detections(np.float32([[38, 58, 46, 66]]), np.float32([1]), np.array([0]))
    classes = next(task.classes for task in pipeline.bundle.tasks if task.name == "cells")
    np.testing.assert_array_equal(overlay, draw_detections(image, found, classes))
    rows, columns = np.nonzero((overlay != image).any(axis=2))
    assert (rows.max(), columns.min()) == (65, 38), "the box ends below and begins at the left"
    assert rows.min() > 58 - 20, "the name is one line above the box"


def test_the_overlay_of_a_mask_is_half_image_half_colour_of_the_class(everything):
    visible = paint((16, 24), (4, 8, (250, 250, 250)), (8, 0, (128, 128, 126)))
    mask, overlay = show(everything, visible, dark((16, 24)), "glare/mask", "glare/overlay")
    assert np.flatnonzero(mask_of(mask)).tolist() == [24 * y + x for y in range(4, 8) for x in range(8, 12)]
    colours = np.array([entry["colour"] for entry in GLARE["classes"]])
    blended = (visible.astype(int) + colours[mask_of(mask)]) / 2
    np.testing.assert_allclose(pixels_of(overlay), blended, atol=0.5)


# Who hears what, and what is computed for whom.


class Diary:
    """What the node makes for its listeners: overlays drawn, image messages filled, by task and encoding."""

    def __init__(self, monkeypatch) -> None:
        self.drawn: list[str] = []
        self.filled: list[str] = []
        render, fill = outputs.render_overlay, ImageMessage.fill

        def remember_and_render(results, task):
            self.drawn.append(task.name)
            return render(results, task)

        def remember_and_fill(message, *arguments):
            self.filled.append(message.message.encoding)
            return fill(message, *arguments)

        monkeypatch.setattr(outputs, "render_overlay", remember_and_render)
        monkeypatch.setattr(ImageMessage, "fill", remember_and_fill)


@pytest.mark.parametrize(
    ("listened", "run", "drawn", "filled"),
    [
        (["bright/image"], ["head.bright"], [], ["rgb8"]),
        (["cells/image"], ["head.cells"], [], ["rgb8"]),
        (["cells/detections"], ["head.cells", "task.cells"], [], []),
        (["cells/overlay"], ["head.cells", "task.cells"], ["cells"], ["rgb8"]),
        (["glare/image"], ["head.glare"], [], ["rgb8"]),
        (["glare/mask"], ["head.glare", "task.glare"], [], ["mono8"]),
        (["glare/overlay"], ["head.glare", "task.glare"], ["glare"], ["rgb8"]),
        (
            ["glare/image", "cells/detections", "cells/image"],
            ["head.cells", "task.cells", "head.glare"],
            [],
            ["rgb8", "rgb8"],
        ),
    ],
    ids=" ".join,
)
def test_only_what_somebody_listens_to_is_computed(finder, monkeypatch, listened, run, drawn, filled):
    diary = Diary(monkeypatch)
    finder.listen_to(*listened)
    finder.connect_cameras()
    show(finder, paint((16, 24), (4, 8, RED)), dark((16, 24)), *listened)
    status = finder.wait_for_status(lambda status: status.processed == 1, "the pair")
    stages = {stage.stage for stage in status.stages}
    assert {stage for stage in stages if stage.startswith(("head.", "task."))} == set(run)
    assert {stage for stage in stages if stage.startswith("decode.")} == {
        stage.replace("task.", "decode.") for stage in run if stage.startswith("task.")
    }
    assert (diary.drawn, diary.filled) == (drawn, filled)
    wanted = {output.partition("/")[0] for output in listened}
    assert [(task.name, task.kind, task.wanted, task.published) for task in status.tasks] == [
        (name, kind, name in wanted, int(name in wanted))
        for name, kind in (("bright", "fusion"), ("cells", "detection"), ("glare", "segmentation"))
    ]


@pytest.mark.parametrize("output", ["cells/camera_info", "cells/label_info"])
def test_who_listens_to_no_result_makes_nothing_run(finder, output):
    finder.listen_to(output)
    finder.connect_cameras()
    finder.show_pair(random_visible(), random_thermal(), 1.0)
    status = finder.wait_for_status(lambda status: status.formed == 1 and not status.in_flight, "a pair")
    assert (drops(status.dropped), list(status.stages)) == ({"nobody_listens": 1}, [])


def test_an_output_is_not_computed_any_more_when_its_listener_has_gone(finder):
    finder.listen_to("glare/image")
    subscription = finder.subscribe("glare/mask")
    mask = finder.publisher_of("glare/mask")
    wait_until(mask.get_subscription_count, "a listener of the mask")
    finder.connect_cameras()
    show(finder, random_visible(), random_thermal(), "glare/image", "glare/mask")
    finder.friend.destroy_subscription(subscription)
    wait_until(lambda: not mask.get_subscription_count(), "the listener of the mask to go")
    show(finder, random_visible(), random_thermal(), "glare/image")
    status = finder.wait_for_status(lambda status: status.processed == 2, "both pairs")
    counts = {stage.stage: stage.count for stage in status.stages}
    assert (counts["head.glare"], counts["task.glare"], len(finder.heard["glare/mask"])) == (2, 1, 1)


def test_who_comes_while_a_pair_is_in_work_is_served_with_the_next(finder, monkeypatch):
    process = FusionPipeline.process

    def process_and_listen(self, *arguments):
        results = process(self, *arguments)
        if not finder.heard["cells/overlay"]:
            finder.listen_to("cells/overlay", "cells/detections")
        return results

    monkeypatch.setattr(fusion_node.FusionPipeline, "process", process_and_listen)
    finder.listen_to("cells/image")
    finder.connect_cameras()
    show(finder, paint((16, 24), (4, 8, RED)), dark((16, 24)), "cells/image")
    monkeypatch.undo()
    (detections, _) = show(finder, paint((16, 24), (4, 8, RED)), dark((16, 24)), "cells/detections", "cells/overlay")
    status = finder.wait_for_status(lambda status: status.processed == 2, "both pairs")
    assert drops(status.dropped) == {} and laws_hold(status)
    assert finder.heard["cells/detections"] == [detections]


def test_the_parameter_tasks_holds_for_what_is_found_too(start_robot, finding_bundle):
    robot = start_robot(bundle=str(finding_bundle), tasks=["cells"])
    robot.wait_for_state("active")
    robot.listen_to("cells/detections", "glare/mask")
    robot.connect_cameras()
    show(robot, random_visible(), random_thermal(), "cells/detections")
    status = robot.wait_for_status(lambda status: status.processed == 1, "the pair")
    assert [task.wanted for task in status.tasks] == [False, True, False]
    assert not any(stage.stage.endswith("glare") for stage in status.stages)
    assert robot.set_parameter("tasks", ["glare"]).successful
    show(robot, random_visible(), random_thermal(), "glare/mask")
    status = robot.wait_for_status(lambda status: status.processed == 2, "both pairs")
    assert [task.published for task in status.tasks] == [0, 1, 1]
    assert (len(robot.heard["cells/detections"]), len(robot.heard["glare/mask"])) == (1, 1)


def test_camera_info_comes_with_what_is_found(finder):
    finder.listen_to("cells/detections", "cells/camera_info")
    finder.connect_cameras()
    finder.info_camera.publish(CameraInfo(width=10, height=6))
    wait_until(lambda: "visible" in finder.node.cameras.infos, "the camera_info to arrive")
    detections, info = show(finder, random_visible(), random_thermal(), "cells/detections", "cells/camera_info")
    assert (info.header, info.width) == (detections.header, 10)


def test_the_laws_hold_and_every_result_is_counted(everything):
    show(everything, random_visible(), random_thermal(), *EVERYTHING)
    status = everything.wait_for_status(lambda status: status.in_flight == 0, "the end of work")
    assert status.processed == status.formed > 0
    assert [task.published for task in status.tasks] == [status.processed] * 3
    assert {output: len(everything.heard[output]) for output in EVERYTHING} == dict.fromkeys(
        EVERYTHING, status.processed
    )
    assert all(laws_hold(status) for status in everything.statuses)


# Names of classes.


def test_who_comes_late_hears_the_names_of_the_classes(everything):
    everything.listen_to("cells/label_info", "glare/label_info")
    cells, glare = (wait_until(lambda o=o: everything.heard[o], o)[0] for o in ("cells/label_info", "glare/label_info"))
    assert [(entry.class_id, entry.class_name) for entry in cells.class_map] == [(0, "red"), (1, "green"), (2, "blue")]
    assert [(entry.class_id, entry.class_name) for entry in glare.class_map] == [(0, "dark"), (1, "bright")]
    assert (cells.threshold, glare.threshold) == (0.5, 0.0)
    assert cells.header.stamp.sec > 0


def test_the_topics_of_a_task_are_those_of_its_kind(everything):
    topics = {publisher.topic_name.rpartition("fusion_node/")[2] for publisher in everything.node.publishers}
    expected = {f"{task}/camera_info" for task in ("bright", "cells", "glare")}
    expected |= {*EVERYTHING, "cells/label_info", "glare/label_info"}
    expected |= {f"{output}/compressed" for output in EVERYTHING if output.endswith(("/image", "/overlay"))}
    assert {topic for topic in topics if topic.startswith(("bright/", "cells/", "glare/"))} == expected


def test_every_output_is_reliable_and_only_the_names_wait_for_who_comes_late(everything):
    for output in [*EVERYTHING, "cells/camera_info", "cells/label_info"]:
        qos = everything.publisher_of(output).qos_profile
        assert qos.reliability.name == "RELIABLE"
        assert qos.durability.name == ("TRANSIENT_LOCAL" if output == "cells/label_info" else "VOLATILE")


# Lifecycle.


def test_a_node_with_tasks_can_be_taken_through_all_states_twice(start_robot, finding_bundle):
    robot = start_robot(bundle=str(finding_bundle), autostart=False)
    robot.subscribe("cells/label_info")
    for cycle in (1, 2):
        assert robot.change_state("configure")
        robot.listen_to("cells/detections", "glare/mask", "cells/overlay")
        wait_until(robot.publisher_of("cells/label_info").get_subscription_count, "the listener of the names")
        assert len(robot.heard["cells/label_info"]) == cycle - 1, "names are told when it becomes active"
        assert robot.change_state("activate")
        wait_until(lambda n=cycle: len(robot.heard["cells/label_info"]) == n, "the names of the classes")
        robot.connect_cameras()
        visible = paint((16, 24), (4, 8, RED))
        show(robot, visible, dark((16, 24)), "cells/detections", "glare/mask", "cells/overlay")
        status = robot.wait_for_status(lambda status: status.processed == 1, "the pair")
        assert [task.published for task in status.tasks] == [0, 1, 1]
        assert robot.change_state("deactivate") and robot.change_state("cleanup")
        assert not any("/cells/" in p.topic_name or "/glare/" in p.topic_name for p in robot.node.publishers)


def test_names_are_told_again_and_counts_start_at_zero_when_it_is_activated_again(finder):
    finder.listen_to("cells/label_info", "cells/detections")
    finder.connect_cameras()
    show(finder, random_visible(), random_thermal(), "cells/detections")
    wait_until(lambda: len(finder.heard["cells/label_info"]) == 1, "the names of the classes")
    assert finder.change_state("deactivate") and finder.change_state("activate")
    wait_until(lambda: len(finder.heard["cells/label_info"]) == 2, "the names of the classes again")
    status = finder.wait_for_status(lambda status: status.level == status.OK, "an active status")
    assert [task.published for task in status.tasks] == [0, 0, 0]
    finder.connect_cameras()
    show(finder, random_visible(), random_thermal(), "cells/detections")
