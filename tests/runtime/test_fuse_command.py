"""`vifa fuse` and `vifa bundle`: files in, files out; a user's mistake is one line that names it, and exit code 1."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from tiny_bundle import expected, write_tiny

from vifa_runtime.alignment import Alignment
from vifa_runtime.alignment_files import write_alignment
from vifa_runtime.pairs import read_visible, write_image
from vifa_runtime.pixel_maps import HomographyMap

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("bright", "blend")


@pytest.fixture
def folder(tmp_path, make_pair):
    """vi/ and ir/ with the pairs a, b and c, and the bundle `tiny`."""
    for seed, name in enumerate("abc"):
        visible, thermal = make_pair(13, 18, seed)
        write_image(tmp_path / "vi" / f"{name}.png", visible)
        write_image(tmp_path / "ir" / f"{name}.png", thermal)
    write_tiny(tmp_path / "tiny")
    return tmp_path


@pytest.fixture
def arguments(folder):
    return ["fuse", folder / "vi", folder / "ir", "-o", folder / "out", "--bundle", folder / "tiny"]


def check_fused(folder, names, make_pair, tasks=TASKS):
    """Exactly these images were written, and every pixel of them is right."""
    written = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    assert written == {f"{task}/{name}.png" for task in tasks for name in names}
    for task in tasks:
        for name in names:
            visible, thermal = make_pair(13, 18, "abc".index(name))
            fused = expected(task, visible, thermal.astype(np.float32) / 255)
            np.testing.assert_array_equal(read_visible(folder / "out" / task / f"{name}.png"), fused)


def test_folders_are_fused_pair_by_pair(vifa, arguments, folder, make_pair):
    code, output, errors = vifa(*arguments)
    assert (code, errors) == (0, "")
    assert f"3 of 3 pairs fused into {folder}/out/{{bright,blend}}/" in output
    check_fused(folder, "abc", make_pair)


def test_two_files_are_fused(vifa, folder, make_pair):
    files = [folder / "vi" / "b.png", folder / "ir" / "b.png"]
    code, output, _ = vifa("fuse", *files, "-o", folder / "out", "-b", folder / "tiny")
    assert code == 0
    assert "1 of 1 pairs fused" in output
    assert "fusing" not in output  # a progress bar is for many
    check_fused(folder, "b", make_pair)


def test_only_the_wanted_task_is_written(vifa, arguments, folder, make_pair):
    code, output, _ = vifa(*arguments, "--task", "blend", "--threads", 1)
    assert code == 0
    assert "{blend}" in output
    check_fused(folder, "abc", make_pair, ["blend"])


def test_an_alignment_file_is_obeyed(vifa, arguments, folder, make_pair):
    """The thermal image, three pixels to the right of where it belongs; without a soft border."""
    alignment = Alignment("homography", HomographyMap((1, 0, 3, 0, 1, 0, 0, 0, 1), (13, 18), (13, 18)), soft_border=0)
    write_alignment(folder / "moved.yaml", alignment)
    assert vifa(*arguments, "--alignment", folder / "moved.yaml")[0] == 0
    visible, thermal = make_pair(13, 18, 0)
    wanted = visible.copy()
    wanted[:, 3:] = expected("bright", visible[:, 3:], thermal[:, :-3].astype(np.float32) / 255)
    np.testing.assert_array_equal(read_visible(folder / "out/bright/a.png"), wanted)


def test_an_alignment_that_is_none_or_fits_no_pair_is_named(refused, arguments, folder):
    assert "nowhere.yaml: is missing" in refused(*arguments, "--alignment", folder / "nowhere.yaml")
    alignment = Alignment("homography", HomographyMap((1, 0, 0, 0, 1, 0, 0, 0, 1), (20, 20), (20, 20)))
    write_alignment(folder / "square.yaml", alignment)
    error = refused(*arguments, "--alignment", folder / "square.yaml")
    assert all(f"{name}: thermal: " in error for name in "abc")


def test_fusing_again_writes_the_same_files(vifa, arguments, folder, make_pair):
    for _ in range(2):
        assert vifa(*arguments)[0] == 0
    check_fused(folder, "abc", make_pair)


@pytest.mark.parametrize("side", ["vi", "ir"])
@pytest.mark.parametrize(("data", "reason"), [(b"", "is empty"), (b"hello", "is not a readable image")])
def test_an_unreadable_image_is_named_and_all_others_are_fused(
    refused, arguments, folder, make_pair, side, data, reason
):
    (folder / side / "b.png").write_bytes(data)
    assert f"{folder / side / 'b.png'} {reason}" in refused(*arguments)
    check_fused(folder, "ac", make_pair)


def test_all_unreadable_images_are_named(vifa, arguments, folder):
    for name in "ac":
        (folder / "vi" / f"{name}.png").write_bytes(b"hello")
    code, output, errors = vifa(*arguments)
    assert code == 1
    assert "1 of 3 pairs fused" in output
    assert errors.count("\n") == 1
    assert "a.png" in errors and "c.png" in errors and "b.png" not in errors


def test_names_without_a_partner_are_refused_before_anything_is_fused(refused, arguments, folder):
    (folder / "ir" / "b.png").unlink()
    assert f"no partner of the same name for {folder / 'vi' / 'b.png'}" in refused(*arguments)
    assert not (folder / "out").exists()


def test_mistakes_in_the_arguments_are_named(refused, folder):
    good = {"visible": folder / "vi", "thermal": folder / "ir", "--output": folder / "out", "--bundle": folder / "tiny"}

    def message(**changes):
        options = {**good, **changes}
        paths = options.pop("visible"), options.pop("thermal")
        return refused("fuse", *paths, *[word for pair in options.items() for word in pair])

    assert "nowhere does not exist or is not a folder" in message(visible=folder / "nowhere")
    assert f"no bundle at {folder / 'vi'}" in message(**{"--bundle": folder / "vi"})
    assert "back end 'tpu' is unknown; use one of onnxruntime" in message(**{"--backend": "tpu"})
    assert "has no task 'detect'; it has bright, blend" in message(**{"--task": "detect"})
    assert f"cannot write {folder / 'vi' / 'a.png' / 'bright'}" in message(**{"--output": folder / "vi" / "a.png"})


def test_an_image_that_is_too_large_is_refused_in_one_line(refused, arguments, folder):
    write_image(folder / "vi" / "b.png", np.zeros((1, 16385, 3), np.uint8))
    assert "image size 16385x1 is outside" in refused(*arguments)


def test_a_thermal_image_that_cannot_be_normalised_is_named_and_all_others_are_fused(
    refused, arguments, folder, make_pair
):
    import cv2

    (folder / "ir" / "b.png").unlink()
    assert cv2.imwrite(str(folder / "ir" / "b.tiff"), np.full((13, 18), np.nan, np.float32))
    assert "b: the thermal image has no finite pixel" in refused(*arguments)
    check_fused(folder, "ac", make_pair)


def test_a_broken_bundle_is_refused_by_every_command(refused, arguments, folder):
    (folder / "tiny" / "backbone.onnx").write_bytes(b"hello")
    for command in (arguments, ["bundle", "show", folder / "tiny"], ["bundle", "verify", folder / "tiny"]):
        assert "backbone.onnx does not match its SHA-256" in refused(*command)
    assert not (folder / "out").exists()


def test_verify_says_what_is_good(vifa, folder):
    code, output, errors = vifa("bundle", "verify", folder / "tiny")
    assert (code, errors) == (0, "")
    assert output == f"{folder / 'tiny'}: good; 4 files, 3 graphs, tasks bright, blend\n"


def test_show_as_json_is_the_manifest(vifa, folder):
    code, output, _ = vifa("bundle", "show", folder / "tiny", "--json")
    assert code == 0
    assert json.loads(output) == yaml.safe_load((folder / "tiny" / "bundle.yaml").read_text())


def test_show_prints_every_part(vifa, folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, output, _ = vifa("bundle", "show", folder / "tiny")
    assert code == 0
    for word in ("tiny", "arithmetic", "the visible image's own, multiples of 4", "for bright pictures", "2026-01-31"):
        assert word in output
    assert any({"bright", "vif", "0.500"} <= set(line.split()) for line in output.splitlines())


def test_show_prints_a_working_size_as_width_by_height(vifa, folder):
    write_tiny(folder / "sized", working_size=[48, 64])
    assert "64x48, multiples of 4" in vifa("bundle", "show", folder / "sized")[1]


def test_show_prints_the_words_of_a_bundle_as_they_are(vifa, folder):
    tasks = [{"name": task, "kind": "fusion", "description": "sees [/] and [bold]"} for task in TASKS]
    write_tiny(folder / "odd", tasks=tasks)
    code, output, _ = vifa("bundle", "show", folder / "odd")
    assert code == 0
    assert "sees [/] and [bold]" in output


@pytest.mark.parametrize("command", [[], ["fuse"], ["bundle"], ["bundle", "show"], ["bundle", "verify"]])
def test_every_command_has_help_with_an_example(vifa, command):
    code, output, _ = vifa(*command, "--help")
    assert code == 0
    assert "Example: vifa" in output or command in ([], ["bundle"])


def test_a_wrong_option_is_a_usage_error(vifa):
    code, _, errors = vifa("fuse", "--colour")
    assert code == 2
    assert "--colour" in errors


WITHOUT_ROS = """
import sys
for name in ("rclpy", "vifa", "torch", "rosbags"):
    sys.modules[name] = None
from vifa_ros.cli import main
main()
"""


def test_the_command_works_as_a_process_without_ros_and_prints_no_traceback(folder):
    command = [sys.executable, "-c", WITHOUT_ROS, "fuse", folder / "vi", folder / "ir", "-o", folder / "out"]
    (folder / "vi" / "b.png").write_bytes(b"hello")
    done = subprocess.run([*command, "-b", folder / "tiny"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "2 of 3 pairs fused" in done.stdout
    assert done.stderr == f"vifa: b: {folder / 'vi' / 'b.png'} is not a readable image; replace or remove it\n"


def test_a_command_that_needs_ros_says_so_in_one_line(folder):
    command = [sys.executable, "-c", WITHOUT_ROS, "play", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("vifa: this command needs ROS 2")
    assert done.stderr.count("\n") == 1
