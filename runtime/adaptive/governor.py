"""Governor: chooses the best rung of a ladder that holds the deadline, without flapping or a clock."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .ladder import Rung

WINDOW = 0.5
"""Seconds on which a fast decision is based; at least `FEWEST` frames."""
FEWEST = 6
LATE = 0.3
"""The part of a window's frames that must be late for an immediate step down; at least three."""
LONG = 10.0
"""Seconds over which no more than `SELDOM` of the frames may be late: the meaning of a p99."""
SELDOM = 0.015
SHORT = 2.0
OFTEN = 0.05
"""The window for bursts in seconds, and the part of its frames that may be late."""
BEHIND = 2.0
"""Factor by which models in the background may exceed their time: results are then older."""
SETTLE = 0.15
"""Seconds after a step in which frames from before it still come out."""
FITS = 0.75
"""The largest part of the deadline that a rung's predicted time may take for a step down to it."""
ROOMY = 0.7
"""The largest part for a step up: the difference between the two is the hysteresis."""
CALM = 1.0
"""Seconds without a late frame before a higher rung is tried."""
GOOD = 4
"""Consecutive good trials of a higher rung that a climb needs."""
PATIENCE = 1.2
"""Seconds over which they are spread; tripled after each failed climb, up to `LONGEST`."""
LONGEST = 60.0
RETRY = 3.0
"""Seconds from a bad trial to the next, growing to `SELDOMEST`: a trial may make a frame late."""
SELDOMEST = 5.0
HELPLESS = 60.0
"""Seconds for which occasional lateness is tolerated, once a lower rung has turned out not to help."""
HELD = 3.0
"""Seconds without a late frame, after which a rung's time is known to fit."""
PROVEN = 60.0
"""Seconds for which a rung must have held for its climb not to count as failed."""
LIGHTER = 0.7
"""The part of a trial's time before a failed climb below which that failure is forgotten."""
FUTILE = 5.0
"""Seconds that frames may be late with the models off before the models are no longer blamed."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change from one rung to another."""

    before: int
    after: int
    reason: str


@dataclass(slots=True)
class _Trust:
    """The record of climbs to a rung."""

    failures: int = 0
    trial: float = 0.0
    """Seconds of its last trial before the climb."""
    held: float = 0.0
    """Seconds of work at which it held the deadline."""
    held_at: float = -1e9

    @property
    def patience(self) -> float:
        return min(PATIENCE * 3**self.failures, LONGEST)


class Governor:
    """Keeps the 99th percentile of latencies below `deadline` seconds.

    It is told of each frame (`observe`) and of trials of higher rungs (`probed`), with their times. It
    steps down at once, to the best rung that is predicted to fit, by the ratio of frames' present times
    to those when the ladder was measured. It steps up only when trials of the higher rung, run in the
    background, were good for long enough; longer after each climb that failed.
    """

    def __init__(
        self, rungs: Sequence[Rung], *, period: float, deadline: float | None = None, rung: int = 0
    ) -> None:
        """`deadline` None is the period in seconds between two frames, even when that changes."""
        self.rungs = tuple(rungs)
        self.rung = rung
        self.period = period
        self.futile = False
        """True if frames are late whatever the models do; the models then only keep within the
        period."""
        self._deadline = deadline
        self._frames: deque[_Heard] = deque()
        self._lags: deque[float] = deque(maxlen=FEWEST)
        self._since = -1e9
        """The time at which the present rung was taken."""
        self._climbed = False
        self._late_at = -1e9
        self._trust = [_Trust() for _ in self.rungs]
        self._costs = [rung.cost for rung in self.rungs]
        self._beside = [rung.beside for rung in self.rungs]
        self._target: int | None = None
        self._good: list[float] = []
        self._seldom: tuple[int, float] | None = None
        """The rung that was left for a few late frames, and their part of all frames."""
        self._bear = -1e9
        self._retry = RETRY
        self._next = -1e9

    @property
    def deadline(self) -> float:
        """Seconds that frames may take from capture to output."""
        return self._deadline if self._deadline is not None else self.period

    def observe(self, latency: float, work: float, now: float, period: float) -> Step | None:
        """Records a frame that came out at `now`, `latency` seconds after capture, with `work` seconds
        of processing; returns a step."""
        self.period = period
        if now - self._since < SETTLE:
            return None
        late = self._is_late(latency, work)
        self._frames.append(_Heard(now, latency, work, late))
        while self._frames[0].at < now - LONG:
            self._frames.popleft()
        if late:
            self._late_at = now
            return self._down(now)
        self._remember(now)
        if self.futile and now - self._since > FUTILE and self._overhead(now) < FITS * self.deadline:
            self.futile = False
        return None

    def wanted(self, now: float) -> int | None:
        """Returns the rung of which a trial in the background is due; `probed` receives its result."""
        if self.rung == 0 or now < self._next or not self._frames:
            return None
        if now - self._since < CALM or now - self._late_at < CALM:
            return None
        if self._target is None or self._target >= self.rung:
            self._target = self.rung - 1
        self._next = now + self._retry
        return self._target

    def probed(self, rung: int, seconds: float, now: float) -> Step | None:
        """Records the seconds of a trial of `rung`, or of the models' work in the background on the
        present one; returns a step."""
        if rung == self.rung and self.rungs[rung].every > 1:
            return self._lag(seconds, now)
        if self._target != rung or rung >= self.rung:
            return None
        load = seconds / max(self._alone(rung), 1e-6)
        trust = self._trust[rung]
        if self.rungs[rung].every > 1:
            self._beside[rung] = min(self._beside[rung], seconds)
        else:
            self._costs[rung] = min(self._costs[rung], seconds)
        if not (self._fits(rung, load, now, ROOMY) or seconds <= 1.1 * trust.held):
            self._good.clear()
            fits = [r for r in range(rung + 1, self.rung) if self._fits(r, load, now, ROOMY)]
            # Time was lost on this one; the next lower may do now, else all starts again.
            self._target = fits[0] if fits else None
            self._next = now + (PATIENCE / GOOD if fits else self._retry)
            self._retry = min(self._retry * (1.0 if fits else 1.2), SELDOMEST)
            return None
        if trust.failures and seconds < LIGHTER * trust.trial:
            trust.failures = 0
        higher = self._highest(rung, load, now)
        if higher < rung and len(self._good) < GOOD - 1:
            self._target = higher
            self._next = now + PATIENCE / GOOD
            return None
        self._good.append(now)
        trust.trial = seconds
        patience = trust.patience
        if len(self._good) >= GOOD and now - self._good[0] >= patience * (GOOD - 1) / GOOD:
            return self._step(
                rung, now, f"there is time for it: {_ms(seconds)} in trials", climbed=True
            )
        self._next = now + patience / GOOD
        return None

    def _lag(self, seconds: float, now: float) -> Step | None:
        """Returns a step down where models in the background fall behind, which no latency shows."""
        self._lags.append(seconds)
        usual = float(np.median(self._lags))
        room = BEHIND * self.rungs[self.rung].every * self.period
        if len(self._lags) < FEWEST or usual <= room:
            return None
        load = usual / max(self._beside[self.rung], 1e-6)
        return self._step(
            self._below(load, now), now, f"the models take {_ms(usual)}: results are too old"
        )

    def _down(self, now: float) -> Step | None:
        window = max(WINDOW, FEWEST * self.period)
        recent = [frame for frame in self._frames if frame.at > now - window]
        few = len(recent) < FEWEST - 1 and now - self._since < 2 * WINDOW
        late = sum(frame.late for frame in recent)
        # One frame that takes very long makes the next ones late: those say nothing of the rung.
        heavy = sum(f.work > 0.7 * min(self.deadline, self.period) for f in recent if f.late)
        many = late >= max(3, LATE * len(recent))
        if many and not few and (heavy >= 3 or late >= 0.8 * len(recent)):
            return self._fall(recent, late, now)
        return self._few(now)

    def _few(self, now: float) -> Step | None:
        """Steps down for more than a few late frames over a long time; up again where it did not
        help."""
        if now < self._bear:
            return None
        late = sum(frame.late for frame in self._frames)
        burst = sum(frame.late for frame in self._frames if frame.at > now - SHORT)
        often = late > max(3.0, SELDOM * LONG / self.period)
        if not often and burst <= max(3.0, OFTEN * SHORT / self.period):
            return None
        share = late / max(len(self._frames), LONG / self.period)
        reason = f"{late} of {len(self._frames)} frames took more than {_ms(self.deadline)}"
        earlier = self._seldom
        if earlier is not None and now - self._since < SHORT:
            return None
        if earlier is not None and share > earlier[1] / 2 and earlier[0] < self.rung:
            self._bear = now + HELPLESS
            return self._step(earlier[0], now, f"{reason}, as there: it did not help")
        if self.rung == len(self.rungs) - 1:
            return None
        self._trust[self.rung].held = 0.0  # it does not hold with what it took
        seldom = self.rung, share
        work = [frame.work for frame in self._frames if frame.at > now - SHORT]
        load = float(np.median(work)) / max(self._costs[self.rung], 1e-6)
        step = self._step(self._below(load, now), now, reason)
        self._seldom = seldom
        return step

    def _remember(self, now: float) -> None:
        """Record the time of the present rung while it holds the deadline."""
        trust = self._trust[self.rung]
        if now - max(self._since, self._late_at) > HELD and now - trust.held_at > 1:
            trust.held_at = now
            trust.held = float(np.median([f.work for f in self._frames if f.at > now - HELD]))
            # A rung that was measured while the machine was busy looks more costly than it is.
            self._costs[self.rung] = min(self._costs[self.rung], trust.held)

    def _fall(self, recent: "list[_Heard]", late: int, now: float) -> Step | None:
        """Steps down to the best lower rung that is predicted to fit."""
        last = len(self.rungs) - 1
        reason = f"{late} of {len(recent)} frames took more than {_ms(self.deadline)}"
        if self.rung == last:
            return self._give_up(now) if now - self._since > FUTILE and not self.futile else None
        # Only the last few frames: the window may begin before the change.
        work = np.array([frame.work for frame in recent[-FEWEST:]])
        load = float(np.quantile(work, 0.6)) / max(self._costs[self.rung], 1e-6)
        if load >= 1.2:
            reason += f"; the models take {load:.1f} times as long as at the start"
        return self._step(self._below(load, now), now, reason)

    def _below(self, load: float, now: float) -> int:
        """Returns the best lower rung that should fit; else the last one with models, then none."""
        last = len(self.rungs) - 1
        lower = range(self.rung + 1, last)
        return next((r for r in lower if self._fits(r, load, now, FITS)), max(last - 1, self.rung + 1))

    def _give_up(self, now: float) -> Step | None:
        """Returns a step up where frames are late without the models, too: those only keep within the
        period then."""
        over = self._overhead(now)
        self.futile = True
        after = next((r for r in range(self.rung) if self._costs[r] < 0.4 * self.period), self.rung)
        reason = (
            f"a deadline of {_ms(self.deadline)} cannot be held: {_ms(over)} pass outside of the models"
        )
        return self._step(after, now, reason)

    def _step(self, after: int, now: float, reason: str, *, climbed: bool = False) -> Step | None:
        before = self.rung
        if after == before:
            return None
        trust = self._trust[before]
        if after > before and self._climbed:
            trust.failures += 1 if now - self._since < PROVEN else -min(trust.failures, 1)
        if after > before:
            late = [f.work for f in self._frames if f.late] or [0.0]
            work = float(np.median(late[-FEWEST:]))
            # It fails at the work with which it held the deadline: that figure predicts nothing.
            trust.held = 0.0 if work < 1.2 * trust.held else trust.held
        self._seldom = None
        self.rung, self._since, self._climbed = after, now, climbed
        self._frames.clear()
        self._lags.clear()
        self._good.clear()
        self._target, self._next, self._retry = None, now + CALM, RETRY
        return Step(before, after, reason)

    def _is_late(self, latency: float, work: float) -> bool:
        if self.futile:
            return work > 0.6 * min(self.period, self.deadline)
        return latency > self.deadline

    def _alone(self, rung: int) -> float:
        """Returns the seconds of a rung's trial at the start."""
        return self._beside[rung] or self._costs[rung]

    def _highest(self, rung: int, load: float, now: float) -> int:
        """Returns the best rung above that one which should fit, and has had no failed climb."""
        trusted = [r for r in range(rung) if not self._trust[r].failures]
        return next((r for r in trusted if self._fits(r, load, now, ROOMY)), rung)

    def _fits(self, rung: int, load: float, now: float, part: float) -> bool:
        """Returns whether frames of a rung are predicted to be in time when everything takes `load`
        times as long."""
        every, cost = self.rungs[rung].every, load * self._costs[rung]
        # The models beside frames have as many periods as frames that they do at a time.
        if every > 1 and load * self._beside[rung] > 0.9 * every * self.period:
            return False
        if self.futile:
            return cost <= 0.4 * min(self.period, self.deadline)
        # What takes longer than a period makes others wait, whatever the deadline.
        room = min(part * self.deadline - self._overhead(now), 0.9 * self.period)
        return cost <= room

    def _overhead(self, now: float) -> float:
        """Returns the seconds that frames spend outside of the models when none waits for another."""
        recent = [f.latency - f.work for f in self._frames if f.at > now - CALM]
        if not recent:
            return 0.0
        # Frames that come while the one before is at work wait; a lower rung ends that.
        busy = np.median([f.work for f in self._frames if f.at > now - CALM]) > 0.7 * self.period
        return float(np.quantile(recent, 0.2 if busy else 0.8))


@dataclass(frozen=True, slots=True)
class _Heard:
    at: float
    latency: float
    work: float
    late: bool


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"
