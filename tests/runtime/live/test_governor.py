"""The governor in simulated time: it gets there, it stays there, it comes back."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime.adaptive.governor import FUTILE, Governor, Step
from velatura.runtime.adaptive.ladder import Rung

STYLE = (
    Rung(name="full", models=("m",), cost=0.014),
    Rung(name="3/4 size", models=("m",), cost=0.009),
    Rung(name="full size, every 2nd frame", models=("m",), cost=0.002, every=2, beside=0.014),
    Rung(name="1/2 size", models=("m",), cost=0.0055),
    Rung(name="1/2 size, every 2nd frame", models=("m",), cost=0.0018, every=2, beside=0.0055),
    Rung(name="3/8 size", models=("m",), cost=0.004),
    Rung(name="3/8 size, every 2nd frame", models=("m",), cost=0.0016, every=2, beside=0.004),
    Rung(name="off", cost=0.0001),
)
Load = Callable[[float, int], float]
"""By what everything takes longer, at a time and on a rung."""


@dataclass
class Machine:
    """Frames at a steady rate through a depth-one mailbox, one worker, and the governor."""

    governor: Governor
    load: Load
    rate: float = 30.0
    overhead: float = 0.001
    noise: float = 0.1
    spikes: float = 0.0
    seed: int = 0
    steps: list[tuple[float, Step]] = field(default_factory=list)
    shown: list[tuple[float, float, int]] = field(default_factory=list)
    """Time, latency and rung of each frame."""

    def run(self, seconds: float) -> "Machine":
        rng = np.random.default_rng(self.seed)
        period, free = 1 / self.rate, 0.0
        captures = np.arange(int(seconds * self.rate)) * period
        for k, captured in enumerate(captures):
            # A newer frame that came while the last was at work takes this one's place.
            if k + 1 < len(captures) and captures[k + 1] <= free:
                continue
            begin = max(captured, free)
            rung = self.governor.rung
            work = self._takes(rung, begin, rng)
            if rng.random() < self.spikes:
                work += 0.1
            free = begin + work
            latency = free - captured + self.overhead
            self.shown.append((free, latency, rung))
            self._note(free, self.governor.observe(latency, work, free, period))
            one = self.governor.rungs[self.governor.rung]
            if one.every > 1 and k % one.every == 0:
                took = one.beside * self.load(free, self.governor.rung)
                self._note(free, self.governor.probed(self.governor.rung, took, free))
            trial = self.governor.wanted(free)
            if trial is not None:
                one = self.governor.rungs[trial]
                seconds_of_it = (
                    self._takes(trial, free, rng)
                    if one.every == 1
                    else (one.beside * self.load(free, trial))
                )
                free += seconds_of_it
                self._note(free, self.governor.probed(trial, seconds_of_it, free))
        return self

    def late(self, begin: float, end: float) -> float:
        """The part of the frames of that time that were late."""
        found = [latency > self.governor.deadline for at, latency, _ in self.shown if begin <= at < end]
        return float(np.mean(found)) if found else 1.0

    def rung_at(self, when: float) -> int:
        return [rung for at, _, rung in self.shown if at <= when][-1]

    def _takes(self, rung: int, now: float, rng: np.random.Generator) -> float:
        noise = float(np.exp(rng.normal(0, self.noise)))
        return self.governor.rungs[rung].cost * self.load(now, rung) * noise

    def _note(self, now: float, step: Step | None) -> None:
        if step is not None:
            assert step.before != step.after == self.governor.rung
            assert step.reason
            self.steps.append((now, step))


def hog(begin: float, end: float, factor: float) -> Load:
    return lambda now, _: factor if begin <= now < end else 1.0


def machine(load: Load, *, rate: float = 30.0, **options: float) -> Machine:
    return Machine(Governor(STYLE, period=1 / rate), load, rate=rate, **options)  # type: ignore[arg-type]


def test_nothing_happens_while_all_is_well() -> None:
    done = machine(hog(0, 0, 1)).run(120)
    assert done.steps == []
    assert done.late(0, 120) == 0


def test_sixty_frames_a_second_find_their_rung_and_keep_it() -> None:
    """Full takes 18 ms here, where 16.7 are there."""
    done = machine(lambda *_: 1.2, rate=60, noise=0.05).run(120)
    assert done.late(3, 120) < 0.015
    assert done.rung_at(119) == 1
    assert max(at for at, _ in done.steps) < 3


@given(
    factor=st.floats(1.0, 12.0),
    rate=st.sampled_from([24.0, 30.0, 60.0]),
    noise=st.floats(0.0, 0.2),
    seed=st.integers(0, 99),
    begin=st.floats(5, 9),
)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_a_hog_is_answered_within_three_seconds_and_forgotten_within_ten(
    factor: float, rate: float, noise: float, seed: int, begin: float
) -> None:
    """Whatever the load, as long as some rung fits; when it ends, what was there before is back."""
    end = begin + 25
    rungs = tuple(replace(r, cost=r.cost * 30 / rate, beside=r.beside * 30 / rate) for r in STYLE)
    governor = Governor(rungs, period=1 / rate)
    done = Machine(governor, hog(begin, end, factor), rate=rate, noise=noise, seed=seed).run(end + 25)
    before = done.rung_at(begin)
    assert done.late(begin + 3, begin + 25) < 0.04
    assert done.rung_at(end + 10) <= before


@pytest.mark.quick_rows(5)
@pytest.mark.parametrize("factor", [1.9, 2.1, 2.3, 2.5, 3.0, 5.0, 8.0])
@pytest.mark.parametrize("rate", [30.0, 60.0])
def test_it_does_not_flap_under_constant_load(factor: float, rate: float) -> None:
    done = machine(lambda *_: factor, rate=rate, noise=0.15).run(240)
    assert len([at for at, _ in done.steps if at < 60]) <= 8
    assert len([at for at, _ in done.steps if at >= 60]) <= 8
    assert done.late(3, 240) < 0.015


def test_a_rung_that_trials_flatter_is_tried_ever_more_seldom() -> None:
    """A scheduler may favour short work: a trial then says nothing of what would come."""

    governor = Governor(STYLE, period=1 / 30)
    simulated = Machine(governor, lambda *_: 1.0, noise=0.05)
    real_observe = governor.observe

    def observe(latency: float, work: float, now: float, period: float) -> Step | None:
        if governor.rung < 2:  # in earnest it takes four times as long
            latency, work = latency + 3 * work, 4 * work
        return real_observe(latency, work, now, period)

    governor.observe = observe  # type: ignore[method-assign]
    simulated.run(300)
    climbs = [at for at, step in simulated.steps if step.after < min(step.before, 2)]
    assert len(climbs) >= 3
    assert len(climbs) <= 12
    gaps = np.diff(climbs)
    assert gaps[-1] > 4 * gaps[0]
    assert len([at for at in climbs if at > 180]) <= 4


def test_single_spikes_are_no_reason() -> None:
    done = machine(hog(0, 0, 1), spikes=0.003).run(240)
    assert len(done.steps) <= 2


def test_many_spikes_that_a_cheaper_rung_would_not_spare_do_not_switch_the_models_off() -> None:
    done = machine(hog(0, 0, 1), spikes=0.02, noise=0.02).run(120)
    assert "off" not in {STYLE[step.after].name for _, step in done.steps}


def test_the_models_are_not_blamed_for_what_they_do_not_cost() -> None:
    """A sink that takes 50 ms is late without the models, too: they come back, and it is told once."""
    done = machine(hog(0, 0, 1), overhead=0.05).run(60)
    told = [step for _, step in done.steps if "cannot be held" in step.reason]
    assert len(told) == 1
    assert done.governor.futile
    assert done.steps[-1][1] is told[0]
    assert done.steps[-1][0] < FUTILE + 3
    assert STYLE[done.rung_at(59)].models


def test_what_is_late_for_another_reason_ends_with_it() -> None:
    """The sink is fast again: the deadline is kept again."""
    simulated = machine(hog(30, 100, 3), overhead=0.05)
    simulated.run(20)
    assert simulated.governor.futile
    quick = Machine(simulated.governor, lambda *_: 1.0, overhead=0.001)
    governor = quick.governor
    for k in range(300):
        now = 20 + k / 30
        governor.observe(0.015, 0.014, now, 1 / 30)
    assert not governor.futile


def test_the_best_rung_that_fits_is_taken_in_one_step() -> None:
    done = machine(lambda now, _: 5.0 if now > 5 else 1.0).run(7)
    (_, step), *more = done.steps
    assert STYLE[step.after].name == "1/2 size, every 2nd frame"  # 27 ms in every 67
    assert not more
    assert re.search(r"take [45]\.\d times as long as at the start", step.reason)


def test_a_deadline_of_its_own_is_held_instead_of_the_period() -> None:
    governor = Governor(STYLE, period=1 / 30, deadline=0.010)
    done = Machine(governor, lambda *_: 1.0, noise=0.05).run(30)
    assert done.late(3, 30) < 0.01
    assert STYLE[done.rung_at(29)].name == "full size, every 2nd frame"


def test_models_beside_the_frames_that_fall_behind_are_noticed() -> None:
    """No frame is late, but what is shown is older and older."""
    done = machine(lambda now, rung: 12.0 if rung == 2 and now > 5 else 2.6).run(12)
    assert done.rung_at(5) == 2
    assert done.rung_at(8) > 2
    assert any("the models take" in step.reason for _, step in done.steps)


def test_models_beside_the_frames_must_keep_up_with_them() -> None:
    """Twice two periods for the models at most, whatever frames wait for."""
    rungs = (
        Rung(name="full", models=("m",), cost=0.2),
        Rung(name="every 2nd", models=("m",), cost=0.001, every=2, beside=0.2),
        Rung(name="off", cost=0.0001),
    )
    done = Machine(Governor(rungs, period=1 / 30), lambda *_: 1.0).run(20)
    assert done.rung_at(19) == 2
    done = Machine(Governor(rungs, period=1 / 10), lambda *_: 1.0, rate=10.0).run(20)
    assert done.rung_at(19) == 1
