"""Carried: a result for an earlier frame, moved to where its picture is by now."""

from typing import Self

import cv2
import numpy as np
import numpy.typing as npt

from ..frame import Array, Frame

WIDE = 192
"""Columns of the small pictures in which motion is looked for: a fifth of a millisecond a frame."""
LEAST = 48
"""Rows and columns below which optical flow finds no place for its patches."""


Floats = npt.NDArray[np.float32]


class Carried:
    """Pixels of an earlier frame's result, and what is needed to move them.

    Motion is dense inverse search (Kroeger et al. 2016, OpenCV's DIS) between small lumas of the two
    frames, from the newer to the older; each pixel is then fetched from where it was, bilinearly.
    """

    def __init__(self, result: Frame, small: Array) -> None:
        """`small` is `small_luma` of the frame that `result` was made from."""
        self.result = result
        self._small = small
        self._places: dict[tuple[int, int], Floats] = {}
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def succeed(self, result: Frame, small: Array) -> Self:
        """Go on with a newer result."""
        self.result, self._small = result, small
        return self

    def at(self, small: Array) -> tuple[Array, ...]:
        """The result's planes, as if made from the frame with that small luma."""
        if small.shape != self._small.shape or min(small.shape) < LEAST:
            return self.result.planes
        nothing = np.zeros((*small.shape, 2), np.float32)
        flow = np.asarray(self._flow.calc(small, self._small, nothing), np.float32)
        return tuple(self._moved(plane, flow) for plane in self.result.planes)

    def _moved(self, plane: Array, flow: Floats) -> Array:
        height, width = plane.shape[:2]
        places = self._places.get((width, height))
        if places is None:
            places = np.empty((height, width, 2), np.float32)
            places[..., 0] = np.arange(width)
            places[..., 1] = np.arange(height)[:, None]
            self._places[width, height] = places
        scale = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
        maps = cv2.add(cv2.resize(flow * scale, (width, height)), places)
        whole = np.ascontiguousarray(plane)
        # One map holds both coordinates. OpenCV's types do not know that the second may be None, and an
        # empty array in its place makes noise of the picture.
        moved = cv2.remap(  # pyright: ignore[reportCallIssue, reportUnknownVariableType]
            whole,
            maps,
            None,  # pyright: ignore[reportArgumentType]
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(moved)  # pyright: ignore[reportUnknownArgumentType]


def small_luma(frame: Frame) -> Array:
    """(h, w) uint8, at most `WIDE` columns: enough to see where things go."""
    plane = frame.planes[0]
    scale = max(frame.width / WIDE, 1.0)
    size = (max(round(frame.width / scale), 1), max(round(frame.height / scale), 1))
    small = cv2.resize(np.ascontiguousarray(plane), size, interpolation=cv2.INTER_AREA)
    if frame.format.family == "rgb":
        small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if frame.format.bits == 8 else small[..., 1]
    if frame.format.bits > 8:
        return (np.asarray(small) // (1 << (frame.format.bits - 8))).astype(np.uint8)
    return np.ascontiguousarray(small)
