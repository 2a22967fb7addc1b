"""Building blocks that train wide and run as plain 3x3 convolutions.

Each block computes its effective weight on the fly, so that training pays for the small convolution
only, and `fold` returns the ordinary `torch.nn.Conv2d` that computes the same function.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .quantised import FakeQuantiser


class FoldingConv(nn.Module):
    """What the blocks share: each computes one plain convolution, and can do so as INT8 will."""

    def __init__(self) -> None:
        super().__init__()
        self.quantiser: FakeQuantiser | None = None

    def folded(self) -> tuple[Tensor, Tensor]:
        """That convolution's kernel, (O, I, 3, 3), and bias, (O,), with their gradients."""
        raise NotImplementedError

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        """(N, I, H, W) -> (N, O, H / stride, W / stride)."""
        if self.quantiser is None:
            return F.conv2d(x, *self.folded(), stride=stride, padding=1)
        # BF16 would round the values of the grids once more.
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.folded()
            x, weight = self.quantiser(x.float()), self.quantiser.kernel(weight)
            return F.conv2d(x, weight, bias, stride=stride, padding=1)


class CollapsibleConv(FoldingConv):
    """A 3x3 convolution trained as a wide linear pair: 3x3 to `width` channels, 1x1 back, and identity.

    Both layers are linear with nothing between them, so their product is one 3x3 kernel; the
    over-parameterised form is what the optimiser sees (Bhardwaj et al. 2022, "SESR", section 3.2).
    Shapes: (N, channels_in, H, W) -> (N, channels_out, H, W), zero padding of 1.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, width: int = 128, gain: float = 1.0,
        identity: bool = True,
    ) -> None:  # fmt: skip
        """`gain` scales the first weights; `identity` False leaves the identity out in any case."""
        super().__init__()
        self.expand = nn.Parameter(torch.empty(width, channels_in, 3, 3))
        self.project = nn.Parameter(torch.empty(channels_out, width))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        self.has_identity = identity and channels_in == channels_out
        nn.init.normal_(self.expand, std=(2.0 / (9 * channels_in)) ** 0.5)
        # The pair's product must have the variance that a single ReLU layer would start with.
        share = gain * (0.5 if self.has_identity else 1.0)
        nn.init.normal_(self.project, std=(1.0 / width) ** 0.5 * share)

    def weight(self) -> Tensor:
        """The effective kernel, (channels_out, channels_in, 3, 3)."""
        kernel = torch.einsum("ow,wcij->ocij", self.project, self.expand)
        if self.has_identity:
            channels = kernel.shape[0]
            identity = torch.eye(channels, dtype=kernel.dtype, device=kernel.device)
            kernel = kernel + F.pad(identity[:, :, None, None], (1, 1, 1, 1))
        return kernel

    def folded(self) -> tuple[Tensor, Tensor]:
        return self.weight(), self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x)

    def fold(self) -> nn.Conv2d:
        """The same function as one `Conv2d`."""
        return plain_conv(*self.folded())


class UpsampleConv(FoldingConv):
    """Bilinear x2 upsampling followed by a 3x3 convolution, computed at the low resolution.

    Bilinear interpolation and convolution are linear and local: every output phase is a 3x3
    convolution of the low-resolution input, so the pair equals one 3x3 convolution to 4x the channels
    and a pixel shuffle, at a quarter of the memory traffic. Because all four phases share one kernel, a
    constant input gives a constant output: the pixel grid of a free sub-pixel convolution (Odena et al.
    2016, "Deconvolution and Checkerboard Artifacts") cannot appear in flat areas.
    Shapes: (N, channels_in, H, W) -> (N, channels_out, 2H, 2W). At the border the low-resolution input
    counts as zero-padded.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(channels_out, channels_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        nn.init.kaiming_normal_(self.kernel, nonlinearity="relu")
        self.register_buffer("phases", bilinear_phases(), persistent=False)

    def weight(self) -> Tensor:
        """The low-resolution kernel, (4 * channels_out, channels_in, 3, 3), pixel-shuffle order."""
        phases = self.get_buffer("phases").to(self.kernel.dtype)
        kernel = torch.einsum("pkm,qln,ockl->opqcmn", phases, phases, self.kernel)
        return kernel.flatten(0, 2)

    def folded(self) -> tuple[Tensor, Tensor]:
        return self.weight(), self.bias.repeat_interleave(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.convolve(x), 2)

    def fold(self) -> nn.Sequential:
        """The same function as `Conv2d` and `PixelShuffle`."""
        return nn.Sequential(plain_conv(*self.folded()), nn.PixelShuffle(2))


class NormConv(FoldingConv):
    """A 3x3 convolution with batch normalisation while training, one plain convolution afterwards.

    With a quantiser it trains as the plain convolution: what is quantised are the folded weights, and
    the running statistics stay.
    Shapes: (N, channels_in, H, W) -> (N, channels_out, H / stride, W / stride), zero padding of 1.
    """

    def __init__(
        self, channels_in: int, channels_out: int, *, stride: int = 1, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels_out)
        nn.init.constant_(self.norm.weight, gain)

    def forward(self, x: Tensor) -> Tensor:
        if self.quantiser is None:
            return self.norm(self.conv(x))
        return self.convolve(x, self.conv.stride[0])

    def folded(self) -> tuple[Tensor, Tensor]:
        mean, var = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert var is not None
        scale = self.norm.weight / torch.sqrt(var + self.norm.eps)
        return self.conv.weight * scale[:, None, None, None], self.norm.bias - mean * scale

    def fold(self) -> nn.Conv2d:
        """The same function, with the running statistics, as one `Conv2d`."""
        return plain_conv(*self.folded(), stride=self.conv.stride[0])


class UnshuffleConv(NormConv):
    """Pixel unshuffle by 2, then `NormConv`: (N, C, H, W) -> (N, channels_out, H / 2, W / 2)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(4 * channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pixel_unshuffle(x, 2))

    def fold(self) -> nn.Conv2d:
        """The same function as one 6x6 convolution with stride 2.

        A 3x3 kernel over 2x2 blocks is a 6x6 kernel over pixels. One convolution spares the inference
        library a transposition of the full-size picture.
        """
        weight, bias = self.folded()
        return plain_conv(F.pixel_shuffle(weight, 2), bias, stride=2, padding=2)


def plain_conv(weight: Tensor, bias: Tensor, *, stride: int = 1, padding: int = 1) -> nn.Conv2d:
    """A frozen `Conv2d` with the given (O, I, K, K) weight and (O,) bias."""
    channels_out, channels_in, size, _ = weight.shape
    conv = nn.Conv2d(channels_in, channels_out, size, stride, padding)
    with torch.no_grad():
        conv.weight.copy_(weight)
        assert conv.bias is not None
        conv.bias.copy_(bias)
    return conv.requires_grad_(False)


def bilinear_phases() -> Tensor:
    """(2, 3, 3): phase, high-resolution tap, low-resolution tap.

    Row `phases[p, k]` writes the high-resolution sample 2i + p + k - 1 of a bilinear x2 upsampling
    (half-pixel centres, weights 3/4 and 1/4) in terms of the low-resolution samples i - 1, i, i + 1.
    """
    phases = torch.zeros(2, 3, 3)
    for phase in range(2):
        for tap in range(3):
            position = phase + tap - 1
            low, odd = divmod(position, 2)
            near = low + 1
            far = near + (1 if odd else -1)
            phases[phase, tap, near] += 0.75
            phases[phase, tap, far] += 0.25
    return phases
