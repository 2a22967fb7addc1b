"""Parity of what is exported for a game engine, measured without the code that wrote it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto
from onnxruntime import InferenceSession

from ..runtime.backends import openvino
from ..runtime.backends.half_emulation import RoundedGraph
from ..runtime.backends.precision_choice import sample_picture
from ..runtime.card import ModelCard
from ..runtime.errors import EngineError, ModelError
from ..runtime.frame import Array
from ..training.metrics.psnr import decibels
from .targets import IMAGE, RESULT

Picture = npt.NDArray[np.float32]
Run = Callable[[Picture], Array]

SIZES = ((96, 160), (180, 320))
"""Height and width of the pictures that parity is measured on, rounded up to what a model takes."""

LARGE = 1_000_000
"""Pixels of a fixed size beyond which one picture is enough: three networks run on each."""

# Written out, so that a slip in what the writer takes its own from is seen here.
LUMA = np.array([0.2126, 0.7152, 0.0722])
"""Of R, G and B in luma (ITU-R BT.709-6, 3.2)."""
BLACK, STEPS, WHOLE = 16.0, 219.0, 255.0
"""The 8-bit code of black in limited range, the steps from there to white, and those of full range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How well the exported graph agrees with the original in one library at one size."""

    library: str
    size: tuple[int, int]
    """(height, width) of the input."""
    db: float
    """PSNR for a peak of 1, not rounded to 8 bits; 99 where it is that or more."""


def measure_parity(proto: ModelProto, card: ModelCard, exported: Path, made: ModelCard) -> list[Parity]:
    """The exported file against the original by ONNX Runtime and OpenVINO, at two sizes.

    At one size where the file takes one, with two pictures, or one beyond `LARGE`. The original runs in
    ONNX Runtime, and what the export adds around it is computed here once more, in NumPy and OpenCV.
    A graph in half precision runs node by node in ONNX Runtime, see `RoundedGraph`; OpenVINO computes
    it in float32, which proves the graph but not its precision.

    Raises EngineError where OpenVINO refuses the graph, ModelError where half precision overflows.
    """
    reference = _session(proto.SerializeToString())
    rounded = RoundedGraph(onnx.load(str(exported))) if made.precision == "fp16" else None
    runners: dict[str, Run] = {
        "ONNX Runtime": rounded or _ort(exported),
        "OpenVINO": _openvino(exported),
    }
    found: list[Parity] = []
    fixed = made.fixed_size
    sizes = [_rounded(size, card) for size in SIZES] if fixed is None else [fixed, fixed]
    if fixed is not None and fixed[0] * fixed[1] > LARGE:
        sizes = sizes[:1]
    for turn, (height, width) in enumerate(sizes):
        picture = sample_picture(height, width, 3).astype(np.float32) / np.float32(255)
        picture = np.ascontiguousarray(np.roll(picture, turn, 2).transpose(2, 0, 1)[None])
        wanted = expected(reference, card, picture)
        for library, run in runners.items():
            error = float(np.square(run(picture).astype(np.float64) - wanted).mean())
            db = min(99.0, decibels(error, peak=1.0))
            found.append(Parity(library=library, size=(height, width), db=round(db, 2)))
    if rounded is not None and rounded.overflow is not None:
        raise ModelError(f"FP16 overflows: {rounded.overflow} becomes infinite on a picture")
    return found


def expected(reference: InferenceSession, card: ModelCard, picture: Picture) -> Picture:
    """What the exported graph should give for (1, 3, H, W) in 0..1."""
    height, width = picture.shape[2:]
    tall, wide = _rounded((height, width), card)
    lacking = ((0, 0), (0, 0), (0, tall - height), (0, wide - width))
    whole = np.pad(picture, lacking, mode="reflect")
    planes = whole[0].transpose(1, 2, 0)
    low, high = card.value_range
    luma = card.input_colour == "luma"
    given = _limited_luma(planes) if luma else planes
    if card.input_colour == "bgr":
        given = given[:, :, ::-1]
    batch = (given * (high - low) + low)[None]
    if card.layout == "nchw":
        batch = batch.transpose(0, 3, 1, 2)
    given = np.ascontiguousarray(batch, np.float32)
    answer = cast("list[Picture]", reference.run(None, {reference.get_inputs()[0].name: given}))[0]
    result = answer[0].astype(np.float64)
    if card.layout == "nchw":
        result = result.transpose(1, 2, 0)
    result = (result - low) / (high - low)
    if card.output_colour == "bgr":
        result = result[:, :, ::-1]
    if luma:
        size = (planes.shape[1] * card.scale, planes.shape[0] * card.scale)
        large = np.asarray(cv2.resize(planes, size, interpolation=cv2.INTER_LINEAR), np.float64)
        result = large + (result - _limited_luma(large)) * (WHOLE / STEPS)
    cropped = result[: height * card.scale, : width * card.scale]
    return np.clip(cropped, 0.0, 1.0).transpose(2, 0, 1)[None].astype(np.float32)


def _limited_luma(planes: Array) -> Array:
    """(H, W, 3) in 0..1 as BT.709 luma (H, W, 1): black is 16/255, white 235/255."""
    return (planes @ (LUMA * STEPS / WHOLE) + BLACK / WHOLE)[:, :, None]


def _rounded(size: tuple[int, int], card: ModelCard) -> tuple[int, int]:
    least = [max(side, card.min_size) for side in size]
    high, wide = (side + -side % card.size_multiple for side in least)
    return high, wide


def _session(source: bytes) -> InferenceSession:
    return InferenceSession(source, providers=["CPUExecutionProvider"])


def _ort(path: Path) -> Run:
    session = _session(path.read_bytes())

    def run(picture: Picture) -> Picture:
        return cast("list[Picture]", session.run([RESULT], {IMAGE: picture}))[0]

    return run


def _openvino(path: Path) -> Run:
    try:
        # Where a CPU has BF16 OpenVINO takes it by itself, which is not what is measured here.
        hints = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled: Any = openvino.core().compile_model(str(path), "CPU", hints)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO does not take the exported graph: {error}") from error

    def run(picture: Picture) -> Picture:
        return np.asarray(compiled([picture])[0], np.float32)

    return run
