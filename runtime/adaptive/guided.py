"""Upsampling of small results: guided by the edges of the large original, or bilinear and fast."""

from dataclasses import replace
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from ..colour import chroma_axes
from ..frame import Array, Frame, PixelFormat, Siting
from ..stages.geometry import aspect_at

Floats = npt.NDArray[np.float32]

RADIUS = 4
"""Radius of the box in which result and original are compared, in samples of the small picture."""
EPSILON = 10.0
"""Variance, in 8-bit samples squared, below which the original has no edge to follow."""


def guided_upsampling(small: Frame, small_guide: Array, guide: Array, target: PixelFormat) -> Frame:
    """Returns a small picture's result at the size of the large one, with the large one's edges.

    `small` is the result, in RGB, grey or 4:4:4; `small_guide` (h, w) the luma of the small picture
    that it was made from; `guide` (H, W) the large one's; all of one depth. `target` is the
    result's layout; its family must be that of `small`.

    The fast guided filter (He and Sun 2015, arXiv:1505.00996) finds for every small box the a and b for
    which a * guide + b is nearest to the result. A style is more than that: what the filter leaves,
    the strokes of the brush, is enlarged beside it instead of dropped. Result = a * guide +
    up(small - a * small_guide), with a enlarged bilinearly.
    """
    height, width = guide.shape
    if small.format.family == "rgb":
        grey = cv2.cvtColor(np.ascontiguousarray(small.planes[0]), cv2.COLOR_RGB2GRAY)
        slope, rest = _explained(small_guide, np.asarray(grey), guide, small.format)
        # The same change of all three channels changes the luma by that much and no colour.
        detail = _sum(
            slope, guide, rest - _enlarged(np.asarray(grey), width, height).astype(np.float32)
        )
        large = _enlarged(small.planes[0], width, height)
        whole = cv2.add(large, cv2.merge([detail] * 3), dtype=_depth(target))
        return small.with_planes((_limited(np.asarray(whole), target),), target)
    slope, rest = _explained(small_guide, small.planes[0], guide, small.format)
    luma = _sum(slope, guide, rest, _depth(target))
    planes: tuple[Array, ...] = (_limited(luma, target),)
    if target.family == "yuv":
        planes += tuple(scaled_chroma(small, target, (width, height), small.colour.siting))
    return small.with_planes(planes, target)


def scaled(frame: Frame, size: tuple[int, int]) -> Frame:
    """Returns the frame at `size` (width, height), bilinear: for what must cost next to nothing.

    The sample aspect ratio follows, as in `Resize`.
    """
    if (frame.width, frame.height) == size:
        return frame
    planes: tuple[Array, ...] = (linear(frame.planes[0], size),)
    if frame.format.family == "yuv":
        planes += tuple(scaled_chroma(frame, frame.format, size, frame.colour.siting))
    return replace(frame.with_planes(planes, frame.format), aspect=aspect_at(frame, size))


def scaled_chroma(
    frame: Frame, target: PixelFormat, size: tuple[int, int], siting: Siting
) -> list[Array]:
    """Returns U and V of a frame for one of `size` in `target`, bilinear, at the places of the
    siting."""
    wanted = target.chroma_size(*size)
    x, y = chroma_axes(frame, target, size, siting)
    still = x.scale == y.scale == 1.0 and max(abs(x.offset), abs(y.offset)) < 1e-3
    if still and wanted == frame.planes[1].shape[::-1]:
        return list(frame.planes[1:3])
    if max(x.scale, y.scale) > 1.5:
        return [linear(plane, wanted) for plane in frame.planes[1:3]]
    move = np.array([[x.scale, 0, x.offset], [0, y.scale, y.offset]], np.float64)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return [
        np.asarray(
            cv2.warpAffine(
                np.ascontiguousarray(plane), move, wanted, flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
        )
        for plane in frame.planes[1:3]
    ]


def _explained(
    small_guide: Array, small: Array, guide: Array, format: PixelFormat
) -> tuple[Floats, Floats]:
    """Returns the factor of the guide, and the rest to be added, both at the guide's size."""
    box = (2 * RADIUS + 1, 2 * RADIUS + 1)
    x, y = small_guide.astype(np.float32), small.astype(np.float32)
    mean_x, mean_y = cv2.blur(x, box), cv2.blur(y, box)
    covariance = cv2.blur(x * y, box) - mean_x * mean_y
    variance = cv2.blur(x * x, box) - mean_x * mean_x
    epsilon = EPSILON * (format.peak / 255) ** 2
    slope = cv2.blur(covariance / (variance + epsilon), box)
    rest = y - slope * x
    size = (guide.shape[1], guide.shape[0])
    large = cv2.resize(slope, size, interpolation=cv2.INTER_LINEAR)
    return cast("Floats", large), cast("Floats", cv2.resize(rest, size, interpolation=cv2.INTER_CUBIC))


def _sum(slope: Floats, guide: Array, rest: Floats, depth: int = cv2.CV_32F) -> Array:
    """Returns slope * guide + rest, rounded where the depth needs it."""
    product = cv2.multiply(slope, guide, dtype=cv2.CV_32F)
    return np.asarray(cv2.add(product, rest, dtype=depth))


def _enlarged(plane: Array, width: int, height: int) -> Array:
    smooth = cv2.resize(np.ascontiguousarray(plane), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(smooth)


def linear(plane: Array, size: tuple[int, int]) -> Array:
    """Returns the plane resized bilinearly, averaged where it shrinks by much, to avoid aliasing."""
    shrinks = plane.shape[1] > 1.5 * size[0] or plane.shape[0] > 1.5 * size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(plane), size, interpolation=how))


def _depth(format: PixelFormat) -> int:
    return cv2.CV_8U if format.bits == 8 else cv2.CV_16U


def _limited(plane: Array, format: PixelFormat) -> Array:
    """Returns the plane clipped to its depth's peak: OpenCV saturates to the type, which is larger for
    9 to 15 bits."""
    if format.bits in (8, 16):
        return plane
    return np.minimum(plane, np.uint16(format.peak), out=plane)
