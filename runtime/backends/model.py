"""Models: ONNX graphs with their cards, found by zoo name or path, or inspected when it is foreign."""

from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, version_converter

from ..card import CardFlags, DType, Layout, ModelCard, read_card
from ..errors import ModelError
from ..frame import Array
from ..zoo import named_models
from .base import Model
from .foreign import as_picture_network
from .identity import NAME as IDENTITY

Trial = Callable[[bytes, Array], Array]
"""Runs a serialised graph with one input and one output on a tensor."""

BRIGHT = 4.0
"""Median output above which a network that is fed 0..1 is taken to work in 0..255."""

OLDEST_OPSET = 13
OPSET = 18

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
        raise ModelError(f"no model file at {path}")
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
    try:
        proto = onnx.load(str(path))
        onnx.checker.check_model(proto)
    except Exception as error:  # protobuf and the checker have no common error class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path} is not a readable ONNX model: {reason}") from error
    proto = with_modern_operators(proto, path.stem)
    card = read_card(proto)
    if card is not None:
        return Model(proto=proto, card=card, path=path)
    proto, card, notes = inspect(proto, path.stem, trial, strength=flags.strength)
    card, assumed = flags.apply(card)
    return Model(proto=proto, card=card, path=path, notes=(*notes, *assumed))


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
    for multiple in (1, 2, 4, 8, 16, 32):
        # 3 * 32 + multiple divides by `multiple` and by no larger power of two.
        side = 96 + multiple
        found = _try_size(free, card, (side, side), trial)
        if found is not None:
            card = replace(card, size_multiple=multiple)
            proto = free
            break
    else:
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
    scale, brightness = found
    card = replace(card, scale=scale, task="upscale" if scale > 1 else "style")
    if card.dtype != "uint8" and brightness > BRIGHT:
        card = replace(card, value_range=(0.0, 255.0))
    return proto, card, notes


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


def _try_size(
    proto: ModelProto, card: ModelCard, size: tuple[int, int], trial: Trial
) -> tuple[int, float] | None:
    """Returns (output over input size, median magnitude of the output) on noise in 0..1; None where the
    graph refuses that size."""
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
    return int(scale), float(np.median(np.abs(output.astype(np.float64))))
