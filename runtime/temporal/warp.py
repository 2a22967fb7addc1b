"""Carried: an earlier frame's result, warped to the present place of its picture.

What an earlier frame did not show is found by `seen_motion`, and filled by `filled`.
"""

from typing import Any, Self, cast

import cv2
import numpy as np
import numpy.typing as npt

from ..frame import Array, Frame
from .planes import Floats, Mask, cv, grid
from .reprojection_map import NEARER, Track

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
