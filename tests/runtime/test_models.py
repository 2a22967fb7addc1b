"""Cards in their files, foreign models by inspection, and the suggestions for wrong names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from velatura.runtime import CardFlags, ModelCard, ModelError, open_engine
from velatura.runtime.backends.model import find_model, load_model
from velatura.runtime.backends.open import trial_runner
from velatura.runtime.card import METADATA_KEY, read_card
from velatura.runtime.zoo import zoo_models

from . import networks


def inspected(path: Path, **flags: object) -> tuple[ModelCard, tuple[str, ...]]:
    model = load_model(path, flags=CardFlags(**flags), trial=trial_runner())  # type: ignore[arg-type]
    return model.card, model.notes


@given(
    name=st.text(min_size=1, max_size=20),
    scale=st.integers(1, 8),
    halo=st.integers(0, 200),
    fixed=st.none() | st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
    measures=st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False), max_size=3),
)
def test_a_card_survives_its_file(
    name: str,
    scale: int,
    halo: int,
    fixed: tuple[int, int] | None,
    measures: dict[str, float],
) -> None:
    card = ModelCard(
        name=name, task="upscale", scale=scale, halo=halo, fixed_size=fixed, measures=measures
    )
    proto = networks.mixer(np.eye(3))
    proto.metadata_props.add(key="other", value="kept")
    card.write_to(proto)
    card.write_to(proto)
    again = onnx.load_from_string(proto.SerializeToString())
    assert read_card(again) == card
    assert [entry.key for entry in again.metadata_props] == ["other", METADATA_KEY]


def test_keys_of_a_later_version_are_ignored() -> None:
    text = ModelCard(name="m", task="style").to_json()
    assert ModelCard.from_json(text[:-1] + ', "aura": 7}').name == "m"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", '{"name": "m"}', '{"name": "m", "task": "dance"}',
     '{"name": "m", "task": "style", "scale": 0}', '{"name": "m", "task": "style", "layout": "hwc"}'],
)  # fmt: skip
def test_a_bad_card_is_a_model_error(text: str) -> None:
    with pytest.raises(ModelError, match="card"):
        ModelCard.from_json(text)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_inspection_finds_layout_channels_and_type(
    layout: str, channels: int, dtype: str, tmp_path: Path
) -> None:
    proto = networks.mixer(np.eye(channels), layout=layout, dtype=dtype)
    card, notes = inspected(networks.write(proto, tmp_path / "some.onnx"))
    assert (card.layout, card.dtype) == (layout, dtype)
    assert card.input_colour == card.output_colour == ("luma" if channels == 1 else "rgb")
    assert (card.scale, card.size_multiple, card.fixed_size) == (1, 1, None)
    assert any("0..1" in note and "--range 255" in note for note in notes)
    assert any("RGB" in note for note in notes) == (channels == 3)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_inspection_finds_scale_and_size_multiple(scale: int, tmp_path: Path) -> None:
    card, _ = inspected(networks.write(networks.deep(channels=3, scale=scale), tmp_path / "m.onnx"))
    assert (card.scale, card.size_multiple) == (scale, 2)
    assert card.task == ("upscale" if scale > 1 else "style")


def test_a_declared_size_that_the_graph_does_not_need_is_dropped(tmp_path: Path) -> None:
    proto = networks.mixer(np.eye(3))
    for dim, value in zip(proto.graph.input[0].type.tensor_type.shape.dim[2:], (40, 64), strict=True):
        dim.dim_value = value
    card, _ = inspected(networks.write(proto, tmp_path / "m.onnx"))
    assert card.fixed_size is None
    with open_engine(tmp_path / "m.onnx") as engine:
        assert engine.run(np.zeros((10, 20, 3), np.uint8)).shape == (10, 20, 3)


def test_a_size_that_the_graph_needs_is_kept(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["image", "stamp"], ["result"])]
    stamp = np.zeros((1, 3, 40, 64), np.float32)
    proto = networks.model(nodes, {"stamp": stamp}, [1, 3, 40, 64])
    card, notes = inspected(networks.write(proto, tmp_path / "m.onnx"))
    assert card.fixed_size == (40, 64)
    assert any("64x40 only" in note for note in notes)


def test_flags_settle_what_inspection_cannot_know(tmp_path: Path) -> None:
    path = networks.write(networks.mixer(np.eye(3)), tmp_path / "m.onnx")
    card, notes = inspected(path, value_range=255.0, colour_order="bgr")
    assert card.value_range == (0.0, 255.0)
    assert card.input_colour == card.output_colour == "bgr"
    assert not any("taken as" in note for note in notes)


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [([1, 4, "h", "w"], "channels"), ([1, 3, "h"], "3-dimensional")],
)
def test_a_wrong_shape_is_refused(shape: list[int | str], complaint: str, tmp_path: Path) -> None:
    proto = networks.model([helper.make_node("Identity", ["image"], ["result"])], {}, shape,
                           out_shape=shape)  # fmt: skip
    path = networks.write(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=complaint):
        open_engine(path)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    proto = networks.mixer(np.eye(3))
    proto.graph.input.add().CopyFrom(
        helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [1, 3, "h", "w"])
    )
    with pytest.raises(ModelError, match="2 inputs"):
        open_engine(networks.write(proto, tmp_path / "m.onnx"))


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["image"], ["result"])]
    proto = networks.model(nodes, {}, [1, 3, "h", "w"])
    with pytest.raises(ModelError, match="no frame size"):
        open_engine(networks.write(proto, tmp_path / "m.onnx"))


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(range(256)) * 20])
def test_a_corrupt_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a readable ONNX model"):
        open_engine(path)


def test_a_truncated_zoo_model_is_refused(tmp_path: Path) -> None:
    whole = find_model("upscale-2x").read_bytes()
    for part in (0.3, 0.6, 0.9):
        path = tmp_path / "cut.onnx"
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(ModelError):
            open_engine(path)


def test_near_names_are_suggested() -> None:
    with pytest.raises(ModelError, match=r"did you mean starry-night\?"):
        open_engine("stary-nigth")
    with pytest.raises(ModelError, match="there are: "):
        open_engine("qqqqqqq")
    with pytest.raises(ModelError, match="no model file at"):
        open_engine("models/none.onnx")


def test_every_zoo_name_is_found() -> None:
    for name, variants in zoo_models().items():
        for precision, path in variants.items():
            assert find_model(name, precision=precision) == path


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ingame_style_960x540.onnx", {"scale": 1, "size_multiple": 4}),
        ("2x_animejanai_sd_compact_fp16.onnx", {"scale": 2, "dtype": "float16"}),
        ("candy_nc16_256x256.onnx", {"scale": 1, "fixed_size": (256, 256)}),
    ],
)
def test_models_from_elsewhere(data_root: Path, name: str, expected: dict[str, object]) -> None:
    path = data_root / "peers" / name
    card, _ = inspected(path)
    assert replace(card, **expected) == card  # type: ignore[arg-type]
    wants_255 = name.startswith("candy")
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    with open_engine(path, flags=CardFlags(value_range=255.0 if wants_255 else None)) as engine:
        output = engine.run(image)
    assert output.shape == (120 * card.scale, 160 * card.scale, 3)
    assert output.std() > 10
