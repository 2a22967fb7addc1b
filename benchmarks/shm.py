"""Frames through another process: what a round trip costs, by shared memory and the Python client.

The server is `velatura serve` in a process of its own. Times are of one call, from the frame in the
game's memory to its result: `view`, where that lies in shared memory (one copy in), `copied`, where it
is copied back (one in, one out), and `in place`, where the game draws into shared memory (none).
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from velatura.runtime.game import Client

MEDIAN_BOUND, P99_BOUND = 3.0, 8.0
"""Milliseconds, for 1280x720 through the identity."""
LARGE, SMALL = (1280, 720), (640, 360)
WARM, ROUNDS = 100, 1500
STYLED = 200
PAUSE = 0.002
"""Seconds between two frames, as a game has other things to do."""
OPEN = 120.0
"""Seconds in which models are expected to be open."""


def measure() -> dict[str, Any]:
    """Round trips of each kind, in milliseconds; raises RuntimeError when the server does not come."""
    with served("identity") as client:
        identity = round_trips(client, LARGE, ROUNDS)
        motion = with_motion(client, LARGE, ROUNDS // 3)
    with served("starry-night", "--stabilize", "0") as client:
        frame = np.zeros((SMALL[1], SMALL[0], 4), np.uint8)
        end = time.monotonic() + OPEN
        while client.status != "done":
            client(frame)
            if time.monotonic() > end:
                raise RuntimeError(f"starry-night is not open after {OPEN:.0f} s: {client.trouble}")
            time.sleep(0.02)
        styled = round_trips(client, SMALL, STYLED, warm=20, ways=("copied",))
    return {
        "bound_ms": {"median": MEDIAN_BOUND, "p99": P99_BOUND},
        "identity 1280x720 RGBA": identity,
        "identity 1280x720 RGBA with motion and depth": motion,
        "starry-night 640x360 RGBA": styled,
        "holds": identity["copied"]["p50_ms"] < MEDIAN_BOUND
        and identity["copied"]["p99_ms"] < P99_BOUND,
    }


@contextmanager
def served(model: str, *options: str) -> Iterator[Client]:
    """A client of a new server."""
    name = f"benchmark-{model}"
    command = [sys.executable, "-m", "velatura.runtime", "serve", "--shm", name, "-m", model, *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        if not server.stdout.readline().startswith("serving"):
            raise RuntimeError(f"`{' '.join(command[1:])}` did not begin: exit code {server.wait()}")
        with Client(name, deadline_ms=1000.0, require=True) as client:
            yield client
    finally:
        server.terminate()
        server.communicate()


def round_trips(
    client: Client,
    size: tuple[int, int],
    rounds: int,
    *,
    warm: int = WARM,
    ways: tuple[str, ...] = ("view", "copied", "in place"),
) -> dict[str, Any]:
    """Each way in turn, frame by frame, so that what disturbs one disturbs all."""
    width, height = size
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (height, width, 4), np.uint8) for _ in range(4)]
    # Touched before: a page fault is not part of a round trip.
    out = np.zeros_like(frames[0])
    todo: dict[str, tuple[int, Callable[[int], object]]] = {
        "view": (1, lambda turn: client(frames[turn % 4])),
        "copied": (2, lambda turn: client(frames[turn % 4], out=out)),
        "in place": (0, lambda turn: client(client.buffer(width, height))),  # noqa: ARG005
    }
    found: dict[str, list[float]] = {way: [] for way in ways}
    before = client.counts.done
    for turn in range(warm + rounds):
        for way in ways:
            begin = time.perf_counter()
            todo[way][1](turn)
            if turn >= warm:
                found[way].append((time.perf_counter() - begin) * 1e3)
            time.sleep(PAUSE)
    done = client.counts.done - before
    return {
        **{way: {"copies": todo[way][0], **percentiles(times)} for way, times in found.items()},
        "frames": len(ways) * (warm + rounds),
        "done": done,
    }


def with_motion(client: Client, size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """With everything that an engine has to give."""
    width, height = size
    frame = np.random.default_rng(1).integers(0, 256, (height, width, 4), np.uint8)
    motion, depth = np.ones((height, width, 2), np.float32), np.ones((height, width), np.float32)
    times: list[float] = []
    for turn in range(WARM + rounds):
        begin = time.perf_counter()
        client(frame, motion, depth)
        if turn >= WARM:
            times.append((time.perf_counter() - begin) * 1e3)
        time.sleep(PAUSE)
    return {"view": percentiles(times)}


def percentiles(times: list[float]) -> dict[str, float | int]:
    """Of milliseconds."""
    p50, p95, p99 = (round(float(value), 3) for value in np.percentile(times, [50, 95, 99]))
    return {"count": len(times), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99,
            "worst_ms": round(max(times), 3)}  # fmt: skip
