"""The range of values in which a foreign network works: guessed from a photograph, said, or doubted."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from velatura.runtime import CardFlags, ModelError, open_engine
from velatura.runtime.backends.base import Model
from velatura.runtime.backends.model import load_model
from velatura.runtime.backends.open import cpu_backends, trial_runner
from velatura.runtime.backends.value_range import photograph
from velatura.runtime.card import ModelCard
from velatura.runtime.zoo import zoo_models

from . import networks, videos
from .commands import velatura

BLUR = (np.eye(3)[:, :, None, None] * np.full((1, 1, 3, 3), 1 / 9)).astype(np.float32)
"""A convolution that keeps the colours."""


def chain(
    *steps: tuple[str, float] | str, shape: tuple[int | str, ...] = (1, 3, "h", "w")
) -> onnx.ModelProto:
    """A blur between arithmetic: `*`, `+` with a number, or an operator's name; `blur` is the blur."""
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, np.ndarray] = {"blur": BLUR}
    last = "image"
    for number, step in enumerate(steps):
        name = f"t{number}"
        if step == "blur":
            nodes.append(
                helper.make_node("Conv", [last, "blur"], [name], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
            )
        elif isinstance(step, str):
            nodes.append(helper.make_node(step, [last], [name]))
        else:
            weights[f"k{number}"] = np.array(step[1], np.float32)
            kind = {"*": "Mul", "+": "Add", "most": "Min", "least": "Max"}[step[0]]
            nodes.append(helper.make_node(kind, [last, f"k{number}"], [name]))
        last = name
    nodes[-1].output[0] = "result"
    return networks.model(nodes, weights, list(shape))


UNIT_NET = chain(("*", 5.0), ("+", -2.5), "blur", "Sigmoid")
"""A sigmoid of a contrast about 0.5."""
LEVELS_NET = chain(("*", 1 / 255), ("*", 5.0), ("+", -2.5), "blur", "Sigmoid", ("*", 255.0))
"""The same in levels."""
SIGNED_NET = chain("blur", ("*", 1.5), "Tanh")
MIXED_NET = chain(("*", 5.0), ("+", -2.5), "blur", "Sigmoid", ("*", 255.0))
"""Takes 0..1 and gives levels."""
HARD_UNIT_NET = chain(("least", 0.0), ("most", 1.0), "blur", ("+", 0.02))
"""Nothing above 1 is seen, and no last layer tells."""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return videos.make(tmp_path / "in.mkv", frames=3)


def load(proto: onnx.ModelProto, folder: Path, flags: CardFlags | None = None) -> Model:
    path = networks.write(proto, folder / "net.onnx")
    return load_model(path, flags=flags or CardFlags(), trial=trial_runner())


@pytest.mark.parametrize(
    ("proto", "given", "made"),
    [
        (UNIT_NET, (0.0, 1.0), None),
        (LEVELS_NET, (0.0, 255.0), None),
        (SIGNED_NET, (-1.0, 1.0), None),
        (MIXED_NET, (0.0, 1.0), (0.0, 255.0)),
        (HARD_UNIT_NET, (0.0, 1.0), None),
    ],
    ids=["unit", "levels", "signed", "mixed", "hard"],
)
def test_a_photograph_tells_the_range(
    proto: onnx.ModelProto, given: tuple[float, float], made: tuple[float, float] | None, tmp_path: Path
) -> None:
    model = load(proto, tmp_path)
    assert (model.card.value_range, model.card.output_range) == (given, made)
    assert not any("warning" in note for note in model.notes)
    picture = (photograph(64, 80, 3) * 255).round().astype(np.uint8)
    with open_engine(tmp_path / "net.onnx", precision="fp32") as engine:
        found = engine.run(picture)
    assert np.corrcoef(found.ravel(), picture.ravel())[0, 1] > 0.8


@pytest.mark.quick_rows(3)
@pytest.mark.parametrize("name", list(zoo_models()))
def test_our_own_networks_would_be_guessed_right(name: str, tmp_path: Path) -> None:
    proto = onnx.load(str(zoo_models()[name]["fp32"]))
    card = ModelCard.from_json(next(e.value for e in proto.metadata_props if e.key == "velatura"))
    del proto.metadata_props[:]
    model = load(proto, tmp_path)
    assert (model.card.value_range, model.card.output_range) == (card.value_range, None)
    assert not any("warning" in note for note in model.notes)


def test_what_clips_nearly_everywhere_is_told(tmp_path: Path) -> None:
    model = load(chain("blur", ("*", 1e5), ("+", -3e4)), tmp_path)
    assert any("black or white nearly everywhere" in note for note in model.notes)
    wrong = load(LEVELS_NET, tmp_path, CardFlags(value_range=1.0))
    assert any("warning" in note and "0..1" in note for note in wrong.notes)


def test_what_resembles_nothing_is_told(tmp_path: Path) -> None:
    model = load(chain(("*", 9e3), "Sin", ("*", 0.5), ("+", 0.5)), tmp_path)
    assert any("does not resemble it" in note for note in model.notes)


@pytest.mark.parametrize("backend", cpu_backends())
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_mean_and_deviation_are_taken_out_and_put_back(
    colour: str, layout: str, backend: str, tmp_path: Path
) -> None:
    """The network gives back what it gets where that is above 0: each channel is cut at its mean."""
    mean, deviation = (0.2, 0.5, 0.7), (0.1, 0.2, 0.3)
    shape = (1, 3, "h", "w") if layout == "nchw" else (1, "h", "w", 3)
    networks.write(chain("Relu", shape=shape), tmp_path / "net.onnx")
    flags = CardFlags(value_range=1.0, mean=mean, deviation=deviation, colour_order=colour)  # type: ignore[arg-type]
    picture = np.random.default_rng(1).integers(0, 256, (40, 48, 3), np.uint8)
    with open_engine(tmp_path / "net.onnx", backend, flags=flags, precision="fp32") as engine:
        found = engine.run(picture).astype(int)
    wanted = np.maximum(picture / 255, mean) * 255
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize("backend", cpu_backends())
def test_the_command_takes_ranges(backend: str, clip: Path, tmp_path: Path) -> None:
    networks.write(SIGNED_NET, tmp_path / "net.onnx")
    given = ("run", clip, tmp_path / "out.mkv", "-m", tmp_path / "net.onnx", "--backend", backend)
    for words in (["--range", "-1..1"], ["--range", "-1..1:0..255"],
                  ["--range", "1", "--mean", "0.5,0.5,0.5", "--deviation", "0.5,0.5,0.5"]):  # fmt: skip
        done = velatura(*given, "--frames", 2, "--overwrite", *words)
        assert done.returncode == 0, done.stderr
        assert ("warning" in done.stderr) is (":" in words[1])


@pytest.mark.parametrize(
    "words",
    ["--range 2", "--range 1..-1", "--range a..b", "--range 1:", "--mean 1,2 --deviation 1,2",
     "--mean 1,1,1", "--mean 1,1,1 --deviation 0,1,1", "--range nan..1"],
)  # fmt: skip
def test_ranges_that_are_none(words: str, clip: Path, tmp_path: Path) -> None:
    done = velatura("run", clip, tmp_path / "out.mkv", "-m", "wave", *words.split())
    assert done.returncode == 2, done.stderr
    assert not (tmp_path / "out.mkv").exists()


def fixed(side: int, *, declared: bool) -> onnx.ModelProto:
    """A network whose inside knows one size only."""
    nodes = [
        helper.make_node("Conv", ["image", "blur"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["c", "flat"], ["f"]),
        helper.make_node("Reshape", ["f", "square"], ["result"]),
    ]
    weights = {
        "blur": BLUR,
        "flat": np.array([1, 3, side * side]),
        "square": np.array([1, 3, side, side]),
    }
    return networks.model(nodes, weights, [1, 3, side, side] if declared else [1, 3, "h", "w"])


@pytest.mark.parametrize("backend", ["auto", *cpu_backends()])
@pytest.mark.parametrize("fit", ["tile", "resize"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_network_of_128_pixels_is_one_of_a_single_size(
    declared: bool, fit: str, backend: str, tmp_path: Path
) -> None:
    """128 is a size that was tried, and a multiple of 32: it ran, and was taken to run on all such."""
    networks.write(fixed(128, declared=declared), tmp_path / "net.onnx")
    picture = (photograph(150, 200, 3) * 255).round().astype(np.uint8)
    with open_engine(tmp_path / "net.onnx", backend, fit=fit) as engine:  # type: ignore[arg-type]
        assert (engine.card.fixed_size, engine.card.size_multiple) == ((128, 128), 1)
        found = engine.run(picture)
    assert found.shape == picture.shape
    assert np.corrcoef(found.ravel(), picture.ravel())[0, 1] > 0.9


def loose(what: str) -> onnx.ModelProto:
    proto = chain("blur", ("*", 0.9))
    if what == "name":
        proto.graph.name = ""
    elif what == "shape":
        proto.graph.output[0].type.tensor_type.ClearField("shape")
    elif what == "order":
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in proto.graph.node]
        del proto.graph.node[:]
        proto.graph.node.extend(reversed(nodes))
    elif what == "format":
        proto.ir_version = 99
    return proto


@pytest.mark.parametrize("backend", cpu_backends())
@pytest.mark.parametrize("what", ["name", "shape", "order", "format"])
def test_what_libraries_run_is_a_readable_model(what: str, backend: str, tmp_path: Path) -> None:
    """The standard's checker refuses files that every library reads."""
    path = tmp_path / "net.onnx"
    path.write_bytes(loose(what).SerializeToString())
    with open_engine(path, backend, precision="fp32") as engine:
        assert engine.run(np.full((64, 64, 3), 200, np.uint8))[32, 32].tolist() == [180] * 3


def test_what_no_library_runs_is_named_by_the_standard(tmp_path: Path) -> None:
    proto = chain("blur")
    proto.graph.node[0].op_type = "Upsample"
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"not a readable ONNX model: .*Upsample"):
        open_engine(tmp_path / "net.onnx")


def test_a_circle_is_refused_before_a_library_goes_round_it(tmp_path: Path) -> None:
    """OpenVINO never came back from one."""
    proto = chain("blur", "Relu")
    proto.graph.node[1].input[0] = proto.graph.node[1].output[0]
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="not a readable ONNX model"):
        open_engine(tmp_path / "net.onnx")


def test_a_card_with_a_range_that_is_none_is_refused() -> None:
    for wrong in (
        {"value_range": (1.0, 0.0)},
        {"mean": (1.0,)},
        {"mean": (1.0,) * 3, "deviation": (0.0,) * 3},
    ):
        with pytest.raises(ModelError, match=r"range|mean|deviation"):
            ModelCard(name="m", task="style", **wrong)  # type: ignore[arg-type]
