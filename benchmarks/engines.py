"""Every backend and precision that runs here on two shipped models, where their time goes, start-up."""

import subprocess
import sys
from collections import defaultdict
from typing import Any

import numpy as np
from velatura.runtime import CardFlags, open_engine
from velatura.runtime.backends import openvino
from velatura.runtime.backends.graph import macs_per_pixel, wrap
from velatura.runtime.backends.model import find_model, load_model
from velatura.runtime.backends.open import trial_runner
from velatura.runtime.jobs.bench import BenchJob, Peak, measure_model, measure_peak

from .machine import spread

MODELS = {"starry-night": (360, 640), "upscale-2x": (540, 960)}
ROUNDS = 3
SECONDS = 0.6
BASE = ("ort", "fp32")
STARTS = 5

START_UP = """
import time
from velatura.runtime import open_engine
start = time.perf_counter()
engine = open_engine({model!r})
engine.prepare({height}, {width})
print((time.perf_counter() - start) * 1e3)
"""


def measure() -> dict[str, Any]:
    """Frames per second in rounds that pass all variants in turn, as ratios of ONNX Runtime in FP32."""
    return {name: _model(name, size) for name, size in MODELS.items()}


def _model(name: str, size: tuple[int, int]) -> dict[str, Any]:
    # A slow minute of the machine hits every variant alike: each round measures them all.
    rounds = [
        measure_model(BenchJob(model=name, size=size, seconds=SECONDS), print_nothing)
        for _ in range(ROUNDS)
    ]
    rows: dict[str, Any] = {}
    fps: dict[tuple[str, str], list[float]] = defaultdict(list)
    for report in rounds:
        for row in report["rows"]:
            if "refused" not in row:
                fps[row["backend"], row["precision"]].append(row["throughput"]["fps"])
    for row in rounds[-1]["rows"]:
        key = (row["backend"], row["precision"])
        ratios = [a / b for a, b in zip(fps[key], fps[BASE], strict=True)]
        shares = [r["share_of_peak"] for r in _same(rounds, key)]
        rows[" ".join(key)] = {
            "fps": spread(fps[key]),
            "fps_frames": spread([r["frames"]["fps"] for r in _same(rounds, key)]),
            "latency_ms": spread([r["latency"]["median_ms"] for r in _same(rounds, key)]),
            "latency_p99_ms": spread([r["latency"]["p99_ms"] for r in _same(rounds, key)]),
            "speedup_over_ort_fp32": spread(ratios),
            "share_of_peak": spread(shares),
            "parity_db": row["parity_db"],
        }
    with open_engine(name) as engine:
        chosen = {"backend": engine.backend, "precision": engine.precision}
    return {
        "size": list(size),
        "peak": rounds[-1]["peak"],
        "rows": rows,
        "auto": chosen,
        "profile": _profile(name, size, chosen["precision"]),
        "open_with_warm_cache_ms": spread(_starts(name, size)),
    }


def print_nothing(what: str, done: float) -> None:
    """Nobody watches."""
    del what, done


def _same(rounds: list[dict[str, Any]], key: tuple[str, str]) -> list[dict[str, Any]]:
    return [row for r in rounds for row in r["rows"] if (row["backend"], row["precision"]) == key]


def _starts(name: str, size: tuple[int, int]) -> list[float]:
    """Milliseconds to an engine that is ready for its first frame, each in a new process."""
    code = START_UP.format(model=name, height=size[0], width=size[1])
    command = [sys.executable, "-c", code]
    times = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(STARTS + 1)
    ]
    return times[1:]


def _profile(name: str, size: tuple[int, int], precision: str) -> dict[str, Any]:
    """Where a frame's time goes, by OpenVINO's own counters, and what the convolutions alone reach."""
    model = load_model(
        find_model(name, precision="int8" if precision.startswith("int8") else "fp32"),
        flags=CardFlags(),
        trial=trial_runner(),
    )
    graph = wrap(model.proto, model.card, size=size).SerializeToString()
    properties = {**openvino._properties(precision, "latency"), "PERF_COUNT": True}
    core = openvino.core()
    compiled = core.compile_model(core.read_model(graph), "CPU", properties)
    request = compiled.create_infer_request()
    request.set_input_tensor(
        openvino.library().Tensor(np.zeros(tuple(compiled.input(0).shape), np.uint8))
    )
    spent: dict[str, list[float]] = defaultdict(list)
    for turn in range(25):
        request.infer()
        once: dict[str, float] = defaultdict(float)
        for node in request.get_profiling_info():
            kind = node.node_type
            if kind == "Convolution":
                precision_of = {"I8": "INT8", "bf16": "BF16", "f32": "FP32"}
                kind += " " + next(w for e, w in precision_of.items() if node.exec_type.endswith(e))
            once[kind] += node.real_time.total_seconds() * 1e3
        if turn >= 5:
            for kind, milliseconds in once.items():
                spent[kind].append(milliseconds)
    median = {kind: float(np.median(values)) for kind, values in spent.items()}
    total = sum(median.values())
    dequantised = {
        name for n in model.proto.graph.node if n.op_type == "DequantizeLinear" for name in n.output
    }
    pixels = size[0] * size[1]
    peak: Peak = measure_peak()
    convolutions: dict[str, Any] = {}
    for kind, milliseconds in median.items():
        if not kind.startswith("Convolution"):
            continue
        quantised = kind.endswith("INT8")
        macs = macs_per_pixel(
            model.proto, model.card, lambda node, q=quantised: (node.input[0] in dequantised) == q
        )
        rate = 2.0 * macs * pixels / milliseconds * 1e3
        possible = peak.matrix["int8" if quantised else "bf16" if kind.endswith("BF16") else "fp32"]
        convolutions[kind] = {
            "multiply_adds_per_pixel": round(macs),
            "operations_per_second": round(rate),
            "share_of_peak_in_that_precision": round(rate / possible, 3),
        }
    parts = sorted(median.items(), key=lambda part: -part[1])
    return {
        "precision": precision,
        "milliseconds": {kind: round(ms, 3) for kind, ms in parts if ms > 0.005},
        "total_ms": round(total, 3),
        "convolutions": convolutions,
    }
