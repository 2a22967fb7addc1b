"""How a file is decoded and encoded, as its options say it."""

from dataclasses import dataclass
from typing import Literal

Deinterlace = Literal["auto", "no", "force", "fields"]
"""`auto`: frames that say they are interlaced become one whole picture each. `no`: left as they are.
`force`: every frame, whatever it says. `fields`: a picture for each field, at twice the rate."""

Quality = Literal["draft", "good", "archive"]
"""`draft`: fast, to look at. `good`: hard to tell from the original. `archive`: nothing lost that
shows; slow and large."""

ToneMap = Literal["bt2390", "hable"]
"""The curve by which HDR becomes SDR: ITU-R BT.2390's, or the filmic one of FFmpeg's `tonemap`."""

AudioCodec = Literal["auto", "aac", "opus", "flac"]
"""What sound becomes that a file cannot hold as it is; `auto` is the first that the file takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How frames become a stream. None leaves the choice to the codec."""

    codec: str = "auto"
    """h264, hevc, av1, vp9, ffv1, prores, gif, rawvideo, h264_nvenc, hevc_nvenc, av1_nvenc, the name of
    any other encoder of FFmpeg, or `auto`: what suits the kind of file, H.264 in most."""
    quality: Quality = "good"
    """What the codec's own quality and preset are, where `crf` and `preset` do not say otherwise."""
    options: tuple[tuple[str, str], ...] = ()
    """Options of the FFmpeg encoder, by its own names; they go before all others."""
    crf: int | None = None
    """Constant quality, lower is better; 18 for H.264 unless given."""
    preset: str | None = None
    """Speed against size, in the encoder's words; `veryfast` for H.264 and HEVC unless given. A profile
    of ProRes."""
    pix_fmt: str | None = None
    """FFmpeg's name of the pixel format; the frames' own where the encoder takes it."""
    background: tuple[int, int, int] = (0, 0, 0)
    """Red, green and blue of 0 to 255 that frames are laid over where the file holds no opacity."""
    audio_codec: AudioCodec = "auto"
    """For sound that cannot be copied; what can be is."""
    audio_bitrate: int | None = None
    """Bits per second of sound that is converted; 96,000 for each channel unless given."""
