"""The zoo's graphs as PyTorch modules, for side-by-side runs on the same weights."""

from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn


class GraphModule(nn.Module):
    """Runs an ONNX graph of the operators that the shipped models use, (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for an operator that no shipped model has."""
        super().__init__()
        graph = onnx.load(str(path)).graph
        self.source, self.result = graph.input[0].name, graph.output[0].name
        self.shapes: dict[str, list[int]] = {}
        self.names: dict[str, str] = {}
        for number, tensor in enumerate(graph.initializer):
            array = torch.from_numpy(numpy_helper.to_array(tensor).copy())
            if array.is_floating_point():
                self.names[tensor.name] = f"weight{number}"
                self.register_buffer(f"weight{number}", array)
            else:
                self.shapes[tensor.name] = array.flatten().tolist()
        self.steps = [
            (
                node.op_type,
                list(node.input),
                node.output[0],
                {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute},
            )
            for node in graph.node
        ]
        unknown = {step[0] for step in self.steps} - set(OPERATORS)
        if unknown:
            raise ValueError(f"{path} uses {', '.join(sorted(unknown))}, which no shipped model does")

    def forward(self, picture: Tensor) -> Tensor:
        values: dict[str, Any] = {self.source: picture, **self.shapes}
        values |= {name: getattr(self, buffer) for name, buffer in self.names.items()}
        for kind, inputs, output, attributes in self.steps:
            given = [values[name] if name else None for name in inputs]
            values[output] = OPERATORS[kind](*given, **attributes)
        return values[self.result]


def _conv(x: Tensor, w: Tensor, b: Tensor | None = None, **a: Any) -> Tensor:
    pads, stride = a.get("pads", [0, 0, 0, 0]), a.get("strides", [1, 1])
    return F.conv2d(x, w, b, stride=stride, padding=pads[:2], groups=a.get("group", 1))


def _transposed(x: Tensor, w: Tensor, b: Tensor | None = None, **a: Any) -> Tensor:
    return F.conv_transpose2d(
        x,
        w,
        b,
        stride=a.get("strides", [1, 1]),
        padding=a.get("pads", [0, 0])[:2],
        output_padding=a.get("output_padding", [0, 0]),
    )


def _pad(x: Tensor, pads: list[int], *_: Any, mode: bytes = b"constant") -> Tensor:
    top, left, bottom, right = pads[2], pads[3], pads[6], pads[7]
    # ONNX's name for what PyTorch calls replicate.
    return F.pad(x, (left, right, top, bottom), mode.decode().replace("edge", "replicate"))


def _concat(*parts: Tensor, axis: int) -> Tensor:
    return torch.cat(parts, axis)


def _slice(x: Tensor, starts: Any, ends: Any, axes: Any, steps: Any = None) -> Tensor:
    for start, end, axis, step in zip(starts, ends, axes, steps or [1] * len(starts), strict=True):
        index: list[slice] = [slice(None)] * x.ndim
        index[axis] = slice(start, None if end > 1 << 40 else end, step)
        x = x[tuple(index)]
    return x


def _shuffle(x: Tensor, blocksize: int, mode: bytes = b"DCR") -> Tensor:
    if mode != b"CRD":
        raise ValueError(f"DepthToSpace in the order {mode.decode()}, which no shipped model has")
    return F.pixel_shuffle(x, blocksize)


def _norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float = 1e-5) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


OPERATORS: dict[str, Any] = {
    "Add": torch.add,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _transposed,
    "DepthToSpace": _shuffle,
    "InstanceNormalization": _norm,
    "Mul": torch.mul,
    "Pad": _pad,
    "Relu": torch.relu,
    "Slice": _slice,
    "Tanh": torch.tanh,
}
