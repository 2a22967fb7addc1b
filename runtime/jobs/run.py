"""`velatura run`: one source through a chain of models into one sink."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from ..backends import Engine
from ..errors import SinkError, SourceError, TruncatedSourceError
from ..frame import VideoInfo
from ..meter import peak_memory
from ..pump import Pump, Snapshot, Stats
from ..resume.journal import leftover
from ..sinks import Sink, open_sink, segmented_file, why_no_journal
from ..sinks.segmented_file import JournalSink, OnlySink, is_short
from ..sources import Source
from ..sources.segment_part import PartSource
from .chain import Job, lead_of, open_engines, open_input, settings_of, stages_of
from .compare import check_comparison, compare
from .progress import BuildView, Reporter
from .workers import prime, run_shares

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
        check_comparison(job, comparison)
    with terminable():
        outcome = execute(job, say)
    if as_json:
        typer.echo(json.dumps(outcome.report), err=say.aside)
    else:
        say.summary(outcome.report)
    if comparison is not None and not outcome.interrupted:
        compare(job.source, job.sink, comparison, overwrite=job.overwrite, say=say.tell)
    if outcome.loss is not None:
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
    with ExitStack() as stack:
        source = stack.enter_context(open_input(job))
        # Checked before the models load: a wrong output name should not cost that wait.
        sink = _sink(job, source, say)
        sink.ready = ready
        try:
            with BuildView("", silent=say.silent) as view:
                engines = open_engines(job, stack, view, sink.choices)
            sink.choose([(engine.backend, engine.precision) for engine in engines])
            said = [*source.info.notes, *(n for engine in engines for n in engine.notes), *sink.notes]
            for line in said:
                say.note(line)
            opened = time.perf_counter() - begin
            total = min(filter(None, (source.info.frames, job.frames)), default=None)
            with say.progress(_less(total, sink.kept)) as progress:
                stats = _process(job, source, engines, sink, say, progress)
            if whole and stats.interrupted:
                raise KeyboardInterrupt
            _finish(sink, stats, source, limited=job.frames is not None)
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
        loss = TruncatedSourceError(
            f"{job.source} is damaged: {stats.damage.lost} frames lost ({stats.damage.reason}); "
            f"{job.sink} holds the {sink.frames} that could be decoded"
        )
    elif stats.damage:
        say.note(f"tolerated: {stats.damage.lost} frames lost ({stats.damage.reason})")
    return Outcome(report, stats.interrupted, loss)


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


def journals(job: Job, like: VideoInfo) -> bool:
    """Returns whether the run keeps a journal. Raises SinkError where it should and cannot."""
    if job.sink == "null:" and not job.journal and job.workers == 1:
        return False
    reason = why_no_journal(job.sink, like=like, encoding=job.encoding)
    if job.building != "wait":
        reason = reason or f"what frames come depends on time with --while-building {job.building}"
    if job.journal and reason:
        raise SinkError(f"{job.sink} can have no journal: {reason}")
    if job.workers > 1 and (reason or job.journal is False):
        reason = reason or "--no-journal was given"
        raise SinkError(f"{job.sink} cannot be made by several --workers, in segments: {reason}")
    wanted = not is_short(like, job.frames) if job.journal is None else job.journal
    return wanted and not reason


def _sink(job: Job, source: Source, say: Reporter) -> Sink:
    """Returns the output, with a journal where one is possible and useful."""
    if job.sink not in ("null:", "-") and (not Path(job.sink).name or Path(job.sink).is_dir()):
        raise SinkError(f"{job.sink} is a folder: name a file in it")
    settings = settings_of(job) if journals(job, source.info) else None
    if settings is None and job.sink != "null:" and leftover(Path(job.sink), remove=job.restart):
        say.note(f"the journal of an earlier run beside {job.sink} is left as it is")
    return open_sink(
        job.sink,
        like=source,
        encoding=job.encoding,
        overwrite=job.overwrite,
        audio=job.audio,
        journal=settings,
        restart=job.restart,
        shared=job.workers > 1,
    )


def _process(
    job: Job,
    source: Source,
    engines: list[Engine],
    sink: Sink,
    say: Reporter,
    progress: Callable[[Snapshot], None],
) -> Stats:
    """Process all frames that no earlier run made, here or in workers."""
    stages = stages_of(job, engines, segment=segmented_file.SEGMENT)
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
    first = prime(stages, rest)
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
    return run_shares(job, sink, progress)


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
def terminable() -> Generator[None]:
    """SIGTERM finishes the file as Ctrl-C does, where signals can be set."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
