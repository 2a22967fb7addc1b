"""Table of the kinds of live sources: how each is called, and which module opens it."""

from dataclasses import dataclass
from typing import Literal

_CONNECTION = ("patience", "retries", "stall")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKind:
    """A kind of live source. Its module has `open_live`, as `open_live.Opens` describes it."""

    module: str
    """Name of the module in this package; it is imported when a source of the kind is opened."""
    example: str
    """What the help shows of its addresses."""
    schemes: tuple[str, ...] = ()
    """What stands before the colon of an address, in lower case."""
    network: bool = False
    """Whether `//` must follow the colon; the module then gets the whole address."""
    options: tuple[str, ...]
    """The keys that an address may set."""
    sign: Literal["?", "#"] = "?"
    """What stands before the options."""
    strict: bool = True
    """Whether what reads as options of no known key is refused, rather than taken for a name's part."""


LIVE_KINDS: dict[str, LiveKind] = {
    "camera": LiveKind(
        module="camera",
        example="camera:0",
        schemes=("camera",),
        options=("api", "fourcc", "fps", "size", *_CONNECTION),
    ),
    "screen": LiveKind(
        module="screen",
        example="screen:",
        schemes=("screen",),
        options=("api", "cursor", "fps", *_CONNECTION),
    ),
    "window": LiveKind(
        module="screen",
        example="window:TITLE",
        schemes=("window",),
        options=("api", "cursor", "fps", *_CONNECTION),
        # A window's title may hold any sign: only what reads as options is taken off.
        strict=False,
    ),
    "stream": LiveKind(
        module="ffmpeg_live",
        example="rtsp://...",
        schemes=(
            "rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp", "http", "https", "rist",
        ),
        network=True,
        options=("format", "transport", *_CONNECTION),
        # The address's own `?` is FFmpeg's.
        sign="#",
    ),
    "file": LiveKind(
        module="paced",
        example="a paced video file, or -",
        schemes=("file",),
        options=("loop", "pace", "patience", "speed"),
    ),
}  # fmt: skip
"""By name. `file` is also what an address of no other kind is taken for."""


def kind_of(uri: str) -> str:
    """The name of the kind that opens an address, by what stands before its colon."""
    scheme, colon, rest = uri.partition(":")
    if uri.startswith("/dev/video"):
        return "camera"
    for name, kind in LIVE_KINDS.items():
        if colon and scheme.lower() in kind.schemes and (not kind.network or rest.startswith("//")):
            return name
    return "file"


def examples() -> str:
    """Addresses of every kind, for the help."""
    return ", ".join(kind.example for kind in LIVE_KINDS.values())
