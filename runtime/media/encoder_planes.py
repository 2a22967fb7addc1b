"""Memory layouts of an encoder's pictures, and the copy of frames into them."""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import av
import numpy as np
from av.video.frame import VideoFrame

from ..colour import over, to_format, to_yuv
from ..errors import SinkError
from ..frame import Array, Frame, PixelFormat

Packing = Literal["planar", "packed", "paired"]

_SUBSAMPLE = {"420": (2, 2), "422": (2, 1), "444": (1, 1), "440": (1, 2), "411": (4, 1)}
_PLANAR = re.compile(r"yuv(?P<alpha>a?)(?P<chroma>420|422|444|440|411)p(?:(?P<bits>\d+)le)?")
_GRAY = re.compile(r"(?P<alpha>gray|ya)(?P<bits>8|\d+le)?")
_GBR = re.compile(r"gbr(?P<alpha>a?)p(?:(?P<bits>\d+)le)?")
_PACKED = {
    "rgb24": "rgb", "bgr24": "bgr", "rgba": "rgba", "bgra": "bgra", "argb": "argb", "abgr": "abgr",
    "rgb0": "rgb0", "bgr0": "bgr0", "rgb48le": "rgb", "rgba64le": "rgba",
}  # fmt: skip
_PAIRED = {"nv12": ("420", 8), "nv16": ("422", 8), "p010le": ("420", 10), "p210le": ("422", 10)}


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


def layout_of(name: str) -> Layout | None:
    """Returns the layout of one of FFmpeg's pixel formats; None if frames cannot be put into it."""
    if name in _PACKED:
        order = _PACKED[name]
        format = PixelFormat("rgb", 16 if name.endswith("le") else 8)
        return Layout(name=name, format=format, alpha="a" in order, packing="packed", order=order)
    if name in _PAIRED:
        chroma, bits = _PAIRED[name]
        format = PixelFormat("yuv", bits, _SUBSAMPLE[chroma])
        return Layout(name=name, format=format, packing="paired", shift=16 - bits if bits > 8 else 0)
    if name == "yuv444p10msble":
        return Layout(name=name, format=PixelFormat("yuv", 10), shift=6)
    if match := _PLANAR.fullmatch(name):
        format = PixelFormat("yuv", int(match["bits"] or 8), _SUBSAMPLE[match["chroma"]])
        return Layout(name=name, format=format, alpha=bool(match["alpha"]))
    if match := _GBR.fullmatch(name):
        format = PixelFormat("rgb", int(match["bits"] or 8))
        return Layout(name=name, format=format, alpha=bool(match["alpha"]))
    if match := _GRAY.fullmatch(name):
        format = PixelFormat("gray", int((match["bits"] or "8").removesuffix("le")))
        if match["alpha"] == "ya":
            return Layout(name=name, format=format, alpha=True, packing="packed", order="ya")
        return Layout(name=name, format=format)
    return None


def layouts_of(codec: "av.Codec") -> tuple[Layout, ...]:
    """Returns the layouts that an encoder takes and frames can be put into, in the encoder's order."""
    names = [format.name for format in codec.video_formats or ()] or ANY
    found = tuple(layout for name in names if (layout := layout_of(name)) is not None)
    if codec.name == "libx265":
        # Opacity in HEVC is a layer of its own, which hardly any decoder shows.
        return tuple(layout for layout in found if not layout.alpha)
    if codec.name.endswith("_nvenc"):
        # It takes 16 bits and codes 10 of them.
        return tuple(layout for layout in found if layout.format.bits <= NVENC_BITS)
    return found


NVENC_BITS = 10


_STEMS = ("yuv420p", "yuv422p", "yuv444p", "yuva420p", "yuva422p", "yuva444p", "gray", "gbrp")
ANY = (
    *(f"{stem}{depth}" for stem in _STEMS for depth in ("", "10le", "12le", "16le")),
    "rgb24", "bgr24", "rgba", "bgra", "rgb48le",
)  # fmt: skip
"""Formats that are assumed for encoders that list none."""


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
    planes, alpha = coded.planes, coded.alpha
    if layout.alpha and alpha is None:
        alpha = np.full(planes[0].shape[:2], layout.format.peak, layout.format.dtype)
    if layout.packing == "packed":
        _fill_packed(picture.planes[0], planes, alpha, layout)
        return
    if layout.packing == "paired":
        planes = (planes[0], np.stack(planes[1:], axis=-1))
    elif layout.rgb:
        planes = tuple(planes[0][..., channel] for channel in (1, 2, 0))
    if layout.alpha and alpha is not None:
        planes += (alpha,)
    for plane, pixels in zip(picture.planes, planes, strict=True):
        _fill_plane(plane, np.left_shift(pixels, layout.shift) if layout.shift else pixels)


def _fill_packed(plane: Any, planes: tuple[Array, ...], alpha: Array | None, layout: Layout) -> None:
    height, width = planes[0].shape[:2]
    count = len(layout.order)
    rows = np.frombuffer(plane, layout.format.dtype).reshape(plane.height, -1)
    target = rows[:height, : width * count].reshape(height, width, count)
    if layout.order == "rgb":
        target[:] = planes[0]
        return
    for place, name in enumerate(layout.order):
        if name == "y":
            target[..., place] = planes[0]
        elif name == "a":
            assert alpha is not None
            target[..., place] = alpha
        else:
            target[..., place] = 0 if name == "0" else planes[0][..., "rgb".index(name)]


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
