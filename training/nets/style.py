"""The real-time style network: residual blocks at two coarse resolutions between smooth resamplings."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import ScaledConv, UpsampleConv


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and the identity, (N, C, H, W) -> (N, C, H, W).

    No ReLU after the addition (Gross and Wilber 2016, as in Johnson et al. 2016).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first: nn.Module = ScaledConv(channels, channels)
        # A small gain starts each block near the identity.
        self.second: nn.Module = ScaledConv(channels, channels, gain=0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class FastStyle(nn.Module):
    """(N, 3, H, W) RGB, 0..1 -> (N, 3, H, W), nominally 0..1; H and W multiples of `size_multiple`.

    There is no residual from the input: with it the colours of the photograph stay (measured in the
    first trial). Upsampling is `UpsampleConv`, so that no pixel grid can appear in flat areas. Every
    convolution repeats the edges of what it is given: with zeros outside, a network senses the border
    and paints a frame around every picture, and reflecting the picture outwards by 48 pixels, which
    moved that frame out of sight, cost a third more time at 640x360.

    Between two halves of the blocks at a quarter of the resolution lie `deep_blocks` at an eighth,
    added to what was there: large strokes for a quarter of the price. The last layers see the first
    one's features beside what comes up from below: fine detail does not pass through the narrow part.
    """

    SIZES: ClassVar[dict[str, tuple[int, int, int, int]]] = {
        "fast": (32, 16, 2, 2),
        "medium": (48, 32, 3, 4),
        "large": (64, 32, 6, 6),
    }
    """Channels, stem channels, blocks and deep blocks of the sizes that recipes name."""

    def __init__(
        self,
        *,
        size: str = "medium",
        channels: int = 0,
        stem: int = 0,
        blocks: int | None = None,
        deep_blocks: int | None = None,
    ) -> None:
        """`size` is fast, medium or large; the numbers, where given, replace that size's own."""
        super().__init__()
        if size not in self.SIZES:
            raise TypeError(f"size is {size!r}, not {', '.join(self.SIZES)}")
        usual = self.SIZES[size]
        channels, stem = channels or usual[0], stem or usual[1]
        blocks = usual[2] if blocks is None else blocks
        deep_blocks = usual[3] if deep_blocks is None else deep_blocks
        self.stem: nn.Module = ScaledConv(3, stem, size=6, stride=2)
        self.down: nn.Module = ScaledConv(stem, channels, stride=2)
        self.before = _blocks(channels, (blocks + 1) // 2)
        self.deep = nn.ModuleList()
        if deep_blocks:
            sunk = ScaledConv(channels, channels, stride=2)
            risen = UpsampleConv(channels, channels, gain=0.3)
            self.deep.extend([sunk, *_blocks(channels, deep_blocks), risen])
        self.after = _blocks(channels, blocks // 2)
        self.up: nn.Module = UpsampleConv(channels, stem)
        self.smooth: nn.Module = ScaledConv(2 * stem, stem)
        self.out: nn.Module = UpsampleConv(stem, 3, gain=0.2)

    @property
    def halo(self) -> int:
        """Receptive-field radius in input pixels, rounded up to the size multiple."""
        # In pixels of half resolution: stem, smooth, out; of a quarter: down, up, two a block.
        quarter = 2 + 2 * (len(self.before) + len(self.after))
        radius = 2 * 3 + 4 * quarter + 8 * 2 * max(len(self.deep) - 1, 0)
        return -(-radius // self.size_multiple) * self.size_multiple

    @property
    def quantised_layers(self) -> list[nn.Module]:
        """The layers that an INT8 export quantises first: all but the last."""
        parts = (self.stem, self.down, self.before, self.deep, self.after, self.up, self.smooth)
        kinds = (ScaledConv, UpsampleConv)
        return [layer for part in parts for layer in part.modules() if isinstance(layer, kinds)]

    @property
    def size_multiple(self) -> int:
        """Input height and width must be multiples of this."""
        return 8 if self.deep else 4

    @property
    def min_size(self) -> int:
        """Smallest input height and width."""
        return self.size_multiple

    def forward(self, x: Tensor) -> Tensor:
        fine = F.relu(self.stem(x))
        y = F.relu(self.down(fine))
        for block in self.before:
            y = block(y)
        if self.deep:
            sunk, *blocks, risen = self.deep
            z = F.relu(sunk(y))
            for block in blocks:
                z = block(z)
            y = y + risen(F.relu(z))
        for block in self.after:
            y = block(y)
        y = torch.cat([F.relu(self.up(y)), fine], 1)
        y = F.relu(self.smooth(y))
        # A constant shift lets the last layer start at mid-gray instead of at black.
        return self.out(y) + 0.5

    def fold(self) -> "FastStyle":
        """A copy of plain convolutions that computes the same."""
        plain = FastStyle(channels=1, stem=1, blocks=0, deep_blocks=0)
        plain.stem, plain.down, plain.smooth = (_fold(self.stem), _fold(self.down), _fold(self.smooth))
        plain.up, plain.out = _fold(self.up), _fold(self.out)
        plain.before, plain.deep, plain.after = (
            nn.ModuleList(_fold(part) for part in parts)
            for parts in (self.before, self.deep, self.after)
        )
        return plain.eval()


def _blocks(channels: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(channels) for _ in range(count))


def _fold(layer: nn.Module) -> nn.Module:
    if isinstance(layer, ResidualBlock):
        copy = ResidualBlock(1)
        copy.first, copy.second = _fold(layer.first), _fold(layer.second)
        return copy
    return layer.fold() if isinstance(layer, ScaledConv | UpsampleConv) else layer
