"""The networks of Johnson et al. 2016 (supplementary tables 1 and 2), and SRCNN, their baseline."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "instance"]


class NormReLU(nn.Sequential):
    """A convolution, its normalisation, and ReLU unless it is a block's last."""

    def __init__(self, conv: nn.Module, channels: int, norm: Norm, *, relu: bool = True) -> None:
        super().__init__(conv, _norm(norm, channels), *([nn.ReLU()] if relu else []))


class JohnsonBlock(nn.Module):
    """Two 3x3 convolutions plus the identity, no ReLU after the addition (Gross and Wilber 2016).

    `padding` 0 crops the identity by 2 pixels on each side, as in the style network; 1 keeps the size.
    """

    def __init__(self, channels: int, norm: Norm, padding: int) -> None:
        super().__init__()
        self.crop = 2 - 2 * padding
        self.first = NormReLU(nn.Conv2d(channels, channels, 3, 1, padding), channels, norm)
        self.second = NormReLU(nn.Conv2d(channels, channels, 3, 1, padding), channels, norm, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        crop = self.crop
        identity = x[:, :, crop:-crop, crop:-crop] if crop else x
        return identity + self.second(self.first(x))


class JohnsonStyle(nn.Module):
    """The style network: (N, 3, H, W) RGB, 0..1 -> the same, H and W multiples of 4, above 40.

    Reflection by 40, 32x9x9, 64x3x3 /2, 128x3x3 /2, five unpadded residual blocks of 128, 64x3x3 x2 and
    32x3x3 x2 (transposed), 3x9x9, scaled tanh. `width` multiplies the channels: 0.5 is the half width
    that instance normalisation made usual. `norm` is `batch` in the text, `instance` in the released
    code. Its instance norm sees the whole picture, so no tile can agree with it.
    """

    def __init__(self, *, width: float = 1.0, norm: Norm = "instance", blocks: int = 5) -> None:
        super().__init__()
        a, b, c = (max(1, round(channels * width)) for channels in (32, 64, 128))
        self.instance = norm == "instance"
        self.pad = 8 * blocks
        self.layers = nn.Sequential(
            NormReLU(nn.Conv2d(3, a, 9, 1, 4), a, norm),
            NormReLU(nn.Conv2d(a, b, 3, 2, 1), b, norm),
            NormReLU(nn.Conv2d(b, c, 3, 2, 1), c, norm),
            *(JohnsonBlock(c, norm, 0) for _ in range(blocks)),
            NormReLU(nn.ConvTranspose2d(c, b, 3, 2, 1, 1), b, norm),
            NormReLU(nn.ConvTranspose2d(b, a, 3, 2, 1, 1), a, norm),
            nn.Conv2d(a, 3, 9, 1, 4),
        )

    @property
    def halo(self) -> int:
        """Receptive-field radius in input pixels, rounded up; instance norm's statistics lie beyond."""
        return 4 + 1 + 2 + self.pad + 4 + 2 + 4 + 3

    @property
    def size_multiple(self) -> int:
        """Input height and width must be multiples of this."""
        return 4

    @property
    def min_size(self) -> int:
        """Smallest input height and width: reflection needs more pixels than it adds."""
        return self.pad + self.size_multiple

    def forward(self, x: Tensor) -> Tensor:
        # The text pads 256x256 to 336x336, which the blocks crop to 256x256 again.
        return _to_unit(self.layers(F.pad(x, [self.pad] * 4, mode="reflect")))

    def fold(self) -> nn.Module:
        """Itself, in eval mode: its normalisations are what it is."""
        return self.eval()


class JohnsonUpscaler(nn.Module):
    """The super-resolution network: (N, 3, H, W) RGB, 0..1 -> (N, 3, scale * H, scale * W).

    64x9x9, four residual blocks of 64, a 64x3x3 x2 step per doubling, 3x9x9, scaled tanh; `scale` is 4
    (72x72 to 288x288 in training) or 8 (36x36).
    """

    def __init__(self, *, scale: int = 4, width: float = 1.0, norm: Norm = "batch") -> None:
        super().__init__()
        if scale not in (2, 4, 8):
            raise TypeError(f"scale is {scale}, not 2, 4 or 8")
        self.scale = scale
        channels = max(1, round(64 * width))
        doublings = scale.bit_length() - 1
        self.layers = nn.Sequential(
            NormReLU(nn.Conv2d(3, channels, 9, 1, 4), channels, norm),
            *(JohnsonBlock(channels, norm, 1) for _ in range(4)),
            *(
                NormReLU(nn.ConvTranspose2d(channels, channels, 3, 2, 1, 1), channels, norm)
                for _ in range(doublings)
            ),
            nn.Conv2d(channels, 3, 9, 1, 4),
        )

    @property
    def halo(self) -> int:
        """Receptive-field radius in input pixels."""
        return 4 + 2 * 4 + 2 + 2

    @property
    def size_multiple(self) -> int:
        """Input height and width must be multiples of this."""
        return 1

    @property
    def min_size(self) -> int:
        """Smallest input height and width."""
        return 4

    def forward(self, x: Tensor) -> Tensor:
        return _to_unit(self.layers(x))

    def fold(self) -> nn.Module:
        """Itself, in eval mode."""
        return self.eval()


class Srcnn(nn.Module):
    """Dong et al. 2014 (9-1-5), the baseline: (N, 1, H, W) luma -> (N, 1, scale * H, scale * W).

    The picture is enlarged by bicubic interpolation first; three convolutions then sharpen it.
    """

    def __init__(self, *, scale: int = 2) -> None:
        super().__init__()
        self.scale = scale
        self.layers = nn.Sequential(
            nn.Conv2d(1, 64, 9, 1, 4), nn.ReLU(),
            nn.Conv2d(64, 32, 1), nn.ReLU(),
            nn.Conv2d(32, 1, 5, 1, 2),
        )  # fmt: skip

    @property
    def halo(self) -> int:
        """Receptive-field radius in input pixels: bicubic's two and six at the enlarged size."""
        return 2 + 6

    @property
    def size_multiple(self) -> int:
        """Input height and width must be multiples of this."""
        return 1

    @property
    def min_size(self) -> int:
        """Smallest input height and width."""
        return 1

    def forward(self, x: Tensor) -> Tensor:
        large = F.interpolate(x, scale_factor=self.scale, mode="bicubic", align_corners=False)
        return self.layers(large)

    def fold(self) -> nn.Module:
        """Itself, in eval mode."""
        return self.eval()


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind not in ("batch", "instance"):
        raise TypeError(f"norm is {kind!r}, not batch or instance")
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.InstanceNorm2d(channels, affine=True)


def _to_unit(x: Tensor) -> Tensor:
    """The paper's scaled tanh, to 0..1."""
    return 0.5 + 0.5 * torch.tanh(x)
