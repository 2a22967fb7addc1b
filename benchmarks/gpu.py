"""On an NVIDIA GPU: our engines beside PyTorch on the same weights, at 1080p and 2160p, in one run.

Not run for the committed results yet: no GPU was at hand. `python -m benchmarks gpu` leaves itself out
where there is none.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from velatura.runtime import Engine, EngineError, open_engine
from velatura.runtime.backends import refusals
from velatura.runtime.backends.precision_choice import psnr, sample_picture
from velatura.runtime.machine import nvidia_problem
from velatura.runtime.zoo import zoo_models

from .as_torch import GraphModule
from .machine import spread

SIZES = ((1080, 1920), (2160, 3840))
BACKENDS = ("tensorrt", "rtx", "ort-tensorrt", "ort-rtx", "ort-cuda")
ROUNDS = 5
FRAMES = 60


def measure() -> dict[str, Any]:
    """Milliseconds a frame: with both copies over the bus, and on the device alone."""
    if nvidia_problem() is not None or not torch.cuda.is_available():
        raise FileNotFoundError(nvidia_problem() or "PyTorch sees no CUDA device")
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name, variants in zoo_models().items():
        results[name] = {
            f"{size[0]}x{size[1]}": compare(name, variants["fp32"], size) for size in SIZES
        }
    return results


def compare(name: str, path: Path, size: tuple[int, int], device: str = "cuda") -> dict[str, Any]:
    """All candidates on one model and size, measured in turn, round by round."""
    candidates: dict[str, Callable[[], None]] = {}
    refused: dict[str, str] = {}
    engines: list[Engine] = []
    usable = [backend for backend, reason in refusals().items() if reason is None]
    parity: dict[str, float] = {}
    with open_engine(path, "ort", precision="fp32") as engine:
        picture = sample_picture(*size, engine.card.input_channels)
        small = np.ascontiguousarray(picture[:256, :256])
        wanted = engine.run(small)
    for backend in (b for b in BACKENDS if b in usable):
        for graphs in (False, True) if backend in ("tensorrt", "rtx") else (False,):
            label = f"{backend}{' graphs' if graphs else ''}"
            try:
                engine = open_engine(name, backend, precision="fp16", cuda_graphs=graphs)
                parity[label] = round(psnr(wanted, engine.run(small)), 2)
                engine.prepare(*size)
            except EngineError as error:
                refused[label] = str(error)
                continue
            engines.append(engine)
            candidates[f"{label}, with copies"] = lambda e=engine: _stream(e, picture)
            if backend in ("tensorrt", "rtx") and not graphs:
                resident = torch.from_numpy(picture).to(device)
                candidates[f"{label}, on the device"] = lambda e=engine, r=resident: _stream(e, r)
    for label, module in torch_modules(path, device).items():
        candidates[f"{label}, with copies"] = lambda m=module: _torch(m, picture, device)
        still = torch.from_numpy(picture).to(device)
        candidates[f"{label}, on the device"] = lambda m=module, s=still: _torch(m, s, device)
    times: dict[str, list[float]] = {label: [] for label in candidates}
    for _ in range(ROUNDS):
        for label, run in candidates.items():
            times[label].append(_milliseconds(run, device))
    for engine in engines:
        engine.close()
    base = statistics.median(times["PyTorch eager FP16, with copies"])
    rows = {
        label: {"ms": spread(found), "speedup_over_eager": round(base / statistics.median(found), 3)}
        for label, found in times.items()
    }
    return {"rows": rows, "refused": refused, "parity_db": parity}


def torch_modules(path: Path, device: str) -> dict[str, Any]:
    """The model in PyTorch, eager and compiled, in FP16 where the device is a GPU, channels last."""
    half = torch.float16 if device == "cuda" else torch.float32
    eager = GraphModule(path).to(device, half).eval().to(memory_format=torch.channels_last)
    compiled = torch.compile(eager, mode="max-autotune" if device == "cuda" else "default")
    return {"PyTorch eager FP16": eager, "torch.compile FP16": compiled}


def _stream(engine: Engine, picture: Any) -> None:
    running: list[Any] = []
    for _ in range(FRAMES):
        running.append(engine.submit(picture))
        if len(running) >= engine.in_flight:
            running.pop(0)()
    for pending in running:
        pending()


@torch.inference_mode()
def _torch(module: Any, picture: Any, device: str) -> None:
    """Frames through PyTorch as a careful user would: page-locked copies, casts on the device."""
    host = isinstance(picture, np.ndarray)
    pinned = torch.from_numpy(picture).pin_memory() if host and device == "cuda" else None
    kind = next(iter(module.buffers())).dtype
    result = None
    for _ in range(FRAMES):
        frame = pinned.to(device, non_blocking=True) if pinned is not None else picture
        frame = torch.as_tensor(frame, device=device)
        planes = frame[None, None] if frame.ndim == 2 else frame.permute(2, 0, 1)[None]
        planes = planes.to(kind, memory_format=torch.channels_last) / 255
        output = module(planes).clamp(0, 1).mul(255).round().to(torch.uint8)
        result = output.to("cpu", non_blocking=True) if host else output
    if device == "cuda":
        torch.cuda.synchronize()
    del result


def _milliseconds(run: Callable[[], None], device: str) -> float:
    run()  # warm
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / FRAMES * 1e3
