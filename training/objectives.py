"""What differs between the tasks: how a batch becomes losses, and how a network is judged."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import losses
from .data import Image, Sample, read_image
from .losses import EVERYWHERE, Network, Scene, reduced, seen, weighted
from .metrics.pairs import benchmark_psnr
from .perception import Perception, WeightPaths, perception
from .recipe import Recipe

VALIDATION_PICTURES = 4
VALIDATION_SIDE = 256


class Objective(Protocol):
    """A task's losses and measures."""

    def losses(self, net: Network, sample: Sample, done: float) -> dict[str, Tensor]:
        """The weighted terms of a batch; their sum is minimised. `done` is the part of the training."""
        ...

    def floor(self, sample: Sample) -> bool:
        """Run the loss network alone, forward and backward, as a step has to; False without one."""
        ...

    def validate(self, net: Network) -> dict[str, float]:
        """Measures of the averaged weights, by name; empty where the data is not at hand."""
        ...

    def preview(self, net: Network, sample: Sample) -> Tensor:
        """(N, 3 or 1, H, W) pictures for a person to look at: before beside after."""
        ...


class UpscaleObjective:
    """Pixel, edge and feature losses against the photograph whose reduction is the input."""

    def __init__(
        self, recipe: Recipe, root: Path, weights: WeightPaths | None, device: torch.device
    ) -> None:
        self.recipe = recipe
        self.root = root
        self.device = device
        self.features: Perception | None = None
        if recipe.content:
            self.features = perception(recipe, root, weights, device=device)

    def losses(self, net: Network, sample: Sample, done: float) -> dict[str, Tensor]:
        assert sample.low is not None
        scene = Scene(
            recipe=self.recipe, output=net(sample.low).float(), target=sample.photos,
            features=self.features, wanted=lambda: self._wanted(sample.photos),
        )  # fmt: skip
        return weighted(scene, done=done)

    @torch.no_grad()
    def _wanted(self, photos: Tensor) -> dict[str, Tensor]:
        assert self.features is not None
        return self.features(seen(photos), self.recipe.content)

    def floor(self, sample: Sample) -> bool:
        if self.features is None:
            return False
        _floor(self.features, seen(sample.photos), self.recipe.content)
        return True

    def validate(self, net: Network) -> dict[str, float]:
        scale, luma = self.recipe.scale, self.recipe.planes == 1

        @torch.no_grad()
        def upscale(picture: Image) -> Image:
            planes = torch.from_numpy(np.atleast_3d(picture)).permute(2, 0, 1)[None].to(self.device)
            output = net(planes.float() / 255.0).clamp(0.0, 1.0).mul(255.0).round().byte()
            pixels = output[0].permute(1, 2, 0).cpu().numpy()
            return pixels[:, :, 0] if luma else pixels

        return {
            f"{name}_psnr_y_db": float(np.mean(list(benchmark_psnr(upscale, folder, scale, luma=luma))))
            for name in ("set5", "set14")
            if (folder := self.root / "eval" / name / f"x{scale}").is_dir()
        }

    def preview(self, net: Network, sample: Sample) -> Tensor:
        assert sample.low is not None
        plain = F.interpolate(sample.low, scale_factor=self.recipe.scale, mode="bicubic").clamp(0, 1)
        return torch.cat([plain, net(sample.low).clamp(0, 1), sample.photos], 3)


class StyleObjective:
    """Feature reconstruction, Gram style, total variation, and what keeps a video stable."""

    def __init__(
        self, recipe: Recipe, root: Path, weights: WeightPaths | None, device: torch.device
    ) -> None:
        self.recipe = recipe
        self.root = root
        self.device = device
        self.features = perception(recipe, root, weights, device=device)
        self.targets = self._style_targets()
        self.palette = self._palette() if recipe.palette else None

    @torch.no_grad()
    def _style_targets(self) -> list[dict[str, Tensor]]:
        """The Gram matrices to meet at each scale: mean over sizes, weighted mean over paintings."""
        recipe = self.recipe
        targets: list[dict[str, Tensor]] = []
        for level in range(len(recipe.style_scales)):
            grams: dict[str, Tensor] = {}
            for painting, share in self._paintings():
                features = self.features(reduced(painting, level), recipe.style)
                for layer in recipe.style:
                    gram = losses.gram_matrix(features[layer]) * share
                    grams[layer] = grams[layer] + gram if layer in grams else gram
            targets.append(grams)
        return targets

    def _paintings(self) -> Iterator[tuple[Tensor, float]]:
        """Each painting at each of its sizes, (1, 3, H, W), and its share of the style."""
        recipe = self.recipe
        shares = recipe.style_blend or (1.0,) * len(recipe.style_images)
        for name, share in zip(recipe.style_images, shares, strict=True):
            painting = self._painting(self.root / name)
            for short_side in recipe.style_sizes:
                factor = short_side / min(painting.shape[2:])
                size = [round(side * factor) for side in painting.shape[2:]]
                resized = F.interpolate(painting, size, mode="bicubic", antialias=True).clamp(0, 1)
                yield resized, share / sum(shares) / len(recipe.style_sizes)

    @torch.no_grad()
    def _palette(self) -> Tensor:
        """The chroma moments to meet, by bands of luma."""
        found = [
            losses.palette_of(F.avg_pool2d(painting, 4), least=0.005)[0] * share
            for painting, share in self._paintings()
        ]
        return torch.stack(found).sum(0)

    def _painting(self, path: Path) -> Tensor:
        if not path.is_file():
            raise FileNotFoundError(f"no painting at {path}")
        pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)[None].float() / 255.0
        if self.recipe.style_crop:
            left, top, right, bottom = self.recipe.style_crop
            height, width = pixels.shape[2:]
            rows = slice(round(top * height), max(round(bottom * height), round(top * height) + 1))
            columns = slice(round(left * width), max(round(right * width), round(left * width) + 1))
            pixels = pixels[:, :, rows, columns]
        return pixels.to(self.device)

    def content(self, photos: Tensor) -> dict[str, Tensor]:
        """The photographs' features, which the output should keep."""
        with torch.no_grad():
            return self.features(photos, self.recipe.content)

    def picture_terms(
        self, output: Tensor, photos: Tensor, content: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The objective of pictures alone: the paper's (equation 5), at several scales, and the light.

        `content` are the photographs' features, as `content` gives them.
        """
        return weighted(self._scene(output, photos, lambda: content), of_picture=True)

    def _scene(
        self, output: Tensor, photos: Tensor, wanted: Callable[[], dict[str, Tensor]], **more: Any
    ) -> Scene:
        return Scene(
            recipe=self.recipe, output=output, target=photos, wanted=wanted, features=self.features,
            grams=self.targets, palette=self.palette, **more,
        )  # fmt: skip

    def losses(self, net: Network, sample: Sample, done: float) -> dict[str, Tensor]:
        photos = sample.photos
        output = net(photos).float()
        if done < self.recipe.repeat_until:
            return {"pixel": losses.pixel_l1(output, photos)}
        window = self._window(photos)
        scene = self._scene(
            output, photos, lambda: self.content(photos[:, :, *window]),
            window=window, net=net, sample=sample,
        )  # fmt: skip
        return weighted(scene, done=done)

    def _window(self, photos: Tensor) -> tuple[slice, slice]:
        """The place of this step's window, in whole cells of the deepest layers."""
        if self.recipe.window == 1:
            return EVERYWHERE
        found: list[slice] = []
        for side in photos.shape[2:]:
            length = max(16, round(side * self.recipe.window) // 16 * 16)
            start = int(torch.randint(0, side - length + 1, ()))
            found.append(slice(start, start + length))
        return found[0], found[1]

    def floor(self, sample: Sample) -> bool:
        _floor(self.features, sample.photos, self.recipe.content)
        return True

    def validate(self, net: Network) -> dict[str, float]:
        """The picture's terms, mean over four of Kodak's photographs at 256 pixels."""
        paths = sorted((self.root / "eval" / "kodak24").glob("*.png"))[:VALIDATION_PICTURES]
        if not paths:
            return {}
        photos = torch.cat([centre_square(read_image(path), VALIDATION_SIDE) for path in paths])
        photos = photos.to(self.device)
        with torch.no_grad():
            terms = self.picture_terms(net(photos).float().clamp(0, 1), photos, self.content(photos))
        return {f"kodak_{name}": float(term) for name, term in terms.items()}

    def preview(self, net: Network, sample: Sample) -> Tensor:
        return torch.cat([sample.photos, net(sample.photos).clamp(0, 1)], 3)


def build_objective(
    recipe: Recipe,
    root: Path,
    weights: WeightPaths | None = None,
    device: torch.device | None = None,
) -> Objective:
    """The objective of the (resolved) recipe's task."""
    kind = UpscaleObjective if recipe.task == "upscale" else StyleObjective
    return kind(recipe, root, weights, device or torch.device("cpu"))


def centre_square(image: Image, side: int) -> Tensor:
    """The largest central square, reduced: (H, W, 3) uint8 -> (1, 3, side, side) in 0..1."""
    height, width = image.shape[:2]
    least = min(height, width)
    top, left = (height - least) // 2, (width - least) // 2
    square = torch.from_numpy(np.ascontiguousarray(image[top : top + least, left : left + least]))
    pixels = square.permute(2, 0, 1)[None].float() / 255.0
    return F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def _floor(features: Perception, photos: Tensor, content: Iterable[str]) -> None:
    """The target's content layers, then all layers of an output, forward and backward."""
    with torch.no_grad():
        features(photos, content)
    found = list(features(photos.detach().clone().requires_grad_()).values())
    torch.autograd.backward(found, [torch.ones_like(activation) for activation in found])
