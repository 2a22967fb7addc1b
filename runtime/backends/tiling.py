"""Padding to a size multiple, and cutting frames that are too large into overlapping tiles."""

from dataclasses import dataclass

import cv2
import numpy as np

from ..buffers import Take
from ..frame import Array


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of the input, and the part of its result that is valid."""

    top: int
    left: int
    keep_top: int
    """First row of the frame that is taken from this tile."""
    keep_left: int
    keep_bottom: int
    """One past the last row of the frame that is taken from this tile."""
    keep_right: int


def pad_for(
    image: Array,
    *,
    multiple: int,
    at_least: tuple[int, int] = (1, 1),
    take: Take = np.empty,
) -> Array:
    """Extend below and to the right to a multiple and a minimum, by reflection without the edge pixel.

    Pictures narrower than the padding repeat their edge instead, since they have too little to reflect.
    `take` gives memory for the result.
    """
    sizes = [int(side) for side in image.shape[:2]]
    pads = [
        max(size, least) + -max(size, least) % multiple - size
        for size, least in zip(sizes, at_least, strict=True)
    ]
    for mode, narrow in ((cv2.BORDER_REFLECT_101, False), (cv2.BORDER_REPLICATE, True)):
        below, right = (
            pad if (pad >= size) is narrow else 0 for pad, size in zip(pads, sizes, strict=True)
        )
        if below or right:
            shape = (image.shape[0] + below, image.shape[1] + right, *image.shape[2:])
            whole = take(shape, image.dtype)
            source = np.ascontiguousarray(image)
            image = np.asarray(cv2.copyMakeBorder(source, 0, below, 0, right, mode, whole))
    return image


def window_size(
    height: int, width: int, *, max_pixels: int, halo: int, multiple: int
) -> tuple[int, int]:
    """The size of tiles for a frame: all of it where it has at most `max_pixels`.

    Otherwise the split that costs the least work, halos counted, of those that fit. Sizes are multiples
    of `multiple`, and so must `height` and `width` be.
    """
    if height * width <= max_pixels:
        return height, width
    smallest = 2 * halo + multiple
    smallest += -smallest % multiple
    options: list[tuple[int, int, int]] = []
    for rows in range(1, 65):
        high = _window(height, rows, halo, multiple)
        for columns in range(1, 65):
            wide = _window(width, columns, halo, multiple)
            if high * wide <= max_pixels:
                options.append((rows * columns * high * wide, high, wide))
                break
    if not options:
        # The halo alone fills the budget: the smallest window that makes progress.
        return min(height, smallest), min(width, smallest)
    _, high, wide = min(options)
    return high, wide


def _window(size: int, parts: int, halo: int, multiple: int) -> int:
    """Length of one of `parts` windows that cover `size` with a halo at every inner cut."""
    if parts == 1:
        return size
    # The first and the last window have one inner cut, the others two.
    core = max(-(-(size - 2 * halo) // parts), multiple)
    need = core + -core % multiple + 2 * halo
    return min(size, need + -need % multiple)


def tiles(height: int, width: int, window: tuple[int, int], *, halo: int, multiple: int) -> list[Tile]:
    """Windows of one size that cover a frame; kept pixels are `halo` from each inner window edge."""
    rows = _spans(height, window[0], halo, multiple)
    columns = _spans(width, window[1], halo, multiple)
    return [
        Tile(top, left, keep_top, keep_left, keep_bottom, keep_right)
        for top, keep_top, keep_bottom in rows
        for left, keep_left, keep_right in columns
    ]


def _spans(size: int, window: int, halo: int, multiple: int) -> list[tuple[int, int, int]]:
    """(start, first kept, one past last kept) along one axis."""
    if window >= size:
        return [(0, 0, size)]
    spans: list[tuple[int, int, int]] = []
    kept = start = 0
    # Starts lie on the size multiple, so that strided layers see the phase they see in the whole frame.
    step = max((window - 2 * halo) // multiple * multiple, multiple)
    while True:
        last = start + window >= size
        start = size - window if last else start
        end = size if last else start + window - halo
        spans.append((start, kept, end))
        if last:
            return spans
        kept, start = end, start + step
