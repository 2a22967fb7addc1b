"""Results that follow a game's own motion, and frames that do not wait twice for late models."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from velatura.runtime.adaptive import executor as running_module
from velatura.runtime.adaptive.executor import Patience, Running
from velatura.runtime.adaptive.ladder import Ladder, Rung
from velatura.runtime.frame import RGB, Frame
from velatura.runtime.temporal.warp import Carried, Way, small_luma

from ..live.engines import Negative, frame, wait_until

SIZE = (128, 96)
STEP = 3
"""Pixels that the pictures below move to the right by in a frame."""


def moving(index: int, *, known: bool = True) -> Frame:
    """Noise that moves: no optical flow finds its way in it, but the engine's vectors do."""
    rng = np.random.default_rng(7)
    wide = rng.integers(0, 256, (SIZE[1], SIZE[0] + 60, 3), np.uint8)
    left = 60 - STEP * index
    motion = np.zeros((SIZE[1], SIZE[0], 2), np.float32)
    motion[..., 0] = -STEP
    plane = np.ascontiguousarray(wide[:, left : left + SIZE[0]])
    one = replace(frame(index, SIZE, RGB), planes=(plane,))
    return replace(one, motion=motion) if known else one


def apart(made: Frame, given: Frame) -> float:
    """Levels between a result and the negative, away from the border that things come in at."""
    wanted = 255 - given.planes[0].astype(int)
    return float(np.abs(made.planes[0].astype(int) - wanted)[:, 24:-8].mean())


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no late model."""
    monkeypatch.setattr(running_module, "STUCK", 60.0)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def running(engine: Negative, every: int, patience: Patience | None = None) -> Running:
    ladder = Ladder(["negative"], {"negative": engine}, given=moving(0))
    rungs = [Rung(name="full", models=("negative",)), Rung(name="off")]
    if every > 1:
        rungs.insert(1, Rung(name="second", models=("negative",), every=every))
    ladder.rungs = tuple(rungs)
    return Running(ladder, lambda *_: None, patience)


def test_a_way_is_the_motion_of_all_frames_since() -> None:
    way = Way()
    assert way.known
    for index in range(1, 4):
        way.step(moving(index))
    assert way.motion is not None
    assert np.array_equal(way.motion[:, 24:-24, 0], np.full((96, 80), -3.0 * STEP, np.float32))


@pytest.mark.parametrize("cut", [False, True])
def test_a_frame_without_motion_ends_a_way(cut: bool) -> None:
    way = Way()
    way.step(moving(1))
    way.step(replace(moving(2), cut=True) if cut else moving(2, known=False))
    way.step(moving(3))
    assert way.motion is None
    assert not way.known


@pytest.mark.parametrize("scale", [1, 2])
def test_a_result_goes_along_the_motion_that_is_given(scale: int) -> None:
    first, last = moving(0), moving(2)
    plane = (255 - first.planes[0]).repeat(scale, 0).repeat(scale, 1)
    carried = Carried(first.with_planes((plane,), RGB), small_luma(first))
    way = Way()
    way.step(moving(1))
    way.step(last)
    assert way.motion is not None
    motion = way.motion.copy()
    motion[10, 50] = np.nan
    (moved,), unknown = carried.along(motion)
    assert unknown is not None
    lost = np.argwhere(unknown)
    assert [10, 50] in lost.tolist()
    # What has come in at the left has been nowhere before.
    assert lost[lost[:, 1] >= 2 * STEP].tolist() == [[10, 50]]
    wanted = (255 - last.planes[0]).repeat(scale, 0).repeat(scale, 1)
    inner = np.s_[12 * scale :, 24 * scale : -8 * scale]
    assert np.array_equal(moved[inner], wanted[inner])


def test_models_beside_frames_follow_the_games_motion() -> None:
    """Results of every second frame stand where the picture is by now, to the sample."""
    run = running(Negative(seconds=0.0), 2)
    given = moving(0)
    made = run.make(0, given, 1 / 60)
    assert made is not None
    assert apart(made.frame, given) == 0
    fresh = 0
    for index in range(1, 9):
        given = moving(index)
        made = run.make(1, given, 1 / 60)
        assert made is not None
        assert made.frame.index == index
        assert apart(made.frame, given) == 0
        fresh += not made.repeated
        assert wait_until(lambda: run.idle or run._task.job.done)  # type: ignore[union-attr]  # pyright: ignore
    assert 3 <= fresh <= 5
    run.close(2.0)


def test_a_result_that_comes_late_goes_all_of_its_way(release: threading.Event) -> None:
    engine = Negative()
    run = running(engine, 2)
    run.make(0, moving(0), 1 / 60)
    engine.hang = release
    for index in range(1, 5):
        made = run.make(1, moving(index), 1 / 60)
        assert made is not None
        assert apart(made.frame, moving(index)) == 0
    release.set()
    assert wait_until(lambda: run._task is None or run._task.job.done)  # pyright: ignore
    given = moving(5)
    made = run.make(1, given, 1 / 60)
    assert made is not None
    assert not made.repeated
    assert apart(made.frame, given) == 0
    run.close(2.0)


def test_after_a_cut_no_result_of_before_is_moved(release: threading.Event) -> None:
    engine = Negative()
    run = running(engine, 2, Patience(seconds=0.0, once=True))
    run.ladder.make(run.ladder.rungs[0], moving(0))
    for index in range(8):
        run.make(1, moving(index), 1 / 60)
        assert wait_until(lambda: run._task is None or run._task.job.done)  # pyright: ignore
    engine.hang = release
    assert run.make(1, replace(moving(8), cut=True), 1 / 60) is None
    run.close()


def test_a_late_call_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each frame waits is what is left of the first one's time."""
    engine = Negative()
    run = running(engine, 1, Patience(seconds=5.0, once=True))
    waits: list[float] = []

    class Job:
        """A call that has begun `age` seconds ago, and notes how long anybody waits for it."""

        age = 0.0
        done = False

        @property
        def begun(self) -> float:
            return running_module.time.monotonic() - self.age

        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            return False

    job = Job()
    monkeypatch.setattr(run._worker, "start", lambda _: job)  # pyright: ignore
    assert run.make(0, moving(0), 1 / 60) is None
    for age in (4.0, 7.0):
        job.age = age
        assert run.make(0, moving(1), 1 / 60) is None
        assert run.busy_for == pytest.approx(age, abs=0.5)
    assert waits[0] == pytest.approx(5, abs=0.5)
    assert waits[1] == pytest.approx(1, abs=0.5)
    assert waits[2] == 0
