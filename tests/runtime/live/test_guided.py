"""Small results made large, and earlier results moved."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from velatura.runtime.adaptive.guided import guided_upsampling, scaled, scaled_chroma
from velatura.runtime.colour import resample_chroma
from velatura.runtime.frame import GRAY, RGB, YUV420P, YUV444P, Colour, Frame, PixelFormat
from velatura.runtime.temporal.warp import Carried, small_luma

SIZE = (160, 120)


def picture(format: PixelFormat, planes: tuple[np.ndarray, ...], siting: str = "left") -> Frame:
    return Frame(
        planes=planes, format=format, pts=0, time_base=Fraction(1, 30),
        colour=Colour(siting=siting),  # type: ignore[arg-type]
    )  # fmt: skip


def edges(bits: int = 8) -> np.ndarray:
    """Shapes with hard edges, between a quarter and three quarters of the range."""
    canvas = np.full((SIZE[1], SIZE[0]), 64, np.uint8)
    cv2.circle(canvas, (60, 60), 31, 190, -1)
    cv2.rectangle(canvas, (101, 21), (141, 101), 130, -1)
    return canvas.astype(np.uint16) * (1 << (bits - 8)) if bits > 8 else canvas


def halved(plane: np.ndarray) -> np.ndarray:
    size = (plane.shape[1] // 2, plane.shape[0] // 2)
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA))


def of(format: PixelFormat, luma: np.ndarray) -> Frame:
    """A result with that luma in a family's own layout."""
    if format.family == "rgb":
        return picture(format, (np.dstack([luma] * 3),))
    if format.family == "gray":
        return picture(format, (luma,))
    neutral = np.full(luma.shape, 1 << (format.bits - 1), format.dtype)
    return picture(PixelFormat("yuv", format.bits), (luma, neutral, neutral))


def error(made: Frame, wanted: np.ndarray) -> float:
    found = made.planes[0] if made.format.family != "rgb" else made.planes[0][..., 1]
    return float(np.abs(found.astype(float) - wanted).mean()) / (made.format.peak / 255)


@pytest.mark.parametrize(
    "format",
    [GRAY, RGB, YUV420P, YUV444P, PixelFormat("yuv", 10, (2, 2)), PixelFormat("rgb", 12)],
    ids=str,
)
def test_a_result_that_follows_the_original_gets_its_edges(format: PixelFormat) -> None:
    guide = edges(format.bits)
    wanted = format.peak * 0.8 - guide * 0.5
    small = np.rint(format.peak * 0.8 - halved(guide) * 0.5).astype(format.dtype)
    made = guided_upsampling(of(format, small), halved(guide), guide, format)
    assert made.format == format
    assert (made.width, made.height) == SIZE
    assert made.planes[0].dtype == format.dtype
    plain = cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC).astype(float)
    blurred = float(np.abs(plain - wanted).mean()) / (format.peak / 255)
    assert error(made, wanted) < blurred / 3


def test_strokes_that_the_original_has_not_are_kept() -> None:
    guide = edges()
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    strokes = (128 + 50 * np.sin(x / 4 + y / 7)).astype(np.uint8)
    made = guided_upsampling(of(GRAY, halved(strokes)), halved(guide), guide, GRAY)
    assert error(made, strokes) < 3
    assert made.planes[0].std() > 0.95 * strokes.std()


def test_a_flat_original_changes_nothing() -> None:
    flat = np.full((SIZE[1], SIZE[0]), 90, np.uint8)
    small = halved(edges())
    made = guided_upsampling(of(GRAY, small), halved(flat), flat, GRAY)
    plain = cv2.resize(small, SIZE, interpolation=cv2.INTER_CUBIC)
    assert np.abs(made.planes[0].astype(int) - plain).max() <= 1


def test_nothing_leaves_the_depth() -> None:
    format = PixelFormat("yuv", 10, (2, 2))
    guide = np.where(edges(10) > 400, 1023, 0).astype(np.uint16)
    made = guided_upsampling(of(format, halved(guide)), halved(guide), guide, format)
    assert max(int(plane.max()) for plane in made.planes) <= 1023


@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
@pytest.mark.parametrize("size", [(160, 120), (320, 240), (240, 180), (200, 90)])
@pytest.mark.parametrize("given", [YUV420P, YUV444P], ids=str)
def test_chroma_lies_where_the_slow_way_puts_it(
    siting: str, size: tuple[int, int], given: PixelFormat
) -> None:
    width, height = given.chroma_size(*SIZE)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    u = (60 + 120 * x / width + 20 * y / height).astype(np.uint8)
    v = (200 - 130 * y / height).astype(np.uint8)
    one = picture(given, (edges(), u, v), siting)
    wanted = resample_chroma(one, YUV420P, size, one.colour.siting)
    found = scaled_chroma(one, YUV420P, size, one.colour.siting)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        inner = (slice(4, -4), slice(4, -4))
        assert np.abs(a[inner].astype(int) - b[inner]).max() <= 1


def test_scaled_is_the_frame_itself_where_nothing_is_to_do() -> None:
    one = of(YUV444P, edges())
    assert scaled(one, SIZE) is one
    assert scaled(one, (320, 240)).aspect == 1
    assert scaled(one, (320, 120)).aspect == Fraction(1, 2)


def scene(shift: int, seed: int = 0) -> np.ndarray:
    """A cloudy picture, `shift` pixels further to the right, and 300 wide."""
    noise = np.random.default_rng(seed).normal(size=(200, 400)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 5)
    soft = (soft - soft.min()) / (soft.max() - soft.min()) * 255
    return soft[:, 60 - shift : 360 - shift].astype(np.uint8)


@pytest.mark.parametrize("shift", [1, 4, 9])
def test_a_result_moves_with_the_picture(shift: int) -> None:
    before, now = scene(0), scene(shift)
    result = of(YUV444P, 255 - before)
    carried = Carried(result, small_luma(of(GRAY, before)))
    luma, u, _ = carried.at(small_luma(of(GRAY, now)))
    inner = (slice(10, -10), slice(20, -20))
    moved = np.abs(luma[inner].astype(int) - (255 - now)[inner]).mean()
    stale = np.abs((255 - before)[inner].astype(int) - (255 - now)[inner]).mean()
    assert moved < stale / 3
    assert (u == 128).all()


def test_a_still_picture_stays_as_it_is() -> None:
    result = of(RGB, scene(0))
    carried = Carried(result, small_luma(result))
    assert np.array_equal(carried.at(small_luma(result))[0], result.planes[0])


def test_a_cut_is_borne() -> None:
    result = of(RGB, scene(0))
    carried = Carried(result, small_luma(result))
    (moved,) = carried.at(small_luma(of(RGB, scene(0, seed=1))))
    assert moved.shape == result.planes[0].shape


@pytest.mark.parametrize("size", [(2, 2), (40, 30), (47, 200)])
def test_a_picture_too_small_for_motion_stands_in_unmoved(size: tuple[int, int]) -> None:
    result = of(GRAY, np.zeros(size[::-1], np.uint8))
    carried = Carried(result, small_luma(result))
    assert carried.at(small_luma(result)) is result.planes


@pytest.mark.parametrize(
    "format", [GRAY, RGB, PixelFormat("gray", 10), PixelFormat("rgb", 16)], ids=str
)
def test_small_lumas_are_alike_in_all_formats(format: PixelFormat) -> None:
    plain = small_luma(of(GRAY, scene(0)))
    luma = (scene(0).astype(np.uint32) << (format.bits - 8)).astype(format.dtype)
    found = small_luma(of(format, luma))
    assert found.dtype == np.uint8
    assert found.shape == plain.shape == (128, 192)
    assert np.abs(found.astype(int) - plain).max() <= 1
