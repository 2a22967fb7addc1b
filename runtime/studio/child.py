"""The process that a render or a plan runs in: `python -m velatura.runtime.studio.child`.

A batch of one file, so that its state, its journal and its errors are those of `velatura run`. What it
does goes to standard output, a JSON object a line. It ends when its standard input does, so that none
goes on when the studio was killed; what is whole is kept in the journal.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from ..jobs.batch import Batch
from ..jobs.batch_state import LOCK, Queue, Tally
from ..jobs.dry_run import run_preflight
from ..jobs.job import Job, open_input, settings_of
from ..jobs.options import reporting
from ..jobs.progress import ProgressView, Reporter
from ..jobs.run import INTERRUPTED, terminable
from ..pump import Snapshot
from ..resume.journal import frames_left
from ..resume.output_lock import Lock
from ..sinks import why_no_journal
from .choices import Choices

RENDER = "render.json"
"""In the folder of a render: the film and the choices."""
BUDGET = 3.0
"""Seconds of work that a plan's sample may take."""
PATIENCE = 10.0
"""Seconds that the process of an earlier studio, which was killed, has to end."""


class Teller(Reporter):
    """Prints progress and notes as JSON lines."""

    def __init__(self, kept: int) -> None:
        """`kept` are frames of an earlier run."""
        super().__init__(silent=True)
        self._kept = kept

    def note(self, text: str) -> None:
        super().note(text)
        tell({"note": text})

    def progress(self, total: int | None) -> ProgressView:
        return _Progress(self._kept, total)


class _Progress(ProgressView):
    def __init__(self, kept: int, total: int | None) -> None:
        self._kept, self._total = kept, total

    def __call__(self, snapshot: Snapshot) -> None:
        left = None if self._total is None else self._total - snapshot.frames
        rate = snapshot.rate
        tell(
            {
                "frames": self._kept + snapshot.frames,
                "total": None if self._total is None else self._kept + self._total,
                "fps": round(rate, 2),
                "left": None if left is None or not rate else round(left / rate, 1),
            }
        )


def tell(message: dict[str, Any]) -> None:
    """Print one line for the studio."""
    typer.echo(json.dumps(message))


def job_of(folder: Path) -> Job:
    """Returns the job of a render's folder, which may replace what stands there: all in it is its
    own."""
    held: Any = json.loads((folder / RENDER).read_bytes())
    job = Choices.from_json(held["choices"]).job(Path(held["source"]), folder / held["sink"])
    return replace(job, overwrite=True)


def render(folder: Path) -> int:
    """Makes the output of a render, or goes on with it, and returns the exit code."""
    job = job_of(folder)
    source, target = Path(job.source), Path(job.sink)
    _await(folder / LOCK)
    with open_input(job) as film:
        reason = why_no_journal(job.sink, like=film.info, encoding=job.encoding)
    # A short film has one, too: it may be paused.
    job = replace(job, journal=not reason)
    say = Teller(frames_left(target))
    with terminable(), Queue(folder, settings_of(job), restart=False) as queue:
        tally = Tally(quiet=True, as_json=False)
        try:
            Batch(job, queue, say, tally, retry=True).take([(source, target)])
        except KeyboardInterrupt:
            return INTERRUPTED
    return tally.exit_code


def plan(folder: Path) -> int:
    """Prints what a render would take, by a dry run, and returns the exit code."""
    job = job_of(folder)
    with open_input(job) as film:
        reason = why_no_journal(job.sink, like=film.info, encoding=job.encoding)
    return run_preflight(replace(job, journal=not reason), quiet=True, as_json=True, budget=BUDGET)


def main(what: str, folder: Path) -> int:
    """Does a `render` or a `plan` of a folder."""
    # A terminal's Ctrl-C reaches the studio, which decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_studio, daemon=True).start()
    with reporting(debug=False, as_json=what == "plan"):
        return plan(folder) if what == "plan" else render(folder)


def _await(path: Path) -> None:
    """Wait for the process of a studio that was killed, which ends by itself."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            Lock(path).release(remove=True)
            return
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:
            return  # the batch says what is wrong


def _end_with_studio() -> None:
    # Not by Python's own stream, whose lock a thread must not hold when the interpreter ends.
    while os.read(0, 1 << 16):
        pass
    # No clean-up: it is as if this process had been killed, which journals are made for.
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2])))
