"""A live processor whose results stay with what they show."""

from dataclasses import replace

import numpy as np
import pytest
from velatura.runtime.adaptive.processor import Processed, Steady

from .engines import frame


def noisy(number: int) -> Processed:
    """A result that differs from frame to frame."""
    given = frame(0)
    rng = np.random.default_rng(number)
    planes = tuple(
        np.clip(plane + rng.normal(0, 20, plane.shape), 0, 255).astype(np.uint8)
        for plane in given.planes
    )
    return Processed(given.with_planes(planes, given.format))


def luma(made: Processed) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    return made.frame.planes[0].astype(np.int64)


def test_off_it_lets_all_pass() -> None:
    steady = Steady()
    for number in range(3):
        made = noisy(number)
        assert steady(frame(0), made) is made


def test_results_are_calmed() -> None:
    steady = Steady()
    steady.strength = 0.9
    shown = [luma(steady(frame(0), noisy(number))) for number in range(8)]
    raw = [luma(noisy(number)) for number in range(8)]
    changes = [np.abs(np.diff(np.array(one), axis=0)).mean() for one in (shown, raw)]
    assert changes[0] < changes[1] / 3


def test_what_is_late_is_stood_in_for() -> None:
    steady = Steady()
    steady.strength = 0.9
    late = Processed(frame(0), passed=True, late=True)
    assert steady(frame(0), late) is late, "there is nothing to show instead"
    for number in range(6):
        last = steady(frame(0), noisy(number))
    shown = steady(frame(0), late)
    assert shown.repeated
    assert not shown.passed
    assert np.abs(luma(shown) - luma(last)).mean() < np.abs(luma(late) - luma(last)).mean() / 2


def test_what_passes_since_models_are_off_passes_untouched() -> None:
    steady = Steady()
    steady.strength = 0.9
    for number in range(4):
        steady(frame(0), noisy(number))
    off = Processed(frame(0), passed=True)
    assert steady(frame(0), off) is off
    made = noisy(9)
    assert steady(frame(0), made).frame is made.frame, "nothing of before is left"


def test_moved_results_are_no_new_ones() -> None:
    steady = Steady()
    steady.strength = 0.5
    for number in range(4):
        last = steady(frame(0), noisy(number))
    moved = replace(noisy(9), repeated=True)
    shown = steady(frame(0), moved)
    assert shown.repeated
    assert np.abs(luma(shown) - luma(last)).mean() < np.abs(luma(moved) - luma(last)).mean() / 2


def test_a_strength_beyond_is_refused() -> None:
    with pytest.raises(ValueError, match="is not within"):
        Steady().strength = 2.0
