"""Tracker: each pixel's place in the previous frame, and the trust in that place."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..frame import Array, Frame
from .planes import Bytes, Floats, Planes, cv, grid

NEARER = 0.1
"""The part of a pixel's depth by which the earlier surface must be nearer to have hidden it."""
NOISE = (2.0, 6.0)
"""Least and most levels of 255, over 6x6 pixels, that count as noise; between them it is measured."""
CHANGE = 6.0
"""Levels of 255 beyond noise and contrast at which a pixel counts as wholly changed."""
CONTRAST = 1.1
"""Part of the contrast around a pixel that aliasing and resampling may change."""
ALONE = 0.4
"""The part of the contrast where no depth tells what was hidden, or where motion was estimated."""
ANOTHER = 0.6
"""The changed part of the picture above which it counts as another scene."""
TILE = 16
"""Pixels, per side, at half the size, of the tiles in which light is compared."""
WIDE = 320
"""Largest width of the pictures in which motion is estimated where none is given."""
LEAST = 48
"""Rows and columns below which optical flow has no room for its patches."""
STILL = 1.0
"""Levels of 255 by which moved pixels must fit better than unmoved ones to count as moved."""

_CROSS = np.ones((3, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """The places of a frame's pixels in the frame before."""

    places: Floats
    """(H, W, 2): x and y in the frame before, all within it."""
    trust: Floats
    """(H, W), 0..1: 0 where the frame before does not show this pixel."""
    brighter: Floats
    """(rows, columns, 1 or 3): the levels of 255 by which each tile of the picture has brightened."""
    estimated: bool
    """True if the places are found by optical flow rather than given."""
    inside: Bytes
    """(H, W): 0 where that place is outside of the picture, not finite, or hidden by a nearer
    surface."""

    @property
    def light(self) -> Floats:
        """(rows, columns): the levels of 255 by which a tile has brightened or darkened, in any
        colour."""
        return np.abs(self.brighter).max(2)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The data of a frame that are kept for the next one."""

    size: tuple[int, int]
    soft: Bytes
    """(h, w, 3), or (h, w) of a grey frame: half the size, averaged over 3x3 of its pixels."""
    contrast: Bytes
    """The range, maximum less minimum, of each 3x3 neighbourhood of `soft`."""
    depth: tuple[Floats, Floats] | None
    """(H, W) each: the depth of every pixel, and the least of its 3x3 neighbours."""
    small: Bytes | None
    """The luma in which motion is estimated; None where motion is given."""


class Tracker:
    """Compares each frame with the one before it. Used from one thread, in the order of the frames."""

    def __init__(self) -> None:
        self.before: Seen | None = None
        """The data kept of the frame before."""
        self._planes = Planes()
        self._flow: Any = None

    def forget(self) -> None:
        """Forget the frame before: the next one is the first."""
        self.before = None

    def follow(self, frame: Frame) -> Track | None:
        """Returns the places of its pixels; None where the frame before does not count.

        Raises ValueError where motion, depth or reactivity are not of the frame's size.
        """
        _check(frame)
        planes, before = self._planes, self.before
        seen = self.before = _seen(frame, self._depth(frame))
        if before is None or frame.cut or before.size != seen.size:
            return None
        if before.soft.shape != seen.soft.shape:
            return None
        if frame.motion is None:
            places = self._searched(before, seen)
        else:
            # Each pixel's own motion. Letting the rim of the background move with the foreground, as is
            # done against jagged edges, makes E_warp a fifth larger, and no edge looked better.
            motion = np.ascontiguousarray(frame.motion, np.float32)
            places: Any = cv.add(motion, grid(*seen.size), planes.new(motion.shape))
        inside = self._inside(places)
        if seen.depth is not None and before.depth is not None:
            # Hidden: something nearer was there, or beside it, and nothing is as near there, or beside
            # it, now.
            for now, then in zip(seen.depth, before.depth, strict=True):
                there = planes.nearest(then, places)
                hidden = cv.compare(there, planes.product(now, 1 - NEARER), cv.CMP_LT)
                cv.bitwise_and(inside, cv.bitwise_not(hidden, hidden), inside)
        known = frame.motion is not None and seen.depth is not None and before.depth is not None
        tolerance = CONTRAST if known else ALONE
        likeness, brighter = self._compared(before, seen, places, tolerance)
        trust = planes.product(likeness, inside, 1 / 255)
        if float(cv.sumElems(trust)[0]) < (1 - ANOTHER) * cv.countNonZero(inside):
            return None
        if frame.reactive is not None:
            cv.multiply(trust, _calm(frame.reactive), trust)
        return Track(places, trust, brighter, frame.motion is None, inside)

    def _depth(self, frame: Frame) -> tuple[Floats, Floats] | None:
        """Returns what `Seen` keeps of a frame's depth."""
        if frame.depth is None:
            return None
        own = self._planes.floats(frame.depth)
        return own, cv.erode(own, _CROSS, self._planes.new(own.shape))

    def _searched(self, before: Seen, seen: Seen) -> Any:
        """Returns places by dense inverse search (Kroeger et al. 2016, OpenCV's DIS), from this frame
        to the last."""
        own, planes = grid(*seen.size), self._planes
        now, last = seen.small, before.small
        if now is None or last is None or min(now.shape) < LEAST:
            return own.copy()
        if self._flow is None:
            self._flow = cv.DISOpticalFlow.create(cv.DISOPTICAL_FLOW_PRESET_FAST)
        flow = np.asarray(self._flow.calc(now, last, np.zeros((*now.shape, 2), np.float32)), np.float32)
        height, width = now.shape
        there: Any = cv.add(flow, grid(width, height))
        # Noise looks like motion: pixels are moved only where moving makes them fit visibly better.
        still, moved = (
            cv.blur(cv.absdiff(now, one), (5, 5)) for one in (last, planes.linear(last, there))
        )
        flow[np.asarray(cv.subtract(still, moved)) < STILL] = 0
        cv.multiply(flow, (seen.size[0] / width, seen.size[1] / height, 0.0, 0.0), flow)
        places = planes.resized(flow, seen.size)
        return cv.add(places, own, places)

    def _inside(self, places: Any) -> Bytes:
        """Returns 255 where a place is in the picture, else 0, and replaces it by the pixel's own."""
        height, width = places.shape[:2]
        least, most = (-0.5, -0.5, 0.0, 0.0), (width - 0.5, height - 0.5, 0.0, 0.0)
        # What is not finite is not in the range, either.
        inside: Any = cv.inRange(places, least, most, self._planes.new((height, width), np.uint8))
        if cv.countNonZero(inside) < inside.size:
            cv.copyTo(grid(width, height), cv.bitwise_not(inside), places)
        return inside

    def _compared(
        self, before: Seen, seen: Seen, places: Any, tolerance: float
    ) -> tuple[Floats, Floats]:
        """Returns (H, W) of 0..1, how alike the picture is there and here, and `Track.brighter`.

        Compared are means over 6x6 pixels, which noise, aliasing and resampling change little.
        """
        planes = self._planes
        height, width = seen.soft.shape[:2]
        half = planes.resized(places, (width, height), cv.INTER_NEAREST)
        moved = planes.linear(before.soft, planes.product(half, (0.5, 0.5, 0.0, 0.0)))
        apart = cv.absdiff(seen.soft, moved)
        excess = cv.subtract(apart, cv.convertScaleAbs(seen.contrast, None, tolerance))
        if excess.ndim == 3:
            one, two, three = planes.parted(excess)
            excess = cv.max(cv.max(one, two, one), three, one)
        excess = planes.floats(excess)
        least, most = NOISE
        noise = min(max(1.5 * float(np.median(apart[::4, ::4])), least), most)
        like = cv.addWeighted(excess, -1 / CHANGE, excess, 0.0, (noise + CHANGE) / CHANGE, excess)
        np.clip(like, 0.0, 1.0, out=like)
        tiles = (max(width // TILE, 1), max(height // TILE, 1))
        brighter = cv.subtract(seen.soft[::4, ::4], moved[::4, ::4], None, None, cv.CV_32F)
        brighter = cv.resize(brighter, tiles, interpolation=cv.INTER_AREA)
        return planes.resized(like, seen.size), brighter.reshape(tiles[1], tiles[0], -1)


def _calm(reactive: Array) -> Floats:
    """Returns the share, 0..1, that earlier frames may have in a pixel; 0 for a reactivity of NaN."""
    share = np.nan_to_num(np.asarray(reactive, np.float32), nan=1.0, posinf=1.0, neginf=0.0)
    return _array(1.0 - np.clip(share, 0.0, 1.0))


def _check(frame: Frame) -> None:
    shape = (frame.height, frame.width)
    for name, extra, wanted in (
        ("motion", frame.motion, (*shape, 2)),
        ("depth", frame.depth, shape),
        ("reactivity", frame.reactive, shape),
    ):
        if extra is not None and extra.shape != wanted:
            raise ValueError(f"{name} is {extra.shape}, but a frame of {shape} needs {wanted}")


def _seen(frame: Frame, depth: tuple[Floats, Floats] | None) -> Seen:
    format = frame.format
    size = (max(frame.width // 2, 1), max(frame.height // 2, 1))
    planes = [_halved(plane, size, format.bits) for plane in frame.planes]
    picture = planes[0] if len(planes) == 1 else np.asarray(cv.merge(planes), np.uint8)
    small: Bytes | None = None
    if frame.motion is None:
        luma = planes[0]
        if format.family == "rgb":
            luma = np.asarray(cv.cvtColor(picture, cv.COLOR_RGB2GRAY), np.uint8)
        scale = max(size[0] / WIDE, 1.0)
        reduced = (max(round(size[0] / scale), 1), max(round(size[1] / scale), 1))
        small = np.asarray(cv.resize(luma, reduced, interpolation=cv.INTER_AREA), np.uint8)
    soft = np.asarray(cv.blur(picture, (3, 3)), np.uint8)
    contrast = np.asarray(cv.subtract(cv.dilate(soft, _CROSS), cv.erode(soft, _CROSS)), np.uint8)
    return Seen((frame.width, frame.height), soft, contrast, depth, small)


def _halved(plane: Array, size: tuple[int, int], bits: int) -> Bytes:
    half: Any = cv.resize(np.ascontiguousarray(plane), size, interpolation=cv.INTER_AREA)
    if bits > 8:
        half = cv.convertScaleAbs(half, None, 1 / (1 << (bits - 8)))
    return np.asarray(half, np.uint8)


def _array(plane: Any) -> Floats:
    return np.asarray(plane, np.float32)
