"""FP16 files: parity, extreme pictures, frames of 8 and 10 bits at both ends."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner
from velatura.export import command
from velatura.export.precision import extremes, half_precision, largest_activation
from velatura.export.to_onnx import save
from velatura.export.verify import parity_db
from velatura.runtime import ModelCard, open_engine
from velatura.runtime.backends.tuning import sample_picture
from velatura.runtime.card import read_card
from velatura.runtime.zoo import zoo_models

ZOO = list(zoo_models())


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


@pytest.mark.parametrize("name", ZOO)
def test_no_extreme_picture_overflows_a_shipped_model(name: str) -> None:
    proto = onnx.load(str(zoo_models()[name]["fp32"]))
    card = read_card(proto)
    assert card is not None
    half, half_card, worst = half_precision(proto, card)
    assert 0.5 < worst.value < 70, "the README says so"
    assert (half_card.dtype, half_card.precision) == ("float16", "fp16")
    session = onnxruntime.InferenceSession(half.SerializeToString())
    for given in extremes(card).values():
        (result,) = session.run(None, {session.get_inputs()[0].name: given.astype(np.float16)})
        assert np.isfinite(result).all()


@pytest.mark.parametrize("name", ZOO)
def test_half_agrees_as_well_as_the_readme_says(name: str, data_root: Path, tmp_path: Path) -> None:
    path = zoo_models()[name]["fp32"]
    proto = onnx.load(str(path))
    card = read_card(proto)
    assert card is not None
    half, half_card, _ = half_precision(proto, card)
    save(half, half_card, tmp_path / "half.onnx")
    photos = [p[:256, :384].copy() for p in command.pictures(card, data_root)[:4]]
    with (
        open_engine(path, "ort", precision="fp32") as full,
        open_engine(tmp_path / "half.onnx", "ort", precision="fp32") as low,
    ):
        assert parity_db(full, low, photos) >= 59


def test_what_overflows_is_refused_and_named() -> None:
    proto, card = loud(50_000.0)
    assert largest_activation(proto, extremes(card).values()).value == 50_000.0
    half_precision(proto, card)
    proto, card = loud(2.0)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(60_000), "gain"))
    wide = replace(card, value_range=(0.0, 2.0))
    with pytest.raises(ValueError, match=r"overflows: loud reaches 120000"):
        half_precision(proto, wide)


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
def test_a_zoo_model_is_exported_in_half(name: str, data_root: Path, tmp_path: Path) -> None:
    """A user without the checkpoint gets the FP16 file, too, for TensorRT's own tools."""
    target = tmp_path / "half.onnx"
    said = export(name, target, "--precision", "fp16", "--data", data_root)
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
def test_ten_bits_travel_in_halves(name: str, precision: str, data_root: Path, tmp_path: Path) -> None:
    target = tmp_path / "ten.onnx"
    export(name, target, "--precision", precision, "--bits", 10, "--data", data_root)
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
def test_bad_words(words: list[str], complaint: str, data_root: Path, tmp_path: Path) -> None:
    source = "upscale-2x"
    if words[0] == "nowhere.onnx":
        source, words = str(tmp_path / "nowhere.onnx"), [str(tmp_path / "out.onnx")]
    elif words[0] == "zoo.int8.onnx":
        source, words = str(zoo_models()["upscale-2x"]["int8"]), [str(tmp_path / "out.onnx")]
    else:
        words = [str(tmp_path / "o.onnx"), *words] if words[0] == "--bits" else words
    done = CliRunner().invoke(command.app, [source, *words, "--data", str(data_root)])
    assert done.exit_code == 3
    assert complaint in done.output
    assert not list(tmp_path.glob("*.onnx"))
