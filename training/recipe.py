"""Recipe: one TOML file that says how a model is trained."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, cast

from . import recipes

Task = Literal["upscale", "style"]


def _no_weights() -> dict[str, float]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides the result of a training run, apart from the pictures themselves."""

    name: str
    """The model's name, also the file's: `upscale-2x`."""
    task: Task
    title: str
    """One line for the model's card."""
    net: dict[str, Any]
    """`kind`, and the options of that network."""
    photos: tuple[str, ...]
    """Folders of photographs, relative to the data root or absolute."""
    steps: int
    batch: int
    crop: int
    """Side of the training crops, in pixels of the target."""
    learning_rate: float
    videos: tuple[str, ...] = ()
    """Folders of videos for the losses over two frames."""
    warmup: int = 200
    """Steps of linear warm-up before the cosine."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    average: float = 0.999
    """Decay of the weights' moving average."""
    freeze_norm: float = 0.8
    """Part of the training after which batch normalisation uses its running statistics."""
    precision: Literal["bf16", "fp32"] = "bf16"
    quantisation_aware: bool = False
    """Fine-tune with the roundings of INT8 in place; validation and preview then show them, too."""
    seed: int = 1
    scale: int = 1
    colour: Literal["luma", "rgb"] = "rgb"
    """What an upscaler eats and gives."""
    reduce: float = 1.0
    """Smallest factor of the random reduction of an upscaler's crops, against the traces of JPEG."""
    degradation: Literal["bicubic", "gaussian", "video"] = "bicubic"
    """How an upscaler's input is made from the photograph."""
    pixel: float = 0.0
    pixel_norm: Literal["l1", "l2", "charbonnier"] = "l1"
    edge: float = 0.0
    """Weight of the difference of Sobel gradients."""
    style_images: tuple[str, ...] = ()
    """The paintings, relative to the data root or absolute; the style is the mean of theirs."""
    style_blend: tuple[float, ...] = ()
    """Weights of the paintings in that mean; equal where it is empty."""
    style_sizes: tuple[int, ...] = (512,)
    """Short sides at which a painting is seen; their Gram matrices are averaged."""
    style_crop: tuple[float, ...] = ()
    """Left, top, right, bottom of the part of the paintings that counts, each of 0..1."""
    loss_network: Literal["vgg16", "vgg19"] = "vgg16"
    """The network behind `relu*`."""
    vgg: str = "weights/vgg16_relu3_3.npz"
    """Weights to take where torch's hub cache has no torchvision file."""
    squeezenet: str = "weights/squeezenet1_1_fire9.npz"
    content: dict[str, float] = field(default_factory=_no_weights)
    """Layer -> weight of the feature-reconstruction loss; `relu*` is VGG, the others SqueezeNet."""
    content_from: float = 0.0
    """Part of an upscaler's training after which the feature loss counts: pixels first, cheaply."""
    style: dict[str, float] = field(default_factory=_no_weights)
    """Layer -> weight of the Gram loss."""
    content_full: dict[str, float] = field(default_factory=_no_weights)
    """Instead of `content` where the VGG weights hold all these layers."""
    style_full: dict[str, float] = field(default_factory=_no_weights)
    """Instead of `style` where the VGG weights hold all these layers."""
    total_variation: float = 0.0
    stability: float = 0.0
    """Weight of what noise and a shift of the input by a few pixels change in the output."""
    noise: float = 0.02
    """Deviation of that noise, of 0..1."""
    flow: float = 0.0
    """Weight of the difference along the true flow of a synthetic pan and zoom."""
    frame_difference: float = 0.0
    """Weight of the change between two frames of a video beyond the input's own, in pixels."""
    feature_difference: dict[str, float] = field(default_factory=_no_weights)
    """Layer -> weight of the same in the loss network's features."""
    stable_from: float = 0.0
    """Part of the training after which the temporal terms count: a style is learned on stills first."""
    grid: float = 0.0
    """Weight of a style's dependence on the place in the pixel grid of the stride."""
    licence: str = "Apache-2.0"
    attribution: str = ""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, origin: str) -> Self:
        """Check and build. Raises ValueError naming `origin` and the key that is wrong."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"{origin}: unknown key {', '.join(unknown)}")
        checked = {key: _typed(key, value, origin) for key, value in values.items()}
        try:
            recipe = cls(**checked)
        except TypeError as error:
            raise ValueError(f"{origin}: {error}") from error
        recipe.check(origin)
        return recipe

    def check(self, origin: str) -> None:
        """Raises ValueError when the values contradict each other."""
        for key, choices in _CHOICES.items():
            if getattr(self, key) not in choices:
                raise ValueError(f"{origin}: {key} is {getattr(self, key)!r}, not {', '.join(choices)}")
        if "kind" not in self.net:
            raise ValueError(f"{origin}: net has no kind")
        if min(self.steps, self.batch, self.crop) < 1:
            raise ValueError(f"{origin}: steps, batch and crop must be positive")
        if self.task == "style" and not (self.style_images and self.style):
            raise ValueError(f"{origin}: a style recipe needs style_images and style layers")
        if self.task == "upscale":
            if self.scale < 2 or self.crop % self.scale:
                raise ValueError(f"{origin}: an upscaler needs scale >= 2 and a crop that it divides")
            if not (self.pixel or self.content):
                raise ValueError(f"{origin}: an upscaling recipe needs a pixel or a content loss")
            if self.grid:
                raise ValueError(f"{origin}: grid is a loss of styles; an upscaler has net.smooth")
            if self.content_from and not self.pixel:
                raise ValueError(f"{origin}: content_from needs a pixel loss for the time before it")
        elif self.reduce != 1 or self.content_from:
            raise ValueError(f"{origin}: reduce and content_from are for upscalers")
        if not (0 < self.reduce <= 1 and 0 <= self.content_from < 1):
            raise ValueError(f"{origin}: reduce must be in (0, 1] and content_from in [0, 1)")
        if self.style_blend and (
            len(self.style_blend) != len(self.style_images) or min(self.style_blend) <= 0
        ):
            raise ValueError(f"{origin}: style_blend needs one positive weight for each painting")
        if self.style_crop:
            left, top, right, bottom = (*self.style_crop, *(-1.0,) * 4)[:4]
            if len(self.style_crop) != 4 or not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise ValueError(f"{origin}: style_crop is left, top, right, bottom, each of 0..1")
        if (self.frame_difference or self.feature_difference) and not self.videos:
            raise ValueError(f"{origin}: frame_difference and feature_difference need videos")

    @property
    def planes(self) -> int:
        """Channels of the network's input and output."""
        return 1 if self.task == "upscale" and self.colour == "luma" else 3

    def to_mapping(self) -> dict[str, Any]:
        """The recipe as a plain mapping of lists, numbers and strings."""
        return {k: list(cast(Any, v)) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


_CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("upscale", "style"),
    "precision": ("bf16", "fp32"),
    "colour": ("luma", "rgb"),
    "degradation": ("bicubic", "gaussian", "video"),
    "pixel_norm": ("l1", "l2", "charbonnier"),
    "loss_network": ("vgg16", "vgg19"),
}


def _typed(key: str, value: Any, origin: str) -> Any:
    """A TOML value as the field's type. Raises ValueError when it is of another."""
    field_type: Any = next(f.type for f in fields(Recipe) if f.name == key)
    wanted: str = field_type.__name__ if isinstance(field_type, type) else str(field_type)
    wanted = str(field_type) if wanted in ("tuple", "dict") else wanted.removeprefix("typing.")
    kind = wanted.partition("[")[0]
    if kind == "tuple" and isinstance(value, list | tuple):
        items = cast("list[Any]", value)
        numbers = "str" not in wanted
        if all(isinstance(item, (int, float) if numbers else str) for item in items):
            return tuple(items)
    elif kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif kind in ("bool", "int") and type(value).__name__ == kind:
        return value
    elif kind == "dict" and isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    elif kind in ("str", "Literal", "Task") and isinstance(value, str):
        return value
    raise ValueError(f"{origin}: {key} is {value!r}, which is no {wanted}")


def load_recipe(name: str | Path) -> Recipe:
    """A shipped recipe by name, or any recipe by path.

    Raises FileNotFoundError for an unknown name, ValueError for a bad file.
    """
    path = Path(name)
    if path.suffix != ".toml":
        found = resources.files(recipes).joinpath(f"{name}.toml")
        if not found.is_file():
            raise FileNotFoundError(
                f"no recipe {str(name)!r}; there are: {', '.join(shipped_recipes())}, "
                "or give the path of a .toml file"
            )
        text, origin = found.read_text(), f"recipe {name}"
    else:
        text, origin = path.read_text(), str(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{origin}: {error}") from error
    return Recipe.from_mapping(values, origin=origin)


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with velatura."""
    folder = resources.files(recipes)
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))
