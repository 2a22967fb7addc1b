"""Result and original in one picture: blended, or side by side."""

import cv2
import numpy as np

from ..frame import Array, Frame

LINE = 2
"""Width in luma columns of the line between the two sides."""


def blended(made: Frame, original: Frame, strength: float) -> Frame:
    """Returns `strength` (0..1) of `made` over `original`, which has its size and format."""
    if strength >= 1:
        return made
    if strength <= 0:
        return original
    planes = tuple(
        np.asarray(cv2.addWeighted(_whole(a), strength, _whole(b), 1 - strength, 0))
        for a, b in zip(made.planes, original.planes, strict=True)
    )
    return made.with_planes(planes, made.format)


def split(made: Frame, original: Frame, at: float) -> Frame:
    """Returns `original` left of that part (0..1) of the width, `made` right of it, a white line
    between."""
    format = made.format
    step = format.subsample[0] if format.family == "yuv" else 1
    column = min(max(round(at * made.width), 0), made.width) // step * step
    line = max(LINE, step)
    full = format.family == "rgb" or made.colour.range == "full"
    white = format.peak if full else 235 << (format.bits - 8)
    planes: list[Array] = []
    for i, (right, left) in enumerate(zip(made.planes, original.planes, strict=True)):
        scale = step if i else 1
        plane = np.array(right)
        x, wide = column // scale, line // scale
        plane[:, :x] = left[:, :x]
        plane[:, max(x - wide // 2, 0) : x - wide // 2 + wide] = 1 << (format.bits - 1) if i else white
        planes.append(plane)
    return made.with_planes(tuple(planes), format)


def _whole(plane: Array) -> Array:
    return np.ascontiguousarray(plane)
