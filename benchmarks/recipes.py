"""What the shipped recipes' networks cost: weights and multiply-adds, counted, not timed."""

from typing import Any

from velatura.training.describe import describe
from velatura.training.recipe import shipped_recipes

COUNTED = ("network", "parameters", "macs_per_pixel", "steps", "batch")


def measure() -> dict[str, Any]:
    """The facts of `velatura info RECIPE` that no machine changes, by recipe."""
    found: dict[str, Any] = {}
    for name in shipped_recipes():
        facts = describe(name)
        assert facts is not None, name
        found[name] = {key: facts[key] for key in COUNTED}
    return {"recipes": found}
