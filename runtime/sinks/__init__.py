"""Sinks of frames: the table of their kinds, `open_sink` and `open_live_sink`."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from ..frame import VideoInfo
from ..media.codecs import codec_of, encoder_of, spoken
from .base import PICTURES, Encoding, HasInfo, Sink
from .kind import (
    SinkKind,
    SinkModule,
    Writing,
    is_stream,
    only,
    only_the_rest,
    scheme,
    suffixed,
)

__all__ = ["Encoding", "Sink", "open_live_sink", "open_sink"]

_FILE = SinkKind("file", ".file", only_the_rest, run="Video file", live="a file")

KINDS: tuple[SinkKind, ...] = (
    SinkKind("window", ".window", only("window:"), live="window:"),
    SinkKind("virtual", ".virtual_camera", scheme("virtual"), live="virtual:"),
    SinkKind("stream", ".stream", is_stream, live="rtmp://..., srt://..., x.m3u8"),
    _FILE,
    SinkKind("sequence", ".sequence", suffixed(*PICTURES), run="frames/%05d.png"),
    SinkKind("y4m", ".y4m", suffixed(".y4m"), run=""),
    SinkKind("pipe", ".y4m", only("-"), run="- (standard output)", live="-"),
    SinkKind("null", ".null", only("null:"), run="null:", live="null:"),
)
"""Every kind of sink, a line each. What no line takes is a video file.

The lines say what must be known before a module is loaded with the libraries that it needs: how an
address is recognised, and the words of the help. All else is in the modules.
"""
RUN_SINKS = ", ".join(kind.run for kind in KINDS if kind.run)
"""Addresses of what `velatura run` writes, for its help."""
LIVE_SINKS = " or ".join(", ".join(kind.live for kind in KINDS if kind.live).rsplit(", ", 1))
"""Addresses of what `velatura live` writes, for its help."""


def open_sink(
    uri: str | Path,
    *,
    like: HasInfo,
    encoding: Encoding | None = None,
    overwrite: bool = False,
    audio: bool = True,
    journal: Mapping[str, Any] | None = None,
    restart: bool = False,
    shared: bool = False,
) -> Sink:
    """Open a video file, an image sequence (`frames/%05d.png`), `-` or `null:`.

    `-` is standard output, which gets YUV4MPEG2, or bare planes with the codec `rawvideo`.

    `like` is the source: its rate, aspect, colours and audio carry over. Nothing appears under the
    given name before all is written. Raises SinkError when it exists and `overwrite` is false, or when
    it cannot be written.

    With `journal`, a video file is made in segments that survive whatever ends the process. The mapping
    names all options that affect the output, by the words in which a change is reported; the source's
    files are added here. An interrupted run is resumed where they are the same (`sink.kept` is the
    number of its frames), else a SinkError states the difference. `restart` removes its segments.
    `shared` is for a journal whose segments other processes make.
    """
    writing = Writing(
        like=like.info,
        encoding=encoding or Encoding(),
        overwrite=overwrite,
        audio=audio,
        journal=journal,
        restart=restart,
        shared=shared,
    )
    return _module(_film_kind(str(uri))).open_film(str(uri), writing)


def open_live_sink(uri: str, writing: Writing) -> Sink:
    """Open a sink of a live run: `window:`, `virtual:[DEVICE]`, `null:`, `-` (y4m), an address such as
    rtmp://host/live/key or srt://host:port, a playlist `.m3u8`, or a video file. Raises SinkError."""
    kind = next((kind for kind in KINDS if kind.live is not None and kind.takes(uri)), _FILE)
    return _module(kind).open_live(uri, writing)


def needs_live(uri: str) -> bool:
    """Returns whether an address takes the frames of a live run only."""
    kind = next((kind for kind in KINDS if kind.takes(uri)), _FILE)
    return kind.run is None


def why_no_journal(uri: str, *, like: VideoInfo, encoding: Encoding) -> str:
    """Returns the reason why an output can have no journal; empty where it can."""
    suffix = Path(uri).suffix.lower()
    if _film_kind(uri) is not _FILE or suffix == ".gif":
        return "the output is no video file"
    if suffix == ".avi":
        return "AVI files keep no times of pictures, which players guess wrongly where segments meet"
    if not like.files:
        return "the source is no file"
    encoder = encoder_of(encoding, suffix, hdr=like.colour.hdr)
    if not codec_of(encoder).joins:
        return f"it is not known whether segments of {spoken(encoder)} can be joined"
    if like.alpha and not codec_of(encoder).joins_alpha:
        return f"segments of {spoken(encoder).upper()} do not hold the opacity"
    return ""


def _film_kind(uri: str) -> SinkKind:
    return next((kind for kind in KINDS if kind.run is not None and kind.takes(uri)), _FILE)


def _module(kind: SinkKind) -> SinkModule:
    return cast(SinkModule, import_module(kind.module, __package__))
