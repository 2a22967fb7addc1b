"""Training speed: whole steps of a recipe against the loss network's forward and backward alone."""

import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from velatura.training.device import autocast, keep_freed_memory
from velatura.training.loop import Options, Run
from velatura.training.recipe import Recipe, load_recipe

from .quality import ROOT

ROUNDS = 7
RECIPES = ("starry-night", "upscale-2x-sharp", "johnson-half")


def measure() -> dict[str, Any]:
    """Images a second of each recipe's steps, and their share of the loss network's own."""
    keep_freed_memory()
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "rounds": ROUNDS}
    for name in RECIPES:
        recipe = load_recipe(name)
        if recipe.stability:
            found[f"{name}, stills"] = speed(replace(recipe, stable_from=1.0))
            found[f"{name}, with stability"] = speed(replace(recipe, stable_from=0.0))
        else:
            found[name] = speed(recipe)
    return found


def speed(recipe: Recipe) -> dict[str, Any]:
    """Steps and the loss network alone, in turn, so that both see the same machine."""
    few = replace(recipe, photos=("photos/wikipedia_photos",))
    steps: list[float] = []
    alone: list[float] = []
    with TemporaryDirectory() as folder:
        run = Run(few, ROOT, Path(folder), Options(), torch.device("cpu"), 0, 1)
        for turn in range(ROUNDS + 1):
            start = time.perf_counter()
            sample = run.samples.batch(turn, few.batch)
            run.take_step(sample, 1e-4, 0.5)
            run.step += 1
            middle = time.perf_counter()
            with autocast(few, run.device):
                run.objective.floor(sample)
            end = time.perf_counter()
            if turn:  # the first one allocates
                steps.append(middle - start)
                alone.append(end - middle)
    shares = sorted(b / a for a, b in zip(steps, alone, strict=True))
    return {
        "batch": few.batch,
        "crop": few.crop,
        "images_per_second": round(few.batch / median(steps), 2),
        "loss_network_alone": round(few.batch / median(alone), 2),
        "share": round(median(shares), 3),
        "share_spread": [round(shares[0], 3), round(shares[-1], 3)],
    }
