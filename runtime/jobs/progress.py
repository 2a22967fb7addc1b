"""The commands' progress on a terminal, and as lines in a log."""

import sys
import time
from typing import TYPE_CHECKING, Any

import typer

from ..pump import Snapshot

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


class Reporter:
    """Prints a run's messages: notes and progress on standard error, the summary on standard output."""

    def __init__(self, *, silent: bool, aside: bool = False) -> None:
        """`aside`: frames take standard output, so that nothing else goes there."""
        self.silent = silent
        self.aside = aside
        self.notes: list[str] = []
        """All notes so far, printed or not."""
        self._last = 0.0

    def note(self, text: str) -> None:
        """Print one line about a decision."""
        self.notes.append(text)
        if not self.silent:
            typer.echo(f"note: {text}", err=True)

    def tell(self, text: str) -> None:
        """Print one line of the result on standard output."""
        if not self.silent:
            typer.echo(text, err=self.aside)

    def status(self, text: str) -> None:
        """Print the state of a run without an end: in place on a terminal, now and then in a log."""
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if self.silent or (not terminal and now - self._last < LineView.EVERY):
            return
        self._last = now
        typer.echo(f"\r\x1b[K{text}" if terminal else text, err=True, nl=not terminal)

    def progress(self, total: int | None) -> "ProgressView":
        """Returns a context that gives the callback for the pump."""
        if self.silent:
            return ProgressView()
        return BarView(total) if sys.stderr.isatty() else LineView(total)

    def summary(self, report: dict[str, Any]) -> None:
        """Print the closing lines."""
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
        typer.echo("\n".join(out), err=self.aside)


class ProgressView:
    """A progress view that shows nothing."""

    def __enter__(self) -> "ProgressView":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        return None

    def __call__(self, snapshot: Snapshot) -> None:
        del snapshot


class LineView(ProgressView):
    """Prints a plain line every few seconds, for logs and pipes."""

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
    """Shows a progress bar on a terminal."""

    def __init__(self, total: int | None) -> None:
        self.total = total
        self._bar = _bar()
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> "BarView":
        self._bar.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._bar.stop()

    def __call__(self, snapshot: Snapshot) -> None:
        text = describe(snapshot, self.total)
        self._bar.update(self._task, completed=snapshot.frames, description=text)


def _bar(*between: "ProgressColumn") -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), *between, TextColumn("{task.description}"))
    return Progress(*columns, console=Console(stderr=True), transient=True)


def describe(snapshot: Snapshot, total: int | None) -> str:
    """Returns a line such as `120/180 frames, 45.1 fps, 0:01 left, queues 2 0 1`."""
    text = f"{snapshot.frames}/{total or '?'} frames, {snapshot.rate:.1f} fps"
    if total and snapshot.rate > 0:
        left = max(round((total - snapshot.frames) / snapshot.rate), 0)
        text += f", {left // 60}:{left % 60:02d} left"
    queues = " ".join(map(str, snapshot.queues))
    return f"{text}, queues {queues}" if queues else text


class BuildView:
    """Progress of a builder: a bar on a terminal, a line every few seconds elsewhere."""

    EVERY = 5.0

    def __init__(self, what: str, *, silent: bool = False) -> None:
        self.what = what
        self._silent = silent
        self._bar: Any = None
        self._task: Any = None
        self._last = time.monotonic()

    def __enter__(self) -> "BuildView":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, what: str, done: float) -> None:
        if self._silent:
            return
        text = f"{self.what}: {what}" if self.what else what
        if not sys.stderr.isatty():
            if time.monotonic() - self._last > self.EVERY:
                self._last = time.monotonic()
                typer.echo(f"{text} ({done:.0%})", err=True)
            return
        if self._bar is None:
            from rich.progress import TimeElapsedColumn

            self._bar = _bar(TimeElapsedColumn())
            self._task = self._bar.add_task(text, total=1.0)
            self._bar.start()
        self._bar.update(self._task, completed=done, description=text)
