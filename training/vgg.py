"""VGG-16 and VGG-19 as loss networks: frozen feature extractors with named layers.

Both were trained on ImageNet. Weight files disagree about their input: torchvision's wants RGB, 0..1,
normalised by mean and deviation; the Caffe conversions (`.npz`) want BGR, 0..255, minus a mean. The
loaders know which is which, so callers always pass RGB, 0..1.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar, NamedTuple
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .weights import verify
from .winograd import LEAST_CHANNELS, WinogradConv

# Output channels of conv1_1 .. conv5_3, grouped by block (Simonyan and Zisserman 2015, D).
VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# The same of configuration E.
VGG19_BLOCKS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


class Preprocessing(NamedTuple):
    """How a weight file wants its input: `(x[:, order] * scale - mean) / std`, x RGB in 0..1."""

    order: tuple[int, int, int]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


TORCHVISION = Preprocessing((0, 1, 2), 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE_VGG = Preprocessing((2, 1, 0), 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))


class VGG(nn.Module):
    """A VGG up to the deepest convolution that the weights hold, frozen.

    Layers are named `reluB_K` (block B, convolution K). Activations of a (N, 3, H, W) input have
    H / 2^(B-1) rows. `weights` maps `convB_K.weight` (O, I, 3, 3) and `convB_K.bias` (O,) to arrays.
    """

    BLOCKS: ClassVar[tuple[tuple[int, ...], ...]] = ()
    NAME: ClassVar[str] = ""

    def __init__(self, weights: Mapping[str, Tensor], preprocessing: Preprocessing) -> None:
        super().__init__()
        self.order = list(preprocessing.order)
        self.scale = preprocessing.scale
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))
        self.convs = nn.ModuleDict()
        channels = 3
        for block, sizes in enumerate(self.BLOCKS, start=1):
            for index, size in enumerate(sizes, start=1):
                name = f"conv{block}_{index}"
                if f"{name}.weight" not in weights:
                    continue
                conv = nn.Conv2d(channels, size, 3, padding=1)
                _assign(conv, weights, name)
                self.convs[name] = conv
                channels = size
        if not self.convs:
            raise ValueError(f"these weights hold no conv1_1: not a {self.NAME} file")
        # A loss network never learns.
        self.requires_grad_(False)
        self.eval()

    @property
    def layers(self) -> tuple[str, ...]:
        """The activations that the loaded weights can give, shallow to deep."""
        return tuple(name.replace("conv", "relu") for name in self.convs)

    def prepare(self, x: Tensor) -> Tensor:
        """RGB in 0..1, (N, 3, H, W), to what the weights were trained on."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return (x[:, self.order] * self.scale - mean) / std

    def forward(self, x: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Activations of the named layers for RGB input in 0..1, (N, 3, H, W)."""
        return self.activations(self.prepare(x), layers)

    def require(self, layers: Iterable[str]) -> None:
        """Raises ValueError when one of `layers` is not in the loaded weights."""
        missing = sorted(set(layers) - set(self.layers))
        if missing:
            raise ValueError(
                f"{type(self).__name__}: the weights have no layer {', '.join(missing)}; "
                f"they have {', '.join(self.layers)}. Use a full weight file or other layers."
            )

    def hasten(self) -> None:
        """Compute the wide convolutions by `WinogradConv`: in float32, on a CPU."""
        for name, conv in self.convs.items():
            if isinstance(conv, nn.Conv2d) and conv.in_channels >= LEAST_CHANNELS:
                self.convs[name] = WinogradConv(conv)

    def activations(self, y: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Activations of the named layers for an input that `prepare` made, by name."""
        wanted = set(layers)
        self.require(wanted)
        found: dict[str, Tensor] = {}
        block = "1"
        for name, conv in self.convs.items():
            if len(found) == len(wanted):
                break
            if name[4] != block:
                y, block = F.max_pool2d(y, 2), name[4]
            y = F.relu(conv(y))
            layer = name.replace("conv", "relu")
            if layer in wanted:
                found[layer] = y
        return found


class VGG16(VGG):
    """Configuration D: thirteen convolutions, blocks ending in relu1_2, relu2_2, relu3_3, .."""

    BLOCKS = VGG16_BLOCKS
    NAME = "VGG-16"


class VGG19(VGG):
    """Configuration E, that of Gatys et al. 2016: sixteen convolutions, blocks ending in relu3_4, .."""

    BLOCKS = VGG19_BLOCKS
    NAME = "VGG-19"


def load_vgg16(path: Path) -> VGG16:
    """VGG-16 from torchvision's `vgg16-397923af.pth` or from a Caffe-convention `.npz`.

    Raises FileNotFoundError when the file is missing, ValueError when it is damaged or not a VGG-16.
    """
    return VGG16(*_read(path, VGG16_BLOCKS))


def load_vgg19(path: Path) -> VGG19:
    """VGG-19 from torchvision's `vgg19-dcbb9e9d.pth` or from a Caffe-convention `.npz`.

    Raises FileNotFoundError when the file is missing, ValueError when it is damaged or not a VGG-19.
    """
    return VGG19(*_read(path, VGG19_BLOCKS))


def _read(path: Path, blocks: tuple[tuple[int, ...], ...]) -> tuple[dict[str, Tensor], Preprocessing]:
    """A weight file's arrays under our names."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no loss network's weights at {path}: give torchvision's file, or the .npz of the Caffe "
            "release, with --weights NETWORK=PATH, or set VELATURA_DATA"
        )
    verify(path)
    try:
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            return found, CAFFE_VGG
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (BadZipFile, EOFError, RuntimeError, ValueError, UnpicklingError) as error:
        raise ValueError(f"{path} is not a weight file that can be read: {error}") from error
    names = _vgg_names(blocks)
    return {ours: state[theirs] for theirs, ours in names if theirs in state}, TORCHVISION


def _vgg_names(blocks: tuple[tuple[int, ...], ...]) -> Iterable[tuple[str, str]]:
    """`features.N.*` to `convB_K.*`: N counts convolutions, ReLUs and pools."""
    number = 0
    for block, sizes in enumerate(blocks, start=1):
        for index in range(1, len(sizes) + 1):
            for part in ("weight", "bias"):
                yield f"features.{number}.{part}", f"conv{block}_{index}.{part}"
            number += 2
        number += 1


def _assign(conv: nn.Conv2d, weights: Mapping[str, Tensor], name: str) -> None:
    if f"{name}.weight" not in weights or f"{name}.bias" not in weights:
        raise ValueError(f"the weight file lacks {name}: not the network it should be")
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    if weight.shape != conv.weight.shape:
        raise ValueError(f"{name} has shape {tuple(weight.shape)}, not {tuple(conv.weight.shape)}")
    with torch.no_grad():
        conv.weight.copy_(weight)
        assert conv.bias is not None
        conv.bias.copy_(bias)
