"""Workers: processes that make the segments of one film, which are handed out one by one.

Tasks and results are plain data, so that actors on other machines can stand where the processes are.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from statistics import median
from typing import Any, Protocol, Self, cast

from ..errors import SinkError, StageError, VelaturaError
from ..frame import Damage, Frame
from ..media.packet_index import PacketIndex, Start, Trace
from ..meter import peak_memory
from ..pump import Pump, Snapshot, Stats, Timing
from ..resume.journal import Share
from ..sinks.segmented_file import JournalSink, OnlySink, ShareSink
from ..sources.segment_part import PartSource
from ..stages import Stage
from .job import Job, blending_of, lead_of, open_engines, open_input, stages_of

TRIES = 3
"""Workers that may die at one segment."""
LATE = 2.0
"""Times the usual for a segment, after which an idle worker makes it, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A segment to be made."""

    segment: int
    start: Start | None
    """Where reading may begin; None is the film's beginning."""
    before: str
    """The digest of the source's frame before the segment, where it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What became of a task."""

    segment: int
    path: Path | None
    """The segment under a temporary name; None where the film ends before it."""
    total: int | None
    """Frames of the film, where its end was reached."""
    trace: Trace
    damage: Damage
    """That of the film as its reader knows it, where the end was reached."""
    stats: Stats


@dataclass(frozen=True, slots=True)
class Death:
    """The end of a worker that should have worked on."""

    code: int | None
    """The exit code of its process."""


Heard = int | Made | VelaturaError | Death
"""What comes from a worker: the number of frames so far of its task, the result, or its end."""


class Workers(Protocol):
    """Numbered workers, from 0, each of which makes one task at a time."""

    count: int

    def give(self, worker: int, task: Task) -> None:
        """Let an idle worker make a segment."""
        ...

    def hear(self, seconds: float) -> list[tuple[int, Heard]]:
        """Returns what the workers have said, after so many seconds at the latest."""
        ...

    def renew(self, worker: int) -> None:
        """Start another worker in the place of one that has died."""
        ...

    def close(self) -> None:
        """End all workers; what they are at is lost."""
        ...


class Maker:
    """Makes segments, one after another: a worker's inside, in whatever process that is."""

    def __init__(self, job: Job, share: Share) -> None:
        """Open source, models and encoder. Raises VelaturaError."""
        self._share = share
        with ExitStack() as stack:
            source = stack.enter_context(open_input(job))
            engines = open_engines(job, stack, _unheard, share.choices)
            blending = blending_of(job, source.info)
            self._stages = stages_of(job, engines, blending, segment=share.state.length)
            self._part = stack.enter_context(
                PartSource(
                    source,
                    lambda: open_input(job),
                    length=share.state.length,
                    lead=lead_of(self._stages),
                    limit=job.frames,
                )
            )
            prime(self._stages, self._part)
            self._sink = stack.enter_context(ShareSink(share))
            self._stack = stack.pop_all()

    def make(self, task: Task, progress: Callable[[int], None]) -> Made:
        """Returns the segment, which is whole and on the disk. Raises VelaturaError."""
        part, sink = self._part, self._sink
        part.take(task.segment, start=task.start, before=task.before)
        begin = part.first.index + task.segment * self._share.state.length
        only = OnlySink(sink, lambda frame: frame.index >= begin)
        sink.begin(task.segment)
        stats = Pump(part, self._stages, only).run(progress=lambda _: progress(only.frames), every=0.5)
        trace = part.trace(task.segment)
        return Made(
            segment=task.segment,
            path=sink.end(trace) if only.frames else None,
            total=part.total,
            trace=trace,
            damage=part.damage,
            stats=replace(
                stats,
                frames_out=only.frames,
                memory_elsewhere=peak_memory() or 0,
                notes=(*stats.notes, *part.notes),
            ),
        )

    def close(self) -> None:
        """Close all that was opened."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LocalWorkers:
    """Processes on this machine."""

    def __init__(self, count: int, job: Job, share: Share) -> None:
        self.count = count
        self._given = job, share
        # Not forked: inference libraries and decoders have threads, which a forked process would lack.
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, tuple[Any, Connection]] = {}
        try:
            for worker in range(count):
                self.renew(worker)
        except BaseException:
            self.close()
            raise

    def renew(self, worker: int) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(*self._given, theirs), daemon=True)
        process.start()
        theirs.close()
        self._processes[worker] = process, ours

    def give(self, worker: int, task: Task) -> None:
        with suppress(OSError):  # it has died, which is heard
            self._processes[worker][1].send(task)

    def hear(self, seconds: float) -> list[tuple[int, Heard]]:
        talking = {ours: worker for worker, (_, ours) in self._processes.items() if not ours.closed}
        heard: list[tuple[int, Heard]] = []
        for ready in wait(list(talking), timeout=seconds):
            ours = cast(Connection, ready)
            worker = talking[ours]
            try:
                heard.append((worker, ours.recv()))
            except (EOFError, OSError):
                process, _ = self._processes[worker]
                process.join()
                ours.close()
                heard.append((worker, Death(process.exitcode)))
        return heard

    def close(self) -> None:
        for process, _ in self._processes.values():
            if process.is_alive():
                with suppress(OSError):
                    process.kill()
        for process, ours in self._processes.values():
            process.join()
            ours.close()


class Schedule:
    """Which worker makes which segment next: no processes, no clock of its own."""

    def __init__(self, made: Collection[int], *, expected: int | None, seeks: bool) -> None:
        """`expected` is the number of segments by the source's index; only the end tells. Without
        `seeks`, to reach a segment all before it must be read."""
        self.end: int | None = None
        """The number of segments, once the film's end was seen."""
        self.seeks = seeks
        self._made = set(made)
        self._expected = expected
        self._running: dict[int, tuple[int, float]] = {}
        self._last: dict[int, int] = {}
        self._took: list[float] = []

    @property
    def complete(self) -> bool:
        """True once all segments are made."""
        return self.end is not None and not any(n not in self._made for n in range(self.end))

    def next(self, worker: int, now: float) -> int | None:
        """Returns the segment that an idle worker is to make, at that time in seconds; None for a
        pause."""
        found = self._choose(worker, now)
        if found is not None:
            self._running[worker] = found, now
            self._last[worker] = found
        return found

    def done(self, worker: int, now: float, *, made: bool) -> None:
        """Note that a worker is idle, and whether its segment is made."""
        segment, begun = self._running.pop(worker)
        if made:
            self._made.add(segment)
            self._took.append(now - begun)

    def died(self, worker: int) -> int | None:
        """Returns the segment of a worker that has died, which is to be made by another."""
        self._last.pop(worker, None)
        return self._running.pop(worker, (None, 0.0))[0]

    def drop(self, segments: Collection[int]) -> None:
        """Have segments made again, and the film's end looked for."""
        self._made -= set(segments)
        self.end, self.seeks = None, False

    def _free(self) -> Iterator[int]:
        """Yields the segments that nobody makes or has made, up to the end."""
        end = self.end
        if end is None and self._expected is not None:
            # One more is tried where the film did not end as expected.
            beyond = max((n + 1 for n in self._made), default=0)
            end = max(self._expected, beyond + (beyond >= self._expected))
        if end is None:  # each worker looks for one more
            end = max((*self._made, *(n for n, _ in self._running.values())), default=-1) + 2
        taken = self._made | {n for n, _ in self._running.values()}
        return (n for n in range(end) if n not in taken)

    def _choose(self, worker: int, now: float) -> int | None:
        free, last = list(self._free()), self._last.get(worker, -1)
        if not free:
            return self._straggler(now)
        if last + 1 in free:
            return last + 1
        if not self.seeks:
            return next((n for n in free if n > last), free[0])
        # The middle of what the others will come to last.
        begin, length = max(_runs(free), key=lambda run: run[1])
        headed = any(n + 1 == begin for n, _ in self._running.values())
        return begin + length // 2 if headed else begin

    def _straggler(self, now: float) -> int | None:
        """Returns the segment that one worker alone has been at for far longer than usual."""
        times = Counter(n for n, _ in self._running.values())
        late = [
            (begun, n)
            for n, begun in self._running.values()
            if self._took and times[n] == 1 and now - begun > LATE * median(self._took)
        ]
        return min(late)[1] if late else None


def make_segments(
    job: Job,
    sink: JournalSink,
    workers: Workers,
    index: PacketIndex | None,
    lead: int,
    progress: Callable[[Snapshot], None],
) -> Stats:
    """Make all segments that are missing, and take them into the journal; `sink.close` joins them.

    The film is that of one process: each segment's maker tells which frame of the source it had read
    before, and where that is not the last one of the segment before, what was sought is made again by
    reading all. A worker that dies costs its segment. Ctrl-C raises KeyboardInterrupt; whole segments
    stay. Raises the first error of any worker, and SinkError where a segment kills one after another.
    """
    start = time.perf_counter()
    before, length = sink.kept, sink.length
    numbers = [n for n in (index.frames if index else None, job.frames) if n is not None]
    schedule = Schedule(
        sink.made(),
        expected=-(-min(numbers) // length) if index else None,
        seeks=index is not None and bool(index.starts),
    )
    idle = set(range(workers.count))
    ahead = dict.fromkeys(range(workers.count), 0)
    memory = dict.fromkeys(range(workers.count), 0)
    deaths: Counter[int | None] = Counter()
    stats: list[Stats] = []
    last: Made | None = None
    finished = 0
    try:
        while not schedule.complete:
            for worker in sorted(idle):
                segment = schedule.next(worker, time.perf_counter())
                if segment is None:
                    continue
                idle.discard(worker)
                begin = segment * length - max(lead, 1)
                found = index.start(begin) if index is not None and schedule.seeks else None
                workers.give(
                    worker, Task(segment=segment, start=found, before=sink.end_of(segment - 1))
                )
            for worker, told in workers.hear(0.25):
                if isinstance(told, VelaturaError):
                    raise told
                if isinstance(told, Death):
                    segment = schedule.died(worker)
                    ahead[worker] = 0
                    deaths[segment] += 1
                    _check_deaths(sink, deaths, segment, told)
                    workers.renew(worker)
                    idle.add(worker)
                elif isinstance(told, int):
                    ahead[worker] = told
                else:
                    ahead[worker] = 0
                    idle.add(worker)
                    memory[worker] = max(memory[worker], told.stats.memory_elsewhere)
                    # What was sought before it was known that nothing may be sought does not count.
                    good = schedule.seeks or not told.trace.sought
                    fresh = good and (told.path is None or sink.accept(told.path, told.segment))
                    schedule.done(worker, time.perf_counter(), made=good and told.path is not None)
                    if not good:
                        if told.path is not None:
                            told.path.unlink()
                        continue
                    stats.append(told.stats)
                    finished += told.stats.frames_out if fresh else 0
                    if told.total is not None:
                        last = told
                        schedule.end = -(-told.total // length)
                    if strays := sink.drop_strays():
                        schedule.drop(strays)
            progress(Snapshot(finished + sum(ahead.values()), time.perf_counter() - start, ()))
    finally:
        workers.close()
        # Finished segments count, however this ended.
        sink.collect()
    assert last is not None
    assert last.total is not None
    sink.collect(last.total)
    return Stats(
        frames_in=last.total - before,
        frames_out=last.total - before,
        elapsed=time.perf_counter() - start,
        first_frame=min((one.first_frame for one in stats if one.frames_out), default=0.0),
        timings=_merged(stats),
        damage=last.damage,
        interrupted=False,
        memory_elsewhere=sum(memory.values()),
        notes=tuple(dict.fromkeys(note for one in stats for note in one.notes)),
    )


def prime(stages: list[Stage], source: PartSource) -> Frame:
    """Returns the result for the film's first frame; stages with memory have then seen it."""
    frame = source.first
    for stage in stages:
        frame = stage(frame)
    return frame


def _check_deaths(
    sink: JournalSink, deaths: Counter[int | None], segment: int | None, death: Death
) -> None:
    """Raise SinkError where workers die again and again."""
    if deaths[segment] < TRIES:
        return
    what = "with nothing to do"
    if segment is not None:
        what = f"at the frames {segment * sink.length} to {(segment + 1) * sink.length - 1}"
    raise SinkError(
        f"{TRIES} worker processes died {what} (exit code {death.code}; -9 is often a lack of memory): "
        f"what is whole is kept beside {sink.path}; the same command, perhaps with fewer --workers, "
        "goes on"
    )


def _merged(stats: Sequence[Stats]) -> dict[str, Timing]:
    """Returns the timings of all segments: counts and sums are exact, percentiles the segments' means,
    weighted by their frames."""
    merged: dict[str, Timing] = {}
    for name in dict.fromkeys(name for one in stats for name in one.timings):
        found = [one.timings[name] for one in stats if name in one.timings]
        count = sum(t.count for t in found)

        def mean(of: str, found: list[Timing] = found, count: int = count) -> float:
            return sum(getattr(t, of) * t.count for t in found) / max(count, 1)

        merged[name] = Timing(
            count, sum(t.total for t in found), *map(mean, ("p50", "p95", "p99", "p999"))
        )
    return merged


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Returns (first, length) of each run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == sum(runs[-1]):
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((number, 1))
    return runs


def _work(job: Job, share: Share, talk: Connection) -> None:
    """Run in a worker's process."""
    # The terminal's Ctrl-C reaches every process; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        with Maker(job, share) as maker:
            while True:
                task = talk.recv()
                talk.send(maker.make(task, talk.send))
    except EOFError:
        return
    except VelaturaError as error:
        talk.send(error)
    except Exception as error:
        talk.send(StageError(f"a worker failed: {type(error).__name__}: {error}"))
    finally:
        talk.close()


def _unheard(what: str, done: float) -> None:
    """Ignore a builder's progress: the first process has built and stored what the models need."""
    del what, done


def _die_with_parent() -> None:
    """Exit when the process that handed out the tasks is gone: another may start with them."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
