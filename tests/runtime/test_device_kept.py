"""What engines on the simulated GPU leave for the next start, and engines that were built ahead."""

import json
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from velatura.runtime import BackendUnavailableError, EngineError
from velatura.runtime.backends import cuda as cuda_module
from velatura.runtime.backends import nvinfer
from velatura.runtime.backends.base import Options, sample_dtype
from velatura.runtime.backends.builder import BuildOptions, Plan, Profile, build
from velatura.runtime.backends.built import EngineFacts, open_built, save
from velatura.runtime.backends.graph import io_shape, wrap
from velatura.runtime.backends.model import Model
from velatura.runtime.backends.tiling import pad_for
from velatura.runtime.cache import EngineCache, digest_of
from velatura.runtime.machine import nvidia_problem

from . import simulated_rig
from .simulated_rig import SIZES, UPSCALE, Rig, assert_close, counted, expected, frames, zoo

rig, rigs = simulated_rig.rig, simulated_rig.rigs


# What is kept from one start to the next.


def test_an_engine_is_built_once(rig: Rig) -> None:
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, SIZES[UPSCALE])
    for _ in range(3):
        with rig.open(model) as engine:
            assert_close(engine.run(picture), expected(model, [picture])[0])
    assert rig.gpu.counts["builds"] == 1


def test_an_engine_is_built_again_for_another_gpu(rigs: Callable[..., Rig]) -> None:
    for rig in (rigs(), rigs(name="Another"), rigs(capability=120), rigs("rtx")):
        with rig.open(zoo(UPSCALE)) as engine:
            engine.prepare(32, 32)
        assert rig.gpu.counts["builds"] == 1


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_engine_is_built_again(rig: Rig, damage: str) -> None:
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, SIZES[UPSCALE])
    for turn in range(3):
        with rig.open(model) as engine:
            assert_close(engine.run(picture), expected(model, [picture])[0])
        entry = next(e for e in rig.cache.entries() if e.key["precision"] == "fp32")
        if turn == 0:
            data = entry.path.read_bytes()
            entry.path.write_bytes(data[:-9] if damage == "cut" else data[:-9] + b"\0" * 9)
    assert rig.gpu.counts["builds"] == 2


def test_an_engine_that_does_not_load_gives_the_librarys_words(rig: Rig) -> None:
    plan = Plan(b"no engine at all", None, 8, {})
    with rig.open(zoo(UPSCALE), plan=plan) as engine:
        with pytest.raises(EngineError, match="magic tag does not match") as caught:
            engine.prepare(32, 32)
        assert "velatura build" in str(caught.value)
    assert rig.gpu.leaks() == {}


def test_compiled_kernels_are_kept_by_rtx_alone(rig: Rig) -> None:
    compiled: list[int] = []
    for _ in range(2):
        with rig.open(zoo(UPSCALE)) as engine, counted(rig) as count:
            engine.run(frames(zoo(UPSCALE), 1, SIZES[UPSCALE])[0])
            compiled.append(count("compiled kernels"))
    kept = [entry.key["precision"] for entry in rig.cache.entries()]
    if rig.library.name == "rtx":
        assert compiled == [1, 0]
        assert sorted(kept) == ["fp32", "fp32-kernels"]
    else:
        assert compiled == [0, 0]
        assert kept == ["fp32"]


def test_kernels_that_the_library_refuses_are_compiled_anew(rigs: Callable[..., Rig]) -> None:
    rig = rigs("rtx")
    for turn in range(3):
        with rig.open(zoo(UPSCALE)) as engine, counted(rig) as count:
            engine.run(frames(zoo(UPSCALE), 1, SIZES[UPSCALE])[0])
            assert count("compiled kernels") == (1 if turn < 2 else 0)
        (entry,) = [e for e in rig.cache.entries() if e.key["precision"] == "fp32-kernels"]
        if turn == 0:
            rig.cache.put(entry.key, b"of another version")


def test_timings_are_kept_for_tensorrt_alone(rig: Rig) -> None:
    for height in (32, 40):
        with rig.open(zoo(UPSCALE)) as engine:
            engine.prepare(height, 32)
    found = [path.read_bytes() for path in rig.cache.folder.glob("*.timings")]
    if rig.library.name == "rtx":
        assert found == []
        assert rig.gpu.counts["timing caches"] == 0
    else:
        assert len(found) == 1
        assert found[0].startswith(b"timings of GPU")


@pytest.mark.parametrize("data", [b"rubbish", b"timings of Another: 3", None])
def test_timings_that_do_not_fit_are_begun_anew(rigs: Callable[..., Rig], data: bytes | None) -> None:
    """Cut, of another GPU, or a folder where the file should be."""
    rig = rigs()
    path = rig.cache.folder / f"tensorrt-{rig.library.version}.timings"
    path.mkdir() if data is None else path.write_bytes(data)
    with rig.open(zoo(UPSCALE)) as engine:
        engine.prepare(32, 32)
    assert rig.gpu.counts["builds"] == 1
    assert data is None or path.read_bytes().startswith(b"timings of GPU")


def test_without_a_cache_all_works_and_nothing_is_kept(rig: Rig) -> None:
    rig.cache = EngineCache.of_nothing()
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, SIZES[UPSCALE])
    for _ in range(2):
        with rig.open(model) as engine:
            assert_close(engine.run(picture), expected(model, [picture])[0])
    assert rig.gpu.counts["builds"] == 2


# Engines built ahead.


def planned(rig: Rig, model: Model, profile: Profile | None, *, bits: int = 8, **options: Any) -> bytes:
    pairs = (2,) if bits > 8 else ()
    return build(
        rig.library,
        wrap(model.proto, model.card, bits=bits, samples="bytes").SerializeToString(),
        shape=lambda height, width: (*io_shape(model.card, height, width), *pairs),
        profile=profile,
        options=BuildOptions(**options),
        progress=lambda _what, _done: None,
    ).engine


def facts_in(engine: bytes) -> dict[str, Any]:
    """What the simulated builder was told."""
    return json.loads(engine[32:].partition(b"\n")[0])


@pytest.mark.parametrize("bits", [8, 10])
def test_an_engine_of_many_sizes_takes_smaller_and_larger_frames_too(rig: Rig, bits: int) -> None:
    model = zoo(UPSCALE)
    profile = Profile((32, 32), (48, 64), (64, 80))
    engine_file = planned(rig, model, profile, bits=bits)
    with rig.open(model, plan=Plan(engine_file, profile, bits, {})) as engine:
        for size in ((48, 64), (64, 80), (9, 70), (100, 200), (30, 300)):
            (picture,) = frames(model, 1, size, bits)
            padded = pad_for(picture, multiple=1, at_least=profile.least)
            wanted = expected(model, [padded], bits)[0][: 2 * size[0], : 2 * size[1]]
            assert_close(engine.run(picture, bits), wanted)
        other = 18 - bits
        with pytest.raises(EngineError, match=f"{bits}-bit frames .* not for {other}-bit"):
            engine.run(np.zeros((48, 64), sample_dtype(other)), other)
    assert rig.gpu.counts["builds"] == 1


def test_an_engine_file_is_opened_and_run(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = zoo(UPSCALE), tmp_path / "upscale.engine"
    profile = Profile((32, 32), (48, 64), (64, 80))
    data = planned(rig, model, profile)
    facts = EngineFacts(
        library=rig.library.name,
        version=rig.library.version,
        capability=86,
        precision="fp32",
        bits=8,
        profile=profile,
        compatible=False,
        sha256=digest_of(data),
        card=model.card,
        report={},
    )
    save(path, data, facts)
    monkeypatch.setattr(nvinfer, "problem", lambda _name: None)
    monkeypatch.setattr(nvinfer, "load", lambda _name: rig.library)
    monkeypatch.setattr(cuda_module, "missing_package", lambda: None)
    monkeypatch.setattr(cuda_module, "load", lambda: rig.cuda)
    (picture,) = frames(model, 1, (48, 64))
    with open_built(path, Options(cache=rig.cache)) as engine:
        assert (engine.backend, engine.precision) == (rig.library.name, "fp32")
        assert_close(engine.run(picture), expected(model, [picture])[0])
    rig.gpu.capability = 120
    with pytest.raises(EngineError, match="this GPU has 120"):
        open_built(path, Options(cache=rig.cache))


@pytest.mark.parametrize("capability", [75, 86, 120])
def test_rtx_builds_for_the_gpu_that_is_there(rigs: Callable[..., Rig], capability: int) -> None:
    """What it builds when it is told nothing does not run on Turing."""
    rig, model = rigs("rtx", capability=capability), zoo(UPSCALE)
    (picture,) = frames(model, 1, SIZES[UPSCALE])
    with rig.open(model) as engine:
        assert_close(engine.run(picture), expected(model, [picture])[0])


def test_the_real_rtx_builds_in_an_engine_and_says_what_its_driver_lacks(
    rigs: Callable[..., Rig],
) -> None:
    """What the simulation cannot show: the engine's calls in their order, answered by the library."""
    if nvidia_problem() is None:
        pytest.skip("this machine has an NVIDIA driver")
    rig = rigs("rtx")
    try:
        rig.library = nvinfer.load("rtx")
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    words = "CUDA driver version is insufficient"
    with (
        rig.open(zoo(UPSCALE), precision="fp16", graphs=True) as engine,
        pytest.raises(EngineError, match=words),
    ):
        engine.prepare(64, 64)
    (entry,) = rig.cache.entries()
    assert entry.size > 50_000
    assert entry.key["recordable"]


def test_flags_of_compatibility(rigs: Callable[..., Rig]) -> None:
    profile = Profile((32, 32), (48, 64), (64, 80))
    for flavour in ("trt10", "trt11"):
        rig = rigs(flavour)
        plain = facts_in(planned(rig, zoo(UPSCALE), profile))
        assert (plain["flags"], plain["hardware"]) == ([], "NONE")
        for hardware, level in (("ampere", "AMPERE_PLUS"), ("same", "SAME_COMPUTE_CAPABILITY")):
            options = {"version_compatible": True, "hardware": hardware, "level": 5}
            facts = facts_in(planned(rig, zoo(UPSCALE), profile, **options))
            assert (facts["flags"], facts["hardware"]) == (["VERSION_COMPATIBLE"], level)
            assert facts["level"] == 5
        with pytest.raises(EngineError, match="this machine's GPU only"):
            planned(rig, zoo(UPSCALE), profile, capability=86)


def test_a_tensorrt_that_lacks_a_level_of_compatibility_says_so(rigs: Callable[..., Rig]) -> None:
    """TensorRT 10.7 and older know AMPERE_PLUS alone."""
    library = rigs().library
    library.api.HardwareCompatibilityLevel = IntEnum("Level", "NONE AMPERE_PLUS", start=0)
    with pytest.raises(EngineError, match=r"10\.16\.1\.11 has no hardware compatibility 'same'"):
        library.set_compatible(None, version=False, hardware="same")
