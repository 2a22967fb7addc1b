"""EngineCache: built engines and stored measurements on disk, safe from crashes and other processes."""

import contextlib
import glob
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from .errors import EngineError

MAGIC = b"velatura-engine-1\n"
SUFFIX = ".engine"
TIMINGS = ".timings"
FOLDER_VARIABLE = "VELATURA_CACHE"

LIMIT = 2 << 30
"""Bytes that a cache may hold: some hundreds of engines."""

Key = Mapping[str, Any]
"""Everything that affects what a builder makes: hash of the graph, library, version, device, precision,
shapes. `name` and `backend` come first in the file's name, the rest as a hash."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the cache."""

    path: Path
    size: int
    key: dict[str, Any]
    whole: bool
    """False when the file was cut or changed: it will be built again when it is asked for."""


class EngineCache:
    """A folder of engines, each in a file of its own with its key and a checksum.

    Files appear whole or not at all (written beside, synchronised, renamed). One process builds, others
    that want the same wait for it. A file that is cut, changed, of another key or unreadable counts as
    absent and is built again. A folder that cannot be written makes a cache that keeps nothing;
    `problem` says so.
    """

    def __init__(self, folder: str | Path | None = None, *, limit: int = LIMIT) -> None:
        """`folder` None takes $VELATURA_CACHE, else the system's own place; `limit` is in bytes."""
        self.limit = limit
        self.folder = Path(folder) if folder is not None else default_folder()
        self.problem: str | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            self.problem = f"engines are not kept: {self.folder}: {error.strerror or error}"

    def get(self, key: Key) -> bytes | None:
        """Returns the engine of that key, or None; damaged files are removed."""
        path = self.path_of(key)
        try:
            found = _read(path)
        except FileNotFoundError:
            return None  # a neighbour may be putting it there by now: nothing is removed
        if found is None:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        stored, data = found
        with contextlib.suppress(OSError):
            os.utime(path)  # the least used go first when there are too many
        return data if stored == _plain(key) else None

    def put(self, key: Key, data: bytes) -> None:
        """Store an engine. A full disk leaves the cache without it, and `problem` says so."""
        if self.problem is not None:
            return
        try:
            write_whole(self.path_of(key), _pack(key, data))
            self._prune()
        except OSError as error:
            self.problem = f"an engine was not kept: {self.folder}: {error.strerror or error}"

    def get_or_build(
        self, key: Key, build: Callable[[], bytes], *, refused: bytes | None = None
    ) -> tuple[bytes, bool]:
        """Returns (engine, whether it was built now). Of several processes one builds and the others
        wait.

        `refused` is a stored engine that the library does not load: it is built again, unless another
        process has done so already.
        """
        found = self.get(key)
        if found is not None and found != refused:
            return found, False
        with self._locked(key):
            found = self.get(key)  # a neighbour may have built it while this one waited
            if found is not None and found != refused:
                return found, False
            data = build()
            self.put(key, data)
            return data, True

    def figures(self, name: str, kinds: Sequence[str]) -> list[tuple[dict[str, Any], bytes]]:
        """Returns (key, data) of all entries of that name whose precision is one of `kinds`, which are
        those of measurements; the latest first. Engines are not read."""
        found: list[tuple[float, dict[str, Any], bytes]] = []
        for kind in kinds:
            pattern = self.path_of({"name": name, "backend": "@", "precision": kind}).name
            pattern = glob.escape(pattern.rpartition("-")[0]).replace("-_-", "-*-") + f"-*{SUFFIX}"
            for path in self.folder.glob(pattern):
                with contextlib.suppress(OSError):
                    read = _read(path)
                    if read is not None and (read[0]["name"], read[0]["precision"]) == (name, kind):
                        found.append((path.stat().st_mtime, *read))
        return [(key, data) for _, key, data in sorted(found, key=lambda one: -one[0])]

    def entries(self) -> list[Entry]:
        """Returns all files, in the order of their names."""
        found: list[Entry] = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            with contextlib.suppress(OSError):
                read = _read(path)
                found.append(
                    Entry(path, path.stat().st_size, read[0] if read else {}, read is not None)
                )
        return found

    def clear(self) -> int:
        """Removes all engines, timings, locks and the leftovers of killed builders; returns the number
        of engines."""
        count = 0
        for pattern in (f"*{SUFFIX}", f".*{SUFFIX}*", f"*{TIMINGS}"):
            for path in self.folder.glob(pattern):
                with contextlib.suppress(OSError):
                    path.unlink()
                    count += pattern == f"*{SUFFIX}"
        return count

    def _prune(self) -> None:
        """Remove the least recently used files while the total is above the limit."""
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):  # a neighbour removed it
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found)[:-1]:
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= size

    def timings(self, library: str, version: str) -> Path | None:
        """Returns the path of a builder's tactic timings; None where nothing is kept."""
        name = f"{library}-{version}{TIMINGS}"
        return self.folder / name if self.problem is None else None

    def path_of(self, key: Key) -> Path:
        """Returns the path of that key's engine, whether it exists or not."""
        digest = hashlib.sha256(json.dumps(_plain(key), sort_keys=True).encode()).hexdigest()
        words = [str(key.get(word, "")) for word in ("name", "backend", "precision")]
        name = "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in w) for w in words if w)
        return self.folder / f"{name[:80]}-{digest[:16]}{SUFFIX}"

    @contextlib.contextmanager
    def _locked(self, key: Key) -> Generator[None]:
        if self.problem is not None:
            yield
            return
        from filelock import FileLock

        path = self.path_of(key)
        # The operating system frees it when its holder dies.
        with FileLock(path.with_name(f".{path.name}.lock")):
            yield

    @classmethod
    def of_nothing(cls) -> Self:
        """Returns a cache that keeps nothing."""
        cache = cls.__new__(cls)
        cache.folder = Path(os.devnull)
        cache.limit = 0
        cache.problem = "engines are not kept: the cache is off"
        return cache


def default_folder() -> Path:
    """Returns `$VELATURA_CACHE`, else the system's folder for caches, such as ~/.cache/velatura."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("velatura", appauthor=False)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically and durably: it appears whole or not at all, even if the machine stops
    meanwhile."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        # Not a temporary file of the library's: nobody but its owner might read what comes of that.
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def digest_of(data: bytes) -> str:
    """Returns SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _plain(key: Key) -> dict[str, Any]:
    """Returns the key as it reads back from JSON."""
    try:
        return cast(dict[str, Any], json.loads(json.dumps(dict(key))))
    except TypeError as error:
        raise EngineError(f"a cache key holds what JSON cannot: {error}") from error


def _pack(key: Key, data: bytes) -> bytes:
    header = {"key": _plain(key), "sha256": digest_of(data), "size": len(data)}
    return MAGIC + json.dumps(header).encode() + b"\n" + data


def _read(path: Path) -> tuple[dict[str, Any], bytes] | None:
    """Returns (key, engine) of a whole file, else None. Raises FileNotFoundError without a file."""
    try:
        with path.open("rb") as file:
            if file.readline() != MAGIC:
                return None
            header: Any = json.loads(file.readline())
            data = file.read()
        whole = len(data) == header["size"] and digest_of(data) == header["sha256"]
        return (header["key"], data) if whole else None
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None
