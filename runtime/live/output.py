"""Outputs of a live run: a sink, a thread, and a channel for frames that it cannot take at once."""

import time
from collections.abc import Callable

from ..errors import SinkError, VelaturaError
from ..frame import Frame
from ..meter import Histogram
from ..sinks import Sink
from ..worker import Channel, DaemonThread, Drop
from .stats import OutputStats


class Output:
    """Hands frames to a sink; a slow sink loses frames, a failed one gets no more, and others are not
    affected."""

    def __init__(
        self,
        sink: Sink,
        *,
        depth: int = 1,
        keeps: bool = False,
        drop: Drop = "oldest",
        ended: Callable[[], None] | None = None,
    ) -> None:
        """`depth` frames may wait; `drop` is the policy for more. With `keeps` all that waits is still
        taken at the end. `ended` is called when the sink gets no more frames."""
        self.sink = sink
        self.failure: VelaturaError | None = None
        self.keeps = keeps
        self._ended = ended
        self._waiting = Channel[tuple[Frame, float]](drop, depth=depth)
        self._latency, self._intervals = Histogram(), Histogram()
        self._shown = 0
        self._last: float | None = None
        self._begin = 0.0
        self._heard: Callable[[Output, float, float], None] | None = None
        self._failed: Callable[[Output], None] | None = None
        self._thread = DaemonThread(self._run, f"velatura-{sink.uri}")

    def start(
        self,
        *,
        shown: Callable[["Output", float, float], None] | None = None,
        failed: Callable[["Output"], None] | None = None,
    ) -> None:
        """Start the thread; `shown` is called for each frame with the seconds from its capture, and
        from its arrival here, until the sink had it; `failed` when the sink fails."""
        self._heard, self._failed = shown, failed
        self._begin = time.monotonic()
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True if the sink still takes frames."""
        return self.failure is None

    def put(self, frame: Frame) -> None:
        """Add a frame; never waits."""
        if self.alive:
            self._waiting.put((frame, time.monotonic()))

    def finish(self, patience: float, *, drop: bool = False) -> bool:
        """Waits until the waiting frames are taken; returns False when the sink takes nothing for
        `patience` seconds.

        A file takes all waiting frames, however long it needs, unless `drop` is set. A display is not
        waited for.
        """
        self._waiting.close(drop=drop or not self.keeps)
        shown = -1
        while self._thread.at_work and self._shown != shown:
            shown = self._shown
            self._thread.wait(patience)
        return not self._thread.at_work

    @property
    def busy(self) -> bool:
        """True while a frame is being written: nobody else may touch the sink then."""
        return self._thread.at_work

    def stats(self) -> OutputStats:
        """Returns the figures so far."""
        elapsed = (self._last or 0.0) - self._begin
        return OutputStats(
            name=self.sink.uri,
            shown=self._shown,
            dropped=self._waiting.dropped,
            failure=str(self.failure or ""),
            latency=self._latency.percentiles(),
            rate=self._shown / elapsed if elapsed > 0 else 0.0,
            low1=self._intervals.low(0.01),
            low01=self._intervals.low(0.001),
        )

    def _run(self) -> None:
        try:
            self._take()
        finally:
            if self._ended is not None:
                self._ended()

    def _take(self) -> None:
        while not self._waiting.closed:
            taken = self._waiting.take()
            if taken is None:
                break
            frame, left = taken
            try:
                self.sink.write(frame)
            except VelaturaError as error:
                self._fail(error)
                return
            except Exception as error:
                self._fail(SinkError(f"{self.sink.uri} failed: {type(error).__name__}: {error}"))
                return
            now = time.monotonic()
            latency = now - (frame.captured if frame.captured is not None else now)
            self._latency.add(latency)
            if self._last is not None:
                self._intervals.add(now - self._last)
            self._last = now
            self._shown += 1
            if self._heard is not None:
                self._heard(self, latency, now - left)

    def _fail(self, error: VelaturaError) -> None:
        self.failure = error
        self._waiting.close(drop=True)
        if self._failed is not None:
            self._failed(self)
