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
from velatura.training.vgg import VGG16_BLOCKS

from .conftest import random_vgg


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
    torch.save(random_vgg(VGG16_BLOCKS, 1), server / "made.pth")
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


def test_a_changed_conversion_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made.npz"
    np.savez(path, weight=np.arange(4))
    monkeypatch.setitem(weights.CONVERTED, "made.npz", hashlib.sha256(path.read_bytes()).hexdigest())
    weights.verify(path)
    np.savez(path, weight=np.arange(5))
    with pytest.raises(ValueError, match="damaged or another file"):
        weights.verify(path)
