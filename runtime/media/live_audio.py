"""A live source's sound: a queue of decoded samples with their times, and their encoding into a
container, held to the clock of the pictures."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet

from .tracks import OnPacket

RATE = 48_000
"""Samples per second that all sound is given with."""
LAYOUT, FORMAT = "stereo", "fltp"
"""Channel layout and sample format: a plane of float32 for each channel, -1 to 1."""
_JITTER = 0.04
"""Seconds by which the time of a piece may be off while the sound counts as continuous."""
_PULL = 0.05
"""The share of that deviation by which each piece's time is corrected."""
LONGEST = 30.0
"""Seconds of sound that wait for a listener at most; newer sound pushes out the oldest."""

STRETCH = 1000
"""Samples of a second that the resampler may add or drop, inaudibly, where the clocks of sound and
pictures differ: 2 %, of which a bad sound card takes a hundredth. Beyond a tenth of a second there is
silence, or a cut."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of sound with its time."""

    seconds: float
    """The time at which the first sample is heard, on the clock of `Frame.seconds` of the same
    source."""
    frame: AudioFrame
    """Samples in `RATE`, `LAYOUT` and `FORMAT`, without a time of their own."""


class LiveAudio:
    """Decoded sound in one format, whatever the source changes to. Thread-safe.

    Nothing is decoded or kept before `listen`. The listener calls `take` again and again, and compares
    `seconds` with the frames that it shows. Successive pieces follow each other to within 2 ms, by
    which the sound's clock is kept to that of the pictures; more is a gap, to be filled with silence.
    """

    def __init__(self, codec: str) -> None:
        """`codec` is the name of the source's own codec, for information."""
        self.codec = codec
        self.dropped = 0
        self._listening = self._closed = False
        self._items: deque[Sound] = deque()
        self._waiting = 0.0
        self._reached = 0.0
        self._changed = threading.Condition()
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None

    @property
    def listening(self) -> bool:
        """True while a listener wants the sound."""
        return self._listening and not self._closed

    def listen(self) -> None:
        """Start to keep sound; what came before is not kept."""
        self._listening = True

    def put(self, seconds: float, frame: AudioFrame) -> None:
        """Add samples of any kind, heard at `seconds`; called by the source's thread."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or kind != self._kind:
            self._resampler = av.AudioResampler(format=FORMAT, layout=LAYOUT, rate=RATE)
            self._kind = kind
        frame.pts = None
        for made in self._resampler.resample(frame):
            self._add(seconds, made)
            seconds += made.samples / RATE

    def _add(self, seconds: float, frame: AudioFrame) -> None:
        length = frame.samples / RATE
        with self._changed:
            off = seconds - self._reached
            if self._closed or off + length / 2 < -_JITTER:
                self.dropped += 1
                return
            if abs(off) < _JITTER:
                # The transport is uneven, the sound is not: its time follows the clock slowly.
                seconds = self._reached + off * _PULL
            self._reached = seconds + length
            self._items.append(Sound(seconds, frame))
            self._waiting += length
            while self._waiting > LONGEST:
                self._waiting -= self._items.popleft().frame.samples / RATE
                self.dropped += 1
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> Sound | None:
        """Returns the oldest piece that waits; None after `timeout` seconds, or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout)
            if not self._items:
                return None
            sound = self._items.popleft()
            self._waiting -= sound.frame.samples / RATE
            return sound

    @property
    def closed(self) -> bool:
        """True if all was taken and no more will come."""
        return self._closed and not self._items

    def close(self) -> None:
        """End the sound: no more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Hearing(Protocol):
    """A source of sound."""

    def listen(self) -> None:
        """Start to keep sound; what came before is not kept."""
        ...

    def take(self, timeout: float | None = None) -> Sound | None:
        """Returns the oldest piece that waits; None after `timeout` seconds."""
        ...


class Evened:
    """Resamples sound to follow its timestamps without gaps: FFmpeg's `aresample` with `async`."""

    def __init__(self) -> None:
        self._graph: Any = Graph()
        source = self._graph.add_abuffer(
            sample_rate=RATE, format=FORMAT, layout=LAYOUT, time_base=Fraction(1, RATE)
        )
        self._even = self._graph.add(
            "aresample", f"async={STRETCH}:min_comp=0.005:min_hard_comp=0.1:first_pts=0"
        )
        sink = self._graph.add("abuffersink")
        source.link_to(self._even)
        self._even.link_to(sink)
        self._graph.configure()

    def __call__(self, frame: AudioFrame, seconds: float) -> Iterator[AudioFrame]:
        """Yields what is ready after `frame`, which is heard at `seconds` from the beginning."""
        # Other sinks may hear the same samples.
        own = AudioFrame.from_ndarray(frame.to_ndarray(), format=FORMAT, layout=LAYOUT)
        own.sample_rate, own.pts, own.time_base = RATE, round(seconds * RATE), Fraction(1, RATE)
        self._graph.push(own)
        yield from self._ready()

    def end(self) -> Iterator[AudioFrame]:
        """Yields the rest at the end of the sound."""
        self._graph.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[AudioFrame]:
        while True:
            try:
                yield self._graph.pull()
            except (BlockingIOError, EOFError):
                return


def _silence() -> AudioFrame:
    """Returns a second of silence."""
    made = AudioFrame.from_ndarray(np.zeros((2, RATE), np.float32), format=FORMAT, layout=LAYOUT)
    made.sample_rate = RATE
    return made


class PassingSound:
    """A live source's sound in one output, with the interface of `PassingStreams` for files.

    It is encoded alongside the pictures, never ahead of them. What a source's sound card and its camera
    call a second differ; the sound is stretched by as little as keeps it within a few milliseconds of
    the pictures.
    """

    def __init__(
        self,
        source: Hearing,
        container: OutputContainer,
        *,
        origin: float,
        codec: str,
        on_packet: OnPacket | None = None,
    ) -> None:
        """`origin` is the first picture's time on the source's clock, which is 0 in the output; `codec`
        is an encoder such as aac or libopus."""
        self.end = float("inf")
        """Seconds of the output after which no sound begins."""
        self._source = source
        self._container = container
        self._origin = origin
        self._codec = codec
        self._on_packet = on_packet
        self._stream: AudioStream | None = None
        self._even = Evened()
        self._waiting: Sound | None = None
        self._reached = 0.0
        self._ended = False

    def begin(self, video: object) -> None:
        """Add the stream of sound, after the pictures' and before the container's header."""
        del video
        stream = self._container.add_stream(self._codec, rate=RATE, layout=LAYOUT)
        self._stream = cast(AudioStream, stream)
        self._source.listen()

    def mux_until(self, seconds: float) -> None:
        """Write the sound before `seconds` of the output; infinity writes all the rest.

        It never waits: late sound goes with a later picture.
        """
        if self._stream is None or self._ended:
            return
        while True:
            self._waiting = self._waiting or self._source.take(0)
            heard = self._waiting
            if heard is None or heard.seconds > min(seconds, self.end) + self._origin:
                break
            self._waiting = None
            if heard.seconds < self._origin - heard.frame.samples / RATE:
                continue  # of before the first picture
            at = max(heard.seconds - self._origin, 0.0)
            # A long silence in one piece would take as much memory, and all at once.
            while at - self._reached > 1.0:
                self._encode(self._even(_silence(), self._reached))
                self._reached += 1.0
            self._encode(self._even(heard.frame, at))
            self._reached = at + heard.frame.samples / RATE
        if seconds == float("inf"):
            self._ended = True
            self._encode([*self._even.end(), None])

    def finish(self) -> None:
        """Write all that is left, before the container is closed."""
        self.mux_until(float("inf"))

    def close(self) -> None:
        """Nothing to close: the source belongs to the caller."""
        return

    def _encode(self, frames: Iterable[AudioFrame | None]) -> None:
        """Encode the frames and write their packets; None flushes the encoder."""
        assert self._stream is not None
        for frame in frames:
            for packet in cast("list[Packet[Any]]", self._stream.encode(frame)):
                if self._on_packet is not None:
                    self._on_packet(packet)
                self._container.mux(packet)


def sound_codec(container: OutputContainer) -> str | None:
    """Returns the audio encoder for a container: AAC or Opus, the first that it takes; None for
    neither."""
    offered = container.supported_codecs
    names = ("aac", "libopus", "opus")
    if container.format.name in ("mpegts", "hls"):
        return "aac"  # these declare no list that can be asked
    found = next((name for name in names if name in offered), None)
    return "libopus" if found == "opus" else found
