"""Films: the videos that a page may use, uploaded or from the one folder that it may look into."""

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from av.error import FFmpegError

from ..cache import write_whole
from ..errors import SinkError, SourceError
from ..frame import VideoInfo
from ..jobs.batch import VIDEOS
from ..media.demux import choose_stream
from ..media.pyav import open_input
from ..sources import open_source

MOST_PIXELS = 1 << 26
"""Pixels of a picture at most: 8192x8192, twice what 8K has."""
MOST_FRAMES = 20_000_000
"""Frames that a file may state: 92 hours at 60 a second."""
ROOM = 1 << 30
"""Bytes that an upload leaves free on the disk."""
SHOWN = 500
"""Entries of a folder that a page is shown."""
FACTS = "film.json"

DEMUXERS = ",".join(
    ["asf", "avi", "flv", "gif", "h264", "hevc", "ivf", "matroska", "mov", "mpeg", "mpegts",
     "mpegvideo", "mxf", "nut", "obu", "ogg", "rm", "webm", "yuv4mpegpipe", "dv", "m4v"]
)  # fmt: skip
"""FFmpeg's readers that a file may be given to. Others read lists (HLS, concat, SDP), which lead to
other files of this machine and to addresses in its network."""


class FolderError(SourceError):
    """A path leads out of the folder that a page may look into, or to nothing in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A video that a page may use."""

    id: str
    name: str
    """The name to show; it was never a path."""
    path: Path
    own: bool
    """True if it was uploaded: its file is the studio's."""
    facts: dict[str, Any]
    """What is known of its picture and sound, as JSON."""

    @property
    def seconds(self) -> float:
        """The length, 0 where it is not known."""
        return self.facts["seconds"] or 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns what a page is told."""
        return {"id": self.id, "name": self.name, "own": self.own, **self.facts}


class Upload:
    """A file that is being received; it becomes a film, or nothing stays of it."""

    def __init__(self, folder: Path, name: str, limit: int) -> None:
        self.name = name
        self.path = folder / f"film{_suffix(name)}"
        self.received = 0
        self._limit = limit
        try:
            folder.mkdir(parents=True)
            self._file: BinaryIO = self.path.open("xb")
        except OSError as error:
            raise SinkError(f"no upload can be kept: {error.strerror or error}") from error

    def write(self, data: bytes) -> None:
        """Add bytes. Raises SinkError where there are too many, or the disk is full."""
        self.received += len(data)
        if self.received > self._limit:
            raise SinkError(too_large(self._limit))
        try:
            self._file.write(data)
        except OSError as error:
            raise SinkError(f"{self.name} cannot be kept: {error.strerror or error}") from error

    def finish(self) -> None:
        """End the file. Raises SinkError where the disk is full."""
        try:
            self._file.close()
        except OSError as error:
            raise SinkError(f"{self.name} cannot be kept: {error.strerror or error}") from error

    def drop(self) -> None:
        """Remove what has come."""
        self._file.close()
        shutil.rmtree(self.path.parent, ignore_errors=True)


class Films:
    """All films of a studio, each in a folder of its own with its facts."""

    def __init__(self, place: Path, folder: Path | None, *, limit: int) -> None:
        """`folder` is what pages may look into, `limit` the bytes of an upload. Raises SinkError."""
        self.limit = limit
        self.folder = None if folder is None else folder.resolve()
        self._place = place
        self._films: dict[str, Film] = {}
        try:
            place.mkdir(parents=True, exist_ok=True)
            for path in sorted(place.iterdir(), key=lambda path: path.stat().st_mtime_ns):
                self._load(path)
        except OSError as error:
            raise SinkError(f"{place} cannot be used: {error.strerror or error}") from error

    def __iter__(self) -> Iterator[Film]:
        return iter(tuple(self._films.values()))

    def get(self, id: str) -> Film | None:
        """Returns the film of that name, if there is one, and its file is the one that was added."""
        film = self._films.get(id)
        if film is None or film.own or self._is_inside(film.path):
            return film
        return None

    def upload(self, name: str, size: int | None) -> Upload:
        """Returns a file to be filled; `size` are the bytes that will come, where that is known.

        Raises SinkError where it is too large, or the disk too full.
        """
        if size is not None and size > self.limit:
            raise SinkError(too_large(self.limit))
        free = shutil.disk_usage(self._place).free
        if (size or 0) + ROOM > free:
            raise SinkError(f"only {free / 1e9:.1f} GB are free for uploads: make room first")
        return Upload(self._place / secrets.token_hex(8), plain_name(name), self.limit)

    def keep(self, upload: Upload) -> Film:
        """Returns the film of an upload that has ended. Raises SourceError for what is no video."""
        return self._add(upload.path.parent.name, upload.name, upload.path, own=True)

    def add(self, relative: str) -> Film:
        """Returns the film of a file in the folder. Raises SourceError."""
        path = self._inside(relative)
        if not path.is_file():
            raise FolderError(f"no file {relative} in the folder")
        known = next((film for film in self if film.path == path), None)
        if known is not None:
            return known
        id = secrets.token_hex(8)
        (self._place / id).mkdir()
        try:
            return self._add(id, path.name, path, own=False)
        except BaseException:
            shutil.rmtree(self._place / id, ignore_errors=True)
            raise

    def browse(self, relative: str) -> dict[str, Any]:
        """Returns the folders and videos of a folder in the one that pages may look into. Raises
        FolderError."""
        path = self._inside(relative)
        assert self.folder is not None
        folders: list[str] = []
        files: list[dict[str, Any]] = []
        try:
            for entry in sorted(os.scandir(path), key=lambda entry: entry.name.casefold()):
                if entry.name.startswith(".") or not self._is_inside(Path(entry.path)):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif Path(entry.name).suffix.lower() in VIDEOS:
                    files.append({"name": entry.name, "bytes": entry.stat().st_size})
        except OSError as error:
            raise FolderError(f"{relative or 'the folder'} cannot be read: {error.strerror}") from error
        inner = path.relative_to(self.folder).as_posix()
        return {
            "path": "" if inner == "." else inner,
            "folders": folders[:SHOWN],
            "files": files[:SHOWN],
            "more": max(len(folders) - SHOWN, 0) + max(len(files) - SHOWN, 0),
        }

    def remove(self, film: Film) -> None:
        """Forget a film; the file of an upload goes with it."""
        self._films.pop(film.id, None)
        shutil.rmtree(self._place / film.id, ignore_errors=True)

    def _inside(self, relative: str) -> Path:
        """Returns the whole path of what lies in the folder. Raises FolderError for all else."""
        if self.folder is None:
            raise FolderError("no folder was given to look into: start with --folder")
        try:
            path = (self.folder / relative).resolve()
            path.exists()
        except (OSError, ValueError, RuntimeError):
            raise FolderError("that is no path") from None
        if not self._is_inside(path):
            raise FolderError(f"{relative} is not in the folder")
        return path

    def _is_inside(self, path: Path) -> bool:
        try:
            found = path.resolve()
        except (OSError, RuntimeError):
            return False
        return self.folder is not None and (found == self.folder or self.folder in found.parents)

    def _add(self, id: str, name: str, path: Path, *, own: bool) -> Film:
        film = Film(id=id, name=name, path=path, own=own, facts=examine(path, name))
        held = {
            "name": name,
            "path": None if own else str(path),
            "file": path.name,
            "facts": film.facts,
        }
        try:
            write_whole(self._place / id / FACTS, json.dumps(held).encode())
        except OSError as error:
            raise SinkError(f"{name} cannot be kept: {error.strerror or error}") from error
        self._films[id] = film
        return film

    def _load(self, place: Path) -> None:
        if not re.fullmatch(r"[0-9a-f]{16}", place.name) or not place.is_dir():
            return
        try:
            held: Any = json.loads((place / FACTS).read_bytes())
            own = held["path"] is None
            path = place / Path(held["file"]).name if own else Path(held["path"])
            film = Film(id=place.name, name=held["name"], path=path, own=own, facts=held["facts"])
        except FileNotFoundError:
            shutil.rmtree(place, ignore_errors=True)  # an upload that was cut off
            return
        except (OSError, ValueError, TypeError, KeyError):
            return  # a newer velatura's, or damaged: nothing is thrown away for that
        if path.is_file() and (own or self._is_inside(path)):
            self._films[film.id] = film


def too_large(limit: int) -> str:
    """Returns the words for an upload above the limit."""
    return (
        f"more than {limit / 1e9:.3g} GB are not taken: start with a larger --max-upload, or give the "
        "file's folder by --folder"
    )


def plain_name(name: str) -> str:
    """Returns a name without anything that means something to a file system or a terminal."""
    last = re.split(r"[/\\]", name)[-1]
    kept = "".join(sign if sign.isalnum() or sign in " ._-()+" else "_" for sign in last)
    kept = re.sub(r"\s+", " ", kept).strip(" .")
    stem, suffix = kept[: kept.rfind(".")] if "." in kept else kept, _suffix(kept)
    return f"{stem.strip(' .')[:80] or 'film'}{suffix}"


def _suffix(name: str) -> str:
    """Returns the suffix of a video, none where it is another's."""
    suffix = Path(name).suffix.lower()
    return suffix if suffix in VIDEOS else ""


def examine(path: Path, name: str) -> dict[str, Any]:
    """Returns the facts about a video that need not be trusted. Raises SourceError for what is none,
    whose pictures are too large, or that would lead to other files."""

    def named(error: SourceError) -> SourceError:
        return error.with_text(str(error).replace(str(path), name))

    try:
        _check(path, name)
        with open_source(path) as source:
            return _facts(source.info, path)
    except SourceError as error:
        raise named(error) from error


def _check(path: Path, name: str) -> None:
    """Raise SourceError for what the headers, and a first picture within bounds, show to be unfit."""
    # FFmpeg may decode a picture to find out what the stream is: not one that is too large.
    options = {
        "format_whitelist": DEMUXERS,
        "protocol_whitelist": "file",
        "max_pixels": str(MOST_PIXELS),
    }
    if path.stat().st_size == 0:
        raise SourceError(f"{name} is empty")
    try:
        with open_input(str(path.absolute()), options=options) as container:
            stream = choose_stream(container, name)
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > MOST_PIXELS:
                raise SourceError(
                    f"{name} states pictures of {width}x{height}: more than {MOST_PIXELS >> 20} "
                    "million pixels are not decoded here"
                )
            if stream.frames > MOST_FRAMES:
                raise SourceError(f"{name} states {stream.frames} frames: more than are taken here")
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
            next(iter(cast("Callable[..., Any]", container.decode)(stream)), None)
    except FFmpegError as error:
        raise SourceError(
            f"{name} cannot be opened as a video: {error.strerror}. It may be cut off, no video at "
            "all, or one whose pictures are too large"
        ) from error


def _facts(info: VideoInfo, path: Path) -> dict[str, Any]:
    length = info.duration or (float(info.frames / info.rate) if info.frames else None)
    shape = [float(info.width * info.aspect), float(info.height)]
    return {
        "bytes": path.stat().st_size,
        "width": info.width,
        "height": info.height,
        "shape": shape[::-1] if info.rotation % 180 else shape,
        "rate": round(float(info.rate), 3),
        "frames": info.frames or (round(length * info.rate) if length else None),
        "seconds": None if length is None else round(length, 3),
        "codec": info.codec,
        "audio": list(info.audio),
        "hdr": info.colour.hdr,
        "notes": list(info.notes),
    }
