"""Bundles mutated by a seed, their sums made right again; run as a program, it loads and runs them one after the other.

    python mutation.py FOLDER FIRST LAST      prints a line a bundle: its seed, what was done, `works` or the refusal

The program limits its own memory and the time of each bundle, and dies where one goes past: the parent sees which.
"""

from __future__ import annotations

import hashlib
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from vifa_runtime.backends import BackendError, Options, prepare
from vifa_runtime.bundle import MANIFEST, BundleError, load_bundle
from vifa_runtime.models import find_bundle

MEMORY = 4 << 30  # bytes of address space
SECONDS = 20  # of each bundle
REAL_EVERY = 5  # every so many bundles, one that ships is mutated, not the tiny one
NUMBERS = (0, -1, 1, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63))
VALUES = (
    None,
    True,
    -1,
    0,
    2**63,
    1e308,
    float("nan"),
    "",
    "../../etc/passwd",
    "/dev/zero",
    "x" * 10_000,
    [],
    {},
    [[]],
)
OPERATORS = (
    "Loop",
    "If",
    "Scan",
    "Range",
    "NonZero",
    "Tile",
    "Expand",
    "ConstantOfShape",
    "Resize",
    "Gather",
    "Custom",
)

Graphs = list[Path]


def mutate(folder: Path, seed: int) -> str:
    """Change one thing or a few in the bundle of a folder, and make the sums right; returns what was done."""
    rng = random.Random(seed)
    name, change = rng.choice(sorted(MUTATIONS.items()))
    for _ in range(rng.choice((1, 1, 2))):
        change(folder, rng)
    _make_sums_right(folder)
    return name


def _flip(folder: Path, rng: random.Random) -> None:
    path = rng.choice([folder / MANIFEST, *_graphs(folder)])
    data = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)


def _cut(folder: Path, rng: random.Random) -> None:
    path = rng.choice([folder / MANIFEST, *_graphs(folder)])
    data = path.read_bytes()
    place = rng.randrange(len(data))
    path.write_bytes(data[:place] + (b"" if rng.random() < 0.5 else rng.randbytes(40) + data[place:]))


def _field(folder: Path, rng: random.Random) -> None:
    """Drop a field of the manifest, or put something else there."""
    content = _manifest(folder)
    if not isinstance(content, dict):
        return
    places = list(_places(content))
    holder, key = rng.choice(places)
    if rng.random() < 0.4:
        del holder[key]
    else:
        holder[key] = rng.choice(VALUES)
    (folder / MANIFEST).write_text(yaml.safe_dump(content, sort_keys=False))


def _in_graph(change: Callable[[ModelProto, random.Random], None]) -> Callable[[Path, random.Random], None]:
    """A mutation of one graph as ONNX reads it; of one that is none any more, nothing."""

    def changed(folder: Path, rng: random.Random) -> None:
        path = rng.choice(_graphs(folder))
        try:
            model = onnx.load_model_from_string(path.read_bytes())
        except Exception:  # protobuf has classes of its own
            return
        if model.graph.node:
            change(model, rng)
        path.write_bytes(model.SerializeToString())

    return changed


def _huge_weight(model: ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        tensor = rng.choice(model.graph.initializer)
        if tensor.dims:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
        else:
            tensor.dims.append(rng.choice(NUMBERS))


def _huge_image(model: ModelProto, rng: random.Random) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    if value.type.tensor_type.shape.dim:
        rng.choice(value.type.tensor_type.shape.dim).dim_value = rng.choice(NUMBERS)


def _attribute(model: ModelProto, rng: random.Random) -> None:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    if not attributes:
        return
    attribute = rng.choice(attributes)
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
    elif attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(NUMBERS)
    else:
        attribute.type = rng.choice((AttributeProto.INT, AttributeProto.FLOATS, AttributeProto.GRAPH))


def _sizes(model: ModelProto, rng: random.Random) -> None:
    """Numbers that an operator takes for sizes, axes or repeats."""
    whole = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT64]
    if whole:
        tensor = rng.choice(whole)
        array = numpy_helper.to_array(tensor).copy().reshape(-1)
        if array.size:
            array[rng.randrange(array.size)] = rng.choice(NUMBERS)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _external(model: ModelProto, rng: random.Random) -> None:
    if model.graph.initializer:
        tensor = rng.choice(model.graph.initializer)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", rng.choice(("/dev/zero", "../../../etc/passwd", "x"))), ("length", str(2**40))):
            tensor.external_data.add(key=key, value=value)


def _operator(model: ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    node.op_type = rng.choice(OPERATORS)
    if rng.random() < 0.3:
        node.domain = rng.choice(("com.microsoft", "ai.onnx.ml", "evil"))


def _loop(model: ModelProto, rng: random.Random) -> None:
    """A loop without an end around an operator of the graph."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2**62, np.int64), "rounds"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    loop = helper.make_node("Loop", ["rounds", "yes"], [], body=body)
    model.graph.node.insert(rng.randrange(len(model.graph.node)), loop)


def _edge(model: ModelProto, rng: random.Random) -> None:
    """An input that comes from elsewhere, maybe from behind: a cycle."""
    names = [name for node in model.graph.node for name in node.output] + [t.name for t in model.graph.initializer]
    node = rng.choice([node for node in model.graph.node if node.input] or [None])
    if node is not None:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _drop(model: ModelProto, rng: random.Random) -> None:
    part = rng.choice((model.graph.node, model.graph.initializer, model.graph.input, model.graph.output))
    if part:
        del part[rng.randrange(len(part))]


def _version(model: ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.5 and model.opset_import:
        model.opset_import[0].version = rng.choice((0, 1, 7, 12, 99, 2**40))
    else:
        model.ir_version = rng.choice((0, 1, 3, 99, 2**40))


def _grow(model: ModelProto, rng: random.Random) -> None:
    """Operators that double a tensor again and again."""
    name = rng.choice([name for node in model.graph.node for name in node.output if name] or ["visible"])
    for index in range(rng.choice((4, 40))):
        model.graph.node.append(
            helper.make_node("Concat", [name, name], [f"grown{index}"], axis=rng.choice((0, 1, -1)))
        )
        name = f"grown{index}"


MUTATIONS: dict[str, Callable[[Path, random.Random], None]] = {
    "bytes flipped": _flip,
    "bytes cut or put in": _cut,
    "field dropped or changed": _field,
    "huge weight": _in_graph(_huge_weight),
    "huge image": _in_graph(_huge_image),
    "attribute": _in_graph(_attribute),
    "sizes": _in_graph(_sizes),
    "external data": _in_graph(_external),
    "operator": _in_graph(_operator),
    "loop": _in_graph(_loop),
    "edge": _in_graph(_edge),
    "part dropped": _in_graph(_drop),
    "version": _in_graph(_version),
    "growing": _in_graph(_grow),
}


def _graphs(folder: Path) -> Graphs:
    return sorted(path for path in folder.rglob("*.onnx") if path.stat().st_size)


def _manifest(folder: Path) -> Any:
    try:
        return yaml.safe_load((folder / MANIFEST).read_text(errors="replace"))
    except yaml.YAMLError:
        return None


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """(what holds it, its key) of every value."""
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from _places(node[key])


def _make_sums_right(folder: Path) -> None:
    content = _manifest(folder)
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        return
    for name in content["files"]:
        path = folder / str(name)
        if isinstance(name, str) and ".." not in name and not name.startswith("/") and path.is_file():
            content["files"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(yaml.safe_dump(content, sort_keys=False))


def load_and_run(folder: Path) -> str:
    """`works`, or why it was refused; any other exception ends the program."""
    try:
        bundle = load_bundle(folder)
        engine = prepare("onnxruntime", bundle, Options(threads=1))
        size = bundle.grid((32, 48)).padded
        engine.run(np.zeros((1, *size, 3), np.uint8), np.zeros((1, *size), np.float32), bundle.task_names)
        engine.close()
    except (BundleError, BackendError) as error:
        assert "\n" not in str(error), "a refusal is one line"
        return f"refused: {error}"
    return "works"


def main() -> None:
    """See the module."""
    work, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for seed in range(first, last):
        shutil.rmtree(work / "mutant", ignore_errors=True)
        source = find_bundle("nano-fusion") if seed % REAL_EVERY == 0 else work / "tiny"
        shutil.copytree(source, work / "mutant")
        what = mutate(work / "mutant", seed)
        print(f"{seed} {what}:", end=" ", flush=True)
        signal.alarm(SECONDS)  # whose default is to kill, whatever native code is at work
        print(load_and_run(work / "mutant").encode("ascii", "backslashreplace").decode(), flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main()
