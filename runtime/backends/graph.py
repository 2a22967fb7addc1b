"""Changes to ONNX graphs, so that they take and give a frame's own samples; errors that name the
failing node."""

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)

from ..card import ModelCard
from ..frame import Array

_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}

INPUT, OUTPUT = "velatura_frame", "velatura_result"

Samples = Literal["integers", "bytes", "half"]
"""The layout of samples in a wrapped graph's tensors.

`integers`: uint8, or uint16 above 8 bits. `bytes`: uint8 with, above 8 bits, one more axis for the low
and the high byte, which is the same memory as uint16 and the only way into TensorRT, which has no such
type. `half`: float16 in 0..1.
"""


def io_shape(card: ModelCard, height: int, width: int, *, output: bool = False) -> tuple[int, ...]:
    """Returns the shape of a wrapped graph's input, or of its output for that input: the frame's own
    memory.

    (1, H, W, 3) for RGB; (1, 1, H, W) for luma, or (1, H, W, 1) for a model that is NHWC itself.
    """
    scale = card.scale if output else 1
    channels = card.output_channels if output else card.input_channels
    return tuple(int(side) for side in _shape(card, channels, height * scale, width * scale))


def _shape(card: ModelCard, channels: int, height: int | str, width: int | str) -> list[Any]:
    if channels == 1 and card.layout == "nchw":
        return [1, 1, height, width]
    return [1, height, width, channels]


def wrap(
    proto: ModelProto,
    card: ModelCard,
    *,
    bits: int = 8,
    size: tuple[int, int] | None = None,
    samples: Samples = "integers",
    names: tuple[str, str] = (INPUT, OUTPUT),
) -> ModelProto:
    """Returns a copy of `proto` with a frame's samples of `bits` bits at both ends; shapes as in
    `io_shape`.

    `size` (height, width) fixes the shapes; without it any size may follow another. `names` are those
    of the input and the output; a graph that was wrapped once needs others the next time. The scaling
    to the card's value range, channel order, layout, rounding and clipping become part of the graph,
    where the inference library fuses and threads them. The cast stands directly at the integer tensors,
    before and after any transposition, which is the one order that TensorRT accepts.
    """
    model = ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    del graph.value_info[:]
    weights = {tensor.name for tensor in graph.initializer}
    source = next(value.name for value in graph.input if value.name not in weights)
    result = graph.output[0].name
    low, high = card.value_range
    peak = 1.0 if samples == "half" else float((1 << bits) - 1)
    pairs = samples == "bytes" and bits > 8
    # A half holds every 8-bit level, so that a half network needs no float at its ends; above, the
    # scaled levels need the precision of a float before they are rounded.
    narrow = card.dtype == "float16" and (samples == "half" or bits == 8)
    number = np.float16 if narrow else np.float32

    before = _Chain(names[0], names[0], number)
    before.cast(TensorProto.FLOAT16 if narrow else TensorProto.FLOAT)
    if pairs:
        before.add("Mul", before.constant(np.array([1, 256], number)))
        before.add("ReduceSum", before.constant(np.array([-1], np.int64)), keepdims=0)
    if card.input_channels == 3 and card.layout == "nchw":
        before.add("Transpose", perm=[0, 3, 1, 2])
    if card.input_colour == "bgr":
        before.add("Gather", before.constant(np.array([2, 1, 0], np.int64)), axis=_channel_axis(card))
    top = 255.0 if card.dtype == "uint8" else high
    mean, deviation = _along(card, card.normalisation(card.input_colour))
    before.scale((top - low) / peak / deviation, (low - mean) / deviation)
    if card.dtype == "uint8":
        before.add("Round")
    before.cast(_TYPES[card.dtype])
    before.finish(source)

    after = _Chain(names[1], result, number)
    after.type = _TYPES[card.dtype]
    after.cast(TensorProto.FLOAT16 if narrow else TensorProto.FLOAT)
    if card.output_colour == "bgr":
        after.add("Gather", after.constant(np.array([2, 1, 0], np.int64)), axis=_channel_axis(card))
    if card.output_range is not None:
        low, top = card.output_range
        after.scale(peak / (top - low), -low * peak / (top - low))
    else:
        # The order is that of the picture again, after the Gather.
        order = "luma" if card.output_colour == "luma" else "rgb"
        mean, deviation = _along(card, card.normalisation(order))
        after.scale(deviation * peak / (top - low), (mean - low) * peak / (top - low))
    after.add("Clip", after.constant(number(0)), after.constant(number(peak)))
    if samples != "half":
        after.add("Round")
    if card.output_channels == 3 and card.layout == "nchw":
        after.add("Transpose", perm=[0, 2, 3, 1])
    if pairs:
        after.split_bytes()
    after.cast(_integers(bits, samples))
    after.finish(names[1])

    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    tail = [2] if pairs else []
    if size is None:
        given = _shape(card, card.input_channels, "height", "width")
        big = _shape(card, card.output_channels, "height_out", "width_out")
    else:
        given, big = list(io_shape(card, *size)), list(io_shape(card, *size, output=True))
    kind = _integers(bits, samples)
    _replace(graph.input, source, helper.make_tensor_value_info(names[0], kind, given + tail))
    _replace(graph.output, result, helper.make_tensor_value_info(names[1], kind, big + tail))
    return model


def _integers(bits: int, samples: Samples) -> int:
    if samples == "half":
        return TensorProto.FLOAT16
    return TensorProto.UINT8 if bits == 8 or samples == "bytes" else TensorProto.UINT16


def macs_per_pixel(
    proto: ModelProto, card: ModelCard, counts: Callable[[NodeProto], bool] | None = None
) -> float:
    """Returns the multiply-adds of the convolutions per input pixel, at 1280x720 or the model's own
    size.

    `counts` says which convolutions; None counts all.
    """
    height, width = card.fixed_size or (720, 1280)
    model = ModelProto()
    model.CopyFrom(proto)
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    source = next(value for value in model.graph.input if value.name not in weights)
    rows, columns = (1, 2) if card.layout == "nhwc" else (2, 3)
    dims = source.type.tensor_type.shape.dim
    dims[0].dim_value, dims[rows].dim_value, dims[columns].dim_value = 1, height, width
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    } | weights
    total = 0
    for node in inferred.node:
        if node.op_type not in ("Conv", "ConvTranspose") or (counts and not counts(node)):
            continue
        kernel = shapes.get(node.input[1], [])
        # A transposed convolution spends its kernel on every input sample, the other on every output.
        plane = shapes.get(node.output[0] if node.op_type == "Conv" else node.input[0], [])
        total += (
            kernel[0] * kernel[1] * kernel[2] * kernel[3] * plane[2] * plane[3]
            if kernel and plane
            else 0
        )
    return total / (height * width)


def _along(card: ModelCard, values: tuple[Array, Array]) -> "tuple[float | Array, float | Array]":
    """Returns a number for each channel along the tensors' axis, or one number where none differ."""
    if not card.mean:
        return 0.0, 1.0
    shape = (-1, 1, 1) if card.layout == "nchw" else (-1,)
    return values[0].reshape(shape), values[1].reshape(shape)


def _channel_axis(card: ModelCard) -> int:
    return 1 if card.layout == "nchw" else 3


def _replace(values: Any, name: str, value: ValueInfoProto) -> None:
    kept = [v for v in values if v.name != name]
    del values[:]
    values.extend([value, *kept])


class _Chain:
    """A chain of nodes, each fed by the one before it, whose constants are of one number type."""

    def __init__(self, prefix: str, start: str, number: type[np.float16] | type[np.float32]) -> None:
        self.prefix = prefix
        self.last = start
        self.number = number
        self.type: int | None = None
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def constant(self, value: "np.ndarray | np.generic") -> str:
        name = f"{self.prefix}_c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> None:
        name = f"{self.prefix}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *inputs], [name], name, **attributes))
        self.last = name

    def cast(self, kind: int) -> None:
        if kind != self.type:
            self.add("Cast", to=kind)
            self.type = kind

    def scale(self, factor: "float | np.ndarray", offset: "float | np.ndarray") -> None:
        if np.any(factor != 1.0):
            self.add("Mul", self.constant(np.asarray(factor, self.number)))
        if np.any(offset != 0.0):
            self.add("Add", self.constant(np.asarray(offset, self.number)))

    def split_bytes(self) -> None:
        """Append the split of levels into low and high byte along a new last axis."""
        levels = self.last
        self.add("Mul", self.constant(self.number(1 / 256)))
        self.add("Floor")
        high = self.last
        self.add("Mul", self.constant(self.number(-256)))
        self.add("Add", levels)
        axis = self.constant(np.array([-1], np.int64))
        self.add("Unsqueeze", axis)
        low, self.last = self.last, high
        self.add("Unsqueeze", axis)
        high, self.last = self.last, low
        self.add("Concat", high, axis=-1)

    def finish(self, name: str) -> None:
        """Let the last node write the tensor `name`."""
        if not self.nodes:
            self.add("Identity")
        self.nodes[-1].output[0] = name


def explain(proto: ModelProto, complaint: str) -> str:
    """Returns the most telling line of a library's error message, and the nodes that it mentions.

    Libraries say `no conversion for MyOp` or nothing but a tensor's name; a user needs the node. Nodes
    are named by operator and name, up to three.
    """
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    words = set(re.findall(r"[\w.:/-]+", complaint))
    standard = {"", "ai.onnx"}
    named = [n for n in proto.graph.node if n.name and n.name in words]
    # An operator of the standard is mentioned by many messages that are about something else.
    strange = [
        n
        for n in proto.graph.node
        if n.domain not in standard and any(n.op_type in word for word in words)
    ]
    kinds = {n.op_type for n in proto.graph.node}
    refused = {
        kind for kind in kinds if re.search(rf"(unsupported|not support|no conversion|not implement|"
                                            rf"not a registered).{{0,200}}\b{kind}\b", complaint,
                                            re.IGNORECASE | re.DOTALL)
    }  # fmt: skip
    culprits = strange or named or [n for n in proto.graph.node if n.op_type in refused]
    if not culprits:
        return reason
    listed = ", ".join(_describe(n.domain, n.op_type, n.name) for n in culprits[:3])
    more = f" and {len(culprits) - 3} more" if len(culprits) > 3 else ""
    return f"operator {listed}{more}: {reason}"


def _describe(domain: str, kind: str, name: str) -> str:
    operator = f"{domain}.{kind}" if domain not in ("", "ai.onnx") else kind
    return f"{operator} (node {name or 'without a name'})"
