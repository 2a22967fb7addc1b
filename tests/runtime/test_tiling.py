"""Tile plans cover every pixel once, keep the halo, and stay on the size multiple."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime.backends.shape_compiled import pad_for, tiles, window_size


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    budget=st.integers(400, 40_000),
    halo=st.integers(0, 40),
    multiple=st.sampled_from([1, 2, 4, 8]),
)
def test_every_pixel_is_taken_once_with_its_halo(
    height: int, width: int, budget: int, halo: int, multiple: int
) -> None:
    height, width = height * multiple, width * multiple
    window = window_size(height, width, max_pixels=budget, halo=halo, multiple=multiple)
    assert window[0] % multiple == window[1] % multiple == 0
    smallest = -(-(2 * halo + multiple) // multiple) * multiple
    assert window[0] * window[1] <= max(budget, smallest**2)
    taken = np.zeros((height, width), np.uint8)
    plan = tiles(height, width, window, halo=halo, multiple=multiple)
    for tile in plan:
        assert tile.top % multiple == tile.left % multiple == 0
        assert 0 <= tile.top <= height - window[0]
        assert 0 <= tile.left <= width - window[1]
        taken[tile.keep_top : tile.keep_bottom, tile.keep_left : tile.keep_right] += 1
        for start, end, first, last, size in (
            (tile.top, tile.top + window[0], tile.keep_top, tile.keep_bottom, height),
            (tile.left, tile.left + window[1], tile.keep_left, tile.keep_right, width),
        ):
            assert start == 0 or first - start >= halo
            assert end == size or end - last >= halo
    assert (taken == 1).all()


def test_a_frame_within_the_budget_is_one_window() -> None:
    assert window_size(1080, 1920, max_pixels=1920 * 1088, halo=6, multiple=1) == (1080, 1920)


def test_four_k_is_cut_into_few_tiles() -> None:
    window = window_size(2160, 3840, max_pixels=1920 * 1088, halo=6, multiple=1)
    assert len(tiles(2160, 3840, window, halo=6, multiple=1)) <= 6


@settings(deadline=None)
@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    multiple=st.sampled_from([1, 2, 4, 8, 16]),
    at_least=st.tuples(st.sampled_from([1, 20, 33]), st.sampled_from([1, 20, 33])),
)
def test_padding_extends_below_and_right_only(
    height: int, width: int, multiple: int, at_least: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    padded = pad_for(image, multiple=multiple, at_least=at_least)
    for before, after, least in zip(image.shape[:2], padded.shape[:2], at_least, strict=True):
        assert after % multiple == 0
        assert max(before, least) <= after < max(before, least) + multiple
    np.testing.assert_array_equal(padded[:height, :width], image)


def test_padding_reflects_without_the_edge() -> None:
    image = np.arange(5, dtype=np.uint8)[None].repeat(5, 0)
    assert pad_for(image, multiple=8)[0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    one = np.full((1, 1), 7, np.uint8)
    assert (pad_for(one, multiple=4) == 7).all()
