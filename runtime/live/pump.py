"""LivePump: keeps up with its source on any machine; late frames are dropped, not queued."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import numpy as np

from ..adaptive.processor import Processor, StagesProcessor
from ..errors import SinkError, SourceError, StageError, VelaturaError
from ..frame import Frame
from ..meter import Event, Histogram, Percentiles
from ..sinks import Sink
from ..sources import Source
from ..sources.live import LiveSource
from ..worker import Channel, DaemonThread, Drop
from .output import Output
from .stats import LiveStats

EVENTS = 200
"""Events that are kept."""
STALLED = 2.0
"""Seconds without a frame after which a source counts as stalled."""
FROZEN = 15
"""Frames in a row whose results are equal, though their inputs differ, before the processor is
revived."""
PATIENCE = 5.0
"""Seconds that the end of a run waits for a sink or a source."""


class LivePump:
    """Moves frames from source through processor to sinks, with a channel before each, each part in a
    thread of its own.

    The newest frame wins: with `drop` "oldest" at most one waits, and it is the last that came. A sink
    that fails gets no more frames, and the others go on; the run ends when all have failed, the source
    ends, or `stop` is called.
    """

    def __init__(
        self,
        source: Source,
        processor: Processor | None,
        sinks: Sequence[Sink | Output],
        *,
        drop: Drop = "oldest",
        period: float | None = None,
        watch: bool = True,
    ) -> None:
        """`period` is the seconds between two frames, until the source shows another.

        `watch` compares what goes in with what comes out, to find a picture that has frozen.
        """
        self.source = source
        self.processor = processor or StagesProcessor()
        self.outputs = [sink if isinstance(sink, Output) else Output(sink) for sink in sinks]
        if not self.outputs:
            raise ValueError("a live run needs a sink")
        self.period = period or float(1 / source.info.rate)
        self._box = Channel[tuple[Frame, float]](drop)
        self._wait, self._work, self._out = Histogram(), Histogram(), Histogram()
        self._captured = self._processed = self._passed = self._repeated = self._late = 0
        self._events: deque[Event] = deque(maxlen=EVENTS)
        self._hearers: list[Callable[[Event], None]] = []
        self._seers: list[Callable[[Frame], None]] = []
        self._stop = threading.Event()
        self._joining = threading.Lock()
        self._running = self._over = False
        self._failure: VelaturaError | None = None
        self._begin = 0.0
        self._end: float | None = None
        self._came = 0.0
        self._stalled = False
        self._watchdog = _Watchdog() if watch else None

    def run(
        self,
        *,
        seconds: float | None = None,
        progress: Callable[[LiveStats], None] | None = None,
        every: float = 0.5,
    ) -> LiveStats:
        """Runs until the source ends, `seconds` have passed, or `stop` or Ctrl-C; returns the figures.

        A second Ctrl-C drops the frames that still wait for the sinks and raises KeyboardInterrupt,
        once none is being written. Raises SourceError when the source fails, SinkError when no sink is
        left. The sinks are left open, whichever way it ends: the caller closes or aborts them.
        """
        self._begin = self._came = time.monotonic()
        self.processor.listen(self.tell)
        capture = DaemonThread(self._read, "velatura-capture")
        process = DaemonThread(self._process, "velatura-process")
        try:
            with self._joining:
                self._running = True
                for output in self.outputs:
                    output.start(shown=self._shown, failed=self._sink_failed)
            capture.start()
            process.start()
            while process.at_work and not self._stop.is_set():
                left = None if seconds is None else self._begin + seconds - time.monotonic()
                if left is not None and left <= 0:
                    break
                process.wait(every if left is None else min(every, left))
                self._look_for_stalls()
                if progress is not None:
                    progress(self.stats())
        except KeyboardInterrupt:
            self.tell("stopped")
        finally:
            self._finish((capture, process))
        if self._failure is not None:
            raise self._failure
        return self.stats()

    def stop(self, *, drop: bool = False) -> None:
        """End the run soon; from any thread. `drop` drops frames that wait for files, too."""
        self._stop.set()
        self._box.close(drop=True)
        if drop:
            for output in self.outputs:
                output.finish(0.0, drop=True)

    def add(self, sink: Sink | Output) -> Output:
        """Adds a sink, which gets frames from now on; from any thread, before the run or in it.

        Raises SinkError after the run, since the sink would never be finished.
        """
        output = sink if isinstance(sink, Output) else Output(sink)
        with self._joining:
            if self._over:
                raise SinkError(f"the run is over: {output.sink.uri} gets no frames any more")
            if self._running:
                output.start(shown=self._shown, failed=self._sink_failed)
            self.outputs = [*self.outputs, output]
        return output

    def remove(self, output: Output) -> bool:
        """Removes a sink, which is left open; returns False when it is stuck with a frame."""
        with self._joining:
            self.outputs = [other for other in self.outputs if other is not output]
        return output.finish(PATIENCE)

    def tell(self, text: str) -> None:
        """Note an event; from any thread."""
        event = Event(time.monotonic() - self._begin if self._begin else 0.0, text)
        self._events.append(event)
        for hear in tuple(self._hearers):
            try:
                hear(event)
            except Exception as error:  # it ends the run, not the thread in which something happened
                self._fail(_foreign(error, "what hears of events"))

    def on_event(self, hear: Callable[[Event], None]) -> None:
        """Call `hear` with every event, from the thread in which it happens."""
        self._hearers.append(hear)

    def on_frame(self, hear: Callable[[Frame], None]) -> None:
        """Call `hear` with every frame that is shown, in the thread that made it: it must not block."""
        self._seers.append(hear)

    def stats(self) -> LiveStats:
        """Returns the figures so far; from any thread."""
        end = self._end if self._end is not None else time.monotonic()
        return LiveStats(
            elapsed=end - self._begin,
            captured=self._captured,
            processed=self._processed,
            passed=self._passed,
            repeated=self._repeated,
            dropped=self._box.dropped,
            late=self._late,
            rung=self.processor.rung,
            stages=self._stages(),
            outputs=tuple(output.stats() for output in self.outputs),
            events=tuple(self._events),
        )

    def _stages(self) -> dict[str, Percentiles]:
        parts = (("wait", self._wait), ("work", self._work), ("out", self._out))
        return {name: histogram.percentiles() for name, histogram in parts}

    def _read(self) -> None:
        try:
            for frame in self.source:
                now = time.monotonic()
                self._came = now
                self._captured += 1
                if frame.captured is None:
                    frame = replace(frame, captured=now)
                self._box.put((frame, now))
                if self._stop.is_set():
                    break
        except VelaturaError as error:
            self._fail(error)
        except Exception as error:
            self._fail(SourceError(f"{self.source.uri} failed: {type(error).__name__}: {error}"))
        finally:
            self._box.close()

    def _process(self) -> None:
        try:
            self._process_all()
        except Exception as error:
            self._fail(_foreign(error, "what sees the frames"))

    def _process_all(self) -> None:
        while not self._stop.is_set():
            taken = self._box.take()
            if taken is None:
                break
            frame, came = taken
            begin = time.monotonic()
            self._wait.add(begin - came)
            try:
                made = self.processor.process(frame)
            except Exception as error:
                self._fail(self._bug(error))
                return
            self._work.add(time.monotonic() - begin)
            self._passed += made.passed
            self._repeated += made.repeated
            self._processed += not (made.passed or made.repeated)
            if self._watchdog is not None and self._watchdog.frozen(frame, made.frame):
                self.processor.revive("the picture has frozen")
                self.tell("the picture has frozen: the models are started anew")
            for see in self._seers:
                see(made.frame)
            for output in self.outputs:
                output.put(made.frame)

    def _shown(self, output: Output, latency: float, out: float) -> None:
        # The deadline applies to the first sink only: a file may take its time.
        if output is next((one for one in self.outputs if one.alive), None):
            self._out.add(out)
            self._late += latency > self.period
            try:
                self.processor.observe(latency, period=self.period)
            except Exception as error:
                self._fail(self._bug(error))

    def _bug(self, error: Exception) -> StageError:
        """Returns the error for an exception of a processor, which must not raise any: a bug in it."""
        name = type(self.processor).__name__
        return StageError(f"{name} failed: {type(error).__name__}: {error}")

    def _sink_failed(self, output: Output) -> None:
        if not any(other.alive for other in self.outputs):
            self._fail(output.failure or SinkError("no sink is left"))
        self.tell(f"{output.sink.uri} is given up: {output.failure}")

    def _look_for_stalls(self) -> None:
        silent = time.monotonic() - self._came
        if silent > max(STALLED, 3 * self.period) and not self._stalled:
            self._stalled = True
            self.tell(f"{self.source.uri} has given no frame for {silent:.1f} s")
        elif self._stalled and silent < STALLED:
            self._stalled = False
            self.tell(f"{self.source.uri} gives frames again")

    def _fail(self, error: VelaturaError) -> None:
        self._failure = self._failure or error
        self.stop()

    def _finish(self, threads: Sequence[DaemonThread]) -> None:
        """Wait until no thread uses the source, the processor and the sinks, which the caller closes
        next.

        A thread that is stuck is given up after `PATIENCE`, counted once, however often Ctrl-C comes.
        """
        until, hurried = time.monotonic() + PATIENCE, None
        while True:
            try:
                if hurried is not None:
                    self.stop(drop=True)
                self._wind_up(threads, until, hurried)
                break
            except KeyboardInterrupt:
                hurried = hurried or time.monotonic() + PATIENCE
        if hurried is not None:
            raise KeyboardInterrupt

    def _wind_up(self, threads: Sequence[DaemonThread], until: float, hurried: float | None) -> None:
        self._box.close(drop=self._stop.is_set())
        self._stop.set()
        with self._joining:
            self._over = True
        if not isinstance(self.source, LiveSource):
            # Others must not be closed while they are read.
            threads[0].wait(max(until - time.monotonic(), 0.0))
        # A live source may be waiting for a frame that never comes: closing it ends the wait.
        self.source.close()
        for thread in threads:
            thread.wait(max(until - time.monotonic(), 0.0))
        self._end = time.monotonic()
        for output in self.outputs:
            patience = PATIENCE if hurried is None else max(hurried - time.monotonic(), 0.0)
            if not output.finish(patience):
                self.tell(f"{output.sink.uri} is stuck and was left")


class FramesSink(Sink):
    """Hands frames to a coroutine; the newest replaces older ones while that is busy.

    ```
    frames = FramesSink()
    pump = LivePump(source, processor, [frames])
    async for frame in frames.of(pump):
        ...
    ```
    """

    def __init__(self) -> None:
        self.uri = "frames:"
        self._waiting = Channel[Frame]("oldest")

    @property
    def dropped(self) -> int:
        """The number of frames that a newer one replaced."""
        return self._waiting.dropped

    def write(self, frame: Frame) -> None:
        self._waiting.put(frame)
        self.frames += 1

    def close(self) -> None:
        self._waiting.close()

    def abort(self) -> None:
        self._waiting.close(drop=True)

    async def of(self, pump: LivePump) -> AsyncIterator[Frame]:
        """Run the pump in a thread, and yield its frames; leaving the loop stops it.

        Raises what the pump raises, after the last frame.
        """
        run = asyncio.create_task(asyncio.to_thread(self._run, pump))
        try:
            while True:
                frame = await asyncio.to_thread(self._waiting.take)
                if frame is None:
                    break
                yield frame
        finally:
            pump.stop()
            self._waiting.close(drop=True)
            await run

    def _run(self, pump: LivePump) -> None:
        try:
            pump.run()
        finally:
            self._waiting.close()


def _foreign(error: Exception, culprit: str) -> VelaturaError:
    """Returns an error in the form in which `run` raises it."""
    if isinstance(error, VelaturaError):
        return error
    found = StageError(f"{culprit} failed: {type(error).__name__}: {error}")
    found.__cause__ = error
    return found


class _Watchdog:
    """Distinguishes a frozen picture from one that stands still."""

    def __init__(self) -> None:
        self._before: tuple[bytes, bytes] | None = None
        self._same = 0

    def frozen(self, given: Frame, made: Frame) -> bool:
        """Returns whether results have been equal for long, though their inputs differed."""
        now = _print(given), _print(made)
        before, self._before = self._before, now
        if before is None or now[1] != before[1]:
            self._same = 0
        elif now[0] != before[0]:
            self._same += 1
        if self._same < FROZEN:
            return False
        self._same = 0
        return True


def _print(frame: Frame) -> bytes:
    """Returns a thin grid of the picture's samples: cheap, and different for any picture that moves."""
    plane = frame.planes[0]
    y, x = max(plane.shape[0] // 24, 1), max(plane.shape[1] // 32, 1)
    return np.ascontiguousarray(plane[::y, ::x]).tobytes()
