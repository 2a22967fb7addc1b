"""What comes out from behind something that moves: no result that is moved leaves its picture there."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from velatura.runtime import PostProcess
from velatura.runtime.adaptive import executor as running_module
from velatura.runtime.adaptive.ladder import Ladder, Rung, open_ladder
from velatura.runtime.frame import RGB
from velatura.runtime.game import frame_pass as painter_module
from velatura.runtime.temporal.reprojection_map import Tracker
from velatura.runtime.temporal.stabilizer import Stabiliser
from velatura.runtime.temporal.warp import composed, filled, haloed, seen_motion

from ..live.engines import Shelf, frame, wait_until

SIZE = (192, 128)
RADIUS = 22
FAST = 7
"""Pixels that the ball goes to the right by in a frame."""
SLOW = 2
"""Pixels that the ground goes to the left by."""
BALL = (235, 40, 30)


class Scene:
    """A red ball before a ground of grey and green, which moves the other way."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        rough = cv2.GaussianBlur(rng.uniform(0, 255, (SIZE[1], 500, 3)).astype(np.float32), (0, 0), 2)
        ground = (rough - rough.mean()) * 3 + (90, 130, 110)
        self._ground = np.clip(ground, 20, 200).astype(np.uint8)

    def ball(self, index: int, radius: float = RADIUS) -> Any:
        y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
        return (x - 20 - FAST * index) ** 2 + (y - 64) ** 2 < radius**2

    def __call__(self, index: int) -> tuple[Any, Any, Any]:
        """Colour (H, W, 4), motion and depth."""
        ball = self.ball(index)
        color = np.full((SIZE[1], SIZE[0], 4), 255, np.uint8)
        color[..., :3] = self._ground[:, SLOW * index : SLOW * index + SIZE[0]]
        color[ball, :3] = BALL
        motion = np.zeros((SIZE[1], SIZE[0], 2), np.float32)
        motion[..., 0] = np.where(ball, -FAST, SLOW)
        return color, motion, np.where(ball, 2, 10).astype(np.float32)

    def trace(self, index: int) -> Any:
        """Where the ball has been, and nothing of it is by now."""
        been = np.zeros(SIZE[::-1], np.bool_)
        for before in range(index):
            been |= self.ball(before)
        # The edge of a result is that of its picture, less what resampling makes of it.
        return been & ~self.ball(index, RADIUS + 2)


def negative(color: Any) -> Any:
    return 255 - color[..., :3].astype(int)


@contextmanager
def pinned(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[tuple[PostProcess, Shelf]]:
    """A post-process that is always on a rung whose models see every second frame."""

    def opened(*given: Any, **asked: Any) -> Ladder:
        ladder = open_ladder(*given, **asked)
        ladder.rungs = (Rung(name="second", models=ladder.models, every=2), Rung(name="off"))
        return ladder

    monkeypatch.setattr(painter_module, "open_ladder", opened)
    shelf = Shelf()
    options = {"budget_ms": 5000.0, **options}
    with PostProcess("negative", SIZE, opener=shelf, **options) as post:
        yield post, shelf


def settle(post: PostProcess) -> None:
    """Wait until the models have done, so that every run is the same."""
    running = post._painter._processor._running  # type: ignore[union-attr]  # pyright: ignore

    def done() -> bool:
        task = running._task  # type: ignore[union-attr]  # pyright: ignore
        return task is None or task.job.done

    assert wait_until(done)


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


def worst(scene: Scene, index: int, made: Any, part: float = 99.5) -> float:
    """Levels by which what is shown where the ball has been differs from what should be there."""
    color, _, _ = scene(index)
    wanted = negative(color)
    if made.dtype != np.uint8:
        made = made * 255
    apart = np.abs(made[..., :3].astype(int) - wanted).max(2)
    return float(np.percentile(apart[scene.trace(index)], part))


@pytest.mark.parametrize("stability", [0.0, 0.9])
@pytest.mark.parametrize("deep", [True, False], ids=["depth", "colours"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_an_object_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, stability: float, deep: bool, dtype: str
) -> None:
    """The negative of the ball is 200 levels from that of the ground."""
    scene = Scene()
    shown: list[bool] = []
    with pinned(monkeypatch, stability=stability, dtype=dtype) as (post, _):
        for index in range(16):
            color, motion, depth = scene(index)
            given = color if dtype == "uint8" else (color / 255).astype(dtype)
            made = post(given, motion, depth if deep else None)
            settle(post)
            assert not post.last.passed
            shown.append(post.last.carried)
            if index > 1:
                assert worst(scene, index, made) < 45, index
    # Results of both kinds were shown.
    assert 4 < sum(shown[2:]) < 12


@pytest.mark.parametrize("stability", [0.0, 0.9])
def test_an_object_leaves_nothing_behind_where_frames_are_dropped(
    monkeypatch: pytest.MonkeyPatch, stability: float
) -> None:
    """Every second frame is lost, and its motion part of that of the next."""
    scene = Scene()
    with pinned(monkeypatch, stability=stability) as (post, _):
        for index in range(0, 16, 2):
            color, motion, depth = scene(index)
            if index:
                motion = composed(motion, scene(index - 1)[1])
            made = post(color, motion, depth)
            settle(post)
            if index > 3:
                assert worst(scene, index, made) < 45, index


def test_results_that_come_late_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, hanging: threading.Event
) -> None:
    """One result is moved over six frames, then the next comes from six frames before."""
    scene = Scene()
    with pinned(monkeypatch, stability=0.9) as (post, shelf):
        for index in range(14):
            if index == 4:
                shelf.opened[0].hang = hanging
            if index == 10:
                hanging.set()
                settle(post)
            color, motion, depth = scene(index)
            made = post(color, motion, depth)
            if not 4 <= index < 10:
                settle(post)
            assert not post.last.passed
            if index > 1:
                assert worst(scene, index, made) < 45, index


def test_the_engine_may_use_its_memory_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    buffers = [array.copy() for array in scene(0)]
    with pinned(monkeypatch, stability=0.0) as (post, _):
        for index in range(12):
            for buffer, array in zip(buffers, scene(index), strict=True):
                buffer[:] = array
            made = post(*buffers).copy()
            settle(post)
            for buffer in buffers:
                buffer[:] = 99
            if index > 1:
                assert worst(scene, index, made) < 45, index


# The parts


def test_motion_is_none_where_the_frame_before_showed_something_else() -> None:
    scene = Scene()
    tracker, frames = Tracker(), []
    for index in (0, 1):
        color, motion, depth = scene(index)
        one = replace(frame(index, SIZE, RGB), planes=(np.ascontiguousarray(color[..., :3]),))
        frames.append(replace(one, motion=motion, depth=depth))
    assert tracker.follow(frames[0]) is None
    known = seen_motion(frames[1], tracker.follow(frames[1]))
    lost = np.isnan(known[..., 0])
    gone = scene.ball(0) & ~scene.ball(1, RADIUS + 3)
    assert gone.sum() > 100
    # The ball of the frame before, as the ground has moved since.
    assert lost[gone & np.roll(scene.ball(0), -SLOW, 1)].all()
    assert not lost[scene.ball(1, RADIUS - 3)].any()
    assert not lost[:20, : -SLOW - 1].any()
    assert np.isnan(seen_motion(frames[1], None)).all()


def test_a_halo_is_not_in_front() -> None:
    depth = np.full((40, 60), 10, np.float32)
    depth[:, 30:] = 2
    hole = np.zeros(depth.shape, np.bool_)
    hole[:, 25:30] = True
    wide = haloed(hole, depth)
    assert wide[:, 22:30].all()
    assert not wide[:, 30:].any()
    assert not wide[:, :20].any()
    assert haloed(hole, None) is hole


@pytest.mark.parametrize("scale", [1, 2])
def test_a_hole_is_filled_in_the_colours_around_it(scale: int) -> None:
    color, _, _ = Scene()(3)
    source = np.ascontiguousarray(color[..., :3]).repeat(scale, 0).repeat(scale, 1)
    plain = replace(frame(0, (SIZE[0] * scale, SIZE[1] * scale), RGB), planes=(source,))
    swapped = (source[..., ::-1] // 2 + 60).astype(np.uint8)
    hole = np.zeros(SIZE[::-1], np.bool_)
    hole[40:80, 90:130] = True
    large = hole.repeat(scale, 0).repeat(scale, 1)
    wrong = swapped.copy()
    wrong[large] = (255, 0, 255)
    made = filled(plain.with_planes((wrong,), RGB), plain, hole).planes[0]
    assert np.array_equal(made[~large], swapped[~large])
    assert np.abs(made[large].astype(int) - swapped[large]).mean() < 6
    everything = np.ones_like(hole)
    assert filled(plain.with_planes((wrong,), RGB), plain, everything) is plain


def test_a_stand_in_leaves_no_faith_behind() -> None:
    """What is uncovered in one result is wholly the next one's, and what was shown stays elsewhere."""
    still = np.zeros((SIZE[1], SIZE[0], 2), np.float32)
    source = replace(frame(0, SIZE, RGB), motion=still)
    results = [np.full((SIZE[1], SIZE[0], 3), level, np.uint8) for level in (100, 100, 130)]
    hole = np.zeros(SIZE[::-1], np.bool_)
    hole[:, :96] = True
    stabiliser = Stabiliser(0.9)
    made = [source.with_planes((one,), RGB) for one in results]
    stabiliser(source, made[0], uncovered=hole)
    bad = made[1].with_planes((np.where(hole[..., None], np.uint8(240), results[1]),), RGB)
    second = stabiliser(source, bad, uncovered=hole).planes[0]
    assert (second[:, :90] == 240).all()  # nothing else was there
    third = stabiliser(source, made[2]).planes[0].astype(int)
    assert np.abs(third[:, :90] - 130).max() <= 4
    assert np.abs(third[:, 102:] - 100).max() <= 12

    # What was there is not given up for a stand-in.
    fourth = stabiliser(source, bad, uncovered=hole).planes[0].astype(int)
    assert np.abs(fourth[:, :90] - 130).max() <= 12


# Models that are late beside the game


def test_late_models_beside_the_game_show_the_last_result_again(
    monkeypatch: pytest.MonkeyPatch, hanging: threading.Event
) -> None:
    """Never the plain picture between painted ones."""
    monkeypatch.setattr(running_module, "GRACE", 0.05)
    monkeypatch.setattr(painter_module, "FROZEN", 0.05)
    shelf = Shelf()
    with PostProcess("negative", SIZE, mode="pipelined", stability=0.0, opener=shelf) as post:
        color = Scene()(0)[0]
        post(color)
        assert wait_until(lambda: post.stats().finished >= 1)
        post(color)
        assert not post.last.passed
        assert wait_until(lambda: post.stats().work.count >= 2)
        shelf.opened[0].hang = hanging
        for index in range(1, 12):
            count = post.stats().work.count
            made = post(Scene()(index)[0])
            assert not post.last.passed
            assert np.array_equal(made[..., :3], negative(color))
            assert wait_until(lambda count=count: post.stats().work.count > count)
        assert post.last.repeated
        hanging.set()
        last = Scene()(12)[0]
        assert wait_until(lambda: np.array_equal(post(last)[..., :3], negative(last)))
        assert post.stats().passed == 1  # the first


def test_late_models_beside_the_game_let_the_history_move(
    monkeypatch: pytest.MonkeyPatch, hanging: threading.Event
) -> None:
    monkeypatch.setattr(running_module, "GRACE", 0.05)
    monkeypatch.setattr(painter_module, "FROZEN", 0.05)
    scene, shelf = Scene(), Shelf()
    with PostProcess("negative", SIZE, mode="pipelined", stability=0.9, opener=shelf) as post:
        for index in range(4):
            post(*scene(index))
            assert wait_until(lambda index=index: post.stats().finished > index)
        shelf.opened[0].hang = hanging
        for index in range(4, 9):
            made = post(*scene(index))
            assert not post.last.passed
            assert wait_until(lambda index=index: post.stats().finished > index)
        made = post(*scene(9))
        assert post.last.carried
        assert (post.last.index, post.last.latency_frames) == (8, 1)
        still = np.s_[:12, :-40, :3]
        apart = np.abs(made[still].astype(int) - negative(scene(8)[0])[:12, :-40])
        assert apart.mean() < 6


def test_whoever_waits_sees_the_history_from_the_first_late_frame(
    monkeypatch: pytest.MonkeyPatch, hanging: threading.Event
) -> None:
    """However long that frame has been waited for."""
    monkeypatch.setattr(running_module, "GRACE", 0.4)
    monkeypatch.setattr(painter_module, "STAND_IN", 0.3)
    scene, shelf = Scene(), Shelf()
    with PostProcess("negative", SIZE, stability=0.9, opener=shelf) as post:
        for index in range(4):
            post(*scene(index))
        shelf.opened[0].hang = hanging
        post(*scene(4))
        assert post.last.carried


# And around it


def test_the_first_picture_of_a_pipeline_is_a_copy() -> None:
    color = Scene()(0)[0]
    with PostProcess("negative", SIZE, mode="pipelined", opener=Shelf()) as post:
        made = post(color)
        assert post.last.passed
        assert np.array_equal(made, color)
        assert not np.shares_memory(made, color)


@pytest.mark.parametrize("mode", ["inline", "pipelined"])
def test_what_is_closed_says_so(mode: Any) -> None:
    with PostProcess("negative", SIZE, mode=mode, opener=Shelf()) as post:
        post(Scene()(0)[0])
        assert post.rung == "full"
    assert wait_until(lambda: post.rung == "closed")
    assert post.stats().rung == "closed"


def test_motion_is_read_only_where_something_follows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pinned(monkeypatch, stability=0.0) as (post, _):
        assert post._painter.follows(moves=True)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.undo()
    with PostProcess("double", SIZE, budget_ms=5000.0, stability=0.0, opener=Shelf()) as post:
        assert not post._painter.follows(moves=True)  # pyright: ignore[reportPrivateUsage]
        post.stability = 0.5
        assert post._painter.follows(moves=True)  # pyright: ignore[reportPrivateUsage]
