"""Video files, and videos from a pipe, through FFmpeg's libraries (PyAV)."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import SourceError
from ..frame import Damage, Frame
from ..media.decode import ALPHA_DECODERS, Clock, Reader
from ..media.deinterlace import PROGRESSIVE, Picture, Plan, deinterlaced, plan
from ..media.demux import check_audio, choose_stream, listed, open_container, refuse_encrypted
from ..media.matroska import is_cut
from ..media.packet_index import Key, PacketIndex, Start
from ..media.pixel_format import colour_of, is_mirrored, read_planes, side_bytes
from ..media.probe import (
    describe,
    has_opacity,
    is_untimed,
    orientation_of,
    promised_end,
    promised_frames,
    start_of,
    usual_rate,
)
from ..media.pyav import ratio
from .base import Deinterlace, Source
from .kind import Reading

_AHEAD = 10
"""Frames to look at before work starts, unless the stream says that it is progressive."""


class FileSource(Source):
    """The main video stream of a file, every frame with its own time."""

    def __init__(self, uri: str, reading: Reading) -> None:
        """Open and probe; `-` is standard input.

        Raises SourceError when the streams are not there or no video can be decoded.
        """
        self.uri = uri
        self._wanted, self._heard = reading.video_stream, reading.audio_stream
        self._container, self._pipe = open_container(self.uri)
        try:
            self._stream = choose_stream(self._container, self.uri, self._wanted)
            check_audio(self._container, self.uri, self._heard)
            self._probe(reading.deinterlace)
        except BaseException:
            self.close()
            raise
        self._damage = Damage()
        self._number = 0
        """The number of the frame that comes first."""
        self._end: Fraction | None = None

    @property
    def damage(self) -> Damage:
        return self._damage

    @property
    def notes(self) -> tuple[str, ...]:
        repairs = self._clock.repairs()
        count = self._reader.interlaced
        if not count or self._fields.note:
            return repairs
        done = "left as they are" if self._fields.how == "no" else "deinterlaced by bwdif"
        return (*repairs, f"{count} frames are interlaced, though the first ones are not: {done}")

    @property
    def end(self) -> Fraction | None:
        return self._end

    def close(self) -> None:
        self._container.close()
        if self._pipe is not None:
            self._pipe.close()

    def seek(self, seconds: float) -> bool:
        if self._pipe is not None or self._counting:
            return False
        try:
            self._container.seek(round((seconds + self.info.start) * av.time_base))
        except FFmpegError:
            return False
        self._read()
        return True

    def index(self, *, every: int, ahead: int) -> PacketIndex | None:
        untimed = is_untimed(self._container) or self._counting
        if self._pipe is not None or untimed or not self.steady:
            return None
        container, _ = open_container(self.uri)
        with container:
            stream = choose_stream(container, self.uri, self._wanted)
            reader = Reader(container, stream, Clock(start=None, step=1))
            times: list[int | None] = []
            keys: list[Key] = []
            for number, packet in enumerate(reader.skim()):
                if packet.pts is None:
                    return None
                if packet.is_keyframe:
                    cut = reader.discarded - packet.is_discard
                    keys.append(Key(packet=number, pts=packet.pts, size=packet.size, discarded=cut))
                times.append(None if packet.is_discard else packet.pts)
            reader.count = len(times) - reader.discarded
            # What is known to be damaged is read from its beginning, where the damage is counted.
            if reader.failed or reader.incomplete or self._damage_by(reader, container, stream):
                return None
            base = ratio(stream.time_base) or Fraction(1, av.time_base)
        index = PacketIndex.of(times, keys, every=every, ahead=ahead)
        first = min((time for time in times if time is not None), default=0)
        return index if first >= round(self._begin / base) else None

    def start_at(self, start: Start, *, sure: bool) -> bool:
        found: set[str] = set()
        for key in (start.far,) if sure else (start.near, start.far):
            picture = self._reach(key, start)
            if picture is None:
                return False
            if not sure:
                found.add(self._frame(picture, start.number).digest())
            self._pictures = chain((picture,), self._pictures)
        self._number = start.number
        return len(found) < 2 and self.steady

    def _reach(self, key: Key, start: Start) -> Picture | None:
        """Returns the picture of `start`, decoded from that key frame on."""
        self._reopen()
        try:
            self._container.seek(key.pts, stream=self._stream)
            found = self._reader.begin_at(key, start)
        except FFmpegError:
            found = False
        if not found:  # skipping all packets before costs no decoding either
            self._reopen()
            found = self._reader.begin_at(key, start)
        return next(self._pictures, None) if found else None

    @property
    def steady(self) -> bool:
        # Where the filter for fields runs, it began somewhere before.
        filtered = self._fields.how != "no" and (self._fields.note or self._reader.interlaced)
        return not (filtered or self._reader.failed or self._reader.corrupt or self._clock.repairs())

    def __iter__(self) -> Iterator[Frame]:
        before: int | None = None
        for index, picture in enumerate(self._pictures, self._number):
            yield self._frame(picture, index)
            since = 0 if before is None else picture.pts - before
            self._end = (picture.pts + self._shown_for(picture, since)) * self.info.time_base
            before = picture.pts
        self._damage = self._damage_by(self._reader, self._container, self._stream)

    def _damage_by(self, reader: Reader, container: InputContainer, stream: VideoStream) -> Damage:
        return reader.damage(
            promised_frames(container, stream),
            promised_end(container),
            float(self._rate),
            ticking=container.format.name == "avi",
            cut=self._is_cut(reader),
        )

    def _shown_for(self, picture: Picture, since: int) -> int:
        """Returns for how long a picture is shown if it is the last, where the one before was shown for
        `since` ticks: what the FFmpeg command takes it for.

        Where no length is stated, or it is the single tick that FFmpeg makes up, that is as long as the
        one before.
        """
        fields = self._fields
        made = fields.how != "no" and (fields.every or self._reader.interlaced > 0)
        if since <= 0 or made or is_untimed(self._container):
            return picture.duration
        own = picture.image.duration
        return own if own > 1 or (own == 1 and since <= 2) else since

    def _is_cut(self, reader: Reader) -> bool:
        """Returns whether a Matroska file ends within its pictures and sound, or bytes follow the last
        frame of a y4m, which states no length and has only frames."""
        if self._pipe is None and self._container.format.name == "matroska,webm":
            with Path(self.uri).open("rb") as file:
                return is_cut(file)
        if self._container.format.name != "yuv4mpegpipe":
            return False
        size = max(self._container.size or 0, self._pipe.received if self._pipe is not None else 0)
        return 0 < reader.position < size

    def _frame(self, picture: Picture, index: int) -> Frame:
        mirrored = self._mirrored if self._deaf else is_mirrored(picture.image)
        planes, alpha, layout = read_planes(picture.image, mirrored=mirrored)
        return Frame(
            planes=planes,
            format=layout.format,
            pts=picture.pts,
            time_base=self.info.time_base,
            colour=colour_of(picture.image, layout, self.info.colour),
            aspect=self.info.aspect,
            rotation=self.info.rotation if self._deaf else picture.image.rotation % 360,
            index=index,
            duration=picture.duration,
            alpha=alpha,
            captions=side_bytes(picture.image, Type.A53_CC),
        )

    def _read(self) -> None:
        """Start decoding at the container's current position."""
        stream, container = self._stream, self._container
        base = ratio(stream.time_base) or Fraction(1, av.time_base)
        self._clock = Clock(
            start=None if is_untimed(container) else round(self._begin / base),
            step=max(round(1 / (self._rate * base)), 1),
            counting=self._counting,
        )
        decodable = stream.codec_context.codec.canonical_name in ALPHA_DECODERS
        # Its decoder for opacity is not told how the picture is turned.
        self._deaf = decodable and has_opacity(stream)
        self._reader = Reader(container, stream, self._clock, alpha=self._deaf)
        self._pictures: Iterator[Picture] = iter(self._reader)
        if self._fields.how != "no":
            self._pictures = deinterlaced(self._pictures, self._fields, base)

    def _reopen(self) -> None:
        """Reopen the file and read from the beginning."""
        self._container.close()
        self._container, self._pipe = open_container(self.uri)
        self._stream = choose_stream(self._container, self.uri, self._wanted)
        self._read()

    def _probe(self, deinterlace: Deinterlace) -> None:
        """Decode the first frames, which are kept for iteration, and describe the video."""
        stream, container, context = self._stream, self._container, self._stream.codec_context
        base = ratio(stream.time_base) or Fraction(1, av.time_base)
        self._rate = usual_rate(container, stream)
        # Decoding may overwrite it.
        order, stated = int(context.field_order), (context.width, context.height)
        self._counting = container.format.name == "avi" and bool(context.has_b_frames)
        self._fields = Plan("no")
        self._begin = start_of(container)
        self._read()
        pictures = self._pictures
        ahead = list(islice(pictures, 1 if order == PROGRESSIVE else _AHEAD))
        if (not ahead or self._reader.failed) and self._pipe is None:
            refuse_encrypted(self.uri, stream.index)
        if not ahead:
            reason = f": {self._reader.reason}" if self._reader.reason else ""
            raise SourceError(
                f"{self.uri}: not one picture of the video can be decoded{reason}; "
                "the file may be cut off"
            )
        pipe = self._pipe is not None
        if container.format.name == "avi" and self._reader.guessed and not (self._counting or pipe):
            # AVI knows the times of decoding alone: FFmpeg guesses the others from the level.
            self._counting = True
            self._reopen()
            container, stream, pictures = self._container, self._stream, self._pictures
            ahead = list(islice(pictures, len(ahead)))
        images = [picture.image for picture in ahead]
        first = float((images[0].pts or 0) * base)
        if self._pipe is None and max(first, 0.0) < self._begin and not is_untimed(container):
            # The container states a later beginning than it has: once more, with the frame's own.
            self._begin = max(first, 0.0)
            self._reopen()
            container, stream, pictures = self._container, self._stream, self._pictures
            ahead = list(islice(pictures, len(ahead)))
            images = [picture.image for picture in ahead]
        layout = read_planes(images[0])[2]  # raises for pixels that nothing can be done with
        info = describe(container, stream, images, layout, uri=self.uri, rate=self._rate, base=base)
        fields = plan(deinterlace, order, context.codec.canonical_name, images)
        notes = [*info.notes, fields.note] if fields.note else [*info.notes]
        if has_opacity(stream) and not layout.alpha:
            notes.append("the transparency of the video is left out: nothing here decodes it")
        if all(stated) and stated != (info.width, info.height):
            notes.append(
                f"the file states {stated[0]}x{stated[1]}, and its first picture is {info.width}x"
                f"{info.height}: all become that size"
            )
        films = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if len(films) > 1:
            notes.append(
                f"stream {stream.index} is processed; there are {listed(container, 'video')}: "
                "--video-stream takes another"
            )
        info = replace(info, start=self._begin)
        if self._heard is not None:
            sounds = [s for s in container.streams.audio if s.index == self._heard and s.codec_context]
            audio = tuple(s.codec_context.name for s in sounds)
            info = replace(info, audio_stream=self._heard, audio=audio)
        self._mirrored = is_mirrored(images[0])
        if self._deaf and self._pipe is None:
            rotation, self._mirrored = orientation_of(self.uri, stream.index)
            info = replace(info, rotation=rotation)
        if self._mirrored:
            notes.append("the picture is stored mirrored, which few files can say: it is put right")
        self.info = replace(info, interlaced=fields.interlaced, notes=tuple(notes))
        self._pictures = chain(ahead, pictures)
        self._fields = fields
        if fields.how != "no":
            self._pictures = deinterlaced(self._pictures, fields, base)
        if fields.how == "fields":
            frames = 2 * info.frames if info.frames else None
            self.info = replace(self.info, rate=2 * info.rate, time_base=base / 2, frames=frames)


open_waiting = FileSource
