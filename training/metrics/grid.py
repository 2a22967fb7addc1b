"""The grid that sub-pixel and strided convolutions may leave in a picture."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ..data import Image
from .base import Array, Metric, Style

PERIODS = (2, 4)
"""Pixels: the strides of the shipped networks."""


def grid_energy(image: npt.NDArray[np.generic], period: int) -> float:
    """How far a picture's spectrum stands out at the frequencies of a grid of `period` pixels.

    `image` is (H, W). The measure is the energy at all harmonics (i/period, j/period), other than
    zero, as a multiple of the mean energy of their surroundings in the spectrum (a ring up to 8 bins
    away): 1 means no grid at all, a sub-pixel convolution's grid gives 100 and more.
    """
    height, width = (size // period * period for size in image.shape)
    pixels = image[:height, :width].astype(np.float64)
    # A window keeps the frame's own edges from leaking along the axes, where the harmonics lie.
    window = np.outer(np.hanning(height), np.hanning(width))
    spectrum = np.abs(np.fft.fft2((pixels - pixels.mean()) * window)) ** 2
    peak = around = 0.0
    for row in range(period):
        for column in range(period):
            if row == column == 0:
                continue
            centre = (row * height // period, column * width // period)
            near = _patch(spectrum, centre, 1)
            ring = _patch(spectrum, centre, 8)
            peak += near.mean()
            around += (ring.sum() - near.sum()) / (ring.size - near.size)
    return float(peak / max(around, 1e-12))


def _patch(spectrum: Array, centre: tuple[int, int], radius: int) -> Array:
    rows = np.arange(centre[0] - radius, centre[0] + radius + 1) % spectrum.shape[0]
    columns = np.arange(centre[1] - radius, centre[1] + radius + 1) % spectrum.shape[1]
    return spectrum[np.ix_(rows, columns)]


def grid_excess(style: Style, images: Iterable[Image], period: int) -> float:
    """Median over pictures of the output's grid energy as a multiple of the input's own.

    See `grid_energy`; 1 means that the network adds no grid of `period` pixels.
    """
    ratios: list[float] = []
    for image in images:
        output = style(image).astype(np.float64).mean(2)
        before = grid_energy(image.astype(np.float64).mean(2), period)
        ratios.append(grid_energy(output, period) / before)
    return float(np.median(ratios))


def _metric(period: int) -> Metric:
    def of_photos(style: Style, photos: Sequence[Image]) -> dict[str, float]:
        return {"model_over_input": round(grid_excess(style, photos, period), 4)}

    return Metric(
        key=f"grid_{period}px",
        title=f"energy at a grid of {period} pixels over the photograph's own, 1 for none",
        better="lower",
        photos=of_photos,
    )


METRICS = tuple(_metric(period) for period in PERIODS)
