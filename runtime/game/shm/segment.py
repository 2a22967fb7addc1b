"""A segment: the mapped file of one server, created, opened, and removed when its server is dead."""

import mmap
import os
import re
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EngineError
from . import futex, layout
from .futex import Futex
from .layout import Area, Header, Layout
from .locks import Lock, is_held

FOLDER = Path("/dev/shm")
PREFIX = "velatura-"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def check_name(name: str) -> str:
    """Returns the name. Raises ValueError for one that is too long, or could lead out of the folder."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for shared memory: up to 64 letters, digits, dots, dashes and "
            "underscores, neither dot nor dash first"
        )
    return name


def segment_path(name: str) -> Path:
    """Returns the path of the segment of that name. Raises ValueError for a bad name."""
    return FOLDER / f"{PREFIX}{check_name(name)}"


Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Words = np.ndarray[Any, np.dtype[np.uint32]]
Record = np.ndarray[Any, np.dtype[np.void]]

PATIENCE = 0.5
"""Seconds to wait for a name that is held by a living process."""

_POPULATE_WRITE = 23
"""MADV_POPULATE_WRITE (Linux 5.14), which Python does not name: page faults all at once."""


class Absent(EngineError):  # noqa: N818 - the other half of a lookup, not a fault
    """Nothing serves that name."""


class Segment:
    """A mapped segment. Views of it stay valid as long as they are referenced, even after `close`."""

    def __init__(self, path: Path, fd: int, header: Header) -> None:
        """Map an open file, which the segment then owns. Raises EngineError."""
        self.path = path
        self.header = header
        self.plan: Layout = header.layout
        self._fd = -1
        self._identity = _identity(os.fstat(fd))
        try:
            self._map = mmap.mmap(fd, self.plan.file_bytes)
        except (OSError, ValueError) as error:
            raise EngineError(f"{path} cannot be mapped: {error}") from error
        self._bytes: Bytes = np.frombuffer(self._map, np.uint8)
        self._fd = fd

    @property
    def fd(self) -> int:
        """The file's descriptor; -1 when closed."""
        return self._fd

    def bytes(self, area: Area) -> Bytes:
        """Returns a range of the segment."""
        return self._bytes[area.offset : area.offset + area.size]

    def record(self, kind: "np.dtype[np.void]", offset: int) -> Record:
        """Returns the record of the layout at that offset."""
        return self._bytes[offset : offset + kind.itemsize].view(kind)

    def word(self, kind: "np.dtype[np.void]", offset: int, name: str) -> Words:
        """Returns a 32-bit member of a record at that offset."""
        begin = offset + layout.member(kind, name)[0]
        return self._bytes[begin : begin + 4].view(np.uint32)

    def futex(self, kind: "np.dtype[np.void]", offset: int, name: str) -> Futex:
        """Returns a futex of a member."""
        return Futex(self.word(kind, offset, name))

    def alive(self) -> bool:
        """Returns whether its server lives; for a segment of another process or opening only."""
        return self._fd >= 0 and is_held(self._fd, layout.SERVER_LOCK)

    def reserve(self, area: Area) -> None:
        """Allocate its memory now. Raises EngineError when there is none: a touch would be a SIGBUS."""
        try:
            os.posix_fallocate(self._fd, area.offset, area.size)
        except OSError as error:
            raise EngineError(
                f"no room for frames in {FOLDER} ({error.strerror}): make it larger, or "
                "the pictures smaller"
            ) from error
        # Older kernels fault page by page, which is slower and nothing else.
        with suppress(OSError):
            self._map.madvise(_POPULATE_WRITE, area.offset, layout.PAGE * -(-area.size // layout.PAGE))

    def discard(self, area: Area) -> None:
        """Free its memory, and with it the contents."""
        # A file system without holes keeps the memory, which costs no frame anything.
        with suppress(OSError):
            self._map.madvise(mmap.MADV_REMOVE, area.offset, area.size)

    def unlink(self) -> None:
        """Remove the name, if it is still this file's. Only for the holder of the server's lock."""
        with suppress(FileNotFoundError):
            if _identity(self.path.stat(follow_symlinks=False)) == self._identity:
                self.path.unlink()

    def close(self) -> None:
        """Close the file; the mapping is freed with the last view of it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def create(name: str, plan: Layout, title: str) -> tuple[Segment, Lock]:
    """Returns a new segment, complete and ready as soon as its name exists, and its server's lock.

    A dead server's is replaced. Raises ValueError for a bad name, EngineError where there is no shared
    memory or the name is served already.
    """
    path = segment_path(name)
    check_place()
    _make_way(path)
    try:
        fd = os.open(FOLDER, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EngineError(f"no shared memory: {FOLDER} takes no file: {error}") from error
    try:
        # Whatever the umask is.
        os.fchmod(fd, 0o600)
        os.ftruncate(fd, plan.file_bytes)
        session = secrets.randbits(64) | 1
        header = Header(layout=plan, minor=layout.MINOR, pid=os.getpid(), session=session, title=title)
        segment = Segment(path, fd, header)
    except OSError as error:
        os.close(fd)
        raise EngineError(f"no shared memory for {plan.file_bytes} bytes: {error}") from error
    except BaseException:
        os.close(fd)
        raise
    lock = Lock(fd, layout.SERVER_LOCK)
    try:
        lock.take()
        segment.reserve(Area(0, layout.PAGE))
        for slot in range(plan.slot_count):
            segment.reserve(Area(plan.slot(slot).offset, layout.PAGE))
        restore(segment, layout.READY)
        _link(fd, path)
    except BaseException:
        lock.release()
        segment.close()
        raise
    return segment, lock


def restore(segment: Segment, state: int) -> None:
    """Write the header, its state, and last its magic: this repairs what a client has damaged.

    The doorbell and the heartbeat stay as they are.
    """
    page = segment.bytes(Area(0, layout.PAGE))
    wanted = np.frombuffer(segment.header.pack(state), np.uint8)
    begin = len(layout.MAGIC)
    for name in ("doorbell", "heartbeat_ns"):
        offset, size = layout.member(layout.HEADER, name)
        page[begin:offset] = wanted[begin:offset]
        begin = offset + size
    page[begin:] = wanted[begin:]
    page[: len(layout.MAGIC)] = np.frombuffer(layout.MAGIC, np.uint8)


def attach(name: str) -> Segment:
    """Returns the segment of a living server.

    A dead server's is removed. Raises ValueError for a bad name, Absent where nobody serves it, and its
    base class EngineError for a file that is not trusted or understood, which stays.
    """
    path = segment_path(name)
    check_place()
    fd = _open(path)
    try:
        if not is_held(fd, layout.SERVER_LOCK):
            remove(path)
            raise Absent(f"nothing serves {name}, its server has died: start {_command(name)}")
        try:
            header = Header.unpack(os.pread(fd, layout.PAGE, 0), os.fstat(fd).st_size)
        except EngineError as error:
            raise EngineError(f"{path}: {error}") from error
        return Segment(path, fd, header)
    except BaseException:
        os.close(fd)
        raise


def remove(path: Path) -> bool:
    """Removes a dead server's segment; returns whether the name is free. Two processes never remove
    each other's new one.

    Raises EngineError for a file that is not ours to remove: another program's, another version's.
    """
    try:
        fd = _open(path)
    except Absent:
        return True
    try:
        try:
            layout.check_magic(os.pread(fd, layout.PAGE, 0))
        except EngineError as error:
            raise EngineError(f"{path}: {error}; remove it, or take another name") from error
        # Whoever removes the name has this lock, so that it stays what it is meanwhile.
        with Lock(fd, layout.SERVER_LOCK) as lock:
            if not lock.take():
                return False
            with suppress(FileNotFoundError):
                if _identity(path.stat(follow_symlinks=False)) == _identity(os.fstat(fd)):
                    path.unlink()
        return True
    finally:
        os.close(fd)


def sweep() -> None:
    """Remove the segments of all servers that were killed and have no client to do it."""
    for path in FOLDER.glob(f"{PREFIX}*"):
        # Others' files, of another version, or gone by now.
        with suppress(EngineError):
            remove(path)


def check_place() -> None:
    """Raise EngineError with the reason where there is no shared memory."""
    reason = futex.missing()
    if reason is None and not FOLDER.is_dir():
        reason = f"no shared memory: {FOLDER} is missing; mount a tmpfs there"
    if reason is not None:
        raise EngineError(reason)


def _make_way(path: Path) -> None:
    end = time.monotonic() + PATIENCE
    # Who removes a dead one has its lock for a moment, too.
    while not remove(path):
        if time.monotonic() > end:
            name = path.name.removeprefix(PREFIX)
            raise EngineError(
                f"{name} is served already by process {_server_of(path)}: take another name"
            )
        time.sleep(0.02)


def _server_of(path: Path) -> str:
    # For a person: an unreadable header is no reason to hide the real one.
    with suppress(EngineError, OSError), path.open("rb") as file:
        return str(Header.unpack(file.read(layout.PAGE), path.stat().st_size).pid)
    return "?"


def _link(fd: int, path: Path) -> None:
    folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Given a folder it is linkat, which alone follows the link to a file without a name.
        os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    except FileExistsError as error:
        name = path.name.removeprefix(PREFIX)
        raise EngineError(
            f"{name} is served already, by another server that began meanwhile"
        ) from error
    except OSError as error:
        raise EngineError(f"no shared memory: {path} cannot be made: {error}") from error
    finally:
        os.close(folder)


def _open(path: Path) -> int:
    """Returns the file's descriptor. Raises Absent, and EngineError for anything but a file of this
    user alone."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        name = path.name.removeprefix(PREFIX)
        raise Absent(f"nothing serves {name}: start {_command(name)}") from error
    except OSError as error:
        raise EngineError(f"{path} is no segment of this user: {error.strerror}") from error
    found = os.fstat(fd)
    reason = None
    if not stat.S_ISREG(found.st_mode):
        reason = "it is no regular file"
    elif found.st_uid != os.geteuid():
        reason = f"it belongs to user {found.st_uid}"
    elif found.st_mode & 0o077:
        reason = f"others may use it (mode {stat.S_IMODE(found.st_mode):o})"
    if reason is not None:
        os.close(fd)
        raise EngineError(f"{path} is not to be trusted: {reason}; remove it")
    return fd


def _command(name: str) -> str:
    return f"`velatura serve --shm {name} -m MODEL`"


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
