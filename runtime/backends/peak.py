"""The machine's own peak: what a large matrix product and a memory copy reach here, in the same run."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..errors import EngineError
from . import openvino

CHANNELS, SIDE, DEPTH = 512, 64, 8
"""A chain of 1x1 convolutions, each a product of a 4096x512 with a 512x512 matrix: 17 billion
operations. Plain MatMul nodes reach half of it in INT8 and three quarters in BF16: the library packs
less well there."""

ROUNDS = 5
COPY_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Peak:
    """The best of several rounds."""

    matrix: dict[str, float]
    """Operations per second (a multiply-add counts two) by precision: fp32, bf16, int8."""
    copy: float
    """Bytes read and written per second."""


def measure_peak() -> Peak:
    """Matrix products by OpenVINO on all cores, and a copy. Raises EngineError without OpenVINO."""
    reason = openvino.unavailable()
    if reason is not None:
        raise EngineError(f"the peak is measured by OpenVINO: {reason}")
    offered = openvino.precisions()
    matrix = {name: _matrix_rate(name) for name in ("fp32", "bf16", "int8") if name in offered}
    return Peak(matrix, _copy_rate())


def matrix_kind(precision: str) -> str:
    """The precision of the matrix products that one of an engine is to be held against."""
    return "int8" if precision.startswith("int8") else precision


class MatrixProducts:
    """The chain in one precision, ready to be timed again and again beside what is held against it."""

    def __init__(self, precision: str) -> None:
        """`precision` is a key of `Peak.matrix`; needs OpenVINO."""
        ov = openvino.library()
        core = ov.Core()
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        }
        graph = _products(quantised=precision == "int8")
        compiled = core.compile_model(core.read_model(graph), "CPU", properties)
        self._request = compiled.create_infer_request()
        kind = np.uint8 if precision == "int8" else np.float32
        self._request.set_input_tensor(ov.Tensor(np.ones((1, CHANNELS, SIDE, SIDE), kind)))
        self._request.infer()

    def rate(self) -> float:
        """Operations per second of one round."""
        start = time.perf_counter()
        self._request.infer()
        return 2.0 * CHANNELS**2 * SIDE**2 * DEPTH / (time.perf_counter() - start)


def _matrix_rate(precision: str) -> float:
    products = MatrixProducts(precision)
    return max(products.rate() for _ in range(ROUNDS))


def _products(*, quantised: bool) -> bytes:
    """The chain as ONNX; its mean is the result, so that no time goes into carrying it out."""
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray | np.generic] = {
        "step": np.float32(0.02),
        "zero": np.uint8(0),
        "steps": np.full(CHANNELS, 0.001, np.float32),
        "zeros": np.zeros(CHANNELS, np.int8),
        "axes": np.array([1, 2, 3], np.int64),
    }
    nodes: list[NodeProto] = []
    last = "picture"

    def add(kind: str, inputs: list[str], result: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [result], **attributes))
        return result

    for layer in range(DEPTH):
        weight = f"weight{layer}"
        size = (CHANNELS, CHANNELS, 1, 1)
        if quantised:
            constants[weight] = rng.integers(-127, 128, size, np.int8)
            if layer:
                last = add("QuantizeLinear", [last, "step", "zero"], f"quantised{layer}")
            last = add("DequantizeLinear", [last, "step", "zero"], f"input{layer}")
            weight = add("DequantizeLinear", [weight, "steps", "zeros"], f"kernel{layer}", axis=0)
        else:
            constants[weight] = (rng.normal(size=size) / CHANNELS**0.5).astype(np.float32)
        last = add("Conv", [last, weight], f"product{layer}", kernel_shape=[1, 1])
        last = add("Relu", [last], f"positive{layer}")
    add("ReduceMean", [last, "axes"], "result", keepdims=0)
    kind = TensorProto.UINT8 if quantised else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("picture", kind, [1, CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return made.SerializeToString()


def _copy_rate() -> float:
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.zeros_like(source)
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2.0 * COPY_BYTES / best
