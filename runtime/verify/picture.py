"""What a file shows, compared with what its source shows: small pictures of frames of one time.

A model may paint over a picture, and an upscaler sharpen it. Its structure, the order of its frames
and, where the picture is else the same, levels and colours must be the source's.

All bounds are from a measurement: 29 clips (films, test patterns, a game, drawings), three successive
frames at three places of each, at most 320 pixels wide, through ten models in FP32.
Structure is the correlation of the luma's details (`_details`), of a file the median:

    upscalers                       0.999 to 1.000
    the identity, H.264 at CRF 40   0.97 to 1.00 (12 clips)
    styles                          0.335 (the paper's net, a game), 0.56 (composition-vii) to 0.97
    another film                    at most 0.24 through upscalers, 0.16 through styles

Motion is the correlation of the differences between two frames, where the source's is at least 1 of
255: 0.96 to 1.00 through upscalers, -0.10 to 0.97 through styles, of a clip the median at least 0.20;
about its negative where two frames are exchanged. The output's differences are 0.25 (udnie) to 38 times
as large as the source's. Upscalers keep the contrast to 1.6 % and the mean to 1.1 of 255, H.264 at CRF
40 to 2 % and 0.5; a wrong range makes 14 or 16 % and up to 16. Mirrored or turned, details are less
like the source's than as they are by at least 0.016. Of the change that another matrix
makes, a wrong matrix has 1.0, at a correlation of 0.7; H.264 at CRF 40 at most 0.6, at 0.13.

None of the 27 clips that are not plain is called wrong through any of the models; mirrored, as a
negative, as noise, with a picture that stands or with another film in its place, all of them are; with
two frames exchanged all but 5 of 270. A wrong range is seen where the picture is else the same, not
below a style, which has levels of its own.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Literal, Self, cast

import cv2
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..colour import LUMA_WEIGHTS, MATRICES, guess_matrix, rgb_from_yuv_matrix, yuv_from_rgb_matrix
from ..frame import HLG, PQ, Colour, Matrix
from ..media.pixel_format import is_mirrored, reading_of
from ..media.probe import has_opacity, is_untimed
from ..media.pyav import open_input
from ..media.tracks import Values
from .inspect import Found

Array = npt.NDArray[np.float32]
Likeness = Literal["same", "painted", "unknown"]
"""How an output resembles its source: as by the identity and upscalers; painted over by a style; or
either, which then is told by the pictures."""

FULL_RANGE = 2
SIDE = 32
"""Side of the pictures that are compared."""
SMALLEST = 80
"""Pixels of the shorter side below which a picture tells nothing: the measured clips have more, and of
noise in 64x48 an encoder and an upscaler leave what is as like its mirror image as itself."""
BLUR = 3.0
"""Standard deviation, in their pixels, of what is taken off: sky above and ground below are alike in
most films, and a style may well change them."""
DETAIL = 1.5
"""Standard deviation, of 255, of details below which a picture tells nothing."""
SAME = 0.985
"""Structure from which on an output is its source, but for its size."""
ALIKE = 0.2
"""Structure that an output must have whatever it moves like."""
DOUBTFUL = 0.45
"""Structure below which its motion must be the source's, too."""
MOVES = 0.15
"""Median of motion below which it is not the source's."""
SPOILT = 0.6
"""Structure that an output of the identity or an upscaler must have, and each of its frames where it is
else the same. Noise that is deinterlaced keeps 0.85."""
BETTER = 0.05
"""By how much structure must grow by mirroring or turning before it is called that."""
SYMMETRICAL = 0.01
"""The same, where the turned picture is the source's without a doubt."""
MOVED = 1.0
"""Root of the mean square, of 255, of the difference between frames that tells their order."""
EXCHANGED = -0.25
"""Motion below which two frames are exchanged."""
FROZEN = 0.1
"""Share of the source's difference below which the picture stands."""
GAIN = 0.09
"""Relative difference of contrast, for what is the same; a wrong range makes 0.14 or 0.16, an encoder
takes 0.06 of noise."""
LEVEL = 5.0
"""Difference of the mean, of 255, for what is the same; a wrong range makes up to 16."""
TINT = 0.7
"""Root of the mean square, of 255, by which another matrix must change a picture to be seen."""
LIKE_MATRIX = 0.5
"""Correlation of the difference in colour with what another matrix makes."""
POINTS = 6
"""Places of a film that are compared where not all of it is."""
RUN = 3
"""Successive frames that are compared at each place."""
COLOURED = 64
"""Frames whose colours are kept."""
SHORT = 250
"""Frames up to which a file is compared whole: one group of pictures."""
HDR = frozenset({PQ, HLG})
"""Transfer functions: what is shown of them in another one is another matter."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One compared property of what is shown."""

    kind: Literal["picture", "levels", "colours", "order"]
    found: str
    holds: bool
    meaning: str


@dataclass(slots=True)
class View:
    """One decoded frame, which is reduced when it is asked for."""

    seconds: float
    frame: VideoFrame

    def rgb(self, *, upright: bool = True) -> Array:
        """Returns (SIDE, SIDE, 3) of R, G, B, 0 to 255, as a player shows it, or as it is coded."""
        frame = self.frame
        small = _rgb(frame)
        if not upright:
            return small
        if is_mirrored(frame):
            small = small[::-1]
        return np.ascontiguousarray(np.rot90(small, frame.rotation % 360 // 90))


def _rgb(frame: VideoFrame) -> Array:
    """Returns the coded picture in R, G, B by its own tags, as (SIDE, SIDE, 3)."""
    format = frame.format
    size: dict[str, Any] = {"width": SIDE, "height": SIDE, "interpolation": "AREA"}
    if format.is_rgb or format.has_palette:
        return frame.reformat(format="rgb24", **size).to_ndarray().astype(np.float32)
    full = frame.color_range == FULL_RANGE or format.name.startswith("yuvj")
    if len(format.components) < 3:
        # FFmpeg takes all grey for full range.
        grey = frame.reformat(format="gray", **size).to_ndarray().astype(np.float32)
        levels = grey if full else (grey - 16) * (255 / 219)
        return np.repeat(levels.clip(0, 255)[..., None], 3, axis=2)
    small = frame.reformat(format="yuvj444p" if full else "yuv444p", **size).to_ndarray()
    matrix = MATRICES.get(int(frame.colorspace), guess_matrix(frame.height))
    to_rgb = rgb_from_yuv_matrix(Colour(matrix=matrix, range="full" if full else "limited"), 8)
    rgb = np.tensordot(to_rgb[:, :3], small.astype(np.float64), 1) + to_rgb[:, 3, None, None]
    return rgb.transpose(1, 2, 0).clip(0, 255).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """A video whose pictures are compared."""

    path: str
    stream: int
    """Index of the video."""
    times: Values | None
    """Seconds of its frames, in order; None for unknown."""
    opacity: bool

    @classmethod
    def of(cls, found: Found) -> Self:
        """Returns the video of a file that was inspected."""
        decoded = found.pictures is not None and len(found.pictures)
        return cls(
            path=found.path,
            stream=found.stream,
            times=found.pictures if decoded else found.times,
            opacity=bool(found.pixels) and reading_of(found.pixels).alpha,
        )


def compare_pictures(
    source: Film,
    output: Film,
    *,
    clock: float,
    tolerance: float,
    likeness: Likeness = "unknown",
    deep: bool = False,
    budget: int | None = None,
    upright: bool = True,
) -> tuple[Verdict, ...]:
    """Compares what two files show at the same times; those of the output are `clock` seconds later.

    With `deep`, or in a short file, all frames that both show within `tolerance` seconds; else some at
    `POINTS` places; after `budget` frames, of both files together, nothing more is decoded. Returns
    nothing where that does not tell: plain or very small pictures, or opacity that one file has alone.
    With `upright` as players show them, else as they are coded, for a file that cannot say how it lies.
    """
    times = output.times
    if source.opacity != output.opacity or times is None:
        return ()
    told, reached = Likenesses(), float("-inf")
    few = budget is not None
    with Reader(source, few=few) as ones, Reader(output, few=few) as others:
        if ones.opaque != others.opaque or min(ones.side, others.side) < SMALLEST:
            return ()
        # As the files say it themselves: a run that tone-maps knows its source as SDR.
        if ones.transfer != others.transfer and not HDR.isdisjoint((ones.transfer, others.transfer)):
            likeness = "painted"

        def spent() -> bool:
            return budget is not None and ones.decoded + others.decoded >= budget

        def compare(begin: float | None, count: int, every: int = 1) -> None:
            nonlocal reached
            sources = ones.views(None if begin is None else begin - clock - tolerance)
            if begin is not None and (first := next(sources, None)) is not None:
                # The source's key frame saves the way from there, unless that was compared already.
                key = first.seconds + clock
                begin = key if key > reached else begin
                sources = chain((first,), sources)
            pairs = _pairs(sources, others.views(begin), clock, tolerance, begin, spent)
            run: deque[tuple[float, Array, Array]] = deque(maxlen=RUN)
            for one, other in islice(pairs, count):
                views = (one.rgb(upright=upright), other.rgb(upright=upright))
                run.append((one.seconds, *views))
                told.add(run, every=every)
                reached = other.seconds
                if spent():
                    return

        if budget is None and (deep or len(times) <= SHORT):
            compare(None, len(times), max(len(times) // COLOURED, 1))
        else:
            compare(None, RUN)
            if not (ones.timed and others.timed):
                return tuple(told.verdicts(likeness))
            for index in np.linspace(0, max(len(times) - RUN, 0), POINTS)[1:]:
                if spent():
                    break
                compare(float(times[int(index)]), RUN)
    return tuple(told.verdicts(likeness))


def _pairs(
    ones: Iterator["View"],
    others: Iterator["View"],
    clock: float,
    tolerance: float,
    begin: float | None,
    spent: Callable[[], bool],
) -> Iterator[tuple["View", "View"]]:
    """Yields the frames that are shown at the same time, from `begin` of the output on."""
    one, other = next(ones, None), next(others, None)
    while one is not None and other is not None and not spent():
        gap = other.seconds - clock - one.seconds
        if gap > tolerance:
            one = next(ones, None)
        elif gap < -tolerance or (begin is not None and other.seconds < begin - tolerance):
            other = next(others, None)
        else:
            yield one, other
            one, other = next(ones, None), next(others, None)


class Reader:
    """Decodes the frames of a file from any time on, and counts them."""

    def __init__(self, film: Film, *, few: bool) -> None:
        self.decoded = 0
        # A whole path: FFmpeg takes what stands before a colon for a protocol.
        self._container = open_input(os.path.abspath(film.path))  # noqa: PTH100
        self._stream = cast(VideoStream, self._container.streams[film.stream])
        # Threads of frames decode ahead what is then not asked for.
        self._stream.thread_type = "SLICE" if few else "AUTO"
        # VP8's and VP9's is beside the stream that FFmpeg's own decoders read.
        self.opaque = not has_opacity(self._stream)
        # Of bare streams FFmpeg guesses times, from where it began to read.
        self.timed = not is_untimed(self._container)
        self.transfer = int(self._stream.codec_context.color_trc)
        self.side = min(self._stream.codec_context.width, self._stream.codec_context.height)
        self._times = film.times if film.times is not None else ()
        self._size: tuple[int, int] | None = None

    def views(self, begin: float | None = None) -> Iterator[View]:
        """Yields the frames in order, from the last key frame before `begin`, or from the first."""
        stream = self._stream
        base = stream.time_base
        assert base is not None
        if begin is not None:
            self._container.seek(round(begin / base), stream=stream)
        number = 0
        for packet in self._packets():
            try:
                frames = stream.decode(packet)
            except FFmpegError:
                continue  # what cannot be decoded is told of by the checks of packets
            for frame in frames:
                self.decoded += 1
                self._size = self._size or (frame.width, frame.height)
                if frame.is_corrupt or (frame.width, frame.height) != self._size:
                    continue  # what is done to other sizes is no scale
                if self.timed and frame.pts is not None:
                    yield View(float(frame.pts * base), frame)
                elif begin is None and number < len(self._times):
                    # Bare streams hold no times.
                    yield View(float(self._times[number]), frame)
                number += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:
                packet = None
            if packet is None:
                return
            yield packet


Turn = Callable[[Array], Array]
TURNS: dict[str, Turn] = {
    "mirrored": lambda x: x[:, ::-1],
    "upside down and mirrored": lambda x: x[::-1],
    "upside down": lambda x: x[::-1, ::-1],
    "turned and mirrored": lambda x: x.T,
    "turned to the left": lambda x: x.T[::-1],
    "turned to the right": lambda x: x.T[:, ::-1],
    "turned and mirrored, the other way": lambda x: x[::-1, ::-1].T,
}


@dataclass(slots=True)
class Likenesses:
    """What pairs of frames tell, without the frames."""

    own: list[float] = field(default_factory=list[float])
    times: list[float] = field(default_factory=list[float])
    turned: list[list[float]] = field(default_factory=list[list[float]])
    gains: list[float] = field(default_factory=list[float])
    levels: list[float] = field(default_factory=list[float])
    motion: list[tuple[float, float, float]] = field(default_factory=list[tuple[float, float, float]])
    """(time, correlation of the differences, output's difference over the source's)"""
    closer: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """(time, distance to its own frame over that to a neighbour)"""
    colours: list[tuple[Array, Array]] = field(default_factory=list[tuple[Array, Array]])
    pairs: int = 0

    def add(self, run: Sequence[tuple[float, Array, Array]], *, every: int = 1) -> None:
        """Take in the newest of up to three successive (time, source, output)."""
        seconds, wanted, given = run[-1]
        self.pairs += 1
        if self.pairs % every == 0 and len(self.colours) < COLOURED:
            self.colours.append((wanted, given))
        before, after = _luma(wanted), _luma(given)
        details, shown = _details(before), _details(after)
        if details.std() >= DETAIL:
            self.own.append(_correlation(shown, details))
            self.times.append(seconds)
            self.turned.append([_correlation(shown, turn(details)) for turn in TURNS.values()])
            self.gains.append(float(after.std() / before.std()))
            self.levels.append(float(after.mean() - before.mean()))
        if len(run) > 1:
            was, showed = _luma(run[-2][1]), _luma(run[-2][2])
            change, shown_change = before - was, after - showed
            size = _rms(change)
            if size >= MOVED:
                ratio = _rms(shown_change) / size
                self.motion.append((seconds, _correlation(shown_change, change), ratio))
        if len(run) > 2:
            lumas = [_luma(source) for _, source, _ in run]
            middle = _luma(run[1][2])
            own, others = _rms(middle - lumas[1]), [_rms(middle - lumas[n]) for n in (0, 2)]
            if min(_rms(lumas[1] - lumas[n]) for n in (0, 2)) >= MOVED:
                self.closer.append((run[1][0], own / max(min(others), 1e-3)))

    def verdicts(self, likeness: Likeness) -> Iterator[Verdict]:
        """Yields what is found, in the order in which it matters."""
        if not self.own:
            return
        own = float(np.median(self.own))
        same = likeness == "same" or (likeness == "unknown" and own >= SAME)
        yield self._picture(own, same=same)
        if same and own >= SAME:
            yield self._levels()
            yield self._colours()
        yield self._order(same=same and own >= SAME)

    def _picture(self, own: float, *, same: bool) -> Verdict:
        found = f"{own:.2f} alike"
        turned = np.median(np.array(self.turned), axis=0)
        best = int(turned.argmax())
        better = turned[best] - own
        if own < SAME and better > (SYMMETRICAL if turned[best] >= SAME else BETTER):
            word = list(TURNS)[best]
            return Verdict("picture", word, False, f"the picture is shown {word}")
        if own < -ALIKE:
            return Verdict("picture", "a negative", False, "dark is light, and light is dark")
        moves = [value for _, value, _ in self.motion]
        strange = len(moves) > 2 and float(np.median(moves)) < MOVES and own < DOUBTFUL
        if own < (SPOILT if same else ALIKE) or strange:
            return Verdict("picture", found, False, "another picture, or none, is shown")
        spoilt = [t for t, value in zip(self.times, self.own, strict=True) if value < SPOILT]
        if own >= SAME and same and spoilt:
            first = f"{len(spoilt)} frames are not, the first at {spoilt[0]:.3f} s"
            return Verdict("picture", f"{found}; {first}", False, "some frames show something else")
        return Verdict("picture", found, True, "")

    def _levels(self) -> Verdict:
        gain, level = float(np.median(self.gains)), float(np.median(self.levels))
        good = abs(gain - 1) <= GAIN and abs(level) <= LEVEL
        meaning = "dark and light parts are crushed, or the picture is greyish"
        return Verdict("levels", f"contrast {gain:.2f}x, {level:+.1f} of 255", good, meaning)

    def _colours(self) -> Verdict:
        """Returns whether the colours are those of another matrix rather than the source's."""
        wanted = np.stack([one for one, _ in self.colours]).astype(np.float64)
        given = np.stack([other for _, other in self.colours]).astype(np.float64)
        difference = given - wanted
        off = float(np.abs(difference).mean())
        names: list[Matrix] = list(LUMA_WEIGHTS)
        for coded in names:
            for shown in names:
                if coded == shown:
                    continue
                to_yuv = yuv_from_rgb_matrix(Colour(matrix=coded, range="full"), 8)
                to_rgb = rgb_from_yuv_matrix(Colour(matrix=shown, range="full"), 8)
                wrong = (wanted @ to_yuv[:, :3].T + to_yuv[:, 3]) @ to_rgb[:, :3].T + to_rgb[:, 3]
                # How much of that change is in the difference: noise of the encoder has no part in it.
                change = wrong.clip(0, 255) - wanted
                size, both = float((change**2).mean()), float((change * difference).mean())
                share = both / max(size, 1e-9)
                alike = both / max((size * float((difference**2).mean())) ** 0.5, 1e-9)
                if size > TINT**2 and 0.6 < share < 1.5 and alike > LIKE_MATRIX:
                    found = f"{coded} shown as {shown}, {off:.1f} of 255"
                    return Verdict("colours", found, False, "colours shift, most in reds and greens")
        return Verdict("colours", f"{off:.1f} of 255", True, "")

    def _order(self, *, same: bool) -> Verdict:
        back = [t for t, value, _ in self.motion if value < EXCHANGED]
        stands = [t for t, _, ratio in self.motion if ratio < FROZEN]
        other = [t for t, ratio in self.closer if ratio > 2.0] if same else []
        for times, word, meaning in (
            (stands if len(stands) > 1 else [], "stands", "the picture stands where the source moves"),
            (back, "goes back", "frames are exchanged"),
            (other, "shows a neighbour", "frames are shown at the times of others"),
        ):
            if times:
                found = f"{word} at {len(times)} frames, the first at {times[0]:.3f} s"
                return Verdict("order", found, False, meaning)
        return Verdict("order", f"moves alike in {len(self.motion)} pairs", True, "")


def _luma(rgb: Array) -> Array:
    red, blue = LUMA_WEIGHTS["bt709"]
    weights = np.array([red, 1 - red - blue, blue], np.float32)
    return rgb @ weights


def _details(luma: Array) -> Array:
    """Returns a picture without its coarse light and dark."""
    coarse = cv2.GaussianBlur(np.ascontiguousarray(luma), (0, 0), BLUR)
    return luma - np.asarray(coarse, np.float32)


def _correlation(one: Array, other: Array) -> float:
    """Returns the correlation coefficient of two pictures; 0 where one is flat."""
    a, b = one - one.mean(), other - other.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0


def _rms(picture: Array) -> float:
    return float(np.sqrt((picture * picture).mean()))
