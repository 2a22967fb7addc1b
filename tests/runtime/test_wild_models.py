"""Mutated and random networks: an error of ours, a right picture or a warning; never a traceback."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from velatura.runtime import VelaturaError, open_engine
from velatura.runtime.backends.model import find_model
from velatura.runtime.backends.open import cpu_backends

from . import networks

QUICK, ALL = 20, 200
PICTURE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


def rows(count: int) -> list[object]:
    """All numbers, of which a few are quick."""
    return [
        pytest.param(n, marks=() if n < QUICK // 4 else pytest.mark.soak) for n in range(count // 4)
    ]


def mutated(seed: int) -> bytes:
    """A small network's file with some bytes overwritten, cut out, doubled, or swapped fields."""
    rng = np.random.default_rng(seed)
    proto = networks.deep(channels=3, scale=1 + seed % 2, seed=seed)
    if seed % 3 == 0:
        proto = onnx.load(str(find_model("upscale-2x")))
    if seed % 5 == 0:
        proto = structural(proto, rng)
    data = bytearray(proto.SerializeToString())
    if seed % 5:
        for _ in range(int(rng.integers(1, 6))):
            # Most bytes are weights: half of the faults are put before them and behind.
            end = len(data) if rng.random() < 0.5 else min(len(data), 600)
            place = int(rng.integers(0, end))
            place = place if rng.random() < 0.7 else len(data) - 1 - place % 400
            size = int(rng.integers(1, 9))
            match int(rng.integers(0, 4)):
                case 0:
                    data[place] = int(rng.integers(0, 256))
                case 1:
                    del data[place : place + size]
                case 2:
                    data[place:place] = data[place : place + size]
                case _:
                    data[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


def structural(proto: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Still a message, but of a graph that is none or another."""
    node = proto.graph.node[int(rng.integers(0, len(proto.graph.node)))]
    match int(rng.integers(0, 6)):
        case 0:
            node.op_type = str(rng.choice(["Conv", "Relu", "Nothing", "Loop", "Transpose", "Shape"]))
        case 1:
            node.input[0] = node.output[0]
        case 2:
            del node.attribute[:]
        case 3:
            tensor = proto.graph.initializer[int(rng.integers(0, len(proto.graph.initializer)))]
            tensor.dims[0] = int(rng.choice([-1, 0, 2**40, tensor.dims[0] + 1]))
        case 4:
            proto.opset_import[0].version = int(rng.choice([0, 1, 9, 40, 2**31]))
        case _:
            dims = proto.graph.input[0].type.tensor_type.shape.dim
            dims[int(rng.integers(0, len(dims)))].dim_value = int(rng.choice([-1, 5, 0, 2**33]))
    return proto


@pytest.mark.parametrize("quarter", rows(ALL))
def test_a_mutated_file_is_refused_in_words_or_runs(quarter: int, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    for seed in range(4 * quarter, 4 * quarter + 4):
        path.write_bytes(mutated(seed))
        for backend in cpu_backends():
            try:
                with open_engine(path, backend, precision="fp32") as engine:
                    found = engine.run(PICTURE if engine.card.input_channels == 3 else PICTURE[..., 0])
            except VelaturaError:
                continue
            assert found.dtype == np.uint8


@dataclass(frozen=True)
class Made:
    """A network and what it is."""

    proto: onnx.ModelProto
    layout: str
    scale: int
    top: float


def random_network(seed: int) -> Made:
    """A valid network of any layout, size, multiple, scale and range, that keeps its picture."""
    rng = np.random.default_rng(1000 + seed)
    layout = str(rng.choice(["nchw", "nhwc"]))
    down = int(rng.choice([1, 1, 2, 4, 8]))
    scale = int(rng.choice([1, 1, 2, 3, 4]))
    top = float(rng.choice([1.0, 255.0]))
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, np.ndarray] = {}
    last = "image"

    def add(kind: str, *others: str, **attributes: object) -> None:
        nonlocal last
        name = f"t{len(nodes)}"
        nodes.append(helper.make_node(kind, [last, *others], [name], **attributes))
        last = name

    def constant(value: object) -> str:
        name = f"k{len(weights)}"
        weights[name] = np.asarray(value, np.float32)
        return name

    if layout == "nhwc":
        add("Transpose", perm=[0, 3, 1, 2])
    if top == 255:
        add("Div", constant(255.0))
    add("Clip", constant(0.0), constant(1.0))
    if down > 1:
        add("SpaceToDepth", blocksize=down)
        add("DepthToSpace", blocksize=down, mode="DCR")
    for _ in range(int(rng.integers(0, 4))):
        side = int(rng.choice([1, 3, 5]))
        spread = np.full((side, side), 1 / side**2)
        mixed = 0.8 * np.eye(3) + 0.2 / 3 + rng.normal(0, 0.02, (3, 3))
        kernel = constant(mixed[:, :, None, None] * spread)
        add("Conv", kernel, kernel_shape=[side, side], pads=[side // 2] * 4)
        if rng.random() < 0.5:
            add("Relu")
    if scale > 1:
        # Each sample becomes a square of `scale` by `scale`.
        spread = np.repeat(np.eye(3), scale**2, 0)[:, :, None, None]
        add("Conv", constant(spread), kernel_shape=[1, 1])
        add("DepthToSpace", blocksize=scale, mode="CRD")
    if top == 255:
        add("Mul", constant(255.0))
    if layout == "nhwc":
        add("Transpose", perm=[0, 2, 3, 1])
    nodes[-1].output[0] = "result"
    sides: list[int | str] = ["h", "w"]
    if rng.random() < 0.3:
        sides = [int(side) * 8 for side in rng.integers(5, 20, 2)]
    shape = [1, 3, *sides] if layout == "nchw" else [1, *sides, 3]
    if rng.random() < 0.3:
        shape[0] = "batch"
    return Made(networks.model(nodes, weights, shape), layout, scale, top)


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize("quarter", rows(ALL))
def test_a_random_network_gives_its_own_picture_or_a_warning(quarter: int, tmp_path: Path) -> None:
    """Against ONNX Runtime, fed by hand in the range that the network was made for."""
    path = tmp_path / "net.onnx"
    for seed in range(4 * quarter, 4 * quarter + 4):
        made = random_network(seed)
        networks.write(made.proto, path)
        # A multiple of all strides, so that nothing is padded.
        image = PICTURE[:64, :88]
        planes = image.astype(np.float32)[None] * (made.top / 255)
        given = planes if made.layout == "nhwc" else planes.transpose(0, 3, 1, 2)
        for value in (*made.proto.graph.input, *made.proto.graph.output):
            value.type.tensor_type.ClearField("shape")
        session = onnxruntime.InferenceSession(
            made.proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        raw = np.asarray(session.run(None, {"image": given})[0])[0] / made.top * 255
        wanted = np.clip(raw if made.layout == "nhwc" else raw.transpose(1, 2, 0), 0, 255)
        backend = cpu_backends()[seed % len(cpu_backends())]
        with open_engine(path, backend, precision="fp32") as engine:
            found = engine.run(image)
            warned = any("warning" in note for note in engine.notes)
        assert found.shape == wanted.shape, seed
        difference = np.abs(found[16:-16, 16:-16] - wanted[16:-16, 16:-16])
        assert warned or difference.max() <= 1.01, (seed, engine.card)
