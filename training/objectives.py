"""What differs between the tasks: how a batch becomes losses, and how a network is judged."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import losses, temporal
from .data import Image, Sample, read_image
from .metrics import benchmark_psnr
from .perception import Perception, WeightPaths, perception
from .recipe import Recipe

Network = Callable[[Tensor], Tensor]

GRID_PERIOD = 4
"""The total stride of the style networks: the period at which their artefacts repeat."""

STABILITY_BORDER = 32
"""Pixels at the edge of a crop where a rolled picture shows its other side."""

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
        recipe = self.recipe
        assert sample.low is not None
        output = net(sample.low)
        terms: dict[str, Tensor] = {}
        if recipe.pixel:
            pixel = losses.PIXEL_LOSSES[recipe.pixel_norm]
            terms["pixel"] = recipe.pixel * pixel(output, sample.photos)
        if recipe.edge:
            terms["edge"] = recipe.edge * losses.sobel_edge(output, sample.photos)
        if recipe.total_variation:
            terms["tv"] = recipe.total_variation * losses.total_variation(output)
        if self.features is not None and done >= recipe.content_from:
            with torch.no_grad():
                wanted = self.features(seen(sample.photos))
            found = self.features(seen(output.float()))
            terms["content"] = losses.feature_reconstruction(found, wanted, recipe.content)
        return terms

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
        self.target = self._style_target()

    @torch.no_grad()
    def _style_target(self) -> dict[str, Tensor]:
        """The Gram matrices to meet: mean over sizes, weighted mean over paintings."""
        recipe = self.recipe
        shares = recipe.style_blend or (1.0,) * len(recipe.style_images)
        grams: dict[str, Tensor] = {}
        for name, share in zip(recipe.style_images, shares, strict=True):
            painting = self._painting(self.root / name)
            for short_side in recipe.style_sizes:
                factor = short_side / min(painting.shape[2:])
                size = [round(side * factor) for side in painting.shape[2:]]
                resized = F.interpolate(painting, size, mode="bicubic", antialias=True).clamp(0, 1)
                features = self.features(resized)
                part = share / sum(shares) / len(recipe.style_sizes)
                for layer in recipe.style:
                    gram = losses.gram_matrix(features[layer]) * part
                    grams[layer] = grams[layer] + gram if layer in grams else gram
        return grams

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
            return self.features(photos, {*self.recipe.content, *self.recipe.feature_difference})

    def picture_terms(self, output: Tensor, content: dict[str, Tensor]) -> dict[str, Tensor]:
        """The paper's objective (equation 5) of pictures alone: content, style, total variation."""
        recipe = self.recipe
        features = self.features(output)
        terms: dict[str, Tensor] = {}
        if recipe.content:
            terms["content"] = losses.feature_reconstruction(features, content, recipe.content)
        terms["style"] = losses.gram_style(features, self.target, recipe.style)
        if recipe.total_variation:
            terms["tv"] = recipe.total_variation * losses.total_variation(output)
        return terms

    def losses(self, net: Network, sample: Sample, done: float) -> dict[str, Tensor]:
        recipe, photos = self.recipe, sample.photos
        output = net(photos).float()
        terms = self.picture_terms(output, self.content(photos))
        if recipe.grid:
            terms["grid"] = recipe.grid * losses.pixel_grid(output, GRID_PERIOD)
        if done >= recipe.stable_from:
            terms |= self._stable_terms(net, output, sample)
        return terms

    def _stable_terms(self, net: Network, output: Tensor, sample: Sample) -> dict[str, Tensor]:
        recipe, photos = self.recipe, sample.photos
        terms: dict[str, Tensor] = {}
        if recipe.stability:
            rows, columns = (int(n) for n in torch.randint(0, GRID_PERIOD, (2,)))
            noise = torch.randn_like(photos) * recipe.noise
            moved = net(photos.roll((rows, columns), (2, 3)) + noise)
            drift = temporal.stability(moved, output, (rows, columns), border=STABILITY_BORDER)
            terms["stability"] = recipe.stability * drift
        if recipe.flow:
            size = (photos.shape[2], photos.shape[3])
            draw = torch.Generator().manual_seed(int(torch.randint(1 << 31, ())))
            flow, back = temporal.random_motion(photos.shape[0], size, draw)
            flow = flow.to(photos.device)
            # This frame's sample at x is found at x + flow of the other.
            other = temporal.warp(photos, back.to(photos.device))
            before = net(other.clamp(0, 1)).float()
            mask = temporal.inside(flow, STABILITY_BORDER)
            terms["flow"] = recipe.flow * temporal.flow_consistency(output, before, flow, mask)
        if sample.frames is not None and (recipe.frame_difference or recipe.feature_difference):
            before, after = sample.frames
            styled_before, styled = net(before).float(), net(after).float()
            if recipe.frame_difference:
                change = temporal.frame_difference(styled, styled_before, after, before)
                terms["frame_difference"] = recipe.frame_difference * change
            if recipe.feature_difference:
                terms["feature_difference"] = temporal.feature_difference(
                    self.features(styled),
                    self.features(styled_before),
                    self.content(after),
                    self.content(before),
                    recipe.feature_difference,
                )
        return terms

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
            terms = self.picture_terms(net(photos).float().clamp(0, 1), self.content(photos))
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


def seen(pictures: Tensor) -> Tensor:
    """What a loss network is shown: RGB as it is, limited-range luma as full-range gray."""
    if pictures.shape[1] == 3:
        return pictures
    return ((pictures * 255.0 - 16.0) / 219.0).expand(-1, 3, -1, -1)


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
