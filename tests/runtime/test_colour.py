"""Conversions against float64 arithmetic written independently, and chroma that stays in place."""

from dataclasses import replace
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime.colour import guess_matrix, resample_chroma, to_format, to_rgb, to_yuv
from velatura.runtime.frame import (
    GRAY,
    RGB,
    YUV420P,
    YUV444P,
    Colour,
    Family,
    Frame,
    Matrix,
    PixelFormat,
    Range,
    Siting,
)

KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
MATRICES = get_args(Matrix)
RANGES = get_args(Range)
RNG = np.random.default_rng(4)


def frame(planes: tuple[np.ndarray, ...], format: PixelFormat, colour: Colour | None = None) -> Frame:
    return Frame(
        planes=planes, format=format, pts=0, time_base=Fraction(1, 30), colour=colour or Colour()
    )


def reference_yuv(rgb: np.ndarray, colour: Colour, bits: int) -> np.ndarray:
    """Y'CbCr as BT.601/709/2020 define it, from R'G'B' of `bits` bits, unrounded."""
    kr, kb = KR_KB[colour.matrix]
    r, g, b = (rgb[..., i] / (2**bits - 1) for i in range(3))
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    step = 2 ** (bits - 8)
    if colour.range == "limited":
        parts = (16 + 219 * y) * step, (128 + 224 * u) * step, (128 + 224 * v) * step
    else:
        peak = 2**bits - 1
        parts = y * peak, u * peak + 128 * step, v * peak + 128 * step
    return np.stack(parts, -1)


def colours(bits: int) -> np.ndarray:
    """Random colours and all corners of the cube, (20, 50, 3)."""
    rng = np.random.default_rng(bits)
    peak = 2**bits - 1
    rgb = rng.integers(0, peak + 1, (20, 50, 3))
    rgb[0, :8] = [[r * peak, g * peak, b * peak] for r in (0, 1) for g in (0, 1) for b in (0, 1)]
    return rgb.astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("range_", RANGES)
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_rgb_to_yuv_and_back(matrix: Matrix, range_: Range, bits: int) -> None:
    colour = Colour(matrix=matrix, range=range_)
    rgb = colours(bits)
    yuv = to_yuv(frame((rgb,), PixelFormat("rgb", bits), colour), PixelFormat("yuv", bits))
    expected = np.clip(reference_yuv(rgb.astype(float), colour, bits), 0, 2**bits - 1)
    found = np.stack(yuv.planes, -1).astype(float)
    assert np.abs(found - expected).max() <= 1.0
    back = to_rgb(yuv).planes[0].astype(float)
    # One level of rounding in Y, U and V is at most about two in R, G and B.
    assert np.abs(back - rgb).max() <= 3.0


@pytest.mark.parametrize("bits", [8, 10])
def test_black_gray_and_white_are_exact(bits: int) -> None:
    step, peak = 2 ** (bits - 8), 2**bits - 1
    dtype = PixelFormat("yuv", bits).dtype
    y = np.array([[16, 235]], dtype) * dtype.type(step)
    half = np.full((1, 2), 128 * step, dtype)
    rgb = to_rgb(frame((y, half, half), PixelFormat("yuv", bits))).planes[0]
    np.testing.assert_array_equal(rgb, [[[0, 0, 0], [peak, peak, peak]]])


def test_values_outside_the_cube_are_clipped() -> None:
    y, u, v = (np.full((4, 4), value, np.uint8) for value in (235, 240, 240))
    rgb = to_rgb(frame((y, u, v), YUV444P)).planes[0]
    assert rgb.dtype == np.uint8
    assert rgb[..., 0].min() == 255


def test_limited_and_full_gray_become_the_same_rgb() -> None:
    ramp = np.arange(16, 236, dtype=np.uint8)[None]
    limited = to_rgb(frame((ramp,), GRAY, Colour(range="limited"))).planes[0]
    assert limited[0, 0].tolist() == [0, 0, 0]
    assert limited[0, -1].tolist() == [255, 255, 255]
    full = to_rgb(frame((ramp,), GRAY, Colour(range="full"))).planes[0]
    np.testing.assert_array_equal(full[..., 1], ramp)


def test_gray_to_yuv_keeps_luma_and_is_neutral() -> None:
    luma = np.arange(12, dtype=np.uint8).reshape(3, 4)
    yuv = to_yuv(frame((luma,), GRAY), YUV420P)
    np.testing.assert_array_equal(yuv.planes[0], luma)
    assert np.unique(yuv.planes[1]).tolist() == [128]


def test_another_matrix_changes_the_numbers_but_not_the_colours() -> None:
    rgb = colours(8)
    first = to_yuv(frame((rgb,), RGB, Colour(matrix="bt601")), YUV444P)
    second = to_yuv(first, YUV444P, Colour(matrix="bt709"))
    assert np.abs(first.planes[0].astype(int) - second.planes[0]).max() > 3
    inside = (rgb.min(-1) > 8) & (rgb.max(-1) < 247)
    error = np.abs(to_rgb(second).planes[0].astype(int) - to_rgb(first).planes[0])
    assert error[inside].max() <= 4


@pytest.mark.parametrize("bits", [8, 10])
def test_yuv_to_yuv_of_the_same_numbers_leaves_luma_untouched(bits: int) -> None:
    rng = np.random.default_rng(0)
    format = PixelFormat("yuv", bits, (2, 2))
    planes = tuple(
        rng.integers(0, 2**bits, shape).astype(format.dtype) for shape in format.plane_shapes(31, 17)
    )
    source = frame(planes, format)
    same = to_yuv(source, format)
    for before, after in zip(planes, same.planes, strict=True):
        assert after is before
    wide = to_yuv(source, PixelFormat("yuv", bits))
    assert wide.planes[0] is planes[0]
    assert wide.planes[1].shape == (17, 31)


def chroma_position(index: np.ndarray, subsample: int, siting: Siting, axis: int) -> np.ndarray:
    """Luma coordinate of chroma samples, as the standards draw it."""
    offset = 0.0 if siting == "topleft" or (siting == "left" and axis == 0) else (subsample - 1) / 2
    return index * subsample + offset


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("before", "after"), [(2, 2), (1, 2), (2, 1), (1, 1)])
def test_chroma_stays_in_place(axis: int, siting: Siting, scale: int, before: int, after: int) -> None:
    """A linear ramp, resampled, is the same ramp: any shift would show as a constant offset."""
    size = 48
    first = PixelFormat("yuv", 16, (before, before))
    second = PixelFormat("yuv", 16, (after, after))
    count = first.chroma_size(size, size)[0]
    place = chroma_position(np.arange(count), before, siting, axis)
    ramp = np.round(8000 + 1000 * place).astype(np.uint16)
    plane = np.broadcast_to(ramp[None] if axis == 0 else ramp[:, None], (count, count)).copy()
    luma = np.zeros((size, size), np.uint16)
    source = frame((luma, plane, plane), first, Colour(siting=siting))
    u, _ = resample_chroma(source, second, (size * scale, size * scale), siting)
    line = u[u.shape[0] // 2] if axis == 0 else u[:, u.shape[1] // 2]
    out = chroma_position(np.arange(len(line)), after, siting, axis)
    expected = 8000 + 1000 * ((out + 0.5) / scale - 0.5)
    inner = slice(8 * scale, -8 * scale)
    assert np.abs(line.astype(float) - expected)[inner].max() <= 2


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    scale=st.integers(1, 4),
    bits=st.sampled_from([8, 10]),
    before=st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 1)]),
    after=st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    level=st.integers(0, 255),
)
def test_resampling_of_any_size_fits_and_keeps_a_flat_plane(
    width: int,
    height: int,
    scale: int,
    bits: int,
    before: tuple[int, int],
    after: tuple[int, int],
    level: int,
) -> None:
    first, second = PixelFormat("yuv", bits, before), PixelFormat("yuv", bits, after)
    planes = tuple(np.full(s, level, first.dtype) for s in first.plane_shapes(width, height))
    size = (width * scale, height * scale)
    for plane in resample_chroma(frame(planes, first), second, size, "left"):
        assert plane.shape == second.plane_shapes(*size)[1]
        assert plane.dtype == second.dtype
        assert (plane == level).all()


def test_the_guess_of_the_matrix_is_the_players() -> None:
    assert guess_matrix(480) == guess_matrix(576) == "bt601"
    assert guess_matrix(720) == guess_matrix(2160) == "bt709"


@pytest.mark.parametrize("before", [8, 10, 12, 16])
@pytest.mark.parametrize("after", [8, 10, 12, 16])
@pytest.mark.parametrize("family", ["yuv", "gray", "rgb"])
def test_opacity_takes_the_depth_of_the_samples(before: int, after: int, family: Family) -> None:
    format = PixelFormat("rgb", before)
    alpha = np.linspace(0, format.peak, 12).astype(format.dtype).reshape(3, 4)
    rgb = RNG.integers(0, format.peak + 1, (3, 4, 3)).astype(format.dtype)
    source = replace(frame((rgb,), format), alpha=alpha)
    result = to_format(source, PixelFormat(family, after), Colour(range="full"))
    assert result.alpha is not None
    assert result.alpha.dtype == result.format.dtype
    wanted = alpha.astype(float) * result.format.peak / format.peak
    assert np.abs(result.alpha - wanted).max() <= 0.5 + 1e-3
    assert result.alpha.flat[-1] == result.format.peak
    if family == "rgb":
        assert (
            np.abs(result.planes[0] - rgb.astype(float) * result.format.peak / format.peak).max() < 0.6
        )


@pytest.mark.parametrize("bits", [9, 10, 12])
def test_resampled_chroma_stays_within_its_depth(bits: int) -> None:
    format = PixelFormat("yuv", bits, (2, 2))
    luma = np.zeros((16, 16), np.uint16)
    edges = RNG.choice([0, format.peak], (8, 8)).astype(np.uint16)
    for size in ((32, 32), (48, 48), (27, 25)):
        u, v = resample_chroma(frame((luma, edges, edges), format), format, size, "left")
        assert max(u.max(), v.max()) <= format.peak
