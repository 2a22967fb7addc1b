"""`open_live_source`, which opens what does not wait for its reader, whatever its kind."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from importlib import import_module
from typing import Protocol, cast

from ..frame import Array, Frame
from .address import Address
from .live import PATIENCE, STALL, LiveSource
from .live_kinds import LIVE_KINDS


class Opens(Protocol):
    """What the module of a kind offers."""

    def open_live(self, address: Address, *, options: Mapping[str, str], keep: bool) -> LiveSource:
        """Open it and wait for its first picture; `options` are FFmpeg's. Raises SourceError."""
        ...


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
    address = Address.parse(uri).given(size=size, rate=rate)
    address = address.given(patience=patience, stall=stall, retries=retries)
    kind = cast(Opens, import_module(f".{LIVE_KINDS[address.kind].module}", __package__))
    return kind.open_live(address, options=options or {}, keep=keep)
