"""Planes: arithmetic on float32 planes in reused memory."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..buffers import BufferPool
from ..frame import Array

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

cv: Any = cv2
"""OpenCV, whose stubs allow neither numbers in place of planes nor None in place of a map."""


class Planes:
    """OpenCV's functions with results in reused memory: allocating it would cost more than they do."""

    def __init__(self) -> None:
        self._pool = BufferPool(keep=24)

    def new(self, shape: Sequence[int], dtype: Any = np.float32) -> Any:
        """Returns an uninitialised array."""
        return self._pool.take(shape, np.dtype(dtype))

    def floats(self, plane: Array) -> Floats:
        """Returns the values in float32."""
        found = self.new(plane.shape)
        np.copyto(found, plane)
        return found

    def linear(self, plane: Array, places: Floats) -> Any:
        """Returns the values at `places`, (H, W, 2), interpolated bilinearly; the edge is repeated
        beyond it."""
        found = self.new((*places.shape[:2], *plane.shape[2:]), plane.dtype)
        how, border = cv.INTER_LINEAR, cv.BORDER_REPLICATE
        return cv.remap(plane, places, None, how, found, borderMode=border)

    def nearest(self, plane: Array, places: Floats) -> Any:
        """Returns the sample nearest to each of `places`."""
        found = self.new((*places.shape[:2], *plane.shape[2:]), plane.dtype)
        how, border = cv.INTER_NEAREST, cv.BORDER_REPLICATE
        return cv.remap(plane, places, None, how, found, borderMode=border)

    def merged(self, planes: Sequence[Any]) -> Any:
        """Returns planes merged as channels."""
        first = planes[0]
        return cv.merge(list(planes), self.new((*first.shape, len(planes)), first.dtype))

    def parted(self, packed: Any) -> list[Any]:
        """Returns channels as separate planes."""
        count = packed.shape[2]
        return list(cv.split(packed, [self.new(packed.shape[:2], packed.dtype) for _ in range(count)]))

    def product(self, one: Any, other: Any, scale: float = 1.0) -> Floats:
        """Returns the product of two planes, or of one and a number, times `scale`."""
        return cv.multiply(one, other, self.new(one.shape), scale, cv.CV_32F)

    def difference(self, one: Any, other: Any) -> Floats:
        """Returns the difference of two planes, the first of which may be a number."""
        shape = other.shape if isinstance(one, float) else one.shape
        return cv.subtract(one, other, self.new(shape), None, cv.CV_32F)

    def resized(self, plane: Any, size: tuple[int, int], how: int = cv.INTER_LINEAR) -> Any:
        """Returns the plane at `size` (width, height)."""
        shape = (size[1], size[0], *plane.shape[2:])
        return cv.resize(plane, size, self.new(shape, plane.dtype), interpolation=how)


@lru_cache(maxsize=8)
def grid(width: int, height: int) -> Floats:
    """Returns (height, width, 2): each pixel's own place, read-only."""
    places = np.empty((height, width, 2), np.float32)
    places[..., 0] = np.arange(width)
    places[..., 1] = np.arange(height)[:, None]
    places.flags.writeable = False
    return places
