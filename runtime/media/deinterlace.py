"""Deinterlacing by FFmpeg's `bwdif`: two fields of different times become whole pictures."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

from av.error import FFmpegError
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from ..errors import SourceError
from .options import Deinterlace
from .pixel_format import reading_of, reformat

PROGRESSIVE = 1
"""FFmpeg's AVFieldOrder of streams whose frames are whole pictures."""
_ORDERS = {
    2: "top field first",
    3: "bottom field first",
    4: "bottom field first",
    5: "top field first",
}
"""The field that is shown first, in words, by AVFieldOrder."""

_FLAGGING = frozenset({
    "av1", "dnxhd", "dvvideo", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "prores", "vc1",
    "vvc",
})  # fmt: skip
"""Codecs whose frames say whether they are interlaced; of others only the container does."""

_SMALLEST = (3, 4)
"""Columns and rows that `bwdif` needs of a plane."""
_INSTEAD = {
    **{f"gray{bits}le": "gray16le" for bits in (9, 10, 12, 14)},
    **{f"yuv440p{bits}le": f"yuv444p{bits}le" for bits in (10, 12)},
    **{f"gbrap{bits}le": "gbrap16le" for bits in (12, 14)},
    **{"ya8": "gbrap", "ya16le": "gbrap16le"},
    **{"rgb24": "gbrp", "rgba": "gbrap", "rgb48le": "gbrp16le", "rgba64le": "gbrap16le"},
}
"""Formats for those that `bwdif` does not take: the conversion there and back is exact but for the
chroma of 4:4:0 and the last bits of deep RGB with opacity."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded frame with its time, in ticks that the caller defines."""

    image: VideoFrame
    pts: int
    duration: int
    """At least 1."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision about a stream's fields."""

    how: Deinterlace
    """The mode; `no` passes all frames through."""
    every: bool = False
    """True if frames that do not state that they are interlaced are deinterlaced, too."""
    parity: Literal["auto", "tff", "bff"] = "auto"
    """The field that is shown first; `auto` follows each frame's flag, or takes the top one."""
    interlaced: bool = False
    """True if frames hold two fields of different times after this stage."""
    note: str = ""


def plan(asked: Deinterlace, order: int, codec: str, first: Sequence[VideoFrame]) -> Plan:
    """Returns what to do about a stream of this AVFieldOrder and codec, given its first frames.

    A mode that was asked for also applies to streams that look progressive, for later frames that need
    it.
    """
    flagged = any(image.interlaced_frame for image in first)
    stated = _ORDERS.get(order, "")
    # Where frames can say it themselves, those that do not are whole pictures.
    silent = bool(stated) and not flagged and codec not in _FLAGGING
    found = flagged or silent
    words = f"interlaced, {stated}" if stated else "interlaced"
    if first and not all(map(large_enough, first)):
        return Plan("no", interlaced=found)
    if asked == "no":
        return Plan("no", interlaced=found, note=f"{words}: left as it is" if found else "")
    if asked == "force":
        return Plan("force", every=True, note="every frame is deinterlaced by bwdif")
    if not found:
        return Plan("auto")
    parity = ("bff" if "bottom" in stated else "tff") if silent else "auto"
    does = "each field becomes a frame, by bwdif" if asked == "fields" else "deinterlaced by bwdif"
    return Plan(asked, every=silent, parity=parity, note=f"{words}: {does}")


def deinterlaced(pictures: Iterator[Picture], plan: Plan, base: Fraction) -> Iterator[Picture]:
    """Yields the pictures deinterlaced, each at its time; `base` is the length of their tick in
    seconds.

    Those that are not interlaced come as they are, and before the first that is the filter does not run
    at all: a progressive film costs nothing. With `fields` two come for each, in ticks half as long.
    Raises SourceError.
    """
    graph: _Graph | None = None
    for picture in pictures:
        image = picture.image
        wanted = plan.every or plan.how == "fields" or image.interlaced_frame
        if graph is not None and not graph.fits(image):
            yield from graph.finish()
            graph = None
        if graph is None and wanted and large_enough(image):
            graph = _Graph(image, plan, base)
        if graph is not None:
            yield from graph.push(picture)
        elif plan.how == "fields":
            yield from _twice(picture)
        else:
            yield picture
    if graph is not None:
        yield from graph.finish()


def large_enough(image: VideoFrame) -> bool:
    """Returns whether a picture is large enough for `bwdif`, which needs 3 columns and 4 rows a
    plane."""
    format = image.format
    width, height = format.chroma_width(image.width), format.chroma_height(image.height)
    return min(width, image.width) >= _SMALLEST[0] and min(height, image.height) >= _SMALLEST[1]


def _twice(picture: Picture) -> Iterator[Picture]:
    yield Picture(picture.image, 2 * picture.pts, picture.duration)
    yield Picture(picture.image, 2 * picture.pts + picture.duration, picture.duration)


class _Graph:
    """One run of the filter over pictures of one size and format; the filter delays by one picture."""

    def __init__(self, image: VideoFrame, plan: Plan, base: Fraction) -> None:
        self._kind = (image.width, image.height, image.format.name)
        self._fields = plan.how == "fields"
        self._name = reading_of(image.format.name).name
        self._filtered = _INSTEAD.get(self._name, self._name)
        self._waiting: deque[Picture] = deque()
        self._first: Picture | None = None
        mode = "send_field" if self._fields else "send_frame"
        which = "all" if plan.every else "interlaced"
        try:
            self._graph = Graph()
            nodes = [
                self._graph.add_buffer(
                    width=image.width,
                    height=image.height,
                    format=VideoFormat(self._filtered, image.width, image.height),
                    time_base=base,
                ),
                self._graph.add("bwdif", f"mode={mode}:deint={which}:parity={plan.parity}"),
                self._graph.add("buffersink"),
            ]
            self._graph.link_nodes(*nodes).configure()
        except FFmpegError as error:
            raise SourceError(
                f"frames of {image.width}x{image.height} cannot be deinterlaced: {error.strerror}; "
                "--deinterlace no leaves them as they are"
            ) from error
        self._base = base

    def fits(self, image: VideoFrame) -> bool:
        """Returns whether this run takes pictures of that size and format."""
        return self._kind == (image.width, image.height, image.format.name)

    def push(self, picture: Picture) -> Iterator[Picture]:
        """Yields the pictures that are ready once this one is there."""
        given = reformat(picture.image, self._filtered)
        given.pts, given.time_base = picture.pts, self._base
        self._waiting.append(picture)
        self._graph.vpush(given)
        yield from self._pull()

    def finish(self) -> Iterator[Picture]:
        """Yields the last pictures."""
        self._graph.vpush(None)
        yield from self._pull()
        yield from self._second(None)

    def _pull(self) -> Iterator[Picture]:
        while True:
            try:
                image = self._graph.vpull()
            except (BlockingIOError, EOFError):
                return
            ticks = cast("int", image.pts)  # of half a base
            image = reformat(image, self._name)
            if self._waiting and ticks == 2 * self._waiting[0].pts:
                yield from self._second(ticks)
                given = self._waiting.popleft()
                if not self._fields:
                    yield Picture(image, given.pts, given.duration)
                    continue
                self._first = Picture(image, ticks, given.duration)
                yield self._first
            elif self._first is not None:
                # A film of one frame gives the filter no second time to count from.
                half = self._first.pts + self._first.duration
                yield Picture(image, ticks if ticks > self._first.pts else half, self._first.duration)
                self._first = None

    def _second(self, following: int | None) -> Iterator[Picture]:
        """Yields the second half of a whole picture that stands among fields, so that the rate stays
        constant."""
        first = self._first
        if first is not None:
            after = first.pts + 2 * first.duration if following is None else following
            yield Picture(first.image, (first.pts + after) // 2, first.duration)
        self._first = None
