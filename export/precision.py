"""INT8: static quantisation to a QDQ graph, calibrated on real pictures. FP16: half precision."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,  # pyright: ignore[reportUnknownVariableType]
)

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
    quantised.producer_name = "velatura"
    return quantised


def to_half(model: ModelProto) -> ModelProto:
    """Weights and activations in float16; input and output stay float32 and are cast at once."""
    from onnxruntime.transformers.float16 import (
        convert_float_to_float16,  # pyright: ignore[reportUnknownVariableType]
    )
    from onnxruntime.transformers.onnx_model import OnnxModel

    source = ModelProto()
    source.CopyFrom(model)
    half = cast(ModelProto, convert_float_to_float16(source, keep_io_types=True))
    # The converter appends the casts of the input at the end, where no checker accepts them.
    OnnxModel(half).topological_sort()
    del half.graph.value_info[:]
    onnx.checker.check_model(half)
    return half


class _Reader(CalibrationDataReader):
    """Hands the samples to the calibrator one by one."""

    def __init__(self, name: str, samples: Iterable[Batch]) -> None:
        self._name = name
        self._samples: Iterator[Batch] = iter(samples)

    def get_next(self) -> Any:
        sample = next(self._samples, None)
        return None if sample is None else {self._name: sample}
