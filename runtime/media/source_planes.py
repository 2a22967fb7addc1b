"""What a decoder's picture holds: planes, without losing a bit, colours, and whether it is mirrored."""

import re
from dataclasses import dataclass, replace
from functools import cache
from struct import unpack
from typing import Any, Literal, cast

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane

from ..errors import SourceError
from ..frame import Array, Colour, Matrix, PixelFormat, Range

_SUBSAMPLE = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "440": (1, 2), "411": (4, 1)}
_CHROMA = {(2, 2): "420", (2, 4): "422", (4, 4): "444", (4, 2): "440", (1, 4): "411"}
"""The name of a subsampling by the chroma size of a picture of 4x4."""
_DEPTHS = (8, 9, 10, 12, 14, 16)
"""Bit depths of FFmpeg's planar formats."""
_FLOATING = re.compile(r"f(16|32)(le|be)$")

MATRICES: dict[int, Matrix] = {
    1: "bt709",
    4: "bt601",
    5: "bt601",
    6: "bt601",
    9: "bt2020",
    10: "bt2020",
}
"""ITU-T H.273 code points."""
RANGES: dict[int, Range] = {1: "limited", 2: "full"}

Way = Literal["planes", "gbr", "packed"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The way in which frames of one of FFmpeg's pixel formats are read."""

    format: PixelFormat
    full: bool
    """True if the name of the format implies full range."""
    alpha: bool
    name: str
    """FFmpeg's format that they are converted to first: the same values in another order."""
    way: Way
    """`planes`: each plane becomes one of the frame's. `gbr`: planes G, B, R. `packed`: interleaved
    samples."""
    lossy: bool
    """True if samples have more bits than are kept."""


@cache
def layout_of(name: str) -> Layout:
    """Returns how one of FFmpeg's pixel formats is read: as the planar one of its depth, or of the
    next.

    RGB of more than 8 bits is read as 16 bits, scaled by the ratio of the peaks.
    """
    given = av.VideoFormat(name)
    parts = given.components
    floating = _FLOATING.search(name) is not None
    found = max((part.bits for part in parts), default=8)
    if floating or given.is_bayer:
        # A sensor's mosaic states a share of its bits for each colour.
        found = 16 if floating or "16" in name else 8
    bits = next((depth for depth in _DEPTHS if depth >= found), 16)
    alpha = given.has_palette or any(part.is_alpha for part in parts)
    lossy = floating or found > 16
    deep = "" if bits == 8 else f"{bits}le"
    if given.is_rgb or given.has_palette or name.startswith("xyz"):
        format = PixelFormat("rgb", 8 if bits == 8 else 16)
        # The scaling is ours: FFmpeg's own shifts the bits up, and white comes out grey.
        planar = bits not in (8, 16) or (given.is_planar and not lossy) or name.startswith("bgra64")
        if planar or lossy:
            # FFmpeg reads those that stand in the high bits by halves.
            deep = f"{bits}msble" if "msb" in name else deep
            return Layout(format, True, alpha, f"gbr{'a' if alpha else ''}p{deep}", "gbr", lossy)
        packed = ("rgba" if alpha else "rgb24") if bits == 8 else ("rgba64le" if alpha else "rgb48le")
        return Layout(format, True, alpha, packed, "packed", lossy)
    if not any(part.is_chroma for part in parts) and len(parts) - alpha == 1:
        if alpha:
            format = PixelFormat("gray", 8 if bits == 8 else 16)
            return Layout(format, False, True, "ya8" if bits == 8 else "ya16le", "packed", lossy)
        return Layout(PixelFormat("gray", bits), False, False, f"gray{deep}", "planes", lossy)
    # 4:1:0 is the one that we have no planes for; 4:2:0 has more chroma.
    chroma = _CHROMA.get((given.chroma_width(4), given.chroma_height(4)), "420")
    format = PixelFormat("yuv", bits, _SUBSAMPLE[chroma])
    planes = f"yuv{'a' if alpha else ''}{chroma}p{deep}"
    return Layout(format, name.startswith("yuvj"), alpha, planes, "planes", lossy)


def read_planes(
    picture: VideoFrame, *, mirrored: bool = False
) -> tuple[tuple[Array, ...], Array | None, Layout]:
    """Returns (planes, opacity, layout), which are views of the decoder's memory where possible.

    With `mirrored` they are put upside down, which is exact unless chroma is sited at its top left: few
    containers can say it of a picture, and then it only needs to be turned. Raises SourceError for
    pixels that FFmpeg cannot convert.
    """
    planes, alpha, layout = _read(picture)
    if mirrored:
        planes = tuple(np.ascontiguousarray(plane[::-1]) for plane in planes)
        alpha = None if alpha is None else np.ascontiguousarray(alpha[::-1])
    return planes, alpha, layout


def is_mirrored(image: VideoFrame) -> bool:
    """Returns whether a player must mirror the picture: upside down, before it turns it by its
    `rotation`.

    That is what any display matrix with a reflection comes to.
    """
    held: Any = image.side_data  # its stub knows no lookup by type
    data = held.get(Type.DISPLAYMATRIX)
    if data is None:
        return False
    a, b, _, c, d, *_ = unpack("=9i", bytes(data)[:36])
    return a * d - b * c < 0


def colour_of(image: VideoFrame, layout: Layout, usual: Colour) -> Colour:
    """Returns the colour properties of a frame; `usual` fills in what it does not state."""
    if layout.format.family == "rgb":
        # Only used when it is encoded as YUV later on.
        return replace(usual, primaries=int(image.color_primaries), range="limited")
    range = "full" if layout.full else RANGES.get(int(image.color_range), usual.range)
    return Colour(
        matrix=MATRICES.get(int(image.colorspace), usual.matrix),
        range=range,
        primaries=int(image.color_primaries),
        transfer=int(image.color_trc),
        siting=usual.siting,
    )


def _read(picture: VideoFrame) -> tuple[tuple[Array, ...], Array | None, Layout]:
    layout = layout_of(picture.format.name)
    picture = reformat(picture, layout.name)
    if layout.way == "gbr":
        return *_from_gbr(picture, layout), layout
    dtype = layout.format.dtype
    if layout.way == "packed":
        count = (1 if layout.format.family == "gray" else 3) + layout.alpha
        pixels = _samples(picture.planes[0], dtype, count)
        if not layout.alpha:
            return (pixels,), None, layout
        pixels = np.ascontiguousarray(pixels)
        alpha: Array = cv2.extractChannel(pixels, count - 1)
        if count == 2:
            return (cv2.extractChannel(pixels, 0),), alpha, layout
        return (cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB),), alpha, layout
    planes = tuple(_samples(plane, dtype) for plane in picture.planes)
    if layout.alpha:
        return planes[:-1], planes[-1], layout
    return planes, None, layout


def reformat(picture: VideoFrame, name: str) -> VideoFrame:
    """Returns the picture in another of FFmpeg's formats. Raises SourceError where it cannot be
    converted."""
    if picture.format.name.replace("yuvj", "yuv") == name:
        return picture
    try:
        return picture.reformat(format=name)
    except (FFmpegError, ValueError) as error:
        raise SourceError(
            f"pixels of the format {picture.format.name} cannot be read; convert the video to "
            f"{name} with FFmpeg first"
        ) from error


def _from_gbr(picture: VideoFrame, layout: Layout) -> tuple[tuple[Array, ...], Array | None]:
    bits = picture.format.components[0].bits
    green, blue, red, *rest = (_samples(plane, layout.format.dtype) for plane in picture.planes)
    pixels: Array = cv2.merge([np.ascontiguousarray(plane) for plane in (red, green, blue)])
    alpha = rest[0] if rest else None
    if bits not in (8, 16):
        shift = 16 - bits if "msb" in layout.name else 0
        pixels = _scaled(pixels, bits, shift)
        alpha = _scaled(alpha, bits, shift) if alpha is not None else None
    return (pixels,), alpha


def _scaled(samples: Array, bits: int, shift: int) -> Array:
    """Returns samples scaled to 16 bits by the ratio of the peaks: white stays white. They stand
    `shift` bits too high."""
    peak = (1 << bits) - 1
    # Values above the peak are broken, and must not end the run.
    values = (np.arange(1 << 16) >> shift).clip(0, peak)
    table = ((values * 65535 + peak // 2) // peak).astype(np.uint16)
    return np.take(table, samples.astype(np.intp))


def _samples(plane: VideoPlane, dtype: "np.dtype[np.generic]", count: int = 1) -> Array:
    """(H, W), or (H, W, count) of samples that lie side by side."""
    samples = np.frombuffer(cast("memoryview", plane), dtype)
    rows = samples.reshape(plane.height, plane.line_size // dtype.itemsize)
    rows = cast("Array", rows[:, : plane.width * count])
    return rows if count == 1 else rows.reshape(plane.height, plane.width, count)
