"""What is said where TensorRT, PyCUDA or the GPU are missing, and by the commands."""

import json
import sys
import types

import cv2
import numpy as np
import pytest
from cuda_standin import Machine
from tensorrt_standin import VERSIONS, install
from tiny_bundle import expected, write_tiny

from vifa_runtime.backends import BackendError, Options, prepare


@pytest.fixture
def machine(monkeypatch):
    made = install(monkeypatch, "10.13", Machine())
    yield made
    made.assert_clean()


@pytest.fixture
def folder(tmp_path):
    """The tiny bundle, with an empty cache of engines for whoever does not name a folder."""
    write_tiny(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vifa" / "engines"


def refusal(bundle, **options):
    with pytest.raises(BackendError) as caught:
        prepare("tensorrt", bundle, Options(**options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def without_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)


def test_no_tensorrt(bundle, without_tensorrt):
    words = refusal(bundle)
    assert words.startswith("TensorRT cannot be loaded (")
    assert words.endswith("); on a Jetson it comes with JetPack, elsewhere pip install tensorrt")


def test_a_tensorrt_that_does_not_load(bundle, monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text('raise OSError("libnvinfer.so.10: cannot open shared object file\\nmore")')
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal(bundle).startswith(
        "TensorRT cannot be loaded (libnvinfer.so.10: cannot open shared object file); on"
    )


@pytest.mark.parametrize("version", ["8.2.1.8", "8.4.3", "7.1.3"])
def test_an_old_tensorrt(bundle, monkeypatch, version):
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert refusal(bundle) == (
        f"TensorRT {version} is too old: 8.5 or newer is needed, as JetPack 5, 6 and 7 have it. The Jetson Nano stops "
        "at 8.2; use --backend onnxruntime there"
    )


def test_no_pycuda(bundle, machine, monkeypatch):
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    words = refusal(bundle)
    assert words.startswith("PyCUDA cannot be loaded (")
    assert words.endswith("; pip install pycuda, where NVIDIA's driver is installed")


def test_no_gpu(bundle, machine):
    machine.gpus = ()
    assert refusal(bundle) == (
        "there is no GPU to use (cuInit failed: no CUDA-capable device is detected); see what nvidia-smi says, or use "
        "--backend onnxruntime"
    )


def test_not_so_many_gpus(bundle, machine):
    assert refusal(bundle, device=1) == "there is no GPU 1; this machine has 1, counted from 0"


def test_the_users_own_cache(bundle, machine, cache):
    assert f"there are no fp32 engines of bundle tiny in {cache}; run vifa bundle build tiny" in refusal(bundle)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_stand_in_knows_nothing_that_its_version_does_not_document(monkeypatch, version):
    install(monkeypatch, version, Machine())
    import pycuda.driver as cuda
    import tensorrt as trt

    for module in (trt, cuda):
        assert not hasattr(module, "nothing")
    assert hasattr(trt.BuilderFlag, "FP16") is (version != "11")
    assert hasattr(trt, "IInt8EntropyCalibrator2") is (version != "11")
    assert hasattr(trt, "IProgressMonitor") is (version in ("10.0", "10.13", "11"))
    assert hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH") is (version != "11")
    assert hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") is (version not in ("8.5", "8.6"))

    class Logger(trt.ILogger):
        def log(self, severity, msg):
            pass

    context = cuda.Device(0).make_context()
    logger = Logger()
    builder = trt.Builder(logger)
    config = builder.create_builder_config()
    for name in ("max_workspace_size", "nothing"):
        with pytest.raises(AttributeError):
            setattr(config, name, 1)
    with pytest.raises(TypeError):
        builder.create_network(flags=0, nothing=1)
    assert not hasattr(builder, "build_cuda_engine")
    assert hasattr(config, "int8_calibrator") is (version != "11")
    assert hasattr(config, "progress_monitor") is (version in ("10.0", "10.13", "11"))
    del config, builder
    context.pop()
    context.detach()


# Commands.


def test_build_then_fuse(vifa, machine, folder, cache, tmp_path, make_pair):
    visible, thermal = make_pair(30, 46)
    for name, image in (("vi", visible[..., ::-1]), ("ir", thermal)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), image)
    code, out, errors = vifa("bundle", "build", folder, "--precision", "fp16", "--size", "46x30")
    assert code == 0
    assert f"3 engines of fp16 for 48x32 in {cache}" in out.replace("\n", "")
    assert "backbone.onnx" in errors
    code, out, _ = vifa("bundle", "build", folder, "--precision", "fp16", "--size", "46x30", "--json")
    content = json.loads(out)
    assert content["meta"]["command"] == "vifa bundle build"
    assert [row["graph"] for row in content["rows"]] == ["backbone.onnx", "heads/bright.onnx", "heads/blend.onnx"]
    assert {row["kept"] for row in content["rows"]} == {True}
    fused = ("fuse", tmp_path / "vi", tmp_path / "ir", "-b", folder, "-o", tmp_path / "out")
    code, _, errors = vifa(*fused, "--backend", "tensorrt", "--precision", "fp16")
    assert code == 0, errors
    written = cv2.imread(str(tmp_path / "out" / "blend" / "a.png"))[..., ::-1]
    assert np.abs(written.astype(int) - expected("blend", visible, np.float32(thermal) / 255)).max() <= 2


def test_the_size_must_be_known(refused, machine, folder):
    assert "say which by --size, like --size 640x480" in refused("bundle", "build", folder)
    for size in ("640", "640x", "x480", "0x480", "640x99999", "axb", "640x480x3", "٣٢x٤٨٠٠٠"):
        assert "--size must be WIDTHxHEIGHT of 16 to 8192 pixels" in refused("bundle", "build", folder, "--size", size)


def test_a_working_size_is_known(vifa, machine, tmp_path):
    write_tiny(tmp_path / "a", working_size=[30, 46])
    code, out, _ = vifa("bundle", "build", tmp_path / "a", "--engines", tmp_path / "engines")
    assert code == 0
    assert "3 engines of fp32 for 48x32" in out


def test_build_refuses_in_one_line(vifa, refused, machine, folder, tmp_path):
    words = refused("bundle", "build", folder, "--precision", "fp8")
    assert words == "vifa: precision 'fp8' is unknown; use one of fp32, fp16, int8"
    words = refused("bundle", "build", folder, "--size", "64x64", "--precision", "int8")
    assert "run vifa bundle build with --calibration FOLDER" in words
    assert "there is no GPU 7" in refused("bundle", "build", folder, "--size", "64x64", "--device", "7")
    (tmp_path / "file").touch()
    assert "choose another folder" in refused(
        "bundle", "build", folder, "--size", "64x64", "--engines", tmp_path / "file"
    )
    machine.trt.refuse_builds = "no\nyes"
    code, _, errors = vifa("bundle", "build", folder, "--size", "64x64")
    assert code == 1
    assert errors.splitlines()[-1] == "vifa: TensorRT 10.13.0.35 cannot build backbone.onnx: no"


def test_fuse_falls_back_only_where_that_is_allowed(vifa, refused, without_tensorrt, folder, tmp_path, make_pair):
    visible, thermal = make_pair(8, 8)
    cv2.imwrite(str(tmp_path / "v.png"), visible)
    cv2.imwrite(str(tmp_path / "t.png"), thermal)
    fused = (
        "fuse",
        tmp_path / "v.png",
        tmp_path / "t.png",
        "-b",
        folder,
        "-o",
        tmp_path / "out",
        "--backend",
        "tensorrt",
    )
    assert "TensorRT cannot be loaded" in refused(*fused)
    code, out, errors = vifa(*fused, "--allow-fallback")
    assert code == 0
    assert errors.startswith("vifa: fusing with onnxruntime instead; tensorrt: TensorRT cannot be loaded (")
    assert "1 of 1 pairs fused" in out
