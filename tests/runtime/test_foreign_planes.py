"""Foreign networks of chroma, with a noise or strength plane, and of several frames at once."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper
from velatura.runtime import CardFlags, ModelError, open_engine
from velatura.runtime.backends.model import load_model
from velatura.runtime.backends.open import cpu_backends, trial_runner

from . import networks

PICTURE = np.random.default_rng(3).integers(0, 256, (40, 56, 3), np.uint8)


def mixed(matrix: list[list[float]], bias: list[float] | None = None) -> ModelProto:
    """Each output channel a weighted sum of the input channels."""
    weight = np.array(matrix, np.float32)[:, :, None, None]
    node = helper.make_node("Conv", ["image", "weight", "bias"], ["result"], kernel_shape=[1, 1])
    weights = {"weight": weight, "bias": np.array(bias or [0.0] * len(matrix), np.float32)}
    return networks.model([node], weights, [1, weight.shape[1], "h", "w"])


def with_level(level_shape: list[int | str], name: str = "sigma") -> ModelProto:
    """A second input that is added to the picture."""
    node = helper.make_node("Add", ["image", name], ["result"])
    proto = networks.model([helper.make_node("Identity", ["image"], ["result"])], {}, [1, 3, "h", "w"])
    del proto.graph.node[:]
    proto.graph.node.append(node)
    value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, level_shape)
    proto.graph.input.append(value)
    return proto


def run(proto: ModelProto, tmp_path: Path, backend: str = "auto", **flags: float) -> np.ndarray:
    path = networks.write(proto, tmp_path / "m.onnx")
    with open_engine(path, backend, precision="fp32", flags=CardFlags(**flags)) as engine:
        return engine.run(PICTURE[:, :, 0].copy() if engine.card.input_colour == "luma" else PICTURE)


def refused(proto: ModelProto, tmp_path: Path) -> str:
    path = networks.write(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as error:
        load_model(path, flags=CardFlags(), trial=trial_runner())
    return str(error.value)


@pytest.mark.parametrize("backend", cpu_backends())
def test_a_strength_plane_beside_rgb_is_filled(backend: str, tmp_path: Path) -> None:
    """Red, green and blue each get the plane once, twice and not at all."""
    proto = mixed([[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 0]])
    found = run(proto, tmp_path, backend, strength=20 / 255)
    wanted = np.minimum(PICTURE.astype(int) + np.array([20, 40, 0]), 255)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_a_strength_plane_beside_luma_is_filled(tmp_path: Path) -> None:
    found = run(mixed([[1, 1]]), tmp_path, strength=20 / 255)
    wanted = np.minimum(PICTURE[:, :, 0].astype(int) + 20, 255)
    assert np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("backend", cpu_backends())
@pytest.mark.parametrize("shape", [[1, 1, "h", "w"], [1, 1, 1, 1], [1], []])
def test_a_level_of_its_own_input_becomes_part_of_the_graph(
    shape: list[int | str], backend: str, tmp_path: Path
) -> None:
    found = run(with_level(shape), tmp_path, backend, strength=30 / 255)
    wanted = np.minimum(PICTURE.astype(int) + 30, 255)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_a_level_that_nobody_gave_is_light_and_told(tmp_path: Path) -> None:
    path = networks.write(with_level([1, 1, "h", "w"], "noise_map"), tmp_path / "m.onnx")
    with open_engine(path, precision="fp32") as engine:
        assert any("0.0588" in note and "--strength" in note for note in engine.notes)
        found = engine.run(PICTURE)
    wanted = np.minimum(PICTURE.astype(int) + 15, 255)
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_a_second_picture_is_not_taken_for_a_level(tmp_path: Path) -> None:
    assert "2 inputs" in refused(with_level([1, 1, "h", "w"], "mask"), tmp_path)
    assert "2 inputs" in refused(with_level([1, 3, "h", "w"], "noise"), tmp_path)


def yuv(picture: np.ndarray) -> np.ndarray:
    """BT.709 in full range, 0..1 with the middle of chroma at a half."""
    red, green, blue = np.moveaxis(picture / 255.0, 2, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return np.stack([luma, (blue - luma) / 1.8556 + 0.5, (red - luma) / 1.5748 + 0.5])


@pytest.mark.parametrize("backend", cpu_backends())
@pytest.mark.parametrize("planes", [2, 3])
def test_a_network_of_chroma_leaves_luma_alone(planes: int, backend: str, tmp_path: Path) -> None:
    """It halves the saturation; the picture of chroma in the middle is its own luma."""
    halved = [[0.5, 0], [0, 0.5]] if planes == 2 else [[0, 0.5, 0], [0, 0, 0.5]]
    gentle = (PICTURE * 0.4 + 70).astype(np.uint8)
    path = networks.write(mixed(halved, [0.25, 0.25]), tmp_path / "chroma.onnx")
    with open_engine(path, backend, precision="fp32") as engine:
        found = engine.run(gentle)
        assert engine.card.input_colour == "rgb"
        assert any("chroma planes" in note for note in engine.notes)
    before, after = yuv(gentle), yuv(found)
    assert np.abs(after[0] - before[0]).max() < 1.5 / 255
    assert np.abs((after[1:] - 0.5) - (before[1:] - 0.5) / 2).max() < 1.5 / 255


def test_chroma_of_another_size_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("DepthToSpace", ["big"], ["result"], blocksize=2)]
    nodes.insert(0, helper.make_node("Conv", ["image", "weight"], ["big"], kernel_shape=[1, 1]))
    weight = np.ones((8, 2, 1, 1), np.float32)
    told = refused(networks.model(nodes, {"weight": weight}, [1, 2, "h", "w"]), tmp_path)
    assert "no frame size" in told
    assert "chroma planes of U and V" in told


@pytest.mark.parametrize(
    ("given", "made", "told"),
    [(9, 3, "3 frames of 3"), (15, 3, "5 frames of 3"), (16, 3, "5 frames of 3 and a level"),
     (6, 3, "2 frames of 3"), (3, 1, "3 frames of luma"), (5, 1, "5 frames of 1")],
)  # fmt: skip
def test_several_frames_at_once_are_refused_with_what_is_missing(
    given: int, made: int, told: str, tmp_path: Path
) -> None:
    error = refused(mixed([[1 / given] * given] * made), tmp_path)
    assert told in error
    assert "neighbours" in error
    assert "single pictures" in error


def test_frames_along_an_axis_of_their_own_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("ReduceMean", ["image", "axis"], ["result"], keepdims=0)
    proto = networks.model([node], {"axis": np.array([1])}, [1, 5, 3, "h", "w"])
    error = refused(proto, tmp_path)
    assert "5 frames" in error
    assert "neighbours" in error


def test_four_channels_in_and_out_are_no_picture(tmp_path: Path) -> None:
    assert "4 channels" in refused(mixed(np.eye(4).tolist()), tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [("a.pth", "velatura import"), ("a.safetensors", "velatura import"), ("a.pb", "TensorFlow"),
     ("a.param", "ncnn"), ("a.bin", "ncnn")],
)  # fmt: skip
def test_files_of_other_formats_are_named(name: str, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ModelError, match=told):
        open_engine(tmp_path / name)


PEERS = {
    "2x_animejanai_sd_compact_fp16.onnx": "runs",
    "candy_nc16_256x256.onnx": "runs",
    "ingame_style_960x540.onnx": "runs",
    "ESPCN_x2.pb": "TensorFlow",
    "FSRCNN-small_x2.pb": "TensorFlow",
    "FSRCNN_x2.pb": "TensorFlow",
    "realesr-animevideov3-x2.bin": "ncnn",
    "realesr-animevideov3-x2.param": "ncnn",
}


def test_every_peer_is_listed(data_root: Path) -> None:
    assert {path.name for path in (data_root / "peers").iterdir()} == set(PEERS)


@pytest.mark.quick_rows(3)
@pytest.mark.parametrize("name", list(PEERS))
def test_every_peer_runs_or_is_refused_by_its_name(name: str, data_root: Path) -> None:
    path = data_root / "peers" / name
    if PEERS[name] != "runs":
        with pytest.raises(ModelError, match=PEERS[name]):
            open_engine(path)
        return
    with open_engine(path, precision="fp32") as engine:
        found = engine.run(PICTURE)
        side = engine.card.scale
    assert found.shape == (40 * side, 56 * side, 3)
    assert found.std() > 10
