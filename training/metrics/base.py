"""A measure: what it is called, and what it is taken of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..data import Image
from ..perception import WeightPaths

Array = npt.NDArray[np.float64]

Style = Callable[[Image], Image]
"""A model that restyles an RGB picture, (H, W, 3) uint8 -> the same."""

Flow = npt.NDArray[np.float32]
"""(H, W, 2) in pixels, (x, y): the sample of this frame is found at its place plus flow in the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An enlarged picture and the truth, of one size."""

    output: Image
    """(H, W, 3) RGB; the chroma of a luma model is bicubic's."""
    truth: Image
    luma: Array
    """(H, W) BT.601 limited-range luma of the output: a luma model's own, rounded."""
    true_luma: Array
    """(H, W) MATLAB luma of the truth, unrounded."""
    border: int
    """Pixels that the field crops from every side of the luma: the scale."""


OfPair = Callable[[Pair], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One measure of `velatura evaluate`. It is taken of whatever it has a function for."""

    key: str
    """In the report; {} stands for what it was taken of, such as `set5` in `{}_psnr_y_db`."""
    title: str
    """What it is, with its unit."""
    better: Literal["higher", "lower"]
    pair: Callable[[Path, WeightPaths | None], OfPair | None] | None = None
    """Of an upscaler's picture and the truth. Given the data's folder and the files of loss networks it
    returns the measure, or None where what it needs is not at hand."""
    planes: Callable[[Sequence[Image], Sequence[Image], int], float | None] | None = None
    """Of coded and enlarged luma planes (H, W) uint8, the true ones, and the pixels of border that the
    field crops; None where what it needs is not installed. Rounded."""
    scene: Callable[[Style, Sequence[Image]], dict[str, float]] | None = None
    """Of a style and photographs of scenes: who -> value, rounded; empty without photographs."""
    photos: Callable[[Style, Sequence[Image]], dict[str, float]] | None = None
    """The same on photographs of any kind."""
    moving: Callable[[Sequence[Image], Sequence[tuple[Flow, Flow]]], float] | None = None
    """Of a sequence and its flow, there and back, between successive frames."""
    static: Callable[[Sequence[Image]], float] | None = None
    """Of a sequence that shows one scene, with a sensor's noise."""


def always(measure: OfPair) -> Callable[[Path, WeightPaths | None], OfPair]:
    """Returns the `pair` of a measure that needs nothing."""
    return lambda _root, _weights: measure
