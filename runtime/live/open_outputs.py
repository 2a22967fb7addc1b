"""Opening of a live run's outputs by their addresses, and sharing of one source's sound among them."""

import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..errors import SinkError
from ..frame import VideoInfo
from ..media.live_audio import Sound
from ..sinks import Encoding, Sink, open_live_sink
from ..sinks.kind import Writing
from ..sources import Source
from ..worker import Channel, DaemonThread
from .output import Drop, Output

LONGEST = 1500
"""Pieces of sound that wait for a sink at most: half a minute of 20 ms each."""


class Audible(Protocol):
    """Sound of a live source."""

    def listen(self) -> None:
        """Start to keep sound; what came before is not kept."""
        ...

    def take(self, timeout: float | None = None) -> Sound | None:
        """Returns the oldest piece that waits."""
        ...

    @property
    def closed(self) -> bool:
        """True if no more will come."""
        ...


class Branch(Channel[Sound]):
    """The sound for one sink; `take` never waits, since sound that is late goes with a later
    picture."""

    def __init__(self) -> None:
        super().__init__("oldest", depth=LONGEST)

    def listen(self) -> None:
        """Nothing to do: the source is listened to already."""
        return

    def take(self, timeout: float | None = None) -> Sound | None:
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

    def output(self, info: VideoInfo, make: Callable[[Writing], Sink], *, overwrite: bool) -> Output:
        """Returns the output with a sink that `make` opens; the sound of one that fails is ended."""
        sounds, branches = self.sounds, list[Branch]()

        def hear() -> Branch | None:
            if sounds is not None:
                branches.append(sounds.branch())
            return branches[0] if branches else None

        def leave() -> None:
            for branch in branches:
                assert sounds is not None
                sounds.leave(branch)

        try:
            sink = make(
                Writing(
                    like=info,
                    encoding=self.encoding,
                    overwrite=overwrite,
                    hear=hear,
                    tell=self.tell,
                )
            )
        except BaseException:
            leave()
            raise
        how = sink.delivery
        drop = self.drop if how.asks else "oldest"
        return Output(sink, depth=how.depth, keeps=how.keeps, drop=drop, ended=leave)


def open_output(uri: str, place: Place) -> Output:
    """Opens an output by its address. Raises SinkError."""
    return place.output(
        place.source.info, lambda writing: open_live_sink(uri, writing), overwrite=place.overwrite
    )


def record(path: Path, info: VideoInfo, place: Place) -> Output:
    """Returns the output of a recording, which takes every frame that it can. Raises SinkError."""
    from ..sinks.file import RecordingSink

    return place.output(info, lambda writing: RecordingSink(str(path), writing), overwrite=False)


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
