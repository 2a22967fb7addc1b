"""The state of each file in a batch: stored in a file, and reported to a person or a program."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import typer

from ..cache import write_whole
from ..errors import BatchError, SinkError, VelaturaError
from ..resume.output_lock import Lock
from .run import INTERRUPTED

NAME = ".velatura-batch.json"
LOCK = ".velatura-batch.lock"
VERSION = 1

State = Literal["waiting", "running", "done", "failed", "skipped"]
"""The state of a file; `skipped`: it was not processed, since its output's place is taken."""

Stamp = tuple[int, int]
"""Bytes, and nanoseconds of the last change: the identity of a file's contents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The state of one file in a batch."""

    source: str
    """Absolute path."""
    state: State = "waiting"
    stamp: Stamp | None = None
    """The source's stamp when it was last begun."""
    options: str = ""
    """Fingerprint of the options that it was last begun with."""
    output: Stamp | None = None
    """The output's stamp, where this batch wrote one."""
    coming: Stamp | None = None
    """The stamp of an output that was about to take its name, or has, if the batch was interrupted
    then."""
    error: str | None = None
    kind: str | None = None
    """Class name of the error."""
    exit_code: int = 0
    """The exit code with which a run of this file alone would end."""
    report: dict[str, Any] | None = None
    """The figures of the run that wrote the output."""

    @property
    def made(self) -> bool:
        """True if the output was written without error, though it may be out of date."""
        return self.output is not None and self.state in ("done", "skipped")

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Returns the entry in JSON fields. Raises TypeError or ValueError for anything else."""
        stamps = [_stamp(fields.pop(name)) for name in ("stamp", "output", "coming")]
        return cls(**fields, stamp=stamps[0], output=stamps[1], coming=stamps[2])

    def wrote(self, there: Stamp | None) -> bool:
        """Returns whether this batch wrote the output with that stamp."""
        return there is not None and there in (self.output, self.coming)

    def failed(self, error: Exception) -> "Entry":
        """Returns the entry with the error that ended its run."""
        known = isinstance(error, VelaturaError)
        return replace(
            self,
            state="failed",
            error=str(error) or type(error).__name__,
            kind=type(error).__name__,
            exit_code=error.exit_code if known else VelaturaError.exit_code,
        )


class Queue:
    """The entries of one output folder, by the outputs' names; a lock excludes a second batch."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, restart: bool) -> None:
        """Open or begin. `settings` are the options, by the words in which a change is reported.

        `restart` forgets what earlier batches did there. Raises SinkError when another process has the
        folder, or nothing can be written in it.
        """
        self.folder = folder
        self.notes: tuple[str, ...] = ()
        self.entries: dict[str, Entry] = {}
        self.settings = cast("dict[str, Any]", json.loads(json.dumps(dict(settings))))
        self.options = _print(self.settings)
        self._known: dict[str, dict[str, Any]] = {}
        try:
            self._lock = Lock(folder / LOCK)
            for cut in folder.glob(f".{NAME}.*"):
                cut.unlink()  # a process that was killed was writing it
        except BlockingIOError as error:
            raise SinkError(f"{folder}: another velatura works on a batch there") from error
        except (OSError, NotImplementedError) as error:
            raise SinkError(f"{folder}: no batch can be kept there: {error}") from error
        try:
            if not restart:
                self._load()
            self._save()
        except BaseException:
            self._lock.release(remove=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release(remove=True)

    @property
    def outputs(self) -> list[Path]:
        """The paths that this batch wrote, was writing when it was interrupted, or rejected."""
        found: list[Path] = []
        for name, entry in self.entries.items():
            path = self.folder / name
            found.append(path.with_name(f"{path.stem}.rejected{path.suffix}"))
            if entry.output is not None or entry.coming is not None or entry.state == "running":
                found.append(path)
        return found

    def name(self, target: Path) -> str:
        """Returns the name under which an output is listed."""
        return target.relative_to(self.folder).as_posix()

    def put(self, target: Path, entry: Entry) -> None:
        """Store the entry of a file. Raises SinkError."""
        self.entries[self.name(target)] = entry
        self._save()

    def changes(self, options: str) -> list[str]:
        """Returns the differences from that fingerprint's options, such as `--crf was 18 and is 20`."""
        before = self._known.get(options, {})
        names = dict.fromkeys((*before, *self.settings))
        return [
            f"{name} was {_words(before.get(name))} and is {_words(self.settings.get(name))}"
            for name in names
            if before.get(name) != self.settings.get(name)
        ]

    def _load(self) -> None:
        path = self.folder / NAME
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise SinkError(f"{path} cannot be read: {error.strerror}") from error
        try:
            held: Any = json.loads(data)
            version = int(held["version"])
            if version <= VERSION:
                self._known = dict(held["settings"])
                self.entries = {n: Entry.from_json(fields) for n, fields in held["files"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            kept = path.with_name(f"{NAME}.damaged")
            path.replace(kept)
            self.notes = (f"{path} was damaged and lies in {kept.name} now: the batch begins anew",)
            self._known, self.entries = {}, {}
            return
        if version > VERSION:
            raise SinkError(f"{path} is a newer velatura's: --restart begins the batch anew")

    def _save(self) -> None:
        used = {entry.options for entry in self.entries.values()}
        self._known = {k: v for k, v in self._known.items() if k in used} | {
            self.options: self.settings
        }
        head = json.dumps({"version": VERSION, "settings": self._known})
        lines = [f"{json.dumps(n)}: {json.dumps(asdict(entry))}" for n, entry in self.entries.items()]
        data = f'{head[:-1]}, "files": {{\n' + ",\n".join(lines) + "\n}}\n"
        try:
            write_whole(self.folder / NAME, data.encode())
        except OSError as error:
            raise SinkError(
                f"{self.folder / NAME} cannot be written: {error.strerror or error}; what is done is "
                "kept, and the same command goes on"
            ) from error


def read_entries(folder: Path) -> dict[str, Entry]:
    """Returns the entries of a folder's batch by the outputs' names, to be shown: no lock is taken, and
    a list that is missing or damaged holds none."""
    try:
        held: Any = json.loads((folder / NAME).read_bytes())
        return {n: Entry.from_json(fields) for n, fields in held["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def stamp_of(path: Path) -> Stamp | None:
    """Returns the stamp of a file; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - one call
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _stamp(value: Any) -> Stamp | None:
    if value is None:
        return None
    size, changed = value
    return int(size), int(changed)


def _print(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:16]


def _words(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, list):
        return ", ".join(map(str, cast("list[Any]", value))) or "none"
    return str(value)


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one file."""

    source: Path
    target: Path
    entry: Entry
    now: bool
    """True if this command ran it; else an earlier one did, or nothing was to be done."""


class Tally:
    """Counts results, and reports each: lines for a person, or one JSON object a line."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self.total: int | None = None
        """The number of files, where it is known."""
        self.interrupted = False
        self.results: dict[Path, Result] = {}
        """The latest result of each source."""
        self._quiet = quiet
        self._as_json = as_json

    @property
    def exit_code(self) -> int:
        """0 when all went well, the failures' code where they share one, else BatchError's."""
        if self.interrupted:
            return INTERRUPTED
        codes = {result.entry.exit_code for result in self.results.values()} - {0}
        return min(codes, default=0) if len(codes) < 2 else BatchError.exit_code

    def begin(self, source: Path) -> None:
        """Report the file that is next."""
        if not self._quiet and not self._as_json:
            typer.echo(f"{self._number(len(self.results) + 1)} {source.name}", err=True)

    def add(self, result: Result) -> None:
        """Count a file, and report its result."""
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
        """Report an error, even when quiet."""
        typer.echo(text, err=True)

    def summary(self, *, retry: bool) -> None:
        """Report the counts and all failures."""
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
    """Returns the error with the file's name, which most errors contain already."""
    told = result.entry.error or ""
    return told if str(result.source) in told else f"{result.source}: {told}"
