"""A short sample of a job, some frames from several places of the film through the whole chain; and the
estimates for the whole that follow from it: seconds, bytes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from ..errors import SourceError
from ..frame import Frame, VideoInfo
from ..media.passthrough import Passage
from ..media.pyav import open_input as open_container
from ..pump import Pump
from ..sinks import Sink
from ..sources import Source
from ..stages import Stage
from .job import Job, open_input

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


MARGIN = 0.15
"""The relative error of an estimate at best."""

ENOUGH = 24
"""Frames of one place beyond which more of them add no information."""

KEY_EVERY = 250
"""Frames between two key frames at most, as in encoders and the journal's segments."""

SETTLING = 10
"""Frames after a cut that still cost an encoder more than usual."""

COUNTING = 1.0
"""Seconds for counting the streams beside the picture."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimated figure and its range."""

    likely: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Packet:
    """A coded frame."""

    seconds: float
    size: int
    key: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """The contents of the sample's file, or its pictures."""

    packets: tuple[Packet, ...]
    """The coded frames in order of time, from 0."""
    beside: int
    """Bytes of the container itself."""


def forecast_seconds(sample: Sample, frames: int, *, weights: Sequence[float]) -> Estimate:
    """Returns the seconds that `frames` frames take once engines are open, each place counted by its
    weight.

    Encoders look ahead: the first frames of all are only taken in, and as many are left for the end.
    """
    each = [excerpt.per_frame for excerpt in sample.excerpts]
    each[0] += sample.closing / sample.excerpts[0].frames
    mean = sum(weight * seconds for weight, seconds in zip(weights, each, strict=True))
    return _spread(sample.excerpts, each, mean, times=max(frames - 1, 0), plus=sample.first)


def forecast_bytes(sample: Sample, coded: Coded, frames: int, *, weights: Sequence[float]) -> Estimate:
    """Returns the bytes of `frames` frames, with the overhead of their container.

    Every place begins with a cut that is not in the film, and costs the encoder more: key frames and
    others are therefore averaged separately, weighted by their share within the places, and where there
    are enough frames the first ones are left out.
    """
    groups = [_settled(group) for group in _by_excerpt(sample.excerpts, coded.packets)]
    total = sum(packet.size for packet in coded.packets) + coded.beside
    if sample.frames >= frames:
        return Estimate(total, total, total)
    inner = [p for g in _by_excerpt(sample.excerpts, coded.packets) for p in g[1:]]
    keys = sum(packet.key for packet in inner)
    share = keys / len(inner) if inner else 1.0
    share = max(share, 1 / KEY_EVERY)
    means = (_mean(coded.packets, key=True), _mean(coded.packets, key=False))
    each: list[float] = []
    for group in groups:
        key, other = (_mean(group, key=k) or means[1 - k] or means[k] or 0.0 for k in (True, False))
        each.append(share * key + (1 - share) * other)
    beside = coded.beside * frames / max(sample.frames, 1)
    mean = sum(weight * size for weight, size in zip(weights, each, strict=True))
    return _spread(sample.excerpts, each, mean, times=frames, plus=beside)


def weights_of(excerpts: Sequence[Excerpt], length: float | None) -> list[float]:
    """Returns the part of the film that each place stands for: all that is nearer to it than to any
    other.

    A place of which few frames were seen counts for less.
    """
    places = [excerpt.at for excerpt in excerpts]
    borders = [0.0, *((a + b) / 2 for a, b in pairwise(places)), max(length or 1.0, places[-1] + 1e-3)]
    parts = [
        (end - begin) * min(excerpt.frames, ENOUGH)
        for excerpt, (begin, end) in zip(excerpts, pairwise(borders), strict=True)
    ]
    return [part / sum(parts) for part in parts]


def read_coded(path: Path) -> Coded:
    """Returns the video packets of a finished file. Raises FFmpegError and OSError, which SinkError
    wraps."""
    packets: list[Packet] = []
    others = 0
    with av.open(str(path)) as container:
        main = container.streams.video[0]
        for packet in container.demux():
            if packet.stream is not main:
                others += packet.size
            elif packet.size:
                seconds = float((packet.pts or packet.dts or 0) * packet.time_base)
                packets.append(Packet(seconds, packet.size, packet.is_keyframe))
    packets.sort(key=lambda packet: packet.seconds)
    start = packets[0].seconds if packets else 0.0
    moved = tuple(Packet(packet.seconds - start, packet.size, packet.key) for packet in packets)
    size = path.stat().st_size - others - sum(packet.size for packet in packets)
    return Coded(packets=moved, beside=max(size, 0))


def passing_bytes(source: str, plan: Sequence[Passage], seconds: float | None) -> float | None:
    """Returns the bytes of all streams that are copied or converted, in `seconds` of the film; None
    where that is unknown.

    Counted from the beginning for some time; what lies beyond is taken to be as dense.
    """
    wanted = {passage.index for passage in plan if passage.way in ("copy", "convert")}
    attached = {passage.index for passage in plan if passage.way == "attach"}
    if not wanted and not attached:
        return 0.0
    start = time.perf_counter()
    found, reached, ended = 0.0, 0.0, True
    with open_container(source) as container:
        begin = (container.start_time or 0) / av.time_base
        fixed = sum(_attached_bytes(container.streams[index]) for index in attached)
        try:
            for packet in container.demux():
                if packet.dts is not None:
                    reached = max(reached, float(packet.dts * packet.time_base) - begin)
                if packet.stream.index in wanted:
                    found += packet.size
                beyond = seconds is not None and reached > seconds
                if beyond or time.perf_counter() - start > COUNTING:
                    ended = beyond
                    break
        except FFmpegError:
            ended = True  # a damaged end; the video's reader reports it
    if ended:
        return found + fixed
    return None if seconds is None or not reached else found * seconds / reached + fixed


def _attached_bytes(stream: Any) -> int:
    return len(stream.data) if stream.type == "attachment" else 0


def _spread(
    excerpts: Sequence[Excerpt], each: Sequence[float], mean: float, *, times: float, plus: float
) -> Estimate:
    """Returns the estimate `times` the mean and `plus`; its range is that of the places with enough
    frames."""
    enough = [value for value, e in zip(each, excerpts, strict=True) if 2 * e.frames >= ENOUGH]
    low, high = min(mean, *(enough or each)), max(mean, *(enough or each))
    likely = plus + times * mean
    return Estimate(
        likely,
        min(plus + times * low, likely * (1 - MARGIN)),
        max(plus + times * high, likely * (1 + MARGIN)),
    )


def _by_excerpt(excerpts: Sequence[Excerpt], packets: Sequence[Packet]) -> Iterator[list[Packet]]:
    """Yields the packets of each excerpt."""
    begins = [float(excerpt.begin) - 2e-3 for excerpt in excerpts] + [float("inf")]
    for begin, end in pairwise(begins):
        yield [packet for packet in packets if begin <= packet.seconds < end]


def _settled(group: list[Packet]) -> list[Packet]:
    """Returns an excerpt without its first frames, which cost more; a key frame there is kept."""
    cut = min(SETTLING, len(group) // 3)
    return [*(packet for packet in group[:cut] if packet.key), *group[cut:]]


def _mean(packets: Sequence[Packet], *, key: bool) -> float | None:
    sizes = [packet.size for packet in packets if packet.key == key]
    return sum(sizes) / len(sizes) if sizes else None
