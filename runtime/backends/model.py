"""Models: ONNX graphs with their cards, found by zoo name or path, or inspected when it is foreign."""

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, version_converter

from ..card import CardFlags, DType, Layout, ModelCard, read_card
from ..errors import ModelError, missing
from ..zoo import named_models
from .base import Model
from .foreign import as_picture_network
from .identity import NAME as IDENTITY
from .value_range import Trial as Trial
from .value_range import guess, look

OLDEST_OPSET = 13
OPSET = 18
NEWEST_IR = 10
"""The version of the file's format that every library here reads; newer ones add what no network of
pictures has, and are refused by older libraries all the same."""

_DTYPES: dict[int, DType] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.UINT8: "uint8",
}


ELSEWHERE = {
    **dict.fromkeys(
        (".pth", ".pt", ".ckpt", ".safetensors"),
        "weights of PyTorch, without their network: `velatura import {path}` makes a model of them",
    ),
    ".pb": "a graph of TensorFlow, as OpenCV's dnn_superres takes it: convert it to ONNX by tf2onnx",
    **dict.fromkeys(
        (".param", ".bin"), "a model of ncnn: take the .onnx or .pth that it was converted from"
    ),
}
"""Files of models that are no ONNX, by their suffix, and what to do with them."""


def find_model(name: str | Path, *, precision: str = "fp32") -> Path:
    """Returns the file of a model that has a name, in its INT8 variant when asked for and there, or the
    path given.

    Raises ModelError for an unknown name, suggesting near ones, and for files of other formats.
    """
    known = named_models()
    if str(name) in known:
        variants = known[str(name)]
        if precision == "int8" and "int8" not in variants:
            raise ModelError(f"the zoo has no INT8 variant of {name}: it did not pass parity")
        return variants["int8" if precision == "int8" else "fp32"]
    path = Path(name)
    if path.is_file():
        if (what := ELSEWHERE.get(path.suffix.lower())) is not None:
            raise ModelError(f"{path} is {what.format(path=path)}")
        return path
    if path.is_dir():
        raise ModelError(f"{path} is a folder, not an ONNX model")
    if path.suffix == ".onnx" or len(path.parts) > 1:
        raise ModelError(missing(path).replace("no file", "no model file", 1))
    if str(name) == IDENTITY:
        raise ModelError(f"{IDENTITY} is no network but gives back what it gets: name a model")
    near = get_close_matches(str(name), [*known, IDENTITY], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
    raise ModelError(f"unknown model {str(name)!r}; {hint} (`velatura models` lists them)")


def has_int8(name: str | Path) -> bool:
    """Returns whether the model of that name has an INT8 variant."""
    return "int8" in named_models().get(str(name), {})


def load_model(path: Path, *, flags: CardFlags, trial: Trial) -> Model:
    """Returns the model in an ONNX file; one without a card is inspected, with `trial` to run it.

    Raises ModelError when it is corrupt or not a picture-to-picture network.
    """
    proto, complaint = _read(path)
    proto = with_modern_operators(proto, path.stem)
    card = read_card(proto)
    if card is not None:
        if complaint:
            raise _unreadable(path, complaint)
        return Model(proto=proto, card=card, path=path)
    try:
        proto, card, notes = inspect(proto, path.stem, trial, strength=flags.strength)
    except ModelError as error:
        if complaint:
            raise _unreadable(path, complaint) from error
        raise
    card, assumed = flags.apply(card)
    doubts = look(proto, card, trial_size(card), trial).doubts(card)
    return Model(proto=proto, card=card, path=path, notes=(*notes, *assumed, *doubts))


def _read(path: Path) -> tuple[ModelProto, str]:
    """Returns the graph in a file, and the standard's complaint about it, empty for none.

    Files from the wild lack what the standard asks for and no library reads: the graph's name, the
    output's shape, an order of nodes. Whether such a one runs, inspection tells.
    """
    try:
        proto = onnx.load(str(path))
    except Exception as error:  # protobuf has no common error class
        raise _unreadable(path, str(error) or type(error).__name__) from error
    if not (proto.graph.node and proto.graph.output and proto.opset_import):
        raise _unreadable(path, "it holds no graph")
    proto.graph.name = proto.graph.name or path.stem
    proto.ir_version = min(proto.ir_version, NEWEST_IR)
    try:
        onnx.checker.check_model(proto)
    except Exception as error:  # the checker has no common error class
        # Of a circle, OpenVINO never comes back.
        if not _in_order(proto):
            raise _unreadable(path, str(error)) from error
        return proto, str(error) or type(error).__name__
    return proto, ""


def _in_order(proto: ModelProto) -> bool:
    """Bring the nodes into an order in which each follows what it takes; returns whether there is
    one."""
    graph = proto.graph
    made = {name for node in graph.node for name in node.output}
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    waiting, ordered = list(graph.node), list[NodeProto]()
    while waiting:
        left: list[NodeProto] = []
        for node in waiting:
            if all(name in known for name in _taken(node) if name in made or name in node.input):
                ordered.append(node)
                known.update(node.output)
            else:
                left.append(node)
        if len(left) == len(waiting):
            return False
        waiting = left
    copies = [NodeProto.FromString(node.SerializeToString()) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)
    return True


def _taken(node: NodeProto) -> set[str]:
    """Returns the names that a node takes, in the graphs inside it, too."""
    inner = [graph for part in node.attribute for graph in (part.g, *part.graphs)]
    return {name for name in node.input if name}.union(
        *(_taken(one) for graph in inner for one in graph.node)
    )


def _unreadable(path: Path, complaint: str) -> ModelError:
    reason = (complaint.strip().splitlines() or ["no reason given"])[0]
    return ModelError(f"{path} is not a readable ONNX model: {reason}")


def inspect(
    proto: ModelProto, name: str, trial: Trial, *, strength: float | None = None
) -> tuple[ModelProto, ModelCard, list[str]]:
    """Returns a graph, a card and notes for a foreign model: layout and type from its input, scale and
    sizes from small runs.

    The returned graph takes any size where it can, even if its file declares one, and a picture where
    the file takes other planes (`as_picture_network`, which puts `strength` into a strength plane).
    """
    proto, supplied = as_picture_network(proto, name, strength=strength)
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(proto.graph.output) != 1:
        raise ModelError(
            f"{name} has {len(inputs)} inputs and {len(proto.graph.output)} outputs; "
            "a frame model has one of each"
        )
    tensor = inputs[0].type.tensor_type
    if tensor.elem_type not in _DTYPES:
        raise ModelError(f"{name} takes tensors of type {tensor.elem_type}, not float or uint8")
    shape = [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]
    if len(shape) != 4:
        raise ModelError(f"{name} takes {len(shape)}-dimensional tensors; a frame model takes 4")
    layout, channels = _layout(shape)
    if channels not in (1, 3):
        raise ModelError(f"{name} takes {channels} channels; a frame model takes 1 (luma) or 3 (RGB)")
    declared = (shape[2], shape[3]) if layout == "nchw" else (shape[1], shape[2])
    card = ModelCard(
        name=name,
        task="style",
        input_colour="luma" if channels == 1 else "rgb",
        output_colour="luma" if channels == 1 else "rgb",
        layout=layout,
        dtype=_DTYPES[tensor.elem_type],
    )
    notes = [f"{name} carries no card: inspected it ({channels} channels, {layout})", *supplied]
    free = with_free_size(proto)
    only: tuple[int, int] | None = None
    for multiple in (1, 2, 4, 8, 16, 32):
        # 3 * 32 + multiple divides by `multiple` and by no larger power of two.
        side = 96 + multiple
        found = _try_size(free, card, (side, side), trial)
        if found is None:
            continue
        # One size may be the only one: 128 is as common as it divides by 32.
        card = replace(card, size_multiple=multiple)
        if found == _try_size(free, card, trial_size(card), trial):
            proto = free
            break
        card = replace(card, size_multiple=1)
        only = only or (side, side)
    else:
        declared = declared if all(declared) else only or declared
        if not all(declared):
            tried = "; ".join(["ran on no frame size that was tried (97 to 128 pixels)", *supplied])
            raise ModelError(f"{name} {tried}")
        found = _try_size(proto, card, declared, trial)
        if found is None:
            raise ModelError(
                f"{name} did not turn a {declared[1]}x{declared[0]} picture into a picture"
            )
        card = replace(card, fixed_size=declared, halo=min(32, min(declared) // 4))
        notes.append(
            f"runs at {declared[1]}x{declared[0]} only: frames are tiled to that, or with --fit resize "
            "resized"
        )
    card = replace(card, scale=found, task="upscale" if found > 1 else "style")
    return proto, guess(proto, card, trial_size(card), trial), notes


def trial_size(card: ModelCard) -> tuple[int, int]:
    """Returns the size of pictures (height, width) that a foreign model is shown; no square."""
    return card.fixed_size or (96 + 3 * card.size_multiple, 96 + 5 * card.size_multiple)


def with_modern_operators(proto: ModelProto, name: str) -> ModelProto:
    """Returns the graph in an operator set that supports the nodes of `wrap`, such as Clip with inputs.

    In an older one, libraries refuse those nodes or, worse, ignore their inputs: results above the peak
    then wrap around to black. Raises ModelError where the standard's own converter cannot bring it
    there.
    """
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if version >= OLDEST_OPSET:
        return proto
    old = ModelProto()
    old.CopyFrom(proto)
    # Before version 4 every initializer had to be an input, too, which the converter's own are not.
    old.ir_version = max(old.ir_version, 8)
    try:
        return version_converter.convert_version(old, OPSET)
    except Exception as error:  # it raises RuntimeError or its own, whatever it meets
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{name} uses ONNX operator set {version}; {OLDEST_OPSET} or newer is needed, and it "
            f"cannot be converted: {reason}"
        ) from error


def _layout(shape: list[int]) -> tuple[Layout, int]:
    """Returns the layout and the number of channels; 0 stands for an axis of any size."""
    if shape[1] not in (1, 3) and shape[3] in (1, 3):
        return "nhwc", shape[3]
    # A graph that leaves even its channels open is taken for RGB.
    return "nchw", shape[1] or 3


def with_free_size(proto: ModelProto) -> ModelProto:
    """Returns a copy whose input, output and inner tensors declare no height and width."""
    free = ModelProto()
    free.CopyFrom(proto)
    del free.graph.value_info[:]
    weights = {tensor.name for tensor in free.graph.initializer}
    for value in (*free.graph.input, *free.graph.output):
        if value.name in weights:
            continue
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if axis == 0 or not dim.HasField("dim_value") or dim.dim_value > 4:
                dim.Clear()
                dim.dim_param = f"{value.name}_{axis}"
    return free


def _try_size(proto: ModelProto, card: ModelCard, size: tuple[int, int], trial: Trial) -> int | None:
    """Returns the output's size over the input's, on noise in 0..1; None where the graph refuses that
    size."""
    shape = (
        (1, card.input_channels, *size) if card.layout == "nchw" else (1, *size, card.input_channels)
    )
    noise = np.random.default_rng(0).random(shape)
    image = (noise * 255).astype(np.uint8) if card.dtype == "uint8" else noise.astype(card.dtype)
    try:
        output = trial(proto.SerializeToString(), image)
    except Exception:  # any refusal of the library means the same here: not this size
        return None
    if output.ndim != 4:
        return None
    found = output.shape[2:4] if card.layout == "nchw" else output.shape[1:3]
    channels = output.shape[1] if card.layout == "nchw" else output.shape[3]
    scale = found[0] // size[0]
    if channels != card.input_channels or scale < 1 or found != (size[0] * scale, size[1] * scale):
        return None
    return int(scale)
