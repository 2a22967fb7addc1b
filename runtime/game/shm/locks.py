"""Locks that tell which processes live: one byte each, unlocked by Linux however a process ends.

Open file description locks (F_OFD_SETLK) belong to an open file, not to a process: two of one process
exclude each other, and closing another file of the same name releases nothing.
"""

import os
import struct
import sys
import weakref

from ...errors import EngineError

if sys.platform == "linux":
    import fcntl

_FLOCK = struct.Struct("hh4xqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, pid."""


class Lock:
    """A lock of one byte that is held until it is released, or the process ends."""

    def __init__(self, fd: int, byte: int) -> None:
        """Prepare a lock in an open file, which may be shorter than that byte. Nothing is locked yet.
        Raises EngineError.

        The file is opened once more: mappings keep duplicates of their file, and a lock would live as
        long as the last of them.
        """
        self._fd = -1
        self._byte = byte
        self.held = False
        try:
            self._fd = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise EngineError(f"shared memory cannot be locked: {error}") from error
        _LOCKS.add(self)

    def take(self) -> bool:
        """Tries to take the lock; returns whether it is held, False where another has it. Raises
        EngineError."""
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK, self._byte))
        except (BlockingIOError, PermissionError):
            # POSIX allows either of the two for a conflict.
            return False
        except OSError as error:
            raise EngineError(f"shared memory cannot be locked: {error}") from error
        self.held = True
        return True

    def release(self) -> None:
        """Release the lock and close the file. May be called again."""
        if self._fd >= 0 and self.held:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, self._byte))
        self.lose()

    def lose(self) -> None:
        """Close only the file: in a forked child, so that the parent's lock ends with the parent."""
        fd, self._fd = self._fd, -1
        self.held = False
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def is_held(fd: int, byte: int) -> bool:
    """Returns whether that byte is locked by another opening of the file than this one."""
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, byte))
    return int(_FLOCK.unpack(found)[0]) != fcntl.F_UNLCK


def _flock(kind: int, byte: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)


_LOCKS: "weakref.WeakSet[Lock]" = weakref.WeakSet()
"""Locks that a forked child must close: it shares the open files, and would keep a dead parent's
locks."""


def _forked() -> None:
    for lock in list(_LOCKS):
        lock.lose()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
