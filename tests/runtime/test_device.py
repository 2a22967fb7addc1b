"""The GPU's code path on a simulated GPU: what is computed, what it costs, what is freed, what fails.

Streams of the simulated GPU are as late as they may be: nothing runs before the host waits for it. What
reads a result too early reads rubbish; what frees or changes memory too early is a fault.
"""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import helper
from velatura.runtime import CardFlags, EngineError, ModelCard
from velatura.runtime.backends.base import Options
from velatura.runtime.backends.model import Model, load_model
from velatura.runtime.backends.nvidia.engine import open_device
from velatura.runtime.backends.open import trial_runner
from velatura.runtime.backends.precision_choice import psnr
from velatura.runtime.errors import OutOfMemoryError
from velatura.runtime.zoo import zoo_models

from . import networks, simulated_rig
from .simulated import Stream
from .simulated_rig import (
    ALLOCATIONS,
    SIZES,
    STYLE,
    UPSCALE,
    WAITS,
    Rig,
    assert_close,
    counted,
    expected,
    frames,
    zoo,
)

rig, rigs = simulated_rig.rig, simulated_rig.rigs


# Results.


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("name", [UPSCALE, STYLE])
def test_results_are_those_of_onnx_runtime(rig: Rig, name: str, bits: int) -> None:
    model = zoo(name)
    pictures = frames(model, 2, SIZES[name], bits)
    with rig.open(model) as engine:
        for picture, wanted in zip(pictures, expected(model, pictures, bits), strict=True):
            found = engine.run(picture, bits)
            assert_close(found, wanted)
            assert bits == 8 or found.max() > 255


def test_half_precision_agrees(rig: Rig) -> None:
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, SIZES[UPSCALE])
    with rig.open(model, precision="fp16") as engine:
        found = engine.run(picture).copy()
    (wanted,) = expected(model, [picture])
    assert psnr(wanted, found) > 45


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("ahead", [1, 3, 8])
def test_frames_in_flight_come_back_in_order(
    rigs: Callable[..., Rig], lazy: bool, graphs: bool, ahead: int
) -> None:
    """Each is given in an array that changes as soon as it was submitted, and none before is spoilt."""
    rig, model = rigs(lazy=lazy), zoo(UPSCALE)
    pictures = frames(model, 12, SIZES[UPSCALE])
    wanted = expected(model, pictures)
    found: list[Any] = []
    with rig.open(model, graphs=graphs) as engine:
        running: list[Any] = []
        for picture in pictures:
            given = picture.copy()
            running.append(engine.submit(given))
            if len(running) >= ahead:
                found.append(running.pop(0)())
        found += [pending() for pending in running]
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, other)


@pytest.mark.parametrize(("name", "size"), [(STYLE, (57, 71)), (STYLE, (20, 90)), (STYLE, (1, 2))])
def test_sizes_that_need_padding(rigs: Callable[..., Rig], name: str, size: tuple[int, int]) -> None:
    rig, model = rigs(), zoo(name)
    pictures = frames(model, 2, size)
    with rig.open(model) as engine:
        for picture, wanted in zip(pictures, expected(model, pictures), strict=True):
            assert_close(engine.run(picture), wanted)


def test_large_frames_are_cut_into_tiles(rigs: Callable[..., Rig]) -> None:
    rig, model = rigs(), zoo(UPSCALE)
    pictures = frames(model, 2, (100, 130))
    with rig.open(model) as engine:
        engine.max_pixels = 60 * 80
        found = [engine.submit(picture) for picture in pictures]
        for pending, wanted in zip(found, expected(model, pictures), strict=True):
            assert_close(pending(), wanted)
    assert rig.gpu.counts["executions"] >= 8


def test_a_gpu_with_memory_takes_a_4k_frame_whole_and_a_small_one_does_not(
    rigs: Callable[..., Rig],
) -> None:
    model = zoo(UPSCALE)
    with rigs(limit=24 << 30).open(model) as large, rigs(limit=2 << 30).open(model) as small:
        assert large.max_pixels >= 3840 * 2160 > small.max_pixels


@pytest.mark.parametrize("order", ["strided", "read-only", "backwards"])
def test_pictures_of_any_memory_order(rigs: Callable[..., Rig], order: str) -> None:
    rig, model = rigs(), zoo(STYLE)
    (picture,) = frames(model, 1, (56, 144))
    picture = {"strided": picture[:, ::2], "backwards": picture[::-1, ::-2]}.get(order, picture)
    picture.flags.writeable = order != "read-only"
    with rig.open(model) as engine:
        assert_close(engine.run(picture), expected(model, [np.ascontiguousarray(picture)])[0])


def test_sizes_and_depths_may_follow_one_another(rig: Rig) -> None:
    model = zoo(UPSCALE)
    with rig.open(model) as engine:
        for size, bits in [((24, 32), 8), ((24, 32), 10), ((40, 24), 8), ((24, 32), 8)]:
            (picture,) = frames(model, 1, size, bits)
            assert_close(engine.run(picture, bits), expected(model, [picture], bits)[0])
    assert rig.gpu.counts["builds"] == 3


def test_frames_that_nobody_asks_for_are_let_go(rig: Rig) -> None:
    """They stop neither those after them nor the end."""
    model = zoo(UPSCALE)
    pictures = frames(model, 6, SIZES[UPSCALE])
    with rig.open(model) as engine:
        for picture in pictures[:-1]:
            engine.submit(picture)
        assert_close(engine.run(pictures[-1]), expected(model, pictures[-1:])[0])
        engine.submit(pictures[0])
    assert rig.gpu.leaks() == {}


# What it costs.


@pytest.mark.quick_rows(3)
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("size", [(160, 192), (159, 191)])
def test_a_frame_costs_one_wait_two_copies_and_no_memory(
    rig: Rig, graphs: bool, size: tuple[int, int]
) -> None:
    model = replace(zoo(UPSCALE), card=replace(zoo(UPSCALE).card, size_multiple=4))
    pictures = frames(model, 8, size)
    with rig.open(model, graphs=graphs) as engine:

        def stream(count: int) -> None:
            running: list[Any] = []
            for turn in range(count):
                running.append(engine.submit(pictures[turn % 8]))
                if len(running) > engine.in_flight:
                    running.pop(0)()
            for pending in running:
                pending()

        stream(6)
        peaks: list[int] = []
        for _ in range(3):  # what other threads of the process take meanwhile counts, too
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            with counted(rig) as count:
                stream(10)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
            tracemalloc.stop()
        assert count("cudaEventSynchronize") == 10
        assert [count(name) for name in (*WAITS, *ALLOCATIONS)] == [0] * 6
        assert count("bytes in") == 10 * 160 * 192
        assert count("bytes out") == 10 * 4 * 160 * 192
        assert count("cudaMemcpyAsync") == (0 if graphs else 20)
        assert count("cudaGraphLaunch") == (10 if graphs else 0)
        assert count("compiled kernels") == 0
        assert min(peaks) < 160 * 192


def test_tiles_cost_no_memory_either(rigs: Callable[..., Rig]) -> None:
    rig, model = rigs(), zoo(UPSCALE)
    pictures = frames(model, 3, (100, 130))
    with rig.open(model) as engine:
        engine.max_pixels = 60 * 80
        for picture in pictures:
            engine.run(picture)
        with counted(rig) as count:
            for picture in pictures:
                engine.run(picture)
            assert [count(name) for name in (*WAITS, *ALLOCATIONS)] == [0] * 6
            assert count("cudaEventSynchronize") == count("executions")


def test_latency_takes_one_context_and_throughput_three(rig: Rig) -> None:
    for hint, contexts in (("latency", 1), ("throughput", 3)):
        with rig.open(zoo(UPSCALE), hint=hint) as engine:
            engine.prepare(32, 32)
            assert engine.in_flight == contexts == rig.gpu.live["context"]


# CUDA graphs.


def test_each_context_is_recorded_once(rig: Rig) -> None:
    model = zoo(UPSCALE)
    pictures = frames(model, 12, SIZES[UPSCALE])
    with rig.open(model, graphs=True) as engine:
        for picture, wanted in zip(pictures, expected(model, pictures), strict=True):
            assert_close(engine.run(picture), wanted)
        assert rig.gpu.counts["cudaStreamBeginCapture"] == 3
        assert rig.gpu.counts["cudaGraphInstantiate"] == 3
        assert rig.gpu.counts["cudaGraphLaunch"] == 9
        assert engine.notes == ()


@pytest.mark.parametrize("broken_off", [True, False])
def test_an_engine_that_cannot_be_recorded_goes_on_with_a_note(rig: Rig, broken_off: bool) -> None:
    """Whether the recording itself is broken off, or only the library fails in the middle of it."""
    model = zoo(UPSCALE)
    rig.gpu.recordable = not broken_off
    pictures = frames(model, 8, SIZES[UPSCALE])
    with rig.open(model, graphs=True) as engine:
        running: list[Any] = []
        for turn, picture in enumerate(pictures):
            # The fourth frame is the second of the first context.
            rig.gpu.fail = "sync" if turn == 3 and not broken_off else None
            running.append(engine.submit(picture))
        for pending, wanted in zip(running, expected(model, pictures), strict=True):
            assert_close(pending(), wanted)
        (note,) = engine.notes
        assert note.startswith(f"no CUDA graph for {model.card.name}: ")
        assert rig.gpu.counts["cudaGraphLaunch"] == 0
    assert rig.gpu.leaks() == {}


def test_engines_with_and_without_recording_are_kept_apart(rigs: Callable[..., Rig]) -> None:
    rig = rigs("rtx")
    for graphs in (False, True):
        with rig.open(zoo(UPSCALE), graphs=graphs) as engine:
            engine.prepare(32, 32)
    assert rig.gpu.counts["builds"] == 2


# Memory.


def test_what_does_not_fit_is_cut_into_tiles(rig: Rig) -> None:
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, (512, 520))
    # A context of the whole takes 16 bytes a sample, beside the frame and its result.
    rig.gpu.limit = 3 * 300 * 520 * (16 + 1 + 4)
    with rig.open(model) as engine:
        for _ in range(2):
            assert_close(engine.run(picture), expected(model, [picture])[0])
        (note,) = engine.notes
        assert "OutOfMemory" in note
        assert "frames of 520x512 are cut into tiles" in note
        assert rig.gpu.counts["executions"] >= 4
    assert rig.gpu.leaks() == {}


@pytest.mark.parametrize("least", [0, 1 << 20, 2 << 20])
def test_a_gpu_too_small_for_any_tile_says_so_and_loses_nothing(rig: Rig, least: int) -> None:
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, (256, 256))
    with rig.open(model) as engine:
        rig.gpu.limit = least
        with pytest.raises(OutOfMemoryError):
            engine.run(picture)
        assert rig.gpu.leaks() == {}
        rig.gpu.limit = 1 << 30
        assert_close(engine.run(picture), expected(model, [picture])[0])


@pytest.mark.parametrize("graphs", [True, False])
def test_the_end_frees_everything_and_leaves_the_results(rig: Rig, graphs: bool) -> None:
    model = zoo(UPSCALE)
    pictures = frames(model, 8, SIZES[UPSCALE])
    with rig.open(model, graphs=graphs) as engine:
        running = [engine.submit(picture) for picture in pictures]
        first = running[0]()
        streams = [thing for thing in rig.gpu.handles.values() if isinstance(thing, Stream)]
        assert len(streams) == 3
    for stream in streams:
        stream.join()
    # Those still running were waited for, and whoever holds them may have them.
    assert_close(running[-1](), expected(model, pictures[-1:])[0])
    assert_close(first, expected(model, pictures[:1])[0])
    del running, first
    assert rig.gpu.leaks() == {}


def test_sizes_that_have_passed_are_freed(rigs: Callable[..., Rig]) -> None:
    rig, model = rigs(), zoo(UPSCALE)
    with rig.open(model) as engine:
        for height in range(16, 30):
            engine.prepare(height, 16)
        assert rig.gpu.live["context"] == 3 * 4
        assert rig.gpu.leaks()["Stream"] == 3 * 4


# Failures.


@pytest.mark.parametrize("kind", ["sync", "async", "both"])
@pytest.mark.parametrize("graphs", [True, False])
def test_a_frame_that_fails_says_so_at_its_result_and_the_next_one_runs(
    rig: Rig, kind: str, graphs: bool
) -> None:
    model = zoo(UPSCALE)
    pictures = frames(model, 9, SIZES[UPSCALE])
    wanted = expected(model, pictures)
    with rig.open(model, graphs=graphs) as engine:
        running: list[Any] = []
        for turn, picture in enumerate(pictures):
            rig.gpu.fail = kind if turn == 1 else None
            running.append(engine.submit(picture))
        for turn, pending in enumerate(running):
            if turn == 1:
                words = "cudaErrorLaunchFailure" if kind == "async" else "cursed"
                with pytest.raises(EngineError, match=words):
                    pending()
            else:
                assert_close(pending(), wanted[turn])
    del running, pending
    assert rig.gpu.leaks() == {}


def test_a_failed_build_gives_the_librarys_words_and_can_be_tried_again(rig: Rig) -> None:
    model = zoo(UPSCALE)
    (picture,) = frames(model, 1, SIZES[UPSCALE])
    with rig.open(model) as engine:
        rig.gpu.fail = "build"
        with pytest.raises(EngineError, match="Could not find any implementation"):
            engine.run(picture)
        assert_close(engine.run(picture), expected(model, [picture])[0])


def test_a_driver_that_is_too_old_is_told_by_the_library(rig: Rig) -> None:
    with rig.open(zoo(UPSCALE)) as engine:
        rig.gpu.fail = "driver"
        with pytest.raises(EngineError, match="error: 35"):
            engine.prepare(32, 32)
    with pytest.raises(EngineError, match="error: 35"):
        rig.open(zoo(UPSCALE))


def test_a_build_tells_how_far_it_is(rig: Rig) -> None:
    heard: list[tuple[str, float]] = []
    with rig.open(zoo(UPSCALE), progress=lambda *line: heard.append(line)) as engine:
        engine.prepare(32, 32)
    assert [what for what, _ in heard] == ["Building engine"] * 2 + ["Timing tactics"] * 3 + [
        "Building engine"
    ]
    assert [done for _, done in heard] == [0, 0.5, 0.5, 0.5, 0.5, 1]


def test_a_build_that_is_stopped_keeps_nothing(rig: Rig) -> None:
    def stop(_what: str, _done: float) -> None:
        raise KeyboardInterrupt

    with rig.open(zoo(UPSCALE), progress=stop) as engine, pytest.raises(KeyboardInterrupt):
        engine.prepare(32, 32)
    assert rig.gpu.counts["finished builds"] == 0
    assert rig.cache.entries() == []


def test_an_unknown_operator_is_named_with_its_node(rig: Rig) -> None:
    proto = networks.mixer(np.eye(3))
    proto.opset_import.append(helper.make_opsetid("my.lab", 1))
    proto.graph.node[0].output[0] = "plain"
    proto.graph.node.append(
        helper.make_node("Sharpen", ["plain"], ["result"], "sharpen_it", domain="my.lab")
    )
    model = Model(proto=proto, card=ModelCard(name="lab", task="style"))
    # When it is opened, not at the first frame: `auto` can still go on to another backend.
    with pytest.raises(EngineError, match=r"Sharpen \(node sharpen_it\)"):
        rig.open(model)


def test_quantised_graphs_are_refused_as_engines_are_so_that_auto_goes_on(rig: Rig) -> None:
    path = next(files["int8"] for files in zoo_models().values() if "int8" in files)
    model = load_model(path, flags=CardFlags(), trial=trial_runner())
    options = Options(cache=rig.cache)
    for precision in ("fp32", "fp16"):
        with pytest.raises(EngineError, match="FP32 model"):
            open_device(model, rig.library, rig.cuda, precision=precision, options=options)
    # A foreign one has no card that says so.
    foreign = replace(model, card=replace(model.card, precision="fp32"))
    with pytest.raises(EngineError, match="quantised"):
        open_device(foreign, rig.library, rig.cuda, precision="fp16", options=options)
