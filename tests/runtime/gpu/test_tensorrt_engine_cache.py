"""Engine files: what fits is read, everything else is refused with the one reason that differs."""

import json
import os
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vifa_runtime.backends import BackendError
from vifa_runtime.backends.engine_cache import (
    LARGEST_HEAD,
    MAGIC,
    EngineError,
    EngineKey,
    build_command,
    built_sizes,
    default_folder,
    make_folder,
    read_engine,
    seal,
    unseal,
    write_engine,
)

KEY = EngineKey("ab" * 32, "10.3.0", "Orin", "8.7", "fp16", "640x480", calibration="cd" * 32)
OTHER = {
    "recipe": (-1, "was built by another version of vifa (recipe -1, this one has 1)"),
    "graph": (
        "ef" * 32,
        "was built from another graph (SHA-256 efefefefefefefef..., this one has abababababababab...)",
    ),
    "tensorrt": ("8.6.1", "was built by TensorRT 8.6.1, here is 10.3.0"),
    "gpu": ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "was built for the GPU NVIDIA RTX PRO 6000 "),
    "capability": ("7.2", "was built for compute capability 7.2, here is 8.7"),
    "precision": ("fp32", "was built in fp32, wanted is fp16"),
    "size": ("320x240", "was built for images of 320x240, wanted is 640x480"),
}


def refusal(folder, key=KEY, **options):
    with pytest.raises(EngineError) as caught:
        read_engine(folder, key, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("engine", [b"", b"engine", bytes(range(256)) * 1000, MAGIC, b"\n\n{}"], ids=len)
def test_what_is_written_is_read_again(tmp_path, engine):
    path = write_engine(tmp_path / "new" / "folder", KEY, engine)
    assert path.name == "abababababababab-640x480-fp16.engine"
    assert read_engine(path.parent, KEY) == engine
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", OTHER)
def test_what_differs_is_the_reason(tmp_path, name):
    other, reason = OTHER[name]
    path = write_engine(tmp_path, replace(KEY, **{name: other}), b"engine")
    path.rename(tmp_path / KEY.file_name)
    assert refusal(tmp_path).startswith(reason)


def test_pairs_that_it_was_calibrated_with_count_for_who_builds_only(tmp_path):
    write_engine(tmp_path, replace(KEY, calibration=""), b"engine")
    assert read_engine(tmp_path, KEY) == b"engine"
    reason = "was calibrated with other pairs (SHA-256 none, these have cdcdcdcdcdcdcdcd...)"
    assert refusal(tmp_path, compare_calibration=True) == reason


def test_what_is_not_there(tmp_path):
    assert refusal(tmp_path) == "does not exist"
    (tmp_path / KEY.file_name).mkdir()
    assert refusal(tmp_path) == "does not exist"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: b"", "is no engine of vifa"),
        (lambda data: b"ptrt" + data, "is no engine of vifa"),
        (lambda data: data[:40], "is damaged: its head cannot be read"),
        (lambda data: MAGIC + b"[" * 60000 + b"\n", "is damaged: its head cannot be read"),
        (lambda data: MAGIC + b"[]\n", "is damaged: its head cannot be read"),
        (lambda data: MAGIC + b" " * LARGEST_HEAD + data[len(MAGIC) :], "is damaged: its head cannot be read"),
        (lambda data: data[:-1], "is damaged: it does not match the SHA-256 in its head"),
        (lambda data: data + b"\0", "is damaged: it does not match the SHA-256 in its head"),
        (lambda data: data.replace(b'"sha256"', b'"sha-256"'), "is damaged: it does not match the SHA-256 in its head"),
        (lambda data: data.replace(b'"gpu"', b'"cpu"'), "has no complete head; "),
        (lambda data: data.replace(b'"recipe": 1', b'"recipe": true'), "has no complete head; "),
        (lambda data: data.replace(b'"8.7"', b"8.7"), "has no complete head; "),
    ],
)
def test_a_spoilt_file_is_refused(tmp_path, spoil, reason):
    path = write_engine(tmp_path, KEY, b"engine")
    path.write_bytes(spoil(path.read_bytes()))
    assert refusal(tmp_path).startswith(reason)


def test_a_file_too_large_for_an_engine_is_not_read(tmp_path):
    with (tmp_path / KEY.file_name).open("wb") as file:
        file.truncate((1 << 32) + 1)  # takes no room on the disk
    assert refusal(tmp_path) == "is larger than any engine"


@given(data=st.binary(max_size=300), has_magic=st.booleans(), after_head=st.booleans())
def test_any_bytes_are_a_refusal_or_a_head(tmp_path, data, has_magic, after_head):
    whole = (MAGIC if has_magic else b"") + (b'{"sha256": "00"}\n' if after_head else b"") + data
    with pytest.raises(EngineError):
        unseal(whole)
    (tmp_path / KEY.file_name).write_bytes(whole)
    refusal(tmp_path)


@given(where=st.integers(0, 10**6), byte=st.integers(1, 255), length=st.integers(0, 4))
def test_any_change_of_a_good_file_is_refused_or_harmless(tmp_path, where, byte, length):
    """Some bytes of the head may change without changing what it says; the engine never does."""
    good = seal(asdict(KEY), b"engine" * 20)
    place = where % len(good)
    bad = good[:place] + bytes([good[place] ^ byte]) * length + good[place + 1 :]
    (tmp_path / KEY.file_name).write_bytes(bad)
    try:
        assert read_engine(tmp_path, KEY) == b"engine" * 20
    except EngineError as error:
        assert "\n" not in str(error)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(changes=st.dictionaries(st.sampled_from([*asdict(KEY), "more"]), JSON, max_size=4), dropped=st.sets(st.text()))
def test_any_head_is_a_refusal_or_a_load(tmp_path, changes, dropped):
    head = {name: value for name, value in {**asdict(KEY), **changes}.items() if name not in dropped}
    (tmp_path / KEY.file_name).write_bytes(seal(head, b"engine"))
    if {**head, "calibration": ""} == {**asdict(KEY), "calibration": ""} and type(head["calibration"]) is str:
        assert read_engine(tmp_path, KEY) == b"engine"
    else:
        refusal(tmp_path)


def test_head_and_content_come_apart_again():
    assert unseal(seal({"a": 1, "b": "\n"}, b"\n{}\n")) == ({"a": 1, "b": "\n"}, b"\n{}\n")
    assert json.loads(seal({"a": 1}, b"x").split(b"\n")[1])["a"] == 1


def test_sizes_that_are_built(tmp_path):
    for size, precision in (("640x480", "fp16"), ("320x240", "fp16"), ("64x64", "fp32")):
        write_engine(tmp_path, replace(KEY, size=size, precision=precision), b"")
    write_engine(tmp_path, replace(KEY, graph="ee" * 32, size="8x8"), b"")
    (tmp_path / "timing-0.cache").touch()
    assert built_sizes(tmp_path, KEY.graph, "fp16") == [(240, 320), (480, 640)]
    assert built_sizes(tmp_path, KEY.graph, "fp32") == [(64, 64)]
    assert built_sizes(tmp_path / "missing", KEY.graph, "fp32") == []


def test_the_folder_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "vifa" / "engines"
    make_folder(default_folder())
    assert default_folder().stat().st_mode & 0o777 == 0o700 & ~_umask()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "vifa" / "engines"


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_folder_that_cannot_be_is_one_line_with_the_mend(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        BackendError, match=r"cannot make .*file/a: Not a directory; choose another folder with --engines"
    ):
        make_folder(tmp_path / "file" / "a")
    with pytest.raises(BackendError, match=r"cannot write .*; choose another folder with --engines"):
        write_engine(tmp_path / "file" / "a", KEY, b"")
    path = write_engine(tmp_path, KEY, b"engine")
    path.unlink()
    path.symlink_to(path)
    assert refusal(tmp_path) == "does not exist"


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("nano", "fp16", (480, 640), None, 0), "vifa bundle build nano --precision fp16 --size 640x480"),
        (("my bundle", "fp32", None, None, 2), "vifa bundle build 'my bundle' --precision fp32 --device 2"),
        (
            ("nano", "int8", (8, 16), "engines/a b", 0, True),
            "vifa bundle build nano --precision int8 --size 16x8 --engines 'engines/a b' --calibration PAIRS",
        ),
    ],
)
def test_the_command_that_mends_it(arguments, command):
    assert build_command(*arguments) == command
