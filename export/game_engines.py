"""`velatura export --for unity|unreal`: the graph that a game engine's own runtime takes."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper

from ..runtime.card import ModelCard
from ..runtime.colour import yuv_from_rgb_matrix
from ..runtime.errors import ModelError
from ..runtime.frame import Colour
from .checker import check
from .opset import with_opset
from .precision import half_precision
from .targets import DEFAULT_OPSET, IMAGE, IR_VERSION, RESULT, Target
from .to_onnx import strip

LUMA_GAIN = 255.0 / 219.0
"""Full-range steps for each limited-range one: what a luma network adds, in the game's numbers."""


def graph_for(
    proto: ModelProto,
    card: ModelCard,
    target: Target,
    *,
    size: tuple[int, int] | None = None,
    opset: int = DEFAULT_OPSET,
    half: bool = False,
) -> tuple[ModelProto, ModelCard]:
    """The model as float32 RGB (1, 3, H, W) in 0..1 in and out, in plain operators, with its card.

    `size` (height, width) fixes it: a size that the network does not take itself is padded by
    reflection below and at the right, and the result cropped. Without it, height and width are free
    multiples of the card's `size_multiple`. A luma network gets luma of BT.709 in limited range, as in
    a video of that size, and its result replaces that of the picture resampled bilinearly, which
    keeps the picture's chroma. With `half`, the network itself is in float16.

    Raises ModelError for a size that the model does not take, where the graph cannot be written in
    that operator set or breaks the target's rules, and where half precision overflows.
    """
    size = size or card.fixed_size
    pads = lacking(card, size)
    if half:
        try:
            proto, halved, _ = half_precision(proto, card)
        except ValueError as error:
            raise ModelError(str(error)) from error
        card = replace(card, precision=halved.precision)
    inner = ModelProto()
    inner.CopyFrom(proto)
    strip(inner)
    _drop_weight_inputs(inner)
    # The names of the two ends and of the new nodes must not meet one of the network's.
    inner = compose.add_prefix(with_opset(inner, opset), "net_")
    source, output = inner.graph.input[0].name, inner.graph.output[0].name
    around = _Surroundings(card, half)
    before = around.before(pads)
    _rename_input(inner, source, "net_in" if before else IMAGE)
    after = around.after(output, pads, size)
    nodes = [*before, *inner.graph.node, *after]
    height, width = size or ("height", "width")
    tall, wide = _result_size(card, height, width)
    graph = helper.make_graph(
        nodes,
        "velatura",
        [helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info(RESULT, TensorProto.FLOAT, [1, 3, tall, wide])],
        [*inner.graph.initializer, *around.constants],
    )
    _name_nodes(graph)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    model.producer_name = "velatura"
    made = replace(
        card,
        input_colour="rgb",
        output_colour="rgb",
        layout="nchw",
        dtype="float32",
        value_range=(0.0, 1.0),
        fixed_size=size,
        size_multiple=1 if size else card.size_multiple,
        min_size=1 if size else card.min_size,
        halo=min(card.halo, min(size) // 4) if size else card.halo,
        measures={},
    )
    made.write_to(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker and inference have no common error class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{card.name} cannot be written for {target.title}: {reason}") from error
    found = check(model, target)
    if found:
        lines = "\n".join(f"  {violation}" for violation in found)
        raise ModelError(f"{card.name} cannot be exported for {target.title}:\n{lines}")
    return model, made


def lacking(card: ModelCard, size: tuple[int, int] | None) -> tuple[int, int]:
    """Rows and columns that a fixed size lacks for the network."""
    if size is None:
        return 0, 0
    if card.fixed_size is not None and size != card.fixed_size:
        height, width = card.fixed_size
        raise ModelError(f"{card.name} takes {width}x{height} only: give no other size")
    found: list[int] = []
    for side in size:
        least = max(side, card.min_size)
        pad = least + -least % card.size_multiple - side
        if pad >= side:
            raise ModelError(f"{card.name} takes no side of {side}: give at least {card.min_size}")
        found.append(pad)
    return found[0], found[1]


def _result_size(card: ModelCard, height: int | str, width: int | str) -> tuple[int | str, int | str]:
    if isinstance(height, int) and isinstance(width, int):
        return height * card.scale, width * card.scale
    return (height, width) if card.scale == 1 else ("result_height", "result_width")


def _drop_weight_inputs(model: ModelProto) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _rename_input(model: ModelProto, old: str, new: str) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def _name_nodes(graph: Any) -> None:
    """Every node its own name."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)


class _Surroundings:
    """The nodes before and after the network, and their constants."""

    def __init__(self, card: ModelCard, half: bool) -> None:
        self.card = card
        self.half = half
        self.luma = card.input_colour == "luma"
        self.constants: list[TensorProto] = []
        self._nodes: list[NodeProto] = []
        self._last = IMAGE
        self._picture = IMAGE

    def before(self, pads: tuple[int, int]) -> list[NodeProto]:
        """From `image` to the tensor `net_in`; none where the network takes `image` itself."""
        self._nodes, self._last = [], IMAGE
        if any(pads):
            amounts = np.array([0, 0, 0, 0, 0, 0, *pads], np.int64)
            self._add("Pad", self._constant("pads", amounts), mode="reflect")
        self._picture = self._last
        low, high = self.card.value_range
        if self.luma:
            self._luma("luma", high - low, low)
        else:
            self._swapped(self.card.input_colour)
            self._scaled(high - low, low)
        if self.card.layout == "nhwc":
            self._add("Transpose", perm=[0, 2, 3, 1])
        if self.half:
            self._add("Cast", to=TensorProto.FLOAT16)
        return self._finish("net_in")

    def after(
        self, output: str, pads: tuple[int, int], size: tuple[int, int] | None
    ) -> list[NodeProto]:
        """From the network's output to `result`."""
        self._nodes, self._last = [], output
        if self.half:
            self._add("Cast", to=TensorProto.FLOAT)
        if self.card.layout == "nhwc":
            self._add("Transpose", perm=[0, 3, 1, 2])
        low, high = self.card.value_range
        gain = LUMA_GAIN if self.luma else 1.0
        self._scaled(gain / (high - low), -low * gain / (high - low))
        if self.luma:
            self._with_chroma()
        else:
            self._swapped(self.card.output_colour)
        if any(pads) and size is not None:
            ends = np.array([side * self.card.scale for side in size], np.int64)
            starts = self._constant("starts", np.zeros(2, np.int64))
            self._add("Slice", starts, self._constant("ends", ends), self._constant("axes", _SIDES))
        zero = self._constant("zero", np.float32(0))
        self._add("Clip", zero, self._constant("one", np.float32(1)))
        return self._finish(RESULT)

    def _with_chroma(self) -> None:
        """The picture at the result's size, moved by what the network's luma differs from its own."""
        made, self._last = self._last, self._picture
        if self.card.scale > 1:
            scales = np.array([1, 1, self.card.scale, self.card.scale], np.float32)
            self._add(
                "Resize",
                "",
                self._constant("scales", scales),
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
        picture = self._last
        self._luma("resampled_luma", LUMA_GAIN, 0.0)
        plain, self._last = self._last, made
        self._add("Sub", plain)
        self._add("Add", picture)

    def _luma(self, name: str, factor: float, offset: float) -> None:
        """A convolution of one sample: RGB becomes limited luma of 0..1, times `factor` and moved."""
        weights, black = luma_weights()
        weight = self._constant(f"{name}_weight", (weights * factor).reshape(1, 3, 1, 1))
        bias = self._constant(f"{name}_bias", np.array([black * factor + offset]))
        self._add("Conv", weight, bias, kernel_shape=[1, 1])

    def _scaled(self, factor: float, offset: float) -> None:
        if factor != 1.0:
            self._add("Mul", self._constant(f"factor_{len(self.constants)}", np.array(factor)))
        if offset != 0.0:
            self._add("Add", self._constant(f"offset_{len(self.constants)}", np.array(offset)))

    def _swapped(self, colour: str) -> None:
        if colour == "bgr":
            name = f"order_{len(self.constants)}"
            self._add("Gather", self._constant(name, np.array([2, 1, 0], np.int64)), axis=1)

    def _constant(self, name: str, value: "np.ndarray[Any, Any] | np.generic") -> str:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def _add(self, kind: str, *inputs: str, **attributes: Any) -> None:
        name = f"{kind}_{len(self.constants)}_{len(self._nodes)}"
        node = helper.make_node(kind, [self._last, *inputs], [name], name, **attributes)
        self._nodes.append(node)
        self._last = name

    def _finish(self, name: str) -> list[NodeProto]:
        if self._nodes:
            self._nodes[-1].output[0] = name
        return self._nodes


_SIDES = np.array([2, 3], np.int64)


def luma_weights() -> tuple[npt.NDArray[np.float64], float]:
    """Of R, G and B in 0..1 in limited BT.709 luma of 0..1, and what black has.

    As `yuv_from_rgb_matrix`, for the primaries that sRGB and BT.709 share.
    """
    row = yuv_from_rgb_matrix(Colour(matrix="bt709", range="limited"), 8)[0]
    return row[:3], float(row[3] / 255.0)
