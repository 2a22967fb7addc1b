"""Another operator set for a graph: nodes stay where both sets mean the same, or are rewritten."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    defs,
    helper,
    numpy_helper,
    shape_inference,
)

from ..runtime.errors import ModelError

DOMAINS = ("", "ai.onnx")
"""Both are the standard's own operators."""

_REDUCTIONS = frozenset(
    f"Reduce{kind}"
    for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)

_CHANGED = frozenset({"RoiAlign"})
"""Operators that mean something else in another version though they look the same."""


def opset_of(model: ModelProto) -> int:
    """The version of the standard's operators. Raises ModelError for a file that names none."""
    found = [entry.version for entry in model.opset_import if entry.domain in DOMAINS]
    if not found:
        raise ModelError("the model names no version of ONNX's own operators")
    return max(found)


def with_opset(model: ModelProto, version: int) -> ModelProto:
    """A copy in that version of the standard's operators, 13 to 17, from 13 or newer.

    A version that only widened an operator's types, or gave it an attribute that stands at its default,
    changes nothing. Axes that became inputs become attributes again, or are written out for all
    dimensions. Raises ModelError, naming the node, where a node has no equal there. What the rules let
    through is proved by comparing the outputs of both graphs, which is the caller's.
    """
    changed = ModelProto()
    changed.CopyFrom(model)
    before = opset_of(model)
    if before != version:
        inferred = shape_inference.infer_shapes(changed).graph
        ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in (*inferred.input, *inferred.value_info, *inferred.output)
        }
        _convert(changed.graph, before, version, ranks)
    kept = [entry for entry in changed.opset_import if entry.domain not in DOMAINS]
    del changed.opset_import[:]
    changed.opset_import.append(helper.make_opsetid("", version))
    changed.opset_import.extend(kept)
    return changed


def _convert(graph: GraphProto, before: int, version: int, ranks: dict[str, int]) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for index, node in enumerate(graph.node):
        if node.domain not in DOMAINS:
            continue
        _Node(node, graph, f"{node.op_type}_{index}", constants, ranks).convert(before, version)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _convert(attribute.g, before, version, ranks)


class _Node:
    """One node, on its way from one version to another."""

    def __init__(
        self,
        node: NodeProto,
        graph: GraphProto,
        label: str,
        constants: dict[str, npt.NDArray[Any]],
        ranks: dict[str, int],
    ) -> None:
        self.node = node
        self.graph = graph
        self.label = node.name or label
        self.constants = constants
        self.ranks = ranks

    def convert(self, before: int, version: int) -> None:
        node = self.node
        old, new = self._schema(before), self._schema(version)
        if old.since_version == new.since_version:
            return
        if node.op_type in _CHANGED:
            raise self._stuck(version, "it means something else there")
        rewrite = self._rewriting()
        if rewrite is not None and version < 18 <= before:
            rewrite(version)
        for attribute in list(node.attribute):
            if attribute.name in new.attributes:
                continue
            if not _is_default(attribute, old):
                raise self._stuck(version, f"{attribute.name} came later")
            node.attribute.remove(attribute)
        given = [index for index, name in enumerate(node.input) if name]
        if given and given[-1] >= new.max_input:
            raise self._stuck(version, f"it has {given[-1] + 1} inputs, at most {new.max_input} there")

    def _rewriting(self) -> Callable[[int], None] | None:
        kind = self.node.op_type
        if kind in _REDUCTIONS:
            return self._reduce
        rewritings = {"Pad": self._pad, "Resize": self._resize, "Split": self._split}
        return rewritings.get(kind)

    def _schema(self, version: int) -> Any:
        try:
            return defs.get_schema(self.node.op_type, version, "")
        except Exception as error:  # onnx's own SchemaError is not exported under one name
            raise self._stuck(version, "there is none") from error

    def _stuck(self, version: int, why: str) -> ModelError:
        return ModelError(
            f"{self.node.op_type} ({self.label}) cannot be written in operator set {version}: {why}"
        )

    def _given(self, index: int) -> str:
        return self.node.input[index] if index < len(self.node.input) else ""

    def _constant(self, index: int, what: str, version: int) -> npt.NDArray[Any]:
        name = self._given(index)
        if name not in self.constants:
            raise self._stuck(version, f"its {what} are computed, not constant")
        return self.constants[name]

    def _replace(self, index: int, value: npt.NDArray[Any]) -> None:
        name = f"{self.label}_{index}_written_out"
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        self.constants[name] = value
        self.node.input[index] = name

    def _pad(self, version: int) -> None:
        """The pads of some axes become those of all."""
        if self._given(3):
            axes = self._constant(3, "axes", version)
            pads = self._constant(1, "pads", version).reshape(2, -1)
            rank = self._rank(version)
            whole = np.zeros((2, rank), np.int64)
            whole[:, axes % rank] = pads
            self._replace(1, whole.ravel())
        del self.node.input[3:]

    def _resize(self, version: int) -> None:
        """Scales of some axes become those of all."""
        axes = next((a for a in self.node.attribute if a.name == "axes"), None)
        if axes is None:
            return
        if self._given(3) or self._given(1):
            raise self._stuck(version, "sizes or a region along some axes have no equal there")
        rank = self._rank(version)
        whole = np.ones(rank, np.float32)
        whole[np.array(axes.ints) % rank] = self._constant(2, "scales", version)
        self._replace(2, whole)
        self.node.attribute.remove(axes)

    def _rank(self, version: int) -> int:
        rank = self.ranks.get(self.node.input[0], 0)
        if not rank:
            raise self._stuck(version, "the number of its input's dimensions is not known")
        return rank

    def _split(self, version: int) -> None:
        """Without lengths an older Split makes as many equal parts as it has outputs."""
        parts = next((a for a in self.node.attribute if a.name == "num_outputs"), None)
        if parts is None:
            return
        if parts.i != len(self.node.output):
            raise self._stuck(version, "it has fewer outputs than parts")
        self.node.attribute.remove(parts)

    def _reduce(self, version: int) -> None:
        """Axes become an attribute."""
        empty = next((a for a in self.node.attribute if a.name == "noop_with_empty_axes"), None)
        if self._given(1):
            axes = self._constant(1, "axes", version)
            if axes.size:
                values = [int(axis) for axis in axes.ravel()]
                self.node.attribute.append(helper.make_attribute("axes", values))
            elif empty is not None and empty.i:
                raise self._stuck(version, "it reduces nothing")
        elif empty is not None and empty.i:
            raise self._stuck(version, "it reduces nothing")
        if empty is not None:
            self.node.attribute.remove(empty)
        del self.node.input[1:]


def _is_default(attribute: AttributeProto, schema: Any) -> bool:
    """Whether an attribute says what its absence says."""
    known = schema.attributes.get(attribute.name)
    value: Any = helper.get_attribute_value(attribute)
    if known is not None and known.default_value.name:
        return bool(value == helper.get_attribute_value(known.default_value))
    # Dilations and the like have no stated default, but all ones is what it is.
    return attribute.name == "dilations" and set(attribute.ints) == {1}
