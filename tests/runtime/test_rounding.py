"""Half precision measured as it is: each tensor rounded to its own type, overflow seen."""

import importlib.util
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, helper
from velatura.runtime import EngineError, ModelCard, ModelError
from velatura.runtime.backends import half_emulation
from velatura.runtime.backends import open as opening
from velatura.runtime.backends.half import to_half
from velatura.runtime.backends.half_emulation import RoundedEngine, RoundedGraph
from velatura.runtime.backends.model import Model
from velatura.runtime.backends.precision_choice import sample_picture
from velatura.runtime.jobs import engines
from velatura.runtime.jobs.engines import halve

from . import networks

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)

LUMA = ModelCard(name="net", task="style", input_colour="luma", output_colour="luma", halo=0)
SHAPE: list[int | str] = [1, 1, "h", "w"]


def chain(*steps: tuple[str, str, float], dtype: str = "float16") -> ModelProto:
    """`image` through operators with one constant each, every step's result named."""
    nodes, weights, last = [], {}, "image"
    for kind, name, constant in steps:
        nodes.append(helper.make_node(kind, [last, f"{name}_by"], [name], name))
        weights[f"{name}_by"] = np.array(constant, dtype)
        last = name
    nodes[-1].output[0] = "result"
    return networks.model(nodes, weights, SHAPE, dtype=dtype)


def luma(*steps: tuple[str, str, float], **card: Any) -> Model:
    return Model(proto=chain(*steps, dtype="float32"), card=replace(LUMA, **card))


def half(model: Model) -> Model:
    card = replace(model.card, dtype="float16", precision="fp16")
    return Model(proto=to_half(model.proto), card=card)


# A thousand more and a thousand less: the last bits of 0..1 are gone in half, and no operator shows it.
DRIFT = (("Add", "up", 1000.0), ("Sub", "down", 1000.0))
# 90,000 in the middle, cut off again: the result is right, and yet a tensor left half's range.
HIDDEN = (("Mul", "far", 300.0), ("Mul", "farther", 300.0), ("Min", "cut", 1.0))


def test_what_lies_between_two_nodes_is_a_half() -> None:
    given = np.full((1, 1, 1, 1), 0.3, np.float16)
    found = RoundedGraph(chain(*DRIFT))(given)
    assert found.dtype == np.float16
    assert found.item() == np.float16(0.3) + np.float16(1000) - np.float16(1000) == 0.5


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(("Add", "Sub", "Mul", "Div")), st.floats(2**-6, 300, width=16)),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 2**32 - 1),
)
def test_every_operator_rounds_as_numpy_does(steps: list[tuple[str, float]], seed: int) -> None:
    proto = chain(*((kind, f"t{i}", constant) for i, (kind, constant) in enumerate(steps)))
    given = np.random.default_rng(seed).normal(size=(1, 1, 4, 5)).astype(np.float16)
    wanted = given
    compute = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
    with np.errstate(over="ignore", invalid="ignore"):
        for kind, constant in steps:
            wanted = compute[kind](wanted, np.float16(constant))
    graph = RoundedGraph(proto)
    assert np.array_equal(graph(given), wanted, equal_nan=True)
    assert (graph.overflow is None) == np.isfinite(wanted).all()


def test_a_float_graph_is_not_rounded() -> None:
    found = RoundedGraph(chain(*DRIFT, dtype="float32"))(np.full((1, 1, 1, 1), 0.3, np.float32))
    assert abs(found.item() - 0.3) < 1e-4


def test_a_result_that_others_read_and_an_input_that_is_left_out() -> None:
    nodes = [
        helper.make_node("Clip", ["image", "", "one"], ["cut"]),
        helper.make_node("Add", ["cut", "cut"], ["result"]),
        helper.make_node("Shape", ["result"], ["unread"]),
    ]
    proto = networks.model(nodes, {"one": np.float16(1)}, SHAPE, dtype="float16")
    graph = RoundedGraph(proto)
    for size in ((2, 3), (5, 4)):
        assert (graph(np.full((1, 1, *size), 3, np.float16)) == np.full((1, 1, *size), 2)).all()


def test_overflow_is_named_where_it_begins() -> None:
    graph = RoundedGraph(chain(*HIDDEN, ("Mul", "last", 1.0)))
    assert graph(np.full((1, 1, 2, 2), 0.25, np.float16)).max() == 1
    assert graph.overflow is None
    given = np.zeros((1, 1, 2, 2), np.float16)
    given[0, 0, 1, 1] = 1
    assert graph(given).max() == 1
    assert graph.overflow == "farther"


def test_an_infinity_that_is_meant_is_no_overflow() -> None:
    nodes = [
        helper.make_node("Max", ["image", "lowest"], ["floor"]),
        helper.make_node("Where", ["mask", "image", "lowest"], ["masked"]),
        helper.make_node("Max", ["masked", "floor"], ["result"]),
    ]
    weights = {"lowest": np.float16(-np.inf), "mask": np.array([[[[True, False]]]])}
    graph = RoundedGraph(networks.model(nodes, weights, SHAPE, dtype="float16"))
    assert (graph(np.ones((1, 1, 3, 2), np.float16)) == 1).all()
    assert graph.overflow is None


@pytest.mark.parametrize("bits", [8, 10])
def test_the_engine_takes_pictures_as_any_other(bits: int) -> None:
    model = half(luma(("Mul", "same", 1.0), size_multiple=8, min_size=16))
    for size in ((40, 24), (13, 50)):
        picture = sample_picture(*size, 1, bits)
        with RoundedEngine(model) as engine:
            found = engine.run(picture, bits)
        assert (found.shape, found.dtype) == (picture.shape, picture.dtype)
        # A half in 0..1 has steps of 1/2048 below one.
        assert np.abs(found.astype(int) - picture).max() <= (0 if bits == 8 else 1)
        assert engine.overflow is None


def test_a_node_that_is_refused_is_told() -> None:
    proto = chain(*DRIFT)
    proto.opset_import.append(helper.make_opsetid("my.lab", 1))
    proto.graph.node[1].domain, proto.graph.node[1].op_type = "my.lab", "Sharpen"
    card = replace(LUMA, dtype="float16")
    with (
        RoundedEngine(Model(proto=proto, card=card)) as engine,
        pytest.raises(EngineError, match=r"failed on net: operator my.lab.Sharpen"),
    ):
        engine.run(np.zeros((16, 16), np.uint8))


# `velatura build`.


def test_roundings_between_operators_refuse_a_build() -> None:
    with pytest.raises(EngineError, match=r"agrees with FP32 to [\d.]+ dB only, where 45 are asked"):
        halve(luma(*DRIFT), force=False)
    _, parity = halve(luma(*DRIFT), force=True)
    assert parity is not None
    assert parity.db < 30
    assert parity.of == "tensors"


def test_an_overflow_that_the_result_does_not_show_refuses_a_build() -> None:
    with pytest.raises(EngineError, match="overflows in FP16: farther becomes infinite"):
        halve(luma(*HIDDEN), force=False)
    assert halve(luma(*HIDDEN), force=True)[0].card.precision == "fp16"


def test_a_network_that_half_suits_is_built() -> None:
    model, parity = halve(luma(("Mul", "dim", 0.7)), force=False)
    assert (model.card.dtype, model.card.precision) == ("float16", "fp16")
    assert parity is not None
    assert parity.db > 55
    assert halve(model, force=False) == (model, None), "there is nothing to compare it with"
    with pytest.raises(ModelError, match="is quantised"):
        halve(luma(("Mul", "dim", 0.7), precision="int8"), force=False)


def test_without_onnxruntime_a_build_says_what_it_has_not_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OpenVINO computes a half graph in float32: even the thousand goes unseen."""
    monkeypatch.setattr(opening, "cpu_backends", lambda: ("openvino",))
    monkeypatch.setattr(
        half_emulation, "unavailable", lambda: "the package onnxruntime is not installed"
    )
    _, parity = halve(luma(*DRIFT), force=False)
    assert parity is not None
    assert parity.of == "weights"
    assert "by the weights alone" in engines.half_words(parity)
    assert engines.half_words(replace(parity, db=61.26, of="tensors")) == "61.3 dB against FP32"
