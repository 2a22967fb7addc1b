"""What a model does differently at a picture's border."""

from collections.abc import Sequence

import numpy as np

from ..data import Image
from .base import Metric, Style


def border_difference(
    style: Style, photo: Image, *, width: int = 16, cut: int = 64
) -> tuple[float, float]:
    """What a model does differently at a picture's border, in levels of 255, and elsewhere.

    The photograph less `cut` pixels on every side is restyled alone and as part of the whole: mean
    absolute difference over its outermost `width` pixels, and over the rest. `cut` is a multiple of
    every model's stride, so that only the border differs. Raises ValueError for a photograph that is
    too small.
    """
    if min(photo.shape[:2]) <= 2 * (cut + width):
        raise ValueError(f"a photograph of {photo.shape[:2]} is too small to cut {cut} pixels away")
    inner = (slice(cut, -cut),) * 2
    alone = style(np.ascontiguousarray(photo[inner])).astype(np.float64)
    difference = np.abs(alone - style(photo)[inner])
    rest = np.zeros(difference.shape[:2], np.bool_)
    rest[width:-width, width:-width] = True
    return float(difference[~rest].mean()), float(difference[rest].mean())


def _of_scenes(style: Style, photos: Sequence[Image]) -> dict[str, float]:
    if not photos:
        return {}
    outer, inner = np.mean([border_difference(style, photo) for photo in photos], axis=0)
    return {"model": round(float(outer), 3), "inside": round(float(inner), 3)}


METRIC = Metric(
    key="border_difference",
    title="difference at the border of a picture that is cut out, in levels of 255, and inside",
    better="lower",
    scene=_of_scenes,
)
