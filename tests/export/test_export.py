"""A checkpoint becomes models whose engines compute what the network computes."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner
from velatura.export import command
from velatura.export.precision import quantise
from velatura.export.to_onnx import save, to_onnx
from velatura.export.verify import parity_db, runner
from velatura.runtime import ModelCard, open_engine
from velatura.runtime.card import read_card
from velatura.training.checkpoint import Checkpoint
from velatura.training.loop import averaged_net
from velatura.training.metrics.grid import grid_excess
from velatura.training.nets import build_net
from velatura.training.recipe import load_recipe

from ..rows import soaking

NETS = {
    "upscale-2x": {"kind": "luma-upscaler", "channels": 8, "layers": 2, "width": 16},
    "starry-night": {"kind": "fast-style", "channels": 16, "stem": 8, "blocks": 2},
    "upscale-4x": {"kind": "luma-upscaler", "scale": 4, "channels": 8, "layers": 2, "width": 16},
    "upscale-4x-sharp": {
        "kind": "luma-upscaler",
        "scale": 4,
        "channels": 8,
        "layers": 2,
        "width": 16,
        "smooth": True,
    },
    "johnson-style": {"kind": "johnson-style", "width": 0.125, "blocks": 1},
    "johnson-sr-4x": {"kind": "johnson-upscaler", "scale": 4, "width": 0.125},
    "srcnn": {"kind": "srcnn", "scale": 4},
}
REAL_TIME = ("upscale-2x", "starry-night", "upscale-4x", "upscale-4x-sharp")


def checkpoint(name: str) -> Checkpoint:
    """A small network with random weights and statistics, as a training run would have saved it."""
    torch.manual_seed(4)
    recipe = load_recipe(name)
    mapping = {**recipe.to_mapping(), "net": NETS[name]}
    net = build_net(NETS[name]["kind"], {k: v for k, v in NETS[name].items() if k != "kind"})
    for part in net.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            torch.nn.init.normal_(part.running_mean, std=0.1)
            torch.nn.init.uniform_(part.running_var, 0.5, 1.5)
    average = torch.optim.swa_utils.AveragedModel(net, use_buffers=True)
    return Checkpoint(mapping, 1234, 600.0, net.state_dict(), average.state_dict(), {})


@pytest.fixture(scope="module", params=soaking(NETS, but=["upscale-2x", "starry-night"]))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    model, card = to_onnx(checkpoint(request.param))
    save(model, card, folder / f"{request.param}.onnx")
    return folder / f"{request.param}.onnx"


def picture(card: ModelCard, height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return smooth[:, :, 0].copy() if card.input_colour == "luma" else smooth


@pytest.mark.parametrize("backend", ["openvino", "ort"])
@pytest.mark.parametrize("size", [(64, 96), (56, 48)])
def test_engines_compute_what_the_network_computes(
    exported: Path, backend: str, size: tuple[int, int]
) -> None:
    net = averaged_net(checkpoint(exported.stem))
    with open_engine(exported, backend, precision="fp32") as engine:
        image = picture(engine.card, *size)
        found = engine.run(image)
    tensor = torch.from_numpy(image).float() / 255
    batch = tensor[None, None] if tensor.ndim == 2 else tensor.permute(2, 0, 1)[None]
    with torch.no_grad():
        output = net(batch)[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).squeeze(2).numpy()
    assert np.abs(found.astype(int) - output.squeeze()).max() <= 1


def test_the_graph_is_made_for_integer_engines(exported: Path) -> None:
    model = onnx.load(str(exported))
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"Reshape", "Transpose", "Loop", "If"}, "nothing that engines stumble over"
    if exported.stem in REAL_TIME:
        assert "DepthToSpace" in kinds
        assert kinds <= {"Conv", "Relu", "Add", "DepthToSpace", "Pad", "Concat"}
    text = model.SerializeToString()
    assert b".py" not in text, "the exporter's source paths must not travel"
    assert b"/work" not in text


def test_the_card_tells_how_it_was_trained(exported: Path) -> None:
    card = read_card(onnx.load(str(exported)))
    assert card is not None
    assert card.recipe == card.name == exported.stem
    assert "1,234 of" in card.training
    assert card.licence == "Apache-2.0"
    assert card.losses
    assert card.data
    multiple = {"upscale": 1, "style": 8 if exported.stem in REAL_TIME else 4}
    assert card.size_multiple == multiple[card.task]


@pytest.mark.parametrize("exported", REAL_TIME, indirect=True)
def test_int8_is_close_and_keeps_the_output_layer_unrounded(exported: Path, tmp_path: Path) -> None:
    """Of the others, a net with random weights and a tanh at its end is not close to anything."""
    model = onnx.load(str(exported))
    card = read_card(model)
    assert card is not None
    images = [picture(card, 96, 96) for _ in range(3)]
    batches = [
        (i[None, None] if i.ndim == 2 else i.transpose(2, 0, 1)[None]).astype(np.float32) / 255
        for i in images
    ]
    quantised = quantise(model, batches)
    producers = {name: node for node in quantised.graph.node for name in node.output}
    consumers = [n for n in quantised.graph.node if n.op_type == "QuantizeLinear"]
    assert len(consumers) == len({n.input[0] for n in model.graph.node if n.op_type == "Conv"})
    last = producers[quantised.graph.output[0].name]
    while last.op_type != "Conv":
        assert last.op_type not in ("QuantizeLinear", "DequantizeLinear")
        last = producers[last.input[0]]
    from dataclasses import replace

    save(quantised, replace(card, precision="int8"), tmp_path / "m.int8.onnx")
    with (
        open_engine(exported, precision="fp32") as full,
        open_engine(tmp_path / "m.int8.onnx", precision="int8") as low,
    ):
        assert 25 < parity_db(full, low, images) < 80


def test_parity_of_an_engine_with_itself_is_infinite(exported: Path) -> None:
    with open_engine(exported, precision="fp32") as engine:
        assert parity_db(engine, engine, [picture(engine.card, 40, 40)]) == float("inf")
        with pytest.raises(ValueError, match="at least one image"):
            parity_db(engine, engine, [])


def test_grid_excess_sees_what_a_bad_network_draws(tmp_path: Path, own_pictures: list[Path]) -> None:
    """A network that adds a 4-pixel grid is caught by the measure that the shipped ones pass."""
    from onnx import TensorProto, helper, numpy_helper
    from velatura.training.data import read_image

    tile = np.zeros((1, 1, 4, 4), np.float32)
    tile[0, 0, 0, 0] = 0.05
    nodes = [
        helper.make_node("SpaceToDepth", ["image"], ["cells"], blocksize=4),
        helper.make_node("Add", ["cells", "grid"], ["marked"]),
        helper.make_node("DepthToSpace", ["marked"], ["result"], blocksize=4, mode="DCR"),
    ]
    bias = np.repeat(tile.reshape(16), 3).reshape(1, 48, 1, 1)
    shape = [1, 3, "h", "w"]
    graph = helper.make_graph(
        nodes,
        "grid",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [1, 3, "rows", "columns"])],
        [numpy_helper.from_array(bias, "grid")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    card = ModelCard(name="grid", task="style", size_multiple=4, halo=0)
    save(model, card, tmp_path / "grid.onnx")
    images = [cv2.GaussianBlur(read_image(path), (0, 0), 1) for path in own_pictures[:3]]
    with open_engine(tmp_path / "grid.onnx", precision="fp32") as engine:
        assert grid_excess(runner(engine), images, 4) > 20


def test_the_command_exports_and_measures(small_data: Path, tmp_path: Path) -> None:
    checkpoint("upscale-2x").save(tmp_path / "checkpoint.pt")
    words = [str(tmp_path / "checkpoint.pt"), "-o", str(tmp_path / "out"), "--data", str(small_data)]
    done = CliRunner().invoke(command.app, words)
    assert done.exit_code == 0, done.output
    card = read_card(onnx.load(str(tmp_path / "out/upscale-2x.onnx")))
    assert card is not None
    assert set(card.measures) == {"parity_db", "set5_psnr_y_db", "set14_psnr_y_db"}
    assert json.loads(card.to_json())["recipe"] == "upscale-2x"
    assert not list((tmp_path / "out").glob(".*")), "no trial file is left"


def test_the_command_refuses_a_missing_checkpoint(tmp_path: Path) -> None:
    done = CliRunner().invoke(command.app, [str(tmp_path / "none.pt")])
    assert done.exit_code == 3
    assert "no checkpoint" in done.output


@pytest.mark.parametrize(
    ("full", "low", "refused"),
    [
        ({"set5_psnr_y_db": 36.5}, {"set5_psnr_y_db": 36.40, "parity_db": 45.0}, False),
        ({"set5_psnr_y_db": 36.5}, {"set5_psnr_y_db": 36.30, "parity_db": 45.0}, True),
    ],
)
def test_int8_that_loses_too_much_is_refused(
    full: dict[str, float], low: dict[str, float], refused: bool
) -> None:
    card = ModelCard(name="m", task="upscale", scale=2, measures=full)
    from dataclasses import replace

    assert (command.refusal(card, replace(card, measures=low)) is not None) == refused


@pytest.mark.parametrize(
    ("name", "precision"),
    soaking(
        [
            ("upscale-2x", "fp32"), ("starry-night", "fp32"), ("johnson-sr-4x", "fp32"),
            ("upscale-4x", "fp16"), ("starry-night", "fp16"), ("johnson-style", "fp16"),
        ],
        but=[("starry-night", "fp32"), ("upscale-4x", "fp16")],
    ),
)  # fmt: skip
def test_one_file_takes_frames_as_they_are(
    small_data: Path, tmp_path: Path, name: str, precision: str
) -> None:
    """uint8 in and out, any size, run by ONNX Runtime itself and by our engines alike."""
    import onnxruntime

    checkpoint(name).save(tmp_path / "checkpoint.pt")
    target = tmp_path / "out.onnx"
    words = [str(tmp_path / "checkpoint.pt"), str(target), "--precision", precision]
    done = CliRunner().invoke(command.app, [*words, "--data", str(small_data)])
    assert done.exit_code == 0, done.output
    card = read_card(onnx.load(str(target)))
    assert card is not None
    assert (card.dtype, card.precision) == ("uint8", precision)
    assert card.measures["parity_db"] >= command.MIN_PARITY_DB[precision]
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    with open_engine(target, precision="fp32") as engine:
        for size in ((56, 64), (72, 88)):
            image = picture(card, *size)
            frame = image[None, None] if image.ndim == 2 else image[None]
            (raw,) = session.run(None, {session.get_inputs()[0].name: frame})
            assert raw.dtype == np.uint8
            expected = raw[0, 0] if image.ndim == 2 else raw[0]
            assert expected.shape[:2] == tuple(side * card.scale for side in size)
            assert np.abs(engine.run(image).astype(int) - expected).max() <= (
                1 if precision == "fp32" else 6
            )


def test_a_conversion_that_fails_parity_is_refused(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint("upscale-2x").save(tmp_path / "checkpoint.pt")
    monkeypatch.setitem(command.MIN_PARITY_DB, "fp16", 98.9)
    target = tmp_path / "out.onnx"
    words = [
        str(tmp_path / "checkpoint.pt"),
        str(target),
        "--precision",
        "fp16",
        "--data",
        str(small_data),
    ]
    done = CliRunner().invoke(command.app, words)
    assert done.exit_code == 3
    assert "fails parity" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert CliRunner().invoke(command.app, [*words, "--force"]).exit_code == 0
    assert target.exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--precision", "int4"], "is not fp32, fp16 or int8"),
        (["--io", "bytes"], "neither frames nor tensor"),
        (["model.trt"], "either OUT.onnx or --out FOLDER"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, words: list[str], complaint: str) -> None:
    checkpoint("upscale-2x").save(tmp_path / "checkpoint.pt")
    done = CliRunner().invoke(command.app, [str(tmp_path / "checkpoint.pt"), *words])
    assert done.exit_code == 3
    assert complaint in done.output


def test_the_layers_that_make_the_picture_stay_in_float(exported: Path) -> None:
    model = onnx.load(str(exported))
    card = read_card(model)
    assert card is not None
    nodes = {n.name: n for n in model.graph.node if n.op_type in ("Conv", "ConvTranspose")}
    first = next(iter(nodes))
    for names in command.kept_in_float(card, model):
        assert set(names) < set(nodes)
        if card.task == "upscale":
            assert first in names
            reads_picture = [n for n, node in nodes.items() if node.input[0] == "image"]
            assert set(reads_picture) <= set(names)
