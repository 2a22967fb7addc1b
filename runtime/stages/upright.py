"""Upright: rotation and pixel aspect that a player would apply, applied to the pixels."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from ..colour import turn_chroma
from ..errors import SourceError
from ..frame import Array, Frame
from .resize import Resize

LARGEST = 32_768
"""Longest side up to which pixels are made square: an aspect that needs more is taken for invalid."""


class Upright:
    """Turns pictures by their rotation, and makes their pixels square.

    The turn moves luma without changing it. Pixels are made square by enlarging along the axis with
    fewer samples, so that none is lost. Depth and motion are dropped where anything changes. Raises
    SourceError for an aspect that would make a picture of more than `LARGEST` pixels.
    """

    def __call__(self, frame: Frame) -> Frame:
        if not frame.rotation and frame.aspect == 1:
            return frame
        return squared(turned(frame, frame.rotation // 90))


def turned(frame: Frame, quarters: int) -> Frame:
    """Returns the frame turned by `quarters` times 90 degrees, counter-clockwise; its rotation is
    reduced by that.

    Luma, RGB and opacity are exact. Chroma goes back to the frame's own subsampling and siting.
    """
    quarters %= 4
    if not quarters:
        return frame

    def turn(plane: Array) -> Array:
        return np.ascontiguousarray(np.rot90(plane, quarters))

    planes: tuple[Array, ...] = (turn(frame.planes[0]),)
    if frame.format.family == "yuv":
        planes += turn_chroma(frame, quarters)
    return replace(
        frame,
        planes=planes,
        alpha=None if frame.alpha is None else turn(frame.alpha),
        depth=None,
        motion=None,
        reactive=None,
        aspect=1 / frame.aspect if quarters % 2 else frame.aspect,
        rotation=(frame.rotation - 90 * quarters) % 360,
    )


def squared(frame: Frame) -> Frame:
    """Returns the frame with square pixels; the axis with fewer samples is enlarged to an even size."""
    if frame.aspect == 1:
        return frame
    width, height = frame.width, frame.height
    if frame.aspect > 1:
        width = max(_even(width * frame.aspect), width)
    else:
        height = max(_even(height / frame.aspect), height)
    if max(width, height) > LARGEST:
        raise SourceError(
            f"pixels of the shape {frame.aspect} would make the picture {width}x{height}: "
            "leave --bake out"
        )
    shown = Resize(width, height)(frame)
    return replace(shown, aspect=Fraction(1), depth=None, motion=None, reactive=None)


def _even(length: Fraction) -> int:
    return 2 * round(length / 2)
