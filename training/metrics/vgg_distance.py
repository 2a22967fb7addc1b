"""The distance of two pictures by VGG-16, as the losses see it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data import Image
from ..perception import WeightPaths, perception
from ..recipe import Recipe, load_recipe
from .base import Metric, OfPair

VGG_LAYER = "relu2_2"


def to_tensor(image: Image) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255.0


def vgg_distance(
    root: Path, weights: WeightPaths | None = None, *, layer: str = VGG_LAYER
) -> Callable[[Image, Image], float]:
    """A measure of two RGB pictures: squared distance at a layer over the reference's own energy."""
    recipe = Recipe.from_mapping(
        {**load_recipe("upscale-2x-sharp").to_mapping(), "content": {layer: 1.0}, "precision": "fp32"},
        origin="evaluation",
    )
    features = perception(recipe, root, weights)

    @torch.no_grad()
    def measure(output: Image, reference: Image) -> float:
        a, b = (features(to_tensor(image))[layer] for image in (output, reference))
        return float((a - b).square().mean() / b.square().mean())

    return measure


def _of_pair(root: Path, weights: WeightPaths | None) -> OfPair:
    distance = vgg_distance(root, weights)
    return lambda pair: distance(pair.output, pair.truth)


METRIC = Metric(
    key=f"{{}}_vgg_{VGG_LAYER}",
    title=f"squared distance at VGG-16's {VGG_LAYER} over the reference's own energy",
    better="lower",
    pair=_of_pair,
)
