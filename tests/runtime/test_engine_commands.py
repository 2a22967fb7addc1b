"""`velatura build`, `cache`, `bench` and `doctor`, and a run's options about engines."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from velatura.runtime.backends import BACKENDS
from velatura.runtime.backends.base import Backend, Engine, Model, Options
from velatura.runtime.backends.nvidia import engine_file
from velatura.runtime.backends.open import cpu_backends, find_backend
from velatura.runtime.machine import nvidia_problem

from . import commands, videos
from .test_foreign import strange

RTX = find_spec("tensorrt_rtx_bindings") is not None
needs_rtx = pytest.mark.skipif(not RTX, reason="the extra [rtx] is not installed")


def velatura(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    return commands.velatura(*arguments, check=check)


@needs_rtx
def test_build_writes_an_engine_for_each_generation(tmp_path: Path) -> None:
    done = velatura("build", "upscale-2x", "--sm", "75,86,89,120", "--out", tmp_path)
    for capability in (75, 86, 89, 120):
        path = tmp_path / f"upscale-2x.rtx-sm{capability}.engine"
        engine, facts = engine_file.load(path)
        assert len(engine) > 50_000
        assert (facts.capability, facts.precision, facts.library) == (capability, "fp16", "rtx")
        assert facts.card.scale == 2
        assert facts.profile is not None
        assert facts.profile.holds(64, 64)
        assert facts.profile.holds(2160, 3840)
        assert not facts.profile.holds(4320, 7680)
        assert str(path) in done.stdout
    for word in ("MB", "weights", "tactics", "dB against FP32"):
        assert word in done.stdout


@needs_rtx
def test_build_reports_json_and_takes_sizes_and_depths(tmp_path: Path) -> None:
    words = ("build", "starry-night", "--sm", "89", "--min", "256x256", "--opt", "1080x1920",
             "--max", "1080x1920", "--bits", "10", "-o", tmp_path, "--json")  # fmt: skip
    (report,) = json.loads(velatura(*words).stdout)
    facts = engine_file.load(Path(report["engine"]))[1]
    assert (facts.bits, facts.capability) == (10, 89)
    assert report["bytes"] == Path(report["engine"]).stat().st_size
    assert report["parity_db"] > 45
    assert report["weights"] > 100_000
    assert report["tactics"]


@needs_rtx
@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("upscale-2x", "--sm", "90"), 6, "not 90"),
        (("upscale-2x", "--sm", "86,fast"), 2, "no list of compute capabilities"),
        (("upscale-2x", "--opt", "720p"), 2, "is not HEIGHTxWIDTH"),
        (("upscale-2x", "--min", "800x800", "--opt", "720x1280"), 6, "sizes must grow"),
        (("upscale-2x", "--hardware", "ampere"), 6, "TensorRT's"),
        (("upscale-3x",), 5, "did you mean"),
        (("strange.onnx",), 6, "the_sparkle"),
        (("strange.onnx", "--precision", "fp32"), 5, "the_sparkle"),
    ],
)
def test_a_build_that_cannot_be_says_why_and_leaves_nothing(
    words: tuple[str, ...], code: int, complaint: str, tmp_path: Path
) -> None:
    model = strange(tmp_path)
    out = tmp_path / "out"
    arguments = [str(model) if word == "strange.onnx" else word for word in words]
    done = velatura("build", *arguments, "-o", out, check=False)
    assert done.returncode == code, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(out.glob("*"))


def test_tensorrt_itself_is_asked_for_by_name(tmp_path: Path) -> None:
    done = velatura("build", "upscale-2x", "--target", "tensorrt", "-o", tmp_path, check=False)
    if done.returncode == 0:
        pytest.skip("TensorRT and a GPU are here")
    assert done.returncode == 7
    assert "velatura[gpu]" in done.stderr


@needs_rtx
def test_an_engine_file_without_its_gpu_says_what_is_missing(tmp_path: Path) -> None:
    if nvidia_problem() is None:
        pytest.skip("an NVIDIA GPU is here")
    velatura("build", "upscale-2x", "--sm", "86", "-o", tmp_path)
    engine = tmp_path / "upscale-2x.rtx-sm86.engine"
    done = velatura("run", "pattern:64x64?frames=1", "null:", "-m", engine, check=False)
    assert done.returncode == 7
    assert "driver" in done.stderr
    engine.write_bytes(engine.read_bytes()[:-9])
    done = velatura("run", "pattern:64x64?frames=1", "null:", "-m", engine, check=False)
    assert done.returncode == 5
    assert "damaged" in done.stderr


def test_the_cache_is_filled_listed_and_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VELATURA_CACHE", str(tmp_path / "cache"))
    done = velatura("cache", "prebuild", "upscale-2x", "--size", "48x64", "--precision", "fp32")
    assert "upscale-2x at 48x64: ready on openvino in fp32" in done.stdout
    listed = json.loads(velatura("cache", "list", "--json").stdout)
    assert listed["folder"] == str(tmp_path / "cache")
    (entry,) = listed["entries"]
    assert entry["whole"]
    assert entry["key"]["name"] == "upscale-2x"
    path = tmp_path / "cache" / entry["file"]
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged: will be built again" in velatura("cache").stdout
    # A damaged entry costs a build, never the run.
    velatura("run", "pattern:64x48?frames=2", "null:", "-m", "upscale-2x", "--precision", "fp32")
    assert "damaged" not in velatura("cache").stdout
    assert "1 entries removed" in velatura("cache", "clear").stdout
    assert json.loads(velatura("cache", "--json").stdout)["entries"] == []


@pytest.mark.parametrize("words", [("prebuild",), ("list", "upscale-2x"), ("empty",)])
def test_cache_usage(words: tuple[str, ...]) -> None:
    assert velatura("cache", *words, check=False).returncode == 2


def test_a_second_start_opens_what_the_first_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setenv("VELATURA_CACHE", str(folder))
    words = ("run", "pattern:320x240?frames=3", "null:", "-m", "starry-night", "--precision", "fp32")
    velatura(*words)
    before = {path: path.read_bytes() for path in folder.glob("*.engine")}
    assert before
    velatura(*words)
    assert {path: path.read_bytes() for path in folder.glob("*.engine")} == before


@pytest.mark.slow
def test_bench_measures_every_backend_that_runs(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    done = velatura("bench", "upscale-2x", "--size", "90x160", "--seconds", "0.2", "-o", out)
    report = json.loads(out.read_text())
    assert report["machine"]["cores"] > 0
    assert report["machine"]["packages"]["openvino"]
    assert report["multiply_adds_per_frame"] == pytest.approx(7722 * 90 * 160, rel=0.02)
    assert report["peak"]["matrix"]["fp32"] > 1e9
    assert report["peak"]["copy"] > 1e8
    measured = {(row["backend"], row["precision"]) for row in report["rows"]}
    assert {(name, "fp32") for name in cpu_backends()} <= measured
    assert set(report["refused"]) | {name for name, _ in measured} == set(BACKENDS)
    for row in report["rows"]:
        assert 0 < row["throughput"]["median_ms"] <= row["throughput"]["high_ms"]
        assert row["latency"]["low_ms"] <= row["latency"]["median_ms"] <= row["latency"]["p99_ms"]
        assert 0 < row["share_of_peak"] <= 1
        assert row["parity_db"] > (60 if row["precision"] == "fp32" else 45)
        assert row["backend"] in done.stdout


def test_bench_of_one_backend_and_its_refusals() -> None:
    report = json.loads(
        velatura(
            "bench", "upscale-2x", "--size", "48x64", "--backend", "ort", "--seconds", "0.1", "--json"
        ).stdout
    )
    assert {row["backend"] for row in report["rows"]} == {"ort"}
    assert velatura("bench", "upscale-2x", "--backend", "abacus", check=False).returncode == 6
    done = velatura("bench", "upscale-2x", "--backend", "ort-coreml", check=False)
    if sys.platform != "darwin":
        assert done.returncode == 7
        assert "macOS" in done.stderr


def test_doctor_knows_builders_and_the_cache() -> None:
    found = json.loads(velatura("doctor", "--json").stdout)
    assert set(found["backends"]) == set(BACKENDS)
    if RTX:
        assert "builds for sm 75" in found["builders"]["rtx"]
    if nvidia_problem() is not None:
        assert "driver" in found["nvidia"] or "GPU" in found["nvidia"]
        assert "driver" in found["backends"]["rtx"] or "install" in found["backends"]["rtx"]
    assert found["cache"]


class Abacus(Backend):
    """A library that somebody adds: it computes as ONNX Runtime does."""

    def version(self) -> str:
        return "1"

    def precisions(self) -> tuple[str, ...]:
        return ("fp32",)

    def open(self, model: Model, *, precision: str, options: Options) -> Engine:
        return find_backend("ort").open(model, precision=precision, options=options)


def test_a_module_and_its_line_in_the_table_make_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor, bench, a run and the errors are made from the table and from what the module states."""
    backend = Abacus(name="abacus", package="json", advice="pip install abacus", distributions=("pip",))
    module = ModuleType("abacus")
    vars(module)["BACKENDS"] = (backend,)
    monkeypatch.setitem(sys.modules, "velatura.runtime.backends.abacus", module)
    monkeypatch.setitem(BACKENDS, "abacus", ".abacus")
    told = json.loads(velatura("doctor", "--json").stdout)
    assert told["backends"]["abacus"] == "available: fp32"
    assert "pip" in told["packages"]
    words = ("bench", "upscale-2x", "--size", "48x64", "--backend", "abacus", "--seconds", "0.1")
    report = json.loads(velatura(*words, "--json").stdout)
    assert [(row["backend"], row["precision"]) for row in report["rows"]] == [("abacus", "fp32")]
    velatura("run", "pattern:64x48?frames=2", "null:", "-m", "upscale-2x", "--backend", "abacus")
    done = velatura("bench", "upscale-2x", "--backend", "slide-rule", check=False)
    assert "ort, abacus" in done.stderr
    vars(module)["BACKENDS"] = (replace(backend, package="no_such_abacus"),)
    told = json.loads(velatura("doctor", "--json").stdout)
    reason = "the package no_such_abacus is not installed (pip install abacus)"
    assert told["backends"]["abacus"] == f"refused: {reason}"
    assert told["used"] == "openvino"


def test_run_takes_fit_and_while_building(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", frames=4)
    for words in (("--fit", "resize"), ("--while-building", "pass"), ("--precision", "fp32")):
        velatura("run", source, tmp_path / "o.mkv", "-m", "upscale-2x", "--overwrite", *words)
        assert len(videos.read(tmp_path / "o.mkv").luma) == 4
    for words in (("--fit", "stretch"), ("--while-building", "sleep"), ("--precision", "int4")):
        done = velatura("run", source, "null:", "-m", "upscale-2x", *words, check=False)
        assert done.returncode == 2
