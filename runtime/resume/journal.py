"""Journal: what an interrupted run leaves beside its output, so that the same command resumes it."""

import json
import re
import stat
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Self, cast

import av

from ..cache import digest_of, write_whole
from ..errors import SinkError
from ..media.encode import Coding
from ..media.options import Encoding
from ..media.packet_index import PacketIndex, Trace
from .output_lock import UNLOCKABLE, Lock, busy, is_plain_file
from .segments import (
    MAGIC,
    SUFFIX,
    Segment,
    SegmentFile,
    SegmentWriter,
    file_print,
    segment_path,
    sync_folder,
)

NAME = "journal.json"
LOCK = "lock"
_OWN = re.compile(rf"{re.escape(NAME)}|\.{re.escape(NAME)}\..+|{LOCK}|\d{{6}}({SUFFIX}|\.\d+\.partial)")
"""Names of all files that a journal makes."""
_HEADER = b'{\n "sha256": "'
"""The first bytes of journal.json; segments begin with their MAGIC."""

Choices = tuple[tuple[str, str], ...]
"""Backend and precision of each model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The contents of journal.json."""

    id: str
    """Identifies the journal: segments of another one do not count."""
    settings: dict[str, Any]
    """All options that decide what frames come out, by the words in which a change is reported."""
    length: int
    """Frames of a segment."""
    choices: Choices = ()
    """Backend and precision that `auto` chose for each model."""
    coding: Coding | None = None
    """The parameters of the video stream, once a first frame was there."""
    headers: str = ""
    """Hash of the encoder's headers."""
    finished: str = ""
    """Fingerprint of the joined file, stored just before it gets its name."""
    total: int = 0
    """The number of frames in that file."""
    stopped: bool = False
    """True if that file ends early because the user stopped the run."""
    index: PacketIndex | None = None
    """Where the source may be read from, once that was looked for and found."""

    def has_headers(self, headers: bytes) -> bool:
        """Returns whether an encoder's headers are those of the earlier segments."""
        return digest_of(headers) == self.headers

    def to_bytes(self) -> bytes:
        """Returns JSON with a hash over all of it."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        fields["coding"] = self.coding.to_json() if self.coding is not None else None
        fields["index"] = asdict(self.index) if self.index is not None else None
        text = json.dumps(fields, sort_keys=True)
        return json.dumps({"sha256": digest_of(text.encode()), "state": text}, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Returns the state that `to_bytes` gave. Raises ValueError, TypeError or KeyError if
        damaged."""
        outer: Any = json.loads(data)
        if digest_of(outer["state"].encode()) != outer["sha256"]:
            raise ValueError("the journal's hash is wrong")
        fields = cast("dict[str, Any]", json.loads(outer["state"]))
        coding = fields.pop("coding")
        choices = tuple((str(b), str(p)) for b, p in fields.pop("choices"))
        index = fields.pop("index", None)
        return cls(
            **fields,
            choices=choices,
            coding=Coding.from_json(coding) if coding else None,
            index=PacketIndex.from_json(index) if index else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a process must know to make segments of an output. Plain data."""

    path: Path
    """The path of the output."""
    folder: Path
    """The journal's folder, whose lock is held by the process that hands out the segments."""
    state: State
    """The journal's state."""
    coding: Coding
    kind: str
    """FFmpeg's name of the container."""
    encoding: Encoding
    files: tuple[str, ...]
    """The source's files."""

    @property
    def choices(self) -> Choices:
        """Backend and precision of each model."""
        return self.state.choices


class Journal:
    """The folder `.OUT.journal`: settings, finished segments, and a lock against a second process."""

    def __init__(
        self,
        target: Path,
        settings: Mapping[str, Any],
        *,
        length: int,
        restart: bool,
        scattered: bool = False,
    ) -> None:
        """Open or begin. Raises SinkError when another process has it, the settings differ, or the
        folder was not made by a journal.

        With `scattered`, segments that follow a missing one are kept, too.
        """
        self.target = target
        self.folder = journal_folder(target)
        self.notes: tuple[str, ...] = ()
        self.segments: list[SegmentFile] = []
        """The finished segments from the first one up to the first that is missing."""
        self.scattered: dict[int, SegmentFile] = {}
        """Finished segments after a missing one, by number: other processes made them."""
        self._keeps_scattered = scattered
        self._lock = self._locked()
        try:
            if restart:
                self._clear()
            self.state = self._load(_plain(settings), length)
        except BaseException:
            if (self.folder / NAME).exists():
                self.leave()
            else:
                self.remove()
            raise

    @property
    def frames(self) -> int:
        """The number of frames that need not be made again."""
        if self.published:
            return self.state.total
        return sum(segment.about.frames for segment in self.segments)

    @property
    def scattered_frames(self) -> int:
        """The number of those frames that follow a missing segment."""
        return sum(segment.about.frames for segment in self.scattered.values())

    @property
    def published(self) -> bool:
        """True if the output was given its name, so that only the journal is left to remove."""
        return bool(self.state.finished) and _print_or_none(self.target) == self.state.finished

    def choose(self, choices: Sequence[tuple[str, str]]) -> None:
        """Store the choices of `auto`; they must equal those of earlier segments. Raises SinkError."""
        chosen = tuple(choices)
        if not self.segments and not self.scattered:
            self._store(choices=chosen)
        elif chosen != self.state.choices:
            self._refuse([("what runs the models", _engines(self.state.choices), _engines(chosen))])

    def begin(self, coding: Coding, headers: bytes) -> None:
        """Store the parameters of the stream and the hash of the encoder's headers."""
        self._store(coding=coding, headers=digest_of(headers))

    def keep_index(self, index: PacketIndex) -> None:
        """Store where the source may be read from."""
        self._store(index=index)

    def check_headers(self, headers: bytes) -> None:
        """Raise SinkError where an encoder's headers differ from those of the earlier segments."""
        if not self.state.has_headers(headers):
            raise SinkError(
                f"{self.target}: this encoder writes other headers than the one that the run began "
                "with: --restart begins anew, --no-journal does without segments"
            )

    def accept(self, path: Path, number: int) -> bool:
        """Take in a segment that another process has made, every byte of which is checked.

        False where it is there already. Raises SinkError where it is not what it should be.
        """
        segment = SegmentFile.whole(path)
        named = segment_path(self.folder, number)
        if number < len(self.segments) or number in self.scattered:
            path.unlink()
            return False
        if segment is None or segment.about.number != number or not _is_of(segment.about, self.state):
            path.unlink(missing_ok=True)
            raise SinkError(
                f"{self.target}: a worker gave another segment than its own, or a damaged one"
            )
        path.replace(named)
        sync_folder(self.folder)
        self.scattered[number] = SegmentFile(named)
        while (following := self.scattered.pop(len(self.segments), None)) is not None:
            self.segments.append(following)
        return True

    def drop_strays(self) -> frozenset[int]:
        """Remove the segments that were sought, from the first one on that does not follow the one
        before it. Returns their numbers."""
        made = dict(enumerate(self.segments)) | self.scattered
        pairs = [(n - 1, n) for n in made if n - 1 in made]
        if all(made[b].about.follows(made[a].about) for a, b in pairs):
            return frozenset()
        proven = next(
            (b for b, (one, two) in enumerate(pairwise(self.segments), 1)
             if not two.about.follows(one.about)),
            len(self.segments),
        )  # fmt: skip
        return self._drop({n for n, s in made.items() if n >= proven and _sought(s.about)})

    def drop_final(self) -> None:
        """Remove the segment with the film's end, which is to be looked for again."""
        made = dict(enumerate(self.segments)) | self.scattered
        self._drop({n for n, s in made.items() if s.about.final})

    def _drop(self, numbers: Collection[int]) -> frozenset[int]:
        made = dict(enumerate(self.segments)) | self.scattered
        for number in numbers:
            made.pop(number).path.unlink(missing_ok=True)
        self.segments = []
        while (following := made.pop(len(self.segments), None)) is not None:
            self.segments.append(following)
        self.scattered = made
        return frozenset(numbers)

    def collect(self, frames: int | None) -> None:
        """Take in the segments of other processes. Raises SinkError unless they have all `frames`
        frames."""
        self.segments = self._whole(self.state)
        if frames is None:
            return
        made = sum(segment.about.frames for segment in self.segments)
        if made != frames or self.scattered:
            raise SinkError(
                f"{self.target}: of {frames} frames {made} are there in one piece: the same command "
                "makes the rest"
            )

    def writer(self) -> SegmentWriter:
        """Returns a writer for the next segment."""
        return SegmentWriter(self.folder, len(self.segments))

    def keep(
        self,
        writer: SegmentWriter,
        *,
        frames: int,
        headers: bytes,
        final: bool,
        trace: Trace | None = None,
    ) -> Segment:
        """Adds a written segment to the journal and returns its description."""
        about = writer.close(
            journal=self.state.id, frames=frames, headers=headers, final=final, trace=trace
        )
        self.segments.append(SegmentFile(writer.path))
        return about

    def finish(self, partial: Path, *, stopped: bool) -> None:
        """Store the fingerprint of the joined file, which is renamed next."""
        total = sum(segment.about.frames for segment in self.segments)
        self._store(finished=file_print(partial), total=total, stopped=stopped)

    def remove(self) -> None:
        """Remove the journal: the output is there, or there is nothing worth keeping."""
        if not self._lock.held:
            return  # it is left already, and may be another's by now
        self._clear()
        _dissolve(self.folder, self._lock)

    def leave(self) -> None:
        """Release the lock; finished segments stay."""
        self._lock.release(remove=False)

    def _locked(self) -> Lock:
        while True:
            _check_folder(self.folder)
            self.folder.mkdir(exist_ok=True)
            # Its holder may just have removed it.
            with suppress(FileNotFoundError):
                return _locked(self.folder, self.target)

    def _load(self, settings: dict[str, Any], length: int) -> State:
        fresh = State(id=uuid.uuid4().hex, settings=settings, length=length)
        path = self.folder / NAME
        left = any(path.suffix == SUFFIX for path in _own_files(self.folder))
        try:
            state = State.from_bytes(path.read_bytes())
        except FileNotFoundError:
            state = None
        except (ValueError, TypeError, KeyError, AttributeError):
            state, left = None, True
        if state is None:
            if left:
                self.notes += (f"{path} is damaged or missing: the run begins anew",)
            return self._anew(fresh)
        self.state = state
        if self.published and state.stopped:
            return self._anew(fresh)  # that file is its user's; what follows is another run
        self.segments = self._whole(state)
        if strays := self.drop_strays():
            self.notes += (f"{len(strays)} segments were not read where they should: made again",)
        if not self.segments and not self.scattered and not self.published:
            return self._anew(fresh)
        changes = [
            (name, state.settings.get(name), settings.get(name))
            for name in (*state.settings, *(n for n in settings if n not in state.settings))
            if state.settings.get(name) != settings.get(name)
        ]
        if changes:
            self._refuse(changes)
        return state

    def _anew(self, fresh: State) -> State:
        self._clear()
        write_whole(self.folder / NAME, fresh.to_bytes())
        return fresh

    def _whole(self, state: State) -> list[SegmentFile]:
        """Returns the segments up to the first that is missing, damaged or short; useless ones are
        removed."""
        whole: dict[int, SegmentFile] = {}
        foreign: set[Path] = set()
        files = _own_files(self.folder)
        for path in (path for path in files if path.suffix == SUFFIX):
            segment = SegmentFile.whole(path)
            if segment is not None and _belongs(segment, path, state):
                whole[segment.about.number] = segment
            elif segment is not None:
                foreign.add(path)
        found: list[SegmentFile] = []
        while (following := whole.pop(len(found), None)) is not None:
            found.append(following)
        self.scattered = whole if self._keeps_scattered else {}
        useful = {segment.path for segment in (*found, *self.scattered.values())}
        useless = set(files) - useful - {self.folder / NAME, self.folder / LOCK}
        if any(path.suffix == SUFFIX for path in useless - foreign):
            rest = "" if self._keeps_scattered else " from there"
            self.notes += (f"segment {len(found)} of the journal is damaged: made again{rest}",)
        for path in useless:
            path.unlink()
        return found

    def _refuse(self, changes: list[tuple[str, Any, Any]]) -> None:
        told = "; ".join(_told(name, before, now) for name, before, now in changes)
        raise SinkError(
            f"{self.target}: a run that was cut off left {self.frames} frames, but {told}: give the "
            "same command to go on, or --restart to throw them away"
        )

    def _store(self, **fields: Any) -> None:
        self.state = replace(self.state, **fields)
        write_whole(self.folder / NAME, self.state.to_bytes())

    def _clear(self) -> None:
        _remove_files(self.folder)
        self.segments, self.scattered = [], {}


def _belongs(segment: SegmentFile, path: Path, state: State) -> bool:
    """Returns whether a segment belongs to this journal, is whole, and has the right name."""
    about = segment.about
    return _is_of(about, state) and segment_path(path.parent, about.number) == path


def _is_of(about: Segment, state: State) -> bool:
    # A short one that is not the last was made by a Ctrl-C, whose file never got its name.
    return (about.journal, about.headers) == (state.id, state.headers) and (
        about.frames == state.length or about.final
    )


def _sought(about: Segment) -> bool:
    return about.trace is not None and about.trace.sought


def journal_folder(target: Path) -> Path:
    """Returns the path of an output's journal."""
    return target.with_name(f".{target.name}.journal")


def frames_left(target: Path) -> int:
    """Returns the frames that a run that was cut off left in an output's journal; 0 where there is
    none.

    To be shown: the segments are counted, not read, and no lock is taken.
    """
    folder = journal_folder(target)
    try:
        length = State.from_bytes((folder / NAME).read_bytes()).length
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return 0
    return length * next(n for n in count() if not segment_path(folder, n).exists())


def leftover(target: Path, *, remove: bool) -> bool:
    """Returns whether an earlier run left a journal, and removes it if asked to.

    Raises SinkError when another process is at work on that output.
    """
    folder = journal_folder(target)
    try:
        folder.lstat()
        _check_folder(folder)
        lock = _locked(folder, target)
    except OSError:  # such as of a name that is too long, which the sink will say
        return False
    except ForeignFolderError:
        return False  # whoever keeps no journal can leave it where it is
    if remove:
        _remove_files(folder)
        _dissolve(folder, lock)
    else:
        lock.release(remove=False)
    return folder.is_dir()


class ForeignFolderError(SinkError):
    """A folder has the name of a journal, but was not made by one."""


def _check_folder(folder: Path) -> None:
    """Raise ForeignFolderError where that path exists and is not a journal's folder itself.

    A journal is known by the header of any of its files; one that was cut off at its very beginning
    holds nothing, in files of its own names.
    """
    try:
        mode = folder.lstat().st_mode
    except FileNotFoundError:
        return
    advice = "move it away, or use --no-journal"
    if not stat.S_ISDIR(mode):
        what = "a link" if stat.S_ISLNK(mode) else "no folder"
        raise ForeignFolderError(f"{folder} is {what}, and was made by no journal: {advice}")
    own = _own_files(folder)
    if any(map(_has_header, own)):
        return
    for path in folder.iterdir():
        if path not in own or path.lstat().st_size:
            raise ForeignFolderError(
                f"{folder} holds {path.name}, and was made by no journal: {advice}"
            )


def _own_files(folder: Path) -> list[Path]:
    """Returns the files whose names show that a journal may have made them; no links."""
    return [path for path in folder.iterdir() if _OWN.fullmatch(path.name) and is_plain_file(path)]


def _has_header(path: Path) -> bool:
    header = _HEADER if NAME in path.name else MAGIC
    with path.open("rb") as file:
        return path.name != LOCK and file.read(len(header)) == header


def _remove_files(folder: Path) -> None:
    """Remove all that a journal made except its lock."""
    # The state is removed last: as long as it exists, it describes the other files.
    for path in sorted(_own_files(folder), key=lambda path: path.name == NAME):
        if path.name != LOCK:
            path.unlink()


def _dissolve(folder: Path, lock: Lock) -> None:
    """Remove the lock and the folder, unless it holds anything else."""
    lock.release(remove=True)
    # Not an error: another process may have opened a journal of its own in it just now.
    with suppress(OSError):
        folder.rmdir()


def _locked(folder: Path, target: Path) -> Lock:
    """Returns the journal's lock. Raises SinkError where another process has it, or files cannot be
    locked."""
    try:
        return Lock(folder / LOCK)
    except BlockingIOError as error:
        raise busy(target) from error
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            raise
        raise SinkError(f"{folder}: files cannot be locked there: use --no-journal") from error


def software() -> str:
    """Returns the versions of the software that decides what an encoder writes."""
    major, minor, patch = av.library_versions["libavcodec"]
    return f"velatura {version('velatura')}, PyAV {av.__version__}, libavcodec {major}.{minor}.{patch}"


def _print_or_none(path: Path) -> str | None:
    try:
        return file_print(path)
    except OSError:
        return None


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings as they read back from JSON."""
    return cast("dict[str, Any]", json.loads(json.dumps(dict(settings))))


def _told(name: str, before: Any, now: Any) -> str:
    return f"{name} has changed (was {_words(before)}, is {_words(now)})"


def _engines(choices: Choices) -> str:
    return ", ".join(f"{backend} in {precision}" for backend, precision in choices)


def _words(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, cast("Sequence[Any]", value))) or "none"
    return str(value)
