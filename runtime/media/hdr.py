"""HDR metadata: reading it from decoded frames, and checking and writing it for an output."""

import struct
from dataclasses import replace
from fractions import Fraction

from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from ..errors import SinkError
from ..frame import HLG, PQ, Colour, Frame, Hdr, PixelFormat, VideoInfo
from .codecs import codec_of, spoken
from .pixel_format import Layout, side_bytes

_DISPLAY = struct.Struct("=22i")
"""FFmpeg's AVMasteringDisplayMetadata: 10 fractions of red, green, blue, white (x, y each) and darkest,
brightest; then whether the first 8 and whether the last 2 are there."""
_LIGHT = struct.Struct("=2I")
"""AVContentLightMetadata: the brightest pixel and the brightest frame."""

_DYNAMIC = {
    Type.DOVI_RPU_BUFFER: "Dolby Vision",
    Type.DOVI_METADATA: "Dolby Vision",
    Type.DYNAMIC_HDR_PLUS: "HDR10+",
    Type.DYNAMIC_HDR_VIVID: "HDR Vivid",
}


def read_hdr(frame: VideoFrame) -> Hdr | None:
    """Returns the mastering display and light levels of a frame; None where it has neither."""
    display = side_bytes(frame, Type.MASTERING_DISPLAY_METADATA)
    light = side_bytes(frame, Type.CONTENT_LIGHT_LEVEL)
    max_cll, max_fall = _LIGHT.unpack_from(light) if len(light) >= _LIGHT.size else (0, 0)
    pairs: list[tuple[Fraction, Fraction]] = []
    if len(display) >= _DISPLAY.size:
        *numbers, coloured, bright = _DISPLAY.unpack_from(display)
        # Half of a display is of no use to anybody who maps its tones.
        if coloured and bright and all(numbers[1::2]):
            ratios = [Fraction(n, d) for n, d in zip(numbers[::2], numbers[1::2], strict=True)]
            pairs = list(zip(ratios[::2], ratios[1::2], strict=True))
    if not pairs and not (max_cll or max_fall):
        return None
    red, green, blue, white, luminance = pairs or (None,) * 5
    return Hdr(
        red=red,
        green=green,
        blue=blue,
        white=white,
        luminance=luminance,
        max_cll=max_cll or None,
        max_fall=max_fall or None,
    )


def dynamic_hdr(frame: VideoFrame) -> tuple[str, ...]:
    """Returns the names of a frame's dynamic metadata, which changes with the scene."""
    return tuple(sorted({name for kind, name in _DYNAMIC.items() if side_bytes(frame, kind)}))


NAMES = {PQ: "HDR (PQ)", HLG: "HDR (HLG)"}

LEAST_BITS = 10
"""Bits below which PQ and HLG show banding (ITU-R BT.2100-2, table 9)."""


def refuse_hdr(transfer: int, what: str) -> None:
    """Raise SinkError for frames in PQ or HLG; `what` says why the output would show them wrongly."""
    if transfer in NAMES:
        raise SinkError(
            f"the source is {NAMES[transfer]}, which {what}: --codec hevc or av1 in .mp4 or .mkv keeps "
            "it, --tone-map bt2390 makes it SDR"
        )


def hdr_format(frame: Frame | VideoInfo) -> PixelFormat:
    """Returns the format in which frames are coded if the encoder takes it: their own, with
    `LEAST_BITS` at least for PQ and HLG, as some cameras film HLG in 8 bits."""
    few = frame.colour.hdr and frame.format.bits < LEAST_BITS
    return replace(frame.format, bits=LEAST_BITS) if few else frame.format


def hdr_choice(transfer: int, encoder: str, usual: str) -> str:
    """Returns the note that `auto` has taken another encoder than usual, for the sake of HDR."""
    return (
        f"{NAMES[transfer]} is kept: encoded as {spoken(encoder)}, as {spoken(usual)} does not carry it"
        "; --tone-map bt2390 makes it SDR"
    )


def check_hdr(colour: Colour, encoder: str, layout: Layout) -> None:
    """Raise SinkError where an encoder cannot hold PQ or HLG as such."""
    if not codec_of(encoder).shows_hdr:
        refuse_hdr(colour.transfer, f"{spoken(encoder)} does not carry")
    if layout.format.bits < LEAST_BITS:
        refuse_hdr(colour.transfer, f"needs {LEAST_BITS} bits, and {layout.name} has 8")


def hdr_note(transfer: int) -> tuple[str, ...]:
    """Returns the line that says what happens to the source's HDR, if it is any."""
    if transfer not in NAMES:
        return ()
    return (f"{NAMES[transfer]}: its code values are processed as they are, as those of SDR would be",)


def hdr_options(hdr: Hdr | None, encoder: str) -> dict[str, str]:
    """Returns options of the FFmpeg encoder that write static metadata into its stream."""
    codec = codec_of(encoder)
    if hdr is None or codec.mastering is None or codec.params is None:
        return {}
    parts = _x265(hdr) if codec.mastering == "x265" else _svt(hdr)
    return {codec.params: ":".join(parts)} if parts else {}


def _x265(hdr: Hdr) -> list[str]:
    """Returns the options in x265's units: 0.00002 of CIE xy, 0.0001 candela per square metre (SMPTE ST
    2086)."""
    parts: list[str] = []
    if (display := _display(hdr)) is not None:
        points, (dark, bright) = display
        spots = [f"{name}({round(x * 50_000)},{round(y * 50_000)})" for name, (x, y) in points]
        parts.append(
            f"master-display={''.join(spots)}L({round(bright * 10_000)},{round(dark * 10_000)})"
        )
    if hdr.max_cll is not None or hdr.max_fall is not None:
        parts.append(f"max-cll={hdr.max_cll or 0},{hdr.max_fall or 0}")
    elif parts:
        parts.append("cll=0")  # which it would state as 0
    return parts


def _svt(hdr: Hdr) -> list[str]:
    parts: list[str] = []
    if (display := _display(hdr)) is not None:
        points, (dark, bright) = display
        spots = [f"{name}({float(x):.6f},{float(y):.6f})" for name, (x, y) in points]
        light = f"L({float(bright):.4f},{float(dark):.6f})"
        parts.append(f"mastering-display={''.join(spots)}{light}")
    if hdr.max_cll is not None or hdr.max_fall is not None:
        parts.append(f"content-light={hdr.max_cll or 0},{hdr.max_fall or 0}")
    return parts


Point = tuple[Fraction, Fraction]


def _display(hdr: Hdr) -> tuple[tuple[tuple[str, Point], ...], Point] | None:
    """Returns the points by both libraries' letters, and the luminances; None where they are not
    stated."""
    points = (("G", hdr.green), ("B", hdr.blue), ("R", hdr.red), ("WP", hdr.white))
    stated = tuple((name, point) for name, point in points if point is not None)
    if len(stated) < len(points) or hdr.luminance is None:
        return None
    return stated, hdr.luminance
