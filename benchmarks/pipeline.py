"""File to file: frames per second, how well the parts overlap, memory, time to the first frame."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from velatura.runtime import Frame, VideoInfo, open_engine, open_sink, open_source
from velatura.runtime.stages import Neural

from .machine import repeat, spread

CLIP = Path(__file__).resolve().parents[1] / "samples" / "clip.mp4"
CHAINS = {
    "upscale": ("upscale-2x",),
    "style": ("starry-night",),
    "style_upscale": ("starry-night", "upscale-2x"),
}
RUNS = 5


def velatura(*arguments: str) -> tuple[float, dict[str, Any]]:
    """(wall seconds of the whole process, its --json report) of one `velatura run`."""
    command = [sys.executable, "-m", "velatura.runtime", "run", *arguments, "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, json.loads(done.stdout)


def measure() -> dict[str, Any]:
    """All figures of the sample clip."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        results: dict[str, Any] = {
            "clip": "samples/clip.mp4, 640x360, H.264",
            "encoder": "libx264 veryfast crf 18",
        }
        for name, models in CHAINS.items():
            results[name] = end_to_end(out, models)
        results["overlap"] = {
            "upscale": overlap(out, ("upscale-2x",), results["upscale"]),
            "style": overlap(out, ("starry-night",), results["style"]),
        }
        results["memory"] = memory(out)
        results["startup"] = startup(out)
        return results


def end_to_end(folder: Path, models: tuple[str, ...]) -> dict[str, Any]:
    """Decode, infer, encode, copy the audio, finish the file."""
    options = [option for name in models for option in ("-m", name)]
    reports: list[dict[str, Any]] = []

    def once() -> float:
        _, report = velatura(str(CLIP), str(folder / "out.mp4"), *options, "--overwrite")
        reports.append(report)
        return report["fps"]

    fps = repeat(once, RUNS)
    last = reports[-1]
    return {
        "models": last["models"],
        "frames": last["frames_out"],
        "fps": spread(fps),
        "wall_seconds": spread([r["seconds"] for r in reports[1:]]),
        "cpu_seconds": spread([r["cpu_seconds"] for r in reports[1:]]),
        "peak_memory_mib": spread([r["peak_memory_mib"] for r in reports[1:]]),
        "stages_ms": last["stages_ms"],
    }


def overlap(folder: Path, models: tuple[str, ...], whole: dict[str, Any]) -> dict[str, Any]:
    """The pump's wall time against each part alone, and against what the cores can do at all."""
    with open_source(CLIP) as source:
        frames, info = list(source), source.info
    decode = repeat(lambda: _decode(), RUNS)
    processed: list[Frame] = []
    infer = repeat(lambda: _infer(frames, models, processed), RUNS)
    encode = repeat(lambda: _encode(processed, info, folder / "encode.mp4"), RUNS)
    alone = {"decode": spread(decode), "inference": spread(infer), "encode": spread(encode)}
    slowest = max(part["median"] for part in alone.values())
    wall, cpu = whole["wall_seconds"]["median"], whole["cpu_seconds"]["median"]
    bound = max(slowest, cpu / (os.cpu_count() or 1))
    return {
        "alone_seconds": alone,
        "wall_over_slowest_part": round(wall / slowest, 3),
        "cores_busy": round(cpu / wall, 3),
        "wall_over_bound": round(wall / bound, 3),
        "bound": "the larger of the slowest part alone and all CPU seconds divided by the cores",
    }


def _decode() -> float:
    start = time.perf_counter()
    with open_source(CLIP) as source:
        for _ in source:
            pass
    return time.perf_counter() - start


def _infer(frames: list[Frame], models: tuple[str, ...], keep: list[Frame]) -> float:
    """Seconds for all frames through the models, kept in flight as the pump keeps them."""
    keep[:] = frames
    seconds = 0.0
    for name in models:
        with open_engine(name) as engine:
            stage = Neural(engine)
            stage(keep[0])
            start = time.perf_counter()
            keep[:] = _stream(stage, keep)
            seconds += time.perf_counter() - start
    return seconds


def _stream(stage: Neural, frames: list[Frame]) -> Iterator[Frame]:
    running: list[Any] = []
    for frame in frames:
        running.append(stage.submit(frame))
        if len(running) >= stage.in_flight:
            yield running.pop(0)()
    for pending in running:
        yield pending()


class _Like:
    """A source that is only described."""

    def __init__(self, info: VideoInfo) -> None:
        self.info = replace(info, audio=(), path=None)


def _encode(frames: list[Frame], info: VideoInfo, path: Path) -> float:
    start = time.perf_counter()
    with open_sink(path, like=_Like(info), overwrite=True) as sink:
        for frame in frames:
            sink.write(frame)
    return time.perf_counter() - start


def memory(folder: Path) -> dict[str, Any]:
    """Peak memory of the clip and of one ten times as long, upscaled to 720p."""
    long = folder / "long.mp4"
    _loop(CLIP, long, 10)
    found: dict[str, Any] = {}
    for name, clip in (("clip", CLIP), ("ten_times", long)):
        peaks: list[float] = []
        for _ in range(3):
            _, report = velatura(str(clip), str(folder / "m.mp4"), "-m", "upscale-2x", "--overwrite")
            peaks.append(report["peak_memory_mib"])
        found[f"{name}_mib"] = spread(peaks)
    found["growth"] = round(found["ten_times_mib"]["median"] / found["clip_mib"]["median"], 4)
    return found


def _loop(clip: Path, target: Path, times: int) -> None:
    """The clip repeated, encoded once."""
    with open_source(clip) as source:
        frames, info = list(source), source.info
    length = round(len(frames) / (info.rate * info.time_base))
    with open_sink(target, like=_Like(info)) as sink:
        for turn in range(times):
            for frame in frames:
                sink.write(replace(frame, pts=frame.pts + turn * length))


def startup(folder: Path) -> dict[str, Any]:
    """Wall time of whole processes: --help, and a run that ends after its first frame."""

    def help_time() -> float:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "velatura.runtime", "--help"], check=True, capture_output=True
        )
        return time.perf_counter() - start

    def first_frame(model: str) -> float:
        target = folder / "first.mp4"
        return velatura(str(CLIP), str(target), "-m", model, "--frames", "1", "--overwrite")[0]

    return {
        "help_seconds": spread(repeat(help_time, RUNS)),
        "first_frame_seconds": {
            name: spread(repeat(lambda name=name: first_frame(name), RUNS))
            for name in ("upscale-2x", "starry-night")
        },
    }
