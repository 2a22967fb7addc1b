"""Measures of an upscaler's fidelity and of a network's grid artefacts, in float64 NumPy."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .data import Image, limited_luma, read_image

Array = npt.NDArray[np.float64]


def matlab_luma(rgb: npt.NDArray[np.uint8]) -> Array:
    """BT.601 limited-range luma as MATLAB's `rgb2ycbcr`, (H, W, 3) uint8 -> (H, W), 16..235, unrounded.

    This is the Y that published super-resolution figures are measured on.
    """
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    return rgb.astype(np.float64) @ weights + 16.0


def psnr(image: npt.NDArray[np.generic], reference: npt.NDArray[np.generic], *, border: int) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 255, `border` pixels cropped from every side.

    Raises ValueError when the shapes differ.
    """
    if image.shape != reference.shape:
        raise ValueError(f"shapes differ: {image.shape} and {reference.shape}")
    crop = (slice(border, -border or None),) * 2
    difference = image[crop].astype(np.float64) - reference[crop].astype(np.float64)
    error = float(np.mean(np.square(difference)))
    return float("inf") if error == 0 else 10.0 * float(np.log10(255.0**2 / error))


def benchmark_psnr(upscale: Callable[[Image], Image], folder: Path, scale: int) -> Iterator[float]:
    """Y-PSNR in dB of each standard pair `lr/NNN.png`, `hr/NNN.png` of a folder, in order.

    `upscale` takes luma (H, W) uint8, BT.601 limited range, and gives (scale * H, scale * W). The
    reference is MATLAB luma of the high-resolution picture, with `scale` pixels of border cropped.
    Raises FileNotFoundError when the folder holds no pairs.
    """
    paths = sorted((folder / "lr").glob("*.png"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no lr/*.png")
    for path in paths:
        output = upscale(limited_luma(read_image(path))[:, :, 0])
        truth = matlab_luma(read_image(folder / "hr" / path.name))
        yield psnr(output, truth[: output.shape[0], : output.shape[1]], border=scale)


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
