"""Carried: an earlier frame's result, warped to the present place of its picture."""

from typing import Self, cast

import cv2
import numpy as np

from ..frame import Array, Frame
from .planes import Floats, Mask, cv, grid

WIDE = 192
"""Columns of the small pictures in which motion is estimated: a fifth of a millisecond a frame."""
LEAST = 48
"""Rows and columns below which optical flow has no room for its patches."""


class Way:
    """Motion from the newest frame back to an earlier one, composed as frames come."""

    def __init__(self) -> None:
        self.motion: Floats | None = None
        """(H, W, 2) as `Frame.motion`; None at the frame itself, and where it is unknown."""
        self.known = True
        """True if every frame since has brought its motion."""

    def step(self, frame: Frame) -> None:
        """Add the next frame's motion."""
        if frame.motion is None or frame.cut:
            self.motion, self.known = None, False
        elif self.known:
            newer = cast("Floats", frame.motion)
            self.motion = newer if self.motion is None else composed(newer, self.motion)


class Carried:
    """An earlier frame's result, and what is needed to warp it.

    Motion is dense inverse search (Kroeger et al. 2016, OpenCV's DIS) between small lumas of the two
    frames, from the newer to the older; each pixel is then fetched from where it was, bilinearly.
    """

    def __init__(self, result: Frame, small: Array) -> None:
        """`small` is `small_luma` of the frame that `result` was made from."""
        self.result = result
        self._small = small
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def succeed(self, result: Frame, small: Array) -> Self:
        """Replace it by a newer result; returns itself."""
        self.result, self._small = result, small
        return self

    def at(self, small: Array) -> tuple[Array, ...]:
        """Returns the result's planes, as if made from the frame with that small luma."""
        if small.shape != self._small.shape or min(small.shape) < LEAST:
            return self.result.planes
        nothing = np.zeros((*small.shape, 2), np.float32)
        flow = np.asarray(self._flow.calc(small, self._small, nothing), np.float32)
        return tuple(self._moved(plane, flow, cv2.INTER_LINEAR) for plane in self.result.planes)

    def along(self, motion: Floats) -> tuple[tuple[Array, ...], Mask | None]:
        """Returns the planes warped by known motion, (H, W, 2) from the present places, and the mask of
        pixels without any.

        (H, W); None is no pixel. What stands there is no result for the newer frame: it has not moved.
        """
        lost: Mask = ~np.isfinite(motion[..., 0] + motion[..., 1])
        if not lost.any():
            unknown = None
        else:
            unknown, motion = lost, motion.copy()
            motion[lost] = 0
        # Nearest neighbours: between two surfaces there is no motion.
        how = cv2.INTER_NEAREST_EXACT
        return tuple(self._moved(plane, motion, how) for plane in self.result.planes), unknown

    def _moved(self, plane: Array, flow: Floats, how: int) -> Array:
        height, width = plane.shape[:2]
        rows, columns = flow.shape[:2]
        if (rows, columns) != (height, width):
            flow = cast("Floats", cv2.resize(flow, (width, height), interpolation=how))
            flow = flow * np.array([width / columns, height / rows], np.float32)
        maps = cv2.add(flow, grid(width, height))
        whole = np.ascontiguousarray(plane)
        moved: Array = cv.remap(whole, maps, None, cv.INTER_LINEAR, borderMode=cv.BORDER_REPLICATE)
        return moved


def composed(newer: Floats, older: Floats) -> Floats:
    """Returns the motion over two frames: `newer` back to the one between them, `older` from there.

    (H, W, 2) as `Frame.motion`. Where the older vector begins outside of the picture, or one of the two
    is none, so is the result. The older one is the nearest: between two surfaces there is no motion.
    """
    height, width = newer.shape[:2]
    places = cv2.add(newer, grid(width, height))
    nowhere = (float("nan"),) * 4
    before = cv.remap(
        older, places, None, cv.INTER_NEAREST, borderMode=cv.BORDER_CONSTANT, borderValue=nowhere
    )
    return cast("Floats", cv2.add(newer, before))


def small_luma(frame: Frame) -> Array:
    """Returns (h, w) uint8, at most `WIDE` columns: enough for estimating motion."""
    plane = frame.planes[0]
    scale = max(frame.width / WIDE, 1.0)
    size = (max(round(frame.width / scale), 1), max(round(frame.height / scale), 1))
    small = cv2.resize(np.ascontiguousarray(plane), size, interpolation=cv2.INTER_AREA)
    if frame.format.family == "rgb":
        small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if frame.format.bits == 8 else small[..., 1]
    if frame.format.bits > 8:
        return (np.asarray(small) // (1 << (frame.format.bits - 8))).astype(np.uint8)
    return np.ascontiguousarray(small)
