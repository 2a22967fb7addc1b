"""The range of values that a foreign network works in, found by showing it a photograph."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ..card import ModelCard, Range
from ..frame import Array

Trial = Callable[[bytes, Array], Array]
"""Runs a serialised graph with one input and one output on a tensor."""

UNIT: Range = (0.0, 1.0)
BYTES: Range = (0.0, 255.0)
SIGNED: Range = (-1.0, 1.0)

MARGIN = 0.2
"""The gain in score for which another range than 0..1 is taken. Networks without biases score the same
in 0..1 and in 0..255; styles change a picture less in a range that they have not learned, by which the
shipped ones' score rises by 0.16 at most. A wrong range costs 0.5 and more."""

MIXED_MARGIN = 0.3
"""The same for a range of the output that is not that of the input, which is rare."""

MOST_CLIPPED = 0.5
"""The part of the samples beyond the range above which a result is doubted; styles may clip a third."""

LEAST_LIKENESS = 0.2
"""The likeness below which a result is doubted: noise has up to 0.1, the strongest styles 0.4."""

FLAT = 0.02
"""The deviation of the luma below which a result shows nothing; the photograph's is 0.2."""


@dataclass(frozen=True, slots=True)
class View:
    """What a network makes of the photograph, in the ranges of a card."""

    likeness: float
    """The larger correlation with the photograph: of the luma, or of where its edges are; -1..1."""
    clipped: float
    """The part of the samples that lie beyond the range; 1 for results that are no numbers."""
    score: float
    """The figure by which ranges are compared; larger is better."""

    def doubts(self, card: ModelCard) -> tuple[str, ...]:
        """Returns a line for what is wrong with the result."""
        spoken = words(card)
        if self.clipped > MOST_CLIPPED:
            return (
                f"warning: {card.name} gives black or white nearly everywhere "
                f"({self.clipped:.0%} of a photograph) with {spoken}: see --range, --mean, --deviation",
            )
        if self.likeness < LEAST_LIKENESS:
            return (
                f"warning: what {card.name} makes of a photograph does not resemble it with {spoken}: "
                "see --range, --mean, --deviation; it may be no model for pictures",
            )
        return ()


def words(card: ModelCard) -> str:
    """Returns the card's ranges in words."""

    def one(span: Range) -> str:
        return f"{span[0]:g}..{span[1]:g}"

    given = f"values of {one(card.value_range)}"
    if card.mean:
        given += f", mean {_listed(card.mean)} and deviation {_listed(card.deviation)}"
    return given if card.output_range is None else f"{given} (results of {one(card.output_range)})"


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


@lru_cache(maxsize=8)
def photograph(height: int, width: int, channels: int) -> Array:
    """Returns a picture like a photograph, (H, W) or (H, W, 3) in 0..1, the same at every call.

    Octaves of noise whose amplitude falls as 1/f, mostly common to the channels, with edges of
    large shapes before a gradient; mean near 0.45, from nearly black to nearly white.
    """
    rng = np.random.default_rng(1826)
    rows, columns = np.indices((height, width), np.float32) / max(height, width)
    grey: Array = 0.4 * (1 - rows)
    for _ in range(12):
        y, x, radius = rng.random(3)
        shape = np.hypot(rows - y, columns - x) < 0.05 + 0.2 * radius
        grey = np.where(shape, rng.random() * (0.7 + 0.3 * rows), grey)
    picture = np.repeat(grey[..., None], channels, 2).astype(np.float32)
    octave = 4
    while octave < max(height, width):
        common = rng.normal(size=(octave, octave, 1)) + 0.3 * rng.normal(
            size=(octave, octave, channels)
        )
        large = cv2.resize(common.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        picture += 0.35 * large.reshape(picture.shape) / octave
        octave *= 2
    low, high = np.percentile(picture, (1, 99))
    picture = np.clip((picture - low) / (high - low) * 0.94 + 0.03, 0, 1).squeeze()
    picture.flags.writeable = False
    return picture


def guess(proto: ModelProto, card: ModelCard, size: tuple[int, int], trial: Trial) -> ModelCard:
    """Returns the card with the ranges in which the network's picture is nearest to the photograph.

    `size` is (height, width) of a picture that it takes. What the last layer limits itself to (tanh, a
    sigmoid, a clip) says the range of the output; else the result of each range decides, and 0..1 where
    there is no difference.
    """
    if card.dtype == "uint8":
        return card
    bounds = output_range(proto)
    seen: list[tuple[ModelCard, float]] = []
    mixed: list[tuple[ModelCard, float]] = []
    for given in (UNIT, BYTES, SIGNED):
        fed = replace(card, value_range=given)
        output = _run(proto, fed, size, trial)
        if output is None:
            continue
        for made in (UNIT, BYTES, SIGNED) if bounds is None else (bounds,):
            tried = fed if made == given else replace(fed, output_range=made)
            (seen if made == given else mixed).append((tried, _view(output, tried, size).score))
    best = (card, -1.0)
    for found, margin in ((seen, MARGIN), (mixed, MIXED_MARGIN)):
        for one in found:
            if one[1] > best[1] + margin:
                best = one
    return best[0]


def look(proto: ModelProto, card: ModelCard, size: tuple[int, int], trial: Trial) -> View:
    """Returns the view of the photograph through the network, in the ranges of its card."""
    output = _run(proto, card, size, trial)
    return View(0.0, 1.0, -1.0) if output is None else _view(output, card, size)


def output_range(proto: ModelProto) -> Range | None:
    """Returns the range that the last layers limit the output to, of 0..1, 0..255 and -1..1; None
    where they do not."""
    makers = {name: node for node in proto.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    name, factor, offset = proto.graph.output[0].name, 1.0, 0.0
    for _ in range(16):
        node = makers.get(name)
        if node is None:
            return None
        kind = node.op_type
        limits = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0)}.get(kind)
        if kind == "Clip":
            found = [_scalar(node, index, makers, constants) for index in (1, 2)]
            limits = (found[0], found[1]) if found[0] is not None and found[1] is not None else None
        if limits is not None:
            low, high = sorted(limit * factor + offset for limit in limits)
            spans = {span: _overlap((low, high), span) for span in (UNIT, BYTES, SIGNED)}
            nearest = max(spans, key=lambda span: spans[span])
            return nearest if spans[nearest] > 0.6 else None
        if kind in ("Mul", "Div", "Add", "Sub"):
            index = 1 if _scalar(node, 1, makers, constants) is not None else 0
            value = _scalar(node, index, makers, constants)
            if (
                value is None
                or (index == 0 and kind in ("Div", "Sub"))
                or (kind == "Div" and not value)
            ):
                return None
            # The value at the output is factor * (the value here) + offset.
            if kind in ("Mul", "Div"):
                factor *= value if kind == "Mul" else 1 / value
            else:
                offset += factor * (value if kind == "Add" else -value)
            name = node.input[1 - index]
        elif kind in ("Identity", "Cast", "Transpose", "Reshape", "Slice", "DepthToSpace", "Squeeze"):
            name = node.input[0]
        else:
            return None
    return None


def _scalar(
    node: NodeProto, index: int, makers: dict[str, NodeProto], constants: dict[str, TensorProto]
) -> float | None:
    """Returns the value of an input that is one constant number."""
    if len(node.input) <= index:
        return None
    name = node.input[index]
    tensor = constants.get(name)
    maker = makers.get(name)
    if tensor is None and maker is not None and maker.op_type == "Constant" and maker.attribute:
        tensor = maker.attribute[0].t
    if tensor is None:
        return None
    try:
        value = numpy_helper.to_array(tensor)
        return float(value.reshape(-1)[0]) if value.size == 1 else None
    except (TypeError, ValueError):
        return None


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> float:
    common = min(one[1], other[1]) - max(one[0], other[0])
    return common / (max(one[1], other[1]) - min(one[0], other[0]))


def _run(proto: ModelProto, card: ModelCard, size: tuple[int, int], trial: Trial) -> Array | None:
    """Returns the network's output for the photograph, (H, W, C) in its own numbers; None where the
    library refuses it."""
    picture = photograph(*size, card.input_channels).reshape(*size, card.input_channels)
    low, high = card.value_range
    if card.dtype == "uint8":
        low, high = BYTES
    if card.input_colour == "bgr":
        picture = picture[..., ::-1]
    fed = low + picture * (high - low)
    if card.mean:
        mean, deviation = card.normalisation(card.input_colour)
        fed = (fed - mean) / deviation
    tensor = fed[None] if card.layout == "nhwc" else fed.transpose(2, 0, 1)[None]
    if card.dtype == "uint8":
        tensor = tensor.round()
    try:
        output = trial(proto.SerializeToString(), np.ascontiguousarray(tensor.astype(card.dtype)))
    except Exception:  # any refusal of the library means the same here
        return None
    return output[0].astype(np.float64).transpose(*((0, 1, 2) if card.layout == "nhwc" else (1, 2, 0)))


def _view(output: Array, card: ModelCard, size: tuple[int, int]) -> View:
    low, high = BYTES if card.dtype == "uint8" else (card.output_range or card.value_range)
    if card.mean and card.output_range is None:
        mean, deviation = card.normalisation(card.output_colour)
        output = output * deviation + mean
    with np.errstate(invalid="ignore", over="ignore"):
        values = (output - low) / (high - low)
    if not np.isfinite(values).all():
        return View(0.0, 1.0, -1.0)
    clipped = float(((values < -0.02) | (values > 1.02)).mean())
    # What is left of it in a frame's samples.
    shown = (np.clip(values, 0, 1) * 255).round() / 255
    small: Array = np.asarray(cv2.resize(_mean(shown), size[::-1], interpolation=cv2.INTER_AREA))
    wanted = photograph(*size, card.input_channels).reshape(*size, -1).mean(2).astype(np.float64)
    if small.std() < FLAT:
        return View(0.0, clipped, -clipped)
    # Padding by zeros is black in one range and grey in another, at the picture's border.
    inner = tuple(slice(side // 12, side - side // 12) for side in size)
    luma = _correlation(_blurred(small, 1.5)[inner], _blurred(wanted, 1.5)[inner])
    edges = _correlation(_edges(small)[inner], _edges(wanted)[inner])
    near = 1 - min(1.0, 2 * float(np.sqrt(np.square(small - wanted)[inner].mean())))
    score = 0.4 * luma + 0.4 * edges + 0.2 * near - clipped
    return View(max(luma, edges), clipped, score)


def _mean(picture: Array) -> Array:
    return np.asarray(picture.mean(2), np.float64)


def _blurred(plane: Array, sigma: float) -> Array:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma))


def _edges(plane: Array) -> Array:
    """Returns how steep the picture is, smoothed: a style moves an edge by a pixel or two."""
    rows, columns = np.gradient(plane)
    return _blurred(np.hypot(rows, columns), 2.0)


def _correlation(one: Array, other: Array) -> float:
    a, b = one - one.mean(), other - other.mean()
    size = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / size if size > 1e-9 else 0.0
