"""Kinds of sinks: what a line of the table says, and what a kind's module offers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from ..frame import VideoInfo
from .base import Encoding, Sink

if TYPE_CHECKING:
    from ..media.live_audio import Hearing

STREAMS: Mapping[str, str] = {
    "rtmp": "flv", "rtmps": "flv", "srt": "mpegts", "udp": "mpegts", "tcp": "mpegts", "rtsp": "rtsp",
}  # fmt: skip
"""FFmpeg's container of a live stream by the address's scheme; `.m3u8` is HLS whatever the scheme."""


@dataclass(frozen=True, slots=True)
class SinkKind:
    """A line of the table: how a kind is recognised, before the libraries of its module are loaded."""

    name: str
    module: str
    """The `SinkModule` in this package."""
    takes: Callable[[str], bool]
    """Returns whether an address is of this kind."""
    run: str | None = None
    """What the help of `velatura run` shows of its addresses; None for what takes no finished films."""
    live: str | None = None
    """What the help of `velatura live` shows; None for what takes no live frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How a film, or a live run's frames, are written: see `open_sink` and `open_live_sink`."""

    like: VideoInfo
    """The source."""
    encoding: Encoding = field(default_factory=Encoding)
    overwrite: bool = False
    audio: bool = True
    journal: Mapping[str, Any] | None = None
    restart: bool = False
    shared: bool = False
    hear: "Callable[[], Hearing | None]" = lambda: None
    """Begins to listen: returns a live source's sound for this sink alone; None where there is none."""
    tell: Callable[[str], None] | None = None
    """Receives one line about an event of a live run that matters to a person."""


class SinkModule(Protocol):
    """The module of a kind: has `open_film`, or `open_live`, or both, as its lines in the table say.

    They check everything that can be checked before a frame is there, and raise SinkError."""

    def open_film(self, uri: str, writing: Writing, /) -> Sink:
        """Open what takes a film."""
        ...

    def open_live(self, uri: str, writing: Writing, /) -> Sink:
        """Open what takes the frames of a live run: `Sink.delivery` says what happens to those that it
        cannot take at once."""
        ...


def only(address: str) -> Callable[[str], bool]:
    """Returns whether it is this very address."""
    return lambda uri: uri == address


def scheme(name: str) -> Callable[[str], bool]:
    """Returns whether that stands before the colon."""
    return lambda uri: uri.startswith(f"{name}:")


def only_the_rest(uri: str) -> bool:
    """Returns that it is not, of the kind that an address of no other kind is taken for."""
    del uri
    return False


def suffixed(*suffixes: str) -> Callable[[str], bool]:
    """Returns whether it is a path with one of these suffixes."""
    return lambda uri: Path(uri).suffix.lower() in suffixes


def is_stream(uri: str) -> bool:
    """Returns whether an address is that of a live stream."""
    return urlsplit(uri).scheme.lower() in STREAMS or Path(urlsplit(uri).path).suffix == ".m3u8"
