"""VGG-16, VGG-19 and SqueezeNet 1.1 as loss networks: frozen feature extractors with named layers.

All were trained on ImageNet. Weight files disagree about their input: torchvision's wants RGB, 0..1,
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

# Output channels of conv1_1 .. conv5_3, grouped by block (Simonyan and Zisserman 2015, D).
VGG16_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# The same of configuration E.
VGG19_BLOCKS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)
# Squeeze and expand channels of fire2 .. fire9 (Iandola et al. 2016, version 1.1).
SQUEEZENET_FIRES = (
    (16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)
)  # fmt: skip


class Preprocessing(NamedTuple):
    """How a weight file wants its input: `(x[:, order] * scale - mean) / std`, x RGB in 0..1."""

    order: tuple[int, int, int]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


TORCHVISION = Preprocessing((0, 1, 2), 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE_VGG = Preprocessing((2, 1, 0), 255.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
CAFFE_SQUEEZENET = Preprocessing((2, 1, 0), 255.0, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0))


class LossNetwork(nn.Module):
    """Base of the feature extractors: input preprocessing, frozen weights, named activations."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.order = list(preprocessing.order)
        self.scale = preprocessing.scale
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1))

    @property
    def layers(self) -> tuple[str, ...]:
        """The activations that the loaded weights can give, shallow to deep."""
        raise NotImplementedError

    def prepare(self, x: Tensor) -> Tensor:
        """RGB in 0..1, (N, 3, H, W), to what the weights were trained on."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return (x[:, self.order] * self.scale - mean) / std

    def activations(self, y: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Activations of the named layers for an input that `prepare` made, by name."""
        raise NotImplementedError

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

    def finish(self) -> None:
        """Freeze: a loss network never learns."""
        self.requires_grad_(False)
        self.eval()


class VGG(LossNetwork):
    """A VGG up to the deepest convolution that the weights hold.

    Layers are named `reluB_K` (block B, convolution K). Activations of a (N, 3, H, W) input have
    H / 2^(B-1) rows. `weights` maps `convB_K.weight` (O, I, 3, 3) and `convB_K.bias` (O,) to arrays.
    """

    BLOCKS: ClassVar[tuple[tuple[int, ...], ...]] = ()
    NAME: ClassVar[str] = ""

    def __init__(self, weights: Mapping[str, Tensor], preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing)
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
        self.finish()

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(name.replace("conv", "relu") for name in self.convs)

    def activations(self, y: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        wanted = set(layers)
        self.require(wanted)
        found: dict[str, Tensor] = {}
        block = "1"
        for name, conv in self.convs.items():
            if name[4] != block:
                y, block = F.max_pool2d(y, 2), name[4]
            y = F.relu(conv(y))
            layer = name.replace("conv", "relu")
            if layer in wanted:
                found[layer] = y
                if len(found) == len(wanted):
                    break
        return found


class VGG16(VGG):
    """Configuration D: thirteen convolutions, blocks ending in relu1_2, relu2_2, relu3_3, .."""

    BLOCKS = VGG16_BLOCKS
    NAME = "VGG-16"


class VGG19(VGG):
    """Configuration E, that of Gatys et al. 2016: sixteen convolutions, blocks ending in relu3_4, .."""

    BLOCKS = VGG19_BLOCKS
    NAME = "VGG-19"


class SqueezeNet(LossNetwork):
    """SqueezeNet 1.1 to fire9: the light loss network, and the deep layers where VGG's are not at hand.

    Layers are `conv1`, `fire2` .. `fire9`. `weights` maps `conv1.*`, `fireN.squeeze1x1.*`,
    `fireN.expand1x1.*` and `fireN.expand3x3.*`.
    """

    def __init__(self, weights: Mapping[str, Tensor], preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing)
        self.convs = nn.ModuleDict({"conv1": nn.Conv2d(3, 64, 3, 2)})
        channels = 64
        for number, (squeeze, expand) in enumerate(SQUEEZENET_FIRES, start=2):
            self.convs[f"fire{number}/squeeze1x1"] = nn.Conv2d(channels, squeeze, 1)
            self.convs[f"fire{number}/expand1x1"] = nn.Conv2d(squeeze, expand, 1)
            self.convs[f"fire{number}/expand3x3"] = nn.Conv2d(squeeze, expand, 3, padding=1)
            channels = 2 * expand
        for name, conv in self.convs.items():
            assert isinstance(conv, nn.Conv2d)
            _assign(conv, weights, name.replace("/", "."))
        self.finish()

    @property
    def layers(self) -> tuple[str, ...]:
        return ("conv1", *(f"fire{number}" for number in range(2, 10)))

    def activations(self, y: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        wanted = set(layers)
        self.require(wanted)
        y = F.relu(self.convs["conv1"](y))
        found = {"conv1": y} if "conv1" in wanted else {}
        for number in range(2, 10):
            if len(found) == len(wanted):
                break
            if number in (2, 4, 6):
                y = F.max_pool2d(y, 3, 2, ceil_mode=True)
            y = F.relu(self.convs[f"fire{number}/squeeze1x1"](y))
            sides = (self.convs[f"fire{number}/expand{size}"](y) for size in ("1x1", "3x3"))
            y = F.relu(torch.cat(list(sides), 1))
            if f"fire{number}" in wanted:
                found[f"fire{number}"] = y
        return found


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


def load_squeezenet(path: Path) -> SqueezeNet:
    """SqueezeNet 1.1 from torchvision's `squeezenet1_1-b8a52dc0.pth` or a Caffe-convention `.npz`.

    Raises FileNotFoundError when the file is missing, ValueError when it is damaged or no SqueezeNet.
    """
    return SqueezeNet(*_read(path, None))


def _read(
    path: Path, blocks: tuple[tuple[int, ...], ...] | None
) -> tuple[dict[str, Tensor], Preprocessing]:
    """A weight file's arrays under our names; `blocks` None means SqueezeNet."""
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
            return found, CAFFE_SQUEEZENET if blocks is None else CAFFE_VGG
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (BadZipFile, EOFError, RuntimeError, ValueError, UnpicklingError) as error:
        raise ValueError(f"{path} is not a weight file that can be read: {error}") from error
    names = _squeezenet_names() if blocks is None else _vgg_names(blocks)
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


def _squeezenet_names() -> Iterable[tuple[str, str]]:
    """`features.N.*` to `conv1.*` and `fireK.*`: N counts convolutions, ReLUs, pools and fires."""
    for part in ("weight", "bias"):
        yield f"features.0.{part}", f"conv1.{part}"
        for fire, number in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True):
            yield f"features.{number}.squeeze.{part}", f"fire{fire}.squeeze1x1.{part}"
            for size in ("1x1", "3x3"):
                yield f"features.{number}.expand{size}.{part}", f"fire{fire}.expand{size}.{part}"


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
