"""Blend: how much of a result is seen, where, and in whose colours.

One implementation for files, live runs and games: Blending mixes a result with the frame it was made
from, Mask says where, Blend is the stage.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import cv2
import numpy as np
import numpy.typing as npt

from ..card import ModelCard
from ..colour import LUMA_WEIGHTS, rgb_from_yuv_matrix, to_format
from ..errors import SourceError
from ..frame import Array, Frame, PixelFormat
from .geometry import SAME_SHAPE, Resize

Floats = npt.NDArray[np.float32]

FEATHER = 1 / 120
"""Half the width of a mask's soft edge over the picture's shorter side. It lies on the light side: what
is black stays untouched."""
SIZES = 8
"""Sizes of frames for which a mask's weights are kept."""
TINY = np.float32(1e-3)
"""What a difference counts at least where it is divided by."""


class Mask:
    """Where a result is seen: nowhere in black, wholly in white, in between by its gray."""

    def __init__(self, levels: npt.NDArray[Any], *, name: str = "the mask") -> None:
        """`levels` are (H, W), upright: integers up to their type's largest, floats of 0..1, or
        booleans. Raises ValueError for another array."""
        found = levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels
        if found.ndim != 2 or 0 in found.shape or found.dtype.kind not in "buf":
            raise ValueError(
                f"{name} is (height, width) of unsigned integers, floats of 0..1 or booleans, not "
                f"{levels.shape} of {levels.dtype}"
            )
        peak = np.iinfo(found.dtype).max if found.dtype.kind == "u" else 1
        values = found.astype(np.float32) / np.float32(peak)
        self._levels: Floats = np.clip(np.nan_to_num(values), 0, 1)
        self.name = name
        self.note: str | None = None
        """A line where it was scaled."""
        self._kept: dict[tuple[int, ...], Floats] = {}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Returns the mask in a picture file; colours count by their luma. Raises SourceError where
        there is none, or where parts of it are transparent."""
        try:
            data = np.frombuffer(Path(path).read_bytes(), np.uint8)
        except OSError as error:
            reason = error.strerror or error
            raise SourceError(f"the mask {path} cannot be read: {reason}") from error
        try:
            pixels: Any = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        except cv2.error:
            pixels = None
        if pixels is None or pixels.dtype.kind != "u":
            raise SourceError(f"the mask {path} is no picture: give a PNG of black, gray and white")
        if pixels.ndim == 3 and pixels.shape[2] == 4:
            if pixels[..., 3].min() < np.iinfo(pixels.dtype).max:
                raise SourceError(
                    f"the mask {path} is transparent in parts: lay it over white, where the models' "
                    "picture shall be seen, or over black, and save it without transparency"
                )
            pixels = pixels[..., :3]
        if pixels.ndim == 3:
            pixels = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_BGR2GRAY)
        return cls(pixels, name=f"the mask {path}")

    def fitted(self, size: tuple[int, int], *, aspect: float = 1.0, rotation: int = 0) -> "Mask":
        """Returns the mask for frames of `size` (width, height), as they are coded, whose pixels have
        that aspect and which players turn by `rotation` degrees; `note` says that it is scaled.

        Raises SourceError for one of another shape.
        """
        levels = np.ascontiguousarray(np.rot90(self._levels, -(rotation // 90)))
        height, width = levels.shape
        made = Mask(levels, name=self.name)
        if (width, height) == size:
            return made
        shape = size[0] / size[1]
        if all(abs(width / height / one - 1) > SAME_SHAPE for one in (shape, shape * aspect)):
            shown = size if rotation % 180 == 0 else size[::-1]
            given = self._levels.shape
            raise SourceError(
                f"{self.name} is {given[1]}x{given[0]}, another shape than the picture's "
                f"{shown[0]}x{shown[1]}: make it of that size"
            )
        made.note = f"{self.name} of {width}x{height} is scaled to {size[0]}x{size[1]}"
        return made

    def weights(self, size: tuple[int, int]) -> Floats:
        """Returns the result's part in a picture of `size` (width, height), feathered."""
        found = self._kept.get(size)
        if found is None:
            if len(self._kept) >= SIZES:
                self._kept.clear()
            found = self._kept[size] = _feathered(_scaled(self._levels, size), size)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Blending:
    """How a result and the frame that it was made from become one picture.

    What is None is by the models' cards, or else as in `of`.
    """

    strength: float | None = None
    """The result's part in the picture, 0..1; 1 by default."""
    keep_colours: bool | None = None
    """True for the frame's own chroma under the result's luma; False by default."""
    mask: Mask | Literal["alpha"] | None = None
    """Where the result is seen; `alpha` is by each frame's own opacity: where that is 0 the frame is
    untouched. None is everywhere."""

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise ValueError(f"a strength of {self.strength} is not within 0..1")

    def of(self, cards: Sequence[ModelCard]) -> Self:
        """Returns it with what the cards say where it says nothing: of several models the least
        strength, and the frame's colours where one wants them."""
        strength, keep = self.strength, self.keep_colours
        if strength is None:
            strength = min((card.strength for card in cards), default=1.0)
        if keep is None:
            keep = any(card.keep_colours for card in cards)
        return replace(self, strength=strength, keep_colours=keep)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is said of the mask."""
        note = self.mask.note if isinstance(self.mask, Mask) else None
        return () if note is None else (note,)

    @property
    def idle(self) -> bool:
        """True if the result is the picture."""
        return self.strength in (None, 1) and not self.keep_colours and self.mask is None

    def __call__(self, made: Frame, original: Frame, opacity: Array | None = None) -> Frame:
        """Returns the picture of a result and its frame, at the result's size.

        It has the frame's own format, unless only the result has colours: what is untouched is so bit
        by bit, and mixing coded luma and chroma is mixing R, G and B, since both are linear. A smaller
        frame is resized as by `Resize`. `opacity` is the frame's, for the mask `alpha`.
        """
        if self.idle:
            return made
        size = (made.width, made.height)
        original = Resize(*size)(original)
        strength = 1.0 if self.strength is None else self.strength
        if strength <= 0:
            return original
        if original.format.family == "gray" and made.format.family != "gray":
            original = to_format(original, replace(made.format, bits=original.format.bits), made.colour)
        format = original.format
        if self.keep_colours:
            planes = _coloured(made, original)
        else:
            same = made.format == format and made.colour == original.colour
            planes = (made if same else to_format(made, format, original.colour)).planes
        weights = self._weights(size, opacity, format.peak)
        if weights is not None:
            weights = weights if strength == 1 else weights * np.float32(strength)
            parts = (weights, *[_chroma(weights, format, size)] * (len(planes) - 1))
            planes = tuple(map(_mixed, planes, original.planes, parts))
        elif strength < 1:
            planes = tuple(
                np.asarray(cv2.addWeighted(_whole(a), strength, _whole(b), 1 - strength, 0))
                for a, b in zip(planes, original.planes, strict=True)
            )
        return made.with_planes(planes, format, original.colour)

    def _weights(self, size: tuple[int, int], opacity: Array | None, peak: int) -> Floats | None:
        """Returns the mask's weights at that size; None for 1 everywhere."""
        if isinstance(self.mask, Mask):
            return self.mask.weights(size)
        if self.mask is None or opacity is None:
            return None
        return _scaled(opacity.astype(np.float32) / np.float32(peak), size)


class Blend:
    """Blends results with the frames that they were made from: two stages, around those that make them.

    ```
    blend = Blend(Blending(strength=0.5))
    stages = [blend.keep, Neural(engine), blend]
    ```

    Between the two frames stay in order and keep their numbers, as in a pump.
    """

    def __init__(self, blending: Blending) -> None:
        self.blending = blending
        self._kept: deque[Frame] = deque()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is said of the mask."""
        return self.blending.notes

    def keep(self, frame: Frame) -> Frame:
        """Returns the frame, which is kept for its result."""
        self._kept.append(frame)
        return frame

    def __call__(self, made: Frame) -> Frame:
        frame = self._kept.popleft()
        while frame.index != made.index:  # of a run that was broken off, as a sample is
            frame = self._kept.popleft()
        return self.blending(made, frame)


def _coloured(made: Frame, original: Frame) -> tuple[Array, ...]:
    """Returns planes of the frame's format with the result's luma and the frame's chroma.

    Where a chroma is too strong for the new luma, R, G or B would be cut off, which changes luma and
    hue: saturated blue under a light stroke turns cyan. It is weakened as far as needed instead,
    towards the grey of that luma.
    """
    format, colour = original.format, original.colour
    if format.family == "rgb":
        red, blue = LUMA_WEIGHTS[colour.matrix]
        row = np.array([[red, 1 - red - blue, blue]])
        rgb = made if made.format == format else to_format(made, format, colour)
        grey, before = (np.asarray(cv2.transform(_whole(f.planes[0]), row)) for f in (rgb, original))
        # In planes: packed pixels take four times as long to be multiplied by one factor each.
        channels = cv2.split(_whole(original.planes[0]))
        weak = _weakened(grey, [_less(one, before) for one in channels], format.peak)
        sums = [cv2.add(grey, one, dtype=_depth(grey)) for one in weak]
        return (np.asarray(cv2.merge(sums)),)
    luma = to_format(made, replace(format, family="gray", subsample=(1, 1)), colour).planes[0]
    if format.family == "gray":
        return (luma,)
    u, v = (_whole(plane) for plane in original.planes[1:3])
    matrix = rgb_from_yuv_matrix(colour, format.bits)
    middle = 1 << (format.bits - 1)
    # Subsampled chroma meets the mean luma of its pixels, as in any coded video.
    seen = _whole(luma)
    if seen.shape != u.shape:
        seen = cv2.resize(seen, u.shape[::-1], interpolation=cv2.INTER_AREA)
    greyest = matrix[0, 3] + middle * (matrix[0, 1] + matrix[0, 2])
    grey = _floats(cv2.addWeighted(seen, matrix[0, 0], seen, 0, greyest, dtype=cv2.CV_32F))
    differences = [
        _floats(cv2.addWeighted(u, row[1], v, row[2], -middle * (row[1] + row[2]), dtype=cv2.CV_32F))
        for row in matrix
    ]
    room = _room(grey, differences, format.peak)
    chroma: list[Array] = []
    for plane in (u, v):
        weak = (plane.astype(np.float32) - np.float32(middle)) * room + np.float32(middle)
        chroma.append(np.rint(weak).astype(plane.dtype))
    return (luma, *chroma)


def _room(grey: Array, differences: Sequence[Floats], peak: int) -> Floats:
    """Returns the largest factor, 0..1, of R, G, B's differences from the grey (0 to `peak`) with which
    all three stay within 0 and the peak."""
    red, green, blue = differences
    most = np.maximum(np.asarray(cv2.max(cv2.max(red, green), blue)), TINY)
    least = np.minimum(np.asarray(cv2.min(cv2.min(red, green), blue)), -TINY)
    above = np.subtract(np.float32(peak), grey, dtype=np.float32)
    above /= most
    below = np.divide(grey, least, dtype=np.float32)
    # Below is negative: the largest factor is less it.
    np.negative(below, out=below)
    np.minimum(above, below, out=above)
    return np.clip(above, np.float32(0), np.float32(1), out=above)


def _weakened(grey: Array, differences: Sequence[Floats], peak: int) -> list[Floats]:
    """Returns the differences within the room that they have."""
    room = _room(grey, differences, peak)
    return [_floats(cv2.multiply(one, room, one)) for one in differences]


def _mixed(made: Array, original: Array, weights: Floats) -> Array:
    """Returns the planes mixed by weights of the first; of packed pixels one for each pixel."""
    if made.dtype == np.uint8:
        rest = np.float32(1) - weights
        return np.asarray(cv2.blendLinear(_whole(made), _whole(original), weights, rest))
    change = _less(made, original)
    parts = weights if made.ndim == 2 else cv2.merge([weights] * 3)
    return np.asarray(cv2.add(_whole(original), cv2.multiply(change, parts), dtype=_depth(made)))


def _less(one: Array, other: Array) -> Floats:
    return _floats(cv2.subtract(_whole(one), _whole(other), dtype=cv2.CV_32F))


def _depth(plane: Array) -> int:
    return cv2.CV_8U if plane.dtype == np.uint8 else cv2.CV_16U


def _chroma(weights: Floats, format: PixelFormat, size: tuple[int, int]) -> Floats:
    """Returns the weights of chroma samples: 0 where one of their pixels has 0."""
    across, down = format.subsample
    if format.family != "yuv" or (across, down) == (1, 1):
        return weights
    box = np.ones((2 * down + 1, 2 * across + 1), np.uint8)
    least = cv2.erode(weights, box)
    return _floats(cv2.resize(least, format.chroma_size(*size), interpolation=cv2.INTER_AREA))


def _feathered(levels: Floats, size: tuple[int, int]) -> Floats:
    """Returns levels whose light parts rise from 0 at their edges, over twice the radius."""
    radius = max(round(min(size) * FEATHER), 1)
    side = 2 * radius + 1
    inner = cv2.erode(levels, np.ones((side, side), np.uint8))
    soft = _floats(cv2.blur(inner, (side, side)))
    return np.clip(np.minimum(levels, soft), np.float32(0), np.float32(1))


def _scaled(levels: Floats, size: tuple[int, int]) -> Floats:
    height, width = levels.shape
    if (width, height) == size:
        return levels
    how = cv2.INTER_AREA if width > size[0] or height > size[1] else cv2.INTER_LINEAR
    return _floats(cv2.resize(levels, size, interpolation=how))


def _whole(plane: Array) -> Array:
    return np.ascontiguousarray(plane)


def _floats(found: Any) -> Floats:
    return cast("Floats", np.asarray(found))
