"""FFmpeg's pixel formats: the table of those that frames are put into, and how all are read.

Frames have planes of their own (`frame.PixelFormat`); they are copied into an encoder's picture of one
of the formats in the table, and a decoder's picture of any format becomes planes without losing a bit.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
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

from ..colour import MATRICES, over, to_format, to_yuv
from ..errors import SinkError, SourceError
from ..frame import Array, Colour, Frame, PixelFormat, Range

Packing = Literal["planar", "packed", "paired"]

SUBSAMPLING: Mapping[str, tuple[int, int]] = {
    "420": (2, 2), "422": (2, 1), "444": (1, 1), "440": (1, 2), "411": (4, 1),
}  # fmt: skip
"""Luma samples per chroma sample, horizontally and vertically, by the digits of FFmpeg's names."""
DEPTHS = (8, 9, 10, 12, 14, 16)
"""Bit depths of FFmpeg's planar formats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A pixel format of FFmpeg that frames can be converted to."""

    name: str
    """FFmpeg's name of the format."""
    format: PixelFormat
    alpha: bool = False
    packing: Packing = "planar"
    """`planar`: a plane each. `packed`: all samples of a pixel in a row. `paired`: a plane of luma,
    then one with U and V interleaved."""
    order: str = ""
    """The order of packed samples: `r`, `g`, `b`, `a`, or `0` for an unused one."""
    shift: int = 0
    """Unused low bits, where samples lie in the high bits of their word."""

    @property
    def rgb(self) -> bool:
        """True if the samples are red, green and blue."""
        return self.format.family == "rgb"


def ending(bits: int) -> str:
    """Returns how FFmpeg's names of planar formats end for a depth."""
    return "" if bits == 8 else f"{bits}le"


def _planar() -> Iterator[Layout]:
    for bits in DEPTHS:
        for alpha in (False, True):
            a = "a" if alpha else ""
            for chroma, subsample in SUBSAMPLING.items():
                format = PixelFormat("yuv", bits, subsample)
                yield Layout(name=f"yuv{a}{chroma}p{ending(bits)}", format=format, alpha=alpha)
            yield Layout(name=f"gbr{a}p{ending(bits)}", format=PixelFormat("rgb", bits), alpha=alpha)
        yield Layout(name=f"gray{ending(bits)}", format=PixelFormat("gray", bits))


def _packed(name: str, order: str, bits: int = 8, family: Literal["rgb", "gray"] = "rgb") -> Layout:
    format = PixelFormat(family, bits)
    return Layout(name=name, format=format, alpha="a" in order, packing="packed", order=order)


def _paired(name: str, chroma: str, bits: int = 8) -> Layout:
    format = PixelFormat("yuv", bits, SUBSAMPLING[chroma])
    return Layout(name=name, format=format, packing="paired", shift=16 - bits if bits > 8 else 0)


LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        *_planar(),
        Layout(name="yuv444p10msble", format=PixelFormat("yuv", 10), shift=6),
        _packed("ya8", "ya", family="gray"),
        _packed("ya16le", "ya", 16, family="gray"),
        *(_packed(name, name) for name in ("rgba", "bgra", "argb", "abgr", "rgb0", "bgr0")),
        _packed("rgb24", "rgb"),
        _packed("bgr24", "bgr"),
        _packed("rgb48le", "rgb", 16),
        _packed("rgba64le", "rgba", 16),
        _paired("nv12", "420"),
        _paired("nv16", "422"),
        _paired("p010le", "420", 10),
        _paired("p210le", "422", 10),
    )
}
"""The pixel formats of FFmpeg that frames can be put into, by its names."""

PALETTE = Layout(name="pal8", format=PixelFormat("rgb"), packing="packed", order="rgb")
"""The pixel format of GIF; frames are converted to RGB for it."""

_Y4M_STEMS = ("yuv420p", "yuv422p", "yuv444p")
Y4M = (
    *(f"{stem}{ending(bits)}" for stem in _Y4M_STEMS for bits in (8, 10, 12, 14, 16)),
    *(f"gray{ending(bits)}" for bits in (8, 10, 12, 16)),
)
"""The formats that YUV4MPEG2 can hold."""
_ANY_STEMS = (*_Y4M_STEMS, "yuva420p", "yuva422p", "yuva444p", "gray", "gbrp")
ANY = (
    *(f"{stem}{ending(bits)}" for stem in _ANY_STEMS for bits in (8, 10, 12, 16)),
    "rgb24", "bgr24", "rgba", "bgra", "rgb48le",
)  # fmt: skip
"""The formats that are assumed for encoders that list none."""
BARE = (*Y4M, *(name for name in ANY if name not in Y4M))
"""The formats of bare planes."""


def layouts_of(names: Iterable[str]) -> tuple[Layout, ...]:
    """Returns the layouts of those formats that frames can be put into, in their order."""
    return tuple(LAYOUTS[name] for name in names if name in LAYOUTS)


@cache
def layout_of(name: str) -> Layout:
    """Returns the layout of a name, GIF's included. Raises SinkError if frames cannot be put into
    it."""
    layout = PALETTE if name == PALETTE.name else LAYOUTS.get(name)
    if layout is None:
        raise SinkError(f"frames cannot be put into pixel format {name!r}")
    return layout


def nearest_layout(
    layouts: tuple[Layout, ...], format: PixelFormat, *, alpha: bool, rgb: bool
) -> Layout:
    """Returns the layout that keeps most of frames of a format.

    `alpha`: frames have an opacity that shall be kept if it can be. `rgb`: frames in RGB stay so where
    they can; else they become 4:2:0, which every player decodes. Raises SinkError where nothing fits.
    """
    family, subsample = format.family, format.subsample
    if family == "rgb" and not (rgb and any(layout.rgb for layout in layouts)):
        family, subsample = "yuv", (2, 2)
    if not layouts:
        raise SinkError("it takes no pixel format that frames can be put into: use another --codec")

    def losses(layout: Layout) -> tuple[int, ...]:
        given = layout.format
        other = (given.family == "rgb") != (family == "rgb")
        # Grey fits into any luma, and nothing else into grey.
        colourless = given.family == "gray" and family != "gray"
        coarser = sum(max(g - w, 0) for g, w in zip(given.subsample, subsample, strict=True))
        finer = sum(max(w - g, 0) for g, w in zip(given.subsample, subsample, strict=True))
        if family == "gray":
            coarser, finer = 0, 0 if given.family == "gray" else 4 - sum(given.subsample)
        return (
            other,
            colourless,
            alpha and not layout.alpha,
            max(format.bits - given.bits, 0),
            coarser,
            family == "gray" and given.family != "gray",
            layout.alpha and not alpha,
            max(given.bits - format.bits, 0),
            finer,
            layout.packing == "paired" or layout.shift > 0,
            layout.name == "rgb48le",
        )

    return min(layouts, key=losses)


def picture_of(frame: Frame, layout: Layout, background: tuple[int, int, int]) -> Frame:
    """Returns the frame in the layout's format, laid over `background` where that has no opacity.

    Luma of opaque frames is not touched where the depth stays or grows.
    """
    if not layout.alpha:
        frame = over(frame, background)
    deep = in_depth(frame, layout.format.bits)
    if layout.rgb:
        return to_format(deep, layout.format, deep.colour)
    return to_yuv(deep, layout.format)


def in_depth(frame: Frame, bits: int) -> Frame:
    """Returns a frame in YUV or grey with samples of another depth; RGB is left to the conversion.

    Limited range is scaled by a power of two (ITU-R BT.709-6, 4.6 and BT.2100: the levels of n bits are
    those of 8 times 2^(n-8)), full range by the ratio of the peaks; rounded.
    """
    found = frame.format
    if found.family == "rgb" or found.bits == bits:
        return frame
    format = replace(found, bits=bits)
    limited = frame.colour.range == "limited"
    centre = 128 << (found.bits - 8)
    planes = tuple(
        _scaled(plane, found, format, power=limited, centre=centre if index else 0)
        for index, plane in enumerate(frame.planes)
    )
    alpha = None if frame.alpha is None else _scaled(frame.alpha, found, format, power=False)
    return replace(frame.with_planes(planes, format), alpha=alpha)


def _scaled(
    plane: Array, before: PixelFormat, after: PixelFormat, *, power: bool, centre: int = 0
) -> Array:
    """Returns samples in another depth; `centre` is the value that stays where it is, in the depth
    before."""
    up = after.bits - before.bits
    if power and up > 0:
        return (plane.astype(np.uint16) << up).astype(after.dtype)
    if power:
        half = 1 << (-up - 1)
        rounded = (plane.astype(np.uint32) + half) >> -up
        return np.minimum(rounded, after.peak).astype(after.dtype)
    ratio, middle = after.peak / before.peak, centre * 2.0**up
    scaled = np.rint((plane.astype(np.float32) - centre) * np.float32(ratio) + middle)
    return np.clip(scaled, 0, after.peak).astype(after.dtype)


def fill(picture: VideoFrame, coded: Frame, layout: Layout) -> None:
    """Copies a frame that is in the layout's format into the encoder's picture of that layout.

    What the picture has beyond the frame's edges repeats them. A frame without opacity is opaque.
    """
    if layout.packing == "packed":
        plane, count = picture.planes[0], len(layout.order)
        rows = np.frombuffer(cast("memoryview", plane), layout.format.dtype).reshape(plane.height, -1)
        pixels = rows[: coded.height, : coded.width * count]
        _pack(pixels.reshape(coded.height, coded.width, count), coded, layout)
        return
    for plane, pixels in zip(picture.planes, samples_of(coded, layout), strict=True):
        _fill_plane(plane, np.left_shift(pixels, layout.shift) if layout.shift else pixels)


def samples_of(coded: Frame, layout: Layout) -> tuple[Array, ...]:
    """Returns the planes of a frame that is in the layout's format, in the layout's order."""
    planes = coded.planes
    if layout.packing == "packed":
        packed = np.empty((coded.height, coded.width, len(layout.order)), layout.format.dtype)
        _pack(packed, coded, layout)
        return (packed,)
    if layout.packing == "paired":
        planes = (planes[0], np.stack(planes[1:], axis=-1))
    elif layout.rgb:
        planes = tuple(planes[0][..., channel] for channel in (1, 2, 0))
    return (*planes, _opacity(coded)) if layout.alpha else planes


def _pack(target: Array, coded: Frame, layout: Layout) -> None:
    """Writes all samples of each pixel in a row; `target` is (H, W, samples of a pixel)."""
    pixels = coded.planes[0]
    if layout.order == "rgb":
        target[:] = pixels
        return
    for place, name in enumerate(layout.order):
        if name == "y":
            target[..., place] = pixels
        elif name == "a":
            target[..., place] = _opacity(coded)
        else:
            target[..., place] = 0 if name == "0" else pixels[..., "rgb".index(name)]


def _opacity(coded: Frame) -> Array:
    if coded.alpha is not None:
        return coded.alpha
    return np.full((coded.height, coded.width), coded.format.peak, coded.format.dtype)


def _fill_plane(plane: Any, pixels: Array) -> None:
    rows = np.frombuffer(plane, pixels.dtype).reshape(plane.height, -1)
    height, width = pixels.shape[:2]
    count = pixels.shape[2] if pixels.ndim == 3 else 1
    cells = rows[:, : plane.width * count].reshape(plane.height, plane.width, *pixels.shape[2:])
    cells[:height, :width] = pixels
    if plane.width > width:
        cells[:height, width:] = pixels[:, -1:]
    if plane.height > height:
        cells[height:] = cells[height - 1]


_CHROMA = {(2, 2): "420", (2, 4): "422", (4, 4): "444", (4, 2): "440", (1, 4): "411"}
"""The name of a subsampling by the chroma size of a picture of 4x4."""
_FLOATING = re.compile(r"f(16|32)(le|be)$")

RANGES: dict[int, Range] = {1: "limited", 2: "full"}
"""ITU-T H.273 code points."""

Way = Literal["planes", "gbr", "packed"]


@dataclass(frozen=True, slots=True)
class Reading:
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
def reading_of(name: str) -> Reading:
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
    bits = next((depth for depth in DEPTHS if depth >= found), 16)
    alpha = given.has_palette or any(part.is_alpha for part in parts)
    lossy = floating or found > 16
    if given.is_rgb or given.has_palette or name.startswith("xyz"):
        format = PixelFormat("rgb", 8 if bits == 8 else 16)
        # The scaling is ours: FFmpeg's own shifts the bits up, and white comes out grey.
        planar = bits not in (8, 16) or (given.is_planar and not lossy) or name.startswith("bgra64")
        if planar or lossy:
            # FFmpeg reads those that stand in the high bits by halves.
            end = f"{bits}msble" if "msb" in name else ending(bits)
            return Reading(format, True, alpha, f"gbr{'a' if alpha else ''}p{end}", "gbr", lossy)
        packed = ("rgba" if alpha else "rgb24") if bits == 8 else ("rgba64le" if alpha else "rgb48le")
        return Reading(format, True, alpha, packed, "packed", lossy)
    if not any(part.is_chroma for part in parts) and len(parts) - alpha == 1:
        if alpha:
            format = PixelFormat("gray", 8 if bits == 8 else 16)
            return Reading(format, False, True, "ya8" if bits == 8 else "ya16le", "packed", lossy)
        return Reading(PixelFormat("gray", bits), False, False, f"gray{ending(bits)}", "planes", lossy)
    # 4:1:0 is the one that we have no planes for; 4:2:0 has more chroma.
    chroma = _CHROMA.get((given.chroma_width(4), given.chroma_height(4)), "420")
    format = PixelFormat("yuv", bits, SUBSAMPLING[chroma])
    planes = f"yuv{'a' if alpha else ''}{chroma}p{ending(bits)}"
    return Reading(format, name.startswith("yuvj"), alpha, planes, "planes", lossy)


def read_planes(
    picture: VideoFrame, *, mirrored: bool = False
) -> tuple[tuple[Array, ...], Array | None, Reading]:
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


def side_bytes(frame: VideoFrame, kind: Type) -> bytes:
    """Returns a frame's side data of a kind, empty where it has none."""
    sides: Any = frame.side_data  # its stub knows no lookup by type
    side = sides.get(kind)
    return bytes(side) if side is not None else b""


def is_mirrored(image: VideoFrame) -> bool:
    """Returns whether a player must mirror the picture: upside down, before it turns it by its
    `rotation`.

    That is what any display matrix with a reflection comes to.
    """
    data = side_bytes(image, Type.DISPLAYMATRIX)
    if not data:
        return False
    a, b, _, c, d, *_ = unpack("=9i", data[:36])
    return a * d - b * c < 0


def colour_of(image: VideoFrame, layout: Reading, usual: Colour) -> Colour:
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


def _read(picture: VideoFrame) -> tuple[tuple[Array, ...], Array | None, Reading]:
    layout = reading_of(picture.format.name)
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


def _from_gbr(picture: VideoFrame, layout: Reading) -> tuple[tuple[Array, ...], Array | None]:
    bits = picture.format.components[0].bits
    green, blue, red, *rest = (_samples(plane, layout.format.dtype) for plane in picture.planes)
    pixels: Array = cv2.merge([np.ascontiguousarray(plane) for plane in (red, green, blue)])
    alpha = rest[0] if rest else None
    if bits not in (8, 16):
        shift = 16 - bits if "msb" in layout.name else 0
        pixels = _to_16_bits(pixels, bits, shift)
        alpha = _to_16_bits(alpha, bits, shift) if alpha is not None else None
    return (pixels,), alpha


def _to_16_bits(samples: Array, bits: int, shift: int) -> Array:
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
