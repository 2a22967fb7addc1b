"""Recipe: one TOML file that says how a model is trained."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, cast

from . import recipes

Task = Literal["upscale", "style"]


Weights = dict[str, float]
"""Layer of the loss network -> weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a recipe says about a loss that one of its keys weighs, beside the weight."""

    task: Task | None = None
    """The only task that it is for."""
    of_picture: bool = False
    """Whether it belongs to the objective of a picture alone, which L-BFGS minimises, too."""
    since: str = ""
    """The key with the part of the training after which it counts."""


def _loss(**about: Any) -> Any:
    """A key that weighs a loss: one number, 0 where it is not used."""
    return field(default=0.0, metadata={"loss": Loss(**about)})


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
    begin_with: str = ""
    """Recipe whose run, in the folder beside this one's, gives the first weights: a painting's strokes
    are learned sooner from another's than from nothing. Where there is no such run, from nothing."""
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
    pixel: float = _loss(task="upscale")
    pixel_norm: Literal["l1", "l2", "charbonnier"] = "l1"
    edge: float = _loss(task="upscale")
    """Weight of the difference of Sobel gradients."""
    style_images: tuple[str, ...] = ()
    """The paintings, relative to the data root or absolute; the style is the mean of theirs."""
    style_blend: tuple[float, ...] = ()
    """Weights of the paintings in that mean; equal where it is empty."""
    style_sizes: tuple[int, ...] = (512,)
    """Short sides at which a painting is seen; their Gram matrices are averaged."""
    style_scales: tuple[float, ...] = (1.0,)
    """Weights of the Gram loss at full, half, quarter .. size, output and painting reduced alike: large
    structure comes from scale as much as from depth (Snelgrove 2017)."""
    style_norm: Literal["squared", "root"] = "squared"
    """The Gram loss of a layer as in the paper, or its square root."""
    window: float = 1.0
    """Side of the part of a crop, drawn anew at each step, that the loss network sees at full size."""
    style_crop: tuple[float, ...] = ()
    """Left, top, right, bottom of the part of the paintings that counts, each of 0..1."""
    loss_network: Literal["vgg16", "vgg19"] = "vgg16"
    """The network whose layers `content`, `style` and `feature_difference` name."""
    vgg: str = "weights/vgg16_features_torchvision.pth"
    """Weights to take where torch's hub cache has no torchvision file."""
    content: Weights = field(
        default_factory=dict[str, float], metadata={"loss": Loss(of_picture=True, since="content_from")}
    )
    """Layer of the loss network -> weight of the feature-reconstruction loss."""
    repeat_until: float = 0.0
    """Part of a style's training before which the network only learns to repeat the photograph: a step
    without the loss network takes a tenth of the time; a style then begins with all of the scene."""
    content_from: float = 0.0
    """Part of an upscaler's training after which the feature loss counts: pixels first, cheaply."""
    style: Weights = field(
        default_factory=dict[str, float], metadata={"loss": Loss(task="style", of_picture=True)}
    )
    """Layer -> weight of the Gram loss."""
    total_variation: float = _loss(of_picture=True)
    light: float = _loss(task="style", of_picture=True)
    """Weight of the difference of a style's luma and the photograph's, both averaged over 16 pixels."""
    palette: float = _loss(task="style", of_picture=True)
    """Weight of the difference of the chroma that a style gives to each luma and the painting's."""
    synthetic: float = 0.0
    """Part of the crops that are drawn by seed, games and screens; the others are photographs."""
    stability: float = _loss(task="style", since="stable_from")
    """Weight of what noise and a shift of the input by a few pixels change in the output."""
    noise: float = 0.02
    """Deviation of that noise, of 0..1."""
    flow: float = _loss(task="style", since="stable_from")
    """Weight of the difference along the true flow of a synthetic pan and zoom."""
    frame_difference: float = _loss(task="style", since="stable_from")
    """Weight of the change between two frames of a video beyond the input's own, in pixels."""
    feature_difference: Weights = field(
        default_factory=dict[str, float], metadata={"loss": Loss(task="style", since="stable_from")}
    )
    """Layer -> weight of the same in the loss network's features."""
    stable_from: float = 0.0
    """Part of the training after which the temporal terms count: a style is learned on stills first."""
    grid: float = _loss(task="style")
    """Weight of a style's dependence on the place in the pixel grid of the stride."""
    strength: float = 1.0
    """The part of the model's result in the picture where nothing else is asked for: for its card."""
    keep_colours: bool = False
    """Whether the frame's own chroma is kept then, too."""
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
        if not 0 <= self.strength <= 1:
            raise ValueError(f"{origin}: strength {self.strength:g} is not within 0..1")
        if "kind" not in self.net:
            raise ValueError(f"{origin}: net has no kind")
        if min(self.steps, self.batch, self.crop) < 1:
            raise ValueError(f"{origin}: steps, batch and crop must be positive")
        if self.task == "style" and not (self.style_images and self.style):
            raise ValueError(f"{origin}: a style recipe needs style_images and style layers")
        if self.task == "upscale":
            # A restorer has scale 1: what it mends is what the encoder did.
            least = 1 if self.degradation == "video" else 2
            if self.scale < least or self.crop % self.scale:
                raise ValueError(
                    f"{origin}: an upscaler needs scale >= {least} and a crop that it divides"
                )
            if not (self.pixel or self.content):
                raise ValueError(f"{origin}: an upscaling recipe needs a pixel or a content loss")
            if self.content_from and not self.pixel:
                raise ValueError(f"{origin}: content_from needs a pixel loss for the time before it")
        elif self.reduce != 1 or self.content_from:
            raise ValueError(f"{origin}: reduce and content_from are for upscalers")
        if not (0 < self.reduce <= 1 and 0 <= self.content_from < 1):
            raise ValueError(f"{origin}: reduce must be in (0, 1] and content_from in [0, 1)")
        if not (0 < self.window <= 1 and 0 <= self.synthetic < 1 and 0 <= self.repeat_until < 1):
            raise ValueError(
                f"{origin}: window must be in (0, 1], synthetic and repeat_until in [0, 1)"
            )
        if not self.style_scales or min(self.style_scales) < 0 or max(self.style_scales) <= 0:
            raise ValueError(f"{origin}: style_scales are weights, of which one is above zero")
        if self.task == "upscale" and (self.repeat_until or self.window != 1):
            raise ValueError(f"{origin}: repeat_until and window are for styles")
        for name, loss in self.losses():
            if loss.task not in (None, self.task):
                raise ValueError(f"{origin}: {name} is a loss of the task {loss.task}, not {self.task}")
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

    def losses(self) -> list[tuple[str, Loss]]:
        """The losses that count, by the keys that weigh them: the one table of losses is the class."""
        return [
            (f.name, f.metadata["loss"])
            for f in fields(self)
            if "loss" in f.metadata and getattr(self, f.name)
        ]

    def told_losses(self) -> dict[str, str]:
        """Each loss that counts with its weight, or its layers with theirs, in words."""
        found: dict[str, str] = {}
        for name, _ in self.losses():
            weight: float | Weights = getattr(self, name)
            if isinstance(weight, dict):
                found[name] = " ".join(f"{layer}:{part:g}" for layer, part in weight.items())
            else:
                found[name] = f"{weight:g}"
        return found

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
    "style_norm": ("squared", "root"),
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
