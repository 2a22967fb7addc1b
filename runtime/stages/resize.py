"""Resize: frames to a fixed size, plane by plane, without leaving their colour space."""

from dataclasses import replace
from fractions import Fraction

from ..colour import Axis, resample, resample_chroma
from ..frame import Array, Frame


class Resize:
    """To `width` x `height`: bicubic when growing, area-averaged when shrinking.

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
        axes = [
            Axis(ratio, ratio / 2 - 0.5)
            for ratio in (frame.width / self.size[0], frame.height / self.size[1])
        ]
        planes: tuple[Array, ...] = (resample(frame.planes[0], self.size, axes[0], axes[1]),)
        if frame.format.family == "yuv":
            planes += resample_chroma(frame, frame.format, self.size, frame.colour.siting)
        aspect = frame.aspect * Fraction(frame.width * self.size[1], self.size[0] * frame.height)
        return replace(
            frame.with_planes(planes, frame.format),
            aspect=frame.aspect if abs(float(aspect / frame.aspect) - 1) < 0.01 else aspect,
        )
