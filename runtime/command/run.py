"""`velatura run`: one source through a chain of models into one sink."""

import json
import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import typer

from ..backends import Building, Engine, Fit, Precision, Progress, open_engine
from ..card import CardFlags
from ..errors import SourceError, TruncatedSourceError
from ..meter import peak_memory
from ..pump import Pump, Stats
from ..sinks import Encoding, Sink, open_sink
from ..sources import Source, open_source
from ..stages import Neural, Resize, Stage
from .view import BuildView, Reporter

INTERRUPTED = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The options of one run."""

    source: str
    sink: str
    models: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    backend: str = "auto"
    precision: Precision = "auto"
    codec: str = "h264"
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    fps: str | None = None
    frames: int | None = None
    audio: bool = True
    overwrite: bool = False
    tolerate: bool = False
    value_range: float | None = None
    channels: Literal["rgb", "bgr"] | None = None
    fit: Fit = "tile"
    building: Building = "wait"


def run_job(job: Job, *, quiet: bool = False, as_json: bool = False) -> int:
    """Run it and return the exit code. Raises VelaturaError for whatever stops it."""
    say = Reporter(silent=quiet or as_json)
    begin = time.perf_counter()
    with terminable(), ExitStack() as stack:
        source = stack.enter_context(open_source(job.source, rate=_rate(job.fps)))
        # Checked before the models load: a wrong output name should not cost that wait.
        sink = open_sink(
            job.sink,
            like=source,
            encoding=Encoding(codec=job.codec, crf=job.crf, preset=job.preset, pix_fmt=job.pix_fmt),
            overwrite=job.overwrite,
            audio=job.audio,
        )
        try:
            with BuildView("", silent=quiet or as_json) as view:
                engines = [stack.enter_context(_engine(name, job, view)) for name in job.models]
            said = [*source.info.notes, *(n for engine in engines for n in engine.notes)]
            for line in said:
                say.note(line)
            stages: list[Stage] = [Neural(engine) for engine in engines]
            if job.size is not None:
                stages.append(Resize(*job.size))
            opened = time.perf_counter() - begin
            total = min(filter(None, (source.info.frames, job.frames)), default=None)
            with say.progress(total) as progress:
                stats = Pump(source, stages, sink).run(progress=progress, limit=job.frames)
            _finish(sink, stats, source, limited=job.frames is not None)
        except BaseException:
            sink.abort()
            raise
        later = [n for engine in engines for n in engine.notes if n not in said]
        for line in (*later, *sink.notes):
            say.note(line)
        report = summarise(job, sink, engines, stats, opened)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        say.summary(report)
    if stats.damage and not job.tolerate:
        raise TruncatedSourceError(
            f"{job.source} is damaged: {stats.damage.lost} frames lost ({stats.damage.reason}); "
            f"{job.sink} holds the {stats.frames_out} that could be decoded"
        )
    if stats.damage:
        say.note(f"tolerated: {stats.damage.lost} frames lost ({stats.damage.reason})")
    return INTERRUPTED if stats.interrupted else 0


def _finish(sink: Sink, stats: Stats, source: Source, *, limited: bool) -> None:
    """Close the sink, or say why there is nothing to close."""
    if stats.frames_out == 0:
        if stats.interrupted:
            raise KeyboardInterrupt
        reason = stats.damage.reason or "it holds none that can be decoded"
        raise SourceError(f"{source.uri} gave no frame: {reason}")
    if stats.interrupted or limited:
        sink.stop_early()
    sink.close()


def _engine(name: str, job: Job, progress: Progress) -> Engine:
    return open_engine(
        name,
        job.backend,
        precision=job.precision,
        flags=CardFlags(value_range=job.value_range, colour_order=job.channels),
        fit=job.fit,
        building=job.building,
        progress=progress,
    )


def _rate(text: str | None) -> Fraction | None:
    if text is None:
        return None
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise SourceError(f"--fps {text!r} is not a frame rate; write 25 or 30000/1001") from error
    if rate <= 0:
        raise SourceError(f"--fps {text!r} is not a frame rate: it must be positive")
    return rate


def summarise(
    job: Job, sink: Sink, engines: list[Engine], stats: Stats, opened: float
) -> dict[str, Any]:
    """The closing figures, as they are printed by --json."""
    path = Path(job.sink)
    size = path.stat().st_size if path.is_file() else None
    memory = peak_memory()
    return {
        "source": job.source,
        "sink": job.sink,
        "models": [
            {"name": e.card.name, "backend": e.backend, "precision": e.precision} for e in engines
        ],
        "frames_in": stats.frames_in,
        "frames_out": stats.frames_out,
        "frames_lost": stats.damage.lost,
        "interrupted": stats.interrupted,
        "fps": round(stats.rate, 2),
        "seconds": round(stats.elapsed, 3),
        "first_frame_seconds": round(opened + stats.first_frame, 3),
        "cpu_seconds": round(time.process_time(), 3),
        "peak_memory_mib": round(memory / 2**20, 1) if memory is not None else None,
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
    """Let SIGTERM finish the file as Ctrl-C does, where signals can be set."""
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
