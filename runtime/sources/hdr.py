"""Static HDR metadata of decoded frames."""

import struct
from fractions import Fraction
from typing import Any

from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from ..frame import Hdr

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
    """What a frame says about the display it was graded on and its light; None when it says nothing."""
    display = _bytes(frame, Type.MASTERING_DISPLAY_METADATA)
    light = _bytes(frame, Type.CONTENT_LIGHT_LEVEL)
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
    """Names of the metadata in a frame that changes with the scene."""
    return tuple(sorted({name for kind, name in _DYNAMIC.items() if _bytes(frame, kind)}))


def _bytes(frame: VideoFrame, kind: Type) -> bytes:
    sides: Any = frame.side_data
    side = sides.get(kind)
    return bytes(side) if side is not None else b""
