"""Alignment files: what is written is read, what is wrong is refused by name, whatever it is."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from alignment_scenes import camera_maps, homographies
from hypothesis import example, given
from hypothesis import strategies as st

from vifa_runtime.alignment import Alignment, ThermalView
from vifa_runtime.alignment_files import LARGEST_FILE, load_alignment, load_camera, load_extrinsics, write_alignment
from vifa_runtime.camera_model import AlignmentError, Camera
from vifa_runtime.geometry import GeometryError
from vifa_runtime.pixel_maps import CameraMap, HomographyMap

CONFIG = Path(__file__).resolve().parents[2] / "config"
BORDERS = st.integers(0, 1000)
ALIGNMENTS = (
    st.builds(Alignment, st.sampled_from(["none", "resize"]), st.none(), BORDERS)
    | st.builds(lambda pixels, border: Alignment("homography", pixels, border), homographies(), BORDERS)
    | st.builds(lambda pixels, border: Alignment("cameras", pixels, border), camera_maps(), BORDERS)
)

# As camera_calibration writes it, projection and all, with a number that C++ writes without a point.
CALIBRATION = """\
image_width: 320
image_height: 256
camera_name: thermal
camera_matrix:
  rows: 3
  cols: 3
  data: [402.5, 0, 159.25, 0, 401.75, 127.5, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [-0.25, 8e-02, 1e-05, -2.5e-4, 0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [398, 0, 159, 0, 0, 398, 127, 0, 0, 0, 1, 0]
"""
MATRIX = {"rows": 3, "cols": 3, "data": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]}
EXTRINSICS = {"rotation": MATRIX, "translation": [-0.06, 0.0, 0.0]}
SIZE = {"image_width": 320, "image_height": 256}


def homography(**changes):
    """The content of a homography file; a value of None takes its key away."""
    content = {"mode": "homography", "thermal": SIZE, "visible": SIZE, "homography": MATRIX, **changes}
    return {key: value for key, value in content.items() if value is not None}


def cameras(**changes):
    """The content of a file with both calibrations; a value of None takes its key away."""
    calibration = yaml.safe_load(CALIBRATION.replace("8e-02", "0.08"))
    calibration["distortion_coefficients"]["data"] = [-0.25, 0.08, 0.0, 0.0, 0.0]
    content = {
        "mode": "cameras",
        "thermal": calibration,
        "visible": calibration,
        "extrinsics": EXTRINSICS,
        "distance": 8.0,
    }
    content = {**content, **changes}
    return {key: value for key, value in content.items() if value is not None}


def calibration(**changes):
    """The content of a calibration file."""
    return {**cameras()["thermal"], **changes}


class Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice two times: aliases are refused."""

    def ignore_aliases(self, data):
        return True


def dump(content):
    return yaml.dump(content, Dumper=Dumper, allow_unicode=True, sort_keys=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "alignment.yaml"


def write(path, content):
    path.write_text(content if isinstance(content, str) else dump(content))
    return path


@given(ALIGNMENTS)
def test_what_is_written_is_read_to_the_bit(path, alignment):
    write_alignment(path, alignment)
    assert load_alignment(path) == alignment
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written_leaves_the_old_one(path, monkeypatch):
    write_alignment(path, Alignment(soft_border=3))

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_alignment(path, Alignment("none"))
    assert load_alignment(path) == Alignment(soft_border=3)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["homography", "cameras"])
def test_the_examples_work(name):
    alignment = load_alignment(CONFIG / f"alignment_{name}.yaml")
    assert alignment.mode == name
    view = alignment.fit((256, 320), (480, 640))
    assert not view.covers_all
    middle = view.to_visible([(160, 128)])
    shift = -0.06 * 520 / 8 if name == "cameras" else 0
    np.testing.assert_allclose(middle, [(320 - shift, 240)], atol=0.1)


def test_the_examples_explain_every_key():
    """Every line with a key at the left has a comment somewhere above it."""
    for name in ("homography", "cameras"):
        text = (CONFIG / f"alignment_{name}.yaml").read_text()
        content = yaml.safe_load(text)
        lines = text.splitlines()
        for key in set(content) - {"mode", "visible"}:
            assert lines[next(i for i, line in enumerate(lines) if line.startswith(key)) - 1].startswith("#"), key


def test_a_calibration_of_ros_is_read(path):
    wanted = Camera(
        (256, 320), (402.5, 0, 159.25, 0, 401.75, 127.5, 0, 0, 1), "plumb_bob", (-0.25, 0.08, 1e-5, -2.5e-4, 0)
    )
    assert load_camera(write(path, CALIBRATION)) == wanted


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "+1e-5", "1.e-5", ".1e-4", "1e-05", "10e-6", "0.00001"])
def test_numbers_as_other_languages_write_them(path, text):
    camera = load_camera(write(path, CALIBRATION.replace("1e-05", text)))
    assert camera.coefficients[2] == pytest.approx(1e-5)


def test_calibrations_and_extrinsics_may_lie_beside(path):
    (path.parent / "thermal").mkdir()
    write(path.parent / "thermal" / "ost.yaml", CALIBRATION)
    write(path.parent / "extrinsics.yaml", EXTRINSICS)
    write(path, cameras(thermal="thermal/ost.yaml", extrinsics="extrinsics.yaml"))
    pixels = load_alignment(path).pixels
    assert pixels.thermal_camera == load_camera(path.parent / "thermal" / "ost.yaml")
    assert pixels.extrinsics == load_extrinsics(path.parent / "extrinsics.yaml")


def test_a_homography_that_counts_from_pixel_centres(path):
    pixels = load_alignment(write(path, homography(origin="centre"))).pixels
    assert pixels == HomographyMap.from_centres(MATRIX["data"], (256, 320), (256, 320))
    doubled = {**MATRIX, "data": [2, 0, 0, 0, 2, 0, 0, 0, 1]}
    pixels = load_alignment(write(path, homography(homography=doubled, origin="centre"))).pixels
    np.testing.assert_allclose(pixels.to_visible([(0.5, 0.5)]), [(0.5, 0.5)])


def test_defaults(path):
    assert load_alignment(write(path, {"mode": "none"})) == Alignment("none")
    assert load_alignment(write(path, homography())).soft_border == 16
    assert isinstance(load_alignment(write(path, cameras())).pixels, CameraMap)


def matrix(**changes):
    return {**MATRIX, **changes}


REFUSED = {
    "empty": ("", "expected keys with values, got None"),
    "a list": ([1], "expected keys with values, got [1]"),
    "not YAML": ("mode: [", "is no valid YAML"),
    "no text": ("\x00", "is no valid YAML"),
    "aliases": ("mode: &a none\nsoft_border: *a", "aliases are not allowed"),
    "a Python object": ("mode: !!python/object/apply:os.getcwd []", "is no valid YAML"),
    "a key twice": ("mode: none\nmode: resize", "a key stands twice"),
    "a key twice, deep inside": ("mode: homography\nthermal: {a: 1, a: 2}", "a key stands twice in one mapping: 'a'"),
    "a key that is no text": ("mode: none\n1: 2", "the key 1 is no plain text"),
    "deep": ("mode: " + "[" * 3000, "is no valid YAML"),
    "no mode": ({"soft_border": 3}, "mode must be one of none, resize, homography, cameras, got None"),
    "another mode": ({"mode": "affine"}, "mode must be one of none, resize, homography, cameras, got 'affine'"),
    "a list as mode": ({"mode": []}, "mode must be one of"),
    "unknown key": ({"mode": "none", "extra": 1}, "unknown key 'extra'; remove it, or use one of mode, soft_border"),
    "key of another mode": ({"mode": "resize", "distance": 1}, "unknown key 'distance'"),
    "border": ({"mode": "none", "soft_border": -1}, "soft_border must be a whole number in 0..1000, got -1"),
    "border as text": ({"mode": "none", "soft_border": "5"}, "soft_border must be a whole number in 0..1000, got '5'"),
    "no homography": (homography(homography=None), "homography missing; add it"),
    "no sizes": (homography(thermal=None, visible=None), "thermal, visible missing; add it"),
    "size missing": (homography(thermal={"image_width": 3}), "thermal: image_height missing; add it"),
    "size 0": (homography(visible={**SIZE, "image_width": 0}), "visible: image_width must be a whole number in 1..16"),
    "size as text": (homography(visible={**SIZE, "image_width": "8"}), "visible: image_width must be a whole number"),
    "size as list": (homography(thermal=[3, 4]), "thermal: expected keys with values, got [3, 4]"),
    "more of a size": (homography(thermal={**SIZE, "depth": 1}), "thermal: unknown key 'depth'"),
    "origin": (homography(origin="middle"), "origin must be one of corner, centre, got 'middle'"),
    "origin as list": (homography(origin=[]), "origin must be one of"),
    "matrix as list": (homography(homography=MATRIX["data"]), "homography: expected keys with values"),
    "matrix as rows": (
        homography(homography=matrix(data=[[1, 0, 0]] * 3)),
        "homography: data must be a list of numbers",
    ),
    "matrix as text": (homography(homography=matrix(data="1 2 3")), "homography: data must be a list of numbers"),
    "rows": (homography(homography=matrix(rows=2)), "homography: rows and cols must be 3 and 3, got 2 and 3"),
    "rows true": (homography(homography=matrix(rows=True)), "homography: rows and cols must be 3 and 3, got True"),
    "eight numbers": (homography(homography=matrix(data=[1] * 8)), "homography: data: expected 9 numbers, got 8"),
    "nan": (homography(homography=matrix(data=[float("nan")] * 9)), "homography: data: expected numbers of at most"),
    "infinite": (homography(homography=matrix(data=[float("inf")] * 9)), "homography: data: expected numbers"),
    "null": (homography(homography=matrix(data=[None] * 9)), "homography: data: expected numbers"),
    "huge": (homography(homography=matrix(data=[10**400] * 9)), "homography: data: expected numbers"),
    "singular": (homography(homography=matrix(data=[1] * 9)), "homography is singular"),
    "mirrored": (homography(homography=matrix(data=[-1, 0, 9, 0, 1, 0, 0, 0, 1])), "turns the image inside out"),
    "behind": (homography(homography=matrix(data=[1, 0, 0, 0, 1, 0, -0.1, 0, 1])), "behind the camera"),
    "no distance": (cameras(distance=None), "distance missing; add it"),
    "distance 0": (cameras(distance=0), "distance must be above 0 metres, got 0"),
    "distance nan": (cameras(distance=float("nan")), "distance: expected numbers"),
    "distance list": (cameras(distance=[1, 2]), "distance: expected"),
    "camera null": ({**cameras(), "thermal": None}, "thermal: expected keys with values, got None"),
    "camera key": (cameras(visible=calibration(fov=3)), "visible: unknown key 'fov'"),
    "camera matrix": (
        cameras(visible=calibration(camera_matrix=matrix(data=[0] * 9))),
        "visible: camera_matrix is all",
    ),
    "model": (cameras(thermal=calibration(distortion_model="omni")), "thermal: distortion_model 'omni' is unknown"),
    "model null": (cameras(thermal=calibration(distortion_model=None)), "thermal: distortion_model None is unknown"),
    "model list": (cameras(thermal=calibration(distortion_model=[])), "thermal: distortion_model [] is unknown"),
    "coefficients": (
        cameras(thermal=calibration(distortion_coefficients={"rows": 1, "cols": 3, "data": [0.1] * 3})),
        "thermal: distortion_coefficients: plumb_bob has 0 or 4 or 5, got 3",
    ),
    "coefficients as list": (
        cameras(thermal=calibration(distortion_coefficients=[0] * 5)),
        "thermal: distortion_coefficients: expected keys with values",
    ),
    "columns of coefficients": (
        cameras(thermal=calibration(distortion_coefficients={"rows": 1, "cols": 4, "data": [0.1] * 5})),
        "thermal: distortion_coefficients: rows and cols must be 1 and 5, got 1 and 4",
    ),
    "projection": (
        cameras(thermal=calibration(projection_matrix=MATRIX)),
        "thermal: projection_matrix: rows and cols must be 3 and 4",
    ),
    "rectification": (
        cameras(thermal=calibration(rectification_matrix=matrix(data=[float("nan")] * 9))),
        "thermal: rectification_matrix: data: expected numbers",
    ),
    "rotation": (
        cameras(extrinsics={**EXTRINSICS, "rotation": matrix(data=[2, 0, 0, 0, 1, 0, 0, 0, 1])}),
        "extrinsics: rotation is no rotation matrix",
    ),
    "reflection": (
        cameras(extrinsics={**EXTRINSICS, "rotation": matrix(data=[1, 0, 0, 0, 1, 0, 0, 0, -1])}),
        "extrinsics: rotation is a reflection",
    ),
    "translation": (cameras(extrinsics={**EXTRINSICS, "translation": 3}), "extrinsics: translation must be three"),
    "a column": (cameras(extrinsics={**EXTRINSICS, "translation": [[1], [2], [3]]}), "translation must be three"),
    "two numbers": (cameras(extrinsics={**EXTRINSICS, "translation": [1, 2]}), "extrinsics: translation: expected 3"),
    "behind the thermal camera": (
        cameras(extrinsics={**EXTRINSICS, "translation": [0, 0, -9]}),
        "lies behind the thermal one",
    ),
    "missing beside": (cameras(thermal="none.yaml"), "thermal: none.yaml: is missing; check the path"),
    "outside": (cameras(thermal="../a.yaml"), "thermal: '../a.yaml' does not lie beside this file; copy it there"),
    "absolute": (cameras(visible="/etc/passwd"), "visible: '/etc/passwd' does not lie beside this file"),
    "backslash": (cameras(visible="..\\a"), "visible: '..\\\\a' does not lie beside this file"),
    "line break": (cameras(visible="a\nb"), "visible: 'a\\nb' does not lie beside this file"),
    "a name of 300 letters": (cameras(extrinsics="a" * 300), "cannot be read: File name too long; check the path"),
    "folder": (cameras(extrinsics="."), "extrinsics: .: is no regular file"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_files_are_refused_by_name_and_key(path, content, message):
    with pytest.raises(AlignmentError, match=re.escape(message)) as caught:
        load_alignment(write(path, content))
    assert isinstance(caught.value, GeometryError)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < len(str(path)) + 400


def test_a_wrong_file_beside_is_refused_by_both_names(path):
    write(path.parent / "thermal.yaml", calibration(image_width=0))
    with pytest.raises(AlignmentError) as caught:
        load_alignment(write(path, cameras(thermal="thermal.yaml")))
    assert str(caught.value).startswith(f"{path}: thermal: thermal.yaml: image_width must be")


@pytest.mark.parametrize("load", [load_alignment, load_camera, load_extrinsics])
def test_files_that_cannot_be_read_are_refused(tmp_path, load):
    with pytest.raises(AlignmentError, match=r"none\.yaml: is missing"):
        load(tmp_path / "none.yaml")
    with pytest.raises(AlignmentError, match="is no regular file"):
        load(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (LARGEST_FILE + 1))
    with pytest.raises(AlignmentError, match="is larger than"):
        load(large)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(AlignmentError, match="is no valid YAML"):
        load(tmp_path / "binary.yaml")
    circle = tmp_path / "circle.yaml"
    circle.symlink_to(circle)
    with pytest.raises(AlignmentError, match=r"circle\.yaml: "):
        load(circle)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=6
)
NUMBERS = st.integers(-(10**12), 10**12) | st.floats() | st.sampled_from([0, -1, 1, 1e-12, -1e-320, 1e9, 16384])
WHOLE = [homography(soft_border=4, origin="centre"), cameras()]


def places(node, way=()):
    """The ways to every value of nested dictionaries and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, inner in items:
        yield (*way, key)
        yield from places(inner, (*way, key))


def replaced(node, way, value):
    """A copy of nested dictionaries and lists with another value in one place."""
    if not way:
        return value
    copy = node.copy()
    copy[way[0]] = replaced(node[way[0]], way[1:], value)
    return copy


def load_or_refuse(path, data):
    """Whatever the bytes: a whole alignment that can be used, or a refusal in one line that names the file."""
    path.write_bytes(data)
    for load in (load_alignment, load_camera, load_extrinsics):
        try:
            loaded = load(path)
        except AlignmentError as error:
            assert str(error).startswith(f"{path}: ")
            assert str(error).isprintable()
            continue
        if isinstance(loaded, Alignment):
            use(loaded)


def use(alignment):
    """Fit and warp, or a refusal."""
    pixels = alignment.pixels
    sizes = (pixels.thermal, pixels.visible) if pixels else ((8, 8), (8, 8))
    if pixels and max(*sizes[0], *sizes[1]) > 400:  # it would take long
        return
    try:
        view = alignment.fit(*sizes)
    except AlignmentError:
        return
    assert isinstance(view, ThermalView)
    warped = view.warp(np.full(sizes[0], 0.5, np.float32))
    np.testing.assert_allclose(warped, 0.5, rtol=1e-6)
    assert (view.soft_mask > 0).any()


@given(ANYTHING)
def test_any_content_is_read_or_refused(path, content):
    load_or_refuse(path, dump(content).encode(errors="surrogatepass"))


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="surrogatepass")))
@example(b"mode: !!binary aaaa")
@example(b"!!set {mode, none}")
@example(b"mode: none\n<<: {soft_border: 3}")
@example(b"mode: none\nsoft_border: " + b"9" * 5000)
@example(b"mode: \x1b[31m")
@example(b"{[a]: b}")
@example(b"mode: 2001-99-99")
def test_any_bytes_are_read_or_refused(path, data):
    load_or_refuse(path, data)


@pytest.mark.parametrize("whole", WHOLE, ids=["homography", "cameras"])
@given(st.data())
def test_any_value_in_any_place_is_read_or_refused(path, whole, data):
    way = data.draw(st.sampled_from(list(places(whole))))
    content = replaced(whole, way, data.draw(ANYTHING | NUMBERS))
    load_or_refuse(path, dump(content).encode(errors="surrogatepass"))


@pytest.mark.parametrize("whole", WHOLE, ids=["homography", "cameras"])
@given(st.data())
def test_damaged_files_are_read_or_refused(path, whole, data):
    text = bytearray(dump(whole).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    load_or_refuse(path, bytes(text[: data.draw(st.integers(0, len(text)) | st.just(len(text)))]))


@given(st.lists(st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1.0, 1e-300, -1e-9]), min_size=9, max_size=9))
def test_any_matrix_is_used_or_refused(path, numbers):
    content = homography(thermal={"image_width": 9, "image_height": 7}, homography=matrix(data=numbers))
    load_or_refuse(path, dump(content).encode())


@given(
    st.lists(st.floats(-5, 5), min_size=8, max_size=8),
    st.sampled_from([("plumb_bob", 5), ("rational_polynomial", 8), ("equidistant", 4)]),
    st.floats(-3, 4),
)
def test_any_lens_is_used_or_refused(path, numbers, model, size):
    coefficients = {"rows": 1, "cols": model[1], "data": numbers[: model[1]]}
    focal = {**MATRIX, "data": [10**size, 0, 16, 0, 10**size, 12, 0, 0, 1]}
    small = {"image_width": 33, "image_height": 25, "camera_matrix": focal, "distortion_model": model[0]}
    content = cameras(thermal={**small, "distortion_coefficients": coefficients})
    content["visible"] = content["thermal"]
    load_or_refuse(path, dump(content).encode())
