"""`velatura run`: one source through a chain of models into one sink, in one process or several."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from ..backends import Engine
from ..backends.identity import NAME as IDENTITY
from ..errors import SinkError, SourceError, StageError, TruncatedSourceError, VelaturaError
from ..frame import Frame
from ..meter import peak_memory
from ..pump import Pump, Snapshot, Stats
from ..resume.journal import Share, journal_folder, leftover
from ..sinks import Sink
from ..sinks.segmented_file import JournalSink, OnlySink, ShareSink
from ..sources import Source
from ..sources.segment_part import PartSource
from ..stages import Stage
from .job import (
    Job,
    blending_of,
    journals,
    lead_of,
    open_engines,
    open_input,
    open_output,
    stages_of,
)
from .options import fail
from .progress import BuildView, Reporter

if TYPE_CHECKING:
    from ..verify.picture import Likeness

INTERRUPTED = 130
EVERY = 1000
"""Frames between two notes about frames that are read again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run that wrote its output."""

    report: dict[str, Any]
    """The closing figures, as they are printed by --json."""
    interrupted: bool
    loss: TruncatedSourceError | None
    """The error about frames lost in a damaged source, unless that is tolerated."""


def run_job(
    job: Job, comparison: Path | None = None, *, quiet: bool = False, as_json: bool = False
) -> int:
    """Runs the job and returns the exit code. Raises VelaturaError for whatever stops it.

    With `comparison` source and output are put side by side in that file afterwards.
    """
    say = Reporter(silent=quiet or as_json, aside=job.sink == "-")
    if comparison is not None:
        from .compare import check_comparison

        check_comparison(job, comparison)
    before = _written(job.source)
    try:
        with terminable():
            outcome = execute(job, say)
    except (VelaturaError, KeyboardInterrupt) as error:
        for line in say.notes if as_json else ():
            error.add_note(line)
        raise
    if outcome.loss is None and _changed(job.source, before):
        told = f"{job.source} was changed while it was read: {job.sink} may hold some of both"
        outcome = replace(outcome, loss=TruncatedSourceError(told))
    if as_json:
        report = {**outcome.report, "notes": say.notes}
        if (loss := outcome.loss) is not None:
            report |= {"error": str(loss), "kind": type(loss).__name__, "exit_code": loss.exit_code}
        typer.echo(json.dumps(report), err=say.aside)
    else:
        say.summary(outcome.report)
    if comparison is not None and not outcome.interrupted:
        from .compare import compare

        compare(
            job.source,
            job.sink,
            comparison,
            overwrite=job.overwrite,
            say=say.tell,
            start=job.start,
            end=job.end,
        )
    if outcome.loss is not None:
        if as_json:  # it is in the one object
            fail(str(outcome.loss), outcome.loss.exit_code)
        raise outcome.loss
    return INTERRUPTED if outcome.interrupted else 0


def execute(
    job: Job, say: Reporter, *, whole: bool = False, ready: Callable[[Path], None] | None = None
) -> Outcome:
    """Runs the job and returns its result. Raises VelaturaError for whatever stops it.

    Ctrl-C finishes the output with the frames that it has, or, where it must be `whole`, leaves none:
    KeyboardInterrupt is raised then, and only the journal is kept. `ready` is the sink's.
    """
    begin = time.perf_counter()
    before = _written(job.source)
    _check_name(job)
    with ExitStack() as stack:
        source = stack.enter_context(open_input(job))
        # Checked before the models load: a wrong mask or output name should not cost that wait.
        blending = blending_of(job, source.info)
        sink = _sink(job, source, say)
        sink.ready = ready
        try:
            total = min(filter(None, (source.info.frames, job.frames)), default=None)
            # Of a batch, the next files are spared what the first one measures.
            area = source.info.width * source.info.height
            pixels = None if total is None or whole else total * area
            with BuildView("", silent=say.silent) as view:
                engines = open_engines(job, stack, view, sink.choices, pixels=pixels)
            sink.likeness = _likeness(engines)
            sink.choose([(engine.backend, engine.precision) for engine in engines])
            said = [*source.info.notes, *(n for engine in engines for n in engine.notes), *sink.notes]
            said += blending.notes
            for line in said:
                say.note(line)
            opened = time.perf_counter() - begin
            with say.progress(_less(total, sink.kept)) as progress:
                stages = stages_of(job, engines, blending)
                stats = _process(job, source, engines, stages, sink, say, progress)
            if whole and stats.interrupted:
                raise KeyboardInterrupt
            _finish(sink, stats, source, limited=job.frames is not None or job.end is not None)
        except BaseException:
            sink.abort()
            if sink.left:
                say.note(
                    f"{sink.left} frames are kept beside {job.sink}: the same command goes on there"
                )
            raise
        later = [n for engine in engines for n in engine.notes]
        for line in (*later, *source.notes, *stats.notes, *sink.notes):
            if line not in said:
                say.note(line)
        report = summarise(job, sink, engines, stats, opened)
    loss: TruncatedSourceError | None = None
    if stats.damage and not job.tolerate:
        what = "was changed while it was read" if _changed(job.source, before) else "is damaged"
        loss = TruncatedSourceError(
            f"{job.source} {what}: {stats.damage.lost} frames lost ({stats.damage.reason}); "
            f"{job.sink} holds the {sink.frames} that could be decoded"
        )
    elif stats.damage:
        say.note(f"tolerated: {stats.damage.lost} frames lost ({stats.damage.reason})")
    return Outcome(report, stats.interrupted, loss)


def _check_name(job: Job) -> None:
    """Raises SinkError for a name that is taken, before frames are read that only lead to --start."""
    path = Path(job.sink)
    if job.start and not job.overwrite and path.is_file() and not journal_folder(path).exists():
        raise SinkError(f"{path} exists: --overwrite replaces it")


def _written(source: str) -> tuple[int, int, int, int] | None:
    """Returns what changes when a file is written to: file system, inode, size and time; None for what
    is no file."""
    path = Path(source)
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if not path.is_file():
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _changed(source: str, before: tuple[int, int, int, int] | None) -> bool:
    """Returns whether the file was written to since `before`. One that was replaced under its name was
    read to its end all the same."""
    now = _written(source)
    return before is not None and now is not None and now[:2] == before[:2] and now != before


def _likeness(engines: Sequence[Engine]) -> "Likeness | None":
    """Returns how the output resembles the source, by the models' cards.

    None with a foreign model, which may draw anything.
    """
    cards = [engine.card for engine in engines if engine.card.name != IDENTITY]
    if not all(card.recipe for card in cards):
        return None
    return "painted" if any(card.task == "style" for card in cards) else "same"


def _finish(sink: Sink, stats: Stats, source: Source, *, limited: bool) -> None:
    """Close the sink, or raise the reason why there is nothing to close."""
    if sink.frames == 0:
        if stats.interrupted:
            raise KeyboardInterrupt
        reason = stats.damage.reason or "it holds none that can be decoded"
        raise SourceError(f"{source.uri} gave no frame: {reason}")
    if stats.interrupted or limited:
        sink.stop_early(interrupted=stats.interrupted)
    sink.close()


def _sink(job: Job, source: Source, say: Reporter) -> Sink:
    """Returns the output, with a journal where one is possible and useful."""
    if job.sink not in ("null:", "-") and (not Path(job.sink).name or Path(job.sink).is_dir()):
        raise SinkError(f"{job.sink} is a folder: name a file in it")
    journal = journals(job, source.info)
    if not journal and job.sink != "null:" and leftover(Path(job.sink), remove=job.restart):
        say.note(f"the journal of an earlier run beside {job.sink} is left as it is")
    return open_output(job, source, journal=journal)


def _process(
    job: Job,
    source: Source,
    engines: list[Engine],
    stages: list[Stage],
    sink: Sink,
    say: Reporter,
    progress: Callable[[Snapshot], None],
) -> Stats:
    """Process all frames that no earlier run made, here or in workers."""
    shared = job.workers > 1 and isinstance(sink, JournalSink) and not sink.published
    if job.workers > 1 and not shared and not sink.kept:
        say.note("one process makes it: it is too short for segments")
    if not sink.kept and not shared:
        return Pump(source, stages, sink).run(progress=progress, limit=job.frames)
    if sink.kept:
        again = "" if sink.frames == sink.kept else " in pieces"
        say.note(
            f"going on after {sink.kept} frames{again} that an earlier run made; they are read again"
        )

    lead = min(lead_of(stages), sink.kept)

    def wanted(number: int) -> bool:
        if number < sink.kept and number % EVERY == EVERY - 1:
            say.note(f"{number + 1} of {sink.kept} frames read again")
        return number >= sink.kept - lead

    rest = PartSource(source, wanted, limit=job.frames, least=sink.kept)
    first = _prime(stages, rest)
    if not shared or not isinstance(sink, JournalSink):
        begin = rest.first.index + sink.kept
        only = OnlySink(sink, lambda frame: frame.index >= begin)
        stats = Pump(rest, stages, only).run(
            progress=lambda snapshot: progress(replace(snapshot, frames=only.frames))
        )
        ahead = stats.frames_out - only.frames
        return replace(stats, frames_in=stats.frames_in - ahead, frames_out=only.frames)
    sink.prepare(first)
    # The workers open their own.
    source.close()
    for engine in engines:
        engine.close()
    return _run_shares(job, sink, progress)


def _less(total: int | None, kept: int) -> int | None:
    return None if total is None else max(total - kept, 0)


def _run_shares(job: Job, sink: JournalSink, progress: Callable[[Snapshot], None]) -> Stats:
    """Make all missing segments in `job.workers` processes; then `sink.close` joins them.

    Every process reads the whole source and makes every n-th segment, which comes out as if one process
    had made them all. Ctrl-C stops them and raises KeyboardInterrupt; whole segments stay. Raises the
    first error of any process.
    """
    start = time.perf_counter()
    # Not forked: inference libraries and decoders have threads, which a forked process would lack.
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[Any, Connection]] = []
    before = sink.kept
    done = [0] * job.workers
    ends: list[tuple[int, Stats]] = []
    try:
        for share in sink.share(of=job.workers):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(job, share, theirs), daemon=True)
            process.start()
            theirs.close()
            workers.append((process, ours))
        talking = [ours for _, ours in workers]
        while talking:
            for ready in wait(talking, timeout=0.25):
                heard = cast(Connection, ready)
                number = next(n for n, (_, ours) in enumerate(workers) if ours is heard)
                try:
                    told = heard.recv()
                except EOFError:
                    talking.remove(heard)
                    continue
                if isinstance(told, BaseException):
                    raise told
                if isinstance(told, int):
                    done[number] = told
                    continue
                ends.append(cast("tuple[int, Stats]", told))
                done[number] = ends[-1][1].frames_out
            progress(Snapshot(sum(done), time.perf_counter() - start, ()))
        for process, _ in workers:
            process.join()
    finally:
        _end([process for process, _ in workers])
        for _, ours in workers:
            ours.close()
        # Finished segments count, however this ended.
        sink.collect()
    if len(ends) < job.workers:
        codes = ", ".join(str(process.exitcode) for process, _ in workers)
        raise SinkError(
            f"a worker process died (exit codes {codes}; -9 is often a lack of memory): what is whole "
            f"is kept beside {job.sink}; the same command, perhaps with fewer --workers, goes on"
        )
    total = ends[0][0]
    sink.collect(total)
    elapsed = time.perf_counter() - start
    stats = [one for _, one in ends]
    return Stats(
        frames_in=total - before,
        frames_out=total - before,
        elapsed=elapsed,
        first_frame=min((one.first_frame for one in stats if one.frames_out), default=0.0),
        timings=max(stats, key=lambda one: one.frames_out).timings,
        damage=stats[0].damage,
        interrupted=False,
        memory_elsewhere=sum(one.memory_elsewhere for one in stats),
        notes=tuple(dict.fromkeys(note for one in stats for note in one.notes)),
    )


def _prime(stages: list[Stage], source: PartSource) -> Frame:
    """Returns the result for the film's first frame; stages with memory have then seen it."""
    frame = source.first
    for stage in stages:
        frame = stage(frame)
    return frame


def _work(job: Job, share: Share, talk: Connection) -> None:
    """Run in a worker's process."""
    # The terminal's Ctrl-C reaches every process; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        with ExitStack() as stack:
            source = stack.enter_context(open_input(job))
            engines = open_engines(job, stack, _unheard, share.choices)
            blending = blending_of(job, source.info)
            stages = stages_of(job, engines, blending, segment=share.state.length)
            lead = lead_of(stages)
            part = PartSource(
                source, lambda n: share.takes(n) or share.leads(n, lead), limit=job.frames
            )
            _prime(stages, part)
            first = part.first.index
            with ShareSink(share) as sink:
                only = OnlySink(sink, lambda frame: share.takes(frame.index - first))
                stats = Pump(part, stages, only).run(
                    progress=lambda _: talk.send(only.frames), every=0.5
                )
            memory = peak_memory() or 0
            stats = replace(stats, frames_out=only.frames, damage=part.damage, memory_elsewhere=memory)
            talk.send((part.seen, stats))
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
    """Exit when the process that handed out the shares is gone: another may start with them."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _end(processes: list[Any]) -> None:
    """Kill all processes; finished segments survive it."""
    for process in processes:
        if process.is_alive():
            with suppress(OSError):
                process.kill()
        process.join()


def summarise(
    job: Job, sink: Sink, engines: list[Engine], stats: Stats, opened: float
) -> dict[str, Any]:
    """Returns the closing figures, as they are printed by --json."""
    path = Path(job.sink)
    size = path.stat().st_size if path.is_file() else None
    memory, times = peak_memory(), os.times()
    return {
        "source": job.source,
        "sink": job.sink,
        "models": [
            {"name": e.card.name, "backend": e.backend, "precision": e.precision} for e in engines
        ],
        "frames_in": stats.frames_in + sink.kept,
        "frames_out": stats.frames_out + sink.kept,
        "frames_kept": sink.kept,
        "frames_lost": stats.damage.lost,
        "interrupted": stats.interrupted,
        "fps": round(stats.rate, 2),
        "seconds": round(stats.elapsed, 3),
        "first_frame_seconds": round(opened + stats.first_frame, 3),
        "cpu_seconds": round(time.process_time() + times.children_user + times.children_system, 3),
        "peak_memory_mib": (
            round((memory + stats.memory_elsewhere) / 2**20, 1) if memory is not None else None
        ),
        "stages_ms": {
            name: {
                "p50": round(t.p50 * 1e3, 3),
                "p95": round(t.p95 * 1e3, 3),
                "p99": round(t.p99 * 1e3, 3),
                "total": round(t.total * 1e3, 1),
            }
            for name, t in stats.timings.items()
        },
        "output_bytes": size,
        "output_seconds": round(sink.duration, 3),
        "cores": os.cpu_count(),
    }


@contextmanager
def terminable(stop: Callable[[], object] | None = None) -> Generator[None]:
    """SIGTERM finishes the file as Ctrl-C does, where signals can be set.

    With `stop`, both request the end by it and interrupt nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: object) -> None:
        del number, frame
        if stop is None:
            raise KeyboardInterrupt
        stop()

    numbers = (signal.SIGTERM,) if stop is None else (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
