"""Which back end a name gives, what takes its place where it can't be had, and what is said about it."""

import pytest

from vifa_runtime.backends import BackendError, Options, prepare


def test_names_and_precisions_that_there_are_not(bundle):
    with pytest.raises(BackendError, match="back end 'tpu' is unknown; use one of onnxruntime, onnxruntime-cuda"):
        prepare("tpu", bundle, Options())
    with pytest.raises(BackendError, match="back end 'tpu' is unknown"):
        prepare("onnxruntime", bundle, Options(fallback="tpu"))
    for name, wrong, known in (
        ("onnxruntime", "fp16", "fp32"),
        ("onnxruntime-cuda", "int8", "fp32"),
        ("onnxruntime-tensorrt", "int8", "fp32 or fp16"),
        ("tensorrt", "fp8", "fp32 or fp16 or int8"),
    ):
        with pytest.raises(BackendError, match=f"back end {name} has no precision '{wrong}'; use {known}$"):
            prepare(name, bundle, Options(precision=wrong))


@pytest.mark.parametrize(
    ("name", "provider"),
    [("onnxruntime-cuda", "CUDAExecutionProvider"), ("onnxruntime-tensorrt", "TensorrtExecutionProvider")],
)
def test_a_provider_that_this_machine_lacks_is_one_line_with_the_mend(bundle, name, provider):
    with pytest.raises(BackendError, match=f"this ONNX Runtime has no {provider}; .*pip install onnxruntime-gpu"):
        prepare(name, bundle, Options())


def test_the_fallback_is_used_only_where_it_is_allowed_and_says_why(bundle, make_pair):
    visible, thermal = make_pair(8, 8)
    pair = visible[None], thermal[None].astype("float32") / 255
    engine = prepare("onnxruntime-cuda", bundle, Options(threads=1, fallback="onnxruntime"))
    plain = prepare("onnxruntime", bundle, Options(threads=1))
    told = engine.describe()
    assert told.pop("fallback").startswith("onnxruntime-cuda: this ONNX Runtime has no CUDAExecutionProvider")
    assert told == plain.describe()
    assert (engine.run(*pair, ["blend"]).fused["blend"] == plain.run(*pair, ["blend"]).fused["blend"]).all()
    engine.close()
    with pytest.raises(BackendError):
        engine.run(*pair, ["blend"])


def test_the_fallback_of_another_precision_runs_graphs_as_they_are(bundle):
    engine = prepare("onnxruntime-tensorrt", bundle, Options(precision="fp16", fallback="onnxruntime"))
    assert engine.describe()["precision"] == "fp32"


def test_where_both_cannot_be_had_the_fallbacks_reason_is_told(bundle):
    with pytest.raises(BackendError, match="TensorrtExecutionProvider"):
        prepare("onnxruntime-cuda", bundle, Options(fallback="onnxruntime-tensorrt"))


def test_what_is_wanted_is_used_where_it_can_be_had(bundle):
    assert "fallback" not in prepare("onnxruntime", bundle, Options(fallback="tensorrt")).describe()
