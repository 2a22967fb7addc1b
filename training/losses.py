"""The losses of Johnson et al. 2016, "Perceptual Losses for Real-Time Style Transfer", and on pixels;
the table of all losses by the recipe's keys.

All take float tensors (N, C, H, W), pictures in 0..1, and return a float32 scalar without unit.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import temporal
from .data import Sample
from .device import mean_of_processes
from .perception import Perception
from .recipe import Recipe, Weights


def pixel_l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference over all elements."""
    return (output.float() - target.float()).abs().mean()


def pixel_l2(output: Tensor, target: Tensor) -> Tensor:
    """Squared Euclidean distance divided by C*H*W, mean over the batch (Johnson, section 3.2)."""
    return (output.float() - target.float()).square().mean()


def charbonnier(output: Tensor, target: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Mean of sqrt(difference^2 + epsilon^2): L1, smooth at zero (Lai et al. 2017, "LapSRN").

    `epsilon` is in the tensors' own unit.
    """
    difference = output.float() - target.float()
    return (difference.square() + epsilon**2).sqrt().mean()


PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": pixel_l1,
    "l2": pixel_l2,
    "charbonnier": charbonnier,
}


def sobel_edge(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the Sobel gradients, both directions, borders left out.

    The kernels are Sobel and Feldman's (1968) divided by 8, so that a ramp's gradient is its slope per
    pixel.
    """
    kernel = (
        torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=output.device) / 8
    )
    kernels = torch.stack([kernel, kernel.T])[:, None]
    difference = (output.float() - target.float()).flatten(0, 1)[:, None]
    # The filter is linear: the gradient of the difference is the difference of the gradients.
    return F.conv2d(difference, kernels).abs().mean()


class _SquaredDistance(torch.autograd.Function):
    """Mean of (output - target)^2 in float32, the difference kept in the tensors' own precision.

    Written out because PyTorch's own chain of conversions and products, forward and back, took a
    quarter of a training step: the features are large, and memory is what limits. The target gets no
    gradient.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, target: Tensor) -> Tensor:
        difference = output - target
        ctx.save_for_backward(difference)
        return _mean_square(difference)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> tuple[Tensor, None]:
        (difference,) = cast("tuple[Tensor]", ctx.saved_tensors)
        return difference * (gradients[0] * (2.0 / difference.numel())).to(difference.dtype), None


class _Gram(torch.autograd.Function):
    """(N, C, H, W) -> (N, C, C) float32, with one product on the way back.

    The Gram matrix is F^T F: its gradient by F is F (D + D^T), where autograd would form F D and
    F D^T, the second in the other memory order, and add them.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        flat = features.permute(0, 2, 3, 1).flatten(1, 2)
        return (flat.transpose(1, 2) @ flat).float() / features[0].numel()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *gradients: Tensor
    ) -> Tensor:
        (features,) = cast("tuple[Tensor]", ctx.saved_tensors)
        batch, channels, height, width = features.shape
        both = (gradients[0] + gradients[0].transpose(1, 2)) / features[0].numel()
        flat = features.permute(0, 2, 3, 1).flatten(1, 2)
        product = flat @ both.to(flat.dtype)
        return product.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _mean_square(x: Tensor) -> Tensor:
    """Mean of squares; of BF16 in float32, without a float32 copy of `x`."""
    dtype = torch.float32 if x.dtype == torch.bfloat16 else None
    # In two steps: one sum over millions of squares is off by a thousandth in float32.
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
    norms = cast(Tensor, torch.linalg.vector_norm(pixels, dim=2, dtype=dtype))
    return norms.square().sum() / x.numel()


def feature_reconstruction(
    output: Mapping[str, Tensor], target: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    """Sum over layers of `weight * ||output - target||^2 / (C*H*W)`, mean over the batch (equation 2).

    Each layer is also divided by the target's own mean square, so that a weight means the same at
    every depth; the paper's loss is this one times that energy.
    """
    terms: list[Tensor] = []
    for layer, weight in weights.items():
        energy = mean_of_processes(_mean_square(target[layer])).clamp_min(1e-6)
        distance = cast(Tensor, cast(Any, _SquaredDistance).apply(output[layer], target[layer]))
        terms.append(weight * distance / energy)
    return torch.stack(terms).sum()


def gram_matrix(features: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, C) float32: inner products of channels over C*H*W (equation 3).

    The product runs in the features' own precision (BF16 accumulates in float32), pixels by channels,
    which is a view of channels-last memory: copies into the other order took half of a training step.
    """
    return cast(Tensor, cast(Any, _Gram).apply(features))


def gram_style(
    output: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    weights: Mapping[str, float],
    *,
    root: bool = False,
) -> Tensor:
    """Sum over layers of `weight * ||G(output) - target||_F^2`, mean over the batch (equation 4).

    `target` holds Gram matrices, (1, C, C). Each layer is divided by its target's squared norm, so that
    an even gray picture has 1. `root` takes the square root of each picture's and layer's part: crops
    with much contrast reach 14 at relu4_3, and their squares teach a network to be dull.
    """
    terms: list[Tensor] = []
    for layer, weight in weights.items():
        goal = target[layer]
        difference = gram_matrix(output[layer]) - goal
        distance = difference.square().sum((1, 2)) / goal.square().sum().clamp_min(1e-12)
        terms.append(weight * (distance.sqrt() if root else distance).mean())
    return torch.stack(terms).sum()


def total_variation(image: Tensor) -> Tensor:
    """Mean squared difference of neighbours, vertical plus horizontal (section 3.2; beta = 2)."""
    image = image.float()
    rows = (image[:, :, 1:] - image[:, :, :-1]).square().mean()
    columns = (image[:, :, :, 1:] - image[:, :, :, :-1]).square().mean()
    return rows + columns


def pixel_grid(image: Tensor, period: int) -> Tensor:
    """How much the picture depends on the pixel's place in a grid: variance of the phases' means.

    A picture split into `period` x `period` cells has `period`^2 phases; in a photograph their means
    are alike, in the output of a strided network with artefacts they are not.
    """
    batch, channels, height, width = image.shape
    rows, columns = height // period, width // period
    cells = image.float()[:, :, : rows * period, : columns * period]
    phases = cells.reshape(batch, channels, rows, period, columns, period).mean((2, 4))
    return (phases - phases.mean((2, 3), keepdim=True)).square().mean()


def match_histogram(image: Tensor, reference: Tensor) -> Tensor:
    """`image` with the distribution of `reference`'s values, per picture and channel.

    The paper's step after super-resolution ("we post-process the output by histogram matching with the
    low-resolution input", section 4.2): the k-th smallest of n values becomes the (k + 0.5)/n quantile
    of the reference. (N, C, H, W) and (N, C, h, w) in the same unit, of any sizes -> (N, C, H, W).
    """
    flat, values = image.float().flatten(2), reference.float().flatten(2).sort(2).values
    ranks = flat.argsort(2).argsort(2)
    last = values.shape[2] - 1
    place = ((ranks.double() + 0.5) / flat.shape[2] * values.shape[2] - 0.5).clamp(0, last)
    low = place.floor().long()
    part = (place - low).float()
    nearest, following = (values.gather(2, index) for index in (low, (low + 1).clamp_max(last)))
    return nearest.lerp(following, part).view_as(image)


LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in BT.601's luma."""


def luma(image: Tensor) -> Tensor:
    """(N, 3, H, W) RGB -> (N, 1, H, W)."""
    weights = torch.tensor(LUMA, device=image.device).view(1, 3, 1, 1)
    return (image.float() * weights).sum(1, keepdim=True)


def light(output: Tensor, photo: Tensor, side: int = 16) -> Tensor:
    """Mean squared difference of the luma's means over blocks of `side` pixels.

    The light of a scene is what a player sees by: a style may change colours and strokes, not where it
    is bright.
    """
    return F.avg_pool2d(luma(output) - luma(photo), side).square().mean()


PALETTE_BANDS = 8
"""Triangular bands of luma that `palette_of` tells apart."""


def palette_of(image: Tensor, least: float = 0.0) -> tuple[Tensor, Tensor]:
    """Moments of the chroma by bands of luma: (N, bands, 5), and the bands' shares of the picture.

    With r and b red and blue minus luma, the moments are the means of r and b and the root mean squares
    of r, b and r + b. A band of less than the part `least` takes the nearest larger one's, drawn
    towards none as its luma is towards black or white: a painting without black has no moments to give
    there, and black should stay black.
    """
    y = luma(image)
    difference = image.float() - y
    red, blue = difference[:, 0].flatten(1), difference[:, 2].flatten(1)
    values = torch.stack([red, blue, red * red, blue * blue, (red + blue).square()], 2)
    centres = torch.linspace(0, 1, PALETTE_BANDS, device=image.device)
    away = (y.detach().clamp(0, 1).flatten(1)[..., None] - centres).abs()
    share = (1 - away * (PALETTE_BANDS - 1)).clamp_min(0)
    mass = share.sum(1)
    found = torch.einsum("npk,npm->nkm", share, values) / mass.clamp_min(1e-3)[..., None]
    moments = torch.cat([found[..., :2], (found[..., 2:] + 1e-4).sqrt()], 2)
    mass = mass / y[0].numel()
    if least:
        enough = [k for k in range(PALETTE_BANDS) if float(mass[0, k]) >= least]
        for band in range(PALETTE_BANDS):
            near = min(enough, key=lambda k: abs(k - band))
            if near != band:
                here, there = centres[band], centres[near]
                fade = here / there if band < near else (1 - here) / (1 - there)
                moments[:, band] = moments[:, near] * fade
    return moments, mass


def palette(output: Tensor, target: Tensor, side: int = 4) -> Tensor:
    """Squared differences of `palette_of` the output, averaged over `side` pixels, and of `target`.

    Bands of luma count by their share of the output.
    """
    found, mass = palette_of(F.avg_pool2d(output.float(), side))
    return ((found - target).square().sum(2) * mass).sum(1).mean()


GRID_PERIOD = 8
"""The total stride of the style networks: the period at which their artefacts repeat."""

STABILITY_BORDER = 32
"""Pixels at the edge of a crop where the outputs differ for what lies beyond it, not for the shift."""

EVERYWHERE = (slice(None), slice(None))

Network = Callable[[Tensor], Tensor]


@dataclass(slots=True, kw_only=True)
class Scene:
    """What the losses of one step look at."""

    recipe: Recipe
    output: Tensor
    """(N, C, H, W) float32: what the network gave."""
    target: Tensor
    """The photographs, of the same shape."""
    features: Perception | None = None
    wanted: Callable[[], dict[str, Tensor]] = dict
    """The photographs' features, within the window."""
    window: tuple[slice, slice] = EVERYWHERE
    """Rows and columns that the loss network sees at full size."""
    grams: Sequence[Mapping[str, Tensor]] = ()
    """The painting's Gram matrices at each scale."""
    palette: Tensor | None = None
    """The painting's chroma by bands of luma."""
    net: Network | None = None
    sample: Sample | None = None
    _found: dict[int, dict[str, Tensor]] = field(default_factory=dict[int, dict[str, Tensor]])

    def features_at(self, level: int) -> dict[str, Tensor]:
        """All that the losses want of the output's features, at full, half, quarter .. size."""
        if level not in self._found:
            recipe = self.recipe
            whole = self.output[:, :, *self.window] if level == 0 else reduced(self.output, level)
            styled = level < len(recipe.style_scales) and recipe.style_scales[level]
            layers = {*(recipe.content if level == 0 else ()), *(recipe.style if styled else ())}
            self._found[level] = self.features_of(seen(whole), layers)
        return self._found[level]

    def features_of(self, pictures: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """The loss network's activations, those of `layers` alone."""
        assert self.features is not None
        return self.features(pictures, layers)

    def restyled(self, pictures: Tensor) -> Tensor:
        """The network's output for other pictures than the step's own."""
        assert self.net is not None
        return self.net(pictures).float()

    def frames(self) -> tuple[Tensor, Tensor]:
        """A frame of a video and the one after it, a batch each."""
        assert self.sample is not None
        assert self.sample.frames is not None
        before, after = self.sample.frames
        return before, after


def _pixel(scene: Scene) -> Tensor:
    return PIXEL_LOSSES[scene.recipe.pixel_norm](scene.output, scene.target)


def _content(scene: Scene) -> Tensor:
    found = scene.features_at(0)
    return feature_reconstruction(found, scene.wanted(), scene.recipe.content)


def _style(scene: Scene) -> Tensor:
    recipe = scene.recipe
    parts = [
        weight
        * gram_style(scene.features_at(level), grams, recipe.style, root=recipe.style_norm == "root")
        for level, (weight, grams) in enumerate(zip(recipe.style_scales, scene.grams, strict=True))
        if weight
    ]
    return torch.stack(parts).sum()


def _palette(scene: Scene) -> Tensor:
    assert scene.palette is not None
    return palette(scene.output, scene.palette)


def _stability(scene: Scene) -> Tensor:
    photos = scene.target
    row, column = (int(n) for n in torch.randint(0, GRID_PERIOD, (2,)))
    height, width = (side - GRID_PERIOD for side in photos.shape[2:])
    part = photos[:, :, row : row + height, column : column + width]
    moved = scene.restyled(part + torch.randn_like(part) * scene.recipe.noise)
    border = min(STABILITY_BORDER, height // 4, width // 4)
    return temporal.stability(moved, scene.output, (row, column), border)


def _flow(scene: Scene) -> Tensor:
    photos = scene.target
    size = (photos.shape[2], photos.shape[3])
    draw = torch.Generator().manual_seed(int(torch.randint(1 << 31, ())))
    flow, back = temporal.random_motion(photos.shape[0], size, draw)
    flow = flow.to(photos.device)
    # This frame's sample at x is found at x + flow of the other.
    other = scene.restyled(temporal.warp(photos, back.to(photos.device)).clamp(0, 1))
    mask = temporal.inside(flow, STABILITY_BORDER)
    return temporal.flow_consistency(scene.output, other, flow, mask)


def _frame_difference(scene: Scene) -> Tensor:
    before, after = scene.frames()
    return temporal.frame_difference(scene.restyled(after), scene.restyled(before), after, before)


def _feature_difference(scene: Scene) -> Tensor:
    before, after = scene.frames()
    weights = scene.recipe.feature_difference
    with torch.no_grad():
        still, still_before = (scene.features_of(frame, weights) for frame in (after, before))
    moving, moving_before = (
        scene.features_of(scene.restyled(frame), weights) for frame in (after, before)
    )
    return temporal.feature_difference(moving, moving_before, still, still_before, weights)


LOSSES: dict[str, Callable[[Scene], Tensor]] = {
    "pixel": _pixel,
    "edge": lambda scene: sobel_edge(scene.output, scene.target),
    "content": _content,
    "style": _style,
    "total_variation": lambda scene: total_variation(scene.output),
    "light": lambda scene: light(scene.output, scene.target),
    "palette": _palette,
    "stability": _stability,
    "flow": _flow,
    "frame_difference": _frame_difference,
    "feature_difference": _feature_difference,
    "grid": lambda scene: pixel_grid(scene.output, GRID_PERIOD),
}
"""How each loss that a recipe's key weighs is computed; those by layer weigh their layers."""


def weighted(scene: Scene, *, done: float = 1.0, of_picture: bool = False) -> dict[str, Tensor]:
    """The losses that count at this part of the training, by name; or those of the picture alone."""
    terms: dict[str, Tensor] = {}
    for name, loss in scene.recipe.losses():
        late = loss.since and done < getattr(scene.recipe, loss.since)
        if late or (of_picture and not loss.of_picture):
            continue
        weight: float | Weights = getattr(scene.recipe, name)
        terms[name] = LOSSES[name](scene) * (1.0 if isinstance(weight, dict) else weight)
    return terms


def reduced(pictures: Tensor, level: int) -> Tensor:
    """Halved `level` times, each sample the mean of 2x2."""
    return F.avg_pool2d(pictures, 2**level) if level else pictures


def seen(pictures: Tensor) -> Tensor:
    """What a loss network is shown: RGB as it is, limited-range luma as full-range gray."""
    if pictures.shape[1] == 3:
        return pictures
    return ((pictures * 255.0 - 16.0) / 219.0).expand(-1, 3, -1, -1)
