"""Servers and clients of shared memory for the tests."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from velatura.runtime import DepthConvention, MotionConvention
from velatura.runtime.game.shm.frame_request import Conventions
from velatura.runtime.game.shm.segment import FOLDER, PREFIX

_COUNT = itertools.count()


def fresh_name() -> str:
    """One that no other test has, in whatever process it runs."""
    return f"test-{os.getpid()}-{next(_COUNT)}"


def leftovers() -> list[str]:
    """Segments of these tests that are there still."""
    return sorted(path.name for path in FOLDER.glob(f"{PREFIX}test-{os.getpid()}-*"))


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Noise, uint8 (height, width, 4)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)


def until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `what` gives once that is true; fails after a time that no test should need."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"{what} has not come true in {seconds} s"
        time.sleep(0.005)
    return found


class Inverting:
    """A post-process of a test: colours are turned over, alpha is kept; and what it was given."""

    def __init__(self, conventions: Conventions, size: tuple[int, int], scale: int = 1) -> None:
        self.conventions, self.size = conventions, size
        self.scale = scale
        self.last = SimpleNamespace(passed=False)
        self.rung = "full"
        self.given: list[dict[str, Any]] = []
        self.meant = conventions.motion, conventions.depth
        self.closed = False
        self.before: Callable[[], None] = lambda: None

    def __call__(
        self, color: Any, motion: Any = None, depth: Any = None, reset: bool = False, **more: Any
    ) -> Any:
        self.before()
        extras = {"motion": motion, "depth": depth, "reactive": more["reactive"]}
        kept: dict[str, Any] = {
            name: None if one is None else one.copy() for name, one in extras.items()
        }
        kept |= {"reset": reset, "jitter": more["jitter"], "shape": color.shape, "meant": self.meant}
        self.given.append(kept)
        out = more["out"]
        made = np.repeat(np.repeat(color, self.scale, 0), self.scale, 1)
        out[..., :3] = 255 - made[..., :3]
        out[..., 3] = made[..., 3]
        return out

    def interpret(self, motion: MotionConvention, depth: DepthConvention) -> None:
        self.meant = motion, depth

    def listen(self, tell: Callable[[str], None]) -> None:
        del tell

    def close(self) -> None:
        self.closed = True


def inverted(picture: np.ndarray) -> np.ndarray:
    """What `Inverting` makes of it."""
    return np.concatenate([255 - picture[..., :3], picture[..., 3:]], axis=2)


class Process:
    """`velatura serve` in a process of its own."""

    def __init__(self, name: str, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "velatura.runtime", "serve", "--shm", name, *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.said: list[str] = []
        self._threads = [
            threading.Thread(target=self._listen, args=(stream,), daemon=True)
            for stream in (self._process.stdout, self._process.stderr)
        ]
        for thread in self._threads:
            thread.start()
        until(lambda: self.ready or self._process.poll() is not None, 60)
        assert self.ready, self.said

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ready(self) -> bool:
        return any(line.startswith(("serving ", '{"ready"')) for line in self.said)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """As nothing can hinder."""
        self._process.kill()
        self._process.wait()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code, after that signal."""
        self._process.send_signal(number)
        code = self._process.wait(60)
        for thread in self._threads:
            thread.join()
        return code

    def files(self) -> int:
        """Open file descriptors."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def threads(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    def _listen(self, stream: Any) -> None:
        for line in stream:
            self.said.append(line.rstrip())
        stream.close()


@contextmanager
def serving(name: str, *options: str) -> Iterator[Process]:
    """A server process that is gone, and whose file is gone, afterwards."""
    process = Process(name, *options)
    try:
        yield process
    finally:
        if process.running:
            process.stop()
