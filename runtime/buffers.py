"""BufferPool: arrays whose memory is reused once nobody references them."""

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .frame import Array

Take = Callable[[Sequence[int], np.dtype[Any]], Array]
"""Allocates an array of a shape and type: `BufferPool.take`, or `np.empty`."""

MEMORY = 64
"""Calls of `take` after which free blocks of a size that was not requested any more are freed."""


class BufferPool:
    """Hands out uninitialised arrays and reuses their memory when the last view of them is gone.

    A frame of 1280x720 costs hundreds of page faults when its memory is new; a run of the pump needs
    only as many blocks as frames are on their way at once. Callers do nothing: to drop the array is to
    give it back. Blocks of several sizes go round side by side, as tiles and their frame do; those of a
    size of frame that has passed are freed.
    """

    def __init__(self, *, keep: int = 16, allocate: Callable[[int], Any] = bytearray) -> None:
        """`keep` is how many free blocks of a size are kept; beyond it the oldest is freed.

        `allocate` makes a block of so many bytes: any object with a writable buffer, freed with its
        last reference, such as page-locked memory.
        """
        self._keep = keep
        self._allocate = allocate
        self._free: dict[int, deque[Any]] = {}
        self._used: dict[int, int] = {}
        self._turn = 0

    def take(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """Returns a contiguous array of that shape and type, with contents of an earlier use."""
        size = int(np.prod(shape)) * dtype.itemsize
        free = self._blocks(size)
        try:
            block = free.popleft()
        except IndexError:  # none, or another thread was faster
            block = self._allocate(size)
        # NumPy lets a view hold the array at the bottom, and that is this one, since its own base is no
        # array. It therefore dies with its last view.
        array = np.frombuffer(block, dtype)
        weakref.finalize(array, free.append, block)
        return array.reshape(shape)

    @property
    def free(self) -> int:
        """The number of free blocks."""
        return sum(len(blocks) for blocks in list(self._free.values()))

    def _blocks(self, size: int) -> deque[Any]:
        """Returns the free blocks of that size."""
        self._turn += 1
        self._used[size] = self._turn
        blocks = self._free.get(size)
        if blocks is None:
            blocks = self._free.setdefault(size, deque(maxlen=self._keep))
        for other, turn in list(self._used.items()):
            if self._turn - turn > MEMORY:
                self._used.pop(other, None)
                self._free.pop(other, None)
        return blocks
