"""The training loop: setup -> fit -> validate, for every recipe."""

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from . import losses
from .checkpoint import Checkpoint
from .data import Image, PhotoCrops, UprightCrops, bicubic_downscale, read_image
from .metrics import benchmark_psnr
from .nets import build_net
from .recipe import Recipe
from .vgg import VGG16, SqueezeNet, load_squeezenet, load_vgg16


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run reports every `report_every` steps."""

    step: int
    steps: int
    loss: dict[str, float]
    """Means since the last report, by the loss's name."""
    learning_rate: float
    elapsed: float
    """Seconds over all sessions."""
    remaining: float
    """Estimated seconds left."""


GRID_PERIOD = 4
"""The total stride of the style networks: the period at which their artefacts repeat."""

STABILITY_BORDER = 32
"""Pixels at the edge of a crop where a rolled picture shows its other side."""


class Objective(Protocol):
    """What differs between the tasks: how a batch becomes losses, and how a net is judged."""

    def losses(self, net: Callable[[Tensor], Tensor], photos: Tensor) -> dict[str, Tensor]:
        """The weighted terms for (N, C, H, W) photographs in 0..1; their sum is minimised."""
        ...

    def validate(self, net: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Measures of the averaged weights, by name; empty where the data is not at hand."""
        ...

    def preview(self, net: Callable[[Tensor], Tensor], photos: Tensor) -> Tensor:
        """(N, 3 or 1, H, W) pictures for a person to look at."""
        ...


class UpscaleObjective:
    """Pixel loss against the photograph whose antialiased bicubic reduction is the input."""

    def __init__(self, recipe: Recipe, root: Path) -> None:
        self.recipe = recipe
        self.root = root

    def losses(self, net: Callable[[Tensor], Tensor], photos: Tensor) -> dict[str, Tensor]:
        output = net(bicubic_downscale(photos, self.recipe.scale))
        return {"pixel": self.recipe.pixel * losses.pixel_l1(output, photos)}

    def validate(self, net: Callable[[Tensor], Tensor]) -> dict[str, float]:
        @torch.no_grad()
        def upscale(luma: Image) -> Image:
            output = net(torch.from_numpy(luma)[None, None].float() / 255.0)[0, 0]
            return output.clamp(0.0, 1.0).mul(255.0).round().byte().numpy()

        scale = self.recipe.scale
        return {
            f"{name}_psnr_y_db": float(np.mean(list(benchmark_psnr(upscale, folder, scale))))
            for name in ("set5", "set14")
            if (folder := self.root / "eval" / name / f"x{scale}").is_dir()
        }

    def preview(self, net: Callable[[Tensor], Tensor], photos: Tensor) -> Tensor:
        low = bicubic_downscale(photos, self.recipe.scale)
        plain = F.interpolate(low, scale_factor=self.recipe.scale, mode="bicubic").clamp(0, 1)
        return torch.cat([plain, net(low).clamp(0, 1), photos], 3)


class StyleObjective:
    """Feature reconstruction + Gram style + total variation through the loss networks."""

    def __init__(self, recipe: Recipe, root: Path) -> None:
        self.recipe = recipe
        layers = {*recipe.content, *recipe.style}
        self.vgg_layers = sorted(layer for layer in layers if layer.startswith("relu"))
        self.squeeze_layers = sorted(layers - set(self.vgg_layers))
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        self.vgg: VGG16 | None = None
        self.squeezenet: SqueezeNet | None = None
        if self.vgg_layers:
            self.vgg = load_vgg16(root / recipe.vgg)
            self.vgg.require(self.vgg_layers)
            channels_last(self.vgg.convs.to(dtype))
        if self.squeeze_layers:
            self.squeezenet = load_squeezenet(root / recipe.squeezenet)
            self.squeezenet.require(self.squeeze_layers)
            channels_last(self.squeezenet.convs.to(dtype))
        self.dtype = dtype
        self.target = self._style_target(root / recipe.style_image)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Activations of all layers that the recipe names, for RGB in 0..1."""
        found: dict[str, Tensor] = {}
        for extractor, layers in ((self.vgg, self.vgg_layers), (self.squeezenet, self.squeeze_layers)):
            if extractor is not None:
                y = extractor.prepare(images).to(self.dtype, memory_format=torch.channels_last)
                found |= extractor.activations(y, layers)
        return found

    @torch.no_grad()
    def _style_target(self, path: Path) -> dict[str, Tensor]:
        painting = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None].float() / 255.0
        grams: dict[str, list[Tensor]] = {layer: [] for layer in self.recipe.style}
        for short_side in self.recipe.style_sizes:
            factor = short_side / min(painting.shape[2:])
            size = [round(side * factor) for side in painting.shape[2:]]
            resized = F.interpolate(painting, size, mode="bicubic", antialias=True).clamp(0, 1)
            features = self.features(resized)
            for layer, found in grams.items():
                found.append(losses.gram_matrix(features[layer]))
        return {layer: torch.stack(found).mean(0) for layer, found in grams.items()}

    def losses(self, net: Callable[[Tensor], Tensor], photos: Tensor) -> dict[str, Tensor]:
        output = net(photos).float()
        with torch.no_grad():
            content = self.features(photos)
        features = self.features(output)
        terms = {
            "content": losses.feature_reconstruction(features, content, self.recipe.content),
            "style": losses.gram_style(features, self.target, self.recipe.style),
            "tv": self.recipe.total_variation * losses.total_variation(output),
        }
        if self.recipe.grid:
            terms["grid"] = self.recipe.grid * losses.pixel_grid(output, GRID_PERIOD)
        if self.recipe.stability:
            rows, columns = (int(n) for n in torch.randint(0, GRID_PERIOD, (2,)))
            noise = torch.randn_like(photos) * self.recipe.noise
            moved = net(photos.roll((rows, columns), (2, 3)) + noise)
            drift = losses.stability(moved, output, (rows, columns), border=STABILITY_BORDER)
            terms["stability"] = self.recipe.stability * drift
        return terms

    def validate(self, net: Callable[[Tensor], Tensor]) -> dict[str, float]:
        del net  # how well a style is met is its training loss; there is no ground truth
        return {}

    def preview(self, net: Callable[[Tensor], Tensor], photos: Tensor) -> Tensor:
        return torch.cat([photos, net(photos).clamp(0, 1)], 3)


def fit(
    recipe: Recipe,
    *,
    root: Path,
    folder: Path,
    time_budget: float | None = None,
    report_every: int = 50,
    save_every: int = 500,
    report: Callable[[Progress], None] | None = None,
) -> Checkpoint:
    """Train `recipe` on the photographs below `root`, or go on where `folder`'s checkpoint stopped.

    Writes `checkpoint.pt`, `log.jsonl` and `preview.png` into `folder`. With `time_budget` (seconds,
    over all sessions) the learning rate's cosine ends when the first of steps and time runs out.
    Raises FileNotFoundError for missing data, ValueError when `folder` belongs to another recipe.
    """
    torch.manual_seed(recipe.seed)
    net = build_net(recipe.net["kind"], {k: v for k, v in recipe.net.items() if k != "kind"})
    channels_last(net)
    average = AveragedModel(net, avg_fn=moving_average(recipe.average), use_buffers=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate)
    objective = build_objective(recipe, root)
    photos = read_photos(recipe, root)
    step, before = 0, 0.0

    path = folder / "checkpoint.pt"
    if path.exists():
        saved = Checkpoint.load(path)
        if saved.recipe != recipe.to_mapping():
            raise ValueError(f"{path} was trained with another recipe: choose another folder")
        net.load_state_dict(saved.net)
        average.load_state_dict(saved.average)
        optimizer.load_state_dict(saved.optimizer)
        step, before = saved.step, saved.elapsed

    def checkpoint() -> Checkpoint:
        return Checkpoint(
            recipe.to_mapping(), step, before + time.monotonic() - start,
            net.state_dict(), average.state_dict(), optimizer.state_dict(),
        )  # fmt: skip

    start = time.monotonic()
    done = 0.0
    sums: dict[str, float] = {}
    while done < 1.0 and step < recipe.steps:
        elapsed = before + time.monotonic() - start
        done = max(step / recipe.steps, elapsed / time_budget if time_budget else 0.0)
        rate = learning_rate(recipe, step, min(done, 1.0))
        for group in optimizer.param_groups:
            group["lr"] = rate
        set_mode(net, training=True, frozen_norm=done >= recipe.freeze_norm)
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        batch = photos.batch(step, recipe.batch).to(memory_format=torch.channels_last)
        with autocast(recipe):
            terms = objective.losses(net, batch)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
        optimizer.step()
        average.update_parameters(net)
        step += 1
        for name, term in terms.items():
            sums[name] = sums.get(name, 0.0) + term.item() / report_every
        if step % report_every == 0:
            elapsed = before + time.monotonic() - start
            left = elapsed * (1.0 - done) / max(done, 1e-9)
            progress = Progress(step, recipe.steps, sums, rate, elapsed, left)
            append_log(folder / "log.jsonl", progress)
            if report is not None:
                report(progress)
            sums = {}
        if step % save_every == 0:
            checkpoint().save(path)
            write_preview(folder / "preview.png", objective, average, photos)
    final = checkpoint()
    final.save(path)
    write_preview(folder / "preview.png", objective, average, photos)
    return final


def averaged_net(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint with its averaged weights, in eval mode."""
    recipe = Recipe.from_mapping(checkpoint.recipe, origin="checkpoint")
    net = build_net(recipe.net["kind"], {k: v for k, v in recipe.net.items() if k != "kind"})
    average = AveragedModel(net, use_buffers=True)
    average.load_state_dict(checkpoint.average)
    return average.module.eval()


def channels_last(module: nn.Module) -> None:
    """Keep the module's kernels in the order in which CPU and tensor-core convolutions read them."""
    cast(Any, module).to(memory_format=torch.channels_last)


def build_objective(recipe: Recipe, root: Path) -> Objective:
    """The objective of the recipe's task."""
    return UpscaleObjective(recipe, root) if recipe.task == "upscale" else StyleObjective(recipe, root)


def read_photos(recipe: Recipe, root: Path) -> PhotoCrops:
    """The recipe's photographs, decoded."""
    kind = PhotoCrops if recipe.task == "upscale" else UprightCrops
    folders = [root / folder for folder in recipe.photos]
    return kind(folders, crop=recipe.crop, seed=recipe.seed, luma=recipe.task == "upscale")


def learning_rate(recipe: Recipe, step: int, done: float) -> float:
    """Linear warm-up, then a cosine to a hundredth of the recipe's rate at `done` = 1."""
    cosine = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))
    return recipe.learning_rate * min(1.0, (step + 1) / max(recipe.warmup, 1)) * cosine


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average whose decay grows with its age, so that a short run does not lag."""

    def blend(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        age = float(count)
        return average.lerp(current.to(average.dtype), 1.0 - min(decay, (1.0 + age) / (10.0 + age)))

    return blend


def set_mode(net: nn.Module, *, training: bool, frozen_norm: bool) -> None:
    """Training mode, with batch normalisation on its running statistics when frozen.

    The last part of the training then sees the network that will be folded and exported.
    """
    net.train(training)
    if frozen_norm:
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def autocast(recipe: Recipe) -> AbstractContextManager[Any]:
    """BF16 autocast where the recipe asks for it."""
    if recipe.precision == "bf16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return nullcontext()


def append_log(path: Path, progress: Progress) -> None:
    """One JSON line per report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {"step": progress.step, "rate": progress.learning_rate, "elapsed": progress.elapsed}
    with path.open("a") as log:
        log.write(json.dumps({**line, **progress.loss}) + "\n")


@torch.no_grad()
def write_preview(path: Path, objective: Objective, net: nn.Module, photos: PhotoCrops) -> None:
    """Four fixed crops before and after, one below the other."""
    net.eval()
    # Batch -1 is never trained on as such, and stays the same through a run.
    pictures = objective.preview(net, photos.batch(10**9, 4)).float()
    column = torch.cat(list(pictures), 1).permute(1, 2, 0).mul(255).round().byte().numpy()
    cv2.imwrite(str(path), np.ascontiguousarray(column[:, :, ::-1]))
    net.train()
