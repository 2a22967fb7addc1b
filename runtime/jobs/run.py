"""`velatura run`: one source through a chain of models into one sink, in one process or several."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..backends import Engine
from ..backends.identity import NAME as IDENTITY
from ..errors import SinkError, SourceError, TruncatedSourceError, VelaturaError
from ..meter import peak_memory
from ..pump import Pump, Snapshot, Stats
from ..resume.journal import journal_folder, leftover
from ..sinks import Sink
from ..sinks.segmented_file import JournalSink, OnlySink
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
from .workers import LocalWorkers, make_segments, prime

if TYPE_CHECKING:
    from ..verify.picture import Likeness

INTERRUPTED = 130


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
    if not isinstance(sink, JournalSink):
        if job.workers > 1:
            say.note("one process makes it: it is too short for segments")
        return Pump(source, stages, sink).run(progress=progress, limit=job.frames)
    if sink.kept:
        again = "" if sink.frames == sink.kept else " in pieces"
        say.note(f"going on after {sink.kept} frames{again} that an earlier run made")
    lead = lead_of(stages)
    with PartSource(
        source,
        lambda: open_input(job),
        length=sink.length,
        lead=lead,
        limit=job.frames,
        least=sink.frames,
    ) as part:
        if job.workers == 1 or sink.published:
            return _process_rest(part, stages, sink, lead, say, progress)
        sink.prepare(prime(stages, part))
        index = sink.index(partial(part.index, every=sink.length, ahead=max(lead, 1)))
    # The workers open their own.
    source.close()
    for engine in engines:
        engine.close()
    workers = LocalWorkers(job.workers, job, sink.share())
    return make_segments(job, sink, workers, index, lead, progress)


def _process_rest(
    part: PartSource,
    stages: list[Stage],
    sink: JournalSink,
    lead: int,
    say: Reporter,
    progress: Callable[[Snapshot], None],
) -> Stats:
    """Process all frames that no earlier run made, in this process.

    Those that are kept are not decoded again where the source can be sought in and is proven to give
    what it gave before.
    """
    if sink.kept:
        prime(stages, part)
        traces, start = sink.traces, None
        if traces and all(trace.steady for trace in traces):
            index = sink.index(partial(part.index, every=sink.length, ahead=max(lead, 1)))
            if index is not None:
                start = index.start(len(traces) * sink.length - max(lead, 1))
        if traces and start is not None:
            part.take(len(traces), start=start, before=traces[-1].end, rest=True)
        else:
            say.note("they are read again, as the source cannot be sought in")
    sink.trace = part.trace
    begin = part.first.index + sink.kept
    only = OnlySink(sink, lambda frame: frame.index >= begin)
    stats = Pump(part, stages, only).run(
        progress=lambda snapshot: progress(replace(snapshot, frames=only.frames))
    )
    ahead = stats.frames_out - only.frames
    return replace(
        stats,
        frames_in=stats.frames_in - ahead,
        frames_out=only.frames,
        notes=(*stats.notes, *part.notes),
    )


def _less(total: int | None, kept: int) -> int | None:
    return None if total is None else max(total - kept, 0)


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
