"""Resize: frames to a fixed size, plane by plane, without leaving their colour space."""

from dataclasses import replace
from fractions import Fraction

from ..colour import resample_chroma, resize_plane
from ..frame import Array, Frame


class Resize:
    """Resizes to `width` x `height`: bicubic when growing, area-averaged when shrinking.

    The sample aspect ratio follows, so that the picture keeps its shape on the screen. Raises
    ValueError for a size below 1.
    """

    def __init__(self, width: int, height: int) -> None:
        if min(width, height) < 1:
            raise ValueError(f"cannot resize to {width}x{height}")
        self.size = (width, height)

    def __call__(self, frame: Frame) -> Frame:
        if (frame.width, frame.height) == self.size:
            return frame
        format, alpha = frame.format, frame.alpha
        planes: tuple[Array, ...] = (resize_plane(frame.planes[0], self.size, format),)
        if format.family == "yuv":
            planes += resample_chroma(frame, format, self.size, frame.colour.siting)
        aspect = frame.aspect * Fraction(frame.width * self.size[1], self.size[0] * frame.height)
        return replace(
            frame.with_planes(planes, format),
            alpha=None if alpha is None else resize_plane(alpha, self.size, format),
            aspect=frame.aspect if abs(float(aspect / frame.aspect) - 1) < 0.01 else aspect,
        )
