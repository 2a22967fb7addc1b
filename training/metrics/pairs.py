"""The standard pairs of super-resolution, in the field's protocol."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ..data import Image, limited_luma, read_image
from .base import Array, Pair
from .psnr import psnr


def matlab_luma(rgb: npt.NDArray[np.uint8]) -> Array:
    """BT.601 limited-range luma as MATLAB's `rgb2ycbcr`, (H, W, 3) uint8 -> (H, W), 16..235, unrounded.

    This is the Y that published super-resolution figures are measured on.
    """
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    return rgb.astype(np.float64) @ weights + 16.0


def benchmark_pairs(
    upscale: Callable[[Image], Image], folder: Path, scale: int, *, luma: bool
) -> Iterator[Pair]:
    """Yields the upscaled picture and the truth for each standard pair of a folder, in order.

    The pairs are `lr/NNN.png`, `hr/NNN.png`. `upscale` takes BT.601 limited-range luma (H, W) uint8
    where `luma`, else RGB (H, W, 3) uint8, and gives the same, larger by `scale`. Raises
    FileNotFoundError when the folder holds no pairs.
    """
    paths = sorted((folder / "lr").glob("*.png"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no lr/*.png")
    for path in paths:
        low, truth = read_image(path), read_image(folder / "hr" / path.name)
        output = upscale(limited_luma(low)[:, :, 0] if luma else low)
        height, width = (min(a, b) for a, b in zip(output.shape[:2], truth.shape[:2], strict=True))
        colours = coloured(output, low) if luma else output
        output_y = output.astype(np.float64) if luma else matlab_luma(output)
        yield Pair(
            output=colours[:height, :width],
            truth=truth[:height, :width],
            luma=output_y[:height, :width],
            true_luma=matlab_luma(truth)[:height, :width],
            border=scale,
        )


def coloured(luma: Image, low: Image) -> Image:
    """RGB of limited-range luma (H, W), with bicubic chroma of a smaller RGB picture."""
    size = (luma.shape[1], luma.shape[0])
    wide = np.asarray(cv2.cvtColor(low, cv2.COLOR_RGB2YCrCb), np.uint8)
    chroma = np.asarray(cv2.resize(wide[:, :, 1:], size, interpolation=cv2.INTER_CUBIC), np.uint8)
    full = np.clip(np.round((luma.astype(np.float64) - 16.0) * 255.0 / 219.0), 0, 255)
    planes = np.dstack([full.astype(np.uint8), chroma])
    return np.asarray(cv2.cvtColor(planes, cv2.COLOR_YCrCb2RGB), np.uint8)


def benchmark_psnr(
    upscale: Callable[[Image], Image], folder: Path, scale: int, *, luma: bool = True
) -> Iterator[float]:
    """Y-PSNR in dB of each of `benchmark_pairs`, with `scale` pixels of border cropped."""
    for pair in benchmark_pairs(upscale, folder, scale, luma=luma):
        yield psnr(pair.luma, pair.true_luma, border=scale)
