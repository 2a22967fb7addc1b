"""Graph surgery: an ONNX model becomes one that eats and gives a frame's own samples at one size."""

from typing import Any

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

_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}

INPUT, OUTPUT = "velatura_frame", "velatura_result"


def wrap(proto: ModelProto, card: ModelCard, height: int, width: int, bits: int) -> ModelProto:
    """A copy of `proto` with samples of `bits` bits at both ends, for one size.

    Input (H, W) for luma, else (H, W, 3) RGB; output the same, `scale` times larger. The scaling to the
    card's value range, channel order, layout, rounding and clipping become part of the graph, where the
    inference library fuses and threads them. The cast stands directly at the integer tensors, before
    and after any transposition, which is the one order that TensorRT accepts.
    """
    model = ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    del graph.value_info[:]
    weights = {tensor.name for tensor in graph.initializer}
    source = next(value.name for value in graph.input if value.name not in weights)
    result = graph.output[0].name
    samples = TensorProto.UINT8 if bits == 8 else TensorProto.UINT16
    channels = card.input_channels
    low, high = card.value_range
    peak = float((1 << bits) - 1)

    before = _Chain("velatura_in", INPUT)
    before.add("Cast", to=TensorProto.FLOAT)
    shape = (
        [1, height, width, channels]
        if card.layout == "nhwc" or channels == 3
        else [1, 1, height, width]
    )
    before.add("Reshape", before.constant(np.array(shape, np.int64)))
    if channels == 3 and card.layout == "nchw":
        before.add("Transpose", perm=[0, 3, 1, 2])
    if card.input_colour == "bgr":
        before.add("Gather", before.constant(np.array([2, 1, 0], np.int64)), axis=_channel_axis(card))
    if card.dtype != "uint8" or peak != 255.0:
        top = 255.0 if card.dtype == "uint8" else high
        before.scale((top - low) / peak, low)
    if card.dtype == "uint8":
        before.add("Round")
    if card.dtype != "float32":
        before.add("Cast", to=_TYPES[card.dtype])
    before.finish(source)

    after = _Chain("velatura_out", result)
    if card.dtype != "float32":
        after.add("Cast", to=TensorProto.FLOAT)
    if card.output_colour == "bgr":
        after.add("Gather", after.constant(np.array([2, 1, 0], np.int64)), axis=_channel_axis(card))
    top = 255.0 if card.dtype == "uint8" else high
    if (low, top) != (0.0, peak):
        after.scale(peak / (top - low), -low * peak / (top - low))
    after.add("Clip", after.constant(np.float32(0)), after.constant(np.float32(peak)))
    after.add("Round")
    if card.output_channels == 3 and card.layout == "nchw":
        after.add("Transpose", perm=[0, 2, 3, 1])
    big = [height * card.scale, width * card.scale]
    big = big if card.output_channels == 1 else [*big, 3]
    after.add("Reshape", after.constant(np.array(big, np.int64)))
    after.add("Cast", to=samples)
    after.finish(OUTPUT)

    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    given = [height, width] if channels == 1 else [height, width, 3]
    _replace(graph.input, source, helper.make_tensor_value_info(INPUT, samples, given))
    _replace(graph.output, result, helper.make_tensor_value_info(OUTPUT, samples, big))
    return model


def macs_per_pixel(proto: ModelProto, card: ModelCard) -> float:
    """Multiply-adds of the convolutions per input pixel, at 1280x720 or the model's own size."""
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
        if node.op_type not in ("Conv", "ConvTranspose"):
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


def _channel_axis(card: ModelCard) -> int:
    return 1 if card.layout == "nchw" else 3


def _replace(values: Any, name: str, value: ValueInfoProto) -> None:
    kept = [v for v in values if v.name != name]
    del values[:]
    values.extend([value, *kept])


class _Chain:
    """A run of nodes, each fed by the one before it."""

    def __init__(self, prefix: str, start: str) -> None:
        self.prefix = prefix
        self.last = start
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

    def scale(self, factor: float, offset: float) -> None:
        if factor != 1.0:
            self.add("Mul", self.constant(np.float32(factor)))
        if offset != 0.0:
            self.add("Add", self.constant(np.float32(offset)))

    def finish(self, name: str) -> None:
        """Let the last node write the tensor `name`."""
        if not self.nodes:
            self.add("Identity")
        self.nodes[-1].output[0] = name
