"""The expected contents of an output file: recorded by a sink, or read from a source file."""

from array import array
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Self

import av
import numpy as np

from ..colour import MATRICES, guess_matrix
from ..frame import Matrix, Range
from ..media.tracks import Span, Track, Values, earliest
from .inspect import Found

if TYPE_CHECKING:
    from av.packet import Packet

COPIED_SYNC = 0.010
"""Seconds by which copied sound may move against the picture: Matroska and FLV round both times to
1 ms, and so may the source have done."""
WATCHED_SYNC = 0.045
"""Seconds by which sound may move where another program wrote the file, which may count an encoder's
priming as sound: ITU-R BT.1359-1 puts what a viewer can notice at 45 ms early and 125 ms late."""
PADDING = 3
"""Pixels by which a side may differ: chroma of 4:1:1 needs a multiple of 4, and scales round."""
BLANK = 1.0
"""Standard deviation, of 255, below which a picture does not show which way up it is."""

FULL_RANGE = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Promise:
    """The expected contents of an output. None means that the property is not checked."""

    times: Values
    """Seconds at which each frame is shown, in order, on the clock of the tracks' times."""
    duration: float
    """Seconds from the first frame's beginning to the last frame's end."""
    width: int
    height: int
    scalable: bool = False
    """True if the size may be another of the same shape, and the rotation be applied to the pixels."""
    aspect: Fraction | None = Fraction(1)
    """Width of a pixel over its height."""
    rotation: int | None = 0
    """Degrees, counter-clockwise, by which a player must turn the picture: 0, 90, 180, 270."""
    matrix: Matrix | None = None
    range: Range | None = None
    primaries: int = 2
    """H.273 code point; 2 is unspecified."""
    transfer: int = 2
    """H.273 code point; 2 is unspecified."""
    tracks: tuple[Track, ...] = ()
    """The streams that must be there beside the video, in order."""
    beside: tuple[Track, ...] = ()
    """Subtitles and attachments of a source, which must be there in any codec that the file can
    hold."""
    chapters: int = 0
    """The number of chapters, where the file can hold them."""
    begins: tuple[float, ...] = ()
    """Seconds on the file's own clock at which the first frame or sound may be."""
    sync: float = COPIED_SYNC
    """Seconds by which sound may move against the picture."""
    mirrored: bool = False
    """True if the source's pixels are mirrored, so that the output's orientation must be looked at."""
    sketch: Values | None = None
    """The last frame as a small grey picture, mirrored where it must be: it tells a rotation applied to
    the pixels from a lost one."""
    states: frozenset[str] = frozenset()
    """Side data that must be stated, by the names of `media.side_data`."""
    notes: tuple[str, ...] = ()
    """Parts of the source that are not checked, one line each."""

    @property
    def begin(self) -> float:
        """The time of the first frame or the first sound, in seconds on the promise's clock."""
        return earliest(self.times, self.tracks)

    def fits(self, found: Found, *, turned: bool = False) -> bool:
        """Returns whether a file's size is the expected one, or, if `scalable`, one of the same shape.

        With `turned`, whether that holds after a quarter of a turn.
        """
        if not self.scalable:
            return (found.width, found.height) == (self.width, self.height)
        width, height, aspect = self.width, self.height, self.aspect or found.aspect
        if turned:
            width, height, aspect = height, width, 1 / aspect
        wider = float(found.aspect / aspect)
        # Either side may be the padded one; the scale is then read off the other.
        across = abs(found.width - width * found.height / height / wider)
        down = abs(found.height - height * found.width / width * wider)
        return min(across, down) <= PADDING

    def turned_in(self, found: Found) -> bool:
        """Returns whether a file's last frame has the rotation in its pixels; True where that cannot be
        seen.

        The size of a square does not tell, nor does that of half a turn.
        """
        if self.sketch is None or found.sketch is None:
            return True
        plain, given = self.sketch.ravel(), found.sketch.ravel()
        turned = np.rot90(self.sketch, (self.rotation or 0) // 90).ravel()
        if min(plain.std(), given.std()) < BLANK:
            return True
        return bool(np.corrcoef(turned, given)[0, 1] >= np.corrcoef(plain, given)[0, 1])

    def mirrored_in(self, found: Found, *, turned: bool) -> bool:
        """Returns whether a file shows its last frame mirrored; False where that cannot be seen.

        With `turned` it has the rotation in its pixels.
        """
        if self.sketch is None or found.sketch is None or not (self.mirrored or found.mirrored):
            return False
        quarters = (self.rotation or 0) // 90 if turned else 0
        right, wrong = (np.rot90(s, quarters).ravel() for s in (self.sketch, self.sketch[::-1]))
        given = found.sketch.ravel()
        if min(right.std(), given.std()) < BLANK:
            return False
        return bool(np.corrcoef(wrong, given)[0, 1] > np.corrcoef(right, given)[0, 1])

    @classmethod
    def of_source(cls, source: Found) -> Self:
        """Returns the promise that an output shows every frame of a source at its time, beside its
        sound.

        Sizes may differ by a scale. Of a source that was inspected with `deep`, only the frames that
        could be decoded are promised.
        """
        pictures = source.pictures
        times = pictures if pictures is not None and len(pictures) else source.times
        format = av.VideoFormat(source.pixels) if source.pixels else None
        coded = format is not None and not format.is_rgb and len(format.components) > 1
        tracks = tuple(t for t in source.tracks if t.kind == "audio" and t.packets)
        beside = tuple(
            t for t in source.tracks if t.kind == "attachment" or (t.kind == "subtitle" and t.packets)
        )
        known = (*tracks, *beside)
        others = [f"{t.kind} ({t.codec})" for t in source.tracks if t not in known]
        begin = earliest(times, tracks)
        beginning = min([begin, *(track.start for track in source.tracks if track.packets)])
        return cls(
            times=times,
            duration=source.duration,
            width=source.width,
            height=source.height,
            scalable=True,
            aspect=source.aspect,
            rotation=source.rotation,
            # Pictures in RGB or grey have no matrix to keep.
            matrix=MATRICES.get(source.matrix, guess_matrix(source.height)) if coded else None,
            range=range_of(source) if coded else None,
            primaries=source.primaries,
            transfer=source.transfer,
            tracks=tracks,
            beside=beside,
            chapters=source.chapters,
            # Other programs may keep the source's clock; a run counts from the file's beginning, which
            # is where some other stream begins, or the first frame or sound.
            begins=(begin, begin - beginning, 0.0),
            sync=WATCHED_SYNC,
            mirrored=source.mirrored,
            sketch=source.sketch,
            notes=(f"not compared: {', '.join(others)}",) if others else (),
        )


class Tally:
    """Records what a sink writes: 8 bytes a frame, and a few numbers a stream."""

    def __init__(self) -> None:
        self._times = array("d")
        self._spans: dict[int, Span] = {}
        self._picture: dict[str, Any] = {}

    def picture(
        self,
        *,
        width: int,
        height: int,
        aspect: Fraction | None = Fraction(1),
        rotation: int | None = 0,
        matrix: int = 2,
        range: int = 0,
        primaries: int = 2,
        transfer: int = 2,
        states: frozenset[str] = frozenset(),
    ) -> None:
        """Record how the frames are coded; colours in code points of H.273, `range` in FFmpeg's, where
        1 is limited and 2 is full. None is a property that the file is known not to keep."""
        self._picture = {
            "width": width,
            "height": height,
            "aspect": aspect,
            "rotation": None if rotation is None else rotation % 360,
            # 0 is RGB, which has neither.
            "matrix": MATRICES.get(matrix),
            "range": None if matrix == 0 else "full" if range == FULL_RANGE else "limited",
            "primaries": primaries,
            "transfer": transfer,
            "states": states,
        }

    def frame(self, seconds: float) -> None:
        """Record a frame of the video that is shown at this time of the output; in any order."""
        self._times.append(seconds)

    def packet(self, packet: "Packet[Any]") -> None:
        """Record a packet of another stream, before it is written, since muxers change it."""
        stream = packet.stream
        self._spans.setdefault(stream.index, Span(stream)).add(packet)

    def promise(self, *, duration: float) -> Promise:
        """Returns the promise for the finished file, whose video lasts `duration` seconds.

        Raises ValueError when no frame was noted.
        """
        if not self._times or not self._picture:
            raise ValueError("a tally without a frame promises nothing")
        times = np.sort(np.array(self._times, np.float64))
        tracks = tuple(self._spans[index].track() for index in sorted(self._spans))
        begin = earliest(times, tracks)
        # What begins before zero, as an encoder's priming does, may be moved to it.
        begins = (begin, max(begin, 0.0))
        return Promise(times=times, duration=duration, tracks=tracks, begins=begins, **self._picture)


def range_of(found: Found) -> Range:
    """Returns the range of a file's samples; limited where it states none, as players assume."""
    return "full" if found.range == FULL_RANGE or found.pixels.startswith("yuvj") else "limited"
