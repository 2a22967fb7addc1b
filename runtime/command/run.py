"""`velatura run`: one source through a chain of models into one sink."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import typer

from ..backends import Engine, Precision, open_engine
from ..card import CardFlags
from ..errors import SourceError, TruncatedSourceError
from ..meter import peak_memory
from ..pump import Pump, Snapshot, Stats
from ..sinks import Encoding, Sink, open_sink
from ..sources import Source, open_source
from ..stages import Neural, Resize, Stage

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
            engines = [stack.enter_context(_engine(name, job)) for name in job.models]
            for line in (*source.info.notes, *(n for engine in engines for n in engine.notes)):
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
        for line in sink.notes:
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


def _engine(name: str, job: Job) -> Engine:
    return open_engine(
        name,
        job.backend,
        precision=job.precision,
        flags=CardFlags(value_range=job.value_range, colour_order=job.channels),
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


class Reporter:
    """What a run tells a person: notes and progress on standard error, the summary on output."""

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent

    def note(self, text: str) -> None:
        """One line about something that was decided."""
        if not self.silent:
            typer.echo(f"note: {text}", err=True)

    def progress(self, total: int | None) -> "ProgressView":
        """A context that gives the callback for the pump."""
        if self.silent:
            return ProgressView()
        return BarView(total) if sys.stderr.isatty() else LineView(total)

    def summary(self, report: dict[str, Any]) -> None:
        """The closing lines."""
        if self.silent:
            return
        out = [
            f"{report['frames_out']} of {report['frames_in']} frames, {report['fps']:.1f} fps, "
            f"{report['seconds']:.1f} s, CPU {report['cpu_seconds']:.1f} s"
        ]
        if report["peak_memory_mib"] is not None:
            out[0] += f", peak memory {report['peak_memory_mib']:.0f} MiB"
        for name, times in report["stages_ms"].items():
            out.append(f"  {name:<24} p50 {times['p50']:8.2f} ms   p99 {times['p99']:8.2f} ms")
        if report["output_bytes"] is not None:
            megabytes = report["output_bytes"] / 1e6
            out.append(f"{report['sink']}: {megabytes:.2f} MB, {report['output_seconds']:.2f} s")
        if report["interrupted"]:
            out.append(f"stopped early: the output is whole and holds {report['frames_out']} frames")
        typer.echo("\n".join(out))


class ProgressView:
    """Shows nothing."""

    def __enter__(self) -> "ProgressView":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        return None

    def __call__(self, snapshot: Snapshot) -> None:
        del snapshot


class LineView(ProgressView):
    """A plain line every few seconds, for logs and pipes."""

    EVERY = 5.0

    def __init__(self, total: int | None) -> None:
        self.total = total
        self._last = 0.0

    def __call__(self, snapshot: Snapshot) -> None:
        if snapshot.elapsed - self._last < self.EVERY:
            return
        self._last = snapshot.elapsed
        typer.echo(describe(snapshot, self.total), err=True)


class BarView(ProgressView):
    """A bar on a terminal."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.total = total
        columns = (BarColumn(), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> "BarView":
        self._bar.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._bar.stop()

    def __call__(self, snapshot: Snapshot) -> None:
        text = describe(snapshot, self.total)
        self._bar.update(self._task, completed=snapshot.frames, description=text)


def describe(snapshot: Snapshot, total: int | None) -> str:
    """`120/180 frames, 45.1 fps, 0:01 left, queues 2 0 1`."""
    text = f"{snapshot.frames}/{total or '?'} frames, {snapshot.rate:.1f} fps"
    if total and snapshot.rate > 0:
        left = max(round((total - snapshot.frames) / snapshot.rate), 0)
        text += f", {left // 60}:{left % 60:02d} left"
    return f"{text}, queues {' '.join(map(str, snapshot.queues))}"


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
