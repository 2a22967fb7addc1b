"""Stills: single frames of films, and what models make of them, by engines that stay open."""

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

from ..backends import Engine, open_engine
from ..errors import EngineError, SourceError
from ..frame import Frame
from ..jobs.job import Job, stages_of
from ..sources import open_source
from ..stages import Blending, Resize
from ..web.pictures import jpeg, shown
from ..worker import DaemonThread
from .choices import Choices

T = TypeVar("T")

LONGEST = 1920
"""Pixels of the longest side of a still."""
CARD = 640
"""Pixels of the longest side of the frame that a card's picture is made of. A film of that size or
less is not made smaller, so that its engines are compiled when a card is clicked."""
CARD_SHOWN = 320
"""Pixels of the longest side of a card's picture."""
SEARCH = 3.0
"""Seconds that a frame may be searched for after a seek; then the one that was reached is taken."""
GLANCE = 0.25
"""The same for the timeline, whose pictures only show where one is."""
FRAMES = 6
"""Decoded frames that are kept."""
ENGINES = 16
"""Engines that stay open."""


class Ranked:
    """A thread that does what is most urgent first, and in the order of asking among equals."""

    def __init__(self, name: str) -> None:
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = DaemonThread(self._run, name)
        self._thread.start()

    def submit(self, rank: int, work: Callable[[], T]) -> "Future[T]":
        """Returns what the work will give; the lowest rank comes first. What was cancelled before its
        turn is left out."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as error:  # for whoever waits for it
                future.set_exception(error)

        with self._changed:
            if self._closed:
                future.cancel()
            heapq.heappush(self._waiting, (rank, next(self._numbers), run))
            self._changed.notify()
        return future

    def close(self, last: Callable[[], None], patience: float) -> None:
        """Leave out what waits, do one thing more, and end, within `patience` seconds if it can be."""
        with self._changed:
            self._closed = True
            self._waiting = [(0, next(self._numbers), last)]
            self._changed.notify()
        self._thread.outwait(patience)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                _, _, work = heapq.heappop(self._waiting)
                ending = self._closed and not self._waiting
            work()
            if ending:
                return


class Stills:
    """Gives JPEG pictures of films. Called from any thread; each call returns a future."""

    def __init__(self) -> None:
        self._frames: OrderedDict[tuple[Path, float], Frame] = OrderedDict()
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        # Decoding does not wait for models, nor the other way round.
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="velatura-studio-decode")
        self._models = Ranked("velatura-studio-models")

    def glance(self, path: Path, at: float, longest: int) -> "Future[bytes]":
        """Returns a small picture near that time in seconds."""
        return self._decoder.submit(lambda: jpeg(shown(_frame_at(path, at, GLANCE), longest)))

    def before(self, path: Path, at: float) -> "Future[bytes]":
        """Returns the frame at that time as it is. Raises SourceError."""
        return self._decoder.submit(lambda: jpeg(shown(self._frame(path, at), LONGEST)))

    def after(self, path: Path, at: float, choices: Choices) -> "Future[bytes]":
        """Returns the frame at that time as the chosen models make it. Raises VelaturaError."""

        def work() -> bytes:
            frame = self._decoder.submit(self._frame, path, at).result()
            return jpeg(shown(self._made(frame, choices.job(path, Path("still.mp4"))), LONGEST))

        return self._models.submit(0, work)

    def card(self, path: Path, at: float, model: str) -> "Future[bytes]":
        """Returns a model's picture of that frame; what enlarges is shown by its middle."""

        def work() -> bytes:
            frame = self._decoder.submit(self._frame, path, at).result()
            longest = max(frame.width, frame.height)
            if longest > CARD:
                part = CARD / longest
                frame = Resize(round(frame.width * part), round(frame.height * part))(frame)
            made = self._made(frame, Job(source=str(path), sink="still.mp4", models=(model,)))
            if (made.width, made.height) != (frame.width, frame.height):
                made = _middle(made)
            return jpeg(shown(made, CARD_SHOWN))

        return self._models.submit(1, work)

    def forget(self, path: Path) -> None:
        """Drop a film's frames."""
        self._decoder.submit(self._drop, path)

    def close(self, patience: float = 5.0) -> None:
        """Close the engines."""
        self._decoder.shutdown(wait=False, cancel_futures=True)
        self._models.close(self._close_engines, patience)

    def _frame(self, path: Path, at: float) -> Frame:
        key = (path, round(at, 3))
        frame = self._frames.pop(key, None)
        if frame is None:
            frame = _frame_at(path, at, SEARCH)
        self._frames[key] = frame
        while len(self._frames) > FRAMES:
            self._frames.popitem(last=False)
        return frame

    def _drop(self, path: Path) -> None:
        for key in [key for key in self._frames if key[0] == path]:
            del self._frames[key]

    def _made(self, frame: Frame, job: Job) -> Frame:
        # One frame has no history to be held to.
        engines = [self._engine(name, frame.width * frame.height) for name in job.models]
        blending = Blending(strength=job.strength, keep_colours=job.keep_colours)
        for stage in stages_of(replace(job, stabilize=None), engines, blending):
            frame = stage(frame)
        return frame

    def _engine(self, name: str, pixels: int) -> Engine:
        engine = self._engines.pop(name, None)
        if engine is None:
            # For one frame nothing is measured: the precision is what an earlier run found, else FP32.
            engine = open_engine(name, hint="latency", pixels=pixels)
        self._engines[name] = engine
        while len(self._engines) > ENGINES:
            _, oldest = self._engines.popitem(last=False)
            oldest.close()
        return engine

    def _close_engines(self) -> None:
        while self._engines:
            _, engine = self._engines.popitem()
            try:
                engine.close()
            except EngineError:
                continue  # the process is ending: the others are closed all the same


def _frame_at(path: Path, at: float, patience: float) -> Frame:
    """Returns the frame that is shown at a time in seconds, or the last one before it."""
    with open_source(path) as source:
        if at > 0:
            source.seek(at)
        found: Frame | None = None
        start = time.perf_counter()
        for frame in source:
            found = frame
            until = frame.seconds + 0.5 / float(source.info.rate)
            if until >= at or time.perf_counter() - start > patience:
                break
    if found is None and at > 0:
        return _frame_at(path, 0.0, patience)  # beyond the end
    if found is None:
        raise SourceError(f"{path.name} gives no picture there")
    return found


def _middle(frame: Frame) -> Frame:
    """Returns the middle of a frame as large as a card shows it, so that its pixels are seen."""
    height = min(frame.height, round(CARD_SHOWN * frame.height / frame.width)) // 2 * 2
    width = min(frame.width, CARD_SHOWN) // 2 * 2
    top, left = (frame.height - height) // 4 * 2, (frame.width - width) // 4 * 2
    across, down = frame.format.subsample if frame.format.family == "yuv" else (1, 1)
    planes = tuple(
        plane[top // d : (top + height) // d, left // a : (left + width) // a]
        for number, plane in enumerate(frame.planes)
        for a, d in [(across, down) if number else (1, 1)]
    )
    return replace(frame, planes=planes, alpha=None, depth=None, motion=None)
