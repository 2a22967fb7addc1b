"""Frames that do not wait for a builder."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from velatura.runtime import EngineError, open_engine
from velatura.runtime.backends import Engine, Pending, Precision
from velatura.runtime.backends import open as opening
from velatura.runtime.backends.background_build import RisingEngine
from velatura.runtime.backends.base import Options
from velatura.runtime.backends.model import Model
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job

from . import videos
from .ctrl_c import press_later


class Slow(Engine):
    """Takes its time to prepare, then inverts; counts what is asked of it at once."""

    def __init__(self, gate: threading.Event, inner: Engine, *, fails: str = "") -> None:
        super().__init__(inner.card, backend="slow", precision="fp16", in_flight=1)
        self.gate = gate
        self.inner = inner
        self.fails = fails
        self.may_wait = False
        self.prepared: list[tuple[int, int, int]] = []
        self.closed = False

    def prepare(self, height: int, width: int, bits: int = 8) -> None:
        assert self.gate.wait(20)
        if self.fails:
            raise EngineError(self.fails)
        self.prepared.append((height, width, bits))

    def submit(self, image: np.ndarray, bits: int = 8) -> Pending:
        if (image.shape[0], image.shape[1], bits) not in self.prepared:
            assert self.may_wait, "run before it was built"
            self.prepare(image.shape[0], image.shape[1], bits)
        pending = self.inner.submit(image, bits)
        return lambda: 255 - pending()

    def close(self) -> None:
        self.closed = True
        self.inner.close()


IMAGE = np.random.default_rng(3).integers(0, 256, (48, 64), np.uint8)


def upscaler() -> Engine:
    return open_engine("upscale-2x", "openvino", precision="fp32")


def test_the_stand_in_works_until_the_better_one_is_ready() -> None:
    gate = threading.Event()
    stand_in = upscaler()
    plain = stand_in.run(IMAGE).copy()
    with RisingEngine(stand_in.card, lambda: Slow(gate, upscaler()), stand_in) as engine:
        for _ in range(5):
            np.testing.assert_array_equal(engine.run(IMAGE), plain)
        assert engine.building
        assert engine.backend == "openvino"
        gate.set()
        engine.wait()
        np.testing.assert_array_equal(engine.run(IMAGE), 255 - plain)
        assert (engine.backend, engine.precision) == ("slow", "fp16")
        (note,) = [n for n in engine.notes if "while" in n]
        assert note.startswith("5 frames went on openvino in fp32 while upscale-2x was built for slow")
        # Another size is another engine: the stand-in takes over again, without a gap.
        assert engine.run(IMAGE[:32]).shape == (64, 128)
        engine.wait()
        np.testing.assert_array_equal(engine.run(IMAGE), 255 - plain)


def test_without_a_stand_in_pictures_pass_at_the_size_of_the_result() -> None:
    gate = threading.Event()
    reference = upscaler()
    with reference, RisingEngine(reference.card, lambda: Slow(gate, upscaler())) as engine:
        passed = engine.run(IMAGE)
        assert passed.shape == (96, 128)
        assert abs(float(passed.mean()) - float(IMAGE.mean())) < 2, "the picture itself, enlarged"
        ten = (IMAGE.astype(np.uint16) << 2) | 3
        assert engine.run(ten, 10).max() <= 1023
        gate.set()
        engine.wait()
        np.testing.assert_array_equal(engine.run(IMAGE), 255 - reference.run(IMAGE))


@pytest.mark.parametrize("stands_in", [True, False])
def test_a_build_that_fails(stands_in: bool) -> None:
    gate = threading.Event()
    gate.set()
    stand_in = upscaler()
    plain = stand_in.run(IMAGE).copy()

    def build() -> Engine:
        return Slow(gate, upscaler(), fails="the GPU is gone")

    with RisingEngine(stand_in.card, build, stand_in if stands_in else None) as engine:
        engine.run(IMAGE)
        engine.wait()
        if stands_in:
            np.testing.assert_array_equal(engine.run(IMAGE), plain)
            assert any("the GPU is gone" in note for note in engine.notes)
            assert engine.backend == "openvino"
        else:
            with pytest.raises(EngineError, match="the GPU is gone"):
                engine.run(IMAGE)
    stand_in.close()


def test_a_bug_in_a_builder_is_no_silence() -> None:
    """An exception that nobody meant, in a thread of its own, would be tried again at every frame."""
    calls: list[int] = []

    def build() -> Engine:
        calls.append(1)
        raise ZeroDivisionError("a bug")

    reference = upscaler()
    with reference, RisingEngine(reference.card, build) as engine:
        engine.run(IMAGE)
        engine.wait()
        with pytest.raises(EngineError, match="ZeroDivisionError: a bug"):
            engine.run(IMAGE)
    assert len(calls) == 1


def test_ctrl_c_while_it_closes_leaves_the_engine_to_its_builder() -> None:
    gate = threading.Event()
    better = Slow(gate, upscaler())
    engine = RisingEngine(better.card, lambda: better)
    engine.run(IMAGE)
    with press_later(), pytest.raises(KeyboardInterrupt):
        engine.close()
    assert engine.building
    assert not better.closed
    gate.set()
    engine.close()
    assert better.prepared, "it was closed under the builder"
    assert better.closed


class SlowBackend:
    """A GPU's library that needs a while to build."""

    on_cpu = False

    def __init__(self, gate: threading.Event, may_wait: bool) -> None:
        self.gate = gate
        self.may_wait = may_wait
        self.offered: tuple[str, ...] = ("fp32",)

    def unavailable(self) -> None:
        return None

    def version(self) -> str:
        return "1"

    def precisions(self) -> tuple[str, ...]:
        return self.offered

    def open(self, model: Model, *, precision: str, options: Options) -> Engine:
        assert precision in self.offered
        inner = opening.find_backend("openvino").open(model, precision="fp32", options=options)
        engine = Slow(self.gate, inner)
        engine.may_wait = self.may_wait
        return engine


@pytest.fixture
def slow_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SlowBackend]:
    real = opening.find_backend

    def install(
        gate: threading.Event, may_wait: bool = False, *, name: str = "tensorrt"
    ) -> SlowBackend:
        backend = SlowBackend(gate, may_wait)
        monkeypatch.setattr(
            opening, "find_backend", lambda asked: backend if asked == name else real(asked)
        )
        return backend

    return install


def test_the_first_frame_never_waits(slow_gpu: Callable[..., None]) -> None:
    gate = threading.Event()
    slow_gpu(gate)
    with open_engine("upscale-2x", building="fallback") as engine:
        engine.run(IMAGE)  # it would wait for ever for the builder
        assert engine.backend == "openvino"
        gate.set()
        engine.wait()  # type: ignore[attr-defined]
        engine.run(IMAGE)
        assert engine.backend == "slow"


@pytest.mark.parametrize("name", ["tensorrt", "rtx"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_backend_asked_for_by_name_has_a_stand_in_too(
    name: str, precision: Precision, slow_gpu: Callable[..., SlowBackend]
) -> None:
    """It is on a CPU, in FP32 where no CPU backend has the precision that was asked for."""
    gate = threading.Event()
    slow_gpu(gate, name=name).offered = ("fp32", "fp16")
    with open_engine("upscale-2x", name, precision=precision, building="fallback") as engine:
        assert engine.run(IMAGE).shape == (96, 128)
        assert engine.backend == "openvino"
        assert engine.precision == "fp32"
        gate.set()
        engine.wait()  # type: ignore[attr-defined]
        engine.run(IMAGE)
        assert engine.backend == "slow"


@pytest.mark.parametrize("backend", ["auto", "openvino", "ort"])
def test_where_nothing_is_to_be_built_nothing_stands_in(backend: str) -> None:
    with open_engine("upscale-2x", backend, building="fallback") as engine:
        assert not isinstance(engine, RisingEngine)


@pytest.mark.parametrize("building", ["fallback", "pass", "wait"])
def test_a_run_goes_on_meanwhile(
    building: str, tmp_path: Path, slow_gpu: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """All frames arrive, in order, at one size, whatever worked on them; the run says how many."""
    source = videos.make(tmp_path / "in.mkv", codec="ffv1", frames=40, pix_fmt="yuv420p")
    gate = threading.Event()
    slow_gpu(gate, may_wait=building == "wait")
    threading.Timer(0.3, gate.set).start()
    job = Job(
        source=str(source),
        sink=str(tmp_path / "out.mkv"),
        models=("upscale-2x",),
        codec="ffv1",
        building=building,  # type: ignore[arg-type]
    )
    assert run_job(job) == 0
    found = videos.read(tmp_path / "out.mkv")
    assert len(found.luma) == 40
    assert (found.width, found.height) == (128, 96)
    how = {"fallback": "went on openvino in", "pass": "went unchanged", "wait": None}[building]
    said = capsys.readouterr().err
    assert how is None or how in said
    assert how is not None or "went" not in said
