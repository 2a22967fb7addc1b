"""Order, bounds, errors and interruption of the pump."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from velatura.runtime import Frame, Pump, SinkError, SourceError, StageError, VideoInfo
from velatura.runtime.frame import GRAY
from velatura.runtime.pump import Meter
from velatura.runtime.sinks import Sink
from velatura.runtime.sources import Source


class Numbers(Source):
    """Frames whose pixels say their number."""

    def __init__(self, count: int, *, fail_at: int | None = None) -> None:
        self.uri = "numbers"
        self.count = count
        self.fail_at = fail_at
        self.given = 0
        self.info = VideoInfo(
            width=4, height=2, format=GRAY, rate=Fraction(30), time_base=Fraction(1, 30), frames=count
        )

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.count):
            if index == self.fail_at:
                raise SourceError("the tape is torn")
            self.given = index + 1
            pixels = np.full((2, 4), index % 256, np.uint8)
            yield Frame(
                planes=(pixels,), format=GRAY, pts=index, time_base=Fraction(1, 30), index=index
            )

    def close(self) -> None:
        return None


class Collector(Sink):
    """Keeps what it gets; may be slow, may fail."""

    uri = "collector"

    def __init__(self, *, before: Callable[[int], None] = lambda _: None) -> None:
        self.before = before
        self.seen: list[int] = []

    def write(self, frame: Frame) -> None:
        self.before(frame.index)
        self.seen.append(frame.index)

    def close(self) -> None:
        return None

    def abort(self) -> None:
        return None


class Jittering:
    """A pipelined stage whose results come out of order."""

    def __init__(self, in_flight: int) -> None:
        self.in_flight = in_flight
        self.pool = ThreadPoolExecutor(in_flight)
        self.delay = random.Random(3)

    def __call__(self, frame: Frame) -> Frame:
        return self.submit(frame)()

    def submit(self, frame: Frame) -> Callable[[], Frame]:
        seconds = self.delay.random() * 0.01

        def work() -> Frame:
            time.sleep(seconds)
            return frame

        return self.pool.submit(work).result


def same(frame: Frame) -> Frame:
    return frame


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_order_is_kept(in_flight: int) -> None:
    sink = Collector()
    stats = Pump(Numbers(60), [Jittering(in_flight), same, Jittering(2)], sink).run()
    assert sink.seen == list(range(60))
    assert (stats.frames_in, stats.frames_out) == (60, 60)
    assert [t.count for t in stats.timings.values()] == [60] * 5
    assert not stats.interrupted


def test_an_empty_source_ends() -> None:
    assert Pump(Numbers(0), [same], Collector()).run().frames_out == 0


def test_the_limit_is_kept() -> None:
    sink = Collector()
    stats = Pump(Numbers(1000), [same], sink).run(limit=7)
    assert sink.seen == list(range(7))
    assert stats.frames_in == 7


def test_queues_are_bounded() -> None:
    """However slow the sink, the reader is only as far ahead as the queues and hands allow."""
    source = Numbers(40)
    ahead: list[int] = []

    def slow(index: int) -> None:
        time.sleep(0.005)
        ahead.append(source.given - index)

    Pump(source, [same, same], Collector(before=slow), depth=2).run()
    # Three queues of two, and one frame in each of the four hands (and one just made).
    assert max(ahead) <= 3 * 2 + 5


def fail_at_five(frame: Frame) -> Frame:
    if frame.index == 5:
        raise ZeroDivisionError("no luck")
    return frame


def refuse(index: int) -> None:
    if index == 5:
        raise SinkError("the disk is full")


@pytest.mark.parametrize(
    ("source", "stage", "sink", "kind", "text"),
    [
        (Numbers(400, fail_at=5), same, Collector(), SourceError, "frame 5: the tape is torn"),
        (Numbers(400), fail_at_five, Collector(), StageError,
         "frame 5: fail_at_five failed: ZeroDivisionError: no luck"),
        (Numbers(400), same, Collector(before=refuse), SinkError, "frame 5: the disk is full"),
    ],
    ids=["reader", "stage", "writer"],
)  # fmt: skip
def test_errors_surface_with_their_frame(
    source: Source, stage: Callable[[Frame], Frame], sink: Collector, kind: type, text: str
) -> None:
    before = threading.active_count()
    with pytest.raises(kind) as raised:
        Pump(source, [stage], sink).run()
    assert str(raised.value) == text
    assert raised.value.__cause__ is not None
    assert sink.seen == list(range(len(sink.seen))), "nothing out of order before the error"
    assert threading.active_count() == before


class TornError(SourceError):
    """An error of a user's own, which carries more than a text."""

    exit_code = 8

    def __init__(self, reel: int, *, why: str) -> None:
        super().__init__(f"reel {reel} is torn: {why}")
        self.reel = reel


def test_an_error_keeps_its_class_and_what_it_carries() -> None:
    torn = TornError(7, why="age")
    torn.add_note("glue it")

    def fail(frame: Frame) -> Frame:
        if frame.index == 5:
            raise torn
        return frame

    for _ in range(2):
        with pytest.raises(TornError) as raised:
            Pump(Numbers(10), [fail], Collector()).run()
        assert str(raised.value) == "frame 5: reel 7 is torn: age"
        assert (raised.value.reel, raised.value.exit_code) == (7, 8)
        assert raised.value.__notes__ == ["glue it"]
        assert raised.value.__cause__ is torn
    assert str(torn) == "reel 7 is torn: age", "the same may be raised again, of another frame"


def test_an_error_in_a_pending_result_names_its_frame() -> None:
    class Failing(Jittering):
        def submit(self, frame: Frame) -> Callable[[], Frame]:
            def broken() -> Frame:
                raise StageError("spilled paint")

            return broken if frame.index == 9 else super().submit(frame)

    with pytest.raises(StageError, match="frame 9: spilled paint"):
        Pump(Numbers(50), [Failing(3)], Collector()).run()


INTERRUPTED = """
import json, time
from velatura.runtime import Pump, open_source
from velatura.runtime.sinks import Sink

class Collector(Sink):
    uri = "collector"
    def __init__(self):
        self.seen = []
    def write(self, frame):
        time.sleep(0.002)
        self.seen.append(frame.index)
        if len(self.seen) == 20:
            print("ready", flush=True)
    def close(self): pass
    def abort(self): pass

def same(frame):
    return frame

sink = Collector()
stats = Pump(open_source("pattern:16x16?frames=1000000"), [same, same], sink).run()
ordered = sink.seen == list(range(stats.frames_in))
print(json.dumps([stats.interrupted, ordered, stats.frames_in, stats.frames_out]))
"""


def test_ctrl_c_finishes_what_is_on_its_way() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        interrupted, ordered, frames_in, frames_out = json.loads(process.communicate(timeout=30)[0])
    assert process.returncode == 0
    assert interrupted
    assert ordered, "every frame that was read is written, in order"
    assert 20 <= frames_out == frames_in < 10**6


IMPATIENT = """
import json, time
from velatura.runtime import Pump, open_source
from velatura.runtime.sinks import Sink

class Slow(Sink):
    uri = "slow"
    writing = False
    written = 0
    def write(self, frame):
        self.writing = True
        if not self.written:
            print("ready", flush=True)
        time.sleep(0.5)
        self.written += 1
        self.writing = False
    def close(self): pass
    def abort(self): pass

sink = Slow()
try:
    Pump(open_source("pattern:16x16?frames=1000000"), [lambda frame: frame], sink).run()
except KeyboardInterrupt:
    print(json.dumps([sink.writing, sink.written]), flush=True)
    time.sleep(0.7)
    print(json.dumps([sink.writing, sink.written]))
"""


def test_a_second_ctrl_c_drops_the_rest_but_leaves_nobody_at_work() -> None:
    """The caller closes the sink and the engines next: a thread inside them would crash the process."""
    with subprocess.Popen(
        [sys.executable, "-c", IMPATIENT], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        at_once, later = map(json.loads, process.communicate(timeout=30)[0].splitlines())
    assert not at_once[0]
    assert at_once == later
    assert at_once[1] < 4


def test_a_failing_progress_callback_ends_the_run() -> None:
    sink = Collector(before=lambda _: time.sleep(0.002))

    def fail(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Pump(Numbers(100_000), [same], sink).run(progress=fail, every=0.01)
    seen = len(sink.seen)
    time.sleep(0.05)
    assert len(sink.seen) == seen < 100_000


def test_stages_overlap() -> None:
    """Three parts that wait for each other, so that each frame needs all of them at work at once."""
    meeting = threading.Barrier(3)

    def meet(index: int, ahead: int) -> None:
        if ahead <= index < 8 + ahead:
            meeting.wait(20)

    def stage(ahead: int) -> Callable[[Frame], Frame]:
        def meeting_stage(frame: Frame) -> Frame:
            meet(frame.index, ahead)
            return frame

        return meeting_stage

    sink = Collector(before=lambda index: meet(index, 0))
    Pump(Numbers(10), [stage(2), stage(1)], sink).run()
    assert sink.seen == list(range(10))


def test_progress_is_reported_to_the_end() -> None:
    seen: list[int] = []

    def note(snapshot: object) -> None:
        seen.append(getattr(snapshot, "frames", -1))

    Pump(Numbers(30), [same], Collector(before=lambda _: time.sleep(0.002))).run(
        progress=note, every=0.01
    )
    assert seen == sorted(seen)
    assert seen[-1] == 30


def test_meter_percentiles() -> None:
    meter = Meter("m")
    values = np.random.default_rng(0).random(5000)
    for value in values:
        meter.add(value)
    timing = meter.timing()
    assert timing.count == meter.count == 5000
    assert timing.total == pytest.approx(values.sum())
    expected = np.percentile(values, [50, 95, 99, 99.9])
    assert [timing.p50, timing.p95, timing.p99, timing.p999] == pytest.approx(expected)
    assert Meter("none").timing().count == 0
