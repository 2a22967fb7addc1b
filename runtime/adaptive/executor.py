"""Running: a ladder at work in a thread of its own, with limits on how long frames wait."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from ..errors import EngineError
from ..frame import Frame
from ..temporal.warp import Carried, Way, small_luma
from ..worker import LEAVING, Job, Worker
from .ladder import Ladder, Rung
from .processor import Processed

GRACE = 0.25
"""Seconds at least that a frame waits for the models before it passes without them."""
STUCK = 2.0
"""Seconds at least after which a call that has not returned is given up."""
STALE = 1.0
"""Seconds after which an earlier frame's result no longer replaces a new one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """The time that a frame waits for the models before it passes without them."""

    seconds: float | None = None
    """The seconds; None is the largest of `GRACE`, three periods and four times the initial time."""
    least: float = 0.0
    """The least number of seconds where `seconds` is None."""
    stand_in: float = inf
    """Seconds after the first late frame in which the last result, warped, is shown instead, where
    results are stabilised."""
    once: bool = False
    """True if the time counts from the beginning of the models' call and once for all frames: those
    that come while a call is late do not wait for it again."""


Trial = Callable[[int, float], None]
"""Receives the rung of a background job, either a trial or the present rung's own, and the seconds that
it took."""


@dataclass(frozen=True, slots=True)
class _Task:
    """A job of the models that frames no longer wait for."""

    job: Job[Frame]
    rung: int
    frame: Frame
    way: Way
    """The motion back to that frame, while the job is at work."""
    trial: bool = False


class Running:
    """Makes frames on any rung of a ladder. Used from one thread.

    A call of the models that takes too long lets frames pass until it returns. One that has not
    returned in `STUCK` seconds or ten periods raises EngineError; its thread and its engines are then
    left alone: nothing can end them.
    """

    def __init__(self, ladder: Ladder, tried: Trial, patience: Patience | None = None) -> None:
        self.ladder = ladder
        self.stuck = False
        self._patience = patience or Patience()
        self._tried = tried
        self._worker = Worker("velatura-models", leaving=LEAVING)
        self._task: _Task | None = None
        self._carried: Carried | None = None
        self._way = Way()
        """The motion from the newest frame back to that of the carried result."""
        self._carried_at = -1e9
        self._fresh = False
        self._recent: tuple[Frame, Frame, Way] | None = None
        """The last result that a frame waited for, its frame, and the motion back to it."""
        self._count = 0

    def make(self, rung: int, frame: Frame, period: float) -> Processed | None:
        """Returns the frame made on that rung; None when it must pass. Raises the models' errors, and
        EngineError."""
        one = self.ladder.rungs[rung]
        self._step(frame)
        if not one.models:
            self._settled(0.0, one, period)
            self.forget()
            return Processed(self.ladder.make(one, frame), passed=True)
        if one.every > 1:
            return self._moved(rung, one, frame, period)
        begin, grace = time.monotonic(), self._grace(one, period)
        if not self._settled(grace, one, period):
            return None
        task = self._begin(rung, frame)
        spent = time.monotonic() - begin if self._patience.once else 0.0
        if not task.job.wait(max(grace - spent, 0.0)):
            return None
        self._task = None
        made = task.job.value
        self._carried, self._recent = None, (made, frame, Way())
        return Processed(made)

    def try_rung(self, rung: int, frame: Frame) -> None:
        """Start a trial in the background, unless the models are at work."""
        if self._task is None:
            self._begin(rung, frame, trial=True)

    @property
    def idle(self) -> bool:
        """True if the models have nothing to do."""
        return self._task is None

    @property
    def busy_for(self) -> float:
        """Seconds since the models' current call began; 0 where there is none."""
        return 0.0 if self._task is None else time.monotonic() - self._task.job.begun

    def forget(self) -> None:
        """Forget all earlier results."""
        self._carried, self._recent = None, None

    def close(self, patience: float = 0.0) -> None:
        """Close the engines once the models are done, waiting for at most `patience` seconds."""
        if self.stuck:
            self._worker.leave()
            return
        closing = self._worker.start(self.ladder.close)
        self._worker.leave()
        closing.wait(patience)

    def _moved(self, rung: int, one: Rung, frame: Frame, period: float) -> Processed | None:
        """Returns the last result, warped to the present frame, while the models make the next one."""
        if self._carried is None and self._recent is not None:
            self._carry(*self._recent)
        self._recent = None
        free = self._settled(0.0, one, period)
        if free and self._count % one.every == 0:
            self._begin(rung, frame)
        self._count += 1
        if self._old:
            self._settled(self._grace(one, period), one, period)
        carried = self._carried
        if carried is None or self._old:
            return None
        fresh, self._fresh = self._fresh, False
        result, motion = carried.result, self._way.motion
        uncovered = None
        if motion is None:
            planes = carried.at(small_luma(frame))
        else:
            planes, uncovered = carried.along(motion)
        made = replace(frame, alpha=None, aspect=result.aspect)
        made = made.with_planes(planes, result.format, result.colour)
        return Processed(made, repeated=not fresh, uncovered=uncovered)

    @property
    def _old(self) -> bool:
        return self._carried is None or time.monotonic() - self._carried_at > STALE

    def _step(self, frame: Frame) -> None:
        """Add a frame's motion to that of everything carried."""
        if frame.cut:
            self.forget()
        self._way.step(frame)
        if self._recent is not None:
            self._recent[2].step(frame)
        if self._task is not None:
            self._task.way.step(frame)

    def _begin(self, rung: int, frame: Frame, *, trial: bool = False) -> _Task:
        ladder, one = self.ladder, self.ladder.rungs[rung]
        job = self._worker.start(lambda: ladder.make(one, frame))
        self._task = _Task(job, rung, frame, Way(), trial)
        return self._task

    def _settled(self, grace: float, one: Rung, period: float) -> bool:
        """Returns whether the models are free, now or within `grace` seconds; takes their result."""
        task = self._task
        if task is None:
            return True
        if self._patience.once:
            grace = max(grace - self.busy_for, 0.0)
        if not task.job.wait(grace):
            seconds = self.busy_for
            if seconds > max(STUCK, 10 * period, 4 * (one.cost + one.beside)):
                self.stuck = True
                raise EngineError(f"the models have not answered for {seconds:.1f} s and are left")
            return False
        self._task = None
        made = task.job.value
        if task.trial:
            self._tried(task.rung, task.job.seconds)
        elif one.every > 1:
            self._carry(made, task.frame, task.way)
            if self.ladder.rungs[task.rung] is one:
                self._tried(task.rung, task.job.seconds)
        return True

    def _carry(self, result: Frame, frame: Frame, way: Way) -> None:
        self._way = way
        small = small_luma(frame)
        if self._carried is None:
            self._carried = Carried(result, small)
        else:
            self._carried.succeed(result, small)
        self._carried_at, self._fresh = time.monotonic(), True

    def _grace(self, rung: Rung, period: float) -> float:
        if self._patience.seconds is not None:
            return self._patience.seconds
        return max(GRACE, self._patience.least, 3 * period, 4 * (rung.cost + rung.beside))
