"""Conversions between YUV and RGB, and resampling of chroma; no other module does either.

Matrices are derived from the standards' luma weights (BT.601, BT.709, BT.2020 non-constant), with
limited or full range at any bit depth. Chroma is moved with its siting: the sample position is part of
the arithmetic, so upscaling does not shift colour against luma.
"""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt

from .buffers import Take
from .frame import RGB, Array, Colour, Frame, Matrix, PixelFormat, Siting

# Kr, Kb of ITU-R BT.601-7, BT.709-6 and BT.2020-2.
LUMA_WEIGHTS: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}

MATRICES: dict[int, Matrix] = {
    1: "bt709",
    4: "bt601",
    5: "bt601",
    6: "bt601",
    9: "bt2020",
    10: "bt2020",
}
"""Matrices by their ITU-T H.273 code points. 4 is FCC's, unlike BT.601 in the third decimal only."""


def guess_matrix(height: int) -> Matrix:
    """Returns the matrix that players assume where a file states none: BT.601 below 720 lines, else
    BT.709."""
    return "bt709" if height >= 720 else "bt601"


@lru_cache(maxsize=32)
def yuv_from_rgb_matrix(colour: Colour, bits: int) -> npt.NDArray[np.float64]:
    """Returns the (3, 4) affine map from full-range R, G, B samples to Y, U, V samples of `bits`
    bits."""
    red, blue = LUMA_WEIGHTS[colour.matrix]
    green = 1.0 - red - blue
    luma = np.array([red, green, blue])
    rows = np.stack([
        luma,
        (np.array([0.0, 0.0, 1.0]) - luma) / (2.0 * (1.0 - blue)),
        (np.array([1.0, 0.0, 0.0]) - luma) / (2.0 * (1.0 - red)),
    ])  # fmt: skip
    peak = (1 << bits) - 1
    unit = 1 << (bits - 8)
    if colour.range == "limited":
        scale = np.array([219.0, 224.0, 224.0]) * unit / peak
        offset = np.array([16.0, 128.0, 128.0]) * unit
    else:
        scale = np.ones(3)
        offset = np.array([0.0, 128.0, 128.0]) * unit
    scaled: npt.NDArray[np.float64] = np.column_stack([rows * scale[:, None], offset])
    return scaled


@lru_cache(maxsize=32)
def rgb_from_yuv_matrix(colour: Colour, bits: int) -> npt.NDArray[np.float64]:
    """Returns the (3, 4) affine map from Y, U, V samples to R, G, B samples (full range)."""
    forward = yuv_from_rgb_matrix(colour, bits)
    inverse = np.linalg.inv(forward[:, :3])
    return np.column_stack([inverse, -inverse @ forward[:, 3]]).astype(np.float64)


def to_rgb(frame: Frame, take: Take = np.empty) -> Frame:
    """Returns the frame as packed full-range RGB of the same depth; an RGB frame is returned as it is.

    Values outside the RGB cube are clipped. `take` gives memory.
    """
    if frame.format.family == "rgb":
        return frame
    rgb = PixelFormat("rgb", frame.format.bits)
    if frame.format.family == "gray":
        luma = frame.planes[0]
        if frame.colour.range == "limited":
            row = rgb_from_yuv_matrix(frame.colour, rgb.bits)[0]
            offset = row[1] * (128 << (rgb.bits - 8)) + row[2] * (128 << (rgb.bits - 8)) + row[3]
            matrix = np.array([[row[0], offset]])
            target = take(luma.shape, luma.dtype)
            luma = _clip(cv2.transform(np.ascontiguousarray(luma), matrix, target), rgb)
        return frame.with_planes((cv2.merge([luma] * 3, take((*luma.shape, 3), luma.dtype)),), rgb)
    size = (frame.width, frame.height)
    full = PixelFormat("yuv", frame.format.bits)
    planes = resample_chroma(frame, full, size, "center", take)
    shape, dtype = (frame.height, frame.width, 3), frame.planes[0].dtype
    packed = cv2.merge([np.ascontiguousarray(frame.planes[0]), *planes], take(shape, dtype))
    matrix = rgb_from_yuv_matrix(frame.colour, rgb.bits)
    pixels = cv2.transform(packed, matrix, take(shape, dtype))
    return frame.with_planes((_clip(pixels, rgb),), rgb)


def to_rgb8(frame: Frame) -> npt.NDArray[np.uint8]:
    """Returns (H, W, 3) uint8 RGB of the coded frame, neither turned nor stretched: for 8-bit
    displays."""
    rgb = to_rgb(frame)
    return cast("npt.NDArray[np.uint8]", _with_depth(rgb.planes[0], rgb.format.bits, 8))


def to_yuv(frame: Frame, format: PixelFormat, colour: Colour | None = None) -> Frame:
    """Returns the frame in `format` (yuv or gray), with `colour` or its own.

    YUV input keeps its luma untouched while depth, matrix and range stay; only chroma is resampled.
    """
    converted = _to_yuv(frame, format, colour or frame.colour)
    if frame.alpha is None or format.bits == frame.format.bits:
        return converted
    return replace(converted, alpha=_with_depth(frame.alpha, frame.format.bits, format.bits))


def to_format(frame: Frame, format: PixelFormat, colour: Colour) -> Frame:
    """Returns the frame in any format, with that matrix, range and siting; its light is not changed.

    Primaries and transfer of `colour` are noted in the frame, whatever its own were.
    """
    if format.family != "rgb":
        return to_yuv(frame, format, colour)
    rgb, bits = to_rgb(frame), frame.format.bits
    pixels = _with_depth(rgb.planes[0], bits, format.bits)
    alpha = None if frame.alpha is None else _with_depth(frame.alpha, bits, format.bits)
    return replace(rgb, planes=(pixels,), format=format, colour=colour, alpha=alpha)


def over(frame: Frame, background: tuple[int, int, int]) -> Frame:
    """Returns the frame laid over a colour, 8-bit red, green and blue, by its opacity; the result is
    opaque.

    The opacity is straight: samples are not multiplied by it, as PNG, ProRes 4444, GIF and VP9 have it.
    """
    if frame.alpha is None:
        return frame
    dot = np.full((1, 1, 3), background, np.uint8)
    colour = replace(
        frame, planes=(dot,), format=RGB, alpha=None, depth=None, motion=None, reactive=None
    )
    below = to_format(colour, replace(frame.format, subsample=(1, 1)), frame.colour)
    opacity = frame.alpha.astype(np.float32) / frame.format.peak
    planes: list[Array] = []
    for plane, under in zip(frame.planes, below.planes, strict=True):
        height, width = plane.shape[:2]
        # What a chroma sample shows is as opaque as its pixels are on the average.
        part = opacity
        if (height, width) != opacity.shape:
            part = cv2.resize(opacity, (width, height), interpolation=cv2.INTER_AREA)
        part = part if plane.ndim == 2 else part[..., None]
        base = under.reshape(-1).astype(np.float32) if plane.ndim == 3 else np.float32(under.flat[0])
        planes.append(np.rint(base + (plane.astype(np.float32) - base) * part).astype(plane.dtype))
    return replace(frame, planes=tuple(planes), alpha=None)


def _to_yuv(frame: Frame, format: PixelFormat, colour: Colour) -> Frame:
    family = frame.format.family
    if family == "gray" and (frame.colour.range, frame.format.bits) == (colour.range, format.bits):
        return _from_luma(frame, format, colour)
    same_numbers = (
        frame.colour.matrix == colour.matrix
        and frame.colour.range == colour.range
        and frame.format.bits == format.bits
    )
    if family == "yuv" and same_numbers:
        if format.family == "gray":
            return frame.with_planes(frame.planes[:1], format, colour)
        chroma = resample_chroma(frame, format, (frame.width, frame.height), colour.siting)
        return frame.with_planes((frame.planes[0], *chroma), format, colour)
    rgb = to_rgb(frame)
    packed = _with_depth(rgb.planes[0], rgb.format.bits, format.bits)
    matrix = yuv_from_rgb_matrix(colour, format.bits)
    if format.family == "gray":
        luma = cv2.transform(packed, matrix[:1])
        return frame.with_planes((_clip(luma, format),), format, colour)
    planes = tuple(cv2.split(_clip(cv2.transform(packed, matrix), format)))
    whole = replace(format, subsample=(1, 1))
    full = frame.with_planes(planes, whole, replace(colour, siting="center"))
    chroma = resample_chroma(full, format, (frame.width, frame.height), colour.siting)
    return full.with_planes((planes[0], *chroma), format, colour)


def _from_luma(frame: Frame, format: PixelFormat, colour: Colour) -> Frame:
    if format.family == "gray":
        return frame
    width, height = format.chroma_size(frame.width, frame.height)
    neutral = np.full((height, width), 1 << (format.bits - 1), format.dtype)
    return frame.with_planes((frame.planes[0], neutral, neutral.copy()), format, colour)


def _with_depth(pixels: Array, bits: int, wanted: int) -> Array:
    """Returns full-range samples in another depth: scaled by the ratio of the peaks, rounded."""
    if bits == wanted:
        return pixels
    ratio = ((1 << wanted) - 1) / ((1 << bits) - 1)
    scaled = np.rint(pixels.astype(np.float32) * np.float32(ratio))
    return scaled.astype(np.uint8 if wanted == 8 else np.uint16)


def _clip(pixels: Array, format: PixelFormat) -> Array:
    """Returns the pixels clipped to the depth's peak, in place: OpenCV saturates to the type, which is
    larger for 9..15 bits."""
    if format.bits in (8, 16):
        return pixels
    return np.minimum(pixels, np.uint16(format.peak), out=pixels)


class Axis(NamedTuple):
    """The mapping of one axis in a resampling: source position = scale * destination + offset, in
    samples."""

    scale: float
    offset: float


def resample_chroma(
    frame: Frame,
    format: PixelFormat,
    size: tuple[int, int],
    siting: Siting,
    take: Take = np.empty,
) -> tuple[Array, Array]:
    """Returns U and V of a YUV frame, resampled for a frame of `size` (width, height), format and
    siting.

    Returned untouched when nothing changes. Catmull-Rom where the plane grows or shifts, area-averaged
    first where it shrinks. `take` gives memory.
    """
    chroma_size = format.chroma_size(*size)
    axes = chroma_axes(frame, format, size, siting)
    u, v = (_resampled(plane, chroma_size, axes, frame.format, take) for plane in frame.planes[1:3])
    return u, v


def chroma_axes(frame: Frame, format: PixelFormat, size: tuple[int, int], siting: Siting) -> list[Axis]:
    """Returns where the chroma samples of a frame of `size` (width, height), format and siting lie
    among those of `frame`, across and down."""
    lengths = frame.width, frame.height
    return [
        _chroma_axis(
            lengths[i] / size[i],
            (frame.format.subsample[i], _offset(frame.format.subsample[i], frame.colour.siting, i)),
            (format.subsample[i], _offset(format.subsample[i], siting, i)),
        )
        for i in range(2)
    ]


def resize_plane(
    plane: Array, size: tuple[int, int], format: PixelFormat, take: Take = np.empty
) -> Array:
    """Returns luma, opacity or packed RGB of that format at `size` (width, height), edges aligned."""
    ratios = plane.shape[1] / size[0], plane.shape[0] / size[1]
    return _resampled(plane, size, [Axis(ratio, ratio / 2 - 0.5) for ratio in ratios], format, take)


def turn_chroma(frame: Frame, quarters: int) -> tuple[Array, Array]:
    """Returns U and V of a YUV frame that is turned by `quarters` times 90 degrees, counter-clockwise.

    They are resampled to the places of the frame's format and siting in the turned picture: samples
    sited at the left are turned to below, the right or above, and move back by a part of a sample.
    """
    quarters %= 4
    size, steps, siting = (frame.width, frame.height), frame.format.subsample, frame.colour.siting
    count = frame.format.chroma_size(*size)
    offsets = [_offset(step, siting, i) for i, step in enumerate(steps)]
    found: list[tuple[int, float]] = []
    for i, flipping in enumerate(((1, 2), (2, 3))):
        last = offsets[i] + (count[i] - 1) * steps[i]
        found.append((steps[i], size[i] - 1 - last if quarters in flipping else offsets[i]))
    if quarters % 2:
        found, size = found[::-1], size[::-1]
    axes = [_chroma_axis(1.0, found[i], (steps[i], offsets[i])) for i in range(2)]
    wanted = frame.format.chroma_size(*size)
    u, v = (
        _resampled(turned, wanted, axes, frame.format, np.empty)
        for turned in (np.ascontiguousarray(np.rot90(p, quarters)) for p in frame.planes[1:3])
    )
    return u, v


def _resampled(
    plane: Array, size: tuple[int, int], axes: list[Axis], format: PixelFormat, take: Take
) -> Array:
    """Returns the plane itself where nothing moves, else a new one within the depth of the format."""
    result = resample(plane, size, axes[0], axes[1], take)
    return result if result is plane else _clip(result, format)


def resample(plane: Array, size: tuple[int, int], x: Axis, y: Axis, take: Take = np.empty) -> Array:
    """Returns a plane, or packed pixels, at `size` (width, height), sampled at positions `x` and
    `y`."""
    axes = [x, y]
    found = (plane.shape[1], plane.shape[0])
    unmoved = all(abs(a.scale - 1) < 1e-9 and abs(a.offset) < 1e-9 for a in axes)
    if unmoved and size == found:
        return plane
    shrink = tuple(size[i] if axes[i].scale > 1.25 else found[i] for i in range(2))
    if shrink != found:
        # Averaging maps destination j to source (j + 1/2) * ratio - 1/2; the rest is a small shift.
        target = take((shrink[1], shrink[0], *plane.shape[2:]), plane.dtype)
        plane = cv2.resize(np.ascontiguousarray(plane), shrink, target, interpolation=cv2.INTER_AREA)
        for i in range(2):
            ratio = found[i] / shrink[i]
            scale = axes[i].scale / ratio
            axes[i] = Axis(scale, (axes[i].offset + 0.5) / ratio - 0.5)
    placed = all(abs(a.scale - 1) < 1e-9 and abs(a.offset) < 1e-3 for a in axes)
    if placed and (plane.shape[1], plane.shape[0]) == size:
        return plane
    factors = [round(1 / axis.scale) for axis in axes]
    whole = all(abs(axis.scale * factor - 1) < 1e-9 for axis, factor in zip(axes, factors, strict=True))
    fits = all(size[i] <= plane.shape[1 - i] * factors[i] for i in range(2))
    if whole and fits:
        return _polyphase(np.ascontiguousarray(plane), size, axes, factors, take)
    turned = _interpolate_rows(plane, size[1], axes[1]).swapaxes(0, 1)
    smooth = _interpolate_rows(np.ascontiguousarray(turned), size[0], axes[0]).swapaxes(0, 1)
    peak = 255.0 if plane.dtype == np.uint8 else 65535.0
    return np.ascontiguousarray(np.rint(np.clip(smooth, 0.0, peak)).astype(plane.dtype))


def catmull_rom(fraction: float) -> npt.NDArray[np.float64]:
    """Returns the weights of the samples at -1, 0, 1, 2 for a position `fraction` (0..1) after sample
    0.

    The cubic of Keys (1981) with a = -0.5, the one that reproduces a linear ramp exactly. OpenCV's own
    cubic has a = -0.75, which turns a ramp into steps of 5% (measured), seen as banding in chroma.
    """
    f = fraction
    return 0.5 * np.array([
        -f * (1 - f) ** 2,
        2 - 5 * f**2 + 3 * f**3,
        f * (1 + 4 * f - 3 * f**2),
        -(f**2) * (1 - f),
    ])  # fmt: skip


def _polyphase(
    plane: Array, size: tuple[int, int], axes: list[Axis], factors: list[int], take: Take
) -> Array:
    """Returns the plane enlarged by whole factors: each output phase is one small filter over the
    source."""
    result = take((size[1], size[0], *plane.shape[2:]), plane.dtype)
    filtered = take(plane.shape, plane.dtype)
    kernels = [
        [_kernel(phase * axis.scale + axis.offset) for phase in range(factor)]
        for axis, factor in zip(axes, factors, strict=True)
    ]
    for row, down in enumerate(kernels[1]):
        for column, across in enumerate(kernels[0]):
            part = result[row :: factors[1], column :: factors[0]]
            cv2.sepFilter2D(plane, -1, across, down, filtered, borderType=cv2.BORDER_REPLICATE)
            part[:] = filtered[: part.shape[0], : part.shape[1]]
    return result


def _kernel(position: float) -> npt.NDArray[np.float64]:
    """Returns a centred filter whose output at a sample is the value `position` samples after it."""
    base = int(np.floor(position))
    reach = max(abs(base - 1), abs(base + 2))
    kernel = np.zeros(2 * reach + 1)
    kernel[reach + base - 1 : reach + base + 3] = catmull_rom(position - base)
    return kernel


def _interpolate_rows(plane: Array, count: int, axis: Axis) -> npt.NDArray[np.float32]:
    """Returns `count` rows at the axis's positions, interpolated in float32; rows beyond the edge
    repeat it."""
    position = np.arange(count) * axis.scale + axis.offset
    base = np.floor(position).astype(int)
    weights = np.stack([catmull_rom(f) for f in position - base], 1).astype(np.float32)
    total = np.zeros((count, *plane.shape[1:]), np.float32)
    column = (count, *[1] * (plane.ndim - 1))
    for tap in range(4):
        rows = np.clip(base + tap - 1, 0, plane.shape[0] - 1)
        total += weights[tap].reshape(column) * plane[rows]
    return total


def _offset(subsample: int, siting: Siting, axis: int) -> float:
    """Returns the position of the first chroma sample in luma samples."""
    if subsample == 1 or siting == "topleft" or (siting == "left" and axis == 0):
        return 0.0
    return (subsample - 1) / 2


def _chroma_axis(ratio: float, source: tuple[int, float], destination: tuple[int, float]) -> Axis:
    """Returns the mapping of the destination's chroma samples to the source's.

    `ratio` is source luma over destination luma; pairs are (subsampling, offset of sample 0).
    """
    scale = destination[0] * ratio / source[0]
    luma = (destination[1] + 0.5) * ratio - 0.5
    return Axis(scale, (luma - source[1]) / source[0])
