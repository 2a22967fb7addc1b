"""Pump: reader -> stages -> writer, each in its own thread, with bounded queues between them."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from .errors import StageError, VelaturaError
from .frame import Damage, Frame
from .sinks import Sink
from .sources import Source
from .stages import PipelinedStage, Stage
from .worker import Channel, DaemonThread

PATIENCE = 10.0
"""Seconds that an aborted run waits for a thread that is stuck inside a library."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The progress of a run."""

    frames: int
    """Frames written so far."""
    elapsed: float
    """Seconds since the start."""
    queues: tuple[int, ...]
    """Frames waiting before each stage and before the writer."""

    @property
    def rate(self) -> float:
        """Frames per second so far."""
        return self.frames / self.elapsed if self.elapsed > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Timing:
    """Distribution of the seconds that a stage spent per frame, waiting for its neighbours left out."""

    count: int
    total: float
    p50: float
    p95: float
    p99: float
    p999: float


@dataclass(frozen=True, slots=True)
class Stats:
    """The figures of a finished run."""

    frames_in: int
    frames_out: int
    elapsed: float
    """Seconds from the start to the last frame's writing."""
    first_frame: float
    """Seconds from the start to the first frame's writing."""
    timings: dict[str, Timing]
    """Timings by `read`, each stage's name, and `write`."""
    damage: Damage
    interrupted: bool
    notes: tuple[str, ...] = ()
    """Notes on what stages changed, one line each."""
    memory_elsewhere: int = 0
    """The sum of the peak memory of other processes that took part, in bytes."""

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self.frames_out / self.elapsed if self.elapsed > 0 else 0.0


class Meter:
    """Collects durations of one stage; written by one thread, read by any."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Eight bytes a frame: a day of video at 30 fps is 20 MB.
        self._seconds = np.zeros(1024)
        self._count = 0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        """Add one duration."""
        with self._lock:
            if self._count == len(self._seconds):
                self._seconds = np.concatenate([self._seconds, np.zeros(self._count)])
            self._seconds[self._count] = seconds
            self._count += 1

    @contextmanager
    def measure(self) -> Generator[None]:
        """Add the duration of the body, unless it raises."""
        start = time.perf_counter()
        yield
        self.add(time.perf_counter() - start)

    @property
    def count(self) -> int:
        """The number of durations."""
        return self._count

    def timing(self) -> Timing:
        """Returns percentiles over all frames so far, interpolated linearly; zeros before the first."""
        with self._lock:
            seconds = self._seconds[: self._count].copy()
        if not len(seconds):
            return Timing(0, 0.0, 0.0, 0.0, 0.0, 0.0)
        p50, p95, p99, p999 = np.percentile(seconds, [50, 95, 99, 99.9])
        return Timing(
            len(seconds), float(seconds.sum()), float(p50), float(p95), float(p99), float(p999)
        )


class Pump:
    """Moves every frame of a source through the stages into a sink, in order, none dropped.

    Reading, each stage and writing overlap; at most `depth` frames wait between two of them, which
    bounds memory whatever the clip's length. Any callable from Frame to Frame is a stage.
    """

    def __init__(self, source: Source, stages: Sequence[Stage], sink: Sink, *, depth: int = 2) -> None:
        self.source = source
        self.stages = list(stages)
        self.sink = sink
        self._channels = [Channel[Frame]("never", depth=depth) for _ in range(len(self.stages) + 1)]
        self._reader = Meter("read")
        self._meters = [Meter(f"{i} {_name(stage)}") for i, stage in enumerate(self.stages, 1)]
        self._writer = Meter("write")
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._lock = threading.Lock()
        self._first: float | None = None
        self._start = 0.0

    def run(
        self,
        *,
        progress: Callable[[Snapshot], None] | None = None,
        every: float = 0.25,
        limit: int | None = None,
    ) -> Stats:
        """Processes all frames (or the first `limit`) and returns the figures. Run a pump once.

        Ctrl-C stops reading, finishes the frames on the way and returns with `interrupted`; a second
        Ctrl-C drops them and raises KeyboardInterrupt. The first error of any thread ends the run and
        is raised here: a `VelaturaError` as its own class, anything else as a StageError, both with the
        frame's number. The sink is left open: the caller closes or aborts it.
        """
        self._start = time.perf_counter()
        work = (
            ("read", self._read, (limit,)),
            *((f"stage-{i}", self._stage, (i,)) for i in range(len(self.stages))),
            ("write", self._write, ()),
        )
        threads = [
            DaemonThread(partial(self._guard, target, *args), f"velatura-{name}")
            for name, target, args in work
        ]
        interrupted = False
        while True:
            try:
                for thread in threads:
                    thread.start()
                self._watch(threads, progress, every)
                break
            except BaseException as error:
                if not isinstance(error, KeyboardInterrupt) or interrupted:
                    self._break_off()
                    _wait_for_all(threads)
                    raise
                interrupted = True
                self._stop.set()
        elapsed = time.perf_counter() - self._start
        reached = limit is not None and self._reader.count >= limit
        if self._failure is not None:
            raise self._failure
        if progress is not None:
            progress(self.snapshot())
        return Stats(
            frames_in=self._reader.count,
            frames_out=self._writer.count,
            elapsed=elapsed,
            first_frame=self._first or 0.0,
            timings={m.name: m.timing() for m in (self._reader, *self._meters, self._writer)},
            damage=Damage() if interrupted or reached else self.source.damage,
            interrupted=interrupted,
            notes=tuple(note for stage in self.stages for note in getattr(stage, "notes", ())),
        )

    def _watch(
        self, threads: list[DaemonThread], progress: Callable[[Snapshot], None] | None, every: float
    ) -> None:
        """Report progress until every thread has ended."""
        while any(thread.at_work for thread in threads):
            for thread in threads:
                thread.wait(every / len(threads))
            if progress is not None:
                progress(self.snapshot())

    def snapshot(self) -> Snapshot:
        """Returns the progress of the run; may be called from any thread."""
        return Snapshot(
            self._writer.count,
            time.perf_counter() - self._start,
            tuple(len(channel) for channel in self._channels),
        )

    def _read(self, limit: int | None) -> None:
        frames = iter(self.source)
        while not self._stop.is_set() and (limit is None or self._reader.count < limit):
            start = time.perf_counter()
            with _blaming(self.source, self._reader.count):
                frame = next(frames, None)
            if frame is None:
                break
            self._reader.add(time.perf_counter() - start)
            if not self._channels[0].put(frame):
                return
        self._channels[0].close()

    def _stage(self, index: int) -> None:
        stage, meter = self.stages[index], self._meters[index]
        source, target = self._channels[index], self._channels[index + 1]
        pipelined = stage if isinstance(stage, PipelinedStage) else None
        in_flight = 1 if pipelined is None else pipelined.in_flight
        running: deque[tuple[int, Callable[[], Frame], float]] = deque()

        def finish() -> bool:
            number, pending, spent = running.popleft()
            start = time.perf_counter()
            with _blaming(stage, number):
                result = pending()
            meter.add(spent + time.perf_counter() - start)
            return target.put(result)

        for frame in source:
            start = time.perf_counter()
            with _blaming(stage, frame.index):
                pending = partial(stage, frame) if pipelined is None else pipelined.submit(frame)
            running.append((frame.index, pending, time.perf_counter() - start))
            if len(running) >= in_flight and not finish():
                return
        while running:
            if not finish():
                return
        target.close()

    def _write(self) -> None:
        for frame in self._channels[-1]:
            with self._writer.measure(), _blaming(self.sink, frame.index):
                self.sink.write(frame)
            if self._first is None:
                self._first = time.perf_counter() - self._start

    def _guard(self, work: Callable[..., None], *args: object) -> None:
        """Run a thread's work; its first error stops the others and is kept for `run` to raise."""
        try:
            work(*args)
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error
            self._break_off()

    def _break_off(self) -> None:
        self._stop.set()
        for channel in self._channels:
            channel.close(drop=True)


def _wait_for_all(threads: list[DaemonThread]) -> None:
    """Wait until no thread uses the engines and the sink, which the caller closes next.

    A thread stuck in its library, as on a source that no longer answers, is given up after a while,
    also where Ctrl-C comes a third time.
    """
    until = time.monotonic() + PATIENCE
    for thread in threads:
        thread.outwait(max(until - time.monotonic(), 0.0))


class _blaming:  # noqa: N801 - reads as a verb
    """Adds the frame's number to errors that pass, and wraps foreign ones."""

    def __init__(self, culprit: object, number: int) -> None:
        self.culprit = culprit
        self.number = number

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, VelaturaError):
            raise _renamed(error, f"frame {self.number}: {error}") from error
        if isinstance(error, Exception):
            raise StageError(
                f"frame {self.number}: {_name(self.culprit)} failed: {type(error).__name__}: {error}"
            ) from error


def _renamed(error: VelaturaError, text: str) -> VelaturaError:
    """Returns a copy with another text and all attributes of the error, however its class is
    constructed."""
    copied = type(error).__new__(type(error))
    copied.__dict__.update(error.__dict__)
    copied.args = (text,)
    return copied


def _name(stage: object) -> str:
    """Returns a stage's name in figures and errors."""
    engine = getattr(stage, "engine", None)
    if engine is not None:
        return str(engine.card.name)
    return getattr(stage, "__name__", type(stage).__name__)
