"""Streams that pass the models by: sound, subtitles, more video, cover art, data, attachments,
chapters."""

import io
import math
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, cast

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Disposition

from ..errors import SinkError
from ..frame import VideoInfo
from .options import AudioCodec, Encoding
from .packets import (
    Timed,
    end_of,
    heard_from,
    is_plain,
    lasting,
    shortened,
    silence,
    with_times,
    without_start,
)
from .probe import start_of
from .pyav import open_input
from .tracks import OnPacket

TEXT = frozenset({"ass", "ssa", "subrip", "srt", "webvtt", "mov_text", "text"})
"""Codecs of subtitles that are text, which can be converted to one another. Pictures cannot."""

SUBTITLES = ("mov_text", "subrip", "webvtt", "ass")
"""Codecs that text is converted to: the first that the container takes."""

KEEPS_COVERS = frozenset({"ipod", "mp4"})
"""Containers, beside Matroska, whose cover art is recognised as such when it is read."""

LATE_CHAPTERS = frozenset({"mp4", "mov", "ipod", "matroska", "webm"})
"""Containers whose chapters are written at the end, when the length of the film is known."""

PICTURES = {"png": ("cover.png", "image/png"), "mjpeg": ("cover.jpg", "image/jpeg")}
"""Cover art as an attachment, which is how Matroska keeps it: name and type by codec."""

Way = Literal["copy", "convert", "attach", "state", "drop"]


@dataclass(frozen=True, slots=True)
class Passage:
    """The decision about one stream of the source."""

    index: int
    """The stream's index in the source."""
    kind: str
    codec: str
    way: Way
    target: str = ""
    """The codec that it is converted to, or the timecode that is stated."""
    reason: str = ""
    """The reason for dropping it."""

    def words(self) -> str:
        """Returns the decision in words: `stream 3 (subtitle, ass) is converted to mov_text`."""
        name = f"stream {self.index} ({self.kind}{', ' + self.codec if self.codec else ''})"
        if self.way in ("copy", "attach"):
            covers = self.way == "attach" and self.kind != "attachment"
            return f"{name} becomes an attachment" if covers else f"{name} is copied"
        if self.way == "state":
            return f"{name} is written anew: {self.target}"
        if self.way == "convert":
            lost = "; its styles are lost" if self.codec in ("ass", "ssa") else ""
            return f"{name} is converted to {self.target}{lost}"
        return f"{name} is left out: {self.reason}"


class PassingStreams:
    """The source's other streams on their way into the output, in step with the video.

    Planned when the output is opened, so that losses are reported before work starts. Raises SinkError
    where sound cannot be kept, rather than losing it.
    """

    def __init__(
        self,
        like: VideoInfo,
        output: OutputContainer,
        suffix: str,
        *,
        audio: bool,
        on_packet: OnPacket,
        encoding: Encoding | None = None,
        timecode: str = "",
    ) -> None:
        """`timecode` is what the output states, whose own track is then not copied."""
        assert like.path is not None
        self._input: InputContainer = open_input(like.path)
        self._output = output
        self._encoding = encoding or Encoding()
        self._timecode = timecode
        self._on_packet = on_packet
        self._start = like.start
        self._main = like.stream
        self.end = float("inf")
        self._streams: dict[int, Any] = {}
        self._clocks: dict[int, tuple[int | None, int, int]] = {}
        """The last decoding time by stream, the end of that packet, and what was added to its time."""
        self._packets: Iterator[tuple[float, Packet[Any]]] = iter(())
        self._next: tuple[float, Packet[Any]] | None = None
        self._part = like.part
        # What comes before the beginning of the whole, as an encoder's priming does, stays.
        self._begins_later = like.part and like.start > start_of(self._input)
        self._waiting: dict[int, deque[Timed]] = {}
        """Of a part: packets that may outlast it, by stream, until it is known that they do not."""
        self._shown: set[int] = set()
        """Of a part: streams of video of which a picture that needs no other has come."""
        self._begun: dict[int, int] = {}
        """The first packet's time of sound that is converted, by stream."""
        try:
            self.plan = tuple(self._plan(like, suffix, audio=audio))
        except BaseException:
            self._input.close()
            raise

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns one line for each stream that is converted or left out."""
        return tuple(p.words() for p in self.plan if p.way in ("convert", "drop"))

    def begin(self, video: Any) -> None:
        """Add the planned streams to the output, after `video` and before its header is written."""
        for passage in self.plan:
            stream: Any = self._input.streams[passage.index]
            if passage.way == "attach":
                self._output.add_attachment(*self._attachment(stream, passage.codec))
                continue
            if passage.way in ("drop", "state"):
                continue
            if passage.way == "convert" and passage.kind == "audio":
                added = _encoded_sound(self._output, stream, passage.target, self._encoding)
            elif passage.way == "convert":
                added: Any = self._output.add_stream(passage.target)
                header = stream.codec_context.subtitle_header
                added.codec_context.subtitle_header = header or PLAIN_HEADER
            else:
                added = self._output.add_stream_from_template(stream)
                _name_channels(added)
            _describe(added, stream)
            self._streams[passage.index] = added
        _describe(video, self._input.streams[self._main])
        beside = [s for s in self._streams.values() if s.type == "video" and not _is_cover(s)]
        if beside:
            # Else players show the one that was only copied, where that is larger.
            video.disposition |= Disposition.default
            for other in beside:
                other.disposition &= ~Disposition.default
        for name, value in self._input.metadata.items():
            if name.lower() not in OWN_METADATA:
                self._output.metadata[name] = value
        if self._timecode:
            self._output.metadata["timecode"] = self._timecode
        if self._output.format.name not in LATE_CHAPTERS:
            self._write_chapters()
        self._packets = self._read()
        self._next = next(self._packets, None)

    def _write_chapters(self) -> None:
        """Write the chapters that begin before the output's end, as far as that is known."""
        chapters = _on_output_clock(self._input.chapters(), self._start, self.end, part=self._part)
        if chapters:
            with suppress(FFmpegError, ValueError):  # a container without chapters
                self._output.set_chapters(chapters)

    def _attachment(self, stream: Any, codec: str) -> tuple[str, str, bytes]:
        """Returns (name, type, contents) of an attachment, or of cover art that becomes one."""
        if codec in PICTURES and stream.type == "video":
            with open_input(str(self._input.name)) as again:
                container: Any = again
                packets: Iterator[Any] = container.demux(container.streams[stream.index])
                picture = next((bytes(packet) for packet in packets if packet.size), b"")
            return (*PICTURES[codec], picture)
        name = stream.name or stream.metadata.get("filename", "attachment")
        return name, stream.mimetype or "application/octet-stream", stream.data

    def mux_until(self, seconds: float) -> None:
        """Write every packet that begins at or before `seconds` of the output."""
        while self._next is not None and self._next[0] <= min(seconds, self.end):
            if self._part:
                self._waiting.setdefault(self._next[1].stream.index, deque()).append(self._next)
            else:
                self._write(self._next[1])
            self._next = next(self._packets, None)
        for waiting in self._waiting.values():
            while waiting and (waiting[0][0] < 0 or end_of(waiting[0]) <= min(seconds, self.end)):
                self._write(waiting.popleft()[1])

    def finish(self) -> None:
        """Write all that is left, before the container is closed."""
        self.mux_until(float("inf"))
        left = [timed for waiting in self._waiting.values() for timed in waiting]
        for begin, packet in sorted(left, key=lambda timed: timed[0]):
            if begin < self.end:
                self._write(shortened(packet, self.end - begin))
        if self._output.format.name in LATE_CHAPTERS:
            self._write_chapters()

    def _write(self, packet: "Packet[Any]") -> None:
        self._on_packet(packet)
        self._output.mux(packet)

    def close(self) -> None:
        """Close the source's file."""
        self._input.close()

    def _plan(self, like: VideoInfo, suffix: str, *, audio: bool) -> Iterator[Passage]:
        for stream in self._input.streams:
            if stream.index == like.stream:
                continue
            context: Any = stream.codec_context
            codec = str(context.codec.canonical_name) if context is not None else ""
            kind = stream.type
            cover = bool(stream.disposition & Disposition.attached_pic)
            if kind == "audio" and not (audio and like.audio_stream in (None, stream.index)):
                continue
            if kind == "attachment":
                attaches = self._output.format.name == "matroska"
                reason = f"{suffix} files hold no attachments"
                yield Passage(
                    stream.index, kind, codec, "attach" if attaches else "drop", reason=reason
                )
            elif cover and codec in PICTURES and self._output.format.name == "matroska":
                yield Passage(stream.index, "cover art", codec, "attach")
            elif cover and self._output.format.name not in KEEPS_COVERS:
                reason = f"{suffix} files would show it as a second film"
                yield Passage(stream.index, "cover art", codec, "drop", reason=reason)
            elif kind == "data" and "timecode" in stream.metadata:
                way: Way = "state" if self._timecode else "drop"
                reason = f"{suffix} files hold none that fits"
                yield Passage(stream.index, kind, "timecode", way, target=self._timecode, reason=reason)
            elif _accepts(self._output, stream):
                yield Passage(stream.index, "cover art" if cover else kind, codec, "copy")
            elif kind == "audio":
                target = self._sound_codec(stream)
                if target is None:
                    wanted = self._encoding.audio_codec
                    made = "" if wanted == "auto" else f", nor what --audio-codec {wanted} makes of it"
                    raise SinkError(f"{suffix} files cannot hold {codec} audio{made}: use --no-audio")
                yield Passage(stream.index, kind, codec, "convert", target=target)
            elif kind == "subtitle" and codec in TEXT and (target := self._text_codec()):
                yield Passage(stream.index, kind, codec, "convert", target=target)
            else:
                name = codec or "such data"
                yield Passage(
                    stream.index, kind, codec, "drop", reason=f"{suffix} files cannot hold {name}"
                )

    def _sound_codec(self, stream: Any) -> str | None:
        """Returns the encoder for sound that cannot be copied, which was tried; None for none."""
        wanted = self._encoding.audio_codec
        names = SOUND.values() if wanted == "auto" else (SOUND[wanted],)
        takes = (name for name in names if _takes_sound(self._output, stream, name, self._encoding))
        return next(takes, None)

    def _text_codec(self) -> str | None:
        offered = self._output.supported_codecs
        return next((codec for codec in SUBTITLES if codec in offered), None)

    def _read(self) -> "Iterator[tuple[float, Packet[Any]]]":
        """Yields (seconds of the output, packet), in the order of the source's file."""
        wanted = [self._input.streams[index] for index in self._streams]
        self._ways = {passage.index: (passage.way, passage.kind) for passage in self.plan}
        packets: Iterator[Any] = self._input.demux(*wanted) if wanted else iter(())
        untimed: dict[int, list[Any]] = {}
        for packet in lasting(packets):
            waiting = untimed.setdefault(packet.stream.index, [])
            if packet.dts is None and not packet.stream.disposition & Disposition.attached_pic:
                waiting.append(packet)
                continue
            # Where frames are reordered, the first ones have no decoding time: they go before the next.
            step = max(int(packet.duration or 0), 1)
            for place, earlier in enumerate(waiting):
                earlier.dts = int(packet.dts or 0) - (len(waiting) - place) * step
            for ready in (*waiting, packet):
                if self._ways[index := ready.stream.index] == ("convert", "audio"):
                    yield from self._sounded(index, ready)
                elif (moved := self._moved(ready)) is not None:
                    moved = self._begins(index, moved) if self._begins_later else moved
                    if moved is not None:
                        yield moved
            waiting.clear()
        for index, way in self._ways.items():
            if way == ("convert", "audio"):
                yield from self._sounded(index, None)

    def _moved(self, packet: Any) -> tuple[float, "Packet[Any]"] | None:
        """Returns the packet with the output's time and stream; None for one that cannot be read."""
        if packet.dts is None:
            # Cover art has no time: it goes first.
            packet.pts = packet.dts = round(self._start / (packet.time_base or MILLISECOND))
        index = packet.stream.index
        passage = next(p for p in self.plan if p.index == index)
        if passage.way == "convert":
            return self._converted(packet, self._streams[index])
        shift = round(self._start / packet.time_base)
        dts = self._later(index, packet.dts - shift, int(packet.duration or 0))
        if packet.pts is not None:
            packet.pts += dts - packet.dts
        packet.dts = dts
        seconds = float(packet.dts * packet.time_base)
        packet.stream = self._streams[index]
        return seconds, packet

    def _begins(self, index: int, timed: Timed) -> Timed | None:
        """Returns a packet as a part has it, which begins at 0; None for one before that.

        What lasts beyond that moment is shortened, where that can be done to a packet. Sound in files
        that say from where it is played keeps the packets before, which its decoder needs. Of video
        nothing is kept before a picture that needs no other.
        """
        passage = next(p for p in self.plan if p.index == index)
        begin, packet = timed
        if passage.kind == "cover art":
            return timed
        if passage.kind == "video" and index not in self._shown:
            if begin < 0 or not packet.is_keyframe:
                return None
            self._shown.add(index)
        if begin >= 0:
            return timed
        end, length = end_of(timed), end_of(timed) - begin
        if passage.kind == "subtitle" and end > 0:
            ticks = round(-begin / packet.time_base)
            packet.pts = packet.dts = 0
            packet.duration = max(int(packet.duration or 0) - ticks, 1)
            return 0.0, packet
        if passage.kind == "audio" and is_plain(passage.codec):
            return (0.0, without_start(packet, -begin)) if end > 0 else None
        if passage.kind == "audio" and self._output.format.name in SKIPPING:
            return timed if end > (NEARLY - LEADING.get(passage.codec, 1)) * length else None
        if passage.kind == "audio" and self._output.format.name == "avi" and end > NEARLY * length:
            # All of it begins at once there: it is late by less than a packet.
            packet.pts = packet.dts = 0
            return 0.0, packet
        return None

    def _sounded(self, index: int, packet: Any) -> "Iterator[tuple[float, Packet[Any]]]":
        """Yields the packets of sound that is converted; None ends it.

        A piece that cannot be decoded is a gap. Raises SinkError where none can be.
        """
        source: Any = self._input.streams[index]
        target = self._streams[index]
        heard: list[Any] = []
        if self._begins_later and packet is not None:
            time = packet.pts if packet.pts is not None else packet.dts
            if float(time * packet.time_base) < self._start - SETTLING:
                return
        with suppress(FFmpegError):
            heard = source.codec_context.decode(packet)
        if packet is not None:
            self._begun.setdefault(index, packet.pts if packet.pts is not None else packet.dts)
        if heard and index not in self._clocks and heard[0].pts is not None:
            late = heard[0].pts - self._begun[index]
            # Some decoders give nothing for the first packets: the sound begins there all the same.
            heard = [silence(heard[0], late), *heard] if late > 0 else heard
        for frame in heard:
            if frame.pts is not None:
                length = Fraction(frame.samples, frame.sample_rate) / frame.time_base
                shift = round(self._start / frame.time_base)
                frame.pts = self._later(index, frame.pts - shift, round(length))
                if self._begins_later and frame.pts < 0:
                    frame = heard_from(frame, -frame.pts)
                    if frame is None:
                        continue
            yield from with_times(target.encode(frame))
        if packet is None:
            if index not in self._clocks and not self._part:
                raise SinkError(
                    f"not one piece of the sound in stream {index} can be decoded: --no-audio"
                )
            yield from with_times(target.encode(None))

    def _later(self, index: int, dts: int, duration: int) -> int:
        """Returns a packet's decoding time, later than that of the one before it in its stream.

        Where the file's clock falls back, as where recordings were joined, the rest goes on without a
        gap until its own times are later again: what the pictures do, too.
        """
        last, end, offset = self._clocks.get(index, (None, 0, 0))
        if last is not None and dts <= last:
            if dts + offset <= last:
                offset = max(end, last + 1) - dts
            dts += offset
        else:
            offset = 0
        self._clocks[index] = dts, dts + duration, offset
        return dts

    def _converted(self, packet: Any, target: Any) -> tuple[float, "Packet[Any]"] | None:
        """Returns a subtitle in the output's codec; None for one that cannot be read."""
        source: Any = packet.stream
        with suppress(FFmpegError):
            shown = source.codec_context.decode2(packet)
            if shown is None or not len(shown):
                return None
            encoded = cast("Packet[Any]", target.codec_context.encode_subtitle(shown))
            seconds = float((packet.pts or packet.dts) * packet.time_base) - self._start
            duration = float((packet.duration or 0) * packet.time_base)
            encoded.stream = target
            encoded.time_base = MILLISECOND
            encoded.pts = encoded.dts = round(seconds * 1000)
            encoded.duration = round(duration * 1000) or shown.end_display_time
            return seconds, encoded
        return None  # a subtitle that cannot be read is the only thing lost


SOUND: dict[AudioCodec, str] = {"aac": "aac", "opus": "libopus", "flac": "flac"}
"""FFmpeg's encoders of sound that cannot be copied, in the order in which they are tried."""

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
"""Channel layouts of sound that is converted, by the number of channels; of others it is stereo."""

CHANNEL_RATE = 96_000
"""Bits per second of each channel of sound that is converted."""


def _encoded_sound(output: OutputContainer, stream: Any, name: str, encoding: Encoding) -> Any:
    """Adds a stream for the sound in another codec, and returns it. Raises ValueError or FFmpegError
    where the container or the encoder refuse it."""
    context = stream.codec_context
    rates = av.Codec(name, "w").audio_rates or [context.sample_rate]
    # The next higher rate loses nothing.
    rate = min(rates, key=lambda one: (one < context.sample_rate, abs(one - context.sample_rate)))
    # Not all encoders take all places of as many loudspeakers.
    layout = LAYOUTS.get(context.channels, "stereo")
    added: Any = output.add_stream(name, rate=rate, layout=layout)
    if name != "flac":
        channels = added.codec_context.channels
        added.codec_context.bit_rate = encoding.audio_bitrate or CHANNEL_RATE * channels
    return added


def _takes_sound(output: OutputContainer, stream: Any, name: str, encoding: Encoding) -> bool:
    """Returns whether the container takes the sound in another codec, by a trial."""
    if stream.codec_context is None or stream.codec_context.codec is None:
        return False
    if output.format.name == "mpegts" and name not in _TRANSPORT:
        return False
    with av.open(io.BytesIO(), "w", format=output.format.name) as trial:
        try:
            _encoded_sound(trial, stream, name, encoding)
            trial.start_encoding()
        except (FFmpegError, ValueError):
            return False
        return True


SETTLING = 1.0
"""Seconds of sound before a part that are decoded and not used, until a decoder gives what it gives in
the midst of the whole."""

SKIPPING = frozenset({"mp4", "mov", "ipod"})
"""Containers that say from where on sound is played: it may begin within a packet."""

LEADING = {
    "opus": 4, "mp3": 2, "ac3": 0, "eac3": 0, "flac": 0, "alac": 0, "pcm_alaw": 0, "pcm_mulaw": 0,
}  # fmt: skip
"""Packets of sound before the first that is played which its decoder needs: one where pieces overlap;
80 ms of Opus (RFC 7845), the bits that MP3 keeps for later, none of what is coded piece by piece. Of
AC-3, which it parses anew, FFmpeg forgets what is not to be played."""

NEARLY = 0.01
"""Part of a packet that does not count, since times are rounded."""


MILLISECOND = Fraction(1, 1000)

OWN_METADATA = frozenset(
    {"encoder", "major_brand", "minor_version", "compatible_brands", "duration", "timecode"}
)
"""Metadata that is about the container itself, not about the film, or is written by itself."""

PLAIN_HEADER = "\r\n".join(
    (
        "[Script Info]", "ScriptType: v4.00+", "PlayResX: 384", "PlayResY: 288", "",
        "[V4+ Styles]",
        "Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, "
        "BackColour, Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, "
        "BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding",
        "Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0",
        "", "[Events]",
        "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text", "",
    )
).encode()  # fmt: skip
"""The header that text encoders need, where the source's codec has none."""

USUAL_CHANNELS = {
    "1 channels": "mono",
    "2 channels": "stereo",
    "6 channels": "5.1",
    "8 channels": "7.1",
}
"""Channel layouts that players assume where FFmpeg only counts the channels."""

_PASSING_METADATA = frozenset({"language", "title", "handler_name", "comment", "filename", "mimetype"})
"""Metadata of a stream that still holds for its copy; durations and statistics do not."""

_TRANSPORT = frozenset(
    {
        "aac", "ac3", "dts", "dvb_subtitle", "dvb_teletext", "eac3", "h264", "hevc", "mp2", "mp3",
        "mpeg1video", "mpeg2video", "opus", "truehd",
    }
)  # fmt: skip
"""Codecs that MPEG-TS really carries: FFmpeg writes any into it, but no player finds the others
again."""


def can_hold(path: str, kind: str, codec: str) -> bool:
    """Returns whether a file of that name holds a stream of that kind and codec, or what it is
    converted to; `chapters` is a kind, too."""
    suffix = Path(path).suffix.lower()
    format = next((name for name in sorted(_CARRYING) if suffix[1:] in _written_as(name)), None)
    if format is None:
        return False
    if kind == "attachment":
        return format == "matroska"
    if kind == "chapters":
        return format in LATE_CHAPTERS
    if format == "mpegts":
        return codec in _TRANSPORT
    if format == "matroska" and codec in _PICTURED:
        return True
    with av.open(io.BytesIO(), "w", format=format) as trial:
        offered = trial.supported_codecs
    return codec in offered or (codec in TEXT and any(other in offered for other in SUBTITLES))


_CARRYING = LATE_CHAPTERS | {"mpegts", "nut"}
"""Containers that hold any subtitles, attachments or chapters."""

_PICTURED = frozenset({"dvb_subtitle", "dvd_subtitle", "hdmv_pgs_subtitle"})
"""Subtitles that are pictures, which Matroska takes without listing them."""


def _written_as(format: str) -> frozenset[str]:
    return frozenset(av.ContainerFormat(format, "w").extensions)


def _accepts(output: OutputContainer, stream: Any) -> bool:
    """Returns whether the container takes a copy of that stream."""
    context: Any = stream.codec_context
    if context is None or context.codec is None:
        return False
    if output.format.name == "mpegts":
        return context.codec.canonical_name in _TRANSPORT
    with av.open(io.BytesIO(), "w", format=output.format.name) as trial:
        try:
            trial.add_stream_from_template(stream)
            # Some muxers refuse a codec, or how it is coded, only when they write their header.
            trial.start_encoding()
        except (FFmpegError, ValueError):
            return False
        return True


def _name_channels(added: Any) -> None:
    """Name the channels of PCM sound that Matroska only counts: MP4 needs their positions."""
    layout = getattr(added.codec_context, "layout", None) if added.type == "audio" else None
    if layout is not None and layout.name in USUAL_CHANNELS:
        added.codec_context.layout = USUAL_CHANNELS[layout.name]


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _describe(added: Any, stream: Any) -> None:
    """Copy the original's language, title and role."""
    for name, value in stream.metadata.items():
        if name.lower() in _PASSING_METADATA:
            added.metadata[name] = value
    added.disposition = stream.disposition


def _on_output_clock(chapters: list[Any], start: float, end: float, *, part: bool) -> list[Any]:
    """Returns the chapters on the output's clock, cut where it ends after `end` seconds; of a `part`
    those of which something is left."""
    moved: list[Any] = []
    for chapter in chapters:
        shift = round(start / chapter["time_base"])
        begin, stop = max(chapter["start"] - shift, 0), max(chapter["end"] - shift, 0)
        if math.isfinite(end):
            stop = min(stop, round(end / chapter["time_base"]))
        if begin < stop or not (part or math.isfinite(end)):
            moved.append({**chapter, "start": begin, "end": stop})
    return moved
