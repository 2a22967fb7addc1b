"""BufferPool: arrays whose memory is used again once nobody holds them."""

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..frame import Array


class BufferPool:
    """Hands out uninitialised arrays and takes their memory back when the last view of them is gone.

    A frame of 1280x720 costs hundreds of page faults when its memory is new; a run of the pump needs
    only as many blocks as frames are on their way at once. Callers do nothing: to drop the array is to
    give it back.
    """

    def __init__(self, *, keep: int = 16, allocate: Callable[[int], Any] = bytearray) -> None:
        """`keep` is how many free blocks are kept; beyond it the oldest is freed.

        `allocate` makes a block of so many bytes: any object with a writable buffer, freed with its last
        reference, such as page-locked memory.
        """
        self._allocate = allocate
        self._free: deque[Any] = deque(maxlen=keep)

    def take(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """A contiguous array of that shape and type, its contents left over from an earlier use."""
        size = int(np.prod(shape)) * dtype.itemsize
        block = self._find(size)
        # NumPy lets a view hold the array at the bottom, and that is this one, since its own base is no
        # array. It therefore dies with its last view.
        array = np.frombuffer(block, dtype)
        weakref.finalize(array, self._free.append, block)
        return array.reshape(shape)

    @property
    def free(self) -> int:
        """How many blocks wait for use."""
        return len(self._free)

    def _find(self, size: int) -> Any:
        # A block of another size belongs to a size of frame that has passed: it is dropped.
        while self._free:
            try:
                block = self._free.popleft()
            except IndexError:  # another thread was faster
                break
            if len(block) == size:
                return block
        return self._allocate(size)
