"""Conversion of a float32 ONNX graph to a strongly typed float16 one."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper, shape_inference

from ..errors import ModelError

KEPT_IN_FLOAT = frozenset(
    {
        "Exp", "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization", "Log",
        "LpNormalization", "Pow", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMean", "ReduceSum",
        "ReduceSumSquare", "Softmax",
    }
)  # fmt: skip
"""Operators whose sums or powers over a picture exceed half's range (65504) or its 11 bits."""

FLOAT_INPUTS = {"Resize": {1, 2}, "Upsample": {1}}
"""Inputs that the ONNX standard requires in float32 whatever the picture's type is."""

LARGEST = float(np.finfo(np.float16).max)


def to_half(proto: ModelProto) -> ModelProto:
    """Returns the graph with weights, activations, input and output in float16; operators that would
    overflow stay in float32.

    TensorRT since 11, and TensorRT-RTX, take every type from the graph (strong typing), so that FP16 is
    decided here. Sums over pictures stay in float32 between casts, and so does the arithmetic of
    shapes, since a half cannot count to 3840. A graph that is in float16 already comes back as it is.

    Raises ModelError for a quantised graph, for control flow, and for a weight beyond half's range.
    """
    model = ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    _constants_to_weights(model)
    floats = _float_tensors(model)
    if not floats:
        return model
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            raise ModelError("a quantised graph cannot become half precision: give the FP32 model")
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise ModelError(f"{node.op_type} ({node.name}) holds a graph: control flow is not halved")
    shapes = _shape_arithmetic(graph.node)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    halves = _Halves(weights, floats - shapes)
    nodes: list[NodeProto] = []
    for node in graph.node:
        if set(node.output) & shapes:
            nodes.append(node)
        elif node.op_type in KEPT_IN_FLOAT:
            nodes += halves.around(node)
        else:
            nodes += halves.into(node)
    del graph.node[:], graph.value_info[:], graph.initializer[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    graph.initializer.extend(t for t in (*weights.values(), *halves.made.values()) if t.name in read)
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    checker.check_model(model)
    return model


def _constants_to_weights(model: ModelProto) -> None:
    """Replace Constant nodes by initializers, and remove initializers from the inputs: all weights are
    then in one place."""
    kept: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Constant":
            kept.append(node)
            continue
        (attribute,) = node.attribute
        value: Any = helper.get_attribute_value(attribute)
        if isinstance(value, TensorProto):
            value = numpy_helper.to_array(value)
        kind = np.float32 if attribute.name.startswith("value_float") else None
        array = np.asarray(value, kind)
        model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)


def _float_tensors(model: ModelProto) -> set[str]:
    """Returns the names of all float32 tensors."""
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    found = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}


def _shape_arithmetic(nodes: Iterable[NodeProto]) -> set[str]:
    """Returns the names of tensors that are computed from a tensor's shape, not from its values."""
    found: set[str] = set()
    nodes = list(nodes)
    produced = {name for node in nodes for name in node.output}
    for node in nodes:
        given = [name for name in node.input if name in produced]
        of_shapes = node.op_type in ("Shape", "Size") or (given and all(n in found for n in given))
        # A tensor filled from a shape is a picture again.
        if of_shapes and node.op_type not in ("ConstantOfShape", "Expand", "Tile"):
            found.update(node.output)
    return found


class _Halves:
    """Rewrites nodes one by one, and keeps the converted weights."""

    def __init__(self, weights: dict[str, TensorProto], floats: set[str]) -> None:
        self.weights = weights
        self.floats = floats
        self.made: dict[str, TensorProto] = {}
        self.casts = 0

    def weight(self, name: str) -> str:
        """Returns the name of a float weight's half copy, made at its first use."""
        half = f"{name}_half"
        if half not in self.made:
            self.made[half] = _halved(self.weights[name], half)
        return half

    def into(self, node: NodeProto) -> list[NodeProto]:
        """Returns the nodes for this one on half tensors."""
        before: list[NodeProto] = []
        kept = FLOAT_INPUTS.get(node.op_type, set[int]())
        for index, name in enumerate(node.input):
            if index in kept:
                if name not in self.weights and name in self.floats:
                    node.input[index] = self._cast(name, TensorProto.FLOAT, before)
            elif name in self.weights and name in self.floats:
                node.input[index] = self.weight(name)
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(_halved(attribute.t, attribute.t.name))
        return [*before, node]

    def around(self, node: NodeProto) -> list[NodeProto]:
        """Returns the nodes for this one in float32 between casts."""
        before: list[NodeProto] = []
        after: list[NodeProto] = []
        for index, name in enumerate(node.input):
            if name in self.floats and name not in self.weights:
                node.input[index] = self._cast(name, TensorProto.FLOAT, before)
        for index, name in enumerate(node.output):
            if name in self.floats:
                node.output[index] = f"{name}_float"
                after.append(
                    helper.make_node(
                        "Cast", [f"{name}_float"], [name], f"{name}_to_half", to=TensorProto.FLOAT16
                    )
                )
        return [*before, node, *after]

    def _cast(self, name: str, kind: int, nodes: list[NodeProto]) -> str:
        self.casts += 1
        cast = f"{name}_cast_{self.casts}"
        nodes.append(helper.make_node("Cast", [name], [cast], cast, to=kind))
        return cast


def _halved(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    peak = float(np.abs(values).max(initial=0.0))
    # Infinities are intended, as the bound of a clip is; a large finite weight is not.
    if np.isfinite(peak) and peak > LARGEST:
        raise ModelError(
            f"the weight {tensor.name} reaches {peak:g}, beyond half precision's {LARGEST:g}"
        )
    return numpy_helper.from_array(values.astype(np.float16), name)
