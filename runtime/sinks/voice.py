"""Voice: the sound of a live source on its way into a container, held to the clock of the pictures."""

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Protocol, cast

from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet

RATE = 48_000
LAYOUT, FORMAT = "stereo", "fltp"
"""What a live source's sound comes as: samples a second, channels, and how a sample is kept."""
STRETCH = 1000
"""Samples of a second that may be added or taken, unheard, where the sound's clock and the pictures'
differ: 2 %, of which a bad sound card takes a hundredth. Beyond a tenth of a second there is silence,
or a cut."""


class Heard(Protocol):
    """A moment's worth of samples."""

    @property
    def seconds(self) -> float:
        """When the first is heard, on the clock of the frames' times."""
        ...

    @property
    def frame(self) -> AudioFrame:
        """The samples."""
        ...


class Hearing(Protocol):
    """Where sound comes from."""

    def listen(self) -> None:
        """Keep what comes from now on."""
        ...

    def take(self, timeout: float | None = None) -> Heard | None:
        """What waits longest; None when the time is up."""
        ...


class Evened:
    """Sound without gaps that follows the times it is given: FFmpeg's `aresample` with `async`."""

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
        """What can be passed on with `frame`, heard at `seconds`, 0 being the beginning."""
        frame.pts, frame.time_base = round(seconds * RATE), Fraction(1, RATE)
        self._graph.push(frame)
        yield from self._ready()

    def end(self) -> Iterator[AudioFrame]:
        """All the rest."""
        self._graph.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[AudioFrame]:
        while True:
            try:
                yield self._graph.pull()
            except (BlockingIOError, EOFError):
                return


class Voice:
    """Takes the sound as the pictures go by, encodes it, and gives its packets, never ahead of them.

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
        self.end = float("inf")
        """Seconds at which the sound has to end."""
        source.listen()

    def until(self, seconds: float, *, origin: float) -> "Iterator[Packet[Any]]":
        """The packets of what is heard before `seconds`; `origin` is the first picture's time.

        Both on the source's clock. Nothing is waited for: what comes late goes with a later picture.
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
            for frame in self._even(heard.frame, max(heard.seconds - origin, 0.0)):
                yield from self._encode(frame)

    def rest(self) -> "Iterator[Packet[Any]]":
        """What is left in the encoder."""
        if self._origin is not None:
            for frame in self._even.end():
                yield from self._encode(frame)
        yield from self._encode(None)

    def _encode(self, frame: AudioFrame | None) -> "Iterator[Packet[Any]]":
        yield from cast("list[Packet[Any]]", self._stream.encode(frame))
