"""LPIPS 0.1, the perceptual distance of Zhang et al. 2018 ("The Unreasonable Effectiveness of Deep
Features as a Perceptual Metric"), by VGG-16 and by AlexNet.

Activations of five layers are scaled to length 1 at each pixel; their squared differences are weighted
by channel, as people's judgements taught, and averaged over the picture.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..perception import WeightPaths
from ..vgg import TORCHVISION, load_vgg16
from ..weights import find_weights
from .base import Metric, OfPair
from .vgg_distance import to_tensor

Kind = Literal["vgg", "alex"]
Features = Callable[[Tensor], list[Tensor]]

VGG_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
VGG_FILE = "weights/vgg16_features_torchvision.pth"
HEADS: dict[Kind, str] = {
    "vgg": "weights/lpips_vgg16_heads.npz",
    "alex": "weights/lpips_alexnet_torchvision.npz",
}
"""Files below the data root: the weights by channel, `lin0.weight` .. `lin4.weight`, and AlexNet's own
`conv1` .. `conv5`."""


class Lpips:
    """The distance of two RGB pictures in 0..1, (N, 3, H, W) each; 0 is equal."""

    def __init__(self, features: Features, heads: list[Tensor]) -> None:
        """`features` gives five activations of a picture; `heads` their channels' weights, (C,)."""
        self.features = features
        self.heads = heads

    @torch.no_grad()
    def __call__(self, picture: Tensor, reference: Tensor) -> Tensor:
        """(N,): one distance for each pair."""
        total = torch.zeros(picture.shape[0])
        pairs = zip(self.features(picture), self.features(reference), self.heads, strict=True)
        for a, b, head in pairs:
            squared = (_unit(a) - _unit(b)).square()
            total += (squared * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total


def load_lpips(kind: Kind, root: Path) -> Lpips:
    """LPIPS with the published weights below the data root.

    Raises FileNotFoundError when a file is missing, ValueError when it lacks a layer.
    """
    path = root / HEADS[kind]
    if not path.is_file():
        raise FileNotFoundError(f"no LPIPS weights at {path}")
    with np.load(path) as arrays:
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    missing = [name for name in (f"lin{n}.weight" for n in range(5)) if name not in weights]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: not the heads of LPIPS")
    heads = [weights[f"lin{n}.weight"].flatten() for n in range(5)]
    return Lpips(_alexnet(weights) if kind == "alex" else _vgg(root), heads)


def _vgg(root: Path) -> Features:
    # LPIPS normalises its input as torchvision does, which the loader knows.
    network = load_vgg16(find_weights("vgg16", None, [root / VGG_FILE]))

    def features(picture: Tensor) -> list[Tensor]:
        found = network(picture, VGG_LAYERS)
        return [found[layer] for layer in VGG_LAYERS]

    return features


def _alexnet(weights: Mapping[str, Tensor]) -> Features:
    """The five convolutions of AlexNet (Krizhevsky 2014), each with its ReLU."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (TORCHVISION.mean, TORCHVISION.std))

    def features(picture: Tensor) -> list[Tensor]:
        y = (picture - mean) / std
        found: list[Tensor] = []
        for number, (stride, around) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1)), start=1):
            if number in (2, 3):
                y = F.max_pool2d(y, 3, 2)
            weight, bias = weights[f"conv{number}.weight"], weights[f"conv{number}.bias"]
            y = F.relu(F.conv2d(y, weight, bias, stride, around))
            found.append(y)
        return found

    return features


def _unit(activation: Tensor) -> Tensor:
    """Length 1 over the channels at each pixel; the published code adds 1e-10 to the length."""
    return activation / (activation.square().sum(1, keepdim=True).sqrt() + 1e-10)


def _metric(kind: Kind, title: str) -> Metric:
    def of_pair(root: Path, weights: WeightPaths | None) -> OfPair | None:
        del weights
        if not (root / HEADS[kind]).is_file():
            return None
        measure = load_lpips(kind, root)
        return lambda pair: float(measure(to_tensor(pair.output), to_tensor(pair.truth)))

    title = f"LPIPS 0.1 by {title} (Zhang et al. 2018), 0 for equal pictures"
    return Metric(key=f"{{}}_lpips_{kind}", title=title, better="lower", pair=of_pair)


METRICS = (_metric("vgg", "VGG-16"), _metric("alex", "AlexNet"))
