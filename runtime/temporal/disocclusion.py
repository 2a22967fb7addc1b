"""Disocclusion: areas of a newer frame that an earlier one did not show, and their filling."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..frame import Array, Frame
from .planes import Floats, Mask, cv, grid
from .reprojection_map import NEARER, Track

HALO = 4
"""Pixels beside a foreground object that models have painted with it in view."""
TILE = 32
"""Pixels, per side, of the tiles in which colours are compared."""
STEP = 8
"""Step of rows and columns that are sampled for comparing colours."""
ROWS = 30_000
"""The most that OpenCV moves at once: it counts them in 16 bits."""
RIDGE = 60.0
"""Variance, in levels of 255 squared, below which a difference of colours does not count."""


def seen_motion(frame: Frame, track: Track | None) -> Floats:
    """Returns a frame's motion, with NaN where the frame before it does not show the pixel.

    So it is where something was in front of it, by depth; or, where that is not known, where it looks
    different and is not said to (`Frame.reactive`). With `track` None, another scene, it is so
    everywhere.
    """
    if track is None:
        return np.full((frame.height, frame.width, 2), np.nan, np.float32)
    unseen: Mask = track.inside == 0
    if frame.depth is None:
        changed = track.trust < 0.5
        unseen |= changed if frame.reactive is None else changed & (frame.reactive < 0.5)
    size = (frame.width, frame.height)
    motion = np.asarray(cv2.subtract(track.places, grid(*size)), np.float32)
    motion[unseen] = np.nan
    return motion


def haloed(uncovered: Mask, depth: Array | None) -> Mask:
    """Returns the mask with the pixels within `HALO` of it that are no nearer to the camera: without
    foreground."""
    if depth is None:
        return uncovered
    around = np.ones((2 * HALO + 1, 2 * HALO + 1), np.uint8)
    far = np.where(uncovered, depth, np.float32(np.inf)).astype(np.float32, copy=False)
    least = np.asarray(cv2.erode(far, around), np.float32)
    return uncovered | (depth >= least * np.float32(1 - NEARER))


def filled(made: Frame, plain: Frame, uncovered: Mask) -> Frame:
    """Returns `made` with `plain` where it is uncovered, in the colours of its surroundings; both RGB.

    `plain` has the size and format of `made`; `uncovered` is (H, W) of any size. In each tile and its
    neighbours the affine change of colour is found that brings one nearest to the other (a colour
    transfer by least squares, as in He, Sun and Tang's guided filter, 2013, with a colour guide).
    """
    result, source = made.planes[0], plain.planes[0]
    height, width = result.shape[:2]
    hole = uncovered.view(np.uint8)
    if hole.shape != (height, width):
        hole = cv2.resize(hole, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    hole = np.asarray(hole)
    index = np.flatnonzero(hole.view(np.bool_))
    count = len(index)
    if not 0 < count < hole.size:
        return plain if count else made
    unit = np.float32(255 / made.format.peak)
    step = STEP if min(height, width) >= STEP * TILE else 1
    some = np.s_[step // 2 :: step, step // 2 :: step]
    known = np.float32(1) - hole[some]
    tiles = (max(width // TILE, 1), max(height // TILE, 1))
    change = _changes(source[some] * unit, result[some] * unit, known, tiles)
    # Between the centres of tiles the change is interpolated.
    places = np.empty((count, 1, 2), np.float32)
    places[:, 0, 0] = (index % width + 0.5) * (tiles[0] / width) - 0.5
    places[:, 0, 1] = (index // width + 0.5) * (tiles[1] / height) - 0.5
    here = np.ones((count, 4), np.float32)
    here[:, :3] = source.reshape(-1, 3)[index]
    here[:, :3] *= unit
    painted = np.empty((count, 3), np.float32)
    for i, channel in enumerate(change):
        np.einsum("nj,nj->n", _between(channel, places), here, out=painted[:, i])
    painted *= 1 / unit
    pixels = result.copy()
    pixels.reshape(-1, 3)[index] = np.rint(np.clip(painted, 0, made.format.peak, painted), painted)
    return made.with_planes((pixels,), made.format)


def _changes(source: Floats, result: Floats, known: Floats, tiles: tuple[int, int]) -> Floats:
    """Returns (3, rows, columns, 4): the affine maps from (R, G, B, 1) to each channel of the result,
    by tiles."""

    def mean(values: Floats) -> npt.NDArray[np.float64]:
        small = cv2.resize(values * known[..., None], tiles, interpolation=cv2.INTER_AREA)
        small = np.asarray(cv2.blur(small, (3, 3)), np.float64).reshape(*tiles[::-1], -1)
        # Where no surrounding tile is known, the mean of all known ones is used.
        return small + 0.01 * small.mean((0, 1))

    weight = np.maximum(mean(np.ones((*known.shape, 1), np.float32)), 1e-9)
    ours, theirs = mean(source) / weight, mean(result) / weight
    products = [
        mean(source * other[..., i : i + 1]) / weight - ours * middle[..., i : i + 1]
        for other, middle in ((source, ours), (result, theirs))
        for i in range(3)
    ]
    within = np.stack(products[:3], -1) + RIDGE * np.eye(3)
    across = np.stack(products[3:], -1)
    turn = np.swapaxes(np.linalg.solve(within, across), -1, -2)
    move = theirs - np.einsum("rcij,rcj->rci", turn, ours)
    found = np.concatenate([turn, move[..., None]], -1).astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(found, 2, 0))


def _between(tiles: Floats, places: Floats) -> Floats:
    """Returns (n, 4): values of tiles at (n, 1, 2) places, x and y, interpolated linearly between their
    centres."""
    found: list[Any] = []
    for begin in range(0, len(places), ROWS):
        some, how = places[begin : begin + ROWS], cv.INTER_LINEAR
        found.append(cv.remap(tiles, some, None, how, borderMode=cv.BORDER_REPLICATE))
    return np.concatenate(found).reshape(-1, 4)
