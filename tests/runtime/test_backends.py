"""Engines against NumPy, on every backend; tiles, padding, requests in flight, refusals."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from velatura.runtime import BackendUnavailableError, EngineError, ModelCard, open_engine
from velatura.runtime.backends import BACKENDS, refusals
from velatura.runtime.backends import open as opening
from velatura.runtime.backends.open import cpu_backends
from velatura.runtime.backends.shape_compiled import StaticEngine

from . import networks

MATRIX = np.array([[0.5, 0.25, 0.0], [0.0, 0.75, 0.25], [0.125, 0.0, 0.875]])
RNG = np.random.default_rng(9)

ON_CPU = cpu_backends()
pytestmark = pytest.mark.parametrize("backend", ON_CPU)


class OnHoliday:
    on_cpu = True

    def unavailable(self) -> str:
        return "it is on holiday"

    def expected(self) -> bool:
        return True


def with_card(proto: networks.ModelProto, card: ModelCard, path: Path) -> Path:
    card.write_to(proto)
    return networks.write(proto, path)


def card(**values: object) -> ModelCard:
    return replace(ModelCard(name="test", task="style", halo=0), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("bits", [8, 10])
def test_layouts_types_and_orders(
    backend: str, layout: str, dtype: str, order: str, bits: int, tmp_path: Path
) -> None:
    described = card(layout=layout, dtype=dtype, input_colour=order, output_colour=order)
    path = with_card(networks.mixer(MATRIX, layout=layout, dtype=dtype), described, tmp_path / "m.onnx")
    peak = 2**bits - 1
    image = RNG.integers(0, peak + 1, (12, 18, 3)).astype(np.uint8 if bits == 8 else np.uint16)
    matrix = MATRIX if order == "rgb" else MATRIX[::-1, ::-1]
    expected = image.astype(float) @ matrix.T
    with open_engine(path, backend, precision="fp32") as engine:
        found = engine.run(image, bits)
    assert found.dtype == image.dtype
    # An 8-bit model can give a 10-bit frame no more than its own levels.
    step = peak / 255 if dtype == "uint8" else 1.0 if dtype == "float32" else 1.0 + peak / 1000
    assert np.abs(found - expected).max() <= step + 0.5


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)])
@pytest.mark.parametrize("bits", [8, 10])
def test_value_ranges(
    backend: str, value_range: tuple[float, float], bits: int, tmp_path: Path
) -> None:
    """A model that halves its numbers tells at which numbers it was fed."""
    described = card(value_range=value_range, input_colour="luma", output_colour="luma")
    proto = networks.mixer(np.array([[0.5]]))
    path = with_card(proto, described, tmp_path / "m.onnx")
    peak, (low, high) = 2**bits - 1, value_range
    image = RNG.integers(0, peak + 1, (16, 16)).astype(np.uint8 if bits == 8 else np.uint16)
    fed = low + image / peak * (high - low)
    expected = np.clip((fed / 2 - low) / (high - low) * peak, 0, peak)
    with open_engine(path, backend, precision="fp32") as engine:
        assert np.abs(engine.run(image, bits) - expected).max() <= 0.51


def test_results_are_clipped_to_the_depth(backend: str, tmp_path: Path) -> None:
    described = card(input_colour="luma", output_colour="luma")
    path = with_card(networks.mixer(np.array([[3.0]])), described, tmp_path / "m.onnx")
    with open_engine(path, backend, precision="fp32") as engine:
        assert engine.run(np.full((4, 4), 200, np.uint8)).tolist() == [[255] * 4] * 4
        assert engine.run(np.full((4, 4), 900, np.uint16), 10).max() == 1023


@pytest.mark.parametrize(("channels", "scale"), [(1, 2), (3, 1), (3, 2)])
def test_tiles_agree_with_the_whole(backend: str, channels: int, scale: int, tmp_path: Path) -> None:
    colour = "luma" if channels == 1 else "rgb"
    described = card(input_colour=colour, output_colour=colour, scale=scale, size_multiple=2, halo=14)
    proto = networks.deep(channels=channels, scale=scale)
    path = with_card(proto, described, tmp_path / "m.onnx")
    image = RNG.integers(0, 256, (151, 203, channels), np.uint8).squeeze()
    with open_engine(path, backend, precision="fp32") as engine:
        assert isinstance(engine, StaticEngine)
        whole = engine.run(image).astype(int)
        assert whole.shape[:2] == (151 * scale, 203 * scale)
        engine.max_pixels = 60 * 70
        tiled = engine.run(image).astype(int)
    assert np.abs(whole - tiled).max() <= 1
    assert whole.std() > 5, "a flat result would prove nothing"


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 5), (17, 31)])
def test_any_size_is_padded_and_cropped(backend: str, size: tuple[int, int], tmp_path: Path) -> None:
    described = card(input_colour="luma", output_colour="luma", size_multiple=8, min_size=12)
    path = with_card(networks.mixer(np.array([[1.0]])), described, tmp_path / "m.onnx")
    image = RNG.integers(0, 256, size, np.uint8)
    with open_engine(path, backend, precision="fp32") as engine:
        np.testing.assert_array_equal(engine.run(image), image)


def test_a_fixed_size_is_tiled(backend: str, tmp_path: Path) -> None:
    described = card(input_colour="luma", output_colour="luma", fixed_size=(32, 48), halo=4)
    path = with_card(networks.mixer(np.array([[1.0]])), described, tmp_path / "m.onnx")
    for size in ((32, 48), (100, 130), (5, 7)):
        image = RNG.integers(0, 256, size, np.uint8)
        with open_engine(path, backend, precision="fp32") as engine:
            np.testing.assert_array_equal(engine.run(image), image)


def test_many_pictures_in_flight_keep_their_results(backend: str, tmp_path: Path) -> None:
    described = card(input_colour="luma", output_colour="luma")
    path = with_card(networks.mixer(np.array([[1.0]])), described, tmp_path / "m.onnx")
    images = [RNG.integers(0, 256, (40, 40), np.uint8) for _ in range(20)]
    with open_engine(path, backend, precision="fp32") as engine:
        assert engine.in_flight >= 2
        pending = [engine.submit(image) for image in images]
        for image, wait in reversed(list(zip(images, pending, strict=True))):
            np.testing.assert_array_equal(wait(), image)


def test_views_and_read_only_pictures_are_taken(backend: str, tmp_path: Path) -> None:
    described = card(input_colour="luma", output_colour="luma")
    path = with_card(networks.mixer(np.array([[1.0]])), described, tmp_path / "m.onnx")
    whole = RNG.integers(0, 256, (40, 64), np.uint8)
    frozen = whole.copy()
    frozen.flags.writeable = False
    with open_engine(path, backend, precision="fp32") as engine:
        for view in (whole[:, :50], whole[::-1], whole[::2, ::3], frozen):
            np.testing.assert_array_equal(engine.run(view), view)


def test_sizes_may_change_and_many_are_kept_in_bounds(backend: str, tmp_path: Path) -> None:
    described = card(input_colour="luma", output_colour="luma")
    path = with_card(networks.mixer(np.array([[1.0]])), described, tmp_path / "m.onnx")
    with open_engine(path, backend, precision="fp32") as engine:
        for side in (8, 9, 10, 11, 12, 13, 8):
            image = RNG.integers(0, 256, (side, 2 * side), np.uint8)
            np.testing.assert_array_equal(engine.run(image), image)


def test_a_wrong_picture_is_refused(backend: str, tmp_path: Path) -> None:
    path = with_card(networks.mixer(MATRIX), card(), tmp_path / "m.onnx")
    with open_engine(path, backend, precision="fp32") as engine:
        for image in (
            np.zeros((8, 8), np.uint8),
            np.zeros((8, 8, 4), np.uint8),
            np.zeros((8, 8, 3), np.float32),
            np.zeros((8, 8, 3), np.uint16),
        ):
            with pytest.raises(EngineError, match="takes 3-channel pictures"):
                engine.run(image)


def test_what_cannot_be_compiled_is_an_engine_error(backend: str, tmp_path: Path) -> None:
    """The card promises any size; the graph adds a picture of one size."""
    nodes = [networks.helper.make_node("Add", ["image", "stamp"], ["result"])]
    stamp = np.ones((1, 1, 16, 16), np.float32)
    proto = networks.model(nodes, {"stamp": stamp}, [1, 1, "h", "w"])
    described = card(input_colour="luma", output_colour="luma")
    path = with_card(proto, described, tmp_path / "m.onnx")
    with open_engine(path, backend, precision="fp32") as engine:
        engine.run(np.zeros((16, 16), np.uint8))
        with pytest.raises(EngineError, match="test"):
            engine.run(np.zeros((20, 20), np.uint8))


def test_auto_says_why_the_better_one_was_refused(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_card(networks.mixer(MATRIX), card(), tmp_path / "m.onnx")
    gone = {backend}
    real = opening.find_backend

    def find(name: str) -> object:
        return OnHoliday() if name in gone else real(name)

    monkeypatch.setattr(opening, "find_backend", find)
    assert refusals()[backend] == "it is on holiday"
    with open_engine(path) as engine:
        assert engine.backend != backend
        said = any("on holiday" in note for note in engine.notes)
        assert said == (ON_CPU.index(backend) < ON_CPU.index(engine.backend))
    with pytest.raises(BackendUnavailableError, match="on holiday"):
        open_engine(path, backend)
    gone.update(BACKENDS)
    with pytest.raises(BackendUnavailableError, match=r"openvino: .*; ort: "):
        open_engine(path)


def test_a_precision_that_is_not_there_is_refused(backend: str, tmp_path: Path) -> None:
    path = with_card(networks.mixer(MATRIX), card(), tmp_path / "m.onnx")
    with pytest.raises(Exception, match="not quantised"):
        open_engine(path, backend, precision="int8")


INTERRUPTED = """
import signal, sys, threading
import numpy as np
from velatura.runtime import open_engine

signal.signal(signal.SIGINT, signal.default_int_handler)
opened = [open_engine("upscale-2x", sys.argv[1], precision="fp32")]
opened[0].run(np.zeros((16, 16), np.uint8))
closer = threading.Thread(target=lambda: opened.pop().close())
closer.start()
closer.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("stopped")
"""


def test_ctrl_c_is_heard_after_another_thread_closed_the_engine(backend: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, backend]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), done.stderr
