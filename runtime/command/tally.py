"""Tally: what a batch tells a person or a program, file by file, and its end."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ..errors import BatchError
from .queue import Entry
from .run import INTERRUPTED


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one file."""

    source: Path
    target: Path
    entry: Entry
    now: bool
    """Whether this command ran it; else an earlier one did, or nothing was to be done."""


class Tally:
    """Counts results, and tells each: lines for a person, or one JSON object a line."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.total: int | None = None
        """Number of files, where it is known."""
        self.interrupted = False
        self.results: dict[Path, Result] = {}
        """The latest of each source."""
        self._quiet = quiet
        self._as_json = as_json

    @property
    def exit_code(self) -> int:
        """0 when all went well, the code of what went wrong where that is one, else BatchError's."""
        if self.interrupted:
            return INTERRUPTED
        codes = {result.entry.exit_code for result in self.results.values()} - {0}
        return min(codes, default=0) if len(codes) < 2 else BatchError.exit_code

    def begin(self, source: Path) -> None:
        """Say which file comes now."""
        if not self._quiet and not self._as_json:
            typer.echo(f"{self._number(len(self.results) + 1)} {source.name}", err=True)

    def add(self, result: Result) -> None:
        """Count a file, and tell what became of it."""
        known = self.results.pop(result.source, None)
        self.results[result.source] = result
        if known is not None and not result.now and known.entry == result.entry:
            return
        entry = result.entry
        if self._as_json:
            typer.echo(json.dumps(self._fields(result)))
        elif entry.error is not None and result.now:
            self.complain(f"velatura: {self._number(len(self.results))} {_error(result)}")
        elif result.now and entry.report is not None and not self._quiet:
            typer.echo(f"{self._number(len(self.results))} {_figures(result, entry.report)}")

    def complain(self, text: str) -> None:
        """Tell an error, whatever else is not to be told."""
        typer.echo(text, err=True)

    def summary(self, *, retry: bool) -> None:
        """Tell how many there were, and all that went wrong."""
        wrong = [result for result in self.results.values() if result.entry.exit_code]
        count = {state: self._count(state) for state in ("done", "failed", "skipped")}
        earlier = sum(r.entry.state == "done" and not r.now for r in self.results.values())
        left = max((self.total or 0) - len(self.results), 0)
        if self._as_json:
            fields = {
                "files": len(self.results) + left,
                **count,
                "done_earlier": earlier,
                "waiting": left,
                "interrupted": self.interrupted,
                "exit_code": self.exit_code,
                "errors": {str(r.source): r.entry.error for r in wrong},
            }
            typer.echo(json.dumps({"summary": fields}))
            return
        if not self._quiet:
            told = f"{len(self.results) + left} files: {count['done']} done"
            told += f" ({earlier} of them earlier)" if earlier else ""
            told += "".join(f", {n} {state}" for state, n in count.items() if n and state != "done")
            typer.echo(told + (f", {left} left: the same command goes on there" if left else ""))
        for result in wrong:
            entry = result.entry
            when = " in an earlier run" if entry.state == "failed" and not result.now else ""
            self.complain(f"{entry.state}{when}: {_error(result)} (exit code {entry.exit_code})")
        if any(r.entry.state == "failed" and not r.now for r in wrong) and not retry:
            self.complain("--retry tries failed files again")

    def _count(self, state: str) -> int:
        return sum(result.entry.state == state for result in self.results.values())

    def _number(self, number: int) -> str:
        return f"{number}/{self.total}" if self.total is not None else f"{number}"

    def _fields(self, result: Result) -> dict[str, Any]:
        entry = result.entry
        return {
            "source": str(result.source),
            "sink": str(result.target),
            "state": entry.state,
            "now": result.now,
            "exit_code": entry.exit_code,
            "error": entry.error,
            "kind": entry.kind,
            "report": entry.report,
        }


def _figures(result: Result, report: dict[str, Any]) -> str:
    size = (report["output_bytes"] or 0) / 1e6
    return (
        f"{result.target}: {report['frames_out']} of {report['frames_in']} frames, "
        f"{report['fps']:.1f} fps, {report['seconds']:.1f} s, {size:.2f} MB"
    )


def _error(result: Result) -> str:
    """With the file's name, which most errors tell themselves."""
    told = result.entry.error or ""
    return told if str(result.source) in told else f"{result.source}: {told}"
