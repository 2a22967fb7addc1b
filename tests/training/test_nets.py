"""The networks: folding, receptive fields, and no grid by construction."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from velatura.training.nets import (
    FastStyle,
    JohnsonStyle,
    JohnsonUpscaler,
    LumaUpscaler,
    RgbUpscaler,
    Srcnn,
    build_net,
)
from velatura.training.nets.blocks import CollapsibleConv, ScaledConv, UpsampleConv, take_scale
from velatura.training.nets.upscaler import grid_filter
from velatura.training.recipe import load_recipe

SIZES = {
    "upscale-2x": 7_796,
    "upscale-2x-sharp": 57_000,
    "upscale-4x": 11_904,
    "upscale-4x-sharp": 60_576,
}


def disturbed(module: nn.Module) -> nn.Module:
    """Random weights and statistics, so that nothing holds only for the initial ones."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return module.eval()


@pytest.mark.parametrize(
    "block",
    [
        CollapsibleConv(3, 5, width=16),
        CollapsibleConv(4, 4, width=16),
        UpsampleConv(3, 5),
        ScaledConv(3, 5),
        ScaledConv(3, 5, stride=2),
        ScaledConv(3, 5, size=6, stride=2),
    ],
    ids=lambda block: type(block).__name__,
)
@torch.no_grad()
def test_a_folded_block_computes_the_same(block: nn.Module) -> None:
    disturbed(block)
    channels = 4 if isinstance(block, CollapsibleConv) and block.has_identity else 3
    x = torch.rand(2, channels, 12, 16)
    folded = block.fold()  # type: ignore[operator]
    assert all(isinstance(p, nn.Conv2d | nn.PixelShuffle | nn.Sequential) for p in folded.modules())
    torch.testing.assert_close(folded(x), block(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "net",
    [
        LumaUpscaler(width=32),
        LumaUpscaler(scale=4, width=32, smooth=True),
        *(RgbUpscaler(scale=scale, channels=8, layers=2, width=32) for scale in (2, 3, 4)),
        RgbUpscaler(scale=3, channels=8, layers=2, width=32, smooth=True),
        FastStyle(channels=16, stem=8, blocks=3, deep_blocks=2),
        FastStyle(size="fast"),
        FastStyle(channels=8, stem=8, blocks=1, deep_blocks=0),
    ],
)
@torch.no_grad()
def test_a_folded_net_computes_the_same_without_normalisation(net: nn.Module) -> None:
    disturbed(net)
    channels = 1 if isinstance(net, LumaUpscaler) else 3
    x = torch.rand(1, channels, 56, 64)
    assert net(x).shape[2] == 56 * getattr(net, "scale", 1)
    plain = net.fold()  # type: ignore[operator]
    torch.testing.assert_close(plain(x), net(x), rtol=1e-4, atol=1e-4)
    assert not any(
        isinstance(part, nn.BatchNorm2d | CollapsibleConv | ScaledConv) for part in plain.modules()
    )


@torch.no_grad()
def test_collapsible_conv_is_the_pair_that_it_says_it_is() -> None:
    block = disturbed(CollapsibleConv(4, 4, width=16))
    assert isinstance(block, CollapsibleConv)
    x = torch.rand(1, 4, 9, 9)
    wide = F.conv2d(x, block.expand, padding=1)
    pair = F.conv2d(wide, block.project[:, :, None, None], block.bias) + x
    torch.testing.assert_close(block(x), pair, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_upsample_conv_is_bilinear_then_convolution() -> None:
    block = disturbed(UpsampleConv(3, 2))
    assert isinstance(block, UpsampleConv)
    x = torch.rand(1, 3, 9, 11)
    large = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    expected = F.conv2d(large, block.kernel, block.bias, padding=1)
    inner = (..., slice(2, -2), slice(2, -2))  # the border pads at the other resolution
    torch.testing.assert_close(block(x)[inner], expected[inner], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_flat_picture_stays_flat() -> None:
    """No grid in flat areas and no frame around them, whatever the weights: all phases share their
    kernels, and what lies outside is what lies at the edge."""
    net = disturbed(FastStyle(channels=16, stem=8, blocks=2, deep_blocks=2))
    output = net(torch.full((1, 3, 64, 96), 0.4))
    assert (output.amax((2, 3)) - output.amin((2, 3))).max() < 1e-4 * output.abs().max()


@torch.no_grad()
def test_a_new_net_is_scaled_by_pictures() -> None:
    """Every layer then gives what its own normalisation would have: mean 0, the deviation it is for."""
    torch.manual_seed(2)
    net = FastStyle(channels=16, stem=8, blocks=2, deep_blocks=1)
    pictures = torch.rand(4, 3, 48, 64)
    take_scale(net, pictures)
    found: list[tuple[float, float, float]] = []

    def note(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(layer, ScaledConv)
        var, mean = torch.var_mean(output, (0, 2, 3))
        found.append((layer.deviation, float(mean.abs().max()), float((var.sqrt()).mean())))

    for part in net.modules():
        if isinstance(part, ScaledConv):
            part.register_forward_hook(note)
    net(pictures)
    assert len(found) == 1 + 1 + 4 + 3 + 1
    for deviation, mean, spread in found:
        assert mean < 1e-4
        assert spread == pytest.approx(deviation, rel=1e-3)


@pytest.mark.parametrize(
    "net",
    [
        LumaUpscaler(width=16),
        LumaUpscaler(width=16, smooth=True),
        FastStyle(channels=4, stem=4, blocks=3, deep_blocks=1),
    ],
)
def test_the_halo_covers_the_receptive_field(net: LumaUpscaler | FastStyle) -> None:
    """The gradient of one output pixel reaches no input further away than the halo."""
    # Positive weights keep every path open, so that the field is exact and not a matter of luck.
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.01, 0.1)
    net.eval()
    plain = net.fold()
    channels = 1 if isinstance(net, LumaUpscaler) else 3
    side = 2 * (net.halo + net.size_multiple) + 8
    side += -side % 8
    reach = 0
    centre = side // 2
    for offset in range(net.size_multiple):
        x = torch.rand(1, channels, side, side, requires_grad=True)
        scale = 2 if channels == 1 else 1
        (gradient,) = torch.autograd.grad(plain(x)[0, 0, (centre + offset) * scale, centre * scale], x)
        rows = gradient[0].abs().amax((0, 2)).nonzero()
        reach = max(reach, int((rows - centre - offset).abs().max()))
    assert reach <= net.halo
    assert reach > net.halo - 3 * net.size_multiple, "the halo wastes work"


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_the_grid_filter_is_a_triangle_over_the_enlarged_picture(scale: int) -> None:
    phases = torch.rand(1, scale**2, 8, 9)
    found = F.pixel_shuffle(F.conv2d(phases, grid_filter(scale), padding=1), scale)
    side = (scale - (torch.arange(2 * scale - 1) - (scale - 1)).abs()).float() / scale**2
    expected = F.conv2d(
        F.pixel_shuffle(phases, scale), (side[:, None] * side)[None, None], padding=scale - 1
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("scale", [2, 3, 4])
@torch.no_grad()
def test_a_smooth_upscaler_cannot_draw_a_grid(scale: int) -> None:
    """Even areas stay even, whatever the weights; without the filter they show the sub-pixels."""
    flat = torch.full((1, 1, 24, 24), 0.4)
    spread: dict[bool, float] = {}
    for smooth in (True, False):
        net = disturbed(LumaUpscaler(scale=scale, channels=8, layers=2, width=16, smooth=smooth))
        assert isinstance(net, LumaUpscaler)
        output = net(flat)[..., 8 * scale : -8 * scale, 8 * scale : -8 * scale]
        spread[smooth] = float(output.amax() - output.amin()) / float(output.abs().max())
    assert spread[True] < 1e-5
    assert spread[False] > 0.1


def test_an_upscaler_begins_as_a_plain_enlargement() -> None:
    x = torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        output = LumaUpscaler(scale=2, channels=16, layers=4)(x)
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert (output - repeated).abs().mean() < 0.05


def test_shipped_sizes() -> None:
    """Weights of the folded networks that the recipes name."""
    found = {
        name: weights(build_net(net.pop("kind"), net).fold())
        for name in ("upscale-2x", "upscale-2x-sharp", "upscale-4x", "upscale-4x-sharp")
        if (net := dict(load_recipe(name).net))
    }
    assert found == SIZES


def test_an_unknown_network_or_option_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown network 'unet'"):
        build_net("unet", {})
    with pytest.raises(ValueError, match="depth"):
        build_net("fast-style", {"depth": 3})


def weights(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@torch.no_grad()
def test_the_papers_style_net_is_the_papers() -> None:
    """Sizes after each part of supplementary table 1, and the known number of weights."""
    net = JohnsonStyle(norm="instance").eval()
    assert weights(net) == 1_679_235
    x = F.pad(torch.rand(1, 3, 256, 256), [net.pad] * 4, mode="reflect")
    assert net.pad == 40
    sizes = []
    for layer in net.layers:
        x = layer(x)
        sizes.append(tuple(x.shape[1:]))
    assert [size[1] for size in sizes] == [336, 168, 84, 80, 76, 72, 68, 64, 128, 256, 256]
    assert [size[0] for size in sizes] == [32, 64, 128, 128, 128, 128, 128, 128, 64, 32, 3]
    output = net(torch.rand(1, 3, 64, 96))
    assert output.shape == (1, 3, 64, 96)
    assert 0 <= output.min() <= output.max() <= 1


def test_half_width_has_a_quarter_of_the_weights() -> None:
    assert weights(JohnsonStyle(width=0.5)) == 424_899


@pytest.mark.parametrize(("scale", "low"), [(4, 72), (8, 36)])
@torch.no_grad()
def test_the_papers_upscalers_give_288_pixels(scale: int, low: int) -> None:
    net = JohnsonUpscaler(scale=scale).eval()
    assert net(torch.rand(1, 3, low, low)).shape == (1, 3, 288, 288)
    assert sum(isinstance(part, nn.ConvTranspose2d) for part in net.modules()) == scale.bit_length() - 1
    kernels = [part.kernel_size[0] for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert kernels == [9, *[3] * 8, 9]


@torch.no_grad()
def test_srcnn_has_the_published_weights() -> None:
    net = Srcnn(scale=3)
    kernels = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert sum(part.weight.numel() for part in kernels) == 8_032
    assert net(torch.rand(1, 1, 20, 24)).shape == (1, 1, 60, 72)


def test_the_real_time_style_has_three_sizes() -> None:
    small, medium, large = (
        weights(FastStyle(size=size).fold()) for size in ("fast", "medium", "large")
    )
    assert small < medium == 489_612 < large


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("fast-style", {"size": "huge"}),
        ("johnson-style", {"norm": "layer"}),
        ("johnson-upscaler", {"scale": 3}),
    ],
)
def test_options_out_of_range_are_named(kind: str, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        build_net(kind, options)
