"""Foreign graphs that take other planes than a picture's, made into graphs from picture to picture."""

import re
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from ..errors import ModelError

STRENGTH = 15 / 255
"""The level in a noise or strength plane, where none is given: a deviation of 15 of 255 levels, that of
the field's light denoising."""

LEVEL = re.compile(r"noise|sigma|strength|level", re.IGNORECASE)
"""The names of inputs that hold a level rather than another picture."""

PICTURE = "velatura_picture"
_FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}

# Rows: Y, Cb, Cr of R, G, B in full range, with the luma weights of ITU-R BT.709-6.
_YUV = np.array([
    [0.2126, 0.7152, 0.0722],
    [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.5],
    [0.5, -0.7152 / 1.5748, -0.0722 / 1.5748],
])  # fmt: skip
_MIDDLE = np.array([0.0, 0.5, 0.5])


def as_picture_network(
    proto: ModelProto, name: str, *, strength: float | None = None
) -> tuple[ModelProto, list[str]]:
    """Returns a graph with one picture in and one out, and a line for each plane that it supplies.

    Understood are, in float and with channels first: a noise or strength level beside the picture, as
    one more channel (RGB or luma and the level) or as an input of its own; networks of the two chroma
    planes, from U and V or from Y, U and V to U and V in 0..1. The level becomes `strength` in the
    model's own range; chroma is cut out of RGB by BT.709, and luma passes by. Any other graph comes
    back as it is. Raises ModelError for networks of several frames at once.
    """
    inputs = _inputs(proto)
    if len(inputs) == 2:
        return _with_level_filled(proto, name, STRENGTH if strength is None else strength)
    if len(inputs) != 1 or len(proto.graph.output) != 1:
        return proto, []
    shape = _shape(inputs[0])
    if len(shape) == 5:
        raise _temporal(name, f"{len(shape)}-dimensional tensors, {_count(shape[1])} frames")
    if len(shape) != 4 or not shape[1]:
        return proto, []
    given, made = shape[1], _channels_out(proto)
    if given > 4 and shape[3] in (1, 3):
        return proto, []  # height, width, channels: no plane is missing
    if (given, made) in ((4, 3), (2, 1)):
        return _with_level_plane(proto, name, given - 1, STRENGTH if strength is None else strength)
    if (given, made) in ((2, 2), (3, 2)):
        return _with_luma_beside(proto, name, given)
    if (made == 3 and given > 4) or (made == 1 and given > 2):
        colour = 3 if made == 3 else 1
        level = " and a level" if colour == 3 and given % 3 == 1 else ""
        frames = f"{given // colour} frames of {colour}{level}" if given != 3 else "3 frames of luma"
        raise _temporal(name, f"{given} channels for {made}, as of {frames}")
    return proto, []


def _temporal(name: str, what: str) -> ModelError:
    return ModelError(
        f"{name} takes {what}: a network of several frames at once needs a picture's neighbours, which "
        "are not handed to models here; take its variant for single pictures"
    )


def _count(side: int) -> str:
    return str(side) if side else "several"


def _inputs(proto: ModelProto) -> list[Any]:
    weights = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in weights]


def _shape(value: Any) -> list[int]:
    """Returns the sides of a tensor; 0 stands for an axis of any size."""
    return [d.dim_value if d.HasField("dim_value") else 0 for d in value.type.tensor_type.shape.dim]


def _channels_out(proto: ModelProto) -> int:
    """Returns the declared or inferred channels of the output; 0 where neither tells."""
    declared = _shape(proto.graph.output[0])
    if len(declared) == 4 and declared[1]:
        return declared[1]
    try:
        inferred = shape_inference.infer_shapes(proto, data_prop=True)
    except Exception:  # whatever inference stumbles over, a run will tell
        return 0
    found = _shape(inferred.graph.output[0])
    return found[1] if len(found) == 4 else 0


def _number(proto: ModelProto, name: str) -> type[np.float32] | type[np.float16]:
    kind = _inputs(proto)[0].type.tensor_type.elem_type
    if kind not in _FLOATS:
        raise ModelError(f"{name} takes other planes than a picture's in whole numbers, not in float")
    return _FLOATS[kind]


def _copied(proto: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:]
    return copy


def _prepend(proto: ModelProto, nodes: list[NodeProto], constants: dict[str, Any]) -> None:
    rest = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *rest])
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()
    )


def _take_picture(proto: ModelProto, old: str, channels: int) -> None:
    """Replace the input `old` by a picture of so many channels and any size."""
    (value,) = (value for value in proto.graph.input if value.name == old)
    dims = [1, channels, *(_shape(value)[2 + i] or axis for i, axis in enumerate(("h", "w")))]
    picture = helper.make_tensor_value_info(PICTURE, value.type.tensor_type.elem_type, dims)
    kept = [picture if v.name == old else v for v in proto.graph.input]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)


def _plane_nodes(picture: str, plane: str) -> list[NodeProto]:
    """Nodes that make a plane of the picture's size of the constant `velatura_strength`.

    A channel times zero: it needs no operator on shapes, which some engines run on another device.
    """
    return [
        helper.make_node("Gather", [picture, "velatura_first"], ["velatura_channel"], axis=1),
        helper.make_node("Mul", ["velatura_channel", "velatura_zero"], ["velatura_black"]),
        helper.make_node("Add", ["velatura_black", "velatura_strength"], [plane]),
    ]


def _plane_constants(number: type[np.floating[Any]], strength: float) -> dict[str, Any]:
    return {
        "velatura_first": np.array([0], np.int64),
        "velatura_zero": number(0),
        "velatura_strength": number(strength),
    }


def _level_note(name: str, strength: float) -> str:
    return (
        f"{name} takes a noise or strength level: filled with {strength:.3g} "
        "(`velatura import FILE --strength S` keeps another)"
    )


def _with_level_plane(
    proto: ModelProto, name: str, channels: int, strength: float
) -> tuple[ModelProto, list[str]]:
    number = _number(proto, name)
    made = _copied(proto)
    old = _inputs(made)[0].name
    _take_picture(made, old, channels)
    join = helper.make_node("Concat", [PICTURE, "velatura_plane"], [old], axis=1)
    nodes = [*_plane_nodes(PICTURE, "velatura_plane"), join]
    _prepend(made, nodes, _plane_constants(number, strength))
    return made, [_level_note(name, strength)]


def _with_level_filled(proto: ModelProto, name: str, strength: float) -> tuple[ModelProto, list[str]]:
    """A second input that holds a level becomes part of the graph; others leave the graph as it is."""
    levels = [value for value in _inputs(proto) if LEVEL.search(value.name)]
    if len(levels) != 1 or levels[0].type.tensor_type.elem_type not in _FLOATS:
        return proto, []
    (level,) = levels
    number = _FLOATS[level.type.tensor_type.elem_type]
    shape = _shape(level)
    made = _copied(proto)
    kept = [value for value in made.graph.input if value.name != level.name]
    del made.graph.input[:]
    made.graph.input.extend(kept)
    if len(shape) == 4 and shape[1] == 1 and shape[2:] != [1, 1]:
        picture = _inputs(made)[0].name
        _prepend(made, _plane_nodes(picture, level.name), _plane_constants(number, strength))
    elif all(side in (0, 1) for side in shape):
        ones = [1] * len(shape)
        _prepend(made, [], {level.name: np.full(ones, strength, number)})
    else:
        return proto, []
    return made, [_level_note(name, strength)]


def _with_luma_beside(proto: ModelProto, name: str, given: int) -> tuple[ModelProto, list[str]]:
    number = _number(proto, name)
    made = _copied(proto)
    graph = made.graph
    old, result = _inputs(made)[0].name, graph.output[0].name
    _take_picture(made, old, 3)
    whole = old if given == 3 else "velatura_yuv"
    into = [
        helper.make_node("Conv", [PICTURE, "velatura_to_yuv", "velatura_middle"], [whole]),
        helper.make_node("Gather", [whole, "velatura_y"], ["velatura_luma"], axis=1),
    ]
    if given == 2:
        into.append(helper.make_node("Gather", [whole, "velatura_uv"], [old], axis=1))
    out = [
        helper.make_node("Concat", ["velatura_luma", result], ["velatura_made"], axis=1),
        helper.make_node(
            "Conv", ["velatura_made", "velatura_to_rgb", "velatura_back"], ["velatura_rgb"]
        ),
    ]
    inverse = np.linalg.inv(_YUV)
    constants = {
        "velatura_to_yuv": _YUV[:, :, None, None].astype(number),
        "velatura_middle": _MIDDLE.astype(number),
        "velatura_to_rgb": inverse[:, :, None, None].astype(number),
        "velatura_back": (-inverse @ _MIDDLE).astype(number),
        "velatura_y": np.array([0], np.int64),
        "velatura_uv": np.array([1, 2], np.int64),
    }
    if given == 3:
        del constants["velatura_uv"]
    _prepend(made, into, constants)
    graph.node.extend(out)
    kind = graph.output[0].type.tensor_type.elem_type
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("velatura_rgb", kind, [1, 3, "rows", "columns"]))
    planes = "U and V" if given == 2 else "Y, U and V"
    return made, [
        f"{name} makes the chroma planes of {planes}: cut out of RGB by BT.709, luma passes unchanged"
    ]
