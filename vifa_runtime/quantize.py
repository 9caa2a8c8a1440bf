"""INT8 bundles: convolutions in 8 bits where the images stay what they were, by ONNX Runtime's own quantizer.

    calibrate: ranges of every tensor on real pairs
    rank:      each convolution in 8 bits by itself; how far does the fused image move?
    search:    as many eighths of them as the limit allows, those that move it least first
    measure:   every metric before and after; beyond the limit nothing is written

What stands between two convolutions in 8 bits, an activation or a sum, goes into 8 bits with them: else every tensor
would become floats and bytes again on its way.

Weights are signed and by channel, activations unsigned and by tensor, as processors with VNNI want them; for TensorRT,
`backends.scaled_graphs` writes them signed. The graphs stay plain ONNX (QuantizeLinear, DequantizeLinear).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from vifa_runtime.backends import Options, prepare
from vifa_runtime.bundle import BACKBONE, Bundle, BundleError
from vifa_runtime.graph_inputs import graph_inputs
from vifa_runtime.half_weights import full_weights, half_weights
from vifa_runtime.labels import Labels
from vifa_runtime.pipeline import FusionPipeline
from vifa_runtime.scoring import Scores, for_evaluation, gray_thermal

LIMIT = 0.01  # relative
STEADY = ("en", "vif", "ssim")  # must not move either way: an image that turns into a copy of one source gains in some
GUARDED = ("map50_all", "miou")  # must not fall
FEWEST = 4  # channels that a convolution in 8 bits sums over
RANKED_ON = 4  # pairs that the ranking looks at
BETWEEN = ("Add", "Clip", "Concat", "LeakyRelu", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid")

Measured = Mapping[tuple[str, str], tuple[float, int]]  # (task, metric) -> value, pairs that it was measured on


class QuantizeError(BundleError):
    """A bundle that cannot be quantized within the limit; the message says by which metric and the mend."""


@dataclass(frozen=True)
class LabelledPair:
    """A pair, with the labels of the tasks that it has some for.

    Attributes:
        visible: (H,W,3) RGB uint8.
        thermal: (H,W) of any depth.
        boxes, masks: task -> labels.
    """

    visible: NDArray[np.uint8]
    thermal: NDArray
    boxes: Mapping[str, Labels]
    masks: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Quantized:
    """What `quantize` gives.

    Attributes:
        graphs: path -> ONNX bytes, of all graphs.
        rows: `{task, metric, before, after, change, pairs}`, change relative, on so many pairs.
        convolutions: path -> (in 8 bits, all).
    """

    graphs: Mapping[str, bytes]
    rows: Sequence[Mapping[str, Any]]
    convolutions: Mapping[str, tuple[int, int]]


def quantize(
    bundle: Bundle,
    calibration: Sequence[LabelledPair],
    evaluation: Sequence[LabelledPair],
    limit: float = LIMIT,
    say: Callable[[str], None] = lambda text: None,
) -> Quantized:
    """Quantize a bundle's graphs one after the other, each as far as the limit allows.

    The graph of a task stays as it is where no labels tell what 8 bits would cost it.

    Args:
        calibration: pairs whose ranges count; a few dozen of the robot's own.
        evaluation: other pairs, with labels where there are some.
        limit: by how much, relative, each of `STEADY` may move and each of `GUARDED` fall; half of it while backbone
            and heads are quantized, if task graphs follow, so that these have some left.

    Raises:
        QuantizeError: there are no pairs, or no convolution can be in 8 bits within the limit.
        BackendError: the engine fails on them.
    """
    if not calibration or not evaluation:
        raise QuantizeError(
            "quantizing needs pairs to calibrate on and others to measure on; name a folder that has them"
        )
    before = _measure(bundle, evaluation)
    current, counts = bundle, {}
    guarded = {task for (task, metric), (value, _) in before.items() if metric in GUARDED and value > 0}
    unguarded = {task.graph for task in bundle.tasks if task.name not in guarded}
    for path in bundle.graphs:
        if path in unguarded:
            say(f"{path}: stays as it is, no labels tell what 8 bits would cost it")
            counts[path] = (0, len(_convolutions(bundle.graphs[path])))
            continue
        allowed = limit / 2 if guarded and path.startswith((BACKBONE, "heads/")) else limit
        say(f"{path}: ranking its convolutions")
        current, counts[path] = _quantize_graph(bundle, current, path, calibration, evaluation, before, allowed, say)
    if not any(done for done, _ in counts.values()):
        raise QuantizeError(
            f"no convolution of {bundle.name} can be in 8 bits within {limit:.1%} of {', '.join(STEADY + GUARDED)}; "
            "allow more, or use the bundle as it is"
        )
    after = _measure(current, evaluation)
    return Quantized(current.graphs, _compare(before, after), counts)


def _quantize_graph(
    original: Bundle,
    current: Bundle,
    path: str,
    calibration: Sequence[LabelledPair],
    evaluation: Sequence[LabelledPair],
    before: Measured,
    limit: float,
    say: Callable[[str], None],
) -> tuple[Bundle, tuple[int, int]]:
    """The bundle with one more graph in 8 bits as far as that goes, and how many of its convolutions are."""
    full = full_weights(original.graphs[path])  # the quantizer looks for constant weights
    keep = half_weights if full != original.graphs[path] else bytes
    graph = _with_names(full)
    names = _gaining(graph)
    inputs = list(graph_inputs(original, path, ((pair.visible, pair.thermal) for pair in calibration)))
    order, every = _ranked(graph, names, inputs), len(_convolutions(graph))

    for count in _counts(len(order)):
        changed = _with_graph(current, path, keep(_in_8_bits(graph, order[:count], inputs)))
        worst = max(map(_loss, _compare(before, _measure(changed, evaluation))), default=0.0)
        say(f"{path}: {count} of {every} convolutions, worst change {worst:.2%}")
        if worst <= limit:
            return changed, (count, every)
    return current, (0, every)


def _counts(most: int) -> list[int]:
    """How many convolutions are tried, the most first: all, seven eighths of them, ... one eighth.

    Not by halves, as more of them may well do no harm where fewer do: rare classes move by chance.
    """
    return sorted({-(-most * eighths // 8) for eighths in range(1, 9)} - {0}, reverse=True)


def _ranked(graph: bytes, names: Sequence[str], inputs: Sequence[Mapping[str, NDArray]]) -> list[str]:
    """The convolutions, those first whose 8 bits move the graph's outputs least, relative to what these are."""
    from vifa_runtime.backends.onnxruntime import make_session

    shown = inputs[:RANKED_ON]
    session = make_session(graph, 0)
    wanted = [session.run(None, dict(given)) for given in shown]
    moved = {}
    for name in names:
        alone = make_session(_in_8_bits(graph, [name], shown), 0)
        moved[name] = float(
            np.mean(
                [
                    np.abs(a.astype(np.float64) - b).sum() / max(np.abs(b.astype(np.float64)).sum(), 1e-9)
                    for given, outputs in zip(shown, wanted, strict=True)
                    for a, b in zip(alone.run(None, dict(given)), outputs, strict=True)
                ]
            )
        )
    return sorted(names, key=lambda name: moved[name])


def _in_8_bits(graph: bytes, names: Sequence[str], inputs: Sequence[Mapping[str, NDArray]]) -> bytes:
    """The graph with these convolutions, and what is between them, among quantizing and dequantizing operators."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(inputs)

        def get_next(self) -> dict[str, NDArray] | None:
            given = next(self._left, None)
            return None if given is None else dict(given)

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(graph)
        quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", *BETWEEN],
            nodes_to_quantize=_with_between(graph, names),
        )
        return target.read_bytes()


def _with_between(graph: bytes, convolutions: Sequence[str]) -> list[str]:
    """These convolutions, and by name the operators whose inputs all come from them and that lead to one of them."""
    model = onnx.load_model_from_string(graph)
    nodes = {node.name: node for node in model.graph.node}
    constant = {tensor.name for tensor in model.graph.initializer}
    reached = {output for name in convolutions for output in nodes[name].output}
    after = []
    for node in model.graph.node:  # in the order of computation
        given = [name for name in node.input if name and name not in constant]
        if node.op_type in BETWEEN and given and reached.issuperset(given):
            after.append(node)
            reached.update(node.output)
    wanted = {name for convolution in convolutions for name in nodes[convolution].input}
    between = []
    for node in reversed(after):
        if wanted.intersection(node.output):
            between.append(node.name)
            wanted.update(node.input)
    return [*convolutions, *between]


def _measure(bundle: Bundle, pairs: Sequence[LabelledPair]) -> Measured:
    loose = for_evaluation(bundle)
    pipeline, scores = FusionPipeline(loose, prepare("onnxruntime", loose, Options())), Scores(loose)
    for pair in pairs:
        results = pipeline.process(pair.visible, pair.thermal)
        gray = gray_thermal(pair.thermal, pair.visible.shape[:2])
        scores.add(pair.visible, gray, results, pair.boxes, pair.masks)
    pipeline.close()
    return {(row["task"], row["metric"]): (row["value"], row["pairs"]) for row in scores.rows()}


def _compare(before: Measured, after: Measured) -> list[dict[str, Any]]:
    return [
        {
            "task": task,
            "metric": metric,
            "before": round(value, 4),
            "after": round(after[task, metric][0], 4),
            "change": after[task, metric][0] / value - 1 if value else 0.0,
            "pairs": pairs,
        }
        for (task, metric), (value, pairs) in before.items()
        if (task, metric) in after
    ]


def _loss(row: Mapping[str, Any]) -> float:
    """How much of the limit a row of `_compare` uses."""
    if row["metric"] in STEADY:
        return abs(row["change"])
    return max(0.0, -row["change"]) if row["metric"] in GUARDED else 0.0


def _with_graph(bundle: Bundle, path: str, graph: bytes) -> Bundle:
    return replace(bundle, graphs={**bundle.graphs, path: graph})


def _convolutions(graph: bytes) -> list[str]:
    return [node.name for node in onnx.load_model_from_string(graph).graph.node if node.op_type == "Conv"]


def _gaining(graph: bytes) -> list[str]:
    """The convolutions that may gain: with fewer than 4 channels to sum over, one is slower in bytes than in floats.

    But for one that sums over a single channel by construction (depthwise), which has kernels of its own.
    """
    model = onnx.load_model_from_string(graph).graph
    weights = {tensor.name: tensor.dims for tensor in model.initializer}
    names = []
    for node in model.node:
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        shape = weights.get(node.input[1], ()) if node.op_type == "Conv" else ()
        if shape and (groups > 1 or shape[1] >= FEWEST):
            names.append(node.name)
    return names


def _with_names(graph: bytes) -> bytes:
    """The graph with a name for every operator, by which the quantizer chooses.

    And with its word for graphs that need no folding of norms before; else it warns in every call.
    """
    model = onnx.load_model_from_string(graph)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    return model.SerializeToString()
