"""Half precision of graphs, and the choice of a precision by measurement."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from velatura.runtime import EngineError, ModelError, open_engine
from velatura.runtime.backends import open as opening
from velatura.runtime.backends import precision_choice
from velatura.runtime.backends.graph import INPUT, OUTPUT, wrap
from velatura.runtime.backends.half import to_half
from velatura.runtime.backends.identity import IdentityEngine
from velatura.runtime.backends.precision_choice import Measured, choose, sample_picture
from velatura.runtime.cache import EngineCache
from velatura.runtime.card import read_card
from velatura.runtime.frame import Array
from velatura.runtime.zoo import zoo_models

from . import networks


def compute(proto: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {session.get_inputs()[0].name: image})
    return np.asarray(result)


def types_of(proto: onnx.ModelProto) -> set[int]:
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize("name", list(zoo_models()))
def test_the_zoo_in_half_is_half_throughout_and_agrees(name: str) -> None:
    path = zoo_models()[name]["fp32"]
    proto = onnx.load(str(path))
    half = to_half(proto)
    card = read_card(proto)
    assert card is not None
    assert types_of(half) == {TensorProto.FLOAT16}
    image = sample_picture(96, 128, card.input_channels)
    planes = np.atleast_3d(image).transpose(2, 0, 1)[None].astype(np.float32) / 255
    wanted, found = compute(proto, planes), compute(half, planes.astype(np.float16))
    assert found.dtype == np.float16
    error = np.square(wanted.clip(0, 1) - found.astype(np.float32).clip(0, 1)).mean()
    assert 10 * np.log10(1 / error) > 50


def test_half_twice_is_half_once() -> None:
    half = to_half(networks.deep(channels=3, scale=2))
    assert to_half(half).SerializeToString() == half.SerializeToString()


def test_sums_and_shapes_keep_their_float() -> None:
    """A mean over 512x512 bright pixels overflows in half; 3841 is no half at all."""
    nodes = [
        helper.make_node("ReduceSum", ["image", "axes"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "tiny"], ["mean"]),
        helper.make_node("Sub", ["image", "mean"], ["centred"]),
        helper.make_node("Shape", ["image"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sides"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["sides", "one"], ["same"]),
        helper.make_node("Cast", ["same"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["centred", "whole"], ["result"]),
    ]
    weights = {
        "axes": np.array([2, 3], np.int64),
        "tiny": np.float32(1 / (64 * 3841)).reshape(1),
        "one": np.ones(4, np.float32),
    }
    proto = networks.model(nodes, weights, [1, 1, "h", "w"])
    image = np.full((1, 1, 64, 3841), 200.0, np.float32)
    image[..., ::2, :] = 100.0
    wanted = compute(proto, image)
    nodes_half = to_half(proto)
    found = compute(nodes_half, image.astype(np.float16))
    assert found.shape == wanted.shape
    assert np.isfinite(found).all()
    # The scaling of the sum is in half: its result is not exact, but it is no infinity either.
    assert np.abs(found - wanted).max() < 101


def test_constants_resize_and_defaults() -> None:
    """A Resize keeps its scales in float; Constant nodes and ConstantOfShape become half."""
    scales = helper.make_tensor("s", TensorProto.FLOAT, [4], [1.0, 1.0, 1.1, 1.1])
    nodes = [
        helper.make_node("Constant", [], ["scales"], value=scales),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Resize", ["image", "", "scales"], ["large"], mode="linear"),
        helper.make_node("Mul", ["large", "half"], ["result"]),
    ]
    proto = networks.model(nodes, {}, [1, 1, "h", "w"])
    image = np.random.default_rng(1).random((1, 1, 20, 30)).astype(np.float32)
    wanted, found = compute(proto, image), compute(to_half(proto), image.astype(np.float16))
    assert found.shape == wanted.shape == (1, 1, 22, 33)
    assert np.abs(wanted - found).max() < 2e-3


def test_what_cannot_be_half_is_named() -> None:
    heavy = networks.mixer(np.array([[1e6]]))
    with pytest.raises(ModelError, match=r"weight reaches 1e\+06"):
        to_half(heavy)
    quantised = onnx.load(str(zoo_models()["upscale-2x"]["int8"]))
    with pytest.raises(ModelError, match="quantised graph"):
        to_half(quantised)


@pytest.mark.parametrize("name", ["upscale-2x", "wave"])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_pairs_of_bytes_are_the_same_samples(name: str, bits: int) -> None:
    """What TensorRT takes for more than 8 bits is the memory of uint16, and gives the same numbers."""
    proto = onnx.load(str(zoo_models()[name]["fp32"]))
    card = read_card(proto)
    assert card is not None
    image = sample_picture(72, 88, card.input_channels, bits)
    shape = (1, 1, 72, 88) if card.input_channels == 1 else (1, 72, 88, 3)
    whole = compute(wrap(proto, card, bits=bits), image.reshape(shape))
    pairs = wrap(proto, card, bits=bits, samples="bytes")
    found = compute(pairs, image.reshape(shape).view(np.uint8).reshape(*shape, 2))
    np.testing.assert_array_equal(found.view(np.uint16)[..., 0], whole)
    assert {INPUT, OUTPUT} == {pairs.graph.input[0].name, pairs.graph.output[0].name}


names = st.sampled_from(["bf16", "int8", "int8-bf16"])


@given(
    times=st.dictionaries(names, st.floats(0.1, 100)),
    parities=st.dictionaries(names, st.floats(10, 99)),
)
def test_the_choice_is_never_a_bad_bargain(times: dict[str, float], parities: dict[str, float]) -> None:
    measured = {"fp32": Measured(50.0, 99.0)}
    measured |= {name: Measured(time, parities.get(name, 30.0)) for name, time in times.items()}
    chosen = choose(measured, checked=frozenset({"int8"}))
    best = measured[chosen]
    assert best.milliseconds <= 50.0
    if chosen == "bf16":
        assert best.parity_db >= precision_choice.MIN_PARITY_DB
    if chosen == "int8-bf16":
        known = measured["int8"].parity_db - precision_choice.SLACK_DB if "int8" in measured else 99.0
        assert best.parity_db >= min(precision_choice.MIN_PARITY_DB, known)
    for name in ("fp32", "int8"):
        # Never less exact and not faster than what was allowed anyway.
        if name in measured and measured[name].parity_db > best.parity_db:
            assert best.milliseconds < precision_choice.MARGIN * measured[name].milliseconds
            assert best.milliseconds < measured[name].milliseconds - precision_choice.LEAST_GAIN_MS


def test_a_small_gain_is_not_worth_exactness() -> None:
    measured = {"fp32": Measured(10.0, 99.0), "bf16": Measured(9.5, 52.0)}
    assert choose(measured, checked=frozenset()) == "fp32"
    measured["bf16"] = Measured(5.0, 52.0)
    assert choose(measured, checked=frozenset()) == "bf16"
    measured["bf16"] = Measured(5.0, 40.0)
    assert choose(measured, checked=frozenset()) == "fp32"


def test_deep_pictures_do_not_lose_their_depth_to_bf16() -> None:
    """BF16 holds eight bits: a ramp of 10 bits would come back in steps."""
    if "bf16" not in opening.backend_precisions("openvino"):
        pytest.skip("this CPU has no BF16")
    ramp = np.linspace(200, 900, 96 * 128).reshape(96, 128).round().astype(np.uint16)
    results = {}
    for name in ("fp32", "bf16"):
        with open_engine("upscale-2x", "openvino", precision=name) as engine:  # type: ignore[arg-type]
            results[name] = engine.run(ramp, 10).astype(int)
            assert any("FP32" in note for note in engine.notes) == (name == "bf16")
            shallow = engine.run((ramp >> 2).astype(np.uint8))
            assert shallow.dtype == np.uint8
    assert np.abs(results["fp32"] - results["bf16"]).max() <= 1


def test_the_choice_is_measured_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = EngineCache(tmp_path)
    calls: list[tuple[str, ...]] = []

    def counted(engines: dict[str, object], _: tuple[int, int]) -> dict[str, Measured]:
        calls.append(tuple(engines))
        return {name: Measured(5.0 if name == "int8" else 10.0, 50.0) for name in engines}

    monkeypatch.setattr(precision_choice, "measure", counted)
    with open_engine("upscale-2x", "openvino", cache=cache) as engine:
        assert engine.precision == "int8"
        assert any("by measurement" in note for note in engine.notes)
    with open_engine("upscale-2x", "openvino", cache=cache) as engine:
        assert engine.precision == "int8"
        assert not any("by measurement" in note for note in engine.notes)
    assert len(calls) == 1
    assert calls[0][0] == "fp32"
    assert "int8" in calls[0]
    # Another hint, another backend, another model: each is its own question.
    open_engine("upscale-2x", "openvino", cache=cache, hint="latency").close()
    open_engine("upscale-2x", "ort", cache=cache).close()
    assert len(calls) == 3


class Slowed(IdentityEngine):
    """Takes 50 ms at least, and gives half the light."""

    def submit(self, image: Array, bits: int = 8) -> Callable[[], Array]:
        pending = super().submit(image, bits)

        def result() -> Array:
            time.sleep(0.05)
            return pending() // 2

        return result


def test_the_measured_figures_are_true() -> None:
    """FP32 agrees with itself; what is slower by construction is found slower."""
    found = precision_choice.measure({"fp32": IdentityEngine(), "other": Slowed()}, (96, 128))
    assert found["fp32"].parity_db == 99.0
    assert found["other"].parity_db < 60
    assert found["other"].milliseconds >= 50
    assert found["other"].milliseconds > 2 * found["fp32"].milliseconds


def test_what_cannot_be_measured_runs_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> dict[str, Measured]:
        raise EngineError("it takes 16x16 only")

    monkeypatch.setattr(precision_choice, "measure", broken)
    # Its INT8 variant gives a CPU without BF16 a choice, too.
    with open_engine("upscale-2x", "openvino", cache=EngineCache(tmp_path)) as engine:
        assert engine.precision == "fp32"
        assert any("could not be measured" in note for note in engine.notes)


def test_a_quantised_file_is_not_asked_for_fp32() -> None:
    path = zoo_models()["upscale-2x"]["int8"]
    with open_engine(path, "openvino") as engine:
        assert engine.precision.startswith("int8")
    with open_engine(path, "ort") as engine:
        assert engine.precision == "int8"


def test_bf16_with_int8_is_offered_where_both_are() -> None:
    offered = opening.backend_precisions("openvino")
    assert ("int8-bf16" in offered) == ({"int8", "bf16"} <= set(offered))
    if "int8-bf16" not in offered:
        pytest.skip("this CPU has no BF16")
    image = sample_picture(64, 96, 1)
    results = {
        name: open_engine("upscale-2x", "openvino", precision=name)  # type: ignore[arg-type]
        for name in ("int8", "int8-bf16")
    }
    first, second = (engine.run(image).astype(int) for engine in results.values())
    assert 0 < np.abs(first - second).max() <= 4
    for engine in results.values():
        engine.close()


def test_openvino_tells_nobody_that_it_was_imported() -> None:
    """Its telemetry forks beside running threads: seen to hold up a process at its end for ever."""
    code = """
import sys
from velatura.runtime import open_engine
open_engine("upscale-2x", backend="openvino", precision="fp32").close()
assert "openvino" in sys.modules
told = [name for name in sys.modules if name.startswith("openvino_telemetry")]
assert not told, told
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize(("pixels", "measured"), [(1000, False), (10**10, True), (None, True)])
def test_a_short_job_does_not_wait_for_a_measurement(
    pixels: int | None, measured: bool, tmp_path: Path
) -> None:
    """It takes what was measured before, else FP32; a measurement would take longer than the job."""
    cache = EngineCache(tmp_path / "cache")
    told: list[str] = []
    options: dict[str, Any] = {"cache": cache, "progress": lambda what, _: told.append(what)}
    with open_engine("upscale-2x", "ort", pixels=pixels, **options) as engine:
        assert measured or engine.precision == "fp32"
    assert any("measuring" in what for what in told) is measured
    if measured:
        told.clear()
        with open_engine("upscale-2x", "ort", pixels=1000, **options) as again:
            assert again.precision == engine.precision
        assert not told
