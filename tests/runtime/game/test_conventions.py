"""What engines call motion and depth, as frames have it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime.frame import Array
from velatura.runtime.game.conventions import (  # fmt: skip
    FARTHEST,
    DepthConvention,
    MotionConvention,
    depth_array,
    jitter_of,
    motion_array,
    reactive_array,
)
from velatura.runtime.temporal.warp import composed


def vectors(x: float, y: float, size: tuple[int, int] = (8, 6)) -> Array:
    return np.tile(np.array([x, y], np.float32), (size[1], size[0], 1))


def test_vectors_that_are_a_frames_own_are_not_copied() -> None:
    given = vectors(1, 2)
    array = motion_array(given)
    assert MotionConvention().read(array, (8, 6), jitter=(0.3, 0.1), before=(0, 0)) is array
    assert np.shares_memory(array, given)


def test_the_scale_makes_pixels_and_turns_y() -> None:
    """Normalised device coordinates: 2 is the width, and y points up."""
    convention = MotionConvention(scale=(8 / 2, -6 / 2))
    found = convention.read(vectors(0.5, 0.5), (8, 6))
    assert np.array_equal(found, vectors(2, -1.5))


def test_velocities_point_the_other_way() -> None:
    found = MotionConvention(direction="from_previous", scale=(2, 3)).read(vectors(1, 2), (8, 6))
    assert np.array_equal(found, vectors(-2, -6))


@pytest.mark.parametrize("direction", ["to_previous", "from_previous"])
def test_jitter_is_taken_out_of_vectors_that_contain_it(direction: str) -> None:
    """A point projected with and without jitter, twice: what is left is how it moved."""
    now, before = np.array([5.0, 3.0]), np.array([2.5, 4.0])
    jitter, jitter_before = (0.25, -0.4), (-0.1, 0.2)
    raw = (before + jitter_before) - (now + jitter)
    if direction == "from_previous":
        raw = -raw
    convention = MotionConvention(direction=direction, jittered=True)  # type: ignore[arg-type]
    found = convention.read(vectors(*raw), (8, 6), jitter=jitter, before=jitter_before)
    assert np.allclose(found, vectors(*(before - now)), atol=1e-6)
    plain = MotionConvention(direction=direction)  # type: ignore[arg-type]
    kept = plain.read(vectors(*raw), (8, 6), jitter=jitter, before=jitter_before)
    sign = 1 if direction == "to_previous" else -1
    assert np.allclose(kept, sign * vectors(*raw), atol=1e-6)


def test_vectors_of_half_the_resolution_are_taken_from_the_nearest() -> None:
    small = np.arange(4 * 3 * 2, dtype=np.float32).reshape(3, 4, 2)
    found = MotionConvention(scale=(2, 2)).read(small, (8, 6))
    assert np.array_equal(found, 2 * small.repeat(2, 0).repeat(2, 1))


def test_of_larger_vectors_none_is_a_mean_of_two() -> None:
    rng = np.random.default_rng(1)
    large = rng.normal(size=(13, 17, 2)).astype(np.float32)
    found = MotionConvention().read(large, (8, 6))
    assert {tuple(v) for v in found.reshape(-1, 2)} <= {tuple(v) for v in large.reshape(-1, 2)}


@pytest.mark.filterwarnings("error")
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=True), min_size=2, max_size=2),
    st.sampled_from([(1.0, 1.0), (640.0, -360.0), (-1e30, 1e30)]),
    st.sampled_from(["to_previous", "from_previous"]),
    st.booleans(),
)
def test_no_number_is_refused_and_none_becomes_finite(
    pair: list[float], scale: tuple[float, float], direction: str, jittered: bool
) -> None:
    given = vectors(0, 0)
    given[2, 3] = pair
    convention = MotionConvention(scale=scale, direction=direction, jittered=jittered)  # type: ignore[arg-type]
    found = convention.read(motion_array(given), (16, 12), jitter=(0.5, 0.5), before=(0.0, 0.0))
    assert (
        np.isfinite(found).all()
        or not np.isfinite(np.array(pair) * scale).all()
        or (np.abs(np.array(pair, np.float64) * scale).max() > 3e38)
    )
    for axis in range(2):
        if not math.isfinite(pair[axis]):
            assert not np.isfinite(found[4:6, 6:8, axis]).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_vectors_come_in_any_float_and_in_wider_textures(dtype: type, channels: int) -> None:
    wide = np.zeros((6, 8, channels), dtype)
    wide[..., 0], wide[..., 1] = 1.5, -2
    found = motion_array(wide)
    assert found.dtype == np.float32
    assert np.array_equal(found, vectors(1.5, -2))


def test_strided_vectors_are_read() -> None:
    large = np.zeros((12, 16, 2), np.float32)
    large[::-2, ::2] = vectors(3, 4)
    assert np.array_equal(motion_array(large[::-2, ::2]), vectors(3, 4))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((6, 8), np.float32), r"\(height, width, 2\)"),
        (np.zeros((6, 8, 1), np.float32), r"\(height, width, 2\)"),
        (np.zeros((0, 8, 2), np.float32), r"\(height, width, 2\)"),
        (np.zeros((6, 8, 2), np.int16), "float32"),
        ([[1, 2]], "list"),
    ],
)
def test_vectors_that_are_none_are_refused(given: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        motion_array(given)


@pytest.mark.parametrize("scale", [(0.0, 1.0), (1.0, math.nan), (math.inf, 1.0)])
def test_a_scale_that_says_nothing_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="scale"):
        MotionConvention(scale=scale)


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="'to_previous'"):
        MotionConvention(direction="back")  # type: ignore[arg-type]


def device_depth(z: Array, near: float, far: float, *, reversed: bool) -> Array:
    """What a projection writes for z: d = f (z - n) / (z (f - n)), and 1 - d where reversed."""
    inverse_far = 0.0 if math.isinf(far) else 1 / far
    d = (1 / near - 1 / z) / (1 / near - inverse_far)
    return (1 - d if reversed else d).astype(np.float32)


@pytest.mark.parametrize("reversed", [False, True])
@pytest.mark.parametrize(("near", "far"), [(0.1, 100.0), (1.0, math.inf), (0.5, 5.0)])
def test_device_depth_becomes_the_distance(near: float, far: float, reversed: bool) -> None:
    z = np.geomspace(near, min(far, 50.0), 48).reshape(6, 8)
    given = device_depth(z, near, far, reversed=reversed)
    convention = DepthConvention(kind="device", near=near, far=far, reversed=reversed)
    found = convention.read(depth_array(given), (8, 6))
    # A float32 next to 1 is 6e-8 wide; that is z * z / near of distance.
    assert np.all(np.abs(found - z) <= 2e-7 * z * z / near + 1e-5 * z)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reversed", [False, True])
@pytest.mark.parametrize("far", [100.0, math.inf])
def test_any_number_makes_a_depth(far: float, reversed: bool) -> None:
    given = np.array([[0, 1, -1, 2, np.nan, np.inf, -np.inf, 1e38, -1e38]], np.float32)
    found = DepthConvention(kind="device", near=0.1, far=far, reversed=reversed).read(given, (9, 1))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= FARTHEST * 1.001
    linear = DepthConvention().read(given, (9, 1))
    assert linear[0, 4] == linear[0, 5] == np.float32(FARTHEST)


def test_the_order_of_depths_stays() -> None:
    d = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    far = DepthConvention(kind="device").read(d, (8, 6))
    near = DepthConvention(kind="device", reversed=True).read(d, (8, 6))
    assert np.all(np.diff(far.ravel()) > 0)
    assert np.all(np.diff(near.ravel()) < 0)


@pytest.mark.parametrize("options", [
    {"near": 0.0}, {"near": 2.0, "far": 1.0}, {"near": math.nan}, {"far": math.nan}, {"near": math.inf},
])  # fmt: skip
def test_planes_of_no_projection_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="near"):
        DepthConvention(kind="device", **options)  # type: ignore[arg-type]


def test_an_unknown_kind_of_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="'device'"):
        DepthConvention(kind="w")  # type: ignore[arg-type]


def test_depth_comes_with_one_channel_and_as_integers() -> None:
    assert depth_array(np.ones((6, 8, 1), np.float16)).shape == (6, 8)
    assert depth_array(np.full((6, 8), 65535, np.uint16)).max() == 1
    with pytest.raises(ValueError, match=r"\(height, width\)"):
        depth_array(np.ones((6, 8, 2), np.float32))
    with pytest.raises(ValueError, match="float32"):
        depth_array(np.ones((6, 8), np.int32))


def test_a_mask_is_within_0_and_1_and_what_is_none_is_not_trusted() -> None:
    given = np.array([[-1, 0.25, 7, np.nan, np.inf]], np.float32)
    assert np.array_equal(reactive_array(given), np.array([[0, 0.25, 1, 1, 1]], np.float32))
    assert reactive_array(np.array([[0, 255]], np.uint8)).tolist() == [[0, 1]]
    assert reactive_array(np.array([[False, True]])).tolist() == [[0, 1]]


def test_motion_over_two_frames_goes_by_the_place_between() -> None:
    """Two halves move apart: each pixel is to end where its own half was two frames ago."""
    older = np.zeros((6, 12, 2), np.float32)
    older[:, :6, 0], older[:, 6:, 0] = 2, -2
    newer = np.zeros((6, 12, 2), np.float32)
    newer[..., 1] = 1
    newer[2, 5] = (3, 0)
    found = composed(newer, older)
    assert np.array_equal(found[1, 2], (2, 1))
    assert np.array_equal(found[1, 9], (-2, 1))
    assert np.array_equal(found[2, 5], (3 - 2, 0))  # it stood in the other half
    assert not np.isfinite(found[5]).any()  # from below the picture


def test_motion_by_no_known_way_is_none() -> None:
    newer, older = vectors(1, 0), vectors(1, 0)
    newer[1, 1] = np.nan
    older[3, 3] = np.nan
    newer[4, 4] = (1e30, 0)
    found = composed(newer, older)
    assert not np.isfinite(found[1, 1]).any()
    assert not np.isfinite(found[3, 2]).any()
    assert not np.isfinite(found[4, 4]).all()
    assert np.array_equal(found[0, 0], (2, 0))


@pytest.mark.parametrize("kind", [tuple, list, np.array, lambda two: np.array(two, np.float16)])
def test_jitter_is_two_numbers_however_they_are_given(kind: Any) -> None:
    found = jitter_of(kind((0.25, -0.5)))
    assert found == (0.25, -0.5)
    assert all(type(number) is float for number in found)


@pytest.mark.parametrize("bad", [(), (1.0,), (1, 2, 3), 0.5, None, "ab", np.zeros((2, 2)), ("a", 1)])
def test_what_is_no_jitter_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="jitter is two numbers"):
        jitter_of(bad)
