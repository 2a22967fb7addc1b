"""`velatura run FOLDER FOLDER`: one command for many files, which resumes where it was interrupted."""

import glob
import os
import re
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from ..backoff import Backoff
from ..errors import SinkError, SourceError, VelaturaError
from ..frame import YUV420P, VideoInfo
from ..resume.journal import journal_folder
from ..resume.segments import sync_folder
from ..sinks import Encoding, open_sink
from ..sinks.base import PICTURES
from ..sinks.output_file import reporting
from ..sources import open_source
from .batch_state import Entry, Queue, Result, Stamp, Tally, stamp_of
from .job import Job, settings_of
from .progress import Reporter
from .run import execute, terminable

VIDEOS = frozenset(
    [".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v",
     ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".rm", ".rmvb",
     ".ts", ".vob", ".webm", ".wmv", ".y4m"]
)  # fmt: skip
"""Suffixes by which a file in a folder is taken for a video."""

COMING = frozenset([".crdownload", ".download", ".part", ".partial", ".tmp"])
"""Suffixes of files that are being fetched, and then get other names."""

KEPT = frozenset(
    [".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".ts", ".webm", ".y4m"]
)
"""Suffixes that an output takes from its source, where the codec allows it."""

FALLBACK = ".mkv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A folder or a glob as the user gave it, and the folder of its outputs."""

    source: str
    base: Path
    """The folder relative to which outputs keep their places."""
    pattern: str | None
    """A glob beneath `base`; None selects the videos in it."""
    sink: Path
    recursive: bool = False
    """True if subfolders are searched, too."""

    @classmethod
    def of(cls, source: str, sink: str, *, recursive: bool) -> "Selection":
        """Returns the selection. Raises SourceError or SinkError for an unfit source or sink."""
        target = Path(sink)
        if sink in ("null:", "-"):
            raise SinkError(f"{source} names several videos: name a folder for what becomes of them")
        if target.exists() and not target.is_dir():
            raise SinkError(f"{sink} is a file, but {source} names several videos: name a folder")
        wanted = sink.endswith(("/", os.sep))
        if Path(source).is_dir() and target.suffix and not target.is_dir() and not wanted:
            raise SourceError(
                f"{source} is a folder; for its pictures give '{source}/*.png', for its videos a SINK "
                f"that is a folder, such as {target.with_suffix('')}/"
            )
        if not target.is_dir() and not wanted:
            raise SinkError(f"no folder {sink}: end it in a slash ({sink}/) to have it made")
        if Path(source).is_dir():
            return cls(source=source, base=Path(source), pattern=None, sink=target, recursive=recursive)
        base, pattern = _split(source)
        if ".." in Path(pattern).parts:
            raise SourceError(f"{source}: '..' cannot stand behind a wildcard")
        if recursive:
            raise SourceError(f"--recursive is for folders; '**/' does the same in {source}")
        return cls(source=source, base=base, pattern=pattern, sink=target)

    def files(self, outputs: Collection[Path] = ()) -> list[Path]:
        """Returns the videos, in the order in which people sort names. `outputs` are never among them.

        Neither are hidden files, nor those in the folder of the outputs where that is inside the
        source's. Raises SourceError when a folder cannot be read.
        """
        own = {_same(path) for path in outputs}
        found = self._walk() if self.pattern is None else self._glob(self.pattern)
        wanted = [path for path in found if is_video(path) and _same(path) not in own]
        return sorted(wanted, key=lambda path: _natural(path.relative_to(self.base)))

    def others(self, outputs: Collection[Path] = ()) -> list[Path]:
        """Returns the files of the folder whose names are no videos', nor those of files on their way.

        Of a glob there are none. Raises SourceError as `files` does.
        """
        own = {_same(path) for path in outputs}
        found = self._walk() if self.pattern is None else iter(())
        left = (p for p in found if not is_video(p) and p.suffix.lower() not in COMING)
        return sorted(path for path in left if path.is_file() and _same(path) not in own)

    def target(self, file: Path, suffix: str) -> Path:
        """Returns the output of that file."""
        return self.sink / file.relative_to(self.base).with_suffix(suffix)

    def _walk(self) -> Iterator[Path]:
        def refuse(error: OSError) -> None:
            raise SourceError(f"folder {error.filename} cannot be read: {error.strerror}") from error

        for root, folders, names in os.walk(self.base, onerror=refuse):
            inner = [Path(root, name) for name in folders if not name.startswith(".")]
            folders[:] = [p.name for p in inner if self.recursive and not self._is_sink(p)]
            yield from (Path(root, name) for name in names if not name.startswith("."))

    def _glob(self, pattern: str) -> Iterator[Path]:
        for name in glob.iglob(pattern, root_dir=self.base, recursive=True):  # noqa: PTH207 - root_dir
            path = self.base / name
            hidden = any(part.startswith(".") for part in Path(name).parts)
            if not hidden and not any(self._is_sink(p) for p in path.parents):
                yield path

    def _is_sink(self, folder: Path) -> bool:
        """Returns whether a folder inside the source's is the one of the outputs."""
        sink, base = self.sink.resolve(), self.base.resolve()
        return base in sink.parents and folder.resolve() == sink


def names_videos(source: str) -> bool:
    """Returns whether SOURCE is a folder, or a glob of videos rather than of one film's pictures."""
    path = Path(source)
    if path.is_dir():
        return True
    if source.startswith("pattern:") or path.exists() or not glob.has_magic(source):
        return False
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        return True
    if suffix in PICTURES or "%" in path.name:
        return False
    base, pattern = _split(source)
    found = glob.iglob(pattern, root_dir=base, recursive=True)  # noqa: PTH207 - root_dir
    return any(is_video(base / name) for name in found)


def is_video(path: Path) -> bool:
    """Returns whether the name is that of a video; a broken link counts, so that it is reported."""
    return path.suffix.lower() in VIDEOS and (
        path.is_file() or (path.is_symlink() and not path.exists())
    )


class Suffixes:
    """The choice of outputs' suffixes: `--to`, else the source's where that can be written."""

    def __init__(self, to: str | None, encoding: Encoding) -> None:
        """Raises SinkError for a `to` that cannot be written."""
        self._encoding = encoding
        self._refusals: dict[str, SinkError | None] = {}
        self._to = f".{to.lstrip('.').lower()}" if to is not None else None
        if self._to is not None:
            if self._to in PICTURES:
                raise SinkError(f"--to {to}: a batch makes video files, such as {FALLBACK}")
            self._require(self._to)

    def of(self, file: Path) -> str:
        """Returns the suffix for that file's output. Raises SinkError when nothing can be written."""
        if self._to is not None:
            return self._to
        suffix = file.suffix.lower()
        if suffix in KEPT and self._refusal(suffix) is None:
            return suffix
        self._require(FALLBACK)
        return FALLBACK

    def _require(self, suffix: str) -> None:
        refusal = self._refusal(suffix)
        if refusal is not None:
            raise refusal

    def _refusal(self, suffix: str) -> SinkError | None:
        """Returns the error that such an output would raise before its first frame; None where it
        raises none."""
        if suffix not in self._refusals:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    name = Path(folder, f"batch{suffix}")
                    open_sink(name, like=_Any(), encoding=self._encoding, audio=False).abort()
                    self._refusals[suffix] = None
                except SinkError as error:
                    told = str(error).replace(f"{folder}{os.sep}", "")
                    self._refusals[suffix] = SinkError(told)
        return self._refusals[suffix]


class _Any:
    """A placeholder for any source."""

    def __init__(self) -> None:
        rate = Fraction(25)
        self.info = VideoInfo(width=64, height=48, format=YUV420P, rate=rate, time_base=1 / rate)


def clashes(pairs: Sequence[tuple[Path, Path]]) -> dict[Path, str]:
    """Returns an error for each file that shares its output with another, or whose output is one of the
    files."""
    inputs = {_key(source): source for source, _ in pairs}
    makers: dict[str, list[Path]] = {}
    for source, target in pairs:
        makers.setdefault(_key(target), []).append(source)
    told: dict[Path, str] = {}
    for source, target in pairs:
        key = _key(target)
        if len(makers[key]) > 1:
            both = " and ".join(map(str, makers[key]))
            told[source] = f"{both} would become {target}: rename one, or run one of them elsewhere"
        elif key in inputs:
            told[source] = (
                f"the output of {source} would be {inputs[key]}, which is an input itself: "
                "name another folder, or another kind of file with --to"
            )
    return told


def _split(source: str) -> tuple[Path, str]:
    """Returns the deepest folder that exists as it is written, and the glob beneath it."""
    parts = Path(source).parts
    lengths = range(len(parts) - 1, 0, -1)
    length = next((n for n in lengths if Path(*parts[:n]).is_dir()), 0)
    return Path(*parts[:length]), str(Path(*parts[length:]))


def _natural(path: Path) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """Returns a key by which `clip2` sorts before `clip10`."""
    pieces = re.split(r"(\d+)", str(path).casefold())
    return tuple((0, int(p)) if p.isdecimal() else (1, p) for p in pieces if p), str(path)


def _same(path: Path) -> Path:
    """Returns a path that is equal for two names of one place; the file itself may be a link to
    elsewhere."""
    return path.parent.resolve() / path.name


def _key(path: Path) -> str:
    """Returns a key that is equal for names that any file system takes for the same."""
    text = str(_same(path))
    alike = sys.platform in ("darwin", "win32")
    return unicodedata.normalize("NFC", text).casefold() if alike else text


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """The options of a batch beside those of each run."""

    to: str | None = None
    """Suffix of all outputs; None keeps the source's where it can be written."""
    recursive: bool = False
    retry: bool = False
    """True to retry files that failed in an earlier run."""
    watch: bool = False
    """True to go on with files that appear later, until the user stops it."""


def run_batch(
    job: Job,
    options: BatchOptions,
    *,
    quiet: bool = False,
    as_json: bool = False,
    debug: bool = False,
) -> int:
    """Runs `job` for each video that its source names, into the folder that its sink names.

    Returns the exit code: 0 when all are done, that of the failures where they have the same, else that
    of BatchError. The state of each file is stored in the folder. Raises VelaturaError for errors that
    prevent the whole batch before work starts.
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
                Watch(batch, selection, suffixes).run()
            else:
                batch.take(pairs)
        except KeyboardInterrupt:
            tally.interrupted = not options.watch or batch.at_work
        code = tally.exit_code
        tally.summary(retry=options.retry)
    return code


class Batch:
    """Runs files one after the other, and records the result of each."""

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
        """True while a file is being made: it was interrupted when that stays true."""

    def take(self, pairs: Sequence[tuple[Path, Path]]) -> None:
        """Process all files that are not done. Raises KeyboardInterrupt when the user stops it."""
        self.tally.total = len(pairs)
        for source, target in pairs:
            self.one(source, target)

    def one(self, source: Path, target: Path, *, watching: bool = False) -> Entry:
        """Processes one file, unless it is done, and returns its entry.

        A file of a watched folder may be processed again: its state becomes `waiting` where it changed
        meanwhile.
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
            # An interrupted run is not resumed with another file that has taken the place of the first.
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
        """Count a file that cannot be processed beside the others."""
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
        """Returns the entry of a file that is not to be processed now, else None."""
        entry = before or Entry(source=_absolute(source))
        if entry.source != _absolute(source):
            if there is None or self.job.overwrite:
                return None
            return _skipped(
                Entry(source=_absolute(source)), f"{target} was made of {entry.source}", "replaces it"
            )
        changes = self._changes(source, entry, stamp)
        if entry.state == "failed":
            # A failure with other options, or of another file, does not count.
            return None if self.retry or changes else entry
        if entry.made and there is None:
            # The user of a watched folder may move outputs away.
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
        """Runs one job and returns its entry. Raises KeyboardInterrupt after that is stored, too."""
        source, target = Path(job.source), Path(job.sink)

        def ready(partial: Path) -> None:
            # Otherwise the output's owner would be unknown if the process died before it is listed as
            # done.
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
            # An earlier output of this batch stays as it was.
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
        # A source that was removed meanwhile was read to its end where no error was raised.
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
    """Returns all files with their outputs. Raises VelaturaError where that cannot succeed."""
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
    """Sync a finished file, so that no list says "done" of a file that a power cut takes away."""
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


PERIOD = 2.0
"""Seconds between two scans. No event is sent for a file that another machine puts on a share."""

SETTLE = 5.0
"""Seconds for which a file must not change to count as complete."""

PATIENCE = 60.0
"""Seconds after which a file that does not change, and cannot be opened, counts as complete, too."""


@dataclass(slots=True)
class _Seen:
    """The last observation of a file."""

    stamp: Stamp
    since: float
    """The time at which it was first seen in this state."""
    look: float
    """The time of the next attempt to open it."""
    backoff: Backoff


class Watch:
    """Scans a folder again and again, until the user stops it."""

    def __init__(self, batch: Batch, selection: Selection, suffixes: Suffixes) -> None:
        self._batch = batch
        self._selection = selection
        self._suffixes = suffixes
        self._seen: dict[Path, _Seen] = {}
        self._settled: dict[Path, Stamp] = {}
        self._problem = ""
        self._left: set[Path] = set()
        """Files that were said not to be taken."""

    def run(self) -> None:
        """Process files that are complete, and wait for more. Ends by KeyboardInterrupt only."""
        self._batch.say.note(f"watching {self._selection.source}; Ctrl-C ends it")
        while True:
            self.look()
            time.sleep(PERIOD)

    def look(self) -> None:
        """Process all files that are complete and were not processed in their present state."""
        pairs = self._pairs()
        ready = [(source, target) for source, target in pairs if self._is_ready(source)]
        wrong = clashes(pairs) if ready else {}
        for source, target in ready:
            stamp = self._seen[source].stamp
            if source in wrong:
                self._batch.refuse(source, target, wrong[source])
            elif stamp_of(source) != stamp:
                continue  # it came to change while others were made
            elif self._batch.one(source, target, watching=True).state != "waiting":
                self._settled[source] = stamp

    def _pairs(self) -> list[tuple[Path, Path]]:
        try:
            files = self._selection.files(self._batch.queue.outputs)
        except SourceError as error:
            # A network share may come back.
            if str(error) != self._problem:
                self._batch.say.note(f"{error}; waiting for it")
            self._problem = str(error)
            return []
        self._problem = ""
        for file in self._selection.others(self._batch.queue.outputs):
            if file not in self._left:
                kind = file.suffix or "a name without a suffix"
                self._batch.say.note(f"{file.name} is not taken: {kind} is no video's")
                self._left.add(file)
        self._seen = {file: self._seen[file] for file in files if file in self._seen}
        return [(file, self._selection.target(file, self._suffixes.of(file))) for file in files]

    def _is_ready(self, file: Path) -> bool:
        stamp, now = stamp_of(file), time.monotonic()
        if stamp is None or self._settled.get(file) == stamp:
            return False
        seen = self._seen.get(file)
        if seen is None or seen.stamp != stamp:
            self._seen[file] = _Seen(stamp, now, now + SETTLE, Backoff(first=SETTLE, longest=PATIENCE))
            return False
        if now < seen.look:
            return False
        if now - seen.since >= PATIENCE or _opens(file):
            return True
        seen.look = now + seen.backoff.pause()
        return False


def _opens(file: Path) -> bool:
    """Returns whether it is a video that can be read, which an incomplete one often is not."""
    try:
        open_source(file).close()
    except SourceError:
        return False
    return True
