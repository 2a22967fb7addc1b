"""Live: 640x360 from a paced source in memory to nowhere, restyled, against what is promised.

`python -m benchmarks live` measures all parts in three minutes; `python -m benchmarks.live --minutes 5`
repeats the first one for so long and adds it to results/live.json, `--parts NAME` some of the others.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from velatura.runtime.adaptive.ladder_processor import LadderProcessor, open_processor
from velatura.runtime.frame import Frame
from velatura.runtime.live import LivePump
from velatura.runtime.sinks import Sink
from velatura.runtime.sources import Source
from velatura.runtime.sources.pattern import PatternSource

from .machine import facts

STYLE = "starry-night"
SIZE = "640x360"
RESULT = Path(__file__).with_name("results") / "live.json"
SECONDS = 60.0
COUNTS = ("captured", "processed", "passed", "repeated", "dropped", "late")
HOG = (15.0, 35.0, 60.0)
"""When the hog begins and ends, and when the run does."""


class Paced(Source):
    """The pattern's frames, made beforehand, round and round at its rate."""

    def __init__(self, rate: int, seconds: float) -> None:
        pattern = PatternSource(f"pattern:{SIZE}@{rate}?frames=60")
        self.uri, self.info = pattern.uri, pattern.info
        self._frames = list(pattern)
        self._count = int(rate * seconds)
        self._open = True

    def __iter__(self) -> Iterator[Frame]:
        begin, period = time.monotonic(), float(1 / self.info.rate)
        for k in range(self._count):
            wait = begin + k * period - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            if not self._open:
                return
            # The time at which it was due: a source that wakes late is late.
            due = begin + k * period
            yield replace(self._frames[k % len(self._frames)], pts=k, index=k, captured=due)

    def close(self) -> None:
        self._open = False


class Nowhere(Sink):
    """Notes when each frame came, how late it was, and on which rung it was made."""

    uri = "null:"

    def __init__(self, processor: LadderProcessor) -> None:
        self.processor = processor
        self.begin = time.monotonic()
        self.seen: list[tuple[float, float, int]] = []

    def write(self, frame: Frame) -> None:
        now = time.monotonic()
        names = [rung.name for rung in self.processor.rungs]
        rung = self.processor.rung
        at = names.index(rung) if rung in names else len(names) - 1
        self.seen.append((now - self.begin, now - (frame.captured or now), at))

    def close(self) -> None:
        return None

    def abort(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Course:
    """Seconds since the beginning, latency in seconds and rung of each frame that was shown."""

    at: "np.ndarray[Any, np.dtype[np.float64]]"
    latency: "np.ndarray[Any, np.dtype[np.float64]]"
    rung: "np.ndarray[Any, np.dtype[np.float64]]"
    deadline: float

    def percentile(self, part: float, begin: float, end: float) -> float:
        """Of latencies in that time, in milliseconds."""
        found = self.latency[(self.at >= begin) & (self.at < end)]
        return round(float(np.quantile(found, part)) * 1e3, 2) if len(found) else 0.0

    def late(self, begin: float, end: float) -> float:
        """The part of the frames of that time that took longer than the deadline."""
        found = self.latency[(self.at >= begin) & (self.at < end)]
        return round(float((found > self.deadline).mean()), 4) if len(found) else 0.0

    def held_after(self, begin: float, end: float) -> float:
        """Seconds after which no half second had more than one late frame in ten."""
        last = begin
        for start in np.arange(begin, end, 0.25):
            inside = (self.at >= start) & (self.at < start + 0.5)
            if inside.any() and (self.latency[inside] > self.deadline).mean() > 0.1:
                last = start + 0.5
        return round(float(last - begin), 2)

    def back_after(self, begin: float, rung: int) -> float | None:
        """Seconds until a frame was made on that rung or a better one."""
        found = self.at[(self.at >= begin) & (self.rung <= rung)]
        return round(float(found[0] - begin), 2) if len(found) else None

    def rung_at(self, when: float) -> int:
        """The rung that most frames of the second before had."""
        found = self.rung[(self.at >= when - 1) & (self.at < when)].astype(int)
        return int(np.bincount(found).argmax()) if len(found) else 0


def session(
    rate: int, seconds: float, *, hog: tuple[float, float] | None = None
) -> tuple[dict[str, Any], Course]:
    """One run; its statistics, and its course."""
    others = busy()
    begin = time.perf_counter()
    source = Paced(rate, seconds)
    processor = open_processor([STYLE], info=source.info)
    opening = time.perf_counter() - begin
    sink = Nowhere(processor)
    pump = LivePump(source, processor, [sink])
    with hogs(hog):
        sink.begin = time.monotonic()
        stats = pump.run().to_json()
    processor.close()
    at, latency, rung = np.array(sink.seen).T
    course = Course(at, latency, rung, processor.deadline)
    output = stats["outputs"][0]
    found = {
        "cpu_busy_with_others_before": others,
        "load_average_before": round(os.getloadavg()[0], 2),
        "scheduling": scheduling(),
        "opened_and_measured_s": round(opening, 2),
        "rungs_ms": {one.name: round(one.cost * 1e3, 2) for one in processor.rungs},
        "offered_fps": rate,
        "deadline_ms": round(processor.deadline * 1e3, 2),
        **{name: stats[name] for name in COUNTS},
        "late_part": round(stats["late"] / max(output["shown"], 1), 4),
        "latency": output["latency"],
        "fps": output["fps"],
        "low_1_percent_fps": output["low_1_percent_fps"],
        "frames_on_rungs": {
            one.name: int((rung == i).sum()) for i, one in enumerate(processor.rungs)
        },
        "steps": [event for event in stats["events"] if " -> " in event["text"]],
    }  # fmt: skip
    return found, course


def steady(seconds: float = SECONDS) -> dict[str, Any]:
    """30 frames a second, which the best rung should have."""
    found, _ = session(30, seconds)
    found["promised"] = {"dropped": 0, "p99_ms": 50, "low_1_percent_fps": 27}
    return found


def pressed(seconds: float = 30.0) -> dict[str, Any]:
    """60 frames a second."""
    found, course = session(60, seconds)
    return {
        **found,
        "promised": {"held_after_s": 3},
        "held_after_s": course.held_after(0, seconds),
        "late_part_after_3_s": course.late(3, seconds),
        "p99_after_3_s_ms": course.percentile(0.99, 3, seconds),
        "rung_at_the_end": list(found["rungs_ms"])[course.rung_at(seconds)],
    }


def beside_a_hog() -> dict[str, Any]:
    """As many busy loops as there are cores, begun and ended in the middle of a run."""
    begin, end, seconds = HOG
    found, course = session(30, seconds, hog=(begin, end))
    names = list(found["rungs_ms"])
    before = course.rung_at(begin)
    return {
        **found,
        "promised": {"held_after_s": 3, "quality_back_after_s": 10},
        "hog_s": [begin, end],
        "p99_before_ms": course.percentile(0.99, 3, begin),
        "held_after_s": course.held_after(begin, end),
        "p99_from_3_s_on_ms": course.percentile(0.99, begin + 3, end),
        "late_part_from_3_s_on": course.late(begin + 3, end),
        "rung_before": names[before],
        "rung_beside": names[course.rung_at(end)],
        "quality_back_after_s": course.back_after(end, before),
        "rung_at_the_end": names[course.rung_at(seconds)],
    }


def two_at_once(seconds: float = 20.0) -> dict[str, Any]:
    """Two processes, each with 30 frames a second."""
    command = [sys.executable, "-m", "benchmarks.live", "--session", str(seconds)]
    root = Path(__file__).resolve().parents[1]
    running = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) for _ in range(2)]
    return {f"instance_{i}": json.loads(one.communicate()[0]) for i, one in enumerate(running)}


def off() -> dict[str, Any]:
    """Microseconds that `process` takes while the models are off: of a style, and of an upscaler."""
    found: dict[str, Any] = {}
    source = Paced(30, 1)
    frame = next(iter(source))
    for model in (STYLE, "upscale-2x"):
        processor = open_processor([model], info=source.info)
        processor.off = True
        times: list[float] = []
        for _ in range(500):
            begin = time.perf_counter()
            made = processor.process(frame)
            times.append(time.perf_counter() - begin)
        found[model] = {
            "median_us": round(float(np.median(times)) * 1e6, 1),
            "p99_us": round(float(np.quantile(times, 0.99)) * 1e6, 1),
            "same_frame": made.frame is frame,
        }
        processor.close()
    return found


def measure() -> dict[str, Any]:
    """All parts, one after another."""
    kept = {name: part for name, part in earlier().items() if name.startswith("steady_for_")}
    return {**{name: part() for name, part in PARTS.items()}, **kept}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "steady": steady,
    "pressed": pressed,
    "beside_a_hog": beside_a_hog,
    "two_at_once": two_at_once,
    "off": off,
}


def earlier() -> dict[str, Any]:
    """What the file holds, if there is one."""
    return json.loads(RESULT.read_text()) if RESULT.exists() else {}


@contextmanager
def hogs(when: tuple[float, float] | None) -> Iterator[None]:
    """Busy loops, one for each core, between two times from now on, in seconds."""
    if when is None:
        yield
        return
    code = (
        f"import time\nb = time.monotonic()\ntime.sleep({when[0]})\n"
        f"while time.monotonic() < b + {when[1]}: pass"
    )
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def busy(seconds: float = 1.0) -> float | None:
    """The part of all cores that is at work while this process sleeps; None where it cannot be read."""
    path = Path("/proc/stat")
    if not path.exists():
        return None

    def counts() -> tuple[int, int]:
        ticks = [int(word) for word in path.read_text().split("\n", 1)[0].split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]

    total, idle = counts()
    time.sleep(seconds)
    later, later_idle = counts()
    return round(1 - (later_idle - idle) / max(later - total, 1), 3)


def scheduling() -> str:
    """How this process stands against the machine's other work; a lower nice goes before it."""
    if not hasattr(os, "sched_getscheduler"):
        return "unknown"
    policy = {os.SCHED_OTHER: "shared", os.SCHED_RR: "before all others"}
    path = Path("/proc/self/autogroup")
    group = path.read_text().strip().partition(" ")[2] if path.exists() else ""
    return f"{policy.get(os.sched_getscheduler(0), 'other')}, {group}".rstrip(", ")


def main() -> int:
    """A session for `two_at_once`, or the long run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--session", type=float)
    chosen = parser.parse_args()
    if chosen.session is not None:
        found, course = session(30, chosen.session)
        found["late_part_after_3_s"] = course.late(3, chosen.session)
        sys.stdout.write(json.dumps(found))
        return 0
    if chosen.minutes is None and not chosen.parts:
        parser.error("--minutes or --parts, or `python -m benchmarks live` for all parts")
    found = {"machine": facts(), **earlier()}
    for name in chosen.parts:
        found[name] = PARTS[name]()
    if chosen.minutes is not None:
        found[f"steady_for_{chosen.minutes:g}_minutes"] = steady(chosen.minutes * 60)
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(f"{RESULT}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
