"""Whether a scene's light is still where it was."""

from collections.abc import Sequence

import numpy as np

from ..data import Image
from .base import Array, Metric, Style
from .pairs import matlab_luma


def light_correlation(output: Image, photo: Image, *, side: int = 16) -> float:
    """Correlation of the mean luma of `side` x `side` blocks, output against photograph; 1 at best.

    Whether the scene's light and dark are still where they were. (H, W, 3) uint8 RGB each.
    """
    a, b = (_block_luma(image, side).ravel() for image in (output, photo))
    return float(np.corrcoef(a, b)[0, 1])


def _block_luma(image: Image, side: int) -> Array:
    height, width = (size // side * side for size in image.shape[:2])
    luma = matlab_luma(image)[:height, :width]
    return luma.reshape(height // side, side, width // side, side).mean((1, 3))


def _of_scenes(style: Style, photos: Sequence[Image]) -> dict[str, float]:
    values = [light_correlation(style(photo), photo) for photo in photos]
    return {"model": round(float(np.mean(values)), 4)} if values else {}


METRIC = Metric(
    key="light_correlation",
    title="correlation of the luma of blocks of 16x16 pixels with the photograph's, 1 at best",
    better="higher",
    scene=_of_scenes,
)
