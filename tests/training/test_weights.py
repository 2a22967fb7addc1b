"""Finding, fetching and verifying the loss networks' weights."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from velatura.training import weights
from velatura.training.perception import resolve
from velatura.training.recipe import load_recipe

from .test_vgg import VGG16_BLOCKS, torchvision_state


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch/hub/checkpoints"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served as torchvision's address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        monkeypatch.setenv("VELATURA_WEIGHTS_URL", f"http://127.0.0.1:{listening.server_port}/")
        yield folder
        listening.shutdown()
        thread.join()


def test_a_file_is_fetched_once_and_verified(
    hub: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(torchvision_state(VGG16_BLOCKS, 1), server / "made.pth")
    digest = hashlib.sha256((server / "made.pth").read_bytes()).hexdigest()[:8]
    name = f"vgg16-{digest}.pth"
    monkeypatch.setitem(weights.TORCHVISION_FILES, "vgg16", weights.WeightFile(name, "VGG-16"))
    (server / "made.pth").rename(server / name)
    assert weights.download("vgg16") == hub / name
    (server / name).unlink()
    assert weights.download("vgg16") == hub / name, "the second time it is there"
    assert weights.find_weights("vgg16", None, []) == hub / name


def test_a_wrong_file_is_not_kept(hub: Path, server: Path) -> None:
    (server / "vgg16-397923af.pth").write_bytes(b"a login page")
    with pytest.raises(ValueError, match="SHA-256"):
        weights.download("vgg16")
    assert not list(hub.glob("*"))


@pytest.mark.usefixtures("hub", "server")
def test_an_address_without_the_file_is_an_error() -> None:
    with pytest.raises(OSError, match="cannot be fetched"):
        weights.download("vgg19")


@pytest.mark.usefixtures("hub")
def test_missing_weights_say_where_and_how(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"VGG-16 weights at .*--download.*--weights vgg16"):
        weights.find_weights("vgg16", None, [tmp_path / "none.npz"])


def test_a_changed_conversion_is_noticed(data_root: Path, tmp_path: Path) -> None:
    with np.load(data_root / "weights/squeezenet1_1_fire9.npz") as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    changed["conv1.bias"] = changed["conv1.bias"] + 1
    np.savez(tmp_path / "squeezenet1_1_fire9.npz", **changed)
    with pytest.raises(ValueError, match="damaged or another file"):
        weights.verify(tmp_path / "squeezenet1_1_fire9.npz")
    weights.verify(data_root / "weights/squeezenet1_1_fire9.npz")


@pytest.mark.usefixtures("hub")
def test_the_papers_layers_are_taken_where_the_weights_hold_them(
    data_root: Path, tmp_path: Path
) -> None:
    recipe = load_recipe("johnson-style")
    light = resolve(recipe, data_root)
    assert set(light.style) == {"relu1_2", "relu2_2", "relu3_3", "fire6"}
    torch.save(torchvision_state(VGG16_BLOCKS, 4), tmp_path / "full.pth")
    full = resolve(recipe, data_root, {"vgg16": tmp_path / "full.pth"})
    assert set(full.style) == {"relu1_2", "relu2_2", "relu3_3", "relu4_3"}
    assert not full.style_full
    assert resolve(full, data_root) == full, "a checkpoint's recipe stays what it is"
