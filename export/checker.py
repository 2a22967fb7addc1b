"""The checker: everything in an ONNX file that a game engine's runtime does not promise to take."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    defs,
    helper,
    shape_inference,
)

from ..runtime.errors import ModelError
from .opset import DOMAINS, opset_of
from .targets import IMAGE, RESULT, Target

Rule = Literal[
    "opset", "file", "domain", "operator", "attribute", "shape", "type", "contract", "size", "name"
]

LARGEST_FILE = 2**31 - 1
"""Bytes that a protobuf file may have."""

TRIED = 256
"""Height and width that stand for free ones when shapes are inferred."""

_QUANTISED = frozenset(
    {
        "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv",
        "QLinearMatMul", "QuantizeLinear",
    }
)  # fmt: skip
_CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing that stands in the way."""

    rule: Rule
    operator: str = ""
    """Empty where it is the file as a whole, its input or its output."""
    node: str = ""
    """Name of the node, or `#3` for an unnamed one at that place; of a tensor where it has none."""
    why: str
    advice: str

    def __str__(self) -> str:
        place = " ".join(part for part in (self.operator, self.node) if part)
        return f"{place or 'file'}: {self.why}: {self.advice}"


def check_file(path: Path, target: Target) -> list[Violation]:
    """All violations of an ONNX file, whoever wrote it; of its outer form first.

    Raises ModelError when it cannot be read as ONNX at all.
    """
    try:
        size = path.stat().st_size
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf and the file system have no common error class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path} is not a readable ONNX model: {reason}") from error
    if not model.graph.node and not model.graph.output:
        raise ModelError(f"{path} is not a readable ONNX model: it holds no graph")
    found = list(_weights_outside(model, path.parent, target))
    if not any(_is_external(tensor) for tensor in _tensors(model.graph)):
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(f"{path} is not a valid ONNX model: {reason}") from error
    if size > LARGEST_FILE:
        why, advice = f"{size:,} bytes are more than protobuf reads", "export a smaller network"
        found.append(Violation(rule="size", why=why, advice=advice))
    return found + check(model, target)


def check(model: ModelProto, target: Target) -> list[Violation]:
    """All violations of a model in memory."""
    version = opset_of(model)
    shapes = _Shapes(model)
    found = [*_version(model, version, target), *_domains(model)]
    for label, node in _nodes(model.graph):
        found += _node(node, label, version, target, shapes)
    found += _types(model, target, shapes)
    found += _contract(model)
    found += _free_shapes(model, target, shapes)
    unnamed = sum(1 for _, node in _nodes(model.graph) if not node.name)
    if unnamed:
        why = f"{unnamed} nodes have no name, so that no message of the engine can tell which it means"
        found.append(Violation(rule="name", why=why, advice="name them, as `velatura export` does"))
    return found


def _nodes(graph: GraphProto, prefix: str = "") -> Iterator[tuple[str, NodeProto]]:
    """All nodes with a label each, those of inner graphs included."""
    for index, node in enumerate(graph.node):
        label = f"{prefix}{node.name or f'#{index}'}"
        yield label, node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(inner, f"{label}/")


def _version(model: ModelProto, version: int, target: Target) -> Iterator[Violation]:
    low, high = target.opsets
    if not low <= version <= high:
        yield Violation(
            rule="opset",
            why=f"operator set {version} is outside {low} to {high} ({target.opset_note})",
            advice=f"export it with one of {low} to {high}",
        )
    if target.max_ir is not None and model.ir_version > target.max_ir:
        yield Violation(
            rule="file",
            why=f"file format {model.ir_version} needs a newer ONNX Runtime than older engines have",
            advice=f"write it as file format {target.max_ir}",
        )


def _domains(model: ModelProto) -> Iterator[Violation]:
    for function in model.functions:
        yield Violation(
            rule="domain",
            operator=function.name,
            why="is a function that the model defines itself",
            advice="inline it (onnx.inliner) before export",
        )


def _node(
    node: NodeProto, label: str, version: int, target: Target, shapes: "_Shapes"
) -> Iterator[Violation]:
    kind = node.op_type
    if node.domain not in DOMAINS:
        why = f"is of the domain {node.domain}, not one of ONNX's own operators"
        advice = "export the network without optimisations of a runtime, or write it in plain operators"
        yield Violation(rule="domain", operator=kind, node=label, why=why, advice=advice)
        return
    if kind in _CONTROL and kind in target.operators:
        why = "is decided on the CPU, which waits for the GPU in every frame"
        yield Violation(rule="operator", operator=kind, node=label, why=why, advice=_advice(kind))
    elif kind not in target.operators and not _expands(kind, version, target):
        named = (
            "is in the list of unsupported operators" if kind in target.unsupported else "is not listed"
        )
        why = f"{named} for {target.name.title()}: {target.not_listed}"
        yield Violation(rule="operator", operator=kind, node=label, why=why, advice=_advice(kind))
    elif kind in target.slow:
        yield Violation(
            rule="operator", operator=kind, node=label, why=target.slow[kind], advice=_advice(kind)
        )
    yield from _attributes(node, label, target)
    yield from _ranks(node, label, target, shapes)


def _advice(kind: str) -> str:
    if kind in _QUANTISED:
        return "export the float32 model"
    if kind in _CONTROL:
        return "export the network for one path, with its loops unrolled"
    return "replace it by operators that are listed, before export"


def _expands(kind: str, version: int, target: Target) -> bool:
    """Whether a runtime that follows the standard takes the operator apart into ones that are listed.

    Unity's importer does not; ONNX Runtime does.
    """
    if target.name == "unity":
        return False
    try:
        schema: Any = defs.get_schema(kind, version, "")
    except Exception:  # onnx's own SchemaError is not exported under one name: there is none
        return False
    if not schema.has_function:
        return False
    return all(node.op_type in target.operators for node in schema.function_body.node)


def _attributes(node: NodeProto, label: str, target: Target) -> Iterator[Violation]:
    given = {attribute.name: attribute for attribute in node.attribute}
    for rule in target.attributes:
        attribute = given.get(rule.attribute)
        if rule.operator != node.op_type or attribute is None:
            continue
        value = _value(attribute)
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        if not rule.allowed or any(one not in rule.allowed for one in values):
            shown = "" if not rule.allowed else f" is {value}"
            yield Violation(
                rule="attribute",
                operator=node.op_type,
                node=label,
                why=f"{rule.attribute}{shown}: {rule.why}" if shown else rule.why,
                advice=rule.advice,
            )


def _value(attribute: AttributeProto) -> object:
    value: Any = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float):
        return round(value, 6)
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value


def _ranks(node: NodeProto, label: str, target: Target, shapes: "_Shapes") -> Iterator[Violation]:
    if target.max_rank is not None:
        for name in node.output:
            rank = shapes.rank(name)
            if rank is not None and rank > target.max_rank:
                why = f"gives a tensor of {rank} dimensions, more than {target.max_rank}"
                advice = "split the reshaping into steps with fewer dimensions"
                yield Violation(rule="shape", operator=node.op_type, node=label, why=why, advice=advice)
    if target.pool_rank is not None and node.op_type in ("AveragePool", "MaxPool"):
        rank = shapes.rank(node.input[0])
        if rank is not None and rank > target.pool_rank:
            why = "pools in three dimensions, which the GPU's backends before 2.5 do not"
            advice = "pool in two dimensions, or use 2.5 or newer"
            yield Violation(rule="shape", operator=node.op_type, node=label, why=why, advice=advice)


def _types(model: ModelProto, target: Target, shapes: "_Shapes") -> Iterator[Violation]:
    """One line for each type that is refused, with the first tensor that has it."""
    seen: Counter[str] = Counter()
    first: dict[str, str] = {}
    weights: set[str] = set()
    for tensor in _tensors(model.graph):
        kind = TensorProto.DataType.Name(tensor.data_type)
        allowed = target.constants is None or kind in target.constants
        if kind in target.refused or not allowed:
            seen[kind] += 1
            first.setdefault(kind, tensor.name)
            weights.add(kind)
    for name, kind in shapes.types.items():
        if kind in target.refused:
            seen[kind] += 1
            first.setdefault(kind, name)
    for kind, count in seen.items():
        role = "weights" if kind in weights else "tensors"
        yield Violation(
            rule="type",
            node=first[kind],
            why=f"{count} {role} of type {kind.lower()}, which {target.name.title()} does not take",
            advice="export them in float32 (indices in int64)",
        )
    for sparse in model.graph.sparse_initializer:
        why = f"is stored sparsely, which {target.name.title()} does not take"
        node = sparse.values.name
        yield Violation(rule="type", node=node, why=why, advice="store it as a plain tensor")


def _contract(model: ModelProto) -> Iterator[Violation]:
    """What the scripts of samples/games count on: float32 (1, 3, H, W) in and out, and two names."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    ends = (("input", inputs, IMAGE), ("output", list(model.graph.output), RESULT))
    for role, values, wanted in ends:
        if len(values) != 1:
            names = ", ".join(value.name for value in values)
            why = f"{len(values)} {role}s ({names}), where a picture needs one"
            advice = "export the part that turns a picture into a picture"
            yield Violation(rule="contract", why=why, advice=advice)
            continue
        (value,) = values
        tensor = value.type.tensor_type
        kind = TensorProto.DataType.Name(tensor.elem_type)
        if kind != "FLOAT":
            why = f"the {role} is {kind.lower()}, not float32"
            advice = "give it float32 in 0..1, as `velatura export --for` does"
            yield Violation(rule="contract", node=value.name, why=why, advice=advice)
        dims = [_dimension(dim) for dim in tensor.shape.dim]
        if len(dims) != 4 or dims[1] != 3:
            why = f"the {role} is ({', '.join(str(d) for d in dims)}), not (1, 3, height, width)"
            advice = "give it the layout NCHW with three channels, as `velatura export --for` does"
            yield Violation(rule="contract", node=value.name, why=why, advice=advice)
        elif dims[0] != 1:
            why = f"the {role}'s first dimension is {dims[0]}, not 1"
            yield Violation(
                rule="contract", node=value.name, why=why, advice="fix the number of pictures to 1"
            )
        if value.name != wanted:
            why = f"the {role} is not called {wanted}"
            advice = "rename it, or change the name in the script that feeds it"
            yield Violation(rule="contract", node=value.name, why=why, advice=advice)


def _dimension(dim: Any) -> int | str:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or "?"


def _free_shapes(model: ModelProto, target: Target, shapes: "_Shapes") -> Iterator[Violation]:
    if not target.named_dimensions:
        return
    weights = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        dims = [_dimension(dim) for dim in value.type.tensor_type.shape.dim]
        if value.name not in weights and "?" in dims:
            why = "a free dimension has no name, by which the runtime would fix it"
            advice = "name it (dim_param), or fix the size"
            yield Violation(rule="shape", node=value.name, why=why, advice=advice)
    for value in model.graph.output:
        open_dims = shapes.open_dimensions(value.name)
        if open_dims:
            why = f"dimension {open_dims[0]} of the output does not follow from the input's size"
            advice = "export it without shapes that depend on values, or with a fixed size"
            yield Violation(rule="shape", node=value.name, why=why, advice=advice)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """All constant tensors, those of attributes and of inner graphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def _weights_outside(model: ModelProto, folder: Path, target: Target) -> Iterator[Violation]:
    files: Counter[str] = Counter()
    for tensor in _tensors(model.graph):
        if _is_external(tensor):
            files.update(e.value for e in tensor.external_data if e.key == "location")
    for name, count in files.items():
        missing = not (folder / name).is_file()
        if target.external_data and not missing:
            continue
        why = f"{count} weights lie in the file {name}"
        why += ", which is not there" if missing else ", and the importer takes one file"
        yield Violation(
            rule="size", node=name, why=why, advice="save the model with its weights inside"
        )


class _Shapes:
    """Ranks, types and sizes of all tensors, as far as they follow from the file.

    Inferred with free dimensions of the input at `TRIED`; empty where inference fails.
    """

    def __init__(self, model: ModelProto) -> None:
        self.types: dict[str, str] = {}
        self._dims: dict[str, list[int | str]] = {}
        tried = ModelProto()
        tried.CopyFrom(model)
        for value in tried.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value"):
                    dim.dim_value = TRIED
        del tried.graph.value_info[:]
        for value in tried.graph.output:
            # What the file declares is no proof; kept where nothing can be inferred.
            for dim in value.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value"):
                    dim.Clear()
        try:
            inferred = shape_inference.infer_shapes(tried, data_prop=True).graph
        except Exception:  # whatever inference stumbles over, the other checks still tell
            inferred = tried.graph
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            tensor = value.type.tensor_type
            self.types[value.name] = TensorProto.DataType.Name(tensor.elem_type)
            if tensor.HasField("shape"):
                self._dims[value.name] = [_dimension(dim) for dim in tensor.shape.dim]

    def rank(self, name: str) -> int | None:
        """The number of dimensions, or None where it is not known."""
        dims = self._dims.get(name)
        return None if dims is None else len(dims)

    def open_dimensions(self, name: str) -> list[int]:
        """Which dimensions stay without a size."""
        dims = self._dims.get(name)
        return [0] if dims is None else [i for i, dim in enumerate(dims) if isinstance(dim, str)]
