"""LadderProcessor: models that keep a deadline, whose failures never show as a black picture."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ..backends import Fit as EngineFit
from ..backends import Precision, open_engine
from ..backoff import Backoff
from ..cache import EngineCache
from ..card import CardFlags, ModelCard
from ..errors import EngineError, VelaturaError
from ..frame import Array, Frame, VideoInfo
from ..stages.blend import Blending
from ..stages.geometry import Shape
from .background_open import FIRST, MOST, Opening
from .executor import STUCK, Patience, Running
from .governor import FITS, Governor, Step
from .ladder import Fit, Key, Ladder, Opener, Rung, key_of, open_ladder, sample_of
from .processor import Processed, Processor, Steady, Tell

LINE = 2
"""Width in luma columns of the line between the two sides."""


def split(made: Frame, original: Frame, at: float) -> Frame:
    """Returns `original` left of that part (0..1) of the width, `made` right of it, a white line
    between."""
    format = made.format
    step = format.subsample[0] if format.family == "yuv" else 1
    column = min(max(round(at * made.width), 0), made.width) // step * step
    line = max(LINE, step)
    full = format.family == "rgb" or made.colour.range == "full"
    white = format.peak if full else 235 << (format.bits - 8)
    planes: list[Array] = []
    for i, (right, left) in enumerate(zip(made.planes, original.planes, strict=True)):
        scale = step if i else 1
        plane = np.array(right)
        x, wide = column // scale, line // scale
        plane[:, :x] = left[:, :x]
        plane[:, max(x - wide // 2, 0) : x - wide // 2 + wide] = 1 << (format.bits - 1) if i else white
        planes.append(plane)
    return made.with_planes(tuple(planes), format)


HEALTHY = 10.0
"""Seconds of work after which a failure counts as the first one."""

Open = Callable[[Sequence[str], Frame, Shape | None], Ladder]
"""Opens models for frames like that one; their results get the given shape or their own."""


class LadderProcessor(Processor):
    """Runs models on the rung of a ladder that holds the deadline.

    All frames come out in one shape: the size, format and colour of the first models' results. While
    models are opened, have failed or do not answer, frames pass unprocessed in it. Other models are
    opened in the background and taken between two of them.
    """

    def __init__(
        self,
        models: Sequence[str],
        given: Frame,
        open: Open,
        *,
        period: float,
        deadline: float | None = None,
        governed: bool = True,
        pinned: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        """`given` is a frame as all will be. `deadline` None is `period`, both in seconds.

        `pinned` names the one rung to run on; else, without `governed`, it is the best. Raises what
        opening the models does, and EngineError for a rung that there is not.
        """
        self._open = open
        self._deadline, self._period = deadline, period
        self._governed, self._pinned = governed and pinned is None, pinned
        self._tell: Tell = _nobody
        self._lock = threading.Lock()
        self._opening = Opening[Ladder]()
        ladder = open(models, given, None)
        names = [rung.name for rung in ladder.rungs]
        if pinned is not None and pinned not in names:
            ladder.close()
            raise EngineError(f"there is no rung {pinned!r}; there are: {', '.join(names)}")
        self._models: tuple[str, ...] = ladder.models
        self._patience = patience or Patience()
        self._running: Running | None = Running(ladder, self._tried, self._patience)
        self._governor = self._govern(ladder, pinned)
        self._fit = Fit(ladder.shape)
        self._seen = given
        self._last: Frame | None = None
        self._following: Key | None = None
        self._wanted: tuple[str, ...] | None = None
        self._reviving: str | None = None
        self._began = time.monotonic()
        self._backoff = Backoff(first=FIRST, longest=MOST)
        self._closed = False
        self._said = ""
        self._work = 0.0
        self.blending = Blending()
        """How results and frames become one picture; what it leaves open is by the models' cards. Any
        thread may set it."""
        self._cards: tuple[ModelCard, ...] = ladder.cards
        self._split: float | None = None
        self.steady = Steady(self._patience.stand_in)
        """The stabiliser of results, which is off unless its strength is set."""
        self.off = False
        """True if frames pass without the models; any thread may set it."""

    @property
    def strength(self) -> float:
        """The part of the result in the picture, 0..1, by the models' cards until it is set. Raises
        ValueError when set out of range."""
        strength = self.blending.of(self._cards).strength
        return 1.0 if strength is None else strength

    @strength.setter
    def strength(self, value: float) -> None:
        self.blending = replace(self.blending, strength=float(value))

    @property
    def split(self) -> float | None:
        """Left of this part of the width, 0..1, the original is shown; None shows none of it."""
        return self._split

    @split.setter
    def split(self, value: float | None) -> None:
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"a split at {value} is not within 0..1")
        self._split = value

    @property
    def models(self) -> tuple[str, ...]:
        """The models' names, in order; those before a swap until it is done."""
        return self._models

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """The ladder's rungs, from best to cheapest, with measured costs."""
        return self._governor.rungs

    @property
    def rung(self) -> str:
        governor = self._governor
        if self.off:
            return "off"
        if self._running is None or self._following is not None:
            return "off: the models are being opened"
        return governor.rungs[governor.rung].name

    @property
    def carries(self) -> bool:
        """True if there may be a rung on which results are warped by the frames' motion."""
        return self._governed and any(rung.every > 1 for rung in self.rungs)

    @property
    def shape(self) -> Shape:
        """The shape of all frames that come out."""
        return self._fit.shape

    @property
    def deadline(self) -> float:
        """Seconds that frames may take from capture to output."""
        return self._governor.deadline

    def listen(self, tell: Tell) -> None:
        self._tell = tell
        running, governor = self._running, self._governor
        if running is None:
            return
        for note in running.ladder.notes:
            tell(note)
        tell(f"rungs: {', '.join(map(str, governor.rungs))}")
        least = governor.rungs[-1].cost
        if least > governor.deadline:
            tell(
                f"a deadline of {governor.deadline * 1e3:.1f} ms cannot be held: without any model a "
                f"frame takes {least * 1e3:.1f} ms"
            )

    def process(self, frame: Frame) -> Processed:
        begin = time.monotonic()
        opacity = frame.alpha
        if opacity is not None:
            frame = replace(frame, alpha=None)  # results have none
        try:
            if self._last is None:
                self._adopt(frame)
            plain = partial(self._fit, frame, fast=True)
            made = self._process(self.steady.followed(frame, moves=self.carries))
            made = self.steady(frame, made or Processed(plain(), passed=True), plain)
            if not made.passed:
                made = replace(made, frame=self._mixed(made.frame, plain, opacity))
        except Exception as error:  # a frame must come out, whatever is wrong
            made = self._rescued(frame, error)
        self._seen, self._last = frame, made.frame
        self._work = time.monotonic() - begin
        running = self._running
        if made.late and self._patience.once and running is not None:
            # The frame did not wait, but the models are as late as for the one that did.
            self._work = max(self._work, running.busy_for)
        return made

    def take_opened(self) -> None:
        """Switch to models that have been opened meanwhile, as `process` does before a frame."""
        self._exchange()

    def observe(self, latency: float, *, period: float) -> None:
        with self._lock:
            self._period = period
            if not self._governed or self.off or self._running is None or self._following is not None:
                return
            latency = max(latency, self._work)
            step = self._governor.observe(latency, self._work, time.monotonic(), period)
        self._announce(step)

    def swap(self, models: Sequence[str]) -> None:
        """Switch to other models as soon as they are open; the present ones stay if that fails."""
        wanted, given = tuple(models), self._seen
        if self._closed or (wanted == self._wanted and self._opening.busy):
            return
        self._wanted = wanted

        def failed(error: Exception, again: float | None) -> None:
            del again
            self._wanted = self._following = None
            self._tell(f"{_names(self._models)} stays, {_names(wanted)} fails: {_reason(error)}")
            if self._running is None:
                self._reopen(FIRST)

        self._opening.begin(lambda: self._open(wanted, given, self._fit.shape), failed)

    def revive(self, reason: str) -> None:
        self._reviving = reason

    def close(self, patience: float = STUCK) -> None:
        """Close the engines, waiting for at most `patience` seconds."""
        self._closed = True
        self._opening.close()
        running, self._running = self._running, None
        if running is not None:
            running.close(patience)

    def _process(self, frame: Frame) -> Processed | None:
        """Returns the frame made on the present rung; None where it must pass."""
        self._exchange()
        running = self._running
        if running is None:
            return None
        if self.off:
            running.forget()
            return None
        if self._reviving is not None:
            self._drop(self._reviving, delay=0.0)
            return None
        if key_of(frame) != running.ladder.given:
            self._follow(frame)
            return None
        self._following = None
        rung = min(self._governor.rung, len(running.ladder.rungs) - 1)
        try:
            made = running.make(rung, frame, self._period)
        except Exception as error:  # theirs, whatever it is: the picture goes on
            self._drop(_reason(error), delay=self._back_off())
            return None
        if self._governed and running.idle:
            with self._lock:
                trial = self._governor.wanted(time.monotonic())
            if trial is not None:
                running.try_rung(trial, frame)
        return made or Processed(self._fit(frame, fast=True), passed=True, late=True)

    def _adopt(self, frame: Frame) -> None:
        """Take colour, aspect and rotation from the first frame, since a source may not state them."""
        shape = self._fit.shape
        shape = replace(shape, colour=frame.colour, aspect=frame.aspect, rotation=frame.rotation)
        self._fit = Fit(shape)
        if self._running is not None:
            self._running.ladder.fit = Fit(shape)

    def _mixed(self, made: Frame, plain: Callable[[], Frame], opacity: Array | None) -> Frame:
        blending, at = self.blending.of(self._cards), self._split
        if blending.idle and at is None:
            return made
        original = plain()
        made = blending(made, original, opacity)
        return made if at is None else split(made, original, at)

    def _rescued(self, frame: Frame, error: Exception) -> Processed:
        """Returns a replacement for a frame that cannot even pass: the one before, or itself."""
        text = f"a frame could not be shown: {_reason(error)}"
        if text != self._said:
            self._said = text
            self._tell(text)
        self.steady.forget()
        last = self._last
        if last is None:
            return Processed(frame, passed=True)
        shown = replace(last, pts=frame.pts, index=frame.index, captured=frame.captured)
        return Processed(shown, passed=True, repeated=True)

    def _tried(self, rung: int, seconds: float) -> None:
        with self._lock:
            step = self._governor.probed(rung, seconds, time.monotonic())
        self._announce(step)

    def _announce(self, step: Step | None) -> None:
        if step is not None:
            before, after = (self._governor.rungs[r].name for r in (step.before, step.after))
            self._tell(f"{before} -> {after}: {step.reason}")

    def _exchange(self) -> None:
        """Switch to a ladder that has been opened, and close the earlier one."""
        ladder = self._opening.take()
        if ladder is None:
            return
        earlier, self._running = self._running, Running(ladder, self._tried, self._patience)
        if earlier is not None:
            earlier.close()
        names = [rung.name for rung in ladder.rungs]
        before = self._governor.rungs[self._governor.rung].name
        wanted = self._pinned or before
        if self._pinned is not None and self._pinned not in names:
            self._tell(f"{_names(ladder.models)}: no rung {self._pinned!r}, {names[0]!r} it is")
        with self._lock:
            self._governor = self._govern(ladder, wanted if wanted in names else None)
        if ladder.models != self._models or self._backoff.failures:
            self._tell(f"{_names(ladder.models)} at work")
        self._models, self._cards, self._wanted = ladder.models, ladder.cards, None
        self._began, self._reviving, self._following = time.monotonic(), None, None
        width, height = ladder.size
        shape = self._fit.shape
        if (width, height) != (shape.width, shape.height):
            self._tell(f"results of {width}x{height} are brought to {shape.width}x{shape.height}")

    def _govern(self, ladder: Ladder, rung: str | None) -> Governor:
        names = [one.name for one in ladder.rungs]
        start = names.index(rung) if rung in names else self._fitting(ladder)
        return Governor(ladder.rungs, period=self._period, deadline=self._deadline, rung=start)

    def _fitting(self, ladder: Ladder) -> int:
        """Returns the first rung: where no frame may wait for long, one that fits as measured."""
        if self._deadline is None or not (self._governed and self._patience.once):
            return 0
        room = FITS * self._deadline
        last = len(ladder.rungs) - 1
        return next((i for i, rung in enumerate(ladder.rungs) if rung.cost <= room), last)

    def _follow(self, frame: Frame) -> None:
        """Open the models for frames of another size or depth, unless that is under way."""
        key = key_of(frame)
        if key == self._following:
            return
        self._following, self._seen = key, frame
        self._tell(f"frames are {frame.width}x{frame.height} in {frame.format.bits} bits now")
        self._reopen(0.0)

    def _drop(self, reason: str, *, delay: float) -> None:
        """Close the models and let frames pass until they are open again."""
        running, self._running = self._running, None
        if running is not None:
            running.close()
        self._reviving = None
        self._tell(f"{_names(self._models)}: {reason}; frames pass, again in {delay:g} s")
        self._reopen(delay)

    def _back_off(self) -> float:
        if time.monotonic() - self._began > HEALTHY:
            self._backoff.reset()
        return self._backoff.pause()

    def _reopen(self, delay: float) -> None:
        if self._closed:
            return
        if self._wanted is not None:
            # A swap under way must not be lost; when it fails, these models are opened after all.
            self.swap(self._wanted)
            return
        models, frame = self._models, self._seen

        def failed(error: Exception, again: float | None) -> None:
            self._tell(f"{_names(models)} cannot be opened: {_reason(error)}; again in {again:g} s")

        self._opening.begin(
            lambda: self._open(models, frame, self._fit.shape), failed, delay=delay, retry=True
        )


def open_processor(
    models: Sequence[str],
    *,
    info: VideoInfo,
    backend: str = "auto",
    precision: Precision = "auto",
    period: float | None = None,
    deadline: float | None = None,
    governed: bool = True,
    rung: str | None = None,
    fit: EngineFit = "tile",
    flags: CardFlags | None = None,
    cache: EngineCache | None = None,
) -> LadderProcessor:
    """Opens models for the frames of a source, and measures their rungs; takes a second or two.

    `period` is the seconds between two frames, that of `info` if None; `deadline` those from capture to
    output, the period if None. `governed` False stays at the best rung, `rung` at the one of that name.
    Raises what `open_engine` does, and EngineError for a rung that there is not.
    """
    opener: Opener = partial(
        open_engine,
        backend=backend,
        precision=precision,
        hint="latency",
        fit=fit,
        flags=flags,
        cache=cache,
    )
    return LadderProcessor(
        models,
        sample_of(info),
        lambda names, given, shape: open_ladder(names, given, opener, shape=shape),
        period=period or float(1 / info.rate),
        deadline=deadline,
        governed=governed,
        pinned=rung,
    )


def _names(models: Sequence[str]) -> str:
    return " and ".join(models) or "no model"


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, VelaturaError) else f"{type(error).__name__}: {error}"


def _nobody(text: str) -> None:
    del text
