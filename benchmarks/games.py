"""Games: what the stage takes of a game's thread, and how its frames are paced, against what is asked.

`python -m benchmarks games` measures all parts in under three minutes. Each plays the game of
`velatura bench --game` in turn without the stage, with it off, and with it on.
"""

import os
import time
from typing import Any

import numpy as np
from velatura.benchmarks.game.pacing import DEFINITIONS
from velatura.benchmarks.game.report import GameJob, measure_game
from velatura.runtime.game import PostProcess

from .live import busy, scheduling
from .machine import spread

STYLE = "starry-night"
SIZE = (360, 640)
SECONDS = 12.0
"""Of each loop, in rounds of two seconds."""
ADDS, OFF_ADDS = 2.0, 0.05
"""Milliseconds that a stage that is pipelined, and one that is off, may add to a frame."""

PARTS: dict[str, GameJob] = {
    "pipelined_60_hz": GameJob(models=(STYLE,), size=SIZE, mode="pipelined", rate=60, seconds=SECONDS),
    "pipelined_30_hz": GameJob(models=(STYLE,), size=SIZE, mode="pipelined", rate=30, seconds=SECONDS),
    # The governor is given the time between two frames: as many fresh pictures as there are frames.
    "pipelined_60_hz_in_16_ms": GameJob(
        models=(STYLE,), size=SIZE, mode="pipelined", rate=60, seconds=8, budget_ms=16
    ),
    "inline_30_hz_in_24_ms": GameJob(models=(STYLE,), size=SIZE, rate=30, seconds=8, budget_ms=24),
}


def loops(job: GameJob) -> dict[str, Any]:
    """One report, and whether what is asked of it holds."""
    others = busy()
    load = round(os.getloadavg()[0], 2)
    _, report = measure_game(job, lambda _: None)
    for known in ("machine", "definitions"):
        del report[known]
    costs = report["cost_ms"]
    # An idle stage adds nothing but its call, which is less than the loops differ by themselves.
    held: dict[str, Any] = {"off_adds_ms": costs["off"]["call_p50"]["median"] <= OFF_ADDS}
    if job.mode == "pipelined":
        held["on_adds_ms"] = costs["on"]["busy_p50"]["median"] <= ADDS
    return {
        "cpu_busy_with_others_before": others,
        "load_average_before": load,
        "scheduling": scheduling(),
        "asked": {name: {"on_adds_ms": ADDS, "off_adds_ms": OFF_ADDS}[name] for name in held},
        "held": held,
        **report,
    }


def off(rounds: int = 5, frames: int = 120) -> dict[str, Any]:
    """Milliseconds of a call that is off: once in a sixtieth of a second, and again and again.

    Once in a frame, whatever the processor knew of it has been forgotten by the next call.
    """
    height, width = SIZE
    color = np.zeros((height, width, 4), np.uint8)
    motion, depth = np.zeros((height, width, 2), np.float32), np.ones((height, width), np.float32)
    found: dict[str, Any] = {"asked": {"off_adds_ms": OFF_ADDS}}
    with PostProcess(STYLE, (width, height), mode="pipelined") as post:
        post.off = True
        assert post(color, motion, depth) is color
        for name, pause in (("once_a_frame_ms", 1 / 60), ("in_a_row_ms", 0.0)):
            medians: list[float] = []
            for _ in range(rounds):
                times: list[float] = []
                for _ in range(frames):
                    if pause:
                        time.sleep(pause)
                        color += 1  # a game's own work goes through the caches
                    begin = time.perf_counter()
                    post(color, motion, depth)
                    times.append(time.perf_counter() - begin)
                medians.append(float(np.median(times)) * 1e3)
            found[name] = spread(medians)
    found["held"] = {"off_adds_ms": found["once_a_frame_ms"]["median"] <= OFF_ADDS}
    return found


def measure() -> dict[str, Any]:
    """All parts, one after another."""
    return {
        "definitions": DEFINITIONS,
        **{name: loops(job) for name, job in PARTS.items()},
        "off": off(),
    }
