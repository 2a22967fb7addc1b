"""In steady state nothing the size of a frame is allocated: memory goes round."""

import gc
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from velatura.runtime import open_engine, open_source
from velatura.runtime.backends.open import cpu_backends
from velatura.runtime.backends.precision_choice import sample_picture
from velatura.runtime.stages import Neural


def growth(once: Callable[[], object], *, warm_up: int = 8, times: int = 12) -> int:
    """The most bytes that Python and NumPy held above the start while `once` ran several times.

    Ten kilobytes of it are Python's own objects, a few more a tile, so the pictures here are large
    enough for half of one to stand well above that.
    """
    for _ in range(warm_up):
        once()
    gc.collect()
    tracemalloc.start()
    try:
        once()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in range(times):
            once()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize("backend", cpu_backends())
@pytest.mark.parametrize("model", ["upscale-2x", "starry-night"])
@pytest.mark.parametrize("size", [(240, 320), (241, 319)])
def test_an_engine_allocates_nothing_frame_sized(
    model: str, backend: str, size: tuple[int, int]
) -> None:
    """Sizes that need padding, too."""
    with open_engine(model, backend, precision="fp32") as engine:
        image = sample_picture(*size, engine.card.input_channels)
        assert growth(lambda: engine.run(image)) < image.nbytes / 2


@pytest.mark.parametrize("backend", cpu_backends())
def test_tiles_allocate_nothing_frame_sized(backend: str) -> None:
    with open_engine("upscale-2x", backend, precision="fp32") as engine:
        engine.max_pixels = 256 * 384  # type: ignore[attr-defined]
        image = sample_picture(480, 640, 1)
        assert growth(lambda: engine.run(image)) < image.nbytes / 2


def test_results_are_the_engines_own_memory_and_inputs_are_read_in_place() -> None:
    """The library reads the caller's array and writes the caller's result: no tensor in between."""
    with open_engine("upscale-2x", "openvino", precision="fp32", hint="latency") as engine:
        image = sample_picture(64, 96, 1)
        pending = engine.submit(image)
        (ring,) = engine._compiled.values()  # type: ignore[attr-defined]
        request = ring.slots[0].request
        result = pending()
        assert np.shares_memory(request.get_input_tensor().data, image)
        assert np.shares_memory(request.get_output_tensor().data, result)


@pytest.mark.parametrize("model", ["upscale-2x", "starry-night"])
def test_a_stage_allocates_less_than_a_frame(model: str) -> None:
    """Conversions and chroma included."""
    with open_source("pattern:320x240?frames=1") as source, open_engine(model) as engine:
        (frame,) = source
        stage = Neural(engine)
        size = frame.planes[0].nbytes * engine.card.scale**2
        assert growth(lambda: stage(frame)) < size / 2
