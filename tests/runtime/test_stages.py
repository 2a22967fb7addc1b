"""Neural and Resize on frames of every kind."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from velatura.runtime import ModelCard, open_engine
from velatura.runtime.colour import to_rgb
from velatura.runtime.frame import GRAY, RGB, Colour, Frame, PixelFormat
from velatura.runtime.stages import Neural, Resize

from . import networks

RNG = np.random.default_rng(8)


def noise(format: PixelFormat, width: int = 31, height: int = 18) -> Frame:
    planes = tuple(
        RNG.integers(0, format.peak + 1, shape).astype(format.dtype)
        for shape in format.plane_shapes(width, height)
    )
    return Frame(
        planes=planes,
        format=format,
        pts=7,
        time_base=Fraction(1, 30),
        aspect=Fraction(2, 3),
        rotation=90,
    )


def doubler(path: Path) -> Path:
    """A luma model that repeats every pixel 2x2."""
    nodes = [
        networks.helper.make_node("Conv", ["image", "w"], ["four"], kernel_shape=[1, 1]),
        networks.helper.make_node("DepthToSpace", ["four"], ["result"], blocksize=2),
    ]
    proto = networks.model(nodes, {"w": np.ones((4, 1, 1, 1), np.float32)}, [1, 1, "h", "w"])
    ModelCard(
        name="doubler", task="upscale", input_colour="luma", output_colour="luma", scale=2, halo=0
    ).write_to(proto)
    return networks.write(proto, path)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("subsample", [(2, 2), (2, 1), (1, 1)])
def test_identity_is_bit_exact_in_all_planes(bits: int, subsample: tuple[int, int]) -> None:
    frame = noise(PixelFormat("yuv", bits, subsample))
    with open_engine("identity") as engine:
        result = Neural(engine)(frame)
    assert result.format == frame.format
    for before, after in zip(frame.planes, result.planes, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_a_luma_model_gets_the_plane_as_it_is_coded(bits: int, tmp_path: Path) -> None:
    frame = noise(PixelFormat("yuv", bits, (2, 2)))
    with open_engine(doubler(tmp_path / "m.onnx"), precision="fp32") as engine:
        result = Neural(engine)(frame)
    assert result.format == frame.format
    expected = frame.planes[0].repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(result.planes[0], expected)
    assert result.planes[1].shape == (18, 31)
    assert (result.pts, result.aspect, result.rotation) == (7, Fraction(2, 3), 90)


def test_a_luma_model_on_rgb_keeps_its_colours(tmp_path: Path) -> None:
    """Four flat patches come back with their colours, twice as large."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :16], pixels[:16, 16:], pixels[16:] = (200, 40, 60), (30, 160, 80), (90, 90, 210)
    frame = Frame(planes=(pixels,), format=RGB, pts=0, time_base=Fraction(1, 30))
    with open_engine(doubler(tmp_path / "m.onnx"), precision="fp32") as engine:
        result = to_rgb(Neural(engine)(frame)).planes[0].astype(int)
    assert result.shape == (64, 64, 3)
    for y, x in ((16, 16), (16, 48), (48, 32)):
        assert np.abs(result[y, x] - pixels[y // 2, x // 2]).max() <= 3


def test_a_luma_model_on_gray_gives_gray(tmp_path: Path) -> None:
    with open_engine(doubler(tmp_path / "m.onnx"), precision="fp32") as engine:
        result = Neural(engine)(noise(GRAY))
    assert result.format == GRAY
    assert len(result.planes) == 1


@pytest.mark.parametrize("bits", [8, 10])
def test_an_rgb_model_sees_full_range_rgb_of_the_frames_depth(bits: int, tmp_path: Path) -> None:
    proto = networks.mixer(np.eye(3)[::-1])  # swaps red and blue
    ModelCard(name="swap", task="style", halo=0).write_to(proto)
    frame = replace(noise(PixelFormat("yuv", bits, (2, 2))), colour=Colour(matrix="bt601"))
    with open_engine(networks.write(proto, tmp_path / "m.onnx"), precision="fp32") as engine:
        result = Neural(engine)(frame)
    assert result.format == PixelFormat("rgb", bits)
    expected = to_rgb(frame).planes[0][..., ::-1]
    assert np.abs(result.planes[0].astype(int) - expected).max() <= 1


def test_frames_are_not_written_into(tmp_path: Path) -> None:
    frame = noise(PixelFormat("yuv", 8, (2, 2)))
    before = [plane.copy() for plane in frame.planes]
    with open_engine(doubler(tmp_path / "m.onnx"), precision="fp32") as engine:
        Resize(20, 10)(Neural(engine)(frame))
    for old, new in zip(before, frame.planes, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("size", [(64, 36), (20, 12), (31, 18), (7, 5), (100, 18)])
@pytest.mark.parametrize(
    "format", [PixelFormat("yuv", 8, (2, 2)), PixelFormat("yuv", 10, (2, 1)), GRAY, RGB]
)
def test_resize_of_a_flat_picture(size: tuple[int, int], format: PixelFormat) -> None:
    planes = tuple(np.full(s, 77, format.dtype) for s in format.plane_shapes(31, 18))
    frame = Frame(planes=planes, format=format, pts=0, time_base=Fraction(1))
    result = Resize(*size)(frame)
    assert (result.width, result.height) == size
    assert all((plane == 77).all() for plane in result.planes)


def test_resize_keeps_the_shape_on_the_screen() -> None:
    frame = replace(noise(RGB, 720, 480), aspect=Fraction(8, 9))
    result = Resize(720, 540)(frame)
    shown = Fraction(result.width, result.height) * result.aspect
    assert shown == Fraction(720, 480) * Fraction(8, 9)


def test_resize_refuses_nothing() -> None:
    with pytest.raises(ValueError, match="0x5"):
        Resize(0, 5)


def ramp_alpha(frame: Frame) -> Frame:
    """The frame, less opaque from left to right."""
    line = np.linspace(0, frame.format.peak, frame.width)
    alpha = np.broadcast_to(np.rint(line), (frame.height, frame.width)).astype(frame.format.dtype)
    return replace(frame, alpha=alpha.copy())


@pytest.mark.parametrize("format", [PixelFormat("yuv", 8, (2, 2)), PixelFormat("yuv", 10), GRAY, RGB])
@pytest.mark.parametrize("colour", ["luma", "rgb"])
def test_opacity_passes_beside_a_model(format: PixelFormat, colour: str, tmp_path: Path) -> None:
    frame = ramp_alpha(noise(format))
    if colour == "luma":
        path, scale = doubler(tmp_path / "m.onnx"), 2
    else:
        proto = networks.mixer(np.eye(3))
        ModelCard(name="same", task="style", halo=0).write_to(proto)
        path, scale = networks.write(proto, tmp_path / "m.onnx"), 1
    with open_engine(path, precision="fp32") as engine:
        result = Neural(engine)(frame)
    assert result.alpha is not None
    assert result.alpha.shape == (18 * scale, 31 * scale)
    if scale == 1:
        np.testing.assert_array_equal(result.alpha, frame.alpha)
    wanted = np.linspace(0, format.peak, 31)[1:-1]
    found = result.alpha[:, scale:-scale].reshape(18 * scale, 29, scale).mean((0, 2))
    assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("size", [(62, 36), (15, 9), (47, 29)])
def test_opacity_and_samples_stay_within_their_depth(bits: int, size: tuple[int, int]) -> None:
    """Bicubic enlarging of hard edges overshoots, and no type holds depths of 9..15 bits in."""
    format = PixelFormat("yuv", bits, (2, 2))
    planes = tuple(
        RNG.choice([0, format.peak], shape).astype(format.dtype)
        for shape in format.plane_shapes(31, 18)
    )
    frame = Frame(planes=planes, format=format, pts=0, time_base=Fraction(1), alpha=planes[0].copy())
    result = Resize(*size)(frame)
    assert result.alpha is not None
    assert result.alpha.shape == size[::-1]
    assert result.alpha.dtype == format.dtype
    for plane in (*result.planes, result.alpha):
        assert plane.max() <= format.peak
    np.testing.assert_array_equal(result.alpha, result.planes[0])


def test_frames_without_opacity_stay_without(tmp_path: Path) -> None:
    with open_engine(doubler(tmp_path / "m.onnx"), precision="fp32") as engine:
        assert Resize(20, 10)(Neural(engine)(noise(RGB))).alpha is None
