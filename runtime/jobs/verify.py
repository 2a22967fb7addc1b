"""`velatura verify`: a comparison of an output with its source."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import typer

from ..errors import SourceError
from ..sources import open_source
from ..sources.cut import Moment
from ..verify.compare import Check, ContractError, Promise, check_shown, doubtful, inspect
from ..verify.inspect import Video


def verify(
    source: str,
    output: str,
    *,
    deep: bool,
    as_json: bool,
    video_stream: int | None = None,
    start: str | None = None,
    end: str | None = None,
) -> int:
    """Compares an output with its source, prints every check, and returns the exit code.

    That is 0 where all holds, else 10. With `deep`, every frame of both is decoded; without, only where
    the packets disagree. `video_stream`, `start` and `end` are the run's options. Raises SourceError
    when the source is no video.
    """
    begin = time.perf_counter()
    video = "chosen" if video_stream is None else video_stream
    within = _part(source, video, video_stream, start, end)
    before = inspect(source, deep=deep, video=video, within=within)
    promise = Promise.of_source(before)
    checks = check_shown(promise, before, output, deep=deep)
    if before.pictures is None and doubtful(checks):
        # The source may hold packets that make no frame; a run could not have shown them either.
        before = inspect(source, deep=True, video=video, within=within)
        promise = Promise.of_source(before)
        checks = check_shown(promise, before, output, deep=True)
    holds = all(check.holds for check in checks)
    if as_json:
        report = {
            "source": source,
            "output": output,
            "holds": holds,
            "checks": [asdict(check) for check in checks],
            "notes": promise.notes,
            "seconds": round(time.perf_counter() - begin, 3),
        }
        typer.echo(json.dumps(report))
    else:
        _show(source, output, checks, promise.notes)
    return 0 if holds else ContractError.exit_code


def _part(
    source: str, video: Video, video_stream: int | None, start: str | None, end: str | None
) -> tuple[float, float] | None:
    """Returns the times on the source's clock between which a part lies; None for the whole.

    They are those of frames: of the first in it, and of the first after it. Raises SourceError where
    there is none.
    """
    if start is None and end is None:
        return None
    with open_source(source, video_stream=video_stream) as film:
        info = film.info
    times = inspect(source, video=video).times
    bounds: list[float] = []
    for text in (start, end):
        found = None if text is None else Moment.parse(text)
        reached = (
            time
            for number, time in enumerate(times.tolist())
            if found is not None
            and found.reached(number, Fraction(time) - Fraction(info.start), info.time_base)
        )
        bounds.append(next(reached, float("inf")))
    if start is None or Moment.parse(start).zero:
        bounds[0] = float("-inf")
    if bounds[0] >= bounds[1]:
        raise SourceError(f"{source} has no frame between --start and --end")
    return bounds[0], bounds[1]


def _show(source: str, output: str, checks: Sequence[Check], notes: Sequence[str]) -> None:
    """Print a table, and below it the meaning of each mismatch."""
    rows = [(c.where, c.kind, c.promised, c.found, "ok" if c.holds else "MISMATCH") for c in checks]
    rows.insert(0, ("", "", Path(source).name, Path(output).name, ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        typer.echo("  ".join([*cells, row[4]]).rstrip())
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    broken = [check for check in checks if not check.holds]
    for one in broken:
        typer.echo(f"{one.where}, {one.kind}: {one.meaning}")
    if broken:
        typer.echo(f"{output} does not show what {source} does: {len(broken)} of {len(checks)} checks")
    else:
        typer.echo(f"{output} holds all that {source} promises: {len(checks)} checks")
