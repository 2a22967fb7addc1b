"""Small ONNX networks for the tests, and the same computed in NumPy."""

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: list[int | str],
    *,
    dtype: str = "float32",
    out_shape: list[int | str] | None = None,
) -> ModelProto:
    """A model from `image` to `result`."""
    kind = TYPES[dtype]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("result", kind, out_shape or ["n", "c", "rows", "columns"])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made


def mixer(matrix: np.ndarray, *, layout: str = "nchw", dtype: str = "float32") -> ModelProto:
    """Each output channel a weighted sum of the input channels, pixel by pixel."""
    channels = len(matrix)
    nodes: list[onnx.NodeProto] = []
    source = "image"
    if dtype != "float32":
        nodes.append(helper.make_node("Cast", [source], ["float"], to=TensorProto.FLOAT))
        source = "float"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [source], ["planes"], perm=[0, 3, 1, 2]))
        source = "planes"
    nodes.append(helper.make_node("Conv", [source, "weight"], ["mixed"], kernel_shape=[1, 1]))
    last = "mixed"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [last], ["packed"], perm=[0, 2, 3, 1]))
        last = "packed"
    if dtype == "uint8":
        nodes.append(helper.make_node("Round", [last], ["whole"]))
        last = "whole"
    if dtype != "float32":
        nodes.append(helper.make_node("Cast", [last], ["narrow"], to=TYPES[dtype]))
        last = "narrow"
    nodes[-1].output[0] = "result"
    weight = matrix.astype(np.float32)[:, :, None, None]
    shape: list[int | str] = [1, channels, "h", "w"] if layout == "nchw" else [1, "h", "w", channels]
    return model(nodes, {"weight": weight}, shape, dtype=dtype)


def deep(*, channels: int, scale: int, seed: int = 0) -> ModelProto:
    """Stride 2 down, convolutions, pixel shuffle up: phase matters, and so do 13 pixels around."""
    rng = np.random.default_rng(seed)

    def kernel(out: int, given: int) -> np.ndarray:
        return (rng.normal(size=(out, given, 3, 3)) * (1.2 / (9 * given)) ** 0.5).astype(np.float32)

    up = 2 * scale
    sizes = [(8, channels), (8, 8), (8, 8), (channels * up * up, 8)]
    weights = {f"w{i}": kernel(*size) for i, size in enumerate(sizes)}
    nodes: list[onnx.NodeProto] = []
    last = "image"
    for index in range(len(sizes)):
        attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
        if index == 0:
            attributes["strides"] = [2, 2]
        nodes.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], **attributes))
        last = f"c{index}"
        if index < len(sizes) - 1:
            nodes.append(helper.make_node("Relu", [last], [f"r{index}"]))
            last = f"r{index}"
    weights["half"] = np.float32(0.5).reshape(1)
    nodes.append(helper.make_node("DepthToSpace", [last], ["big"], blocksize=up, mode="CRD"))
    nodes.append(helper.make_node("Add", ["big", "half"], ["result"]))
    return model(nodes, weights, [1, channels, "h", "w"])


def write(proto: ModelProto, path: Path) -> Path:
    onnx.save(proto, str(path))
    return path
