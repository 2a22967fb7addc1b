"""What a recipe's network costs: `velatura info RECIPE`."""

from typing import Any, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .nets import Net, build_net
from .recipe import load_recipe, shipped_recipes

SIZE = (720, 1280)
"""Input height and width at which multiply-adds are counted: padding is then a few per cent."""


def describe(what: str) -> dict[str, Any] | None:
    """Facts about a shipped recipe, or one at a .toml path, by name; None when `what` is neither.

    `macs_per_pixel` counts the multiply-adds of the folded network's convolutions per input pixel of a
    1280x720 picture. Raises ValueError for a recipe that is wrong.
    """
    if what not in shipped_recipes() and not what.endswith(".toml"):
        return None
    recipe = load_recipe(what)
    net = build_net(recipe.net["kind"], {k: v for k, v in recipe.net.items() if k != "kind"})
    plain = cast(Net, net.eval()).fold()
    macs = macs_per_pixel(plain, recipe.planes)
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "task": recipe.task,
        "network": ", ".join(f"{key} {value}" for key, value in recipe.net.items()),
        "parameters": count(plain),
        "parameters_in_training": count(net),
        "macs_per_pixel": round(macs),
        "macs_per_output_pixel": round(macs / recipe.scale**2),
        "receptive_field": 2 * cast(Net, net).halo + 1,
        "size_multiple": cast(Net, net).size_multiple,
        "input": "luma" if recipe.planes == 1 else "rgb",
        "scale": recipe.scale,
        "losses": ", ".join(f"{name} {weight}" for name, weight in recipe.told_losses().items()),
        "steps": recipe.steps,
        "batch": recipe.batch,
        "crop": recipe.crop,
        "degradation": recipe.degradation if recipe.task == "upscale" else "",
    }


def count(net: nn.Module) -> int:
    """Number of weights and biases."""
    return sum(parameter.numel() for parameter in net.parameters())


def macs_per_pixel(net: nn.Module, planes: int) -> float:
    """Multiply-adds of the convolutions of `net` per input pixel, counted on shapes alone."""
    height, width = SIZE
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net.to("meta")(torch.empty(1, planes, height, width, device="meta"))
    return counter.get_total_flops() / 2 / (height * width)
