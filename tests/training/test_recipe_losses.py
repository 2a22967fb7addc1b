"""The one table of losses: a recipe's keys, how they are computed, and what is told of them."""

from dataclasses import fields

import pytest
from velatura.export.to_onnx import loss_words
from velatura.runtime.card import OF_RECIPE, ModelCard
from velatura.training.describe import describe
from velatura.training.losses import LOSSES
from velatura.training.recipe import Recipe, load_recipe


def test_every_loss_of_the_recipe_can_be_computed_and_no_other() -> None:
    keys = [f.name for f in fields(Recipe) if "loss" in f.metadata]
    assert sorted(keys) == sorted(LOSSES)


def test_a_loss_that_counts_is_told_on_the_card_and_in_the_description() -> None:
    """New ones, too: nothing else lists them."""
    recipe = load_recipe("starry-night")
    counting = {name for name, _ in recipe.losses()}
    assert {"content", "style", "total_variation", "light", "palette", "grid", "stability"} == counting
    facts = describe("starry-night")
    assert facts is not None
    for name in counting:
        assert name.replace("_", " ") in loss_words(recipe)
        assert f"{name} " in facts["losses"]
    assert "style at VGG-16 relu1_2 relu2_2 relu3_3 relu4_3" in loss_words(recipe)
    assert "light 30" in facts["losses"]
    assert "flow" not in loss_words(recipe)


def test_a_loss_of_the_other_task_is_refused() -> None:
    given = load_recipe("upscale-2x").to_mapping()
    with pytest.raises(ValueError, match="light is a loss of the task style, not upscale"):
        Recipe.from_mapping({**given, "light": 1.0}, origin="mine")
    given = load_recipe("wave").to_mapping()
    with pytest.raises(ValueError, match="edge is a loss of the task upscale, not style"):
        Recipe.from_mapping({**given, "edge": 1.0}, origin="mine")


def test_what_a_card_takes_from_the_recipe_is_there_and_checked() -> None:
    given = load_recipe("wave").to_mapping()
    recipe = Recipe.from_mapping({**given, "strength": 0.7, "keep_colours": True}, origin="mine")
    taken = {f.name: getattr(recipe, f.name) for f in fields(ModelCard) if f.metadata == OF_RECIPE}
    assert (taken["strength"], taken["keep_colours"]) == (0.7, True)
    assert ModelCard(**taken).strength == 0.7
    with pytest.raises(ValueError, match=r"mine: strength 1\.5 is not within 0\.\.1"):
        Recipe.from_mapping({**given, "strength": 1.5}, origin="mine")
