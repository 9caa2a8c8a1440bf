"""What the player publishes and when: the plan of frames, the sources, and real topics."""

from itertools import islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from images import random_thermal, random_visible
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from robot import CAMERA_QOS, STREAMS, Spinner, pixels_of, wait_for_publisher, wait_until
from sensor_msgs.msg import CameraInfo, Image

from vifa_ros.players import FolderSource, PlayerNode, PlaySettings, open_source, plan
from vifa_runtime.pairs import PairError
from vifa_runtime.street import Street

SETTINGS = st.builds(
    PlaySettings,
    rate=st.floats(0.5, 200),
    frames=st.integers(1, 60),
    skew=st.floats(-1, 1),
    jitter=st.floats(0, 1),
    drop=st.floats(0, 1),
    seed=st.integers(0, 1000),
)


def by_stream(shots) -> dict[str, list]:
    shots = list(shots)
    return {stream: [shot for shot in shots if shot.stream == stream] for stream in STREAMS}


@given(SETTINGS)
def test_times_rise_strictly_for_each_camera_and_never_fall_for_both(settings):
    shots = list(plan(settings))
    assert all(earlier.time <= later.time for earlier, later in pairwise(shots))
    for frames in by_stream(shots).values():
        assert all(earlier.time < later.time for earlier, later in pairwise(frames))
        assert all(earlier.index < later.index for earlier, later in pairwise(frames))


@given(SETTINGS)
def test_every_frame_is_taken_near_its_time(settings):
    period = 1 / settings.rate
    for stream, skew in (("visible", 0.0), ("thermal", settings.skew)):
        for shot in by_stream(plan(settings))[stream]:
            assert abs(shot.time - (shot.index + 0.5) * period - skew) <= 0.4501 * period


@given(SETTINGS)
def test_the_same_seed_gives_the_same_plan(settings):
    assert list(plan(settings)) == list(plan(settings))


def test_without_drops_every_frame_is_planned():
    streams = by_stream(plan(PlaySettings(frames=50, jitter=0.01)))
    assert [[shot.index for shot in shots] for shots in streams.values()] == [list(range(50))] * 2


def test_without_jitter_frames_are_evenly_spaced():
    times = [shot.time for shot in by_stream(plan(PlaySettings(rate=10, frames=20)))["visible"]]
    np.testing.assert_allclose(np.diff(times), 0.1)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_about_the_asked_share_is_dropped(share):
    frames = 4000
    for shots in by_stream(plan(PlaySettings(frames=frames, drop=share))).values():
        tolerance = 5 * np.sqrt(share * (1 - share) / frames)
        assert abs(1 - len(shots) / frames - share) <= tolerance


def test_the_cameras_drop_and_jitter_independently():
    streams = by_stream(plan(PlaySettings(frames=500, drop=0.3, jitter=0.002)))
    kept = [{shot.index for shot in shots} for shots in streams.values()]
    assert kept[0] != kept[1]
    times = [{shot.time for shot in shots} for shots in streams.values()]
    assert not times[0] & times[1]


def test_the_jitter_has_the_asked_spread():
    shots = by_stream(plan(PlaySettings(rate=10, frames=4000, jitter=0.01)))["visible"]
    assert np.std([shot.time - (shot.index + 0.5) / 10 for shot in shots]) == pytest.approx(0.01, rel=0.1)


def test_a_plan_without_an_end_goes_on():
    assert [shot.index for shot in islice(plan(PlaySettings(frames=None)), 1000, 1002)] == [500, 500]


# Sources.


def write_folder(folder: Path, names: list[str], thermal: np.ndarray | None = None) -> list[np.ndarray]:
    """Write pairs as PNG; returns the visible images (RGB)."""
    for part in ("vi", "ir"):
        (folder / part).mkdir(parents=True)
    visible = [random_visible(seed=i) for i in range(len(names))]
    for name, image in zip(names, visible, strict=True):
        cv2.imwrite(str(folder / "vi" / f"{name}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "ir" / f"{name}.png"), random_thermal() if thermal is None else thermal)
    return visible


def test_a_folder_is_played_in_the_order_of_names_over_and_over(tmp_path):
    visible = write_folder(tmp_path, ["a", "b", "c"])
    source = FolderSource(tmp_path)
    assert len(source) == 3
    for index in range(7):
        np.testing.assert_array_equal(source[index][0], visible[index % 3])


def test_thermal_files_keep_their_depth(tmp_path):
    counts = (random_thermal().astype(np.uint16) * 200) + 7
    write_folder(tmp_path, ["a"], thermal=counts)
    np.testing.assert_array_equal(FolderSource(tmp_path)[0][1], counts)


def test_unpaired_files_are_named(tmp_path):
    write_folder(tmp_path, ["a", "b"])
    (tmp_path / "ir" / "b.png").unlink()
    with pytest.raises(PairError, match=r"no partner of the same name for .*vi/b\.png"):
        open_source(tmp_path)


def test_without_a_folder_it_is_the_street_of_that_seed():
    source = open_source(None, seed=4)
    assert isinstance(source, Street)
    np.testing.assert_array_equal(source[3][0], Street(4)[3][0])


# Real topics.


class Ear:
    """Listens to the player's topics."""

    def __init__(self) -> None:
        self.heard: dict[str, list] = {"visible/image_raw": [], "thermal/image_raw": [], "visible/camera_info": []}
        self.node = Node("ear")
        for topic, messages in self.heard.items():
            kind = CameraInfo if "info" in topic else Image
            self.node.create_subscription(kind, topic, messages.append, CAMERA_QOS)
        self.spinner = Spinner(SingleThreadedExecutor(), self.node)

    def hear(self, source, settings: PlaySettings) -> PlayerNode:
        """Play to the end and wait until every image has arrived."""
        player = PlayerNode(source, settings)
        for topic in self.heard:
            wait_for_publisher(self.node, topic)
        assert player.wait_for_listeners(30.0)
        player.play()
        wait_until(lambda: all(len(self.images(s)) == len(player.sent[s]) for s in STREAMS), "all images to arrive")
        player.destroy_node()
        return player

    def images(self, stream: str) -> list[Image]:
        return self.heard[f"{stream}/image_raw"]


@pytest.fixture
def ear(ros):
    ear = Ear()
    yield ear
    ear.spinner.stop()


def stamps_of(messages) -> list[int]:
    return [message.header.stamp.sec * 10**9 + message.header.stamp.nanosec for message in messages]


def test_all_that_was_sent_is_on_the_players_list(ear):
    settings = PlaySettings(rate=50, frames=20, jitter=0.004, drop=0.2, skew=0.003)
    sent = ear.hear(Street(size=(48, 64)), settings).sent
    for stream in STREAMS:
        assert stamps_of(ear.images(stream)) == [stamp for stamp, _ in sent[stream]]
        assert {message.header.frame_id for message in ear.images(stream)} == {f"{stream}_camera"}
    for (_, index), message in zip(sent["visible"], ear.images("visible"), strict=True):
        np.testing.assert_array_equal(pixels_of(message), Street(size=(48, 64))[index][0])


def test_every_visible_image_has_its_camera_info(ear):
    ear.hear(Street(size=(48, 64)), PlaySettings(rate=50, frames=5))
    infos = ear.heard["visible/camera_info"]
    wait_until(lambda: len(infos) == 5, "five infos")
    assert [info.header for info in infos] == [image.header for image in ear.images("visible")]
    assert {(info.width, info.height) for info in infos} == {(64, 48)}


LEVELS = random_thermal()
COUNTS = LEVELS.astype(np.uint16) * 200
DEGREES = LEVELS.astype(np.float32) / 7


@pytest.mark.parametrize(
    ("thermal", "mono16", "encoding", "expected"),
    [
        (LEVELS, False, "mono8", LEVELS),
        (LEVELS, True, "mono16", 20_000 + 20 * LEVELS.astype(np.uint16)),
        (COUNTS, False, "mono16", COUNTS),
        (COUNTS, True, "mono16", COUNTS),
        (DEGREES, True, "32FC1", DEGREES),
    ],
    ids=["8 bit", "8 bit as mono16", "16 bit", "16 bit as mono16", "float"],
)
def test_the_thermal_encoding_follows_the_depth(ear, thermal, mono16, encoding, expected):
    ear.hear([(random_visible(), thermal)], PlaySettings(frames=1, mono16=mono16))
    (message,) = ear.images("thermal")
    assert message.encoding == encoding
    assert bytes(message.data) == expected.tobytes()


def test_it_says_when_nobody_listens(ros):
    player = PlayerNode(Street(size=(48, 64)), PlaySettings())
    assert not player.wait_for_listeners(0.05)
    player.destroy_node()
