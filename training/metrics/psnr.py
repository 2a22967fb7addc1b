"""Peak signal-to-noise ratio."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..data import Image
from .base import Metric, always


def decibels(error: float, *, peak: float = 255.0) -> float:
    """PSNR in dB of a mean squared error; infinite for none."""
    return float("inf") if error == 0 else 10.0 * float(np.log10(peak**2 / error))


def psnr(
    image: npt.NDArray[np.generic], reference: npt.NDArray[np.generic], *, border: int = 0
) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255, `border` pixels cropped from every side.

    Raises ValueError when the shapes differ.
    """
    if image.shape != reference.shape:
        raise ValueError(f"shapes differ: {image.shape} and {reference.shape}")
    crop = (slice(border, -border or None),) * 2
    difference = image[crop].astype(np.float64) - reference[crop].astype(np.float64)
    return decibels(float(np.mean(np.square(difference))))


def _of_planes(outputs: Sequence[Image], truths: Sequence[Image], border: int) -> float:
    pairs = zip(outputs, truths, strict=True)
    return round(float(np.mean([psnr(output, truth, border=border) for output, truth in pairs])), 3)


METRIC = Metric(
    key="{}_psnr_y_db",
    title="PSNR of luma, in dB",
    better="higher",
    pair=always(lambda pair: psnr(pair.luma, pair.true_luma, border=pair.border)),
    planes=_of_planes,
)
