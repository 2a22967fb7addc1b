"""`velatura run FOLDER FOLDER`: one command for many files, which goes on where it was cut off."""

import os
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import SinkError, SourceError, VelaturaError
from ..sinks.journal import journal_folder
from ..sinks.output import reporting
from ..sinks.segments import sync_folder
from .folder import Selection, Suffixes, clashes
from .job import Job, settings_of
from .queue import Entry, Queue, Stamp, stamp_of
from .run import execute, terminable
from .tally import Result, Tally
from .view import Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """What a batch is told beside the options of each run."""

    to: str | None = None
    """Suffix of all outputs; None keeps the source's where it can be written."""
    recursive: bool = False
    retry: bool = False
    """Try again what failed in an earlier run."""
    watch: bool = False
    """Go on with files that appear, until somebody stops it."""


def run_batch(
    job: Job,
    options: BatchOptions,
    *,
    quiet: bool = False,
    as_json: bool = False,
    debug: bool = False,
) -> int:
    """Run `job` for each video that its source names, into the folder that its sink names.

    Returns the exit code: 0 when all are done, that of the failures where they have the same, else that
    of BatchError. What became of each file is kept in the folder. Raises VelaturaError for what stops
    all of it before work starts.
    """
    selection = Selection.of(job.source, job.sink, recursive=options.recursive)
    suffixes = Suffixes(options.to, job.encoding)
    settings = settings_of(job)
    say = Reporter(silent=quiet or as_json)
    if not selection.sink.is_dir():
        _targets(selection, suffixes, (), empty=options.watch)
        _make(selection.sink)
    with terminable(), Queue(selection.sink, settings, restart=job.restart) as queue:
        for note in queue.notes:
            say.note(note)
        pairs = _targets(selection, suffixes, queue.outputs, empty=options.watch)
        tally = Tally(quiet=quiet, as_json=as_json)
        batch = Batch(job, queue, say, tally, retry=options.retry, debug=debug)
        try:
            if options.watch:
                from .watch import Watch

                Watch(batch, selection, suffixes).run()
            else:
                batch.take(pairs)
        except KeyboardInterrupt:
            tally.interrupted = not options.watch or batch.at_work
        code = tally.exit_code
        tally.summary(retry=options.retry)
    return code


class Batch:
    """Runs files one after the other, and keeps what becomes of each."""

    def __init__(
        self,
        job: Job,
        queue: Queue,
        say: Reporter,
        tally: Tally,
        *,
        retry: bool = False,
        debug: bool = False,
    ) -> None:
        self.job = job
        self.queue = queue
        self.say = say
        self.tally = tally
        self.retry = retry
        self.debug = debug
        self.at_work = False
        """Whether a file is being made: it was cut off when that stays true."""

    def take(self, pairs: Sequence[tuple[Path, Path]]) -> None:
        """Do all that is not done. Raises KeyboardInterrupt when somebody stops it."""
        self.tally.total = len(pairs)
        for source, target in pairs:
            self.one(source, target)

    def one(self, source: Path, target: Path, *, watching: bool = False) -> Entry:
        """Do one file, unless it is done; what became of it.

        One that is watched may come anew: the state is `waiting` again where it changed meanwhile.
        """
        before = self.queue.entries.get(self.queue.name(target))
        stamp, there = stamp_of(source), stamp_of(target)
        entry = self._settled(source, target, before, stamp, there, watching)
        if entry is not None:
            if entry != before and (before is None or before.source == entry.source):
                self.queue.put(target, entry)
            self.tally.add(Result(source, target, entry, now=False))
            return entry
        if before is not None and before.made and there is None:
            self.say.note(f"{target} is gone: it is made again")
        ours = before is not None and before.wrote(there)
        job = replace(
            self.job,
            source=str(source),
            sink=str(target),
            overwrite=self.job.overwrite or ours,
            # Nobody goes on with a file that is no more: the one that took its place is another.
            restart=self.job.restart or (watching and before is not None and before.stamp != stamp),
        )
        entry = Entry(
            source=_absolute(source),
            state="running",
            stamp=stamp,
            options=self.queue.options,
            output=there if ours else None,
        )
        self.queue.put(target, entry)
        entry = self._run(job, entry, watching)
        try:
            self.queue.put(target, entry)
        except KeyboardInterrupt:
            self.queue.put(target, entry)
            self._count(source, target, entry)
            raise
        self._count(source, target, entry)
        return entry

    def refuse(self, source: Path, target: Path, told: str) -> None:
        """Count a file that cannot be done beside the others."""
        entry = Entry(source=_absolute(source)).failed(SinkError(told))
        self.tally.add(Result(source, target, replace(entry, state="skipped"), now=False))

    def _count(self, source: Path, target: Path, entry: Entry) -> None:
        if entry.state != "waiting":
            self.tally.add(Result(source, target, entry, now=True))

    def _settled(
        self,
        source: Path,
        target: Path,
        before: Entry | None,
        stamp: Stamp | None,
        there: Stamp | None,
        watching: bool,
    ) -> Entry | None:
        """What became of a file that is not to be done now, else None."""
        entry = before or Entry(source=_absolute(source))
        if entry.source != _absolute(source):
            if there is None or self.job.overwrite:
                return None
            return _skipped(
                Entry(source=_absolute(source)), f"{target} was made of {entry.source}", "replaces it"
            )
        changes = self._changes(source, entry, stamp)
        if entry.state == "failed":
            # What was tried with other options, or of another file, is not what failed.
            return None if self.retry or changes else entry
        if entry.made and there is None:
            # Who watches a folder may take away what was made.
            return replace(entry, state="done") if watching and not changes else None
        if entry.made and there == entry.output:
            if not changes:
                return replace(entry, state="done", error=None, kind=None, exit_code=0)
            if self.job.overwrite:
                return None
            told = f"done before, but {'; '.join(changes)}"
            return _skipped(entry, told, "makes it again")
        if there is None or entry.wrote(there) or self.job.overwrite or journal_folder(target).is_dir():
            return None
        told = f"{target} exists" + (", changed since it was made" if entry.made else "")
        return _skipped(entry, told, "replaces it")

    def _changes(self, source: Path, entry: Entry, stamp: Stamp | None) -> list[str]:
        if not entry.options:
            return []
        changed = [f"{source.name} has changed"] if entry.stamp != stamp else []
        if entry.options != self.queue.options:
            changed += self.queue.changes(entry.options) or ["the options have changed"]
        return changed

    def _run(self, job: Job, entry: Entry, watching: bool) -> Entry:
        """One run; what became of it. Raises KeyboardInterrupt once that is kept, too."""
        source, target = Path(job.source), Path(job.sink)

        def ready(partial: Path) -> None:
            # Else nobody knew whose it is, if the process died before it is listed as done.
            self.queue.put(target, replace(entry, coming=stamp_of(partial)))

        self.tally.begin(source)
        self.at_work = True
        cpu = time.process_time()
        try:
            _make(target.parent)
            outcome = execute(job, self.say, whole=True, ready=ready)
            _sync(target)
        except KeyboardInterrupt:
            self.queue.put(
                target, replace(self.queue.entries[self.queue.name(target)], state="waiting")
            )
            raise
        except Exception as error:
            if self.debug or not isinstance(error, VelaturaError):
                self.tally.complain(traceback.format_exc())
            # An output of ours that was there before stays as it was.
            there = stamp_of(target)
            wrote = self.queue.entries[self.queue.name(target)].wrote(there)
            entry = replace(entry, output=there if wrote else None).failed(error)
        else:
            report = {**outcome.report, "cpu_seconds": round(time.process_time() - cpu, 3)}
            entry = replace(entry, state="done", output=stamp_of(target), report=report)
            if outcome.loss is not None:
                entry = entry.failed(outcome.loss)
        self.at_work = False
        stamp = stamp_of(source)
        # One that was taken away was read to its end where no error came of it.
        if stamp == entry.stamp or (stamp is None and entry.state == "done"):
            return entry
        if watching:
            what = "is gone" if stamp is None else "has changed while it was read: it is made again"
            self.say.note(f"{source.name} {what}")
            return replace(entry, state="waiting", error=None, kind=None, exit_code=0)
        if entry.state == "failed":
            return entry
        return entry.failed(SourceError(f"{source} was changed or replaced while it was read"))


def _targets(
    selection: Selection, suffixes: Suffixes, outputs: Iterable[Path], *, empty: bool
) -> list[tuple[Path, Path]]:
    """All files with their outputs. Raises VelaturaError where that cannot come to a good end."""
    files = selection.files(tuple(outputs))
    if not files and not empty:
        kind = "no video in" if selection.pattern is None else "no video matches"
        hint = "; --recursive looks into its folders" if not selection.recursive else ""
        raise SourceError(f"{kind} {selection.source}{hint if selection.pattern is None else ''}")
    pairs = [(file, selection.target(file, suffixes.of(file))) for file in files]
    if not empty:
        for told in clashes(pairs).values():
            raise SinkError(told)
    return pairs


def _skipped(entry: Entry, told: str, cure: str) -> Entry:
    failed = entry.failed(SinkError(f"{told}: --overwrite {cure}"))
    return replace(failed, state="skipped")


def _sync(target: Path) -> None:
    """No list may say that a file is done, which a power cut takes away."""
    with reporting(target):
        with target.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(target.parent)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SinkError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - links stay as they are named
