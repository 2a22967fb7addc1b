"""Building blocks that train wide and run as plain 3x3 convolutions.

Each block computes its effective weight on the fly, so that training pays for the small convolution
only, and `fold` returns the ordinary `torch.nn.Conv2d` that computes the same function.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .quantised import FakeQuantiser


class FoldingConv(nn.Module):
    """What the blocks share: each computes one plain convolution, and can do so as INT8 will."""

    REPEATS_EDGES: ClassVar[bool] = False
    """Whether what lies outside of the picture is its outermost pixel; else it is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.quantiser: FakeQuantiser | None = None

    def folded(self) -> tuple[Tensor, Tensor]:
        """That convolution's kernel, (O, I, 3, 3), and bias, (O,), with their gradients."""
        raise NotImplementedError

    def convolve(self, x: Tensor, stride: int = 1) -> Tensor:
        """(N, I, H, W) -> (N, O, H / stride, W / stride)."""
        if self.quantiser is None:
            return self._convolved(x, *self.folded(), stride)
        # BF16 would round the values of the grids once more.
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.folded()
            x, weight = self.quantiser(x.float()), self.quantiser.kernel(weight)
            return self._convolved(x, weight, bias, stride)

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        around = (weight.shape[2] - 1) // 2
        if self.REPEATS_EDGES:
            x, around = F.pad(x, [around] * 4, mode="replicate"), 0
        return F.conv2d(x, weight, bias, stride=stride, padding=around)


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
    Shapes: (N, channels_in, H, W) -> (N, channels_out, 2H, 2W). The low-resolution input's edges are
    repeated outwards.
    """

    REPEATS_EDGES = True

    def __init__(self, channels_in: int, channels_out: int, *, gain: float = 1.0) -> None:
        """`gain` scales the first weights."""
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(channels_out, channels_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        nn.init.normal_(self.kernel, std=gain * (2.0 / (9 * channels_in)) ** 0.5)
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
        return nn.Sequential(plain_conv(*self.folded(), repeats_edges=True), nn.PixelShuffle(2))


class ScaledConv(FoldingConv):
    """A convolution whose kernels have a direction and a length each, with edges repeated outwards.

    Weight normalisation (Salimans and Kingma 2016): the kernel of an output channel is
    `gain * kernel / |kernel|`, so that steps of one rate suit every layer. Nothing depends on the
    batch: what trains is what is folded. Batch normalisation over a few crops is instance normalisation
    in disguise, and a network that leaned on it came out gray when it was folded (3,000 steps, crops of
    128). Shapes: (N, channels_in, H, W) -> (N, channels_out, H / stride, W / stride).
    """

    REPEATS_EDGES = True

    def __init__(
        self, channels_in: int, channels_out: int, *, size: int = 3, stride: int = 1, gain: float = 1.0
    ) -> None:
        """`gain` is the deviation of the output that `take_scale` begins with."""
        super().__init__()
        self.stride = stride
        self.deviation = gain
        self.kernel = nn.Parameter(torch.empty(channels_out, channels_in, size, size))
        self.gain = nn.Parameter(torch.full((channels_out,), gain * 2.0**0.5))
        self.bias = nn.Parameter(torch.zeros(channels_out))
        nn.init.normal_(self.kernel, std=(2.0 / (size**2 * channels_in)) ** 0.5)

    def folded(self) -> tuple[Tensor, Tensor]:
        length = self.kernel.square().sum((1, 2, 3)).sqrt()
        return self.kernel * (self.gain / length)[:, None, None, None], self.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.stride)

    def fold(self) -> nn.Conv2d:
        """The same function as one `Conv2d`."""
        return plain_conv(*self.folded(), stride=self.stride, repeats_edges=True)


@torch.no_grad()
def take_scale(net: nn.Module, pictures: Tensor) -> None:
    """Set the gains and biases of the `ScaledConv` so that `pictures` leave each with mean 0.

    The deviation becomes what the layer was made with (Salimans and Kingma 2016, section 3: the start
    that normalisation by the batch would have given).
    """

    def take(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        assert isinstance(layer, ScaledConv)
        var, mean = torch.var_mean(output, (0, 2, 3))
        scale = layer.deviation / (var + 1e-8).sqrt()
        layer.gain.mul_(scale)
        layer.bias.sub_(mean).mul_(scale)
        return (output - mean[:, None, None]) * scale[:, None, None]

    hooks = [part.register_forward_hook(take) for part in net.modules() if isinstance(part, ScaledConv)]
    net(pictures)
    for hook in hooks:
        hook.remove()


def plain_conv(
    weight: Tensor, bias: Tensor, *, stride: int = 1, repeats_edges: bool = False
) -> nn.Conv2d:
    """A frozen `Conv2d` with the given (O, I, K, K) weight and (O,) bias."""
    channels_out, channels_in, size, _ = weight.shape
    mode = "replicate" if repeats_edges else "zeros"
    conv = nn.Conv2d(channels_in, channels_out, size, stride, (size - 1) // 2, padding_mode=mode)
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
