"""INT8: static quantisation to a QDQ graph, calibrated on real pictures. FP16: half precision."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto
from onnxruntime import InferenceSession
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,  # pyright: ignore[reportUnknownVariableType]
)

from ..runtime.backends.half import LARGEST, to_half
from ..runtime.card import ModelCard

Batch = npt.NDArray[np.float32]


def quantise(
    model: ModelProto,
    samples: Iterable[Batch],
    *,
    keep: Iterable[str] = (),
    percentile: float | None = None,
) -> ModelProto:
    """Weights to int8 per output channel, inputs of convolutions to uint8; all else stays float.

    Only what enters a convolution is quantised. A residual is added in float, and so is the picture to
    an upscaler's prediction: the output layer's accumulators are never rounded to 8 bits, which is what
    keeps the loss below the parity bound. `samples` are (1, C, H, W) inputs in the card's range; `keep`
    names nodes that stay in float. Ranges go from the lowest to the highest value seen or, with
    `percentile` (such as 99.99), leave out what is rarer on either side.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        named = ModelProto()
        named.CopyFrom(model)
        onnx.save(named, str(source))
        logging.getLogger().setLevel(logging.ERROR)
        # The percentile calibrator prints its progress, which is none of a user's business.
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_static(
                str(source),
                str(target),
                _Reader(named.graph.input[0].name, samples),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(keep),
                calibrate_method=(
                    CalibrationMethod.MinMax if percentile is None else CalibrationMethod.Percentile
                ),
                extra_options={
                    "OpTypesToExcludeOutputQuantization": ["Conv"],
                    "QuantizeBias": True,
                    **({} if percentile is None else {"CalibPercentile": percentile}),
                },
            )
        quantised = onnx.load(str(target))
    _pad_in_8_bits(quantised)
    quantised.producer_name = "velatura"
    return quantised


def _pad_in_8_bits(model: ModelProto) -> None:
    """Repeat edges after the rounding to 8 bits instead of before it, which is the same values.

    The padded copy of every layer's input is then a quarter as large: a style at 640x360 took 34 ms
    instead of 50 on one core.
    """
    graph = model.graph
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        following = users.get(pad.output[0], [])
        if [node.op_type for node in following] != ["QuantizeLinear"] or _pad_mode(pad) != "edge":
            continue
        rounding = following[0]
        (back,) = users[rounding.output[0]]
        result = back.output[0]
        rounding.input[0] = pad.input[0]
        back.output[0] = pad.input[0] = f"{result}_unpadded"
        pad.output[0] = result
        graph.node.remove(pad)
        graph.node.insert(list(graph.node).index(back) + 1, pad)


def _pad_mode(pad: Any) -> str:
    return next((a.s.decode() for a in pad.attribute if a.name == "mode"), "constant")


@dataclass(frozen=True, slots=True)
class Activation:
    """The largest magnitude among a network's tensors."""

    value: float
    tensor: str


def half_precision(model: ModelProto, card: ModelCard) -> tuple[ModelProto, ModelCard, Activation]:
    """The model in strongly typed float16 (see `to_half`), its card, and its largest activation.

    Raises ValueError when an activation leaves half's range on one of `extremes`: it would become
    infinite, and then a black or white patch, on the pictures that nobody tries before a release.
    """
    worst = largest_activation(model, extremes(card).values())
    if not worst.value < LARGEST:
        raise ValueError(
            f"FP16 overflows: {worst.tensor} reaches {worst.value:g} on extreme pictures, half holds "
            f"{LARGEST:g}"
        )
    half = to_half(model)
    dtype = "float16" if card.dtype == "float32" else card.dtype
    return half, replace(card, dtype=dtype, precision="fp16"), worst


def extremes(card: ModelCard, size: tuple[int, int] = (96, 160)) -> dict[str, Batch]:
    """Pictures at the ends of the range, as the model's input tensors, by name.

    All black, all white, checkerboards of one and of eight pixels, and noise of blacks and whites.
    """
    low, high = card.value_range
    height, width = card.fixed_size or size
    rows, columns = np.indices((height, width))
    noise = np.random.default_rng(0).integers(0, 2, (height, width))
    planes = {
        "black": np.zeros((height, width)),
        "white": np.ones((height, width)),
        "checkerboard": (rows + columns) % 2,
        "squares": (rows // 8 + columns // 8) % 2,
        "noise": noise,
    }
    found: dict[str, Batch] = {}
    for name, plane in planes.items():
        picture = np.repeat((low + plane * (high - low))[..., None], card.input_channels, 2)
        batch = picture[None] if card.layout == "nhwc" else picture.transpose(2, 0, 1)[None]
        found[name] = np.ascontiguousarray(batch, np.float32)
    return found


def largest_activation(model: ModelProto, pictures: Iterable[Batch]) -> Activation:
    """The largest magnitude that any float tensor of the float32 graph takes on these inputs.

    Infinite when one of them is not finite.
    """
    probed = ModelProto()
    probed.CopyFrom(model)
    graph = onnx.shape_inference.infer_shapes(probed).graph
    names = [
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    known = {value.name for value in probed.graph.output}
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = Activation(0.0, "")
    for picture in pictures:
        results = cast("list[Batch]", session.run(names, {session.get_inputs()[0].name: picture}))
        for name, result in zip(names, results, strict=True):
            value = float(np.abs(result).max(initial=0.0))
            if not np.isfinite(value) or value > worst.value:
                worst = Activation(value if np.isfinite(value) else float("inf"), name)
    return worst


class _Reader(CalibrationDataReader):
    """Hands the samples to the calibrator one by one."""

    def __init__(self, name: str, samples: Iterable[Batch]) -> None:
        self._name = name
        self._samples: Iterator[Batch] = iter(samples)

    def get_next(self) -> Any:
        sample = next(self._samples, None)
        return None if sample is None else {self._name: sample}
