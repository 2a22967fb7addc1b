"""The loss network that a recipe names, as an extractor of features."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from .device import bf16
from .recipe import Recipe
from .vgg import VGG, load_vgg16, load_vgg19
from .weights import find_weights

WeightPaths = Mapping[str, Path]
"""Network (`vgg16`, `vgg19`) -> weight file that the user gave."""


class Perception:
    """Activations of a VGG's layers by name, for RGB pictures in 0..1.

    Raises ValueError when the weights lack one of `layers`.
    """

    def __init__(
        self,
        layers: Iterable[str],
        network: VGG,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        self.dtype = dtype
        self.layers = frozenset(layers)
        self.network = network
        network.require(self.layers)
        network.to(device)
        # Only the convolutions: the mean of 0..255 values must not be rounded to BF16.
        cast(Any, network.convs).to(dtype=dtype, memory_format=torch.channels_last)
        if dtype == torch.float32 and (device is None or device.type == "cpu"):
            network.hasten()

    def __call__(self, images: Tensor, only: Iterable[str] | None = None) -> dict[str, Tensor]:
        """All layers, or `only` some of them."""
        layers = self.layers if only is None else self.layers.intersection(only)
        y = self.network.prepare(images).to(self.dtype, memory_format=torch.channels_last)
        return self.network.activations(y, layers)


def perception(
    recipe: Recipe,
    root: Path,
    given: WeightPaths | None = None,
    *,
    device: torch.device | None = None,
) -> Perception:
    """The extractor for all layers that a recipe names, in its precision.

    Raises FileNotFoundError when weights are missing, ValueError when they lack a layer or are damaged.
    """
    layers = {*recipe.content, *recipe.style, *recipe.feature_difference}
    kind = recipe.loss_network
    load = load_vgg16 if kind == "vgg16" else load_vgg19
    candidates = [root / recipe.vgg] if kind == "vgg16" else []
    network = load(find_weights(kind, (given or {}).get(kind), candidates))
    dtype = torch.bfloat16 if bf16(recipe, device or torch.device("cpu")) else torch.float32
    return Perception(layers, network, dtype=dtype, device=device)
