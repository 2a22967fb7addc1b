"""Sounds: one live source's sound for every sink that wants it."""

import threading
from collections import deque
from typing import Protocol

from ..sinks.voice import Heard
from ..worker import DaemonThread

LONGEST = 1500
"""Moments of sound that wait for a sink at most: half a minute of 20 ms each."""


class Audible(Protocol):
    """Sound of a live source."""

    def listen(self) -> None:
        """Keep what comes from now on."""
        ...

    def take(self, timeout: float | None = None) -> Heard | None:
        """The oldest that waits."""
        ...

    @property
    def closed(self) -> bool:
        """Whether no more will come."""
        ...


class Branch:
    """What one sink hears; `take` never waits, since sound that is late goes with a later picture."""

    def __init__(self) -> None:
        self._items: deque[Heard] = deque(maxlen=LONGEST)

    def listen(self) -> None:
        """It is heard already."""
        return

    def put(self, heard: Heard) -> None:
        """One more; the oldest goes where nobody takes any."""
        self._items.append(heard)

    def take(self, timeout: float | None = None) -> Heard | None:
        """What waits longest."""
        del timeout
        try:
            return self._items.popleft()
        except IndexError:
            return None


class Sounds:
    """Takes a source's sound in a thread of its own, and gives all of it to every branch."""

    def __init__(self, source: Audible) -> None:
        self._source = source
        self._branches: list[Branch] = []
        self._closing = threading.Event()
        source.listen()
        self._thread = DaemonThread(self._run, "velatura-sound")
        self._thread.start()

    def branch(self) -> Branch:
        """All that is heard from now on."""
        branch = Branch()
        self._branches = [*self._branches, branch]
        return branch

    def leave(self, branch: Branch) -> None:
        """That one is not wanted any more."""
        self._branches = [other for other in self._branches if other is not branch]

    def close(self) -> None:
        """Take no more."""
        self._closing.set()
        self._thread.wait(1.0)

    def _run(self) -> None:
        while not self._closing.is_set() and not self._source.closed:
            heard = self._source.take(0.2)
            if heard is not None:
                for branch in self._branches:
                    branch.put(heard)
