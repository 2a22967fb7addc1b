"""Waiting for a word of shared memory: Linux's futex(2), called without the interpreter's lock."""

import ctypes
import errno
import os
import platform
import struct
import sys
from typing import Any

import numpy as np

from ...errors import EngineError

NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221}
"""The system call's number; 64-bit, little-endian machines only."""
WAIT, WAKE = 0, 1
EVERYBODY = 0x7FFFFFFF


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def missing() -> str | None:
    """Returns the reason why frames cannot go through shared memory here; None where they can."""
    if sys.platform != "linux":
        return f"frames go through shared memory on Linux only (futex, /dev/shm), not on {sys.platform}"
    machine = platform.machine()
    if machine not in NUMBERS or struct.calcsize("P") != 8:
        return f"frames go through shared memory on {', '.join(NUMBERS)}, not on a {machine}"
    return None


class Futex:
    """A 32-bit word of a mapping that is shared between processes. Several threads may wait at once."""

    def __init__(self, word: "np.ndarray[Any, np.dtype[np.uint32]]") -> None:
        """`word` holds one aligned element of the mapping. Raises EngineError without futexes."""
        reason = missing()
        if reason is not None:
            raise EngineError(reason)
        if word.shape != (1,) or word.ctypes.data % 4:
            raise ValueError(f"a futex is one aligned word, not {word.shape} at {word.ctypes.data:#x}")
        machine = platform.machine()
        self._word = word
        self._address = ctypes.c_void_p(word.ctypes.data)
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._number = ctypes.c_long(NUMBERS[machine])
        # x86 keeps the order of stores and of loads by itself.
        self._ordered = machine == "x86_64"

    @property
    def value(self) -> int:
        """The word's value; later reads see what its writer had written before."""
        found = int(self._word[0])
        self._fence()
        return found

    @value.setter
    def value(self, value: int) -> None:
        # A reader that sees the new value also sees what was written before it.
        self._fence()
        self._word[0] = value & 0xFFFFFFFF

    def wait(self, value: int, seconds: float) -> bool:
        """Sleeps while it has that value, for at most `seconds`; returns whether it has another by now.

        May return early, as futexes do: callers look again.
        """
        limit = _Timespec(int(seconds), int(seconds % 1 * 1e9))
        result = self._call(
            self._number,
            self._address,
            ctypes.c_int(WAIT),
            ctypes.c_uint32(value),
            ctypes.byref(limit),
            None,
            ctypes.c_int(0),
        )
        if result == -1:
            code = ctypes.get_errno()
            if code not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
                raise EngineError(f"futex: {os.strerror(code)}")
        return self.value != value

    def wake(self) -> None:
        """Wake everybody who waits for this word."""
        self._call(
            self._number,
            self._address,
            ctypes.c_int(WAKE),
            ctypes.c_int(EVERYBODY),
            None,
            None,
            ctypes.c_int(0),
        )

    def _fence(self) -> None:
        if not self._ordered:
            # Python has no barrier; the kernel's wake begins with one, even if no thread waits.
            self.wake()
