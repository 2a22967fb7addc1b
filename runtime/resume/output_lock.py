"""Claim: the exclusive right to make one output, and the temporary names of its file."""

import errno
import os
import re
import secrets
import stat
import sys
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from ..errors import SinkError

UNLOCKABLE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
"""Errors of file systems that have no locks."""


class Lock:
    """A locked file. The operating system unlocks it when its holder dies; the file then stays."""

    def __init__(self, path: Path) -> None:
        """Lock without waiting. Raises BlockingIOError where another process has the lock, else OSError
        where locking fails."""
        self.path = path
        self.found = path.exists()
        """True if the file existed before: a holder that was killed leaves it."""
        self._file: BinaryIO | FileIO = self._locked()

    @property
    def held(self) -> bool:
        """True until the lock is released."""
        return not self._file.closed

    def release(self, *, remove: bool) -> None:
        """Release the lock; with `remove` the file is deleted, too."""
        if not self.held:
            return  # by now it may be another's
        # While it is held: a file that another has locked meanwhile must not lose its name.
        if remove and sys.platform != "win32":
            with suppress(OSError):
                self.path.unlink()
        self._file.close()
        if remove and sys.platform == "win32":
            with suppress(OSError):  # open files have no other end there, and another's stays
                self.path.unlink()

    def _locked(self) -> FileIO:
        while True:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = FileIO(os.open(self.path, flags, 0o666), "r+")
            try:
                _lock(file.fileno())
                if self._stands(file):
                    return file
            except BaseException:
                file.close()
                raise
            file.close()

    def _stands(self, file: FileIO) -> bool:
        """Returns whether the locked file still has its name: its holder may just have removed it."""
        try:
            there = self.path.lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(file.fileno()))


if sys.platform == "win32":

    def _lock(descriptor: int) -> None:
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(errno.EAGAIN, "locked") from error

else:

    def _lock(descriptor: int) -> None:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Claim:
    """The exclusive right to make an output: no other process makes one of that name meanwhile."""

    def __init__(self, path: Path) -> None:
        """Claim the output, and remove the unfinished file of a run that was killed.

        Raises SinkError where another process has it, and OSError where nothing can be written.
        """
        self.notes: tuple[str, ...] = ()
        """Warnings about what was found, one line each."""
        self._lock: Lock | None = None
        lock = lock_path(path)
        try:
            self._lock = Lock(lock)
        except BlockingIOError as error:
            raise busy(path) from error
        except OSError as error:
            if error.errno not in UNLOCKABLE:
                raise
            lock.unlink(missing_ok=True)
            self.notes = (
                f"files cannot be locked in {path.parent}: nothing keeps a second run from making "
                f"{path.name}",
            )
            return
        # The processes that made them are dead, since the lock was free.
        for left in _leftovers(path, search=self._lock.found):
            left.unlink(missing_ok=True)
            self.notes += (f"{left.name}, which a run that was killed has left, is removed",)

    def release(self) -> None:
        """Release the claim."""
        if self._lock is not None:
            self._lock.release(remove=True)


def busy(path: Path) -> SinkError:
    """Returns the error for an output that another process makes."""
    return SinkError(f"{path}: another velatura is at work on it")


def lock_path(path: Path) -> Path:
    """Returns the path of the file that is locked while an output is made."""
    return path.with_name(f".{path.name}.lock")


def partial_path(path: Path) -> Path:
    """Returns a unique temporary name for an output's file until it is finished."""
    return path.with_name(f".{path.stem}.{secrets.token_hex(3)}.partial{path.suffix}")


def _leftovers(path: Path, *, search: bool) -> list[Path]:
    """Returns an output's files with temporary names; those of other processes only with `search`."""
    before = path.with_name(f".{path.stem}.partial{path.suffix}")  # as earlier versions named it
    name = re.compile(rf"\.{re.escape(path.stem)}\.[0-9a-f]{{6}}\.partial{re.escape(path.suffix)}")
    found = [p for p in path.parent.iterdir() if name.fullmatch(p.name)] if search else []
    return [p for p in (before, *found) if is_plain_file(p)]


def is_plain_file(path: Path) -> bool:
    """Returns whether the path is a regular file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
