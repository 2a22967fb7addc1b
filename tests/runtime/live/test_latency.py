"""The reported latency is the true one: a clock drawn into the frames is read where they arrive."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from velatura.runtime.adaptive.processor import StagesProcessor
from velatura.runtime.frame import Array, Frame
from velatura.runtime.live import LivePump
from velatura.runtime.sinks import Sink
from velatura.runtime.sources import open_live_source

BITS = 20
WIDTH, HEIGHT = 320, 64
PERIOD = 1 / 30


def drawn(seconds: float) -> Array:
    """A picture whose stripes are the bits of a time in tenths of a millisecond."""
    code = round(seconds * 1e4) % (1 << BITS)
    bits = np.array([code >> bit & 1 for bit in range(BITS)], np.uint8)
    row = np.repeat(bits * 200 + 20, WIDTH // BITS)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)))


def read(pixels: Array) -> float:
    """The time that is drawn in it, in seconds, modulo 2**20 / 10,000."""
    middle = pixels[HEIGHT // 2, WIDTH // BITS // 2 :: WIDTH // BITS, 0]
    return sum(1 << bit for bit, value in enumerate(middle) if value > 120) / 1e4


class Reader(Sink):
    """Reads the clock in every frame as it comes, after taking its time over it."""

    uri = "reader:"

    def __init__(self, *, takes: float) -> None:
        self.takes = takes
        self.latencies: list[float] = []

    def write(self, frame: Frame) -> None:
        time.sleep(self.takes)
        true = time.monotonic() - read(frame.planes[0])
        self.latencies.append(true % ((1 << BITS) / 1e4))
        self.frames += 1

    def close(self) -> None:
        return None

    def abort(self) -> None:
        return None


@pytest.mark.parametrize(
    ("works", "takes"), [(0.0, 0.0), (0.015, 0.004), (0.05, 0.0), (0.0, 0.06)],
    ids=["quick", "busy", "overloaded", "slow-sink"],
)  # fmt: skip
def test_what_is_reported_is_what_a_clock_in_the_picture_says(works: float, takes: float) -> None:
    def camera() -> Iterator[Array]:
        begin = time.monotonic()
        for index in range(90):
            time.sleep(max(begin + index * PERIOD - time.monotonic(), 0))
            yield drawn(time.monotonic())

    def work(frame: Frame) -> Frame:
        time.sleep(works)
        return frame

    sink = Reader(takes=takes)
    with open_live_source(camera()) as source:
        stats = LivePump(source, StagesProcessor([work]), [sink], period=PERIOD).run()
    true = sorted(sink.latencies)
    assert len(true) == stats.latency.count > 20
    reported = stats.latency
    assert reported.p50 == pytest.approx(statistics.median(true), abs=0.004)
    assert reported.worst == pytest.approx(true[-1], abs=0.010)
    assert reported.mean == pytest.approx(statistics.fmean(true), abs=0.004)
    # Late frames are dropped, not queued: nobody waits for more than the work of two frames.
    assert true[-1] < 2 * (works + takes) + 2 * PERIOD + 0.1
    assert stats.captured == 90


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_ten_minutes_change_neither_memory_nor_latency(tmp_path: Path) -> None:
    """640x360 at 30 fps, styled, for as long as half a film; an hour with VELATURA_SOAK_MINUTES=60."""
    minutes = float(os.environ.get("VELATURA_SOAK_MINUTES", "10"))
    frames = round(minutes * 60 * 30)
    command = [
        sys.executable, "-m", "velatura.runtime", "live", f"pattern:640x360@30?frames={frames}",
        "null:", "-m", "starry-night", "--stats", "json",
    ]  # fmt: skip
    log = tmp_path / "stats"
    memory: list[int] = []
    with (
        log.open("w") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL) as process,
    ):
        while process.poll() is None:
            time.sleep(1.0)
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            except (OSError, IndexError):
                continue
            if pages:
                memory.append(pages * 4096)
    assert process.returncode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    summary = lines[-1]["summary"]
    third = len(memory) // 3
    assert third > minutes * 60 / 4
    growth = statistics.median(memory[-third:]) - statistics.median(memory[third : 2 * third])
    assert growth < 8 * 2**20, f"{growth / 2**20:.1f} MiB"
    shown = summary["outputs"][0]["shown"]
    # The source plays while the models are opened.
    assert summary["captured"] >= frames - 30 * 5
    assert shown > 0.95 * summary["captured"]
    # What the last third adds to the mean tells its own mean.
    stats = [line["stats"] for line in lines[:-1]]
    early, late = stats[len(stats) // 3], stats[-1]

    def total(one: dict[str, object]) -> tuple[float, int]:
        latency = one["outputs"][0]["latency"]  # type: ignore[index]
        return latency["mean_ms"] * latency["count"], latency["count"]

    (sum_early, n_early), (sum_late, n_late) = total(early), total(late)
    last = (sum_late - sum_early) / (n_late - n_early)
    assert last < 2 * sum_early / n_early + 5, "latency grows"
    assert summary["outputs"][0]["latency"]["p50_ms"] < 33.4
