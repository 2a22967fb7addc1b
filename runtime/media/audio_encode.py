"""Encoding of a live source's sound into a container, held to the clock of the pictures."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any, Protocol, cast

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet

from .tracks import OnPacket

RATE = 48_000
LAYOUT, FORMAT = "stereo", "fltp"
"""Samples a second, channel layout and sample format of a live source's sound."""
STRETCH = 1000
"""Samples of a second that the resampler may add or drop, inaudibly, where the clocks of sound and
pictures differ: 2 %, of which a bad sound card takes a hundredth. Beyond a tenth of a second there is
silence, or a cut."""


class Heard(Protocol):
    """A piece of sound with its time."""

    @property
    def seconds(self) -> float:
        """The time at which the first sample is heard, on the clock of the frames' times."""
        ...

    @property
    def frame(self) -> AudioFrame:
        """The samples."""
        ...


class Hearing(Protocol):
    """A source of sound."""

    def listen(self) -> None:
        """Start to keep sound; what came before is not kept."""
        ...

    def take(self, timeout: float | None = None) -> Heard | None:
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


class Voice:
    """Encodes the sound alongside the pictures and yields its packets, never ahead of the pictures.

    What a source's sound card and its camera call a second differ; the sound is stretched by as little
    as keeps it within a few milliseconds of the pictures.
    """

    def __init__(self, source: Hearing, container: OutputContainer, *, codec: str) -> None:
        """Add a stream of `codec`, such as aac or libopus, before the container's header is written."""
        self._source = source
        self._stream = cast(AudioStream, container.add_stream(codec, rate=RATE, layout=LAYOUT))
        self._even = Evened()
        self._waiting: Heard | None = None
        self._origin: float | None = None
        self._reached = 0.0
        self.end = float("inf")
        """Seconds at which the sound must end."""
        source.listen()

    def until(self, seconds: float, *, origin: float) -> "Iterator[Packet[Any]]":
        """Yields the packets of the sound before `seconds`; `origin` is the first picture's time.

        Both are on the source's clock. It never waits: late sound goes with a later picture.
        """
        self._origin = origin
        while True:
            self._waiting = self._waiting or self._source.take(0)
            heard = self._waiting
            if heard is None or heard.seconds > min(seconds, self.end):
                return
            self._waiting = None
            if heard.seconds < origin - heard.frame.samples / RATE:
                continue  # of before the first picture
            at = max(heard.seconds - origin, 0.0)
            # A long silence in one piece would take as much memory, and all at once.
            while at - self._reached > 1.0:
                yield from self._pass(_silence(), self._reached)
                self._reached += 1.0
            yield from self._pass(heard.frame, at)
            self._reached = at + heard.frame.samples / RATE

    def _pass(self, frame: AudioFrame, seconds: float) -> "Iterator[Packet[Any]]":
        for even in self._even(frame, seconds):
            yield from self._encode(even)

    def rest(self) -> "Iterator[Packet[Any]]":
        """Yields the packets that are left in the encoder."""
        if self._origin is not None:
            for frame in self._even.end():
                yield from self._encode(frame)
        yield from self._encode(None)

    def _encode(self, frame: AudioFrame | None) -> "Iterator[Packet[Any]]":
        yield from cast("list[Packet[Any]]", self._stream.encode(frame))


class PassingSound:
    """A live source's sound in one output, with the interface of `PassingStreams` for files."""

    def __init__(
        self,
        source: Hearing,
        container: OutputContainer,
        *,
        origin: float,
        codec: str,
        on_packet: OnPacket | None = None,
    ) -> None:
        """`origin` is the first picture's time on the source's clock, which is 0 in the output."""
        self.end = float("inf")
        """Seconds of the output after which no sound begins."""
        self._source = source
        self._container = container
        self._origin = origin
        self._codec = codec
        self._on_packet = on_packet
        self._voice: Voice | None = None
        self._ended = False

    def begin(self, video: object) -> None:
        """Add the stream of sound, after the pictures' and before the container's header."""
        del video
        self._voice = Voice(self._source, self._container, codec=self._codec)

    def mux_until(self, seconds: float) -> None:
        """Write the sound before `seconds` of the output; infinity writes all the rest."""
        if self._voice is None or self._ended:
            return
        until = min(seconds, self.end) + self._origin
        self._mux(self._voice.until(until, origin=self._origin))
        if seconds == float("inf"):
            self._ended = True
            self._mux(self._voice.rest())

    def finish(self) -> None:
        """Write all that is left, before the container is closed."""
        self.mux_until(float("inf"))

    def close(self) -> None:
        """Nothing to close: the source belongs to the caller."""
        return

    def _mux(self, packets: "Iterable[Packet[Any]]") -> None:
        for packet in packets:
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
