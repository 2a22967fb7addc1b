"""Emulation of half precision: a graph run node by node, each tensor rounded to its own type."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ..errors import EngineError
from ..frame import Array
from . import ort as backend
from .base import Model, Pending
from .graph import explain, io_shape, wrap
from .shape_compiled import Key, StaticEngine

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

NAME = f"{backend.CPU.name}, node by node"
"""The backend name of `RoundedEngine`, which `open_engine` does not know."""


def unavailable() -> str | None:
    """Returns the reason why no graph can be run node by node here, or None when one can."""
    return backend.CPU.unavailable()


class RoundedGraph:
    """A graph with one input and one output, each of whose nodes is a session of its own.

    On a CPU no library tells what FP16 costs. OpenVINO widens the weights and computes in float32.
    ONNX Runtime casts to float32 and back around each node, and leaves out the casts between two nodes:
    0.3 + 1000 - 1000 comes out as 0.3 in half. Here what lies between two nodes is in memory, in the
    type that the graph gives it. Sums within a node are in float32: a GPU's library that sums in half
    loses more than this, one that fuses nodes rounds less often.
    """

    def __init__(self, proto: ModelProto) -> None:
        graph = proto.graph
        self._proto = proto
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._source = next(v.name for v in graph.input if v.name not in self._weights)
        self._result = graph.output[0].name
        self._infinite = {tensor.name for tensor in graph.initializer if _is_infinite(tensor)}
        self._sessions: list[InferenceSession] = []
        last = {name: index for index, node in enumerate(graph.node) for name in node.input}
        self._done: list[list[str]] = [[] for _ in graph.node]
        """Tensors that no later node reads, for each node."""
        for name, index in last.items():
            if name != self._result:
                self._done[index].append(name)
        self.overflow: str | None = None
        """The first half tensor that a node made infinite or NaN out of finite ones."""

    def __call__(self, given: Array) -> Array:
        """Returns the result for one input. Raises ONNX Runtime's error at the node that it refuses."""
        known: dict[str, Array] = {self._source: given}
        infinite = set(self._infinite)
        for index, node in enumerate(self._proto.graph.node):
            inputs = {name: known[name] for name in node.input if name in known}
            if index == len(self._sessions):
                # Only now: the types of the inputs are then known, for custom operators, too.
                self._sessions.append(self._session(node, inputs))
            names = [name for name in node.output if name]
            made = cast("list[Array]", self._sessions[index].run(names, inputs))
            known.update(zip(names, made, strict=True))
            for name, value in zip(names, made, strict=True):
                if value.dtype.kind == "f" and not np.isfinite(value).all():
                    born = value.dtype == np.float16 and not infinite.intersection(node.input)
                    infinite.add(name)
                    if born and self.overflow is None:
                        self.overflow = name
            for name in self._done[index]:
                known.pop(name, None)
        return known[self._result]

    def _session(self, node: NodeProto, inputs: Mapping[str, Array]) -> "InferenceSession":
        own = [self._weights[name] for name in dict.fromkeys(node.input) if name in self._weights]
        given = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
            for name, value in inputs.items()
        ]
        made = [ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], "one", given, made, own)
        proto = self._proto
        alone = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
        # One thread: the pools of a hundred sessions would spin against each other.
        return backend.CPU.session(alone.SerializeToString(), threads=1)


def _is_infinite(tensor: TensorProto) -> bool:
    values = numpy_helper.to_array(tensor)
    return values.dtype.kind == "f" and not np.isfinite(values).all()


class RoundedEngine(StaticEngine[RoundedGraph]):
    """An engine for measuring half precision: one picture at a time, node by node, and slow."""

    def __init__(self, model: Model) -> None:
        super().__init__(model, backend=NAME, precision=model.card.precision, in_flight=1)
        self._overflow: str | None = None

    @property
    def overflow(self) -> str | None:
        """The first overflow in any picture so far, as in `RoundedGraph.overflow`."""
        return self._overflow

    def _compile(self, key: Key) -> RoundedGraph:
        height, width, bits = key
        return RoundedGraph(wrap(self.model.proto, self.card, bits=bits, size=(height, width)))

    def _start(self, compiled: RoundedGraph, image: Array, output: Array) -> Pending:
        height, width = image.shape[:2]
        try:
            found = compiled(image.reshape(io_shape(self.card, height, width)))
        except Exception as error:  # ONNX Runtime's errors derive from Exception alone
            text = f"ONNX Runtime failed on {self.card.name}: {explain(self.model.proto, str(error))}"
            raise EngineError(text) from error
        self._overflow = self._overflow or compiled.overflow
        np.copyto(output, found.reshape(output.shape))
        return lambda: output

    def _release(self, compiled: RoundedGraph) -> None:
        del compiled
