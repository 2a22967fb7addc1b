"""The loss networks that a recipe names, as one extractor of features."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from .recipe import Recipe
from .vgg import VGG, LossNetwork, SqueezeNet, load_squeezenet, load_vgg16, load_vgg19
from .weights import find_weights

WeightPaths = Mapping[str, Path]
"""Network (`vgg16`, `vgg19`, `squeezenet`) -> weight file that the user gave."""


class Perception:
    """Activations of VGG and SqueezeNet layers by name, for RGB pictures in 0..1.

    Raises FileNotFoundError when weights are missing, ValueError when they lack a layer or are damaged.
    """

    def __init__(
        self,
        layers: Iterable[str],
        *,
        vgg: VGG | None,
        squeezenet: SqueezeNet | None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> None:
        self.dtype = dtype
        wanted = set(layers)
        deep = {layer for layer in wanted if layer.startswith("relu")}
        self.networks: list[tuple[LossNetwork, list[str]]] = []
        for network, names in ((vgg, deep), (squeezenet, wanted - deep)):
            if not names:
                continue
            assert network is not None
            network.require(names)
            network.to(device)
            # Only the convolutions: the mean of 0..255 values must not be rounded to BF16.
            cast(Any, network.convs).to(dtype=dtype, memory_format=torch.channels_last)
            self.networks.append((network, sorted(names)))

    def __call__(self, images: Tensor, only: Iterable[str] | None = None) -> dict[str, Tensor]:
        """All layers, or `only` some of them; a network that has none of these is not run."""
        found: dict[str, Tensor] = {}
        wanted = None if only is None else set(only)
        for network, names in self.networks:
            layers = names if wanted is None else [name for name in names if name in wanted]
            if not layers:
                continue
            y = network.prepare(images).to(self.dtype, memory_format=torch.channels_last)
            found |= network.activations(y, layers)
        return found


def resolve(recipe: Recipe, root: Path, given: WeightPaths | None = None) -> Recipe:
    """The recipe with the layers that the weights at hand allow.

    `content_full` and `style_full` replace `content` and `style` where the VGG weights hold all their
    layers; either way they are empty in the result, which is what a checkpoint keeps.
    """
    full = {*recipe.content_full, *recipe.style_full}
    if not full:
        return recipe
    vgg, _ = _load(recipe, root, given or {}, full)
    reach: set[str] = set() if vgg is None else set(vgg.layers)
    if all(layer in reach for layer in full if layer.startswith("relu")):
        recipe = replace(
            recipe,
            content=recipe.content_full or recipe.content,
            style=recipe.style_full or recipe.style,
        )
    return replace(recipe, content_full={}, style_full={})


def perception(
    recipe: Recipe,
    root: Path,
    given: WeightPaths | None = None,
    *,
    device: torch.device | None = None,
) -> Perception:
    """The extractor for all layers that a (resolved) recipe names, in its precision."""
    layers = {*recipe.content, *recipe.style, *recipe.feature_difference}
    vgg, squeezenet = _load(recipe, root, given or {}, layers)
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    return Perception(layers, vgg=vgg, squeezenet=squeezenet, dtype=dtype, device=device)


def _load(
    recipe: Recipe, root: Path, given: WeightPaths, layers: Iterable[str]
) -> tuple[VGG | None, SqueezeNet | None]:
    vgg: VGG | None = None
    squeezenet: SqueezeNet | None = None
    names = set(layers)
    if any(name.startswith("relu") for name in names):
        kind = recipe.loss_network
        load = load_vgg16 if kind == "vgg16" else load_vgg19
        candidates = [root / recipe.vgg] if kind == "vgg16" else []
        vgg = load(find_weights(kind, given.get(kind), candidates))
    if any(not name.startswith("relu") for name in names):
        path = find_weights("squeezenet", given.get("squeezenet"), [root / recipe.squeezenet])
        squeezenet = load_squeezenet(path)
    return vgg, squeezenet
