"""The real-time style network: residual blocks at quarter resolution between smooth resamplings."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import FoldingConv, NormConv, UnshuffleConv, UpsampleConv


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and the identity, (N, C, H, W) -> (N, C, H, W).

    No ReLU after the addition (Gross and Wilber 2016, as in Johnson et al. 2016).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first: nn.Module = NormConv(channels, channels)
        # A small gain starts each block near the identity, which batches of four need to stay stable.
        self.second: nn.Module = NormConv(channels, channels, gain=0.3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if isinstance(self.first, FoldingConv) and self.first.quantiser is not None:
            # INT8 adds what has entered the convolution, in its 8 bits.
            x = self.first.quantiser.rounded(x.float())
        return x + y


class FastStyle(nn.Module):
    """(N, 3, H, W) RGB, 0..1 -> (N, 3, H, W), nominally 0..1; H and W multiples of 4, above `PAD`.

    There is no residual from the input: with it the colours of the photograph stay (measured in the
    first trial). Upsampling is `UpsampleConv`, so that no pixel grid can appear in flat areas. The
    picture is reflected outwards by `PAD` pixels first and cropped at the end, as in Johnson et al.:
    the zero padding of the convolutions otherwise paints a frame around every picture.
    """

    PAD = 48
    TRAINING_PAD = 32
    """Less than at inference: a network learns to draw a frame where it senses the padding, and the
    wider one moves that frame out of the picture."""

    SIZES: ClassVar[dict[str, tuple[int, int, int]]] = {
        "small": (32, 16, 3),
        "medium": (48, 24, 5),
        "large": (64, 32, 7),
    }
    """Channels, stem channels and residual blocks of the sizes that recipes name."""

    def __init__(
        self, *, size: str = "medium", channels: int = 0, stem: int = 0, blocks: int | None = None
    ) -> None:
        """`size` is small, medium or large; the numbers, where given, replace that size's own."""
        super().__init__()
        if size not in self.SIZES:
            raise TypeError(f"size is {size!r}, not {', '.join(self.SIZES)}")
        usual = self.SIZES[size]
        channels, stem = channels or usual[0], stem or usual[1]
        blocks = usual[2] if blocks is None else blocks
        self.stem: nn.Module = UnshuffleConv(3, stem)
        self.down: nn.Module = NormConv(stem, channels, stride=2)
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(blocks))
        self.up: nn.Module = UpsampleConv(channels, stem)
        self.smooth: nn.Module = NormConv(stem, stem)
        self.out: nn.Module = UpsampleConv(stem, 3)

    @property
    def halo(self) -> int:
        """Receptive-field radius in input pixels, rounded up to the size multiple."""
        # In pixels of half resolution: stem, smooth, out; of a quarter: down, up, two a block.
        radius = 2 * 3 + 4 * (2 + 2 * len(self.blocks)) + 2
        return -(-radius // self.size_multiple) * self.size_multiple

    @property
    def quantised_layers(self) -> list[nn.Module]:
        """The layers that an INT8 export quantises first: all but the last."""
        blocks = [layer for block in self.blocks for layer in block.children()]
        return [self.stem, self.down, *blocks, self.up, self.smooth]

    @property
    def size_multiple(self) -> int:
        """Input height and width must be multiples of this."""
        return 4

    @property
    def min_size(self) -> int:
        """Smallest input height and width: reflection needs more pixels than it adds."""
        return self.PAD + self.size_multiple

    def forward(self, x: Tensor) -> Tensor:
        pad = self.TRAINING_PAD if self.training else self.PAD
        padded = F.pad(x, [pad] * 4, mode="reflect")
        y = F.relu(self.stem(padded))
        y = F.relu(self.down(y))
        for block in self.blocks:
            y = block(y)
        y = F.relu(self.up(y))
        y = F.relu(self.smooth(y))
        # A constant shift lets the last layer start at mid-gray instead of at black.
        return self.out(y)[:, :, pad:-pad, pad:-pad] + 0.5

    def fold(self) -> "FastStyle":
        """A copy without normalisation, of plain convolutions, that computes what `eval()` computes."""
        plain = FastStyle(channels=1, stem=1, blocks=0)
        plain.stem, plain.down, plain.smooth = (_fold(self.stem), _fold(self.down), _fold(self.smooth))
        plain.up, plain.out = _fold(self.up), _fold(self.out)
        plain.blocks = nn.ModuleList()
        for block in self.blocks:
            assert isinstance(block, ResidualBlock)
            copy = ResidualBlock(1)
            copy.first, copy.second = _fold(block.first), _fold(block.second)
            plain.blocks.append(copy)
        return plain.eval()


def _fold(layer: nn.Module) -> nn.Module:
    return layer.fold() if isinstance(layer, NormConv | UpsampleConv) else layer
