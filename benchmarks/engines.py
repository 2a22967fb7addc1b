"""Every backend and precision on the shipped models, in one run, as ratios of ONNX Runtime in FP32."""

import time
from typing import Any

from velatura.runtime import EngineError, open_engine, open_source
from velatura.runtime.backends import Hint
from velatura.runtime.stages import Neural

from .machine import spread

FRAMES = 40
ROUNDS = 5
VARIANTS = (
    ("ort", "fp32"), ("ort", "int8"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"),
)  # fmt: skip


def measure() -> dict[str, Any]:
    """Milliseconds per 640x360 frame, 4:2:0 in: conversions and chroma included."""
    with open_source("pattern:640x360?frames=8") as source:
        frames = list(source)
    results: dict[str, Any] = {"input": "640x360 8-bit 4:2:0, conversions included"}
    for model in ("upscale-2x", "starry-night"):
        rows: dict[str, Any] = {}
        for hint in ("throughput", "latency"):
            stages: dict[str, Neural] = {}
            for backend, precision in VARIANTS:
                try:
                    engine = open_engine(model, backend, precision=precision, hint=_hint(hint))
                except EngineError as error:
                    rows[f"{backend} {precision} {hint}"] = {"refused": str(error)}
                    continue
                stages[f"{backend} {precision} {hint}"] = Neural(engine)
            # Rounds are interleaved: a slow minute of the machine hits every variant alike.
            times: dict[str, list[float]] = {name: [] for name in stages}
            for turn in range(ROUNDS + 1):
                for name, stage in stages.items():
                    seconds = _milliseconds(stage, frames)
                    if turn:
                        times[name].append(seconds)
            for name, stage in stages.items():
                rows[name] = {"ms": spread(times[name])}
                stage.engine.close()
        base = rows["ort fp32 throughput"]["ms"]["median"]
        for row in rows.values():
            if "ms" in row:
                row["speedup_over_ort_fp32_throughput"] = round(base / row["ms"]["median"], 2)
        results[model] = rows
    return results


def _milliseconds(stage: Neural, frames: list[Any]) -> float:
    running: list[Any] = []
    start = time.perf_counter()
    for number in range(FRAMES):
        running.append(stage.submit(frames[number % len(frames)]))
        if len(running) >= stage.in_flight:
            running.pop(0)()
    for pending in running:
        pending()
    return (time.perf_counter() - start) / FRAMES * 1e3


def _hint(name: str) -> Hint:
    return "latency" if name == "latency" else "throughput"
