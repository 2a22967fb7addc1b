"""A machine with a simulated GPU and one of the libraries, and what its engines are compared with.

Test modules that want the fixtures name them: `rig, rigs = simulated_rig.rig, simulated_rig.rigs`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from velatura.runtime import CardFlags
from velatura.runtime.backends.base import Options
from velatura.runtime.backends.model import Model, load_model
from velatura.runtime.backends.nvidia import cuda as cuda_module
from velatura.runtime.backends.nvidia import library as nvidia_library
from velatura.runtime.backends.nvidia.builder import Plan
from velatura.runtime.backends.nvidia.cuda import Cuda
from velatura.runtime.backends.nvidia.engine import DeviceEngine
from velatura.runtime.backends.open import find_backend, trial_runner
from velatura.runtime.backends.precision_choice import sample_picture
from velatura.runtime.cache import EngineCache
from velatura.runtime.zoo import zoo_models

from .simulated import Gpu
from .simulated_builder import FLAVOURS, VERSIONS, Flavour
from .simulated_cuda import Runtime
from .simulated_tensorrt import tensorrt

WAITS = ("cudaStreamSynchronize", "cudaMemcpy")
"""What a frame must not wait by."""
ALLOCATIONS = ("cudaMalloc", "cudaHostAlloc", "cudaFree", "cudaFreeHost")


@dataclass
class Rig:
    """A simulated machine with one of the libraries."""

    gpu: Gpu
    library: nvidia_library.Library
    cuda: Cuda
    cache: EngineCache

    def open(
        self,
        model: Model,
        *,
        precision: str = "fp32",
        hint: Any = "throughput",
        graphs: bool = False,
        plan: Plan | None = None,
        progress: Callable[[str, float], None] = lambda _what, _done: None,
    ) -> DeviceEngine:
        options = Options(hint=hint, cache=self.cache, progress=progress, cuda_graphs=graphs)
        return DeviceEngine(
            model,
            library=self.library,
            cuda=self.cuda,
            precision=precision,
            options=options,
            plan=plan,
        )


def make_rig(flavour: Flavour, folder: Path, **machine: Any) -> Rig:
    gpu = Gpu(**machine)
    name: nvidia_library.Name = "rtx" if flavour == "rtx" else "tensorrt"
    library = nvidia_library.Library(name, tensorrt(gpu, flavour), VERSIONS[flavour])
    return Rig(gpu, library, Cuda(Runtime(gpu)), EngineCache(folder))


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes machines; in the end none may have seen a fault."""
    made: list[Rig] = []

    def make(flavour: Flavour = "trt10", **machine: Any) -> Rig:
        made.append(make_rig(flavour, tmp_path / "cache", **machine))
        return made[-1]

    yield make
    for rig in made:
        rig.gpu.close()
        assert rig.gpu.faults == []


@pytest.fixture(params=FLAVOURS)
def rig(request: pytest.FixtureRequest, rigs: Callable[..., Rig]) -> Rig:
    return rigs(request.param)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rig], None]:
    """Makes a simulated machine the one that everything runs on, its library the only one for GPUs."""

    def use(rig: Rig) -> None:
        reason = "another library is on this machine"
        monkeypatch.setattr(
            nvidia_library, "problem", lambda name: None if name == rig.library.name else reason
        )
        monkeypatch.setattr(nvidia_library, "load", lambda _name: rig.library)
        monkeypatch.setattr(cuda_module, "missing_package", lambda: None)
        monkeypatch.setattr(cuda_module, "load", lambda: rig.cuda)

    return use


@cache
def zoo(name: str) -> Model:
    return load_model(zoo_models()[name]["fp32"], flags=CardFlags(), trial=trial_runner())


UPSCALE, STYLE = "upscale-2x", "starry-night"
SIZES = {UPSCALE: (40, 64), STYLE: (56, 72)}


def frames(model: Model, count: int, size: tuple[int, int], bits: int = 8) -> list[np.ndarray]:
    """Different pictures with edges and noise."""
    whole = sample_picture(size[0] + 3 * count, size[1], model.card.input_channels, bits)
    return [np.ascontiguousarray(whole[3 * turn :][: size[0]]) for turn in range(count)]


def expected(model: Model, pictures: list[np.ndarray], bits: int = 8) -> list[np.ndarray]:
    """By ONNX Runtime's own backend."""
    options = Options(hint="latency", cache=EngineCache.of_nothing())
    with find_backend("ort").open(model, precision="fp32", options=options) as engine:
        return [engine.run(picture, bits).copy() for picture in pictures]


def assert_close(found: Any, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    difference = int(np.abs(found.astype(int) - wanted.astype(int)).max())
    assert difference <= 1


@contextmanager
def counted(rig: Rig) -> Iterator[Callable[[str], int]]:
    """How often each thing happened since."""
    before = rig.gpu.counts.copy()
    yield lambda name: rig.gpu.counts[name] - before[name]
