"""Recording folders as bags: what is in the folder is in the bag, as real ROS reads it, and nothing is half written."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from ament_index_python import get_package_share_directory
from bags import frame
from rclpy.serialization import deserialize_message
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage
from typer.testing import CliRunner
from vision_msgs.msg import Detection2DArray, LabelInfo

from vifa_ros.bags import messages
from vifa_ros.bags.opening import Bag, BagError
from vifa_ros.bags.recording import START, RecordSettings, record
from vifa_ros.bags.types import VISION_TYPES
from vifa_ros.bags.writing import new_bag
from vifa_ros.camera_infos import camera_from_info
from vifa_ros.cli import app
from vifa_ros.conversions import view_image
from vifa_ros.findings import make_detections, make_label_info
from vifa_ros.play_plan import PlaySettings, plan
from vifa_ros.transforms import TransformBuffer, add_message
from vifa_runtime.alignment_files import load_alignment
from vifa_runtime.bundle import Task, TaskClass
from vifa_runtime.labels import Labels
from vifa_runtime.metrics import Detections
from vifa_runtime.pairs import PairError

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("person", "car")
KINDS = {
    "/visible/camera_info": CameraInfo,
    "/visible/image_raw": Image,
    "/visible/image_raw/compressed": CompressedImage,
    "/thermal/camera_info": CameraInfo,
    "/thermal/image_raw": Image,
    "/thermal/image_raw/compressed": CompressedImage,
    "/ground_truth/detections": Detection2DArray,
    "/ground_truth/label_info": LabelInfo,
    "/ground_truth/mask": Image,
    "/ground_truth/mask_label_info": LabelInfo,
    "/ground_truth/pair_name": Header,
    "/tf_static": TFMessage,
}


def write_folder(folder: Path, count: int = 4, size=(48, 64), depth=np.uint8) -> Path:
    """Pairs `a0`, `a1`, ... (`a00` where there are more than ten) of `frame(index)`.

    All but the last have boxes, the first has a mask.
    """
    for part in ("vi", "ir", "labels", "masks"):
        (folder / part).mkdir(parents=True)
    for index in range(count):
        visible, thermal = frame(index, size)
        name = name_of(index, count)
        cv2.imwrite(str(folder / "vi" / f"{name}.png"), visible[..., ::-1])
        suffix = ".tiff" if depth == np.float32 else ".png"
        cv2.imwrite(str(folder / "ir" / f"{name}{suffix}"), thermal.astype(depth) * (1 if depth == np.uint8 else 3))
        if index < count - 1:
            lines = [f"{n % 2} 0.5 {0.25 + n / 8} 0.25 0.125\n" for n in range(min(index, 5))]
            (folder / "labels" / f"{name}.txt").write_text("".join(lines))
    cv2.imwrite(str(folder / "masks" / f"{name_of(0, count)}.png"), mask_of(size))
    (folder / "classes.txt").write_text("person\ncar\n")
    (folder / "mask_classes.txt").write_text("0 soil\n1 crop\n2 weed\n")
    return folder


def name_of(index: int, count: int) -> str:
    return f"a{index:0{len(str(count - 1))}}"


def mask_of(size: tuple[int, int]) -> np.ndarray:
    return (np.arange(size[0] * size[1], dtype=np.int64).reshape(size) % 3).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pairs")


def read(path: Path) -> dict[str, list]:
    """Every message by its topic, taken from its bytes by ROS itself."""
    with Bag(path) as bag:
        found: dict[str, list] = {topic: [] for topic in bag.topics}
        for topic, arrival, raw in bag.raw_messages(bag.topics):
            found[topic].append((arrival, deserialize_message(raw, KINDS[topic])))
    return found


def stamp_of(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


# Types.


def test_the_types_of_vision_msgs_are_those_of_this_repository():
    for name, text in VISION_TYPES.items():
        package, _, kind = name.split("/")
        lines = (ROOT / "msg" / package / "msg" / f"{kind}.msg").read_text().splitlines()
        fields = [line.partition("#")[0].strip() for line in lines]
        assert [line for line in fields if line] == text.splitlines()
    assert {path.stem for path in (ROOT / "msg/vision_msgs/msg").glob("*.msg")} == {
        name.split("/")[-1] for name in VISION_TYPES
    }


@pytest.mark.parametrize("kind", sorted(set(KINDS.values()), key=lambda kind: kind.__name__))
def test_every_type_has_the_hash_that_ros_computed(kind):
    package = kind.__module__.split(".")[0]
    name = f"{package}/msg/{kind.__name__}"
    told = json.loads(Path(get_package_share_directory(package), "msg", f"{kind.__name__}.json").read_text())
    (expected,) = [entry["hash_string"] for entry in told["type_hashes"] if entry["type_name"] == name]
    assert messages.types().hash_rihs01(name) == expected


def test_boxes_and_names_are_what_the_node_would_send():
    boxes = np.array([[1.5, 2.25, 30.125, 40], [0, 0, 64, 48]], np.float32)
    found, names = Labels(boxes, np.array([1, 0])), ["person", "car"]
    ours = messages.make_detections(found, [0.5, 1.0], names, messages.make_header(START + 5, "front"))
    header = Header(frame_id="front")
    header.stamp.sec, header.stamp.nanosec = START // 10**9, 5
    classes = [TaskClass(name, (0, 0, 0)) for name in names]
    theirs = make_detections(Detections(boxes, np.array([0.5, 1.0]), found.labels), classes, header)
    assert as_ros(ours, Detection2DArray) == theirs
    info = make_label_info(Task("find", "segmentation", classes=tuple(classes)), header.stamp)
    assert as_ros(messages.make_label_info(names, messages.make_header(START + 5, "")), LabelInfo) == info


def as_ros(message, kind: type):
    """A message as a listener gets it."""
    return deserialize_message(bytes(messages.types().serialize_cdr(message, message.__msgtype__)), kind)


# What is recorded.


@pytest.mark.parametrize("images", ["raw", "png", "jpeg"])
@pytest.mark.parametrize(
    ("storage", "compression"),
    [("mcap", "none"), ("mcap", "chunk"), ("mcap", "message"), ("sqlite3", "none"), ("sqlite3", "file")],
)
def test_all_of_a_folder_is_in_the_bag_as_ros_reads_it(tmp_path, folder, storage, compression, images):
    settings = RecordSettings(
        PlaySettings(rate=10, skew=0.01), images=images, storage=storage, compression=compression, quality=100
    )
    row = record(folder, tmp_path / "bag", settings)
    assert {key: row[key] for key in ("pairs", "visible", "thermal", "boxes", "masks")} == {
        "pairs": 4, "visible": 4, "thermal": 4, "boxes": 3, "masks": 1,
    }  # fmt: skip
    assert row["duration_s"] == pytest.approx(0.31, abs=1e-9)
    found = read(tmp_path / "bag")
    ending = "" if images == "raw" else "/compressed"
    for stream, skew in (("visible", 0), ("thermal", 10_000_000)):
        sent = found[f"/{stream}/image_raw{ending}"]
        stamps = [START + 50_000_000 + index * 100_000_000 + skew for index in range(4)]
        assert [arrival for arrival, _ in sent] == [stamp_of(message) for _, message in sent] == stamps
        assert {message.header.frame_id for _, message in sent} == {f"{stream}_camera"}
        for index, (_, message) in enumerate(sent):
            pixels = frame(index, (48, 64))[0 if stream == "visible" else 1]
            seen = decoded(message, stream)
            assert seen.shape == pixels.shape
            assert images == "jpeg" or np.array_equal(seen, pixels)
        infos = found[f"/{stream}/camera_info"]
        assert [info.header for _, info in infos] == [message.header for _, message in sent]
        assert {(info.width, info.height, any(info.k)) for _, info in infos} == {(64, 48, False)}


def decoded(message, stream: str) -> np.ndarray:
    if isinstance(message, Image):
        assert message.encoding == ("rgb8" if stream == "visible" else "mono8")
        return view_image(message, stream).pixels
    assert message.format.startswith("rgb8; " if stream == "visible" else "mono8; ")
    pixels = cv2.imdecode(np.array(message.data), cv2.IMREAD_UNCHANGED)
    return pixels[..., ::-1] if stream == "visible" else pixels


def test_a_jpeg_is_near_its_image_and_nearer_in_better_quality(tmp_path, folder):
    ramp = np.stack([np.tile(np.linspace(low, 250, 64), (48, 1)) for low in (0, 120, 240)], axis=-1).astype(np.uint8)
    cv2.imwrite(str(folder / "vi" / "a0.png"), ramp[..., ::-1])
    errors = []
    for quality in (100, 30):
        record(folder, tmp_path / f"{quality}", RecordSettings(images="jpeg", quality=quality))
        (_, message), *_ = read(tmp_path / f"{quality}")["/visible/image_raw/compressed"]
        errors.append(np.abs(decoded(message, "visible").astype(int) - ramp).max())
    assert errors[0] < errors[1] < 20


def test_ground_truth_belongs_to_the_visible_image_of_its_stamp(tmp_path, folder):
    record(folder, tmp_path / "bag", RecordSettings(PlaySettings(rate=10, skew=0.01)))
    found = read(tmp_path / "bag")
    headers = [message.header for _, message in found["/visible/image_raw"]]
    boxes = [message for _, message in found["/ground_truth/detections"]]
    assert [message.header for message in boxes] == headers[:3]
    assert [len(message.detections) for message in boxes] == [0, 1, 2]
    second = boxes[2].detections[1]
    assert second.header == headers[2]
    assert (second.bbox.center.position.x, second.bbox.center.position.y) == (32, 48 * 0.375)
    assert (second.bbox.size_x, second.bbox.size_y, second.bbox.center.theta) == (16, 6, 0)
    assert [(r.hypothesis.class_id, r.hypothesis.score) for r in second.results] == [("car", 1.0)]
    ((_, mask),) = found["/ground_truth/mask"]
    assert (mask.header, mask.encoding) == (headers[0], "mono8")
    np.testing.assert_array_equal(np.array(mask.data).reshape(48, 64), mask_of((48, 64)))
    names = [message for _, message in found["/ground_truth/pair_name"]]
    assert [name.frame_id for name in names] == ["a0", "a1", "a2", "a3"]
    assert [name.stamp for name in names] == [header.stamp for header in headers]
    for topic, expected in (("label_info", ["person", "car"]), ("mask_label_info", ["soil", "crop", "weed"])):
        ((_, info),) = found[f"/ground_truth/{topic}"]
        assert [(entry.class_id, entry.class_name) for entry in info.class_map] == list(enumerate(expected))


def test_a_folder_without_labels_has_no_ground_truth_but_its_names(tmp_path, folder):
    for part in ("labels", "masks"):
        (folder / part).rename(folder / f"no_{part}")
    record(folder, tmp_path / "bag", RecordSettings())
    with Bag(tmp_path / "bag") as bag:
        assert [topic for topic in bag.topics if "truth" in topic] == ["/ground_truth/pair_name"]


def test_classes_without_names_are_numbers(tmp_path, folder):
    (folder / "classes.txt").unlink()
    record(folder, tmp_path / "bag", RecordSettings())
    found = read(tmp_path / "bag")
    assert "/ground_truth/label_info" not in found
    last = found["/ground_truth/detections"][-1][1].detections
    assert [box.results[0].hypothesis.class_id for box in last] == ["0", "1"]


def test_names_of_classes_may_be_given(tmp_path, folder):
    record(folder, tmp_path / "bag", RecordSettings(classes=("walker", "wagon"), mask_classes=("a", "b", "c")))
    found = read(tmp_path / "bag")
    last = found["/ground_truth/detections"][-1][1].detections
    assert [box.results[0].hypothesis.class_id for box in last] == ["walker", "wagon"]
    assert [entry.class_name for entry in found["/ground_truth/mask_label_info"][0][1].class_map] == ["a", "b", "c"]


def test_frames_come_as_they_are_planned(tmp_path):
    folder = write_folder(tmp_path / "pairs", 12)
    play = PlaySettings(rate=20, skew=0.013, jitter=0.004, drop=0.3, seed=3)
    record(folder, tmp_path / "bag", RecordSettings(play))
    found = read(tmp_path / "bag")
    planned = list(plan(PlaySettings(20, 12, 0.013, 0.004, 0.3, seed=3)))
    for stream in ("visible", "thermal"):
        sent = [message for _, message in found[f"/{stream}/image_raw"]]
        shots = [shot for shot in planned if shot.stream == stream]
        assert [stamp_of(message) for message in sent] == [START + round(shot.time * 1e9) for shot in shots]
        for shot, message in zip(shots, sent, strict=True):
            pixels = frame(shot.index, (48, 64))[0 if stream == "visible" else 1]
            assert bytes(message.data) == pixels.tobytes()
    seen = [shot.index for shot in planned if shot.stream == "visible"]
    assert [name.frame_id for _, name in found["/ground_truth/pair_name"]] == [name_of(index, 12) for index in seen]
    assert len(found["/ground_truth/detections"]) == sum(index < 11 for index in seen) < 11


def test_two_recordings_are_equal_to_the_bit_and_another_seed_is_not(tmp_path, folder):
    digests = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        record(folder, tmp_path / name / "bag", RecordSettings(PlaySettings(jitter=0.002, seed=seed)))
        with Bag(tmp_path / name / "bag") as bag:
            digests.append(bag.digest())
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("depth", "mono16", "images", "expected"),
    [
        (np.uint8, True, "raw", lambda levels: 20_000 + 20 * levels.astype(np.uint16)),
        (np.uint8, True, "jpeg", lambda levels: 20_000 + 20 * levels.astype(np.uint16)),
        (np.uint16, False, "png", lambda levels: 3 * levels.astype(np.uint16)),
        (np.float32, False, "raw", lambda levels: 3 * levels.astype(np.float32)),
    ],
    ids=["mono16", "mono16 jpeg", "16 bit", "float"],
)
def test_thermal_images_keep_their_depth(tmp_path, depth, mono16, images, expected):
    folder = write_folder(tmp_path / "pairs", depth=depth)
    record(folder, tmp_path / "bag", RecordSettings(PlaySettings(mono16=mono16), images=images))
    found = read(tmp_path / "bag")
    for index, (_, message) in enumerate(found[f"/thermal/image_raw{'' if images == 'raw' else '/compressed'}"]):
        pixels = expected(frame(index, (48, 64))[1])
        if images == "raw":
            assert message.encoding == ("32FC1" if depth == np.float32 else "mono16")
            seen = view_image(message, "thermal").pixels
        else:
            assert message.format == "mono16; png compressed mono16"
            seen = cv2.imdecode(np.array(message.data), cv2.IMREAD_UNCHANGED)
        assert seen.dtype == pixels.dtype
        np.testing.assert_array_equal(seen, pixels)


def test_calibrations_and_mounting_are_recorded(tmp_path):
    folder = write_folder(tmp_path / "pairs", 2, (480, 640))
    for path in (folder / "ir").iterdir():
        cv2.imwrite(str(path), frame(0, (256, 320))[1])
    alignment = load_alignment(ROOT / "config" / "alignment_cameras.yaml")
    record(folder, tmp_path / "bag", RecordSettings(alignment=alignment))
    found = read(tmp_path / "bag")
    assert camera_from_info(found["/visible/camera_info"][0][1]) == alignment.pixels.visible_camera
    assert camera_from_info(found["/thermal/camera_info"][1][1]) == alignment.pixels.thermal_camera
    buffer = TransformBuffer()
    ((_, transforms),) = found["/tf_static"]
    assert add_message(buffer, transforms.transforms, is_static=True) == []
    mounting = buffer.lookup("thermal_camera", "visible_camera", START)
    np.testing.assert_allclose(mounting.rotation, alignment.pixels.extrinsics.rotation, atol=1e-12)
    np.testing.assert_allclose(mounting.translation, alignment.pixels.extrinsics.translation, atol=1e-12)


def test_listeners_of_every_kind_get_what_is_played(tmp_path, folder):
    """`ros2 bag play` publishes with the QoS that the bag holds: reliable, and latched what is sent once."""
    record(folder, tmp_path / "bag", RecordSettings())
    with Reader(tmp_path / "bag") as reader:
        for connection in reader.connections:
            (qos,) = connection.ext.offered_qos_profiles
            assert qos.reliability == QosReliability.RELIABLE
            latched = connection.topic.endswith("label_info")
            assert qos.durability == (QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE)
            assert connection.digest.startswith("RIHS01_")


# What goes wrong.


def broken(folder: Path, part: str, name: str, content) -> None:
    path = folder / part / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        cv2.imwrite(str(path), content)


@pytest.mark.parametrize(
    ("settings", "spoil", "error", "expected"),
    [
        ({"images": "gif"}, None, BagError, "--images is 'gif'; use one of raw, png, jpeg"),
        ({"storage": "rosbag1"}, None, BagError, "--storage is 'rosbag1'; use one of mcap, sqlite3"),
        ({"compression": "gzip"}, None, BagError, "--compression is 'gzip'; use one of none, chunk, message, file"),
        ({"storage": "sqlite3", "compression": "chunk"}, None, BagError, "chunk is of MCAP only; use file"),
        ({"classes": ("a", "a")}, None, BagError, "two classes of a, a share a name"),
        ({"classes": ("a",)}, None, PairError, "a2.txt, line 2: has class 1, but there are 1"),
        ({"play": PlaySettings(drop=1.0)}, None, BagError, "would hold no messages"),
        ({"start": 0, "play": PlaySettings(skew=-3)}, None, BagError, "begin later with --start"),
        ({}, ("masks", "a0.png", np.zeros((9, 9), np.uint8)), BagError, "a0.png has 9x9 pixels, its image 64x48"),
        ({}, ("masks", "a0.png", np.full((48, 64), 9, np.uint8)), PairError, "a0.png has the class ids 9"),
        ({}, ("labels", "a1.txt", "person"), PairError, "a1.txt, line 1"),
        ({}, ("vi", "a2.png", "no image"), PairError, "a2.png is not a readable image"),
        ({}, ("vi", "b.png", "no image"), PairError, "no partner"),
    ],
)
def test_what_cannot_be_recorded_is_named_and_leaves_nothing(tmp_path, folder, settings, spoil, error, expected):
    if spoil:
        broken(folder, *spoil)
    with pytest.raises(error) as caught:
        record(folder, tmp_path / "new" / "bag", RecordSettings(**settings))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


def test_float_images_are_not_compressed_without_a_word(tmp_path):
    folder = write_folder(tmp_path / "pairs", depth=np.float32)
    with pytest.raises(BagError, match="32FC1 images cannot be compressed as png; record them raw"):
        record(folder, tmp_path / "bag", RecordSettings(images="png"))


def test_an_alignment_that_has_no_calibration_or_another_size_is_refused(tmp_path, folder):
    homography = load_alignment(ROOT / "config" / "alignment_homography.yaml")
    with pytest.raises(BagError, match="mode homography has no calibrations; use mode cameras"):
        record(folder, tmp_path / "bag", RecordSettings(alignment=homography))
    cameras = load_alignment(ROOT / "config" / "alignment_cameras.yaml")
    with pytest.raises(BagError, match=r"a0\.png has 64x48 pixels, but the visible camera of the alignment 640x480"):
        record(folder, tmp_path / "bag", RecordSettings(alignment=cameras))


def test_a_bag_is_only_overwritten_on_request_and_other_folders_never(tmp_path, folder):
    record(folder, tmp_path / "bag", RecordSettings(storage="sqlite3"))
    with pytest.raises(BagError, match="is there already; choose another place, or --overwrite it"):
        record(folder, tmp_path / "bag", RecordSettings())
    (folder / "vi" / "a3.png").unlink()
    with pytest.raises(PairError):
        record(folder, tmp_path / "bag", RecordSettings(overwrite=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "pairs"]
    assert (tmp_path / "bag" / "bag.db3").is_file(), "what was there is left"
    (folder / "ir" / "a3.png").unlink()
    record(folder, tmp_path / "bag", RecordSettings(overwrite=True))
    assert sorted(path.name for path in (tmp_path / "bag").iterdir()) == ["bag.mcap", "metadata.yaml"]
    with pytest.raises(BagError, match="is there already and is no bag; choose another place"):
        record(folder, folder, RecordSettings(overwrite=True))


def test_a_full_disk_is_told_in_one_line(tmp_path, folder):
    with pytest.raises(BagError, match=r"cannot write .*: .*; choose another place"), new_bag(tmp_path / "bag"):
        raise OSError(28, "No space left on device")
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_an_interrupt_leaves_nothing_behind(tmp_path, sign):
    folder = write_folder(tmp_path / "pairs", 60, (480, 640))
    out = tmp_path / "out"
    program = [sys.executable, "-m", "vifa_ros.cli", "record", str(folder), "-o", str(out / "bag"), "--images", "png"]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (out.exists() and any(path.stat().st_size > 100_000 for path in out.rglob("*.mcap"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(sign)
    assert process.wait(60) not in (0, None)
    assert list(out.iterdir()) == []


# The command.


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_says_what_it_wrote(tmp_path, folder):
    done = run("record", folder, "-o", tmp_path / "bag", "--rate", 10)
    assert done.exit_code == 0, done.output
    assert "4 visible images (3 with boxes, 1 with masks) and 4 thermal ones of 4 pairs in 0.30 s" in done.output
    done = run("record", folder, "-o", tmp_path / "more", "--json", "--storage", "sqlite3", "--drop", 0.5, "--seed", 1)
    told = json.loads(done.stdout)
    assert told["meta"]["command"] == "vifa record"
    assert told["meta"]["seed"] == 1
    with Bag(tmp_path / "more") as bag:
        assert told["rows"][0]["messages"] == bag.message_count
        assert told["rows"][0]["visible"] == bag.topics["/visible/image_raw"].count


def test_the_command_refuses_in_one_line(tmp_path, folder):
    program = [sys.executable, "-m", "vifa_ros.cli", "record"]
    done = subprocess.run([*program, str(folder), "-o", str(folder)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"vifa: {folder} is there already and is no bag; choose another place\n"
