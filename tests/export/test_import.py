"""`velatura import`: weights from elsewhere become models with a name, and no code in them is run."""

import importlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from velatura.export import weights as weights_of
from velatura.export.weights import network_of, read_weights
from velatura.runtime import open_engine
from velatura.runtime.card import read_card
from velatura.runtime.zoo import FOLDER_VARIABLE, named_models, own_models

from ..rows import soaking
from ..runtime import networks, videos
from ..runtime.commands import velatura

pytest.importorskip("safetensors")
TERMS = ("--licence", "CC-BY-4.0", "--origin", "a test")


def spandrel_class(architecture: str, name: str) -> Callable[..., torch.nn.Module]:
    weights_of.spandrel()
    return getattr(importlib.import_module(f"spandrel.architectures.{architecture}"), name)


NETS: dict[str, tuple[str, str, dict[str, Any], int]] = {
    "compact": ("Compact", "Compact", {"num_feat": 16, "num_conv": 3, "upscale": 2}, 2),
    "span": (
        "SPAN", "SPAN", {"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 16, "upscale": 2}, 2,
    ),
    "esrgan-lite": ("ESRGAN", "ESRGAN", {"num_filters": 8, "num_blocks": 1, "scale": 4}, 4),
    "safmn": ("SAFMN", "SAFMN", {"dim": 16, "n_blocks": 2, "upscaling_factor": 2}, 2),
    "dncnn": ("DnCNN", "DnCNN", {"nc": 16, "nb": 4}, 1),
}  # fmt: skip
"""Architecture, class, hyperparameters and scale."""


def random_net(key: str) -> torch.nn.Module:
    """With weights large enough for a result with contrast."""
    architecture, name, given, _ = NETS[key]
    torch.manual_seed(7)
    return spandrel_class(architecture, name)(**given)


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of own models for each test."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest one that is there, as .pth."""
    path = tmp_path_factory.mktemp("weights") / "2x tiny.pth"
    net = spandrel_class("Compact", "Compact")(num_feat=4, num_conv=1, upscale=2)
    torch.save({"params_ema": net.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def made(compact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that `velatura import` makes of it, for tests of what follows."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(folder))
        velatura("import", compact, *TERMS, check=True)
    return folder / "2x-tiny.onnx"


@pytest.fixture
def there(made: Path, own: Path) -> Path:
    """The same among the test's own models."""
    own.mkdir()
    return Path(shutil.copy(made, own))


@pytest.mark.slow
@pytest.mark.parametrize("key", soaking(NETS, but=["compact", "dncnn"]))
def test_architectures_agree_with_pytorch(key: str, tmp_path: Path) -> None:
    """Half of them as .pth, half as .safetensors; the engine is held to the network as it was built."""
    net = random_net(key)
    state = net.state_dict()
    path = tmp_path / f"{key}.pth"
    if key in ("compact", "safmn"):
        path = path.with_suffix(".safetensors")
        importlib.import_module("safetensors.torch").save_file(state, str(path))
    else:
        torch.save(state, path)
    done = velatura("import", path, *TERMS, "--json", check=True)
    (found,) = json.loads(done.stdout)["imported"]
    assert found["name"] == key
    assert found["scale"] == NETS[key][3]
    assert found["fixed_size"] is None
    assert min(found["parity_db"].values()) >= 60
    assert set(found["parity_db"]) == {"ort", "openvino"}
    # A size that no part of the export has seen, through the name.
    with open_engine(key, precision="fp32") as engine:
        card = engine.card
        assert (card.licence, card.attribution) == ("CC-BY-4.0", "a test")
        picture = np.random.default_rng(0).integers(0, 256, (72, 104, 3), np.uint8)
        given = picture[:, :, 0].copy() if card.input_colour == "luma" else picture
        result = np.atleast_3d(engine.run(given)).astype(float)
    tensor = torch.from_numpy(np.atleast_3d(given)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        wanted = network_of(read_weights(path), path)(tensor).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    assert result.std() > 2, "a picture of one colour would agree with anything"
    error = np.square(result - (wanted * 255).round()).mean()
    assert error == 0 or 10 * np.log10(255**2 / error) >= 60


def test_an_imported_model_is_a_model_like_any_other(compact: Path, own: Path, tmp_path: Path) -> None:
    """By its name in a run, in the list and in `info`; and gone when it is removed."""
    done = velatura("import", compact, *TERMS, check=True)
    assert "2x-tiny: RealESRGAN Compact" in done.stdout
    assert "of any size" in done.stdout
    assert list(own_models()) == ["2x-tiny"]
    assert [path.name for path in own.iterdir()] == ["2x-tiny.onnx"], "no trial is left"
    source = videos.make(tmp_path / "in.mkv", size=(96, 64), frames=3)
    velatura("run", source, tmp_path / "out.mkv", "-m", "2x-tiny", check=True)
    assert videos.read(tmp_path / "out.mkv").width == 192
    assert b".py" not in (own / "2x-tiny.onnx").read_bytes(), "the exporter's notes must not travel"
    card = json.loads(velatura("info", "2x-tiny", "--json", check=True).stdout)
    assert card["licence"] == "CC-BY-4.0"
    assert "imported from 2x tiny.pth (SHA-256" in card["training"]
    listed = json.loads(velatura("models", "--json", check=True).stdout)
    assert set(listed) == set(named_models())
    assert listed["2x-tiny"]["fp32"]["attribution"] == "a test"
    assert "2x-tiny" in velatura("models", check=True).stdout
    velatura("models", "remove", "2x-tiny", check=True)
    assert not own_models()
    gone = velatura("run", source, tmp_path / "again.mkv", "-m", "2x-tiny")
    assert gone.returncode == 5
    assert "unknown model '2x-tiny'" in gone.stderr


@pytest.mark.usefixtures("there")
def test_only_ones_own_models_are_removed() -> None:
    for name, told in (("wave", "shipped with velatura"), ("none", "is none of your own")):
        done = velatura("models", "remove", "2x-tiny", name)
        assert done.returncode == 5
        assert told in done.stderr
        assert "yours are: 2x-tiny" in done.stderr
    assert list(own_models()) == ["2x-tiny"], "all or none"
    assert velatura("models", "remove").returncode == 2
    assert velatura("models", "list", "wave").returncode == 2


def test_a_name_that_is_taken_stays_what_it_was(compact: Path, there: Path) -> None:
    before = there.read_bytes()
    for words in ((), ("--name", "wave"), ("--name", "identity")):
        done = velatura("import", compact, *words, *TERMS)
        assert done.returncode == 5
        assert "taken" in done.stderr
        assert "--name" in done.stderr
    assert there.read_bytes() == before
    done = velatura("import", compact, "--name", "../escape", *TERMS)
    assert done.returncode == 5
    assert "no name for a model" in done.stderr


class Code:
    """What a hostile pickle does when it is read by a careless reader."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_code_in_weights_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    tensor = torch.zeros(3)
    torch.save({"params": {"weight": tensor, "more": Code(mark)}}, tmp_path / "zip.pth")
    torch.save({"more": Code(mark)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Code(mark), protocol=2))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    for name in ("zip.pth", "old.pth", "bare.pth", "module.pth", "script.pt"):
        done = velatura("import", tmp_path / name, *TERMS)
        assert done.returncode == 5, name
        assert "which is code. Nothing of it was run" in done.stderr, name
        assert "Traceback" not in done.stderr
    assert not mark.exists()
    assert not own_models()
    # The pickle does run where one is careless: the test can fail.
    with pytest.raises(Exception):  # noqa: B017, PT011 - a Linear's weights are missing, or whatever
        torch.load(tmp_path / "zip.pth", weights_only=False)["params"]["more"].run()
    assert mark.exists()


def cut(path: Path, part: float) -> bytes:
    whole = path.read_bytes()
    return whole[: int(len(whole) * part)]


def broken(folder: Path, compact: Path) -> Iterator[tuple[Path, str]]:
    whole = folder / "whole.safetensors"
    importlib.import_module("safetensors.torch").save_file({"a": torch.zeros(99)}, str(whole))
    files: dict[str, tuple[bytes, str]] = {
        "cut.pth": (cut(compact, 0.5), "damaged"),
        "nearly.pth": (cut(compact, 0.97), "damaged"),
        "cut.safetensors": (cut(whole, 0.5), "damaged"),
        "empty.pth": (b"", "damaged"),
        "text.pth": (b"not a model at all", "damaged"),
        "text.safetensors": (b"not a model at all", "damaged"),
        "text.onnx": (b"not a model at all", "not a readable ONNX model"),
        "film.mp4": (b"anything", "ends in none of"),
        "strange.safetensors": (whole.read_bytes(), "architectures that spandrel"),
    }
    for name, (content, told) in files.items():
        (folder / name).write_bytes(content)
        yield folder / name, told
    torch.save([1, 2], folder / "list.pth")
    yield folder / "list.pth", "no weights by name"
    torch.save({"recipe": {}, "step": 3}, folder / "checkpoint.pt")
    yield folder / "checkpoint.pt", "velatura export"
    state = torch.load(compact, weights_only=True)["params_ema"]
    state["body.0.weight"] = state["body.0.weight"][:2]
    torch.save(state, folder / "misfit.pth")
    yield folder / "misfit.pth", "does not fit the architecture"
    yield folder / "none.pth", "no file at"


def test_bad_files_say_what_is_wrong(compact: Path, tmp_path: Path) -> None:
    for path, told in broken(tmp_path, compact):
        done = velatura("import", path, *TERMS)
        assert done.returncode == 5, (path, done.stderr)
        assert told in done.stderr, (path, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not own_models()


def test_a_folder_is_imported_file_by_file(compact: Path, tmp_path: Path) -> None:
    """The safest of several files of one name; what fails stops no other, what is there stays."""
    folder = tmp_path / "many"
    folder.mkdir()
    state = torch.load(compact, weights_only=True)["params_ema"]
    save = importlib.import_module("safetensors.torch").save_file
    save(state, str(folder / "both.safetensors"), {"modelspec.author": "somebody"})
    torch.save({"x": Code(tmp_path / "ran")}, folder / "both.pth")
    (folder / "broken.pth").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("not a model")
    onnx.save(networks.deep(channels=3, scale=2), str(folder / "graph.onnx"))
    words = ("import", folder, "--licence", "MIT", "--json")
    assert velatura(*words).returncode == 2, "the graph states no origin"
    done = velatura(*words, "--origin", "a test")
    assert done.returncode == 5
    told = json.loads(done.stdout)
    assert {found["name"] for found in told["imported"]} <= {"both", "graph"}
    assert [Path(found["source"]).name for found in told["failed"]] == ["broken.pth"]
    assert sorted(own_models()) == ["both", "graph"]
    (own_models()["both"]["fp32"].parent / "broken-by-hand.onnx").write_bytes(b"nothing")
    assert not (tmp_path / "ran").exists()
    again = json.loads(velatura(*words, "--origin", "a test").stdout)
    assert not again["imported"]
    assert len(again["failed"]) == 1
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no" in velatura("import", empty, *TERMS).stderr
    assert velatura("import", folder, "--name", "x", *TERMS).returncode == 2


def test_terms_are_stated_in_the_file_or_given(compact: Path, tmp_path: Path) -> None:
    """No terminal is here to ask at: what is missing is an error, and nothing is guessed."""
    done = velatura("import", compact, "--licence", "MIT")
    assert done.returncode == 2
    assert "--origin" in done.stderr
    assert not own_models()
    state = torch.load(compact, weights_only=True)["params_ema"]
    stated = {"modelspec.license": "Apache-2.0", "modelspec.author": "somebody", "modelspec.title": "T"}
    path = tmp_path / "stated.safetensors"
    importlib.import_module("safetensors.torch").save_file(state, str(path), stated)
    velatura("import", path, check=True)
    card = read_card(onnx.load(str(own_models()["stated"]["fp32"])))
    assert card is not None
    assert (card.licence, card.attribution, card.title) == ("Apache-2.0", "somebody", "T")


def test_a_graph_keeps_what_it_was_told(tmp_path: Path) -> None:
    """Range, order of channels and strength stand in the card and the graph from then on."""
    node = helper.make_node("Add", ["image", "noise_level"], ["result"])
    proto = networks.model([helper.make_node("Identity", ["image"], ["result"])], {}, [1, 3, "h", "w"])
    del proto.graph.node[:]
    proto.graph.node.append(node)
    level = helper.make_tensor_value_info("noise_level", onnx.TensorProto.FLOAT, [1])
    proto.graph.input.append(level)
    path = networks.write(proto, tmp_path / "Noisy 1.5.onnx")
    words = ("--range", "255", "--channels", "bgr", "--strength", "9")
    done = velatura("import", path, *words, *TERMS, "--json", check=True)
    (found,) = json.loads(done.stdout)["imported"]
    assert found["name"] == "Noisy-1-5"
    assert found["architecture"] == ""
    with open_engine("Noisy-1-5", precision="fp32") as engine:
        assert engine.card.value_range == (0.0, 255.0)
        assert engine.card.input_colour == "bgr"
        assert (engine.run(np.full((40, 40, 3), 50, np.uint8)) == 59).all()


def test_a_graph_that_disagrees_is_not_kept(
    compact: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is asked for."""
    forward = weights_of.Network.forward

    def other(self: Any, image: torch.Tensor) -> torch.Tensor:
        # As if the exporter had missed a branch: what runs in PyTorch is brighter.
        exporting = torch.compiler.is_exporting()
        return forward(self, image) + (0.0 if exporting else 0.02)

    monkeypatch.setattr(weights_of.Network, "forward", other)
    done = velatura("import", compact, *TERMS)
    assert done.returncode == 5
    assert "less than 60 (--force" in done.stderr
    assert not list(own.iterdir())
    velatura("import", compact, *TERMS, "--force", check=True)
    assert list(own_models()) == ["2x-tiny"]


def test_a_folder_that_cannot_be_written_is_told(
    compact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file" / "own"))
    done = velatura("import", compact, *TERMS)
    assert done.returncode == 4
    assert FOLDER_VARIABLE in done.stderr


def test_a_file_in_the_own_folder_that_is_no_model_spoils_no_list(there: Path) -> None:
    (there.parent / "broken.onnx").write_bytes(b"nothing")
    done = velatura("models", check=True)
    assert "2x-tiny" in done.stdout
    assert "broken.onnx is not a readable" in done.stderr


def test_a_shipped_name_stays_what_it_is(own: Path) -> None:
    own.mkdir()
    networks.write(networks.mixer(np.eye(3)), own / "wave.onnx")
    assert named_models()["wave"]["fp32"].parent != own
