"""Mailbox: where frames wait between two threads when late ones are worth nothing."""

import threading
import time
from collections import deque
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Drop = Literal["oldest", "newest", "never"]
"""Who goes when a frame comes and there is no room: the `oldest` that waits, so that the newest is
shown; the `newest`, which has just come; or nobody, and the sender waits."""


class Mailbox(Generic[T]):
    """At most `depth` items wait; what happens to more is the policy's."""

    def __init__(self, drop: Drop = "oldest", *, depth: int = 1) -> None:
        if depth < 1:
            raise ValueError(f"a mailbox of depth {depth} holds nothing")
        self.dropped = 0
        self._drop = drop
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> bool:
        """Leave an item. False when something was dropped for it, itself or an older one.

        Waits for room only where nothing may be dropped; a closed mailbox takes nothing.
        """
        with self._changed:
            if self._drop == "never":
                self._changed.wait_for(lambda: len(self._items) < self._depth or self._closed)
            if self._closed:
                return False
            full = len(self._items) >= self._depth
            self.dropped += full
            if full and self._drop == "newest":
                return False
            if full:
                self._items.popleft()
            self._items.append(item)
            self._changed.notify_all()
            return not full

    def take(self, timeout: float | None = None) -> T | None:
        """The item that waits longest; None when the time is up, or nothing will come any more."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not self._items and not self._closed:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, *, drop: bool = False) -> None:
        """Take no more; what waits is still given out, unless it is to be dropped."""
        with self._changed:
            self._closed = True
            if drop:
                self.dropped += len(self._items)
                self._items.clear()
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether nothing will come any more."""
        with self._changed:
            return self._closed and not self._items

    def __len__(self) -> int:
        return len(self._items)
