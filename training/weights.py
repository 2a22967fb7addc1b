"""Where the loss networks' weights come from, and whether they are what they should be."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

URL = "https://download.pytorch.org/models/"


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A published weight file."""

    name: str
    """As torchvision names it; the eight hexadecimal digits begin its SHA-256."""
    network: str

    @property
    def digest(self) -> str:
        """First digits of the file's SHA-256."""
        return Path(self.name).stem.rsplit("-", 1)[1]


TORCHVISION_FILES = {
    "vgg16": WeightFile("vgg16-397923af.pth", "VGG-16"),
    "vgg19": WeightFile("vgg19-dcbb9e9d.pth", "VGG-19"),
}

# SHA-256 of the Caffe conversions, by file name: they carry no hash in it.
CONVERTED = {
    "vgg16_relu3_3.npz": "e48aa66f360bfd280602f6cabec42a90c49c923715133117de8bc13cf7b4c56a",
}


def hub_path(network: str) -> Path:
    """Where torch's hub keeps the network's torchvision weights on this machine."""
    return Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION_FILES[network].name


def find_weights(network: str, given: Path | None, candidates: Iterable[Path]) -> Path:
    """The weight file to use: `given`, else torch's hub cache, else the first candidate that exists.

    Full torchvision weights come before the candidates, which may stop at some layer. Raises
    FileNotFoundError that says where it looked and how to get the file.
    """
    places = [given] if given is not None else [hub_path(network), *candidates]
    for place in places:
        if place.is_file():
            return place
    file = TORCHVISION_FILES[network]
    raise FileNotFoundError(
        f"no {file.network} weights at {' or '.join(map(str, places))}: "
        f"`velatura train --download` fetches {file.name} into torch's cache, or give a file with "
        f"--weights {network}=PATH"
    )


def download(network: str) -> Path:
    """Fetch torchvision's file into torch's hub cache, unless it is there, and verify its hash.

    `VELATURA_WEIGHTS_URL` replaces the address of torchvision's files, for a mirror. Raises OSError
    when it cannot be fetched and ValueError when what came is not the file; a bad file is not kept.
    """
    path = hub_path(network)
    if not path.is_file():
        address = os.environ.get("VELATURA_WEIGHTS_URL", URL).rstrip("/") + "/" + path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        try:
            torch.hub.download_url_to_file(address, str(partial), progress=False)
            verify(partial, name=path.name)
            partial.replace(path)
        except OSError as error:
            raise OSError(f"{address} cannot be fetched: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
    verify(path)
    return path


def verify(path: Path, *, name: str | None = None) -> None:
    """Check the file against the hash that its name carries or that is known for it.

    Raises ValueError when they differ; a file of another name has no known hash and passes.
    """
    name = name or path.name
    known = {file.name: file.digest for file in TORCHVISION_FILES.values()} | CONVERTED
    if name not in known:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(known[name]):
        raise ValueError(
            f"{path} is damaged or another file: its SHA-256 begins {found[:8]}, not "
            f"{known[name][:8]}; delete it and fetch it again"
        )
