"""Geometry: the size, rotation and pixel aspect of frames.

Resize brings them to a fixed size, Upright applies what a player would, Conform keeps all frames of a
film in the form of its first one.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

import cv2
import numpy as np

from ..colour import resample_chroma, resize_plane, to_format, turn_chroma
from ..errors import SourceError
from ..frame import Array, Colour, Frame, PixelFormat

SAME_SHAPE = 0.01
"""Relative difference of two displayed shapes that is invisible."""


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
        return replace(
            frame.with_planes(planes, format),
            alpha=None if alpha is None else resize_plane(alpha, self.size, format),
            aspect=aspect_at(frame, self.size),
        )


def aspect_at(frame: Frame, size: tuple[int, int]) -> Fraction:
    """Returns the sample aspect ratio with which a frame keeps its shape at `size` (width, height)."""
    aspect = frame.aspect * Fraction(frame.width * size[1], size[0] * frame.height)
    return frame.aspect if abs(float(aspect / frame.aspect) - 1) < SAME_SHAPE else aspect


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


UNSPECIFIED = (2, 2)
"""Primaries and transfer of a film that does not state them."""

LINES = 8
"""Notes at most; further changes are only counted."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties that a video stream states once for all of its frames."""

    width: int
    height: int
    aspect: Fraction
    rotation: int
    format: PixelFormat
    colour: Colour
    alpha: bool

    @classmethod
    def of(cls, frame: Frame) -> Self:
        """Returns the frame's properties."""
        return cls(
            frame.width,
            frame.height,
            frame.aspect,
            frame.rotation,
            frame.format,
            frame.colour,
            frame.alpha is not None,
        )

    @property
    def facts(self) -> dict[str, str]:
        """The properties to which frames are converted, in words."""
        return {
            "size": f"{self.width}x{self.height}",
            "shape of pixels": f"{float(self.aspect):.2f}",
            "rotation": f"{self.rotation}",
            "format": str(self.format),
            "matrix": self.colour.matrix,
            "range": self.colour.range,
            "place of chroma": self.colour.siting,
            "opacity": "some" if self.alpha else "full",
        }

    @property
    def light(self) -> tuple[int, int]:
        """Primaries and transfer, which are not converted."""
        return self.colour.primaries, self.colour.transfer


class Conform:
    """Converts every frame to the first one's size, pixel format, matrix, range and rotation.

    The last of all stages. A frame that fits passes untouched. One of another size is resized to the
    first one's, as the FFmpeg command does; one of the same size whose pixels have another shape is
    scaled to fit and framed in black. Primaries and transfer are those
    of the first frame from then on, without a conversion of the light: `notes` say so, as they say
    all that was changed.
    """

    def __init__(self) -> None:
        self.first: Shape | None = None
        """The shape of all frames, once the first was there."""
        self.notes: tuple[str, ...] = ()
        """Notes on changes and the first frame of each, one line for each kind."""
        self._seen: set[Shape] = set()

    def __call__(self, frame: Frame) -> Frame:
        shape = Shape.of(frame)
        if self.first is None:
            self.first = shape
        if shape == self.first:
            return frame
        first = self.first
        self._note(frame, shape, first)
        frame = turned(frame, (frame.rotation - first.rotation) // 90)
        if frame.format != first.format or frame.colour != first.colour:
            frame = to_format(frame, first.format, first.colour)
        frame = replace(_fitted(frame, first), aspect=first.aspect)
        if first.alpha and frame.alpha is None:
            opaque = np.full((first.height, first.width), first.format.peak, first.format.dtype)
            return replace(frame, alpha=opaque)
        return frame if first.alpha else replace(frame, alpha=None)

    def _note(self, frame: Frame, shape: Shape, first: Shape) -> None:
        """Note the conversion of frames of that shape, once."""
        if shape in self._seen or len(self.notes) > LINES:
            return
        self._seen.add(shape)
        wanted = first.facts
        told = [
            f"{name} {value} becomes {wanted[name]}"
            for name, value in shape.facts.items()
            if value != wanted[name]
        ]
        if shape.light not in (first.light, UNSPECIFIED):
            told.append(
                f"primaries and transfer {shape.light} are passed off as {first.light}, unconverted"
            )
        line = f"from frame {frame.index} on the picture is another one: {', '.join(told)}"
        if len(self.notes) == LINES:
            line = "the picture changes more often than is told here"
        if told:
            self.notes += (line,)


def _fitted(frame: Frame, first: Shape) -> Frame:
    """Returns the frame at the first one's size, with black bars where only its pixels have another
    shape."""
    size = (first.width, first.height)
    shape = Fraction(frame.width, frame.height) * frame.aspect
    wanted = Fraction(first.width, first.height) * first.aspect
    resized = (frame.width, frame.height) != size
    if resized or abs(float(shape / wanted) - 1) < SAME_SHAPE:
        return Resize(*size)(frame)
    step_x, step_y = first.format.subsample
    width, height = size
    if shape > wanted:
        height = _within(height * wanted / shape, step_y, height)
    else:
        width = _within(width * shape / wanted, step_x, width)
    inner = Resize(width, height)(frame)
    return _framed(inner, first, (first.width - width) // 2, (first.height - height) // 2)


def _within(length: Fraction, step: int, most: int) -> int:
    """Returns the nearest multiple of `step`, at least one step and no more than `most`."""
    return min(max(round(length / step), 1) * step, most)


def _framed(frame: Frame, first: Shape, left: int, top: int) -> Frame:
    """Returns the frame within a black picture, at whole chroma samples."""
    format, colour = first.format, first.colour
    step_x, step_y = format.subsample
    left, top = left - left % step_x, top - top % step_y
    shapes = format.plane_shapes(first.width, first.height)
    dark = 16 << (format.bits - 8) if format.family != "rgb" and colour.range == "limited" else 0
    levels = (dark, 1 << (format.bits - 1), 1 << (format.bits - 1))
    planes: list[Array] = []
    for i, (plane, shape) in enumerate(zip(frame.planes, shapes, strict=True)):
        x, y = (left // step_x, top // step_y) if i else (left, top)
        planes.append(_padded(plane, shape, x, y, levels[i]))
    alpha = frame.alpha
    if alpha is not None:
        alpha = _padded(alpha, shapes[0][:2], left, top, format.peak)
    return replace(frame, planes=tuple(planes), alpha=alpha, depth=None, motion=None, reactive=None)


def _padded(plane: Array, shape: tuple[int, ...], left: int, top: int, level: int) -> Array:
    bottom = shape[0] - top - plane.shape[0]
    right = shape[1] - left - plane.shape[1]
    return cv2.copyMakeBorder(
        np.ascontiguousarray(plane), top, bottom, left, right, cv2.BORDER_CONSTANT, value=(level,) * 4
    )
