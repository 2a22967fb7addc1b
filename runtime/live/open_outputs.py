"""Opening of a live run's outputs by their addresses, and sharing of one source's sound among them."""

import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

from ..errors import SinkError
from ..frame import VideoInfo
from ..media.audio_encode import Heard
from ..sinks import Encoding, Sink, open_sink
from ..sinks.constant_rate import SteadySink
from ..sources import Source
from ..worker import Channel, DaemonThread
from .output import RECORDING, Drop, Output

LONGEST = 1500
"""Pieces of sound that wait for a sink at most: half a minute of 20 ms each."""


class Audible(Protocol):
    """Sound of a live source."""

    def listen(self) -> None:
        """Start to keep sound; what came before is not kept."""
        ...

    def take(self, timeout: float | None = None) -> Heard | None:
        """Returns the oldest piece that waits."""
        ...

    @property
    def closed(self) -> bool:
        """True if no more will come."""
        ...


class Branch(Channel[Heard]):
    """The sound for one sink; `take` never waits, since sound that is late goes with a later
    picture."""

    def __init__(self) -> None:
        super().__init__("oldest", depth=LONGEST)

    def listen(self) -> None:
        """Nothing to do: the source is listened to already."""
        return

    def take(self, timeout: float | None = None) -> Heard | None:
        """Returns the oldest piece; None where there is none."""
        del timeout
        return super().take(0.0)


class Sounds:
    """Takes a source's sound in a thread of its own, and gives all of it to every branch."""

    def __init__(self, source: Audible) -> None:
        self._source = source
        self._branches: list[Branch] = []
        self._closing = threading.Event()
        source.listen()
        self._thread = DaemonThread(self._run, "velatura-sound")
        self._thread.start()

    def branch(self) -> Branch:
        """Returns a branch with all sound from now on."""
        branch = Branch()
        self._branches = [*self._branches, branch]
        return branch

    def leave(self, branch: Branch) -> None:
        """Remove a branch."""
        self._branches = [other for other in self._branches if other is not branch]

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._thread.wait(1.0)

    def _run(self) -> None:
        while not self._closing.is_set() and not self._source.closed:
            heard = self._source.take(0.2)
            if heard is not None:
                for branch in self._branches:
                    branch.put(heard)


MOST_WAITING = 512 << 20
"""Bytes of frames that wait for a recording at most."""
STREAMING = 8
"""Frames that wait for a stream's encoder and connection: a hiccup of a quarter of a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The common settings of one run's sinks."""

    source: Source
    encoding: Encoding
    overwrite: bool = False
    drop: Drop = "oldest"
    sounds: Sounds | None = None
    """The source's sound; None where there is none, or nobody wants it."""
    tell: Callable[[str], None]

    def hearing(self, make: Callable[[Branch | None], Sink]) -> tuple[Sink, Callable[[], None] | None]:
        """Returns a sink made with the sound, and the function that ends its sound; a sink that fails
        gets none."""
        sounds = self.sounds
        if sounds is None:
            return make(None), None
        branch = sounds.branch()
        try:
            return make(branch), lambda: sounds.leave(branch)
        except BaseException:
            sounds.leave(branch)
            raise


def open_output(uri: str, place: Place) -> Output:
    """Opens an output: `window:`, `virtual:[DEVICE]`, `null:`, `-` (y4m), an address such as
    rtmp://host/live/key or srt://host:port, a playlist `.m3u8`, or a video file. Raises SinkError."""
    info = place.source.info
    if uri == "window:":
        from ..sinks.window import WindowSink

        return Output(WindowSink())
    if uri.startswith("virtual:"):
        from ..sinks.virtual_camera import VirtualCameraSink

        return Output(VirtualCameraSink(uri.partition(":")[2] or None, rate=float(info.rate)))
    if uri == "null:":
        return Output(open_sink(uri, like=place.source, encoding=place.encoding), drop=place.drop)
    if uri == "-":
        pipe = open_sink(uri, like=place.source, encoding=place.encoding, audio=False)
        return Output(SteadySink(pipe, info.rate), depth=STREAMING, drop=place.drop)
    from ..sinks.stream import StreamSink, is_stream

    if is_stream(uri):
        stream, leave = place.hearing(
            lambda sound: StreamSink(
                uri, like=info, encoding=place.encoding, sound=sound, tell=place.tell
            )
        )
        return Output(stream, depth=STREAMING, drop=place.drop, ended=leave)
    return record(Path(uri), info, place, overwrite=place.overwrite)


def record(path: Path, info: VideoInfo, place: Place, *, overwrite: bool = False) -> Output:
    """Returns the output of a recording, which takes every frame that it can. Raises SinkError."""
    from ..sinks.recording import RecordingSink

    sink, leave = place.hearing(
        lambda sound: RecordingSink(
            path, like=info, encoding=place.encoding, overwrite=overwrite, sound=sound
        )
    )
    # 240 frames of a large picture would be gigabytes.
    size = sum(map(prod, info.format.plane_shapes(info.width, info.height)))
    fits = MOST_WAITING // max(size * info.format.dtype.itemsize, 1)
    depth = max(min(RECORDING, fits), 8)
    return Output(sink, depth=depth, keeps=True, drop=place.drop, ended=leave)


def close_all(
    outputs: Sequence[Output],
    failed: Callable[[Sink, Exception], None],
    *,
    tell: Callable[[str], None],
) -> None:
    """Close every sink that has frames; one that cannot be finished does not prevent the others.

    Files are closed first. Nothing interrupts it: a second Ctrl-C must not cost what was filmed.
    """
    with undisturbed():
        for output in sorted(outputs, key=lambda one: not one.keeps):
            sink = output.sink
            if output.busy:
                failed(sink, SinkError(f"{sink.uri} is stuck and was left"))
                continue
            try:
                if sink.frames and output.keeps:
                    tell(f"finishing {sink.uri}")
                if sink.frames:
                    sink.close()
                else:
                    sink.abort()
            except Exception as error:
                failed(sink, error)


@contextmanager
def undisturbed() -> Generator[None]:
    """SIGINT and SIGTERM are ignored meanwhile, where signals can be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
