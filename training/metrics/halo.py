"""How far bright dots shine into the black around them."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ..data import Image
from .base import Metric, Style


def sprites_picture(
    size: tuple[int, int] = (360, 640), *, count: int = 16, seed: int = 1
) -> tuple[Image, npt.NDArray[np.bool_]]:
    """Black with square sprites of 4 to 10 pixels, and the pixels 8 to 40 away from the nearest."""
    draw = np.random.default_rng(seed)
    picture = np.zeros((*size, 3), np.uint8)
    for _ in range(count):
        side = int(draw.integers(4, 11))
        top, left = (int(draw.integers(0, length - side)) for length in size)
        picture[top : top + side, left : left + side] = draw.integers(96, 256, 3)
    dark = (picture.max(2) == 0).astype(np.uint8)
    away = np.asarray(cv2.distanceTransform(dark, cv2.DIST_L2, 5), np.float32)
    return picture, (away >= 8) & (away <= 40)


def halo(style: Style) -> float:
    """How far bright dots on black shine into it, in levels of 255.

    Mean absolute difference of the outputs for `sprites_picture` and for black, over the pixels 8 to 40
    away from the nearest sprite.
    """
    picture, near = sprites_picture()
    lit, dark = (style(image).astype(np.float64) for image in (picture, np.zeros_like(picture)))
    return float(np.abs(lit - dark)[near].mean())


def _of_sprites(style: Style, photos: Sequence[Image]) -> dict[str, float]:
    del photos
    return {"model": round(halo(style), 3)}


METRIC = Metric(
    key="halo_on_black",
    title="light that dots throw into the black beside them, in levels of 255",
    better="lower",
    scene=_of_sprites,
)
