"""A checkpoint becomes an ONNX model with its card."""

import logging
import platform
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from onnx import ModelProto

from ..runtime.card import ModelCard
from ..training.checkpoint import Checkpoint
from ..training.loop import averaged_net
from ..training.nets import Net
from ..training.recipe import Recipe

OPSET = 18
"""The lowest whose Pad, DepthToSpace and quantisation operators are all that the networks need."""


def to_onnx(checkpoint: Checkpoint) -> tuple[ModelProto, ModelCard]:
    """The averaged weights, folded to plain convolutions, as a graph of any height and width.

    Input `image` (1, C, H, W) float32 in 0..1, output `result` (1, C, scale * H, scale * W).
    """
    recipe = Recipe.from_mapping(checkpoint.recipe, origin="checkpoint")
    net = cast(Net, averaged_net(checkpoint))
    plain = net.fold()
    channels = 1 if recipe.task == "upscale" else 3
    side = max(net.min_size, net.size_multiple) + 2 * net.size_multiple
    example = torch.rand(1, channels, 2 * side, 3 * side)
    free = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        plain,
        (example,),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({2: free, 3: free},),
        opset_version=OPSET,
        input_names=["image"],
        output_names=["result"],
    )
    assert program is not None, "the exporter returns a program when it is given no file"
    model = program.model_proto
    strip(model)
    card = card_for(recipe, checkpoint, net)
    card.write_to(model)
    onnx.checker.check_model(model, full_check=True)
    return model, card


def strip(model: ModelProto) -> None:
    """Remove what the exporter notes about its own sources: paths and stack traces."""
    del model.metadata_props[:]
    model.doc_string = ""
    model.producer_name = "velatura"
    model.producer_version = ""
    graph: Any = model.graph
    graph.doc_string = ""
    graph.name = "velatura"
    for entry in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        entry.doc_string = ""
        del entry.metadata_props[:]
    del graph.value_info[:]


def card_for(recipe: Recipe, checkpoint: Checkpoint, net: Net) -> ModelCard:
    """The contract of an exported network."""
    colour = "luma" if recipe.task == "upscale" else "rgb"
    minutes = checkpoint.elapsed / 60
    done = f"{checkpoint.step:,} of {recipe.steps:,} steps, batch {recipe.batch}, {minutes:.0f} min"
    return ModelCard(
        name=recipe.name,
        task=recipe.task,
        title=recipe.title,
        input_colour=colour,
        output_colour=colour,
        scale=recipe.scale,
        size_multiple=net.size_multiple,
        min_size=net.min_size,
        halo=net.halo,
        recipe=recipe.name,
        training=f"{done} on one {platform.machine()} CPU core",
        licence=recipe.licence,
        attribution=recipe.attribution,
    )


def save(model: ModelProto, card: ModelCard, path: Path) -> None:
    """Write the model with its card: to a temporary name first, so that no half file stands in."""
    card.write_to(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(model.SerializeToString())
    partial.replace(path)
