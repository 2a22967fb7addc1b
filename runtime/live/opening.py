"""Sinks of a live run by their addresses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..frame import VideoInfo
from ..sinks import Encoding, Sink, open_sink
from ..sources import Source
from .output import RECORDING, Output
from .sound import Sounds

STREAMING = 8
"""Frames that wait for a stream's encoder and connection: a hiccup of a quarter of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the sinks of one run have in common."""

    source: Source
    encoding: Encoding
    overwrite: bool = False
    sounds: Sounds | None = None
    """None where there is no sound, or nobody wants it."""
    tell: Callable[[str], None]


def open_output(uri: str, place: Place) -> Output:
    """`window:`, `virtual:[DEVICE]`, `null:`, `-` (y4m), an address such as rtmp://host/live/key or
    srt://host:port, a playlist `.m3u8`, or a video file. Raises SinkError.
    """
    info = place.source.info
    if uri == "window:":
        from ..sinks.window import WindowSink

        return Output(WindowSink())
    if uri.startswith("virtual:"):
        from ..sinks.virtual import VirtualCameraSink

        return Output(VirtualCameraSink(uri.partition(":")[2] or None, rate=float(info.rate)))
    if uri in ("null:", "-"):
        return Output(open_sink(uri, like=place.source, encoding=place.encoding, audio=False))
    from ..sinks.stream import StreamSink, is_stream

    sound = place.sounds.branch() if place.sounds is not None else None
    if is_stream(uri):
        stream = StreamSink(uri, like=info, encoding=place.encoding, sound=sound, tell=place.tell)
        return Output(stream, depth=STREAMING)
    return record(Path(uri), info, place, overwrite=place.overwrite)


def record(path: Path, info: VideoInfo, place: Place, *, overwrite: bool = False) -> Output:
    """A recording, which takes every frame that it can. Raises SinkError."""
    from ..sinks.recording import RecordingSink

    sound = place.sounds.branch() if place.sounds is not None else None
    sink = RecordingSink(path, like=info, encoding=place.encoding, overwrite=overwrite, sound=sound)
    return Output(sink, depth=RECORDING)


def close_all(sinks: Sequence[Sink], failed: Callable[[Sink, Exception], None]) -> None:
    """Finish every sink that has frames; what cannot be finished does not keep the others from it."""
    for sink in sinks:
        try:
            if sink.frames:
                sink.close()
            else:
                sink.abort()
        except Exception as error:
            failed(sink, error)
