"""A short sample of a job: some frames from several places of the film, through the whole chain."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain

from ..errors import SourceError
from ..frame import Frame, VideoInfo
from ..pump import Pump
from ..sinks import Sink
from ..sources import Source
from ..stages import Stage
from .chain import Job, open_input

STILLS = (1 / 6, 1 / 2, 5 / 6)
"""Places of the film, besides its beginning, as fractions of its length."""

APART = 1.5
"""Frames between two places at least."""

SEARCH = 3.0
"""Seconds that seeking a place may take; a place that takes longer is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """The results at one place of the film."""

    at: float
    """Seconds of the film at which it begins."""
    begin: Fraction
    """Seconds of the sample at which it begins."""
    frames: int
    per_frame: float
    """Seconds of work per frame."""
    before: Frame
    """The first frame, as it was read."""
    after: Frame
    """The first frame, as it goes to the encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The results of the whole sample."""

    excerpts: tuple[Excerpt, ...]
    first: float
    """Seconds until the first frame was done, which include all set-up."""
    closing: float
    """Seconds that the sink took to finish."""
    notes: tuple[str, ...]
    """Notes on the changes that stages made."""

    @property
    def frames(self) -> int:
        """The number of frames."""
        return sum(excerpt.frames for excerpt in self.excerpts)


def take_sample(
    job: Job, source: Source, stages: Sequence[Stage], sink: Sink, *, budget: float
) -> Sample:
    """Process as many frames as take `budget` seconds, beyond the first one, and close the sink.

    At least one frame of each place that is found in time is processed. Frames follow one another
    without gaps. Raises VelaturaError for whatever would stop the job.
    """
    half = 0.5 / float(source.info.rate)
    places = _places(source.info, job.frames)
    bounds = [place - half for place in places[1:]] + [None]
    excerpts: list[Excerpt] = []
    tape = _Tape(source.info, sink)
    begin = time.perf_counter()
    first, deadline = 0.0, begin
    for number, (place, until) in enumerate(zip(places, bounds, strict=True)):
        with open_input(job) as film:
            frames = _reach(film, place)
            excerpt = None
            if frames is not None:
                most = None if job.frames is None else job.frames - sink.frames
                left = (deadline - time.perf_counter()) / (len(places) - number)
                seconds = left if number else budget / len(places)
                excerpt = tape.add(_until(frames, until, most), stages, at=place, seconds=seconds)
        if not number:
            if excerpt is None:
                reason = "it holds none that can be decoded"
                raise SourceError(f"{source.uri} gave no frame: {reason}")
            first = tape.first - begin
            deadline = tape.first + budget
        if excerpt is not None:
            excerpts.append(excerpt)
        if job.frames is not None and sink.frames >= job.frames:
            break
    start = time.perf_counter()
    sink.stop_early()
    sink.close()
    return Sample(
        excerpts=tuple(excerpts),
        first=first,
        closing=time.perf_counter() - start,
        notes=tuple(note for stage in stages for note in getattr(stage, "notes", ())),
    )


def film_seconds(info: VideoInfo, frames: int | None) -> float | None:
    """Returns the seconds of the film, or of its first `frames`; None where they are unknown."""
    total = film_frames(info, frames)
    if total is None:
        return None
    stated = info.duration or float(total / info.rate)
    return min(stated, float(total / info.rate)) if frames is not None else stated


def film_frames(info: VideoInfo, frames: int | None) -> int | None:
    """Returns the number of frames that will come, at most `frames`; None where it is unknown."""
    total = info.frames or (round(info.duration * info.rate) if info.duration else None)
    return total if total is None or frames is None else min(total, frames)


def _places(info: VideoInfo, frames: int | None) -> list[float]:
    """Returns the seconds of the film at which the excerpts begin, some frames apart."""
    places = [0.0]
    for part in STILLS:
        place = part * (film_seconds(info, frames) or 0.0)
        if place - places[-1] > APART / float(info.rate):
            places.append(place)
    return places


def _reach(source: Source, place: float) -> Iterator[Frame] | None:
    """Returns the frames from `place` on; None where they are not reached in time."""
    if place:
        source.seek(place)
    start = time.perf_counter()
    frames = iter(source)
    for frame in frames:
        if frame.seconds >= place - 0.5 / float(source.info.rate):
            return chain((frame,), frames)
        if time.perf_counter() - start > SEARCH:
            return None
    return None


def _until(frames: Iterator[Frame], seconds: float | None, limit: int | None) -> Iterator[Frame]:
    """Yields the frames before a time, and no more than `limit`."""
    for number, frame in enumerate(frames):
        if (limit is not None and number >= limit) or (
            seconds is not None and frame.seconds >= seconds
        ):
            return
        yield frame


class _Tape:
    """Writes excerpts one after another into one sink."""

    def __init__(self, info: VideoInfo, sink: Sink) -> None:
        self.sink = _Watched(sink)
        self.first = 0.0
        """The time at which the first frame of all was done."""
        self._begin = Fraction(0)
        self._info = info
        self._step = 1 / info.rate
        self._end = Fraction(0)
        self._index = 0

    def add(
        self, found: Iterator[Frame], stages: Sequence[Stage], *, at: float, seconds: float
    ) -> Excerpt | None:
        """Processes frames of the film from `at` on for some seconds; returns None without any."""
        frames = self._retimed(found)
        before = next(frames, None)
        if before is None:
            return None
        begin, count = self._begin, self.sink.frames
        # The first two without the pump: the set-up at the first is not measured, and the time of one
        # frame alone tells how many may be on their way when time is up.
        started = time.perf_counter()
        after = self._pass(before, stages)
        start = time.perf_counter()
        self.first = self.first or start
        alone, measured = start - started, None
        second = next(frames, None) if seconds > 0 or not count else None
        if second is not None:
            self._pass(second, stages)
            alone = time.perf_counter() - start
            measured = self._run(frames, stages, deadline=start + seconds, alone=alone)
        return Excerpt(
            at=at,
            begin=begin,
            frames=self.sink.frames - count,
            per_frame=measured or alone,
            before=before,
            after=after,
        )

    def _retimed(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yields frames with times that follow the last excerpt's."""
        first: Frame | None = None
        for frame in frames:
            if first is None:
                first, self._begin = frame, self._end
            moved = (frame.pts - first.pts) * frame.time_base + self._begin
            pts = round(moved / frame.time_base)
            self._end = pts * frame.time_base + self._step
            yield replace(frame, pts=pts, index=self._index)
            self._index += 1

    def _pass(self, frame: Frame, stages: Sequence[Stage]) -> Frame:
        """Runs one frame through all steps in turn, and returns the frame that the sink gets."""
        for stage in stages:
            frame = stage(frame)
        self.sink.write(frame)
        return frame

    def _run(
        self, frames: Iterator[Frame], stages: Sequence[Stage], *, deadline: float, alone: float
    ) -> float | None:
        """Runs the rest through the pump, as in the whole run, so that all is written at the deadline.

        Seconds of a frame, where there were enough of them.
        """
        self.sink.times = []
        written = self.sink.frames
        given = 0

        def in_time() -> Iterator[Frame]:
            nonlocal given
            for frame in frames:
                waiting = written + given - self.sink.frames
                if time.perf_counter() + (waiting + 1) * alone > deadline:
                    return
                given += 1
                yield frame

        if Pump(_Given(self._info, in_time()), stages, self.sink).run().interrupted:
            raise KeyboardInterrupt
        times = self.sink.times
        return (times[-1] - times[0]) / (len(times) - 1) if len(times) > 2 else None


class _Given(Source):
    """A source of given frames."""

    def __init__(self, info: VideoInfo, frames: Iterator[Frame]) -> None:
        self.uri = info.path or ""
        self.info = info
        self._frames = frames

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def close(self) -> None:
        return None


class _Watched(Sink):
    """Records the time at which each frame was written. The inner sink is not closed."""

    def __init__(self, sink: Sink) -> None:
        self.uri = sink.uri
        self.times: list[float] = []
        self._sink = sink

    def write(self, frame: Frame) -> None:
        self._sink.write(frame)
        self.frames = self._sink.frames
        self.times.append(time.perf_counter())

    def close(self) -> None:
        return None

    def abort(self) -> None:
        return None
