"""The filter of VapourSynth beside `velatura run`: the same frames, model and size, in frames a second.

VapourSynth's source draws the frames that `velatura run` draws, by the same code, at the same cost.
Runs alternate, and each ratio is of two that follow one another. It needs Python 3.12 and the extra
`[vapoursynth]`.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from itertools import chain, repeat
from typing import Any

import numpy as np
from velatura.runtime import Frame, open_source
from velatura.vapoursynth import apply

from .machine import spread

SIZE = (640, 360)
MODELS = {"upscale": "upscale-2x", "style": "starry-night"}
FRAMES = {"upscale": 200, "style": 100}
RUNS = 5
WANTED = 0.9


def measure() -> dict[str, Any]:
    """Rates of both, and their ratio; raises FileNotFoundError where VapourSynth is not installed."""
    try:
        core = import_module("vapoursynth").core
    except ModuleNotFoundError as error:
        raise FileNotFoundError("the extra [vapoursynth] is not installed") from error
    results: dict[str, Any] = {
        "size": f"{SIZE[0]}x{SIZE[1]}",
        "vapoursynth": str(core.core_version),
        "threads": core.num_threads,
        "wanted": WANTED,
    }
    for name, model in MODELS.items():
        pairs = [
            (run(model, FRAMES[name]), filtered(core, model, FRAMES[name])) for _ in range(RUNS + 1)
        ]
        pairs = pairs[1:]  # the first measures precisions and compiles
        results[name] = {
            "model": model,
            "frames": FRAMES[name],
            "run_fps": spread([first for first, _ in pairs]),
            "filter_fps": spread([second for _, second in pairs]),
            "ratio": spread([second / first for first, second in pairs]),
        }
    return results


def pattern(frames: int) -> str:
    """The source of both."""
    return f"pattern:{SIZE[0]}x{SIZE[1]}@30?frames={frames}"


def run(model: str, frames: int) -> float:
    """Frames per second of one `velatura run`."""
    command = [sys.executable, "-m", "velatura.runtime", "run", pattern(frames), "null:", "-m", model]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["fps"])


def filtered(core: Any, model: str, frames: int) -> float:
    """Frames per second of the filter, asked for as VapourSynth's own outputs ask."""
    with open_source(pattern(frames)) as source:
        made = apply(drawn(core, source, frames), model)
        start = time.perf_counter()
        count = sum(1 for _ in made.frames(close=True))
        return count / (time.perf_counter() - start)


def drawn(core: Any, source: Any, frames: int) -> Any:
    """A clip of the source's frames, in the order in which they are asked for."""
    vs = import_module("vapoursynth")
    blank = core.std.BlankClip(
        width=SIZE[0], height=SIZE[1], format=vs.YUV420P8, length=frames, keep=True
    )
    # VapourSynth asks for a frame anew if it has dropped it: then any will do.
    given: Iterator[Frame] = chain.from_iterable(iter(source) for _ in repeat(None))

    def draw(n: int, f: Any) -> Any:
        del n
        frame = f.copy()
        for i, plane in enumerate(next(given).planes):
            np.copyto(np.asarray(frame[i]), plane)
        return frame

    return blank.std.ModifyFrame(blank, draw).std.SetFrameProps(_Matrix=1, _Range=0)
