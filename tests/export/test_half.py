"""FP16 files: parity, extreme pictures, frames of 8 and 10 bits at both ends."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner
from velatura.export import command
from velatura.export.precision import extremes, half_precision, largest_activation
from velatura.export.to_onnx import save, to_onnx
from velatura.export.verify import open_measured, parity_db
from velatura.runtime import ModelCard, open_engine
from velatura.runtime.backends.half_emulation import RoundedGraph
from velatura.runtime.backends.precision_choice import sample_picture
from velatura.runtime.card import read_card
from velatura.runtime.zoo import zoo_models
from velatura.training.checkpoint import Checkpoint
from velatura.training.nets import build_net
from velatura.training.recipe import load_recipe

ZOO = list(zoo_models())
ROOT = Path(__file__).resolve().parents[2]
FIGURES: dict[str, Any] = json.loads((ROOT / "benchmarks/results/quality.json").read_text())["models"]


def export(*words: object) -> str:
    done = CliRunner().invoke(command.app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.output


def loud(gain: float) -> tuple[onnx.ModelProto, ModelCard]:
    """A network that is right in the end, but whose middle reaches `gain`."""
    nodes = [
        helper.make_node("Mul", ["image", "gain"], ["loud"]),
        helper.make_node("Div", ["loud", "gain"], ["result"]),
    ]
    shape = [1, 1, "h", "w"]
    graph = helper.make_graph(
        nodes,
        "loud",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32(gain), "gain")],
    )
    card = ModelCard(name="loud", task="style", input_colour="luma", output_colour="luma", halo=0)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    card.write_to(proto)
    return proto, card


@pytest.mark.quick_rows(3)
@pytest.mark.parametrize("name", ZOO)
def test_no_extreme_picture_overflows_a_shipped_model(name: str) -> None:
    proto = onnx.load(str(zoo_models()[name]["fp32"]))
    card = read_card(proto)
    assert card is not None
    half, half_card, worst = half_precision(proto, card)
    # As the documents say it; half holds 65,504.
    assert worst.value == pytest.approx(
        FIGURES[name]["fp16"]["largest_activation_on_extremes"], rel=0.02
    )
    assert (half_card.dtype, half_card.precision) == ("float16", "fp16")
    graph = RoundedGraph(half)
    for given in extremes(card).values():
        assert np.isfinite(graph(given.astype(np.float16))).all()
    assert graph.overflow is None, "nor do halves, each rounded, add up to one"


@pytest.mark.quick_rows(3)
@pytest.mark.parametrize(
    ("where", "least"), [("own_data", 54), pytest.param("data_root", 58, marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("name", ZOO)
def test_half_agrees_as_well_as_the_documents_say(
    name: str, where: str, least: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """58 dB on photographs; the frames of the sample, smooth and with even noise, are harder."""
    path = zoo_models()[name]["fp32"]
    proto = onnx.load(str(path))
    card = read_card(proto)
    assert card is not None
    half, half_card, _ = half_precision(proto, card)
    save(half, half_card, tmp_path / "half.onnx")
    root: Path = request.getfixturevalue(where)
    some = slice(4) if where == "data_root" else slice(1, 3)
    photos = [p[:256, :384].copy() for p in command.pictures(card, root)[some]]
    with (
        open_engine(path, "ort", precision="fp32") as full,
        open_measured(tmp_path / "half.onnx", "fp16") as low,
    ):
        assert parity_db(full, low, photos) >= least


def test_what_overflows_is_refused_and_named() -> None:
    proto, card = loud(50_000.0)
    assert largest_activation(proto, extremes(card).values()).value == 50_000.0
    half_precision(proto, card)
    proto, card = loud(2.0)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(60_000), "gain"))
    wide = replace(card, value_range=(0.0, 2.0))
    with pytest.raises(ValueError, match=r"overflows: loud reaches 120000"):
        half_precision(proto, wide)


def middle(*steps: tuple[str, float], colour: str = "luma") -> tuple[onnx.ModelProto, ModelCard]:
    """A network of operators with one constant each, tensors t0, t1 and so on."""
    names = [*(f"t{index}" for index in range(len(steps) - 1)), "result"]
    sources = ["image", *names[:-1]]
    nodes = [
        helper.make_node(kind, [source, f"{name}_by"], [name])
        for (kind, _), source, name in zip(steps, sources, names, strict=True)
    ]
    weights = [
        numpy_helper.from_array(np.float32(value), f"{name}_by")
        for (_, value), name in zip(steps, names, strict=True)
    ]
    shape = [1, 1 if colour == "luma" else 3, "h", "w"]
    image, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("image", "result")
    )
    graph = helper.make_graph(nodes, "middle", [image], [result], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    # As an upscaler: a style's grid would be measured, too, on all of Kodak's pictures.
    card = ModelCard(name="middle", task="upscale", input_colour=colour, output_colour=colour, halo=0)  # type: ignore[arg-type]
    card.write_to(proto)
    return proto, card


@pytest.mark.parametrize("io", ["frames", "tensor"])
@pytest.mark.parametrize("bits", [8, 10])
def test_roundings_between_operators_are_measured(
    io: str, bits: int, small_data: Path, tmp_path: Path
) -> None:
    """A thousand added and taken away again costs a half its last bits, between the two operators."""
    source, target = tmp_path / "middle.onnx", tmp_path / "half.onnx"
    save(*middle(("Add", 1000.0), ("Sub", 1000.0), colour="rgb"), source)
    words = [source, target, "--precision", "fp16", "--io", io, "--bits", bits, "--data", small_data]
    done = CliRunner().invoke(command.app, [str(word) for word in words])
    assert done.exit_code == 3
    assert "fp16 fails parity" in done.output
    assert not target.exists()
    export(*words, "--force")
    card = read_card(onnx.load(str(target)))
    assert card is not None
    assert card.measures["parity_db"] < 30


def test_a_checkpoints_half_is_measured_against_pytorch_in_the_same_way(
    small_data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    net = build_net("luma-upscaler", {"channels": 8, "layers": 2, "width": 16})
    average = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
    mapping = load_recipe("upscale-2x").to_mapping()
    mapping["net"] = {"kind": "luma-upscaler", "channels": 8, "layers": 2, "width": 16}
    trained = Checkpoint(mapping, 1, 1.0, net.state_dict(), average.state_dict(), {})
    proto, card = to_onnx(trained)

    def parity() -> float:
        half, half_card, _ = half_precision(proto, card)
        save(half, half_card, tmp_path / "half.onnx")
        return command.torch_parity(trained, tmp_path / "half.onnx", small_data, precision="fp16")

    assert 50 < parity() < 80
    proto.graph.node[-1].output[0] = "made"
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1000), "thousand"))
    proto.graph.node.append(helper.make_node("Add", ["made", "thousand"], ["far"]))
    proto.graph.node.append(helper.make_node("Sub", ["far", "thousand"], ["result"]))
    assert parity() < 30


def test_overflow_on_a_photograph_is_refused(small_data: Path, tmp_path: Path) -> None:
    """The result hides it, and so do the extreme pictures: only what is neither black nor white is far.

    x (1 - x) 340,000 reaches 85,000 in the middle and nothing at the ends.
    """
    proto, card = middle(("Sub", 1.0), ("Mul", -340.0))
    graph = proto.graph
    graph.node[1].output[0] = "near"
    graph.initializer.extend([
        numpy_helper.from_array(np.float32(1000), "more"),
        numpy_helper.from_array(np.float32(1), "most"),
    ])  # fmt: skip
    graph.node.extend([
        helper.make_node("Mul", ["near", "image"], ["nearer"]),
        helper.make_node("Mul", ["nearer", "more"], ["far"]),
        helper.make_node("Min", ["far", "most"], ["result"]),
    ])  # fmt: skip
    half_precision(proto, card)
    source, target = tmp_path / "middle.onnx", tmp_path / "half.onnx"
    save(proto, card, source)
    words = [source, target, "--precision", "fp16", "--data", small_data]
    done = CliRunner().invoke(command.app, [str(word) for word in words])
    assert done.exit_code == 3
    assert "FP16 overflows: far becomes infinite on a photograph" in done.output
    assert list(tmp_path.iterdir()) == [source]


def test_extremes_reach_both_ends_in_every_layout() -> None:
    for layout, channels in (("nchw", "rgb"), ("nhwc", "rgb"), ("nchw", "luma")):
        card = ModelCard(
            name="m",
            task="style",
            layout=layout,  # type: ignore[arg-type]
            input_colour=channels,  # type: ignore[arg-type]
            output_colour=channels,  # type: ignore[arg-type]
            value_range=(-1.0, 1.0),
        )
        found = extremes(card, (8, 12))
        planes = card.input_channels
        shape = (1, 8, 12, planes) if layout == "nhwc" else (1, planes, 8, 12)
        assert {given.shape for given in found.values()} == {shape}
        assert (found["black"] == -1).all()
        assert (found["white"] == 1).all()
        assert set(np.unique(found["noise"])) == {-1.0, 1.0}
        assert not np.array_equal(found["squares"], found["checkerboard"])


@pytest.mark.parametrize("name", ["upscale-2x", "starry-night"])
def test_a_zoo_model_is_exported_in_half(name: str, small_data: Path, tmp_path: Path) -> None:
    """A user without the checkpoint gets the FP16 file, too, for TensorRT's own tools."""
    target = tmp_path / "half.onnx"
    said = export(name, target, "--precision", "fp16", "--data", small_data)
    assert "largest activation" in said
    proto = onnx.load(str(target))
    card = read_card(proto)
    assert card is not None
    assert (card.dtype, card.precision) == ("uint8", "fp16")
    assert card.measures["parity_db"] >= 45
    kinds = {t.data_type for t in proto.graph.initializer if t.data_type != TensorProto.INT64}
    assert kinds == {TensorProto.FLOAT16}, "weights and scales alike"
    first, last = proto.graph.node[0], proto.graph.node[-1]
    assert first.op_type == last.op_type == "Cast", "the casts stand at the integer tensors"
    assert (first.input[0], last.output[0]) == (proto.graph.input[0].name, proto.graph.output[0].name)


@pytest.mark.parametrize("name", ["upscale-2x", "starry-night"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_ten_bits_travel_in_halves(name: str, precision: str, small_data: Path, tmp_path: Path) -> None:
    target = tmp_path / "ten.onnx"
    export(name, target, "--precision", precision, "--bits", 10, "--data", small_data)
    card = read_card(onnx.load(str(target)))
    assert card is not None
    assert (card.dtype, card.value_range) == ("float16", (0.0, 1.0))
    session = onnxruntime.InferenceSession(str(target))
    image = sample_picture(72, 96, card.input_channels, 10)
    shape = (1, 1, 72, 96) if card.input_channels == 1 else (1, 72, 96, 3)
    given = (image.astype(np.float32) / 1023).astype(np.float16).reshape(shape)
    (raw,) = session.run(None, {session.get_inputs()[0].name: given})
    assert raw.dtype == np.float16
    found = raw.astype(np.float64).reshape(-1) * 1023
    with open_engine(name, "ort", precision="fp32") as engine:
        wanted = engine.run(image, 10).astype(np.float64).reshape(-1)
    # Half a level by the half at the end, and what half arithmetic costs.
    assert np.abs(found - wanted).max() < (2.0 if precision == "fp32" else 12.0)
    assert np.square(found - wanted).mean() < 2.0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--bits", "12"], "takes 8 or 10"),
        (["--out", "folder"], "takes a checkpoint"),
        (["nowhere.onnx"], "no model file"),
        (["zoo.int8.onnx"], "is not in float32"),
    ],
)
def test_bad_words(words: list[str], complaint: str, small_data: Path, tmp_path: Path) -> None:
    source = "upscale-2x"
    if words[0] == "nowhere.onnx":
        source, words = str(tmp_path / "nowhere.onnx"), [str(tmp_path / "out.onnx")]
    elif words[0] == "zoo.int8.onnx":
        source, words = str(zoo_models()["upscale-2x"]["int8"]), [str(tmp_path / "out.onnx")]
    else:
        words = [str(tmp_path / "o.onnx"), *words] if words[0] == "--bits" else words
    done = CliRunner().invoke(command.app, [source, *words, "--data", str(small_data)])
    assert done.exit_code == 3
    assert complaint in done.output
    assert not list(tmp_path.glob("*.onnx"))
