"""ModelCard: a model's inputs, outputs and origin, stored as JSON in the ONNX file's metadata."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

import numpy as np

from .errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto

METADATA_KEY = "velatura"

Task = Literal["upscale", "style"]
ColourOrder = Literal["rgb", "bgr", "luma"]
Layout = Literal["nchw", "nhwc"]
DType = Literal["float32", "float16", "uint8"]
Range = tuple[float, float]
"""The numbers that stand for sample value 0 and for the peak."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "task": get_args(Task),
    "input_colour": get_args(ColourOrder),
    "output_colour": get_args(ColourOrder),
    "layout": get_args(Layout),
    "dtype": get_args(DType),
}

OF_RECIPE = {"from": "recipe"}
OF_NETWORK = {"from": "net"}
"""Metadata of the fields that an export takes from the attribute of the same name."""


def _empty() -> dict[str, float]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model's description. Everything that runs a model reads this and nothing else."""

    name: str = field(metadata=OF_RECIPE)
    task: Task = field(metadata=OF_RECIPE)
    title: str = field(default="", metadata=OF_RECIPE)
    input_colour: ColourOrder = "rgb"
    """The colour of the input; `luma` models get the Y plane as it is coded, and chroma is resampled
    beside them."""
    output_colour: ColourOrder = "rgb"
    layout: Layout = "nchw"
    dtype: DType = "float32"
    """The type of the input and output tensors."""
    value_range: tuple[float, float] = (0.0, 1.0)
    """Numbers that stand for sample value 0 and for the peak, at input and output."""
    output_range: tuple[float, float] | None = None
    """The same at the output, where it differs."""
    mean: tuple[float, ...] = ()
    """Subtracted at the input, for each channel in the order of RGB, in the numbers of `value_range`;
    empty for none. The output is taken as normalised alike, unless `output_range` is given."""
    deviation: tuple[float, ...] = ()
    """What is divided by after the subtraction; as many as `mean`."""
    scale: int = field(default=1, metadata=OF_RECIPE)
    """Output size over input size."""
    size_multiple: int = field(default=1, metadata=OF_NETWORK)
    """Height and width must be multiples of this; frames are padded by reflection and cropped."""
    min_size: int = field(default=1, metadata=OF_NETWORK)
    """Smallest height and width; smaller frames are padded, too."""
    fixed_size: tuple[int, int] | None = None
    """(height, width) when the graph takes one size only: frames are tiled to it."""
    halo: int = field(default=32, metadata=OF_NETWORK)
    """Receptive-field radius in input pixels: the margin that a tile needs around its own pixels."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """The number format of weights and activations inside the graph."""
    strength: float = field(default=1.0, metadata=OF_RECIPE)
    """The part of its result that is in the picture where nothing else is asked for, 0..1."""
    keep_colours: bool = field(default=False, metadata=OF_RECIPE)
    """True if its result gets the frame's own chroma where nothing else is asked for."""
    recipe: str = ""
    training: str = ""
    """The length of the training, in words: steps, batch, hours, machine."""
    losses: str = ""
    """The objective of the training, in words: the losses and the layers of the loss networks."""
    data: str = ""
    """The training data."""
    licence: str = field(default="", metadata=OF_RECIPE)
    attribution: str = field(default="", metadata=OF_RECIPE)
    measures: dict[str, float] = field(default_factory=_empty)
    """Measured figures, by name and unit, such as `set5_psnr_y_db`."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ModelError(
                    f"model card: {name} is {getattr(self, name)!r}, not {' or '.join(choices)}"
                )
        if min(self.scale, self.size_multiple) < 1 or self.halo < 0:
            raise ModelError("model card: scale and size_multiple start at 1, halo at 0")
        if not 0 <= self.strength <= 1:
            raise ModelError(f"model card: a strength of {self.strength:g} is not within 0..1")
        for low, high in (self.value_range, self.output_range or (0.0, 1.0)):
            if not low < high:
                raise ModelError(f"model card: the range {low:g}..{high:g} does not rise")
        if len(self.mean) != len(self.deviation) or len(self.mean) not in (0, self.input_channels):
            raise ModelError(
                f"model card: mean and deviation need {self.input_channels} numbers each, not "
                f"{len(self.mean)} and {len(self.deviation)}"
            )
        if any(one <= 0 for one in self.deviation):
            raise ModelError("model card: a deviation is not above 0")

    @property
    def input_channels(self) -> int:
        """1 for luma, 3 otherwise."""
        return 1 if self.input_colour == "luma" else 3

    @property
    def output_channels(self) -> int:
        """1 for luma, 3 otherwise."""
        return 1 if self.output_colour == "luma" else 3

    def normalisation(
        self, colour: ColourOrder
    ) -> tuple["np.ndarray[Any, np.dtype[np.float64]]", "np.ndarray[Any, np.dtype[np.float64]]"]:
        """Returns (mean, deviation) of each channel in that order, 0 and 1 where none are given."""
        count = 1 if colour == "luma" else 3
        mean = np.array(self.mean or (0.0,) * count)
        deviation = np.array(self.deviation or (1.0,) * count)
        return (mean[::-1], deviation[::-1]) if colour == "bgr" else (mean, deviation)

    def to_json(self) -> str:
        """Returns the card as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the card in a JSON text; keys that a later version added are ignored.

        Raises ModelError when it is not a card.
        """
        try:
            values: Any = json.loads(text)
            known = {f.name for f in fields(cls)}
            kept: dict[str, Any] = {
                k: tuple(cast(Any, v)) if isinstance(v, list) else v
                for k, v in values.items()
                if k in known
            }
            return cls(**kept)
        except (TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"the model's card cannot be read: {error}") from error

    def write_to(self, model: "ModelProto") -> None:
        """Write the card into an ONNX model, in place of any earlier one."""
        kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
        del model.metadata_props[:]
        model.metadata_props.extend(kept)
        model.metadata_props.add(key=METADATA_KEY, value=self.to_json())


def read_card(model: "ModelProto") -> ModelCard | None:
    """Returns the card in an ONNX model, or None for a foreign one."""
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            return ModelCard.from_json(entry.value)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFlags:
    """The user's statements about a foreign model that inspection cannot find out."""

    value_range: float | Range | None = None
    """The largest value of a range from 0, such as 1 or 255, or (lowest, largest); None takes the
    card's, which inspection has guessed."""
    output_range: Range | None = None
    """The same of the results, where it differs."""
    mean: tuple[float, ...] = ()
    """As in the card."""
    deviation: tuple[float, ...] = ()
    """As in the card."""
    colour_order: Literal["rgb", "bgr"] | None = None
    """The order of channels; None takes rgb."""
    strength: float | None = None
    """The level for a model that takes one beside the picture, in the model's own range; None takes
    that of light denoising."""

    def apply(self, card: ModelCard) -> tuple[ModelCard, list[str]]:
        """Returns the card with the flags, and a line for each assumption."""
        assumed: list[str] = []
        if self.value_range is not None:
            given = self.value_range
            span = given if isinstance(given, tuple) else (0.0, given)
            card = replace(card, value_range=span, output_range=self.output_range)
        elif card.value_range == (0.0, 255.0):
            assumed.append("values taken as 0..255, as its output suggests (--range 1 for the other)")
        elif card.value_range == (-1.0, 1.0):
            assumed.append("values taken as -1..1, as its output suggests (--range 1 for 0..1)")
        else:
            assumed.append("values taken as 0..1 (--range 255 for a model that wants 0..255, or -1..1)")
        if self.value_range is None and card.output_range is not None:
            low, high = card.output_range
            assumed.append(f"results taken as {low:g}..{high:g}, as they suggest")
        if self.mean or self.deviation:
            card = replace(card, mean=self.mean, deviation=self.deviation)
        if card.input_colour != "luma":
            if self.colour_order is None:
                assumed.append("channels taken as RGB (--channels bgr for the other order)")
            else:
                card = replace(card, input_colour=self.colour_order)
        if card.output_colour != "luma":
            card = replace(card, output_colour=self.colour_order or "rgb")
        return card, assumed
