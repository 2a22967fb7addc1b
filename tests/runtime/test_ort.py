"""ONNX Runtime's providers: their libraries are opened, and none is silently the CPU's."""

import contextlib
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from velatura.runtime import CardFlags, EngineError, machine, open_engine
from velatura.runtime.backends import ort, refusals
from velatura.runtime.backends.base import Options
from velatura.runtime.backends.model import load_model
from velatura.runtime.backends.open import trial_runner
from velatura.runtime.backends.ort import CPU, CUDA, DIRECTML, RTX, TENSORRT, OrtBackend
from velatura.runtime.zoo import zoo_models

MISSING = "Failed to load libcublasLt.so.13: cannot open shared object file"
MODEL = zoo_models()["upscale-2x"]["fp32"].read_bytes()


@pytest.fixture
def preloads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What ONNX Runtime was asked to open; it finds nothing, and prints that."""
    asked: list[str] = []

    def preload() -> None:
        asked.append("cuda and cudnn")
        print(MISSING)

    def forget() -> None:
        for known in (ort._cuda_libraries, ort._tensorrt_libraries, ort._load_problem):
            known.cache_clear()

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    forget()
    yield asked
    forget()


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("backend", [CUDA, TENSORRT])
def test_the_libraries_are_opened_once_and_what_is_missing_is_said(
    backend: OrtBackend, preloads: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        with pytest.raises(EngineError, match=r"fell back to the CPU: .*libcublasLt\.so\.13") as caught:
            backend.session(MODEL, threads=1)
    assert preloads == ["cuda and cudnn"]
    assert capfd.readouterr().out == "", "frames may go there"
    if backend is TENSORRT and "tensorrt" not in sys.modules:
        assert "the package tensorrt is not installed" in str(caught.value)


def test_the_cpu_needs_none(preloads: list[str]) -> None:
    CPU.session(MODEL, threads=1)
    assert preloads == []


def test_the_extra_brings_the_libraries() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    (found,) = [
        line
        for line in tomllib.loads(text)["project"]["optional-dependencies"]["gpu"]
        if line.startswith("onnxruntime-gpu")
    ]
    assert found.startswith("onnxruntime-gpu[cuda,cudnn]>=")


@pytest.fixture
def onnxruntime_gpu(monkeypatch: pytest.MonkeyPatch, preloads: list[str]) -> None:
    """onnxruntime-gpu on a machine with a driver, but without CUDA's libraries."""
    del preloads
    real = onnxruntime.get_available_providers()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA.provider, *real])
    monkeypatch.setattr(ort, "BACKENDS", (replace(CUDA, problem=lambda: None), *ort.BACKENDS))


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.usefixtures("onnxruntime_gpu")
def test_a_provider_that_cannot_be_loaded_is_refused_before_a_frame_needs_it() -> None:
    reason = refusals()["ort-cuda"]
    assert reason is not None
    assert "fell back to the CPU" in reason
    with open_engine("upscale-2x", precision="fp32") as engine:
        assert engine.backend != "ort-cuda"


class Driver:
    """As much of NVIDIA's as tells which GPU there is."""

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802 - the driver's own name
        device._obj.value = 64 + ordinal
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        assert device.value == 64
        name.value = b"NVIDIA Something"[:size]
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13010
        return 0


def test_what_is_measured_is_measured_on_a_gpu_with_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda _name: Driver())
    for backend in (CUDA, TENSORRT, RTX):
        assert backend.device() == "NVIDIA Something, driver 13010"
    assert machine.cpu_name() in CPU.device()


class Session:
    """Knows how many threads run it at a time, as far as they meet."""

    def __init__(self) -> None:
        self.meeting = threading.Barrier(2)
        self.met = False

    def io_binding(self) -> "Session":
        return self

    def bind_cpu_input(self, *_: Any) -> None: ...

    def bind_output(self, *_: Any) -> None: ...

    def run_with_iobinding(self, _binding: Any) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.meeting.wait(0.5)
            self.met = True


@pytest.mark.parametrize(("backend", "meet"), [(DIRECTML, False), (CUDA, True)])
def test_directml_is_run_by_one_thread_at_a_time(
    backend: OrtBackend, meet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session()
    monkeypatch.setattr(OrtBackend, "session", lambda *_words, **_options: session)
    model = load_model(zoo_models()["upscale-2x"]["fp32"], flags=CardFlags(), trial=trial_runner())
    with backend.open(model, precision="fp32", options=Options()) as engine:
        assert engine.in_flight == 2
        running = [engine.submit(np.zeros((16, 16), np.uint8)) for _ in range(2)]
        for pending in running:
            pending()
    assert session.met is meet


class NoDevices(onnxruntime.SessionOptions):
    """Options to which a plugin adds nothing, as where its device has gone."""

    def add_provider_for_devices(self, devices: Any, options: dict[str, str]) -> None:
        del devices, options


def test_a_plugin_that_was_not_loaded_is_not_silently_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "SessionOptions", NoDevices)
    with pytest.raises(EngineError, match="NvTensorRTRTXExecutionProvider could not be loaded"):
        RTX.session(MODEL, threads=1)


def test_a_plugin_with_its_device_is_taken() -> None:
    """The CPU's own provider can be asked for as a plugin's is."""
    plugin = replace(CPU, plugin="onnxruntime")
    assert plugin.session(MODEL, threads=1).get_providers() == ["CPUExecutionProvider"]


def test_a_provider_that_takes_nothing_of_a_model_is_not_silently_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Azure's is loaded here, and knows no operator of a network."""
    azure = OrtBackend(name="ort-azure", provider="AzureExecutionProvider", advice="")
    if azure.provider not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime was built without AzureExecutionProvider")
    assert azure.unavailable() is None
    with pytest.raises(EngineError, match="AzureExecutionProvider takes no operator of the model"):
        azure.session(MODEL, threads=1)
    # Older versions do not tell.
    name = "get_provider_graph_assignment_info"
    base = next(kind for kind in onnxruntime.InferenceSession.__mro__ if name in vars(kind))
    monkeypatch.delattr(base, name)
    assert azure.session(MODEL, threads=1)
