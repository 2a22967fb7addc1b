"""A checkpoint becomes an ONNX model with its card."""

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from onnx import ModelProto

from ..runtime.backends.graph import wrap
from ..runtime.cache import write_whole
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
    channels = recipe.planes
    side = max(net.min_size, net.size_multiple) + 2 * net.size_multiple
    model = graph_of(plain, torch.rand(1, channels, 2 * side, 3 * side))
    card = card_for(recipe, checkpoint, net)
    card.write_to(model)
    onnx.checker.check_model(model, full_check=True)
    return model, card


def graph_of(net: torch.nn.Module, example: torch.Tensor, *, free: bool = True) -> ModelProto:
    """A network as a graph, without the exporter's notes: of any height and width, or if not `free` of
    the example's.

    Input `image` like `example`, (1, C, H, W); output `result`. Raises whatever PyTorch's exporter
    raises of a network that it cannot follow.
    """
    any_size = torch.export.Dim.DYNAMIC
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        net,
        (example,),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({2: any_size, 3: any_size},) if free else None,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["result"],
    )
    assert program is not None, "the exporter returns a program when it is given no file"
    model = program.model_proto  # a copy at each reading
    strip(model)
    return model


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


def with_frame_io(model: ModelProto, card: ModelCard, *, bits: int = 8) -> tuple[ModelProto, ModelCard]:
    """The same graph for frames as they are, of any size: (1, H, W, 3) RGB or (1, 1, H, W) luma.

    With 8 bits, uint8 samples. With 10, float16 in 0..1, since TensorRT has no 16-bit integers and a
    half holds all of 1,024 levels apart. Raises ValueError for other depths.
    """
    if bits not in (8, 10):
        raise ValueError(f"frames of {bits} bits: a graph for frames takes 8 or 10")
    framed = wrap(
        model, card, bits=bits, samples="integers" if bits == 8 else "half", names=("frame", "picture")
    )
    layout = "nchw" if card.input_colour == "luma" else "nhwc"
    if bits == 8:
        card = replace(card, dtype="uint8", layout=layout, value_range=(0.0, 255.0))
    else:
        card = replace(card, dtype="float16", layout=layout, value_range=(0.0, 1.0))
    onnx.checker.check_model(framed)
    return framed, card


def card_for(recipe: Recipe, checkpoint: Checkpoint, net: Net) -> ModelCard:
    """The contract of an exported network."""
    colour = "luma" if recipe.planes == 1 else "rgb"
    minutes = checkpoint.elapsed / 60
    done = f"{checkpoint.step:,} of {recipe.steps:,} steps, batch {recipe.batch}, {minutes:.0f} min"
    begun = f", begun with {checkpoint.started_from}" if checkpoint.started_from else ""
    givers = {"recipe": recipe, "net": net}
    taken: dict[str, Any] = {
        one.name: getattr(givers[one.metadata["from"]], one.name)
        for one in fields(ModelCard)
        if "from" in one.metadata
    }
    return ModelCard(
        **taken,
        input_colour=colour,
        output_colour=colour,
        recipe=recipe.name,
        training=f"{done} on {checkpoint.machine}{begun}",
        losses=loss_words(recipe),
        data=", ".join(folder.rpartition("/")[2] for folder in recipe.photos),
    )


def loss_words(recipe: Recipe) -> str:
    """The losses and their layers, for the card: `content at VGG-16 relu3_3; light`."""
    network = "VGG-16" if recipe.loss_network == "vgg16" else "VGG-19"
    words: list[str] = []
    for name, _ in recipe.losses():
        weight: float | dict[str, float] = getattr(recipe, name)
        said = name.replace("_", " ")
        if isinstance(weight, dict):
            said += f" at {network} {' '.join(weight)}"
        words.append(f"{said} {recipe.pixel_norm}" if name == "pixel" else said)
    return "; ".join(words)


def save(model: ModelProto, card: ModelCard, path: Path) -> None:
    """Write the model with its card, whole or not at all."""
    card.write_to(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, model.SerializeToString())
