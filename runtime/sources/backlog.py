"""Backlog: packets between who receives them and who decodes them."""

import threading
import time
from collections import deque
from typing import Any

from av.packet import Packet

LONGEST = 1.0
"""Seconds that the oldest packet of a live stream may wait before the rest is caught up with."""
MOST = 600
"""Packets of a paced stream that wait; its sender waits for more room."""

Item = tuple["Packet[Any]", float]
"""A packet, and the second of `time.monotonic` at which it came."""


class Backlog:
    """Never grows without bound: a live one leaves packets out, a paced one lets its sender wait."""

    def __init__(self, *, paced: bool) -> None:
        self.left_out = 0
        self._paced = paced
        self._items: deque[Item] = deque()
        self._until_key = False
        self._closed = False
        self._changed = threading.Condition()

    def put(self, packet: "Packet[Any]") -> None:
        """Leave a packet of the video stream."""
        now = time.monotonic()
        with self._changed:
            if self._paced:
                self._changed.wait_for(lambda: len(self._items) < MOST or self._closed)
            elif self._items and now - self._items[0][1] > LONGEST:
                self._catch_up()
            if self._until_key and not packet.is_keyframe:
                self.left_out += 1
                return
            self._until_key = False
            self._items.append((packet, now))
            self._changed.notify_all()

    def _catch_up(self) -> None:
        """Go on at the newest picture that needs no other; where none waits, at the next that comes."""
        keys = [index for index, (packet, _) in enumerate(self._items) if packet.is_keyframe]
        # The oldest is the one that waits too long: to begin there again would change nothing.
        start = keys[-1] if keys and keys[-1] > 0 else len(self._items)
        self._until_key = start == len(self._items)
        self.left_out += start
        for _ in range(start):
            self._items.popleft()

    def take(self) -> Item | None:
        """The oldest; None when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    def close(self, *, drop: bool) -> None:
        """No more will come; what waits is still given out unless it is to be dropped."""
        with self._changed:
            self._closed = True
            if drop:
                self._items.clear()
            self._changed.notify_all()
