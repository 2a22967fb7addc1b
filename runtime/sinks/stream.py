"""Live streams: RTMP, SRT, UDP, TCP, RTSP and HLS, encoded for a short delay, reconnected when cut."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from ..errors import SinkError
from ..frame import Frame, VideoInfo
from ..promise import Tally
from .base import Encoding, Sink
from .clock import Clock
from .encoder import Coding, VideoEncoder, encode
from .voice import Hearing, PassingSound, sound_codec

FORMATS = {
    "rtmp": "flv", "rtmps": "flv", "srt": "mpegts", "udp": "mpegts", "tcp": "mpegts", "rtsp": "rtsp",
}  # fmt: skip
"""FFmpeg's container by the address's scheme; `.m3u8` is HLS whatever the scheme."""
SUFFIXES = {"flv": ".flv", "mpegts": ".ts", "rtsp": ".ts", "hls": ".ts"}
"""The kind of file whose rules hold for what is sent."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0
"""Seconds before a cut connection is tried again, and at most between two attempts."""
KEY_SECONDS = 2
"""Seconds between key frames: what platforms ask for, and what a new viewer waits at most."""


def is_stream(uri: str) -> bool:
    """Whether an address is one of these."""
    return urlsplit(uri).scheme.lower() in FORMATS or Path(urlsplit(uri).path).suffix == ".m3u8"


class StreamSink(Sink):
    """Sends frames as they come.

    The first connection must be made, else it raises; one that is cut later is made again with growing
    pauses, and frames of the time between are lost. `tell` hears of both.
    """

    def __init__(
        self,
        uri: str,
        *,
        like: VideoInfo,
        encoding: Encoding,
        sound: Hearing | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Check what can be checked before a frame is there. Raises SinkError."""
        self.uri = uri
        self._kind = "hls" if urlsplit(uri).path.endswith(".m3u8") else FORMATS[urlsplit(uri).scheme]
        self._like = replace(like, path=None, frames=None, duration=None)
        self._encoding = _hasty(encoding, like)
        self._encoder = VideoEncoder(self._encoding, suffix=SUFFIXES[self._kind], like=self._like)
        self.notes = self._encoder.notes
        self._sound = sound
        self._tell = tell
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._passing: PassingSound | None = None
        self._coding: Coding | None = None
        self._clock = Clock(like.rate)
        self._origin = 0
        self._wait = FIRST_WAIT
        self._next = 0.0
        self.lost = 0
        """Frames that came while there was no connection."""

    def write(self, frame: Frame) -> None:
        try:
            if self._container is None:
                if time.monotonic() < self._next:
                    self.lost += 1
                    return
                self._connect(frame)
            self._send(frame)
        except (FFmpegError, OSError) as error:
            self._cut(error)
            return
        self.frames += 1

    def close(self) -> None:
        """Send what is left and end the stream."""
        try:
            if self._container is not None and self._stream is not None:
                for packet in self._clock.timed(encode(self._stream, None), end=True):
                    self._container.mux(packet)
                if self._passing is not None:
                    self._passing.end = self._clock.end
                    self._passing.mux_until(float("inf"))
        except (FFmpegError, OSError) as error:
            self._say(f"{self.uri} was cut at its end: {_reason(error)}")
        finally:
            self._disconnect()

    def abort(self) -> None:
        self._disconnect()

    def _connect(self, frame: Frame) -> None:
        options: dict[str, str] = {}
        if self._kind == "hls":
            options = {
                "hls_time": str(KEY_SECONDS),
                "hls_list_size": "6",
                "hls_flags": "delete_segments+independent_segments",
            }
        self._container = av.open(self.uri, "w", format=self._kind, options=options)
        self._coding = self._encoder.coding(frame)
        self._clock = Clock(self._like.rate)
        self._origin = frame.pts
        self._stream = self._encoder.add_stream(self._container, self._coding)
        if self._sound is not None and (codec := sound_codec(self._container)) is not None:
            self._passing = PassingSound(
                self._sound, self._container, origin=frame.seconds, codec=codec, tally=Tally()
            )
            self._passing.begin(self._stream)
        self._container.start_encoding()
        if self.frames:
            self._say(f"{self.uri} is connected again; {self.lost} frames were lost")
        self._wait = FIRST_WAIT

    def _send(self, frame: Frame) -> None:
        assert self._container is not None
        assert self._stream is not None
        assert self._coding is not None
        frame = replace(frame, pts=frame.pts - self._origin)
        picture = self._encoder.picture(frame, self._coding)
        self._clock.stamp(picture, self._coding.ticks(frame), self._coding.time_base, frame.length)
        for packet in self._clock.timed(encode(self._stream, picture), end=False):
            self._container.mux(packet)
        if self._passing is not None:
            self._passing.mux_until(float(self._clock.last * self._coding.time_base))

    def _cut(self, error: Exception) -> None:
        self._disconnect(silent=True)
        if not self.frames:
            raise SinkError(
                f"{self.uri} cannot be streamed to: {_reason(error)}. Is somebody listening there?"
            ) from error
        self._say(f"{self.uri} was cut: {_reason(error)}; trying again in {self._wait:.1f} s")
        self._next = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        self.lost += 1

    def _disconnect(self, *, silent: bool = False) -> None:
        container, self._container = self._container, None
        self._stream = self._passing = None
        if container is not None:
            try:
                container.close()
            except (FFmpegError, OSError) as error:
                if not silent:
                    self._say(f"{self.uri} was not ended: {_reason(error)}")

    def _say(self, text: str) -> None:
        if self._tell is not None:
            self._tell(text)


def _hasty(encoding: Encoding, like: VideoInfo) -> Encoding:
    """H.264 for a short delay, unless it is asked for otherwise."""
    if encoding.codec not in ("auto", "h264"):
        return encoding
    group = str(max(round(like.rate * KEY_SECONDS), 1))
    given: dict[str, Any] = {"tune": "zerolatency", "g": group, "bf": "0", **dict(encoding.options)}
    return replace(
        encoding,
        codec="h264",
        options=tuple(given.items()),
        pix_fmt=encoding.pix_fmt or "yuv420p",
    )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
