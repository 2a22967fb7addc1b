"""Latencies, LivePump: late frames are dropped, dead parts left, nothing waits for ever."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime.errors import SinkError, SourceError, StageError
from velatura.runtime.frame import Frame, VideoInfo
from velatura.runtime.live import LivePump, Processed, Processor, StagesProcessor
from velatura.runtime.live import pump as pump_module
from velatura.runtime.live.output import Drop, Output
from velatura.runtime.meter import RESOLUTION, TOP, Histogram, Percentiles
from velatura.runtime.sinks import Sink
from velatura.runtime.sinks.base import RECORDING
from velatura.runtime.sources import Source

from ..ctrl_c import press_later
from .engines import frame, info_of, wait_until

PERIOD = 0.01


class Camera(Source):
    """Gives a frame every `PERIOD` seconds, whether or not anybody is ready."""

    uri = "camera:test"

    def __init__(self, frames: int, *, fail: Exception | None = None, stall: float = 0.0) -> None:
        self.info: VideoInfo = info_of(frame())
        self._frames, self._error, self._stall = frames, fail, stall
        self._closed = threading.Event()
        self._pictures = [frame(k, (64, 48)) for k in range(8)]
        self.given = 0

    def __iter__(self) -> Iterator[Frame]:
        begin = time.monotonic()
        for k in range(self._frames):
            self._closed.wait(max(begin + k * PERIOD - time.monotonic(), 0))
            if self._stall and k == self._frames // 2:
                self._closed.wait(self._stall)
            if self._closed.is_set():
                return
            self.given += 1
            one = self._pictures[k % 8]
            yield Frame(
                planes=one.planes, format=one.format, pts=k, time_base=Fraction(1, 100), index=k,
                colour=one.colour, captured=time.monotonic(),
            )  # fmt: skip
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._closed.set()


class Screen(Sink):
    """Takes `seconds` for a frame; fails at a frame, or never returns."""

    def __init__(
        self, name: str = "screen", *, seconds: float = 0.0, fail: Exception | None = None,
        hang: threading.Event | None = None,
    ) -> None:  # fmt: skip
        self.uri = name
        self.seconds, self.error, self.hang = seconds, fail, hang
        self.shown: list[Frame] = []
        self.begun = False

    def write(self, frame: Frame) -> None:
        self.begun = True
        if self.hang is not None:
            self.hang.wait(20)
        if self.error is not None:
            raise self.error
        time.sleep(self.seconds)
        self.shown.append(frame)

    def close(self) -> None:
        return None

    def abort(self) -> None:
        return None


class Slow(Processor):
    def __init__(self, seconds: float = 0.0, make: Callable[[Frame], Processed] = Processed) -> None:
        self.seconds, self.make = seconds, make
        self.latencies: list[float] = []
        self.revived: list[str] = []

    def process(self, frame: Frame) -> Processed:
        time.sleep(self.seconds)
        return self.make(frame)

    def observe(self, latency: float, *, period: float) -> None:
        assert period == PERIOD
        self.latencies.append(latency)

    def revive(self, reason: str) -> None:
        self.revived.append(reason)


class Fed(Camera):
    """Gives a frame when it is told to, and tells when the pump has it."""

    def __init__(self) -> None:
        super().__init__(0)
        self._wanted, self._asked = threading.Semaphore(0), threading.Semaphore(0)

    def give(self, count: int) -> None:
        for _ in range(count):
            self._wanted.release()
            # The next one is asked for when this one waits before it.
            assert self._asked.acquire(timeout=20)

    def __iter__(self) -> Iterator[Frame]:
        while self._wanted.acquire() and not self._closed.is_set():
            one = self._pictures[self.given % 8]
            self.given += 1
            yield Frame(
                planes=one.planes, format=one.format, pts=self.given - 1,
                time_base=Fraction(1, 100), index=self.given - 1, colour=one.colour,
                captured=time.monotonic(),
            )  # fmt: skip
            self._asked.release()

    def close(self) -> None:
        super().close()
        self._wanted.release()


class Held(Processor):
    """Works on a frame until it is let go."""

    def __init__(self) -> None:
        self.taken: queue.Queue[int] = queue.Queue()
        self.go = threading.Semaphore(0)

    def process(self, frame: Frame) -> Processed:
        self.taken.put(frame.index)
        assert self.go.acquire(timeout=20)
        return Processed(frame)


def run(source: Source, processor: Processor | None, *sinks: Sink | Output, **options: object):
    pump = LivePump(source, processor, sinks, period=PERIOD, **options)  # type: ignore[arg-type]
    return pump, pump.run(every=0.02)


@pytest.mark.parametrize(("drop", "taken"), [("oldest", [0, 4, 7]), ("newest", [0, 1, 5])])
def test_which_frame_waits_while_another_is_at_work(drop: Drop, taken: list[int]) -> None:
    """The newest, unless it is wanted that the one stays that came first."""
    source, processor, screen = Fed(), Held(), Screen()
    pump = LivePump(source, processor, [Output(screen, depth=9, keeps=True)], period=60.0, drop=drop)
    thread = threading.Thread(target=pump.run)
    thread.start()
    found: list[int] = []
    for count in (1, 4, 3):
        source.give(count)
        if found:
            processor.go.release()
        found.append(processor.taken.get(timeout=20))
    processor.go.release()
    assert wait_until(lambda: len(screen.shown) == 3)
    pump.stop()
    thread.join(20)
    stats = pump.stats()
    assert found == [one.index for one in screen.shown] == taken
    assert (stats.captured, stats.processed, stats.dropped) == (8, 3, 5)
    assert stats.outputs[0].latency.count == 3


def test_frames_older_than_a_period_are_late() -> None:
    processor, screen = Slow(2 * PERIOD), Screen()
    _, stats = run(Camera(20), processor, screen)
    assert stats.late == stats.outputs[0].shown == len(processor.latencies) > 0
    assert min(processor.latencies) > 2 * PERIOD


def test_nothing_is_dropped_where_the_source_can_wait() -> None:
    screen = Screen()
    _, stats = run(Camera(30), Slow(2 * PERIOD), screen, drop="never")
    assert stats.dropped == 0
    assert stats.processed == 30


def test_all_is_shown_when_there_is_time() -> None:
    screen = Screen()
    pump, stats = run(Camera(40), None, screen)
    assert len(screen.shown) + stats.outputs[0].dropped + stats.dropped == 40
    assert screen.shown
    assert stats.passed == stats.captured - stats.dropped
    assert {name: one.count > 0 for name, one in stats.stages.items()} == dict.fromkeys(
        ("wait", "work", "out"), True
    )
    assert stats.latency.count == len(screen.shown)
    assert pump.stats() == stats
    as_json = stats.to_json()
    assert as_json["captured"] == 40
    assert as_json["outputs"][0]["latency"]["p50_ms"] == round(stats.latency.p50 * 1e3, 2)


def test_a_slow_sink_delays_no_other() -> None:
    release = threading.Event()
    quick, slow, file = Screen("quick"), Screen("slow", hang=release), Screen("file")
    source = Fed()
    outputs = [Output(quick, depth=60), Output(slow), Output(file, depth=RECORDING, keeps=True)]
    pump = LivePump(source, Slow(), outputs, period=PERIOD, drop="never")
    thread = threading.Thread(target=pump.run)
    thread.start()
    source.give(1)
    assert wait_until(lambda: slow.begun)
    source.give(59)
    assert wait_until(lambda: len(quick.shown) == len(file.shown) == 60), "while the slow one hangs"
    assert not slow.shown
    release.set()
    assert wait_until(lambda: len(slow.shown) == 2)
    pump.stop()
    thread.join(20)
    assert [one.index for one in slow.shown] == [0, 59], "the one at work, and the newest since"
    assert [output.dropped for output in pump.stats().outputs] == [0, 58, 0]


def test_a_dead_sink_does_not_stop_the_others() -> None:
    well, dead = Screen("well"), Screen("dead", fail=OSError("the pipe is broken"))
    _, stats = run(Camera(40), Slow(), Output(well, depth=40, keeps=True), dead)
    assert well.shown[-1].index == 39
    assert "OSError: the pipe is broken" in stats.outputs[1].failure
    assert any("dead is given up" in event.text for event in stats.events)


def test_the_run_ends_when_no_sink_is_left() -> None:
    source = Camera(500)
    with pytest.raises(SinkError, match=r"disk is full|b failed"):
        run(source, Slow(), Screen("a", fail=SinkError("disk is full")), Screen("b", fail=OSError()))
    assert source.given < 500


def test_a_stuck_sink_does_not_stop_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "PATIENCE", 0.2)
    release, well = threading.Event(), Screen("well")
    kept = Output(well, depth=20, keeps=True)
    _, stats = run(Camera(20), Slow(), kept, Screen("stuck", hang=release))
    release.set()
    assert well.shown[-1].index == 19
    assert any("stuck is stuck" in event.text for event in stats.events)


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (SourceError("unplugged"), SourceError, "unplugged"),
        (OSError("bus"), SourceError, "OSError: bus"),
    ],
)
def test_a_failing_source_is_an_error(error: Exception, kind: type[Exception], text: str) -> None:
    screen = Screen()
    with pytest.raises(kind, match=text):
        run(Camera(10, fail=error), Slow(), screen)
    assert screen.shown


def test_a_processor_that_breaks_its_word_is_an_error() -> None:
    def broken(frame: Frame) -> Processed:
        raise ZeroDivisionError(f"at {frame.index}")

    with pytest.raises(StageError, match="Slow failed: ZeroDivisionError: at 0"):
        run(Camera(50), Slow(make=broken), Screen())


def test_who_sees_frames_and_fails_is_an_error() -> None:
    def see(frame: Frame) -> None:
        if frame.index == 3:
            raise ZeroDivisionError("no eyes")

    source = Camera(500)
    pump = LivePump(source, Slow(), [Screen()], period=PERIOD)
    pump.on_frame(see)
    with pytest.raises(StageError, match="what sees the frames failed: ZeroDivisionError: no eyes"):
        pump.run()
    assert source.given < 400


@pytest.mark.parametrize("others", [0, 1])
def test_who_hears_of_events_and_fails_ends_the_run_and_no_thread_of_it(others: int) -> None:
    """As a terminal that is gone: a sink that fails is told there."""

    def hear(_: object) -> None:
        raise BrokenPipeError("nobody listens")

    source, dead = Camera(500), Screen("dead", fail=SinkError("the disk is full"))
    pump = LivePump(source, Slow(), [dead, *[Screen()] * others], period=PERIOD)
    pump.on_event(hear)
    kind, text = (StageError, "nobody listens") if others else (SinkError, "the disk is full")
    with pytest.raises(kind, match=text):
        pump.run()
    assert source.given < 400


def test_it_ends_when_told_and_when_the_time_is_up() -> None:
    pump = LivePump(Camera(10_000), Slow(), [Screen()], period=PERIOD)
    threading.Timer(0.2, pump.stop).start()
    assert pump.run().captured < 10_000
    stats = LivePump(Camera(10_000), Slow(), [Screen()], period=PERIOD).run(seconds=0.3)
    assert stats.elapsed > 0.25
    assert stats.captured < 10_000


def test_a_source_of_files_is_not_closed_while_it_is_read() -> None:
    """A decoder that is closed under its hands crashes the process."""

    class File(Camera):
        reading = closed_while_reading = False

        def __iter__(self) -> Iterator[Frame]:
            for k in range(3):
                self.reading = True
                time.sleep(0.3)
                self.reading = False
                yield self._pictures[k]

        def close(self) -> None:
            self.closed_while_reading |= self.reading

    source = File(3)
    LivePump(source, Slow(), [Screen()], period=PERIOD).run(seconds=0.1)
    assert not source.closed_while_reading


def test_a_source_that_is_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "STALLED", 0.15)
    heard: list[str] = []
    pump = LivePump(Camera(20, stall=0.5), Slow(), [Screen()], period=PERIOD)
    pump.on_event(lambda event: heard.append(event.text))
    pump.run(every=0.02)
    assert [text for text in heard if "has given no frame for 0." in text]
    assert [text for text in heard if "gives frames again" in text]


def test_a_frozen_picture_is_found_and_a_still_one_is_not() -> None:
    still = frame(0, (64, 48))

    def freeze(given: Frame) -> Processed:
        return Processed(given.with_planes(still.planes, still.format))

    processor = Slow(make=freeze)
    _, stats = run(Camera(60), processor, Screen())
    assert processor.revived
    assert any("frozen" in event.text for event in stats.events)
    for watched in (Slow(), Slow(make=freeze)):
        source = Camera(60)
        if watched.make is freeze:
            source._pictures = [still] * 8  # pyright: ignore[reportPrivateUsage]
        run(source, watched, Screen())
        assert watched.revived == []
    unwatched = Slow(make=freeze)
    run(Camera(60), unwatched, Screen(), watch=False)
    assert unwatched.revived == []


def test_a_run_without_a_sink_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a sink"):
        LivePump(Camera(1), None, [])


def test_a_sink_may_come_and_go_while_the_run_goes_on() -> None:
    first, later = Screen("first"), Screen("later")
    pump = LivePump(Camera(100), StagesProcessor(), [first], period=PERIOD)
    thread = threading.Thread(target=pump.run)
    thread.start()
    assert wait_until(lambda: len(first.shown) > 5)
    output = pump.add(later)
    assert wait_until(lambda: len(later.shown) > 5)
    assert pump.remove(output)
    taken = len(later.shown)
    thread.join(5)
    assert len(later.shown) == taken
    assert len(first.shown) > taken


class Busy(Slow):
    """Is at work on its frame until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.working = False
        self.go = threading.Event()

    def process(self, frame: Frame) -> Processed:
        self.working = True
        self.go.wait(20)
        self.working = False
        return Processed(frame)


class BusySink(Screen):
    """The same of a sink."""

    def __init__(self, name: str = "file") -> None:
        super().__init__(name)
        self.writing = False
        self.go = threading.Event()

    def write(self, frame: Frame) -> None:
        self.writing = True
        self.go.wait(20)
        self.shown.append(frame)
        self.writing = False


def test_ctrl_c_waits_for_the_model_at_work() -> None:
    """Who has opened the engines closes them next."""
    processor = Busy()
    pump = LivePump(Camera(10_000), processor, [Screen()], period=PERIOD)
    with press_later(lambda: processor.working, then=processor.go.set):
        stats = pump.run()
        working = processor.working
    assert not working
    assert stats.processed == 1
    assert any(event.text == "stopped" for event in stats.events)


def test_a_second_ctrl_c_drops_what_waits_and_leaves_no_sink_writing() -> None:
    source, sink = Camera(10_000), BusySink()
    output = Output(sink, depth=RECORDING, keeps=True)
    pump = LivePump(source, Slow(), [output], period=PERIOD)
    closed = source._closed.is_set  # pyright: ignore[reportPrivateUsage]
    with press_later(lambda: source.given > 20, closed, then=sink.go.set):
        with pytest.raises(KeyboardInterrupt):
            pump.run()
        busy, writing = output.busy, sink.writing
    assert not busy
    assert not writing
    assert len(sink.shown) == 1
    assert output.stats().dropped > 5


def test_a_sink_that_is_stuck_holds_up_no_second_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump_module, "PATIENCE", 0.5)
    source, sink = Camera(10_000), BusySink()
    output = Output(sink, depth=RECORDING, keeps=True)
    pump = LivePump(source, Slow(), [output], period=PERIOD)
    closed = source._closed.is_set  # pyright: ignore[reportPrivateUsage]
    with press_later(lambda: sink.writing, closed), pytest.raises(KeyboardInterrupt):
        pump.run()
    assert output.busy, "nobody may close it"
    assert any("file is stuck" in event.text for event in pump.stats().events)
    sink.go.set()


def test_after_the_run_no_sink_is_added_that_nobody_would_end() -> None:
    late = Screen("late")
    pump, _ = run(Camera(3), None, Screen())
    with pytest.raises(SinkError, match="the run is over: late"):
        pump.add(late)
    assert not late.shown
    assert len(pump.outputs) == 1


# Latencies


@given(
    st.lists(st.floats(0, TOP) | st.floats(0, 0.1), min_size=1, max_size=400),
    st.sampled_from([RESOLUTION, RESOLUTION / 20]),
)
@settings(deadline=None)
def test_percentiles_are_those_of_the_sorted_values(values: list[float], resolution: float) -> None:
    histogram = Histogram(resolution)
    for value in values:
        histogram.add(value)
    found = histogram.percentiles()
    assert found.count == len(values)
    assert found.worst == max(values)
    assert found.mean == pytest.approx(np.mean(values))
    for part, value in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99), (0.999, found.p999)):
        wanted = sorted(values)[int(np.ceil(part * len(values))) - 1]
        assert abs(value - wanted) <= resolution
    assert found.p50 <= found.p95 <= found.p99 <= found.p999 <= found.worst


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=400), st.sampled_from([0.01, 0.001]))
@settings(deadline=None)
def test_lows_are_counted_as_mangohud_does(values: list[float], part: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    slow = sorted(values, reverse=True)[int(part * len(values))]
    assert 1 / (slow + RESOLUTION) <= histogram.low(part) <= 1 / max(slow - RESOLUTION, RESOLUTION)


def test_a_day_takes_no_more_memory_than_a_second_and_nothing_is_nothing() -> None:
    histogram = Histogram()
    assert histogram.percentiles() == Percentiles()
    assert histogram.low(0.01) == 0
    size = histogram._bins.nbytes  # pyright: ignore[reportPrivateUsage]
    for value in (-1.0, 0.0, 1e9):
        histogram.add(value)
    assert histogram._bins.nbytes == size  # pyright: ignore[reportPrivateUsage]
    assert histogram.percentiles().worst == 1e9
