"""Engine pictures as frames and back: whatever their order, rows, memory and numbers."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime.frame import Frame
from velatura.runtime.game.picture import Pictures, out_array, picture_array, scaled

RATE = Fraction(60)


def noise(shape: tuple[int, ...], dtype: Any = np.uint8, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape, np.uint8)
    return rng.random(shape).astype(dtype)


def pictures(order: str = "rgba", *, flipped: bool = False, encoding: str = "srgb") -> Pictures:
    return Pictures(order, flipped=flipped, encoding=encoding)  # type: ignore[arg-type]


def there_and_back(picture: Any, out: Any = None, **options: Any) -> tuple[Frame, Any]:
    chosen = pictures(**options)
    taken = chosen.frame(picture, 0, RATE)
    return taken.frame, chosen.picture(taken.frame, taken, picture, out)


orders = st.sampled_from(["rgba", "bgra", "rgb", "bgr"])
dtypes = st.sampled_from([np.uint8, np.float16, np.float32])


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 17), st.integers(1, 17), st.integers(3, 4), orders, dtypes,
    st.booleans(), st.sampled_from([1, 2, -1, -2]), st.sampled_from([1, 2, -1, -3]), st.integers(0, 3),
)  # fmt: skip
def test_any_picture_comes_back_as_it_was(
    height: int, width: int, channels: int, order: str, dtype: Any,
    flipped: bool, row: int, column: int, extra: int,
) -> None:  # fmt: skip
    """Through the models' memory and back, without a model: the same numbers in the same places."""
    rows, columns = height * abs(row), width * abs(column)
    large = noise((rows, columns, channels + extra), dtype)
    picture = large[::row, ::column, :channels]
    assert picture.shape == (height, width, channels)
    before = large.copy()
    frame, back = there_and_back(picture, order=order, flipped=flipped)
    assert np.array_equal(large, before)
    assert (back.shape, back.dtype) == (picture.shape, picture.dtype)
    # Sixteen bits hold a float within 0..1 to 8e-6, and float16 is coarser than that above 0.02.
    assert np.allclose(back, picture, rtol=0, atol=0 if dtype == np.uint8 else 2e-5)
    if channels == 4:
        assert np.array_equal(back[..., 3], picture[..., 3])
    upright = picture[::-1] if flipped else picture
    seen = upright[..., :3] if order.startswith("r") else upright[..., 2::-1]
    peak = 1 if dtype == np.uint8 else 65535
    assert frame.format.bits == (8 if dtype == np.uint8 else 16)
    assert np.abs(frame.planes[0] - seen.astype(np.float64) * peak).max() <= (0 if peak == 1 else 0.51)


def test_a_picture_may_be_read_only() -> None:
    picture = noise((6, 8, 4))
    picture.flags.writeable = False
    _, back = there_and_back(picture)
    assert np.array_equal(back, picture)
    back[:] = 0  # the result may be drawn into


def test_the_result_goes_where_it_is_wanted() -> None:
    picture = noise((6, 8, 4))
    for large in (np.zeros((6, 8, 4), np.uint8), np.zeros((12, 16, 5), np.uint8)):
        out = large[::-1, ::-1][:6, :8, :4]
        _, back = there_and_back(picture, out)
        assert back is out
        assert np.array_equal(out, picture)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(3, 4), orders, dtypes, st.booleans(),
    st.sampled_from([1, 2, -1, -2]), st.sampled_from([1, 2, -1, -3]), st.integers(0, 3),
)  # fmt: skip
def test_the_result_goes_to_any_memory(
    height: int, width: int, channels: int, order: str, dtype: Any,
    flipped: bool, row: int, column: int, extra: int,
) -> None:  # fmt: skip
    """A picture of one pixel's width, whose pixels have gaps, too; the gaps stay as they were."""
    large = noise((height * abs(row), width * abs(column), channels + extra), dtype, 1)
    before = large.copy()
    out, kept = large[::row, ::column, :channels], before[::row, ::column, :channels]
    picture = noise((height, width, channels), dtype)
    _, back = there_and_back(picture, out, order=order, flipped=flipped)
    assert back is out
    assert np.allclose(out, picture, rtol=0, atol=0 if dtype == np.uint8 else 2e-5)
    kept[:] = out
    assert np.array_equal(large, before)


@pytest.mark.parametrize("flipped", [False, True])
def test_the_picture_itself_may_take_the_result(flipped: bool) -> None:
    picture = noise((6, 8, 4))
    wanted = picture.copy()
    wanted[..., :3] = 255 - wanted[..., :3]
    chosen = pictures("bgra", flipped=flipped)
    taken = chosen.frame(picture, 0, RATE)
    made = taken.frame.with_planes((255 - taken.frame.planes[0],), taken.frame.format)
    assert chosen.picture(made, taken, picture, picture) is picture
    assert np.array_equal(picture, wanted)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_a_larger_result_has_its_opacity_enlarged(channels: int, dtype: Any) -> None:
    picture = noise((6, 8, channels), dtype)
    chosen = pictures()
    taken = chosen.frame(picture, 0, RATE)
    large = taken.frame.planes[0].repeat(2, 0).repeat(2, 1)
    back = chosen.picture(taken.frame.with_planes((large,), taken.frame.format), taken, picture)
    assert back.shape == (12, 16, channels)
    assert back.dtype == dtype
    assert np.allclose(back[::2, ::2, :3], picture[..., :3], atol=2e-5)
    if channels == 4:
        assert np.array_equal(back[..., 3], scaled(np.ascontiguousarray(picture[..., 3]), (16, 12)))


def srgb(light: Any) -> Any:
    light = np.asarray(light, np.float64)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_linear_light_is_shown_to_models_as_srgb(dtype: Any) -> None:
    ramp = np.repeat(np.linspace(0, 1, 4096).astype(dtype), 3).reshape(64, 64, 3)
    frame, back = there_and_back(ramp, order="rgb", encoding="linear")
    wanted = srgb(ramp)
    # Half a step of the twelve bits that an 8-bit network is never shown, dark tones included.
    assert np.abs(frame.planes[0] / 65535 - wanted).max() < 1 / 8192
    assert np.abs(back.astype(np.float64) - ramp).max() < 3e-4
    dark = np.asarray(ramp, np.float64) < 0.01
    assert np.abs(back.astype(np.float64) - ramp)[dark].max() < 1e-5


@pytest.mark.parametrize("encoding", ["srgb", "linear"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("flipped", [False, True])
def test_high_lights_keep_their_height_and_hue(encoding: str, dtype: Any, flipped: bool) -> None:
    picture = noise((6, 8, 4), dtype) * dtype(0.9)
    picture[2, 3, :3] = (8.0, 4.0, 2.0)
    picture[4, 1, :3] = (0.5, 60000.0, 0.25)
    frame, back = there_and_back(picture, encoding=encoding, flipped=flipped)
    assert np.allclose(back[2, 3, :3].astype(float), (8, 4, 2), rtol=2e-3)
    assert np.isclose(float(back[4, 1, 1]), 60000, rtol=2e-3)
    row = 6 - 1 - 2 if flipped else 2
    shown = frame.planes[0][row, 3] / 65535
    wanted = (1, 0.5, 0.25) if encoding == "srgb" else srgb((1, 0.5, 0.25))
    assert np.allclose(shown, wanted, atol=2e-4)
    others = np.ones((6, 8), bool)
    others[[2, 4], [3, 1]] = False
    assert np.allclose(back[others].astype(float), picture[others].astype(float), atol=3e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("encoding", ["srgb", "linear"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_no_number_harms_its_neighbours(encoding: str, dtype: Any) -> None:
    picture = noise((6, 8, 4), dtype)
    picture[0, 0, :3] = (np.nan, 0.5, -np.inf)
    picture[1, 1, 0] = np.inf
    picture[2, 2, 1] = -3
    frame, back = there_and_back(picture, encoding=encoding)
    assert np.isfinite(back[..., :3]).all()
    assert back[..., :3].min() >= 0
    assert frame.planes[0][0, 0, 0] == frame.planes[0][0, 0, 2] == frame.planes[0][2, 2, 1] == 0
    assert back[1, 1, 0] > 60000
    assert np.allclose(back[3:].astype(float), picture[3:].astype(float), atol=3e-4)


def test_results_that_are_held_are_not_written_to() -> None:
    """Twenty results, all kept: none of them changes with what comes later."""
    chosen = pictures()
    kept: list[tuple[Any, Any]] = []
    for seed in range(20):
        picture = noise((24, 32, 4), seed=seed)
        taken = chosen.frame(picture, seed, RATE)
        kept.append((picture, chosen.picture(taken.frame, taken, picture)))
        if seed % 3 == 0:
            kept.append((picture, chosen.copy(picture)))
    assert all(np.array_equal(picture, back) for picture, back in kept)


def test_memory_is_used_again() -> None:
    chosen = pictures()
    picture = noise((24, 32, 4))
    places = set()
    for k in range(10):
        taken = chosen.frame(picture, k, RATE)
        back = chosen.picture(taken.frame, taken, picture)
        places.add(back.__array_interface__["data"][0])
        del taken, back
    assert len(places) <= 2


def test_what_passes_at_its_own_size_is_the_picture_itself() -> None:
    picture = noise((6, 8, 4))
    chosen = pictures()
    assert chosen.enlarged(picture, (8, 6)) is picture
    out = np.zeros_like(picture)
    assert chosen.enlarged(picture, (8, 6), out) is out
    assert np.array_equal(out, picture)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
def test_what_passes_larger_is_enlarged_with_its_opacity(dtype: Any) -> None:
    flat = np.empty((6, 8, 4), dtype)
    flat[:] = np.array([10, 20, 30, 40], np.uint8).astype(dtype)
    large = pictures().enlarged(flat[::-1, ::-1], (16, 12))
    assert large.shape == (12, 16, 4)
    assert large.dtype == dtype
    assert np.array_equal(np.unique(large.reshape(-1, 4), axis=0), flat[0, :1])


def test_arrays_of_other_libraries_are_taken_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(6 * 8 * 4, dtype=torch.uint8).reshape(6, 8, 4)
    assert picture_array(tensor).ctypes.data == tensor.data_ptr()
    turned = picture_array(tensor.flip(0).transpose(0, 1))
    assert np.array_equal(turned, tensor.numpy()[::-1].transpose(1, 0, 2))
    out = out_array(tensor, (6, 8, 4), np.dtype(np.uint8))
    out[:] = 7
    assert bool((tensor == 7).all())


class OnDevice:
    """An array as a GPU's library would have it."""

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 1

    def __dlpack__(self, **options: object) -> object:
        raise AssertionError("nobody may ask for it")


@pytest.mark.parametrize(("kind", "name"), [(2, "a CUDA device"), (10, "ROCm"), (99, "kind 99")])
def test_an_array_on_a_device_is_refused_and_it_is_said_what_to_do(kind: int, name: str) -> None:
    with pytest.raises(ValueError, match=rf"color lies on .*{name}.*\.cpu\(\)"):
        picture_array(OnDevice(kind))


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((6, 8), np.uint8), r"3 or 4\), not \(6, 8\)"),
        (np.zeros((6, 8, 2), np.uint8), "3 or 4"),
        (np.zeros((0, 8, 3), np.uint8), "3 or 4"),
        (np.zeros((6, 8, 3), np.uint16), "not uint16"),
        (np.zeros((6, 8, 3), np.float64), "not float64"),
        (np.zeros((6, 8, 3), bool), "not bool"),
        ("picture.png", "a str: give a NumPy array"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(picture: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        picture_array(picture)


def test_out_must_fit_and_be_writable() -> None:
    wanted = (6, 8, 4)
    with pytest.raises(ValueError, match=r"out is \(6, 9, 4\)"):
        out_array(np.zeros((6, 9, 4), np.uint8), wanted, np.dtype(np.uint8))
    with pytest.raises(ValueError, match="of float32"):
        out_array(np.zeros(wanted, np.float32), wanted, np.dtype(np.uint8))
    locked = np.zeros(wanted, np.uint8)
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        out_array(locked, wanted, np.dtype(np.uint8))


@pytest.mark.parametrize("options", [{"order": "argb"}, {"encoding": "gamma"}])
def test_unknown_layouts_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="unknown"):
        pictures(**options)
