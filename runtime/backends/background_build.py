"""RisingEngine: frames are processed while a better engine is built in the background."""

from collections.abc import Callable

import cv2
import numpy as np

from ..card import ModelCard
from ..errors import EngineError, VelaturaError
from ..frame import Array
from ..worker import DaemonThread
from .base import Engine, Pending


class RisingEngine(Engine):
    """Runs a fallback engine, or passes pictures through, until the engine for their size is built.

    The first picture never waits for a builder. A picture that passes through comes out at the size the
    model would give, enlarged bicubically. The change happens between two pictures, once; `notes` tells
    after how many. A build that fails leaves the fallback at work, and `notes` tells why; where there
    is no fallback the failure is raised at the next picture.
    """

    def __init__(
        self, card: ModelCard, build: Callable[[], Engine], stand_in: Engine | None = None
    ) -> None:
        """`build` opens the engine; it is called once, in a thread of its own."""
        self._stand_in = stand_in
        self._passed = 0
        self._risen = False
        super().__init__(
            card,
            backend=stand_in.backend if stand_in is not None else "none yet",
            precision=stand_in.precision if stand_in is not None else "none yet",
            in_flight=max(2, stand_in.in_flight if stand_in is not None else 1),
        )
        if stand_in is not None:
            self.notes = stand_in.notes
        self._first = (self.backend, self.precision)
        self._build = build
        self._engine: Engine | None = None
        self._ready: set[tuple[int, int, int]] = set()
        self._failure: VelaturaError | None = None
        self._work: DaemonThread | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on assumptions, and on what the frames have gone through so far."""
        if not self._passed:
            return self._notes
        how = f"on {self._first[0]} in {self._first[1]}" if self._stand_in else "unchanged"
        frames = "1 frame" if self._passed == 1 else f"{self._passed} frames"
        until = (
            f"while {self.card.name} was built for {self.backend}" if self._risen else "all the while"
        )
        return (*self._notes, f"{frames} went {how} {until}")

    @notes.setter
    def notes(self, lines: tuple[str, ...]) -> None:
        self._notes = lines

    @property
    def building(self) -> bool:
        """True while a builder is at work."""
        return self._work is not None and self._work.at_work

    def submit(self, image: Array, bits: int = 8) -> Pending:
        key = (image.shape[0], image.shape[1], bits)
        if key in self._ready and not self.building and self._engine is not None:
            self._rise()
            return self._engine.submit(image, bits)
        failure = self._failure  # of before this picture, which still passes
        if not self.building and failure is None:
            self._work = DaemonThread(lambda: self._prepare(key), "velatura-build")
            self._work.start()
        self._passed += 1
        if self._stand_in is not None:
            return self._stand_in.submit(image, bits)
        if failure is not None:
            raise failure
        enlarged = _enlarge(image, self.card.scale, bits)
        return lambda: enlarged

    def wait(self) -> None:
        """Wait until the current build, if any, has finished."""
        if self._work is not None:
            self._work.wait()

    def close(self) -> None:
        # A builder cannot be interrupted: its result is still stored in the cache. Where Ctrl-C ends
        # the wait for it, its engine stays open, and may be closed by another call.
        try:
            self.wait()
        finally:
            if self._stand_in is not None:
                self._stand_in.close()
            if self._engine is not None and not self.building:
                self._engine.close()

    def _prepare(self, key: tuple[int, int, int]) -> None:
        try:
            if self._engine is None:
                self._engine = self._build()
            self._engine.prepare(*key)
            self._ready.add(key)
        except Exception as error:  # a bug, too, must reach the caller: a thread's own ends unheard
            own = isinstance(error, VelaturaError)
            self._failure = error if own else EngineError(f"{type(error).__name__}: {error}")
            self._failure.__cause__ = None if own else error
            self.notes = (*self._notes, f"the engine could not be built: {error}")

    def _rise(self) -> None:
        if self._risen or self._engine is None:
            return
        self._risen = True
        self.backend, self.precision = self._engine.backend, self._engine.precision
        self.notes = (*self._notes, *self._engine.notes)


def _enlarge(image: Array, scale: int, bits: int) -> Array:
    if scale == 1:
        return image
    size = (image.shape[1] * scale, image.shape[0] * scale)
    large = np.asarray(cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_CUBIC))
    return np.minimum(large, (1 << bits) - 1, out=large)
