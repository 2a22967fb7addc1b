"""PostProcess: what a game gets back for its picture, whatever becomes of the models."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime import EngineError, Frame, ModelError, PostProcess, open_engine
from velatura.runtime import worker as worker_module
from velatura.runtime.adaptive import executor as running_module
from velatura.runtime.card import ModelCard
from velatura.runtime.colour import to_rgb
from velatura.runtime.errors import SourceError
from velatura.runtime.frame import RGB, Colour
from velatura.runtime.game import MotionConvention
from velatura.runtime.game import frame_pass as painter_module
from velatura.runtime.game import pipeline as maker_module
from velatura.runtime.game.pipeline import Finished, Given, Pipeline
from velatura.runtime.stages import Blending, Neural
from velatura.runtime.worker import Job

from ..ctrl_c import press_later
from ..live.engines import Shelf, wait_until

SIZE = (160, 96)


def picture(index: int = 0, size: tuple[int, int] = SIZE, channels: int = 4) -> Any:
    """Something with edges, another one for each index, and an opacity that is nowhere the same."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    wave = 126 + 60 * np.sin((x - 2 * index) / 9) * np.cos(y / 13)
    made = np.dstack([wave, wave[::-1], wave / 2 + 20, (x + y + index) % 256]).astype(np.uint8)
    return np.ascontiguousarray(made[..., :channels])


def still(size: tuple[int, int] = SIZE) -> Any:
    return np.zeros((size[1], size[0], 2), np.float32)


def negative(color: Any) -> Any:
    made = color.copy()
    made[..., :3] = 255 - made[..., :3]
    return made


@contextmanager
def game(models: Any = "negative", size: tuple[int, int] = SIZE, **options: Any) -> Iterator[Any]:
    """A post-process of engines that do as they are told, those engines, and what was told."""
    shelf = options.pop("shelf", None) or Shelf()
    told: list[str] = []
    options.setdefault("stability", 0.0)
    with PostProcess(models, size, opener=shelf, **options) as post:
        post.listen(told.append)
        yield post, shelf, told


def until(post: PostProcess, finished: int) -> None:
    """Wait for what is made beside the game."""
    assert wait_until(lambda: post.stats().finished >= finished), post.stats()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no late model."""
    monkeypatch.setattr(running_module, "GRACE", 20.0)
    monkeypatch.setattr(running_module, "STUCK", 60.0)


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    release = threading.Event()
    yield release
    release.set()


# This frame, in this call


@pytest.mark.parametrize("model", ["upscale-2x", "starry-night"])
def test_inline_is_what_the_model_makes_of_the_picture(model: str) -> None:
    color = picture(3)
    with open_engine(model, precision="fp32", hint="latency") as engine:
        frame = Frame(
            planes=(np.ascontiguousarray(color[..., :3]),), format=RGB, pts=0,
            time_base=Fraction(1, 60), colour=Colour(range="full"),
        )  # fmt: skip
        wanted = to_rgb(Neural(engine)(frame)).planes[0]
    with PostProcess(model, SIZE, precision="fp32", stability=0.0) as post:
        made = post(color)
        assert post.output_size == (wanted.shape[1], wanted.shape[0])
        assert np.array_equal(made[..., :3], wanted)
        assert not post.last.passed
        assert made.dtype == np.uint8
        if model == "starry-night":
            assert np.array_equal(made[..., 3], color[..., 3])


def test_orders_rows_strides_and_owners_change_nothing() -> None:
    """Of a real network, whose result depends on which way is up and which colour is red."""
    color = picture(5)
    with PostProcess("starry-night", SIZE, precision="fp32", stability=0.0) as post:
        plain = post(color)
        wide = np.zeros((96 * 2, 160 * 3, 6), np.uint8)
        view = wide[::-2, 1::3, 1:5]
        view[:] = color
        assert np.array_equal(post(view), plain)
        assert np.array_equal(post(color[..., :3]), plain[..., :3])
        color.flags.writeable = False
        assert np.array_equal(post(color), plain)
    swapped = np.ascontiguousarray(color[..., [2, 1, 0, 3]])
    with PostProcess("starry-night", SIZE, precision="fp32", stability=0.0, order="bgra") as post:
        assert np.array_equal(post(swapped)[..., [2, 1, 0, 3]], plain)
    with PostProcess("starry-night", SIZE, precision="fp32", stability=0.0, flipped=True) as post:
        assert np.array_equal(post(np.ascontiguousarray(color[::-1]))[::-1], plain)
        assert np.array_equal(post(color[::-1])[::-1], plain)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 40), st.integers(2, 40), st.integers(3, 4),
    st.sampled_from(["rgba", "bgra"]), st.booleans(),
    st.sampled_from([1, 2, -1]), st.sampled_from([1, -1, 3]),
    st.sampled_from([np.uint8, np.float16, np.float32]), st.sampled_from(["inline", "pipelined"]),
)  # fmt: skip
def test_any_picture_is_made_whatever_its_memory(
    height: int, width: int, channels: int, order: str, flipped: bool, row: int, column: int,
    dtype: Any, mode: str,
) -> None:  # fmt: skip
    color = picture(1, (width * abs(column), height * abs(row)), channels)
    scale = 255 if dtype != np.uint8 else 1
    large = (color.astype(np.float64) / scale).astype(dtype)
    view = large[::row, ::column]
    options = {"order": order, "flipped": flipped, "dtype": dtype, "mode": mode}
    with game(size=(width, height), **options) as (post, _, _):
        made = post(view)
        if mode == "pipelined":
            assert np.array_equal(made, view)
            until(post, 1)
            made = post(view)
        assert not post.last.passed
        wanted = np.array(view, np.float64)
        wanted[..., :3] = 255 / scale - wanted[..., :3]
        assert made.dtype == dtype
        assert np.allclose(made, wanted, rtol=0, atol=0 if scale == 1 else 1e-3)


def test_floats_become_floats_and_are_opened_for_at_once() -> None:
    color = (picture(2) / 255).astype(np.float32)
    with game(dtype="float32") as (post, shelf, _):
        made = post(color)
        assert not post.last.passed
        assert np.allclose(made[..., :3], 1 - color[..., :3], atol=2e-5)
        assert len(shelf.opened) == 1


def test_the_interface_that_is_drawn_afterwards_is_exact() -> None:
    """One pixel wide, over three frames: no network has seen it, and none will."""
    for mode in ("inline", "pipelined"):
        with PostProcess("starry-night", SIZE, precision="fp32", mode=mode, stability=0.0) as post:  # type: ignore[arg-type]
            for k in range(4):
                made = post(picture(k))
                without = made.copy()
                made[10, :, :3] = 255
                made[10, ::2, :3] = 0
                assert np.array_equal(made[10, ::2, :3], np.zeros((80, 3)))
                assert np.array_equal(made[11:], without[11:])
                if mode == "pipelined":
                    until(post, k + 1)
                assert not (made[:10] != without[:10]).any()
            # What was drawn into a result is not in the one that comes after.
            last = post(picture(4))
            assert not np.array_equal(last[10, ::2, :3], np.zeros((80, 3)))


def test_the_result_goes_to_out_and_out_comes_back() -> None:
    color = picture(1)
    with game() as (post, _, _):
        out = np.zeros_like(color)
        assert post(color, out=out) is out
        assert np.array_equal(out, negative(color))
        post.off = True
        assert post(color, out=out) is out
        assert np.array_equal(out, color)
        assert post.last.passed
        post.off = False
        own = color.copy()
        assert post(own, out=own) is own
        assert np.array_equal(own, negative(color))


def test_arrays_of_other_libraries_are_taken_and_filled() -> None:
    torch = pytest.importorskip("torch")
    color = picture(1)
    with game() as (post, _, _):
        assert np.array_equal(post(torch.from_numpy(color)), negative(color))
        tensor = torch.zeros(96, 160, 4, dtype=torch.uint8)
        assert post(color, out=tensor) is tensor
        assert np.array_equal(tensor.numpy(), negative(color))
        post.off = True
        assert post(tensor) is tensor


def test_results_stay_what_they_were_while_they_are_held() -> None:
    with game() as (post, _, _):
        kept = [(picture(k), post(picture(k))) for k in range(12)]
        assert all(np.array_equal(made, negative(color)) for color, made in kept)


# Off, and what costs nothing


def test_off_gives_the_picture_itself() -> None:
    with game() as (post, shelf, _):
        color = picture()
        post(color)
        calls = len(shelf.opened[0].calls)
        post.off = True
        assert post(color) is color
        assert post.last.passed
        assert post.rung == "off"
        assert len(shelf.opened[0].calls) == calls
        post.off = False
        assert np.array_equal(post(color), negative(color))
        assert post.rung == "full"


def test_off_keeps_the_size_that_was_promised() -> None:
    with game("double", shelf=Shelf()) as (post, _, _):
        color = picture()
        assert post.output_size == (320, 192)
        assert post(color).shape == (192, 320, 4)
        post.off = True
        made = post(color)
        assert made.shape == (192, 320, 4)
        assert np.abs(made[::2, ::2].astype(int) - color).max() < 40
        out = np.zeros((192, 320, 4), np.uint8)
        assert post(color, out=out) is out
        assert np.array_equal(out, made)


def test_the_identity_gives_the_picture_itself() -> None:
    color = picture()
    with PostProcess("identity", SIZE, stability=0.0) as post:
        assert post(color) is color
        assert post.last.passed
        out = np.zeros_like(color)
        post(color, out=out)
        assert np.array_equal(out, color)
    with PostProcess("identity", SIZE) as post:  # stability without motion is none
        assert post(color) is color


def test_strength_mixes() -> None:
    color = picture(1)
    with game() as (post, shelf, _):
        post.strength = 0.25
        made = post(color)
        wanted = 0.25 * negative(color) + 0.75 * color
        assert np.abs(made - wanted).max() <= 1
        post.strength = 0.0
        calls = len(shelf.opened[0].calls)
        assert post(color) is color
        assert len(shelf.opened[0].calls) == calls
        post.strength = 1
        assert np.array_equal(post(color), negative(color))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("given", ["array", "file"])
def test_a_mask_leaves_the_interface_as_the_game_draws_it(
    given: str, flipped: bool, tmp_path: Path
) -> None:
    color = picture(1)
    rows = color[::-1] if flipped else color
    levels = np.full(SIZE[::-1], 255, np.uint8)
    levels[:20] = 0  # the upper rows, as it is shown
    mask: Any = levels[::-1] if flipped else levels
    if given == "file":
        mask = tmp_path / "hud.png"
        assert cv2.imwrite(str(mask), levels)
    with game(mask=mask, flipped=flipped) as (post, _, _):
        made = post(np.ascontiguousarray(rows))
        upright = made[::-1] if flipped else made
        assert np.array_equal(upright[:20], color[:20])
        assert np.array_equal(upright[30:], negative(color)[30:])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_pictures_own_alpha_may_be_the_mask(dtype: Any) -> None:
    color = picture(1)
    color[..., 3] = 255
    color[10:30, 20:50, 3] = 0
    wanted = negative(color)
    wanted[10:30, 20:50] = color[10:30, 20:50]
    if dtype == np.float32:
        color, wanted = color.astype(dtype) / 255, wanted.astype(dtype) / 255
    with game(mask="alpha", dtype=dtype) as (post, _, _):
        assert np.abs(post(color).astype(float) - wanted).max() <= 1e-4
        color[10:30, 20:50, 3] = color[0, 0, 3]  # in this frame nothing is drawn over the world
        assert not np.array_equal(post(color)[20, 30], color[20, 30])


def test_colours_are_kept_for_as_long_as_that_is_wanted() -> None:
    color = picture(1)
    weights = np.array([0.2126, 0.7152, 0.0722])
    with game(keep_colours=True) as (post, _, _):
        made = post(color).astype(float)
        assert np.abs(made[..., :3] @ weights - negative(color)[..., :3] @ weights).max() <= 2
        before, after = (one[..., :3] - (one[..., :3] @ weights)[..., None] for one in (color, made))
        assert (np.abs(after) <= np.abs(before) + 2).all()
        assert (after * before >= -2 * np.abs(before) - 1).all()
        post.keep_colours = False
        assert np.array_equal(post(color), negative(color))


def test_a_mask_of_another_size_is_scaled_and_told() -> None:
    levels = np.zeros((48, 80), np.uint8)
    with game(mask=levels) as (post, _, told):
        assert told == ["the mask of 80x48 is scaled to 160x96"]
        assert [event.text for event in post.stats().events][:1] == told[:1]
        color = picture(1)
        assert np.array_equal(post(color), color)


def test_a_mask_that_fits_no_picture_is_refused(tmp_path: Path) -> None:
    for mask, error, said in (
        (np.zeros((10, 160), np.uint8), SourceError, "another shape"),
        (np.zeros((96, 160, 3), np.uint8), ValueError, "height, width"),
        (tmp_path / "none.png", SourceError, "cannot be read"),
        ([1, 2], ValueError, "the mask is a list"),
    ):
        with pytest.raises(error, match=said):
            PostProcess("negative", SIZE, opener=Shelf(), mask=mask)
    with pytest.raises(ValueError, match="no alpha"):
        PostProcess("negative", SIZE, opener=Shelf(), mask="alpha", order="rgb")


# Failures, hangs, changes


def test_a_failing_model_lets_pictures_pass_and_comes_back() -> None:
    with game() as (post, shelf, told):
        color = picture()
        shelf.opened[0].fail = "the device is gone"
        assert post(color) is color
        assert post.last.passed
        assert any("the device is gone" in line for line in told)
        assert wait_until(lambda: not np.array_equal(post(color), color))
        assert np.array_equal(post(color), negative(color))
        assert any("the device is gone" in event.text for event in post.stats().events)


@pytest.mark.parametrize("mode", ["inline", "pipelined"])
def test_who_listens_and_fails_costs_no_picture(mode: str) -> None:
    with game(mode=mode) as (post, shelf, told):
        later: list[str] = []

        def broken(text: str) -> None:
            raise RuntimeError(f"no room for {text!r}")

        post.listen(broken)
        post.listen(later.append)
        color = picture()
        shelf.opened[0].fail = "the device is gone"
        post(color)
        assert wait_until(lambda: any("the device is gone" in line for line in later))
        shelf.opened[0].fail = None
        assert wait_until(lambda: np.array_equal(post(color), negative(color)))
        assert any("the device is gone" in line for line in told)
        assert any("no room for" in event.text for event in post.stats().events)


@pytest.mark.parametrize("mode", ["inline", "pipelined"])
def test_a_mistake_in_the_painter_lets_pictures_pass_until_it_is_gone(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    def broken(*_: object) -> Any:
        raise IndexError("nobody has thought of it")

    with game(mode=mode, strength=0.5) as (post, _, told):
        color = picture()
        with monkeypatch.context() as patch:
            patch.setattr(Blending, "__call__", broken)
            for k in range(3):
                assert np.array_equal(post(color), color)
                assert post.last.passed
                if mode == "pipelined":
                    until(post, k + 1)
        assert sum("nobody has thought of it" in line for line in told) == 1
        half = (color[..., :3].astype(int) + negative(color)[..., :3]) / 2
        assert wait_until(lambda: np.abs(post(color)[..., :3] - half).max() <= 1)


def test_a_mistake_beside_the_game_lets_pictures_pass_until_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Outside what makes the picture: the thread goes on, and no picture stands still for ever."""

    def broken(*_: object) -> Any:
        raise MemoryError("too little")

    with game(mode="pipelined") as (post, _, told):
        post(picture(0))
        until(post, 1)
        assert np.array_equal(post(picture(1)), negative(picture(0)))
        until(post, 2)
        with monkeypatch.context() as patch:
            patch.setattr(maker_module.Sparing, "__call__", broken)
            post(picture(2))
            assert wait_until(lambda: any("too little" in line for line in told))
            color = picture(3)
            assert np.array_equal(post(color), color)
            assert post.last.passed
        color = picture(4)
        assert wait_until(lambda: np.array_equal(post(color), negative(color)))


def test_a_hanging_model_is_waited_for_once_then_left(
    monkeypatch: pytest.MonkeyPatch, hanging: threading.Event
) -> None:
    monkeypatch.setattr(running_module, "GRACE", 0.25)
    monkeypatch.setattr(running_module, "STUCK", 0.6)
    with game() as (post, shelf, told):
        shelf.opened[0].hang = hanging
        color = picture()
        passed = 0
        while not any("have not answered" in line for line in told):
            assert post(color) is color
            passed += 1
        # One waits a quarter of a second; if each did, there would be three.
        assert passed > 20
        assert wait_until(lambda: np.array_equal(post(color), negative(color)))


def test_no_call_waits_for_longer_than_its_budget(
    monkeypatch: pytest.MonkeyPatch, hanging: threading.Event
) -> None:
    """The engine never answers: of fifty calls the first waits, and it has waited for all."""
    waited: list[float] = []

    class Counting(Job[Any]):
        def wait(self, seconds: float) -> bool:
            done = super().wait(seconds)
            waited.append(0.0 if done else seconds)
            return done

    monkeypatch.setattr(worker_module, "Job", Counting)
    with game(budget_ms=200.0) as (post, shelf, _):
        color = picture()
        assert np.array_equal(post(color), negative(color))
        shelf.opened[0].hang = hanging
        waited.clear()
        for _ in range(50):
            assert post(color) is color
        assert 0.2 < sum(waited) <= 1.25 * 0.2 + 1e-3  # a clock's
        assert post.stats().passed == 50
        assert not hanging.is_set()


def test_where_models_are_late_the_last_result_is_shown_moved(hanging: threading.Event) -> None:
    """The picture moves by two pixels a frame, and so does what was made of it."""
    with game(budget_ms=1000.0, stability=0.9) as (post, shelf, _):
        motion = still()
        motion[..., 0] = -2
        for k in range(4):
            first = post(picture(k), motion)
        assert post.last == type(post.last)(index=3)
        shelf.opened[0].hang = hanging
        made = post(picture(4), motion)
        assert post.last.carried
        assert not post.last.passed
        assert post.stats().carried == 1
        inner = np.s_[:, 8:-8, :3]
        assert np.abs(made[inner].astype(int) - negative(picture(4))[inner]).mean() < 4
        assert np.abs(made[inner].astype(int) - first[inner]).mean() > 4


def test_late_models_without_motion_let_pictures_pass(hanging: threading.Event) -> None:
    with game(budget_ms=200.0, stability=0.9) as (post, shelf, _):
        color = picture()
        post(color)
        shelf.opened[0].hang = hanging
        assert post(color) is color
        assert post.last.passed


def test_a_budget_that_the_best_holds_no_more_leads_to_less() -> None:
    with game(size=(256, 192), budget_ms=100.0) as (post, shelf, told):
        color = picture(0, (256, 192))
        assert post.rung == "full"
        shelf.opened[0].seconds = 0.1

        def lower() -> bool:
            post(color)
            return post.rung != "full"

        assert wait_until(lower, 10)
        assert any("took more than 100.0 ms" in line for line in told)


def test_without_a_budget_the_best_is_made_however_long_it_takes() -> None:
    with game() as (post, shelf, _):
        shelf.opened[0].seconds = 0.05
        color = picture()
        for _ in range(20):
            assert np.array_equal(post(color), negative(color))
        assert post.rung == "full"


def test_a_size_that_changes_is_followed() -> None:
    with game() as (post, _, told):
        post(picture())
        small = picture(1, (64, 48))
        assert post(small) is small
        assert post.size == post.output_size == (64, 48)
        assert wait_until(lambda: np.array_equal(post(small), negative(small)))
        assert any("64x48" in line for line in told)
        back = picture(2)
        assert wait_until(lambda: np.array_equal(post(back), negative(back)))


def test_a_size_that_changes_while_models_are_opened_is_followed_too() -> None:
    with game() as (post, shelf, _):
        shelf.slow = threading.Event()
        for size in ((64, 48), (80, 64), (96, 80)):
            color = picture(1, size)
            assert post(color) is color
        shelf.slow.set()
        assert wait_until(lambda: np.array_equal(post(color), negative(color)))


@pytest.mark.parametrize("mode", ["inline", "pipelined"])
@pytest.mark.parametrize("given", [False, True])
def test_a_type_or_channels_that_change_are_followed(mode: str, given: bool) -> None:
    """At the same size: no call gives back, or writes to `out`, what was made of the other kind."""
    bytes4 = picture(1)
    kinds = [bytes4, (bytes4 / 255).astype(np.float32), bytes4[..., :3].copy(), bytes4]
    with game(mode=mode) as (post, _, _):
        for color in kinds:
            wanted = negative(color)
            if color.dtype != np.uint8:
                wanted[..., :3] = 1 - color[..., :3]

            def shown(color: Any = color) -> Any:
                out = np.full_like(color, 0.5) if given else None
                made = post(color, out=out)
                assert (made.shape, made.dtype) == (color.shape, color.dtype)
                if post.last.passed:
                    assert np.array_equal(made, color)
                return made

            assert wait_until(lambda: np.allclose(shown(), wanted, atol=2e-5))  # noqa: B023


def test_a_size_that_changes_while_it_is_off_is_noted() -> None:
    small = picture(1, (64, 48))
    with game() as (post, _, _):
        post(picture())
        post.off = True
        assert post(small) is small
        assert post.size == post.output_size == (64, 48)
        post.off = False
        assert post(small) is small
        assert wait_until(lambda: np.array_equal(post(small), negative(small)))


def test_an_upscaler_keeps_its_promise_at_every_size() -> None:
    with game("double") as (post, _, _):
        for size in ((160, 96), (64, 48), (66, 50)):
            for _ in range(3):
                assert post(picture(0, size)).shape == (2 * size[1], 2 * size[0], 4)


def test_a_swap_neither_stalls_nor_blanks() -> None:
    shelf = Shelf(other=ModelCard(name="other", task="style", dtype="uint8", layout="nhwc"))
    with game(shelf=shelf) as (post, _, told):
        color = picture()
        shelf.slow = threading.Event()
        post.swap("other")
        for _ in range(5):
            assert np.array_equal(post(color), negative(color))
        assert post.models == ("negative",)
        shelf.slow.set()
        assert wait_until(lambda: post(color) is not color and post.models == ("other",))
        assert post.stats().passed == 0
        post.swap("nonsense")
        assert wait_until(lambda: any("nonsense fails" in line for line in told))
        assert np.array_equal(post(color), negative(color))


def test_a_swap_from_the_identity_is_taken() -> None:
    color = picture()
    with PostProcess("identity", SIZE) as post:
        assert post(color) is color
        post.swap(["starry-night"])
        assert wait_until(lambda: post(color) is not color, 20)
        assert post.models == ("starry-night",)


def test_a_swap_to_another_scale_keeps_the_size() -> None:
    with game() as (post, _, _):
        post.swap("double")
        color = picture()
        assert wait_until(lambda: (post(color).shape, post.models) == (color.shape, ("double",)))


def test_models_may_be_opened_beside_the_game() -> None:
    shelf = Shelf()
    shelf.slow = threading.Event()
    with game(wait=False, shelf=shelf) as (post, _, _):
        color = picture()
        assert post(color) is color
        assert post.rung == "off: the models are being opened"
        shelf.slow.set()
        assert wait_until(lambda: np.array_equal(post(color), negative(color)))


def test_engines_of_ones_own_opened_beside_the_game_keep_the_size() -> None:
    """Nobody knows their scale before: what is given back has one size all the same."""
    shelf = Shelf()
    shelf.slow = threading.Event()
    with game("double", wait=False, shelf=shelf) as (post, _, _):
        color, out = picture(), np.zeros_like(picture())
        assert post(color, out=out) is out
        shelf.slow.set()

        def made() -> bool:
            assert post(color, out=out) is out
            assert post.output_size == SIZE
            return not post.last.passed

        assert wait_until(made)


@pytest.mark.parametrize("opened", [False, True])
def test_a_swap_while_models_are_opened_leaves_none_behind(opened: bool) -> None:
    """Whether the first ones are on their way or open and not taken yet."""
    shelf = Shelf(other=ModelCard(name="other", task="style", dtype="uint8", layout="nhwc"))
    shelf.slow = threading.Event()
    with game(wait=False, shelf=shelf) as (post, _, told):
        color = picture()
        assert post(color) is color
        if opened:
            shelf.slow.set()
            opening = post._painter._opening
            assert wait_until(lambda: opening._request.opened is not None)
        post.swap("other")
        post(color)
        shelf.slow.set()
        assert wait_until(lambda: np.array_equal(post(color), negative(color)))
        assert post.models == ("other",)
        assert shelf.opened[-1].card.name == "other"
        assert wait_until(lambda: all(engine.closed for engine in shelf.opened[:-1]))
        assert not shelf.opened[-1].closed
    assert not any("fails" in line for line in told)


@pytest.mark.parametrize("mode", ["inline", "pipelined"])
def test_an_unknown_model_is_an_error_at_once(mode: str) -> None:
    for wait in (True, False):
        with pytest.raises(ModelError, match="starry-night"):
            PostProcess("starry-nigth", SIZE, mode=mode, wait=wait)  # type: ignore[arg-type]


def test_models_opened_beside_the_game_have_their_size_at_once() -> None:
    with PostProcess(["starry-night", "upscale-2x"], SIZE, wait=False) as post:
        assert post.output_size == (320, 192)
        assert post(picture()).shape == (192, 320, 4)
        assert post.last.passed


# Pipelined


@pytest.mark.parametrize("model", ["upscale-2x", "starry-night"])
def test_pipelined_is_the_inline_result_one_frame_later(model: str) -> None:
    colors = [picture(3 * k) for k in range(6)]
    with PostProcess(model, SIZE, precision="fp32", stability=0.0) as post:
        wanted = [post(color) for color in colors]
    with PostProcess(model, SIZE, precision="fp32", mode="pipelined", stability=0.0) as post:
        buffer = np.empty_like(colors[0])
        for k, color in enumerate(colors):
            buffer[:] = color
            made = post(buffer)
            if k == 0:
                assert post.last.passed
                assert made.shape == wanted[0].shape
            else:
                assert np.array_equal(made, wanted[k - 1])
                assert (post.last.index, post.last.latency_frames) == (k - 1, 1)
            until(post, k + 1)
            buffer[:] = 99  # the engine draws into it again
        stats = post.stats()
        assert (stats.calls, stats.fresh, stats.passed, stats.repeated, stats.dropped) == (
            6,
            5,
            1,
            0,
            0,
        )
        assert stats.latency[:2] == (1, 5)


def test_pipelined_writes_to_out() -> None:
    with game(mode="pipelined") as (post, _, _):
        color, out = picture(1), np.zeros_like(picture())
        assert post(color, out=out) is out
        assert np.array_equal(out, color)
        until(post, 1)
        assert post(color, out=out) is out
        assert np.array_equal(out, negative(color))


def test_pipelined_never_waits_for_the_models(hanging: threading.Event) -> None:
    """The engine answers to no call in this test; each call of the game returns all the same."""
    with game(mode="pipelined") as (post, shelf, _):
        post(picture(0))
        until(post, 1)
        post(picture(1))
        until(post, 2)
        shelf.opened[0].hang = hanging
        first = post(picture(2))
        assert np.array_equal(first, negative(picture(1)))
        first[:] = 0  # the game draws its interface over it
        assert wait_until(lambda: len(shelf.opened[0].calls) >= 1)
        again = post(picture(3))
        assert post.last.repeated
        assert post.last.latency_frames == 2
        assert np.array_equal(again, negative(picture(1)))
        assert not hanging.is_set()


INTERRUPTED = """
import os, signal, threading, time
from velatura.runtime.game.pipeline import Finished
from velatura.runtime.game.pipeline import Pipeline

signal.signal(signal.SIGINT, signal.default_int_handler)
working = threading.Event()

class Making:
    def __call__(self, given):
        working.set()
        time.sleep(1)
        print("made", flush=True)
        return Finished(given, given, again=True)
    def close(self):
        print("closed", flush=True)

pipeline = Pipeline(Making, print)
pipeline.put(object())
working.wait(20)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    pipeline.close(20)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def test_a_process_ends_after_the_frame_at_work_though_ctrl_c_met_its_close() -> None:
    """What is cut off inside an inference library brings the process down with an abort."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["stopped", "made", "closed"]
    assert done.returncode == 0, done.stderr


def test_a_pipeline_whose_models_nobody_waits_for_any_more_closes_them() -> None:
    opening, go, closed = threading.Event(), threading.Event(), threading.Event()

    class Opened:
        def __call__(self, given: Given) -> Finished:
            raise AssertionError(given)

        def close(self) -> None:
            closed.set()

    def begin() -> Opened:
        opening.set()
        go.wait(20)
        return Opened()

    with press_later(opening.is_set, then=go.set), pytest.raises(KeyboardInterrupt):
        Pipeline(begin, lambda _: None)
    assert closed.wait(20)


def test_pipelined_pictures_pass_once_a_model_hangs(
    monkeypatch: pytest.MonkeyPatch, hanging: threading.Event
) -> None:
    monkeypatch.setattr(running_module, "GRACE", 0.05)
    monkeypatch.setattr(painter_module, "FROZEN", 0.3)
    with game(mode="pipelined") as (post, shelf, _):
        shelf.opened[0].hang = hanging
        color = picture(1)
        post(color)
        until(post, 1)
        assert np.array_equal(post(color), color)
        assert post.last.passed
        for k in range(2, 12):
            until(post, k)  # these do not wait
            assert np.array_equal(post(color), color)
        hanging.set()
        assert wait_until(lambda: np.array_equal(post(color), negative(color)))


def test_of_frames_that_wait_the_newest_wins(hanging: threading.Event) -> None:
    with game(mode="pipelined") as (post, shelf, _):
        engine = shelf.opened[0]
        before = len(engine.calls)
        engine.hang = hanging
        post(picture(0))
        assert wait_until(lambda: len(engine.calls) == before + 1)
        for k in range(1, 5):
            post(picture(k))
        assert post.stats().dropped == 3
        hanging.set()
        until(post, 2)
        made = post(picture(5))
        assert np.array_equal(made, negative(picture(4)))
        assert (post.last.index, post.last.latency_frames) == (4, 1)


def test_the_motion_of_a_dropped_frame_is_not_lost() -> None:
    """The picture goes two pixels a frame; three are lost, and the history must go eight."""

    def last(color: Callable[[int], Any], motion: Any) -> Any:
        with game(mode="pipelined", stability=0.95) as (post, shelf, _):
            for k in range(4):
                post(color(k), motion)
                until(post, k + 1)
            engine = shelf.opened[0]
            calls = len(engine.calls)
            hang = threading.Event()
            engine.hang = hang
            post(color(4), motion)
            assert wait_until(lambda: len(engine.calls) == calls + 1)
            for k in range(5, 9):
                post(color(k), motion)
            assert post.stats().dropped == 3
            engine.hang = None
            hang.set()
            until(post, 6)
            return post(color(9), motion)

    motion = still()
    motion[..., 0] = -2

    def moving(k: int) -> Any:
        made = picture(k)
        # Another brightness each time, which the history evens out where it is in place.
        made[..., :3] = made[..., :3] // 2 + 30 + 4 * (k % 2)
        return made

    made = last(moving, motion)
    inner = np.s_[:, 24:-24, :3]
    apart = np.abs(made[inner].astype(int) - negative(moving(8))[inner])
    assert 0.5 < apart.mean() < 4
    lost = last(moving, still())
    # The history lies elsewhere then: it shows, or it is dropped, and nothing is evened out.
    astray = np.abs(lost[inner].astype(int) - negative(moving(8))[inner]).mean()
    assert astray > 2 * apart.mean() or astray == 0


def test_switching_off_and_on_shows_nothing_old() -> None:
    with game(mode="pipelined") as (post, _, _):
        for k in range(3):
            post(picture(k))
            until(post, k + 1)
        post.off = True
        color = picture(3)
        assert post(color) is color
        post.off = False
        color = picture(4)
        assert np.array_equal(post(color), color)
        assert post.last.passed
        until(post, 4)
        assert np.array_equal(post(picture(5)), negative(color))


def test_pipelined_follows_a_size_and_gives_back_no_other() -> None:
    with game(mode="pipelined") as (post, _, _):
        post(picture(0))
        until(post, 1)
        small = picture(1, (64, 48))
        for _ in range(3):
            assert post(small).shape == small.shape
        assert wait_until(lambda: np.array_equal(post(small), negative(small)))


def test_a_failing_model_lets_pictures_pass_in_the_pipeline_too() -> None:
    with game(mode="pipelined") as (post, shelf, _):
        color = picture()
        shelf.opened[0].fail = "gone"
        post(color)
        until(post, 1)
        assert np.array_equal(post(color), color)
        assert post.last.passed
        assert wait_until(lambda: np.array_equal(post(color), negative(color)))


def test_threads_of_the_models_let_the_game_go_first() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has a priority for each thread")
    seen: list[int] = []

    class Asking(Shelf):
        def __call__(self, name: str) -> Any:
            engine = super().__call__(name)
            submit = engine.submit

            def asked(image: Any, bits: int = 8) -> Any:
                seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
                return submit(image, bits)

            engine.submit = asked
            return engine

    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with game(mode="pipelined", shelf=Asking()) as (post, _, _):
        post(picture())
        until(post, 1)
    assert set(seen) == {min(own + 10, 19)}
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


# Stability


class Strokes(Shelf):
    """Engines that flicker as style networks do: their strokes come out differently each time."""

    def __call__(self, name: str) -> Any:
        engine = super().__call__(name)
        submit, rng = engine.submit, np.random.default_rng(0)

        def painted(image: Any, bits: int = 8) -> Any:
            noise = cv2.GaussianBlur(rng.normal(0, 1, image.shape[:2]), (0, 0), 1.6)
            strokes = 10 * noise / noise.std()
            made = np.clip(submit(image, bits)() + strokes[..., None], 0, 255).astype(np.uint8)
            return lambda: made

        engine.submit = painted
        return engine


def flicker(post: PostProcess, motion: Any, frames: int = 10) -> float:
    """How much results differ from one frame to the next, in levels, where the pictures do not."""
    before, apart = None, []
    color = picture(0)
    for k in range(frames):
        made = post(color, motion)[..., :3].astype(int)
        if before is not None and k > 3:
            apart.append(np.abs(made - before).mean())
        before = made
    return float(np.mean(apart))


def test_stability_steadies_what_does_not_move() -> None:
    with game(shelf=Strokes(), stability=0.0) as (post, _, _):
        plain = flicker(post, still())
    with game(shelf=Strokes(), stability=0.9) as (post, _, _):
        steady = flicker(post, still())
        post.stability = 0.0
        assert flicker(post, still()) == pytest.approx(plain, rel=0.1)
    assert plain > 8
    assert steady < plain / 3


def test_without_motion_there_is_no_history_unless_asked_for() -> None:
    with game(shelf=Strokes(), stability=0.9) as (post, _, _):
        plain = flicker(post, None)
        assert plain > 8
    with game(shelf=Strokes(), stability=0.9, flow=True) as (post, _, _):
        assert flicker(post, None) < plain / 3


def test_a_cut_shows_nothing_of_before() -> None:
    with game(stability=0.95) as (post, _, _):
        for k in range(5):
            post(picture(k), still())
        other = picture(40)[::-1].copy()
        assert np.array_equal(post(other, still(), reset=True), negative(other))


def test_after_off_nothing_of_before_is_shown() -> None:
    with game(stability=0.95) as (post, _, _):
        for k in range(5):
            post(picture(k), still())
        post.off = True
        post(picture(6))
        post.off = False
        other = picture(40)
        assert np.array_equal(post(other, still()), negative(other))


@pytest.mark.parametrize("mode", ["inline", "pipelined"])
@settings(max_examples=12, deadline=None)
@given(st.lists(
    st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e4, 0.3]), min_size=4, max_size=4
))  # fmt: skip
def test_no_motion_harms(mode: str, numbers: list[float]) -> None:
    rng = np.random.default_rng(0)
    motion = rng.choice(np.array(numbers, np.float32), (48, 80, 2))
    depth = rng.choice(np.array([*numbers, 1.0], np.float32), (96, 160))
    with game(mode=mode, stability=0.9) as (post, _, _):
        for k in range(4):
            post(picture(), motion, depth, reactive=depth)
            if mode == "pipelined":
                until(post, k + 1)
        made = post(picture(), motion, depth, reactive=depth)
        # The picture stands still: wherever the history is taken from, it has these values, but for
        # what cubic interpolation adds to them.
        wanted = negative(picture())[..., :3].astype(int)
        assert made[..., :3].min() >= wanted.min() - 8
        assert made[..., :3].max() <= wanted.max() + 8
        assert not post.last.passed


# What is refused


def test_arrays_that_do_not_fit_are_refused_and_the_next_call_works() -> None:
    with game() as (post, _, _):
        color = picture()
        for bad, said in (
            ({"color": color[..., 0]}, "color is"),
            ({"color": color.astype(np.int32)}, "int32"),
            ({"motion": np.zeros((96, 160), np.float32)}, "motion is"),
            ({"depth": np.zeros((96, 160, 2), np.float32)}, "depth is"),
            ({"reactive": np.zeros(5, np.float32)}, "reactive is"),
            ({"out": np.zeros((5, 5, 4), np.uint8)}, "out is"),
            ({"jitter": (0.5,)}, "jitter is"),
            ({"jitter": np.zeros((2, 2))}, "jitter is"),
            ({"jitter": None}, "jitter is"),
        ):
            with pytest.raises(ValueError, match=said):
                post(**{"color": color, **bad})
        assert np.array_equal(post(color), negative(color))


@pytest.mark.parametrize(
    "bad",
    [
        {"motion": np.zeros((3, 3), np.float32)},
        {"reactive": np.zeros(3, np.float32)},
        {"jitter": (1.0, 2.0, 3.0)},
        {"out": np.zeros((5, 5, 4), np.uint8)},
    ],
    ids=lambda bad: next(iter(bad)),
)
def test_a_call_that_is_refused_leaves_no_trace(bad: dict[str, Any]) -> None:
    """What was before it counts no more for the next call than if it had not been."""
    with game(stability=0.95) as (post, _, _):
        for k in range(5):
            post(picture(k), still())
        post.off = True
        post(picture(6))
        post.off = False
        other = picture(40)
        with pytest.raises(ValueError, match="is"):
            post(other, **{"motion": still(), **bad})
        assert np.array_equal(post(other, still()), negative(other))


def test_jitter_may_be_an_array() -> None:
    """Of vectors that contain it: what is made is what two numbers make of it."""

    def last(kind: Callable[[Any], Any]) -> Any:
        vectors = MotionConvention(jittered=True)
        with game(shelf=Strokes(), stability=0.9, motion=vectors) as (post, _, _):
            for k in range(4):
                jitter = (0.5 * (k % 2) - 0.25, 0.25)
                made = post(picture(), still(), jitter=kind(jitter))
            return made

    wanted = last(tuple)
    assert np.array_equal(last(lambda jitter: np.array(jitter, np.float32)), wanted)
    assert np.array_equal(last(list), wanted)
    assert not np.array_equal(last(lambda _: np.zeros(2)), wanted)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "async"}, "'pipelined'"),
        ({"budget_ms": 0.0}, "budget"),
        ({"budget_ms": float("nan")}, "budget"),
        ({"rate": 0.0}, "rate"),
        ({"stability": 1.5}, "stability"),
        ({"strength": -0.1}, "strength"),
        ({"order": "argb"}, "order"),
        ({"encoding": "pq"}, "encoding"),
        ({"dtype": "uint16"}, "uint16"),
        ({"size": (0, 5)}, "size"),
    ],
)
def test_options_out_of_their_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said), game(**options):
        pass


def test_what_is_set_out_of_its_range_is_refused() -> None:
    with game() as (post, _, _):
        with pytest.raises(ValueError, match="stability"):
            post.stability = 2
        with pytest.raises(ValueError, match="strength"):
            post.strength = float("nan")
        assert (post.stability, post.strength) == (0.0, 1.0)


@pytest.mark.parametrize("mode", ["inline", "pipelined"])
def test_closing_twice_is_no_mistake_and_using_it_then_is_one(mode: str) -> None:
    with game(mode=mode) as (post, shelf, _):
        post(picture())
        post.close()
        post.close()
        with pytest.raises(EngineError, match="closed"):
            post(picture())
        assert wait_until(lambda: shelf.opened[0].closed)


def test_the_figures_add_up() -> None:
    with game() as (post, shelf, _):
        color = picture()
        post(color)
        post.off = True
        post(color)
        post.off = False
        shelf.opened[0].fail = "gone"
        post(color)
        stats = post.stats()
        assert (stats.calls, stats.fresh, stats.passed, stats.finished) == (3, 1, 2, 2)
        assert stats.call.count == 2
        assert stats.work.count == 2
        assert 0 < stats.work.p50 <= stats.call.worst
        assert sum(stats.latency) == stats.latency[0] == 3
        text = stats.to_json()
        assert text["calls"] == 3
        assert text["call"]["p99_ms"] > 0


def test_a_budget_begins_with_what_fits_it() -> None:
    """Measured before the first frame: none has to be late for it."""
    shelf = Shelf()
    shelf.seconds = 0.02
    with game(size=(256, 192), budget_ms=20.0, shelf=shelf) as (post, _, _):
        assert post.rung not in ("full", "3/4 size")
    with game(size=(256, 192), shelf=shelf) as (post, _, _):
        assert post.rung == "full"


# The process's end


@pytest.mark.quick_rows(1)
@pytest.mark.parametrize(
    ("options", "size"), [("mode='pipelined'", (320, 180)), ("budget_ms=10.0", (480, 270))]
)
def test_a_process_may_end_while_models_are_at_work(options: str, size: tuple[int, int]) -> None:
    """Nobody has closed anything: an inference library that is cut off would abort the process.

    It does where the models are done while the interpreter is taken down: hence small pictures.
    """
    script = f"""
import time
import numpy as np
from velatura.runtime import PostProcess

post = PostProcess("starry-night", {size}, {options})
post(np.zeros(({size[1]}, {size[0]}, 4), np.uint8))
time.sleep(0.004)
print("ends")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ends\n", "")
