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
    """Everything that decides the result of a training run, apart from the photographs themselves."""

    name: str
    """The model's name, also the file's: `upscale-2x`."""
    task: Task
    title: str
    """One line for the model's card."""
    net: dict[str, Any]
    """`kind`, and the options of that network."""
    photos: tuple[str, ...]
    """Folders of photographs, relative to the data root."""
    steps: int
    batch: int
    crop: int
    """Side of the training crops, in pixels of the target."""
    learning_rate: float
    warmup: int = 200
    """Steps of linear warm-up before the cosine."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    average: float = 0.999
    """Decay of the weights' moving average."""
    freeze_norm: float = 0.8
    """Part of the training after which batch normalisation uses its running statistics."""
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: int = 1
    scale: int = 1
    style_image: str = ""
    """The painting, relative to the data root."""
    style_sizes: tuple[int, ...] = (512,)
    """Short sides at which the painting is seen; their Gram matrices are averaged."""
    vgg: str = "weights/vgg16_relu3_3.npz"
    squeezenet: str = "weights/squeezenet1_1_fire9.npz"
    pixel: float = 0.0
    total_variation: float = 0.0
    stability: float = 0.0
    """Weight of what noise and a shift of the input by a few pixels change in the output."""
    grid: float = 0.0
    """Weight of the dependence on the place in the stride's pixel grid."""
    noise: float = 0.02
    """Deviation of that noise, of 0..1."""
    content: dict[str, float] = field(default_factory=_no_weights)
    """Layer -> weight of the feature-reconstruction loss; `relu*` is VGG-16, `fire*` SqueezeNet."""
    style: dict[str, float] = field(default_factory=_no_weights)
    """Layer -> weight of the Gram loss."""
    licence: str = "Apache-2.0"
    attribution: str = ""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, origin: str) -> Self:
        """Check and build. Raises ValueError naming `origin` and the key that is wrong."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"{origin}: unknown key {', '.join(unknown)}")
        checked: dict[str, Any] = {
            key: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
            for key, value in values.items()
        }
        try:
            recipe = cls(**checked)
        except TypeError as error:
            raise ValueError(f"{origin}: {error}") from error
        recipe.check(origin)
        return recipe

    def check(self, origin: str) -> None:
        """Raises ValueError when the values contradict each other."""
        if self.task not in ("upscale", "style"):
            raise ValueError(f"{origin}: task is {self.task!r}, not upscale or style")
        if "kind" not in self.net:
            raise ValueError(f"{origin}: net has no kind")
        if min(self.steps, self.batch, self.crop) < 1:
            raise ValueError(f"{origin}: steps, batch and crop must be positive")
        if self.task == "style" and not (self.style_image and self.style):
            raise ValueError(f"{origin}: a style recipe needs style_image and style layers")
        if self.task == "upscale" and self.scale < 2:
            raise ValueError(f"{origin}: an upscaling recipe needs scale >= 2")

    def to_mapping(self) -> dict[str, Any]:
        """The recipe as a plain mapping of lists, numbers and strings."""
        return {k: list(cast(Any, v)) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


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
