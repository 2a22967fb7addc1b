"""Selection: which files a batch takes, and what their outputs are called."""

import glob
import os
import re
import sys
import tempfile
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..errors import SinkError, SourceError
from ..frame import YUV420P, VideoInfo
from ..sinks import PICTURES, Encoding, open_sink

VIDEOS = frozenset(
    [".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v",
     ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".rm", ".rmvb",
     ".ts", ".vob", ".webm", ".wmv", ".y4m"]
)  # fmt: skip
"""Suffixes by which a file in a folder is taken for a video."""

KEPT = frozenset(
    [".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".ts", ".webm", ".y4m"]
)
"""Suffixes that an output takes over from its source, where the codec allows it."""

FALLBACK = ".mkv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A folder or a glob as a user gave it, and where its outputs go."""

    source: str
    base: Path
    """Outputs keep their places relative to it."""
    pattern: str | None
    """A glob beneath `base`; None takes the videos in it."""
    sink: Path
    recursive: bool = False
    """Whether the folder's own folders are looked through, too."""

    @classmethod
    def of(cls, source: str, sink: str, *, recursive: bool) -> "Selection":
        """Raises SourceError or SinkError when they are no such things."""
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
        """The videos, in the order in which people sort names. `outputs` are never among them.

        Neither is what is hidden, or lies in the folder of the outputs where that is inside the
        source's. Raises SourceError when a folder cannot be read.
        """
        own = {_same(path) for path in outputs}
        found = self._walk() if self.pattern is None else self._glob(self.pattern)
        wanted = [path for path in found if is_video(path) and _same(path) not in own]
        return sorted(wanted, key=lambda path: _natural(path.relative_to(self.base)))

    def target(self, file: Path, suffix: str) -> Path:
        """The output of that file."""
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
        """Whether a folder inside the source's is the one of the outputs."""
        sink, base = self.sink.resolve(), self.base.resolve()
        return base in sink.parents and folder.resolve() == sink


def names_videos(source: str) -> bool:
    """Whether SOURCE is a folder, or a glob of videos rather than of one film's pictures."""
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
    """Whether it may be one, by its name; a link that leads nowhere shall be heard of."""
    return path.suffix.lower() in VIDEOS and (
        path.is_file() or (path.is_symlink() and not path.exists())
    )


class Suffixes:
    """What outputs end in: `--to`, else what the source ends in where that can be written."""

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
        """For the output of that file. Raises SinkError when nothing can be written."""
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
        """What is said against such an output before the first frame, if anything is."""
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
    """Stands for whatever source."""

    def __init__(self) -> None:
        rate = Fraction(25)
        self.info = VideoInfo(width=64, height=48, format=YUV420P, rate=rate, time_base=1 / rate)


def clashes(pairs: Sequence[tuple[Path, Path]]) -> dict[Path, str]:
    """What is wrong with files that would give one output, or whose output is one of the files."""
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
    """The deepest folder that exists as it is written, and the glob beneath it."""
    parts = Path(source).parts
    lengths = range(len(parts) - 1, 0, -1)
    length = next((n for n in lengths if Path(*parts[:n]).is_dir()), 0)
    return Path(*parts[:length]), str(Path(*parts[length:]))


def _natural(path: Path) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """`clip2` before `clip10`."""
    pieces = re.split(r"(\d+)", str(path).casefold())
    return tuple((0, int(p)) if p.isdecimal() else (1, p) for p in pieces if p), str(path)


def _same(path: Path) -> Path:
    """By which two names of one place are equal; the file itself may be a link to elsewhere."""
    return path.parent.resolve() / path.name


def _key(path: Path) -> str:
    """Names that one file system or another takes for the same are equal."""
    text = str(_same(path))
    alike = sys.platform in ("darwin", "win32")
    return unicodedata.normalize("NFC", text).casefold() if alike else text
