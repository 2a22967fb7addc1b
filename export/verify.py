"""Parity: what a conversion costs, measured on pictures through the same engines that users run."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from ..runtime.backends import Engine, open_engine
from ..runtime.backends.half_emulation import RoundedEngine
from ..runtime.backends.model import load_model
from ..runtime.backends.open import trial_runner
from ..runtime.card import CardFlags
from ..training.data import Image
from ..training.metrics.pairs import benchmark_psnr
from ..training.metrics.psnr import decibels


def open_measured(path: Path, precision: str, backend: str = "auto") -> Engine:
    """A converted file as its parity is measured: with FP16, each tensor rounded to half.

    No backend on a CPU does that, see `RoundedGraph`; other precisions run on `backend`.
    """
    if precision == "fp16":
        return RoundedEngine(load_model(path, flags=CardFlags(), trial=trial_runner()))
    return open_engine(path, backend, precision="int8" if precision == "int8" else "fp32")


def refuse_overflow(engine: Engine) -> None:
    """Raise ValueError where a tensor left half's range on a picture that `engine` has run.

    A dot of infinity costs a picture few dB, and is seen all the same.
    """
    if isinstance(engine, RoundedEngine) and engine.overflow is not None:
        raise ValueError(f"FP16 overflows: {engine.overflow} becomes infinite on a photograph")


def parity_db(reference: Engine, other: Engine, images: Iterable[Image]) -> float:
    """PSNR in dB of `other`'s 8-bit output against `reference`'s, over all pixels of all images.

    Infinite when they agree bit for bit. Raises ValueError without images.
    """
    error = count = 0.0
    for image in images:
        difference = reference.run(image).astype(np.float64) - other.run(image).astype(np.float64)
        error += float(np.square(difference).sum())
        count += difference.size
    if not count:
        raise ValueError("parity needs at least one image")
    return decibels(error / count)


def runner(engine: Engine) -> Callable[[Image], Image]:
    """The engine as a function of 8-bit pictures."""
    return lambda picture: engine.run(np.ascontiguousarray(picture)).astype(np.uint8, copy=False)


def network_parity_db(net: torch.nn.Module, engine: Engine, images: Iterable[Image]) -> float:
    """PSNR in dB of the engine's 8-bit output against PyTorch's, of which `net` gives planes in 0..1;
    over all pictures, each as much as another, and 99 if they are equal."""
    errors: list[float] = []
    for image in images:
        with torch.no_grad():
            planes = torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1)[None].float() / 255.0
            output = net(planes).clamp(0, 1).mul(255).round()[0].permute(1, 2, 0).numpy()
        found = np.atleast_3d(engine.run(image)).astype(np.float64)
        errors.append(float(np.square(found - output).mean()))
    return round(min(99.0, decibels(sum(errors) / len(errors))), 2)


def upscaler_psnr(engine: Engine, folder: Path) -> float:
    """Mean Y-PSNR in dB over the standard pairs of a folder, of the engine's own 8-bit output."""
    luma = engine.card.input_colour == "luma"
    return float(np.mean(list(benchmark_psnr(runner(engine), folder, engine.card.scale, luma=luma))))
