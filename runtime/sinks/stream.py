"""Live streams: RTMP, SRT, UDP, TCP, RTSP and HLS, encoded for a short delay, reconnected when cut."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from ..backoff import Backoff
from ..errors import SinkError
from ..frame import Frame, VideoInfo
from ..media.addresses import without_secrets
from ..media.encode import Coding, VideoEncoder, encode
from ..media.live_audio import Hearing, PassingSound, sound_codec
from ..media.timestamps import Clock
from ..worker import Worker
from .base import Delivery, Encoding, Sink
from .kind import STREAMS, Writing

SUFFIXES = {"flv": ".flv", "mpegts": ".ts", "rtsp": ".ts", "hls": ".ts"}
"""The file suffix whose rules for codecs hold for each container."""
STALL = 5.0
"""Seconds after which a connection that takes no data is given up."""
KEY_SECONDS = 2
"""Seconds between key frames: what platforms ask for, and what a new viewer waits at most."""


WAITING = 8
"""Frames that wait for the encoder and the connection: a hiccup of a quarter of a second."""


class StreamSink(Sink):
    """Sends frames to a live stream as they come.

    The first connection must succeed, else it raises; one that is cut, or takes nothing for `STALL`
    seconds, is made again with growing pauses, and frames of the time between are lost. `tell` is
    called for both.
    """

    delivery = Delivery(depth=WAITING)

    def __init__(self, uri: str, writing: Writing) -> None:
        """Check what can be checked before a frame is there. Raises SinkError."""
        self.uri = without_secrets(uri)
        like = replace(writing.like, path=None, frames=None, duration=None)
        encoding = _hasty(writing.encoding, writing.like)
        self._new = partial(_Link, uri, like, encoding, writing.hear())
        self._link: _Link | None = self._new()
        self.notes = self._link.encoder.notes
        self._tell = writing.tell
        self._worker = Worker(f"velatura-send-{self.uri}")
        self._backoff = Backoff()
        self._next = 0.0
        self.lost = 0
        """The number of frames that came while there was no connection."""

    def write(self, frame: Frame) -> None:
        if self._link is None:
            if time.monotonic() < self._next:
                self.lost += 1
                return
            self._link = self._new()
        link = self._link
        try:
            self._do(lambda: link.send(frame))
        except (FFmpegError, OSError) as error:
            self._cut(error)
            return
        if self._backoff.failures:
            self._say(f"{self.uri} is connected again; {self.lost} frames were lost")
            self._backoff.reset()
        self.frames += 1

    def close(self) -> None:
        """Send the rest and end the stream."""
        link, self._link = self._link, None
        try:
            if link is not None and self.frames:
                self._do(link.end)
        except (FFmpegError, OSError) as error:
            self._say(f"{self.uri} was cut at its end: {_reason(error)}")
        finally:
            self._leave(link)

    def abort(self) -> None:
        link, self._link = self._link, None
        self._leave(link)

    def _do(self, work: Callable[[], None]) -> None:
        """Run work that may never return, as when a cable is pulled: FFmpeg's output cannot be
        interrupted."""
        job = self._worker.start(work)
        if not job.wait(STALL):
            raise TimeoutError(f"nothing was taken for {STALL:g} s")
        if job.error is not None:
            raise job.error

    def _cut(self, error: Exception) -> None:
        link, self._link = self._link, None
        self._leave(link)
        self._worker = Worker(f"velatura-send-{self.uri}")
        if not self.frames:
            raise SinkError(
                f"{self.uri} cannot be streamed to: {_reason(error)}. Is somebody listening there?"
            ) from error
        wait = self._backoff.pause()
        self.lost += 1
        self._say(f"{self.uri} was cut: {_reason(error)}; trying again in {wait:.1f} s")
        self._next = time.monotonic() + wait

    def _leave(self, link: "_Link | None") -> None:
        """Close a connection in its own thread, once the call that hangs there has returned."""
        if link is not None:
            self._worker.start(link.close).wait(1.0)
        self._worker.leave()

    def _say(self, text: str) -> None:
        if self._tell is not None:
            self._tell(text)


open_live = StreamSink


class _Link:
    """One connection with its own encoder: one that hangs is abandoned with all that it uses."""

    def __init__(self, uri: str, like: VideoInfo, encoding: Encoding, sound: Hearing | None) -> None:
        self._uri = uri
        hls = urlsplit(uri).path.endswith(".m3u8")
        self._kind = "hls" if hls else STREAMS[urlsplit(uri).scheme.lower()]
        self.encoder = VideoEncoder(encoding, suffix=SUFFIXES[self._kind], like=like)
        self._sound = sound
        self._rate = like.rate
        self._clock = Clock(like.rate)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._passing: PassingSound | None = None
        self._coding: Coding | None = None
        self._origin = 0

    def send(self, frame: Frame) -> None:
        """Connect, if that is not done, and send. Raises FFmpeg's errors and SinkError."""
        if self._stream is None:
            self._connect(frame)
        assert self._container is not None
        assert self._stream is not None
        assert self._coding is not None
        frame = replace(frame, pts=frame.pts - self._origin)
        picture = self.encoder.picture(frame, self._coding)
        self._clock.stamp(picture, self._coding.ticks(frame), self._coding.time_base, frame.length)
        for packet in self._clock.timed(encode(self._stream, picture), end=False):
            self._container.mux(packet)
        if self._passing is not None:
            self._passing.mux_until(float(self._clock.last * self._coding.time_base))

    def end(self) -> None:
        """Send the rest."""
        if self._container is None or self._stream is None:
            return
        for packet in self._clock.timed(encode(self._stream, None), end=True):
            self._container.mux(packet)
        if self._passing is not None:
            self._passing.end = self._clock.end
            self._passing.mux_until(float("inf"))

    def close(self) -> None:
        """End the connection; errors are ignored, since they were reported before."""
        container, self._container = self._container, None
        if container is not None:
            with suppress(FFmpegError, OSError, ValueError):
                container.close()

    def _connect(self, frame: Frame) -> None:
        options: dict[str, str] = {}
        if self._kind == "hls":
            options = {
                "hls_time": str(KEY_SECONDS),
                "hls_list_size": "6",
                "hls_flags": "delete_segments+independent_segments",
            }
        self._container = av.open(self._uri, "w", format=self._kind, options=options)
        self._coding = self.encoder.coding(frame)
        self._origin = frame.pts
        stream = self.encoder.add_stream(self._container, self._coding)
        if self._sound is not None and (codec := sound_codec(self._container)) is not None:
            self._passing = PassingSound(
                self._sound, self._container, origin=frame.seconds, codec=codec
            )
            self._passing.begin(stream)
        self._container.start_encoding()
        self._stream = stream


def _hasty(encoding: Encoding, like: VideoInfo) -> Encoding:
    """Returns H.264 options for a short delay, unless the user asks for others."""
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
