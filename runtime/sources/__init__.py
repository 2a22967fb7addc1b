"""Sources of frames: the table of their kinds, `open_source` and `open_live_source`."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import SourceError
from ..frame import Array, Frame
from ..media.options import ToneMap
from .base import FASTEST, Deinterlace, Source
from .kind import (
    Address,
    Device,
    Reading,
    SourceKind,
    SourceModule,
    file_address,
    is_sequence,
    is_video_device,
)
from .live import PATIENCE, STALL, LiveSource

if TYPE_CHECKING:
    from .cut import Moment

__all__ = ["Deinterlace", "LiveSource", "Source", "open_live_source", "open_source"]

_STREAMS = (
    "rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp", "http", "https", "rist",
)  # fmt: skip
_FILE = SourceKind("file", ".file", run="Video file, - (standard input)")

KINDS: tuple[SourceKind, ...] = (
    SourceKind("camera", ".camera", live="camera:0", names=is_video_device, devices="cameras"),
    SourceKind("screen", ".screen", live="screen:", devices="screens"),
    # A window's title may hold any sign: only what reads as options is taken off.
    SourceKind("window", ".screen", live="window:TITLE", strict=False, devices="windows"),
    # The address's own `?` is FFmpeg's.
    SourceKind("stream", ".ffmpeg_live", live="rtsp://...", schemes=_STREAMS, network=True, sign="#"),
    _FILE,
    SourceKind("pattern", ".pattern", run="pattern:640x360@30", strict=False),
    SourceKind("sequence", ".sequence", run="frames/%05d.png", names=is_sequence, timed=False),
)
"""Every kind of source, a line each. What no line takes is a file.

The lines say what must be known before a module is loaded with the libraries that it needs: how an
address is recognised, and the words of the help. All else is in the modules.
"""
RUN_SOURCES = ", ".join(kind.run for kind in KINDS if kind.run)
"""Addresses of what `velatura run` reads, for its help."""
LIVE_SOURCES = ", ".join([*(kind.live for kind in KINDS if kind.live), "a paced video file, or -"])
"""Addresses of what `velatura live` reads, for its help."""


def open_source(
    uri: str | Path,
    *,
    rate: Fraction | None = None,
    deinterlace: Deinterlace = "auto",
    video_stream: int | None = None,
    audio_stream: int | None = None,
    tone_map: ToneMap | None = None,
    start: str | None = None,
    end: str | None = None,
) -> Source:
    """Open a video file, a pipe, an image sequence or a test pattern.

    `frames/%05d.png` and `frames/*.png` are sequences, `pattern:640x360@30?frames=90` is the moving
    test pattern, `-` is standard input, all else is a file. `rate` is the frame rate of sequences (25
    when not given); all else is converted to it, by frames given twice or left out. Of a file
    with several videos FFmpeg's choice is taken, or `video_stream`; all its audio passes, or only
    `audio_stream`: both are indices in the file. With `tone_map` HDR is given as SDR.

    `start` and `end` cut a part out of what is a file: the frames that begin at `start` or later and
    before `end`, in seconds (`12.5`), hours, minutes and seconds (`1:02:03.5`) or frames (`250f`). The
    first of them is at time 0.
    Raises SourceError with what is wrong and what to do.
    """
    if rate is not None and not 0 < rate <= FASTEST:
        raise SourceError(f"{rate} is no frame rate: it must be above 0 and at most {FASTEST}")
    text = str(uri)
    kind = _waiting(text)
    if kind is not _FILE and (video_stream, audio_stream) != (None, None):
        raise SourceError(
            f"{text} is no file with streams: leave --video-stream and --audio-stream out"
        )
    part = _moments(text, kind, start, end)
    source = _open(
        text,
        Reading(
            rate=rate,
            deinterlace=deinterlace,
            video_stream=video_stream,
            audio_stream=audio_stream,
        ),
    )
    if rate is not None and kind.timed:
        from .constant_rate import RateSource

        source = RateSource(source, rate)
    if tone_map is not None:
        from .tone_mapped import ToneMappedSource

        source = ToneMappedSource(source, tone_map)
    if part != (None, None):
        from .cut import CutSource

        try:
            source = CutSource(source, *part)
        except BaseException:
            source.close()
            raise
    return source


def _moments(
    uri: str, kind: SourceKind, start: str | None, end: str | None
) -> "tuple[Moment | None, Moment | None]":
    """Returns where a part begins and ends. Raises SourceError where there can be none."""
    if start is None and end is None:
        return None, None
    from .cut import Moment, check_order

    if kind is _FILE and (uri == "-" or (Path(uri).exists() and not Path(uri).is_file())):
        raise SourceError(
            f"{uri} comes once, as it comes: --start and --end are for files; write it into one first, "
            "or cut it where it is made"
        )
    try:
        found = [None if text is None else Moment.parse(text) for text in (start, end)]
        check_order(*found)
    except ValueError as error:
        raise SourceError(f"{uri} cannot be cut: {error}") from error
    return found[0], found[1]


def open_live_source(
    uri: "str | Iterable[Frame | Array]",
    *,
    size: tuple[int, int] | None = None,
    rate: Fraction | None = None,
    options: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
    stall: float = STALL,
    retries: int | None = None,
    keep: bool = False,
) -> LiveSource:
    """Open what does not wait for its reader, and wait for its first picture.

    - `camera:0`, `camera:/dev/video2`, `/dev/video2`; `?size=1280x720&fps=30&fourcc=MJPG&api=v4l2`
    - `screen:` (the first), `screen:1`, `screen:all`, `screen:640x360+100+50` (a region);
      `window:TITLE` (X11); `?fps=30&cursor=0&api=x11`
    - `rtsp:` `rtmp:` `srt:` `udp:` `rtp:` `tcp:` `http:` `https:` (HLS is paced by its own clock);
      `#transport=udp&format=mpegts&retries=3&patience=10&stall=5` after the address, whose own `?` is
      FFmpeg's
    - any video file, `file:clip.mp4?loop=1&speed=2`, or `pattern:640x360@30`, as if it were a camera
    - `-`, what comes through standard input, `?pace=0` to take it as fast as it comes
    - an iterable of frames or (H, W, 3) RGB arrays, `rate` a second

    `size` and `rate` are asked of cameras and screens, `options` go to FFmpeg. `patience` is for the
    first picture, `stall` for silence in the middle, both in seconds; `retries` failures in a row end a
    source that reconnects, None never. With `keep` a late reader gets every frame of a file, late.
    Raises SourceError with what is wrong and what to do.
    """
    if not isinstance(uri, str):
        from .generator import GeneratorSource

        return GeneratorSource(uri, rate=rate, patience=patience)
    address = live_address(uri).given(size=size, rate=rate)
    address = address.given(patience=patience, stall=stall, retries=retries)
    if address.kind is not _FILE:
        return _module(address.kind).open_live(address, options=options or {}, keep=keep)
    from .paced import open_paced

    make = partial(_open, address.place, Reading(rate=address.rate()))
    return open_paced(address, make, keep=keep)


def live_address(uri: str) -> Address:
    """Returns the parts of a live source's URI. Raises SourceError for options that its kind lacks."""
    kind = next((kind for kind in KINDS if kind.live and kind.takes(uri)), None)
    if kind is not None:
        return Address.parse(uri, kind, _module(kind).OPTIONS)
    from .paced import OPTIONS

    return file_address(uri, _FILE, OPTIONS, inner=_waiting)


def list_devices(kind: SourceKind) -> list[Device]:
    """Returns the devices of a kind that has a heading for them. Raises SourceError with the reason
    why there can be none."""
    return _module(kind).list_devices(kind.name)


def needs_live(uri: str) -> bool:
    """Returns whether an address is of what does not wait for its reader, and is no file."""
    kind = next((kind for kind in KINDS if kind.takes(uri)), _FILE)
    return bool(kind.live) and not kind.run and not Path(uri).is_file()


def _waiting(uri: str) -> SourceKind:
    """Returns the kind of what waits for its reader."""
    return next((kind for kind in KINDS if kind.run and kind.takes(uri)), _FILE)


def _open(uri: str, reading: Reading) -> Source:
    return _module(_waiting(uri)).open_waiting(uri, reading)


def _module(kind: SourceKind) -> SourceModule:
    return cast(SourceModule, import_module(kind.module, __package__))
