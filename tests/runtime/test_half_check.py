"""FP16 on a GPU is taken where it was found to agree with FP32, once for each model and device."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from velatura.runtime import Engine, open_engine
from velatura.runtime.backends.identity import IdentityEngine
from velatura.runtime.backends.precision_choice import Agreement, agree
from velatura.runtime.frame import Array

from . import networks, simulated_rig
from .simulated_rig import UPSCALE, Rig, counted
from .test_rounding import DRIFT, LUMA, chain

rig, rigs, machine = simulated_rig.rig, simulated_rig.rigs, simulated_rig.machine

FITTING = (("Mul", "dim", 0.7),)
# 90,000 for white: what is brighter than 0.73 becomes infinite on the way.
GLARING = (("Mul", "far", 300.0), ("Mul", "farther", 300.0), ("Mul", "back", 0.7 / 90_000))
HEAVY = (("Mul", "far", 100_000.0), ("Mul", "back", 0.7 / 100_000))


def net(folder: Path, *steps: tuple[str, str, float], dtype: str = "float32") -> Path:
    proto = chain(*steps, dtype=dtype)
    replace(LUMA, dtype=dtype).write_to(proto)  # type: ignore[arg-type]
    return networks.write(proto, folder / "net.onnx")


def opened(rig: Rig, model: Path | str, precision: str = "auto") -> tuple[str, str, str]:
    """(backend, precision, notes) of the engine that is opened there, which runs."""
    with open_engine(model, precision=precision, cache=rig.cache) as engine:  # type: ignore[arg-type]
        engine.run(np.zeros((24, 32, 3)[: 2 if engine.card.input_channels == 1 else 3], np.uint8))
        return engine.backend, engine.precision, "; ".join(engine.notes)


def test_fp16_that_agrees_is_taken_and_checked_once(
    rig: Rig, tmp_path: Path, machine: Callable[[Rig], None]
) -> None:
    machine(rig)
    model = net(tmp_path, *FITTING)
    for turn in range(2):
        with counted(rig) as count:
            assert opened(rig, model)[:2] == (rig.library.name, "fp16")
            # Five pictures and the frame; then the frame alone.
            assert count("executions") == (6 if turn == 0 else 1)
    (entry,) = [e for e in rig.cache.entries() if e.key["precision"] == "parity"]
    assert {"graph", "library", "device"} <= set(entry.key)
    assert "agrees with fp32" not in opened(rig, model)[2]


def test_the_first_check_is_told(rig: Rig, tmp_path: Path, machine: Callable[[Rig], None]) -> None:
    machine(rig)
    assert "net runs in fp16, which agrees with fp32 (" in opened(rig, net(tmp_path, *FITTING))[2]


@pytest.mark.parametrize("change", ["model", "GPU", "library"])
def test_another_model_gpu_or_library_is_checked_anew(
    change: str, rigs: Callable[..., Rig], tmp_path: Path, machine: Callable[[Rig], None]
) -> None:
    first = rigs()
    machine(first)
    opened(first, net(tmp_path, *FITTING))
    second = rigs(name="Another") if change == "GPU" else rigs()
    if change == "library":
        second.library = replace(second.library, version="99.1.2.3")
    machine(second)
    other = (("Mul", "dim", 0.6),) if change == "model" else FITTING
    assert "agrees with fp32" in opened(second, net(tmp_path, *other))[2]


@pytest.mark.parametrize("steps", [DRIFT, GLARING])
def test_fp16_that_does_not_agree_is_not_taken_and_that_is_said_each_time(
    steps: tuple[tuple[str, str, float], ...],
    rig: Rig,
    tmp_path: Path,
    machine: Callable[[Rig], None],
) -> None:
    """Bits that are lost on every picture, and infinities that only a bright one brings."""
    machine(rig)
    model = net(tmp_path, *steps)
    for turn in range(2):
        with counted(rig) as count:
            backend, precision, notes = opened(rig, model)
            assert (backend, precision) == (rig.library.name, "fp32")
            assert "net runs in fp32: fp16 on this device does not agree with it" in notes
            assert count("executions") == (6 if turn == 0 else 1)
    assert opened(rig, model, "fp16")[1] == "fp16", "who asks for it by name gets it"


def test_what_cannot_be_half_runs_in_fp32_on_the_gpu(
    rig: Rig, tmp_path: Path, machine: Callable[[Rig], None]
) -> None:
    """Not on a CPU, because the GPU's library refuses half a weight."""
    machine(rig)
    backend, precision, notes = opened(rig, net(tmp_path, *HEAVY))
    assert (backend, precision) == (rig.library.name, "fp32")
    assert "could not be checked" in notes
    assert "beyond half precision" in notes


def test_a_model_that_is_half_itself_is_held_to_nothing(
    rig: Rig, tmp_path: Path, machine: Callable[[Rig], None]
) -> None:
    machine(rig)
    backend, precision, notes = opened(rig, net(tmp_path, *FITTING, dtype="float16"))
    assert (backend, precision, notes) == (rig.library.name, "fp16", "")


def test_a_model_of_the_zoo(rigs: Callable[..., Rig], machine: Callable[[Rig], None]) -> None:
    rig = rigs()
    machine(rig)
    assert opened(rig, UPSCALE)[:2] == ("tensorrt", "fp16")


class Spotted(IdentityEngine):
    """Turns one pixel over."""

    def submit(self, image: Array, bits: int = 8) -> Callable[[], Array]:
        result = super().submit(image, bits)().copy()
        result[0, 0] = 255 - result[0, 0]
        return lambda: result


def test_one_pixel_that_is_wrong_is_enough() -> None:
    full: Engine = IdentityEngine()
    assert agree(full, IdentityEngine()) == Agreement(99.0, 0)
    assert agree(full, IdentityEngine()).passes
    found = agree(full, Spotted())
    assert found.levels == 255
    assert found.db > 45, "the picture as a whole does not tell"
    assert not found.passes
