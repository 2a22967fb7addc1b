"""What engines on the simulated GPU leave for the next start, and engines that were built ahead."""

import json
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from velatura.runtime import BackendUnavailableError, EngineError
from velatura.runtime.backends.base import Options, sample_dtype
from velatura.runtime.backends.graph import io_shape, wrap
from velatura.runtime.backends.model import Model
from velatura.runtime.backends.nvidia import library as nvidia_library
from velatura.runtime.backends.nvidia.builder import BuildOptions, Plan, Profile, build
from velatura.runtime.backends.nvidia.engine_file import SUFFIX, EngineFacts, open_built, save
from velatura.runtime.backends.shape_compiled import pad_for
from velatura.runtime.cache import EngineCache, digest_of
from velatura.runtime.errors import OutOfMemoryError
from velatura.runtime.jobs.engines import BuildJob, run_build
from velatura.runtime.machine import nvidia_problem

from . import simulated_rig
from .simulated_builder import Flavour
from .simulated_rig import SIZES, UPSCALE, Rig, assert_close, counted, expected, frames, zoo

rig, rigs, machine = simulated_rig.rig, simulated_rig.rigs, simulated_rig.machine


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


def test_a_kept_engine_that_the_library_refuses_is_built_again(rig: Rig) -> None:
    """It is whole and of this key, so that no checksum tells: else each start would end with it."""
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, SIZES[UPSCALE])
    for turn in range(3):
        with rig.open(model) as engine:
            assert_close(engine.run(picture), expected(model, [picture])[0])
            said = [note for note in engine.notes if "built again" in note]
            assert len(said) == (1 if turn == 1 else 0)
            assert turn != 1 or "magic tag does not match" in said[0]
        (entry,) = [e for e in rig.cache.entries() if e.key["precision"] == "fp32"]
        if turn == 0:
            rig.cache.put(entry.key, b"no engine at all, but with a checksum of its own")
    assert rig.gpu.counts["builds"] == 2


def test_a_kept_engine_for_which_there_is_no_memory_stays(rig: Rig) -> None:
    with rig.open(zoo(UPSCALE)) as engine:
        engine.prepare(32, 32)
    with rig.open(zoo(UPSCALE)) as engine:
        limit, rig.gpu.limit = rig.gpu.limit, 0
        with pytest.raises(OutOfMemoryError):
            engine.prepare(32, 32)
        rig.gpu.limit = limit
        engine.prepare(32, 32)
        assert engine.notes == ()
    assert rig.gpu.counts["builds"] == 1


def test_an_engine_of_another_version_of_the_library_is_not_taken(rig: Rig) -> None:
    """The bindings may stay as they are when the library below them is another."""
    for version in (rig.library.version, "99.1.2.3", "99.1.2.3"):
        rig.library = replace(rig.library, version=version)
        with rig.open(zoo(UPSCALE)) as engine:
            engine.prepare(32, 32)
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
    rig: Rig, tmp_path: Path, machine: Callable[[Rig], None]
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
        sha256=digest_of(data),
        card=model.card,
        report={},
    )
    save(path, data, facts)
    machine(rig)
    (picture,) = frames(model, 1, (48, 64))
    with open_built(path, Options(cache=rig.cache)) as engine:
        assert (engine.backend, engine.precision) == (rig.library.name, "fp32")
        assert_close(engine.run(picture), expected(model, [picture])[0])
    rig.gpu.capability = 120
    with pytest.raises(EngineError, match="this GPU has 120"):
        open_built(path, Options(cache=rig.cache))


ANY = Profile((32, 32), (48, 64), (64, 80))


def built_file(rig: Rig, folder: Path, **options: Any) -> Path:
    """An engine file of `velatura build --target tensorrt` on that machine, which is the one in use."""
    run_build(
        BuildJob(
            model=UPSCALE, target="tensorrt", profile=ANY, precision="fp32", out=folder, **options
        ),
        as_json=True,
    )
    return folder / f"{UPSCALE}.tensorrt-sm{rig.gpu.capability}{SUFFIX}"


def run_file(path: Path, rig: Rig) -> None:
    (picture,) = frames(zoo(UPSCALE), 1, (48, 64))
    with open_built(path, Options(cache=rig.cache)) as engine:
        assert_close(engine.run(picture), expected(zoo(UPSCALE), [picture])[0])


@pytest.mark.parametrize("later", ["trt10", "trt11"])
def test_a_version_compatible_file_is_run_by_its_own_version_and_by_later_ones(
    later: Flavour, rigs: Callable[..., Rig], tmp_path: Path, machine: Callable[[Rig], None]
) -> None:
    """Such engines bring code for the host, which the library refuses unless it is allowed."""
    first = rigs("trt10")
    machine(first)
    path = built_file(first, tmp_path, version_compatible=True)
    second = rigs(later)
    machine(second)
    run_file(path, second)
    with (
        second.open(zoo(UPSCALE), plan=Plan(path.read_bytes(), ANY, 8, {})) as engine,
        pytest.raises(EngineError, match="host code"),
    ):
        engine.prepare(48, 64)


@pytest.mark.parametrize(("built_by", "compatible"), [("trt11", True), ("trt10", False)])
def test_a_file_of_a_later_version_and_one_that_is_not_compatible_are_refused(
    built_by: Flavour,
    compatible: bool,
    rigs: Callable[..., Rig],
    tmp_path: Path,
    machine: Callable[[Rig], None],
) -> None:
    first, second = rigs(built_by), rigs("trt10" if built_by == "trt11" else "trt11")
    machine(first)
    path = built_file(first, tmp_path, version_compatible=compatible)
    machine(second)
    with pytest.raises(EngineError, match=f"built by version {first.library.version}, this is"):
        open_built(path, Options(cache=second.cache))


@pytest.mark.parametrize("version_compatible", [True, False])
@pytest.mark.parametrize(
    ("hardware", "capability", "runs"),
    [
        (None, 86, True),
        (None, 89, False),
        ("same", 86, True),
        ("same", 120, False),
        ("ampere", 89, True),
        ("ampere", 120, True),
        ("ampere", 75, False),
    ],
)
def test_a_file_is_run_on_the_gpus_that_it_was_built_for_alone(
    hardware: nvidia_library.Hardware | None,
    capability: int,
    runs: bool,
    version_compatible: bool,
    rigs: Callable[..., Rig],
    tmp_path: Path,
    machine: Callable[[Rig], None],
) -> None:
    """Whether a later version may load it says nothing of the GPU; the library agrees in each case."""
    first, second = rigs("trt11"), rigs("trt11", capability=capability, name="Another")
    machine(first)
    path = built_file(first, tmp_path, hardware=hardware, version_compatible=version_compatible)
    machine(second)
    if runs:
        run_file(path, second)
        return
    with pytest.raises(EngineError, match=f"capability 86, this GPU has {capability}"):
        open_built(path, Options(cache=second.cache))
    plan = Plan(path.read_bytes(), ANY, 8, {}, host_code=True)
    with (
        second.open(zoo(UPSCALE), plan=plan) as engine,
        pytest.raises(EngineError, match="built for another device"),
    ):
        engine.prepare(48, 64)


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
        rig.library = nvidia_library.load("rtx")
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


@pytest.mark.parametrize("flavour", ["trt10", "trt11"])
def test_tensorrt_takes_a_level_and_no_target(flavour: Flavour, rigs: Callable[..., Rig]) -> None:
    rig = rigs(flavour)
    levels = [facts_in(planned(rig, zoo(UPSCALE), ANY, level=level))["level"] for level in (None, 5)]
    assert levels == [3, 5]
    with pytest.raises(EngineError, match="this machine's GPU only"):
        planned(rig, zoo(UPSCALE), ANY, capability=86)


def test_a_tensorrt_that_lacks_a_level_of_compatibility_says_so(rigs: Callable[..., Rig]) -> None:
    """TensorRT 10.7 and older know AMPERE_PLUS alone."""
    library = rigs().library
    library.api.HardwareCompatibilityLevel = IntEnum("Level", "NONE AMPERE_PLUS", start=0)
    with pytest.raises(EngineError, match=r"10\.16\.1\.11 has no hardware compatibility 'same'"):
        library.set_compatible(None, version=False, hardware="same")
