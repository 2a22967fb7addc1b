"""Makes a clip of the matrix, and reads any film, with PyAV alone: not by what is tested."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.subtitles.subtitle import SubtitleSet

from .matrix import CODERS, DNXHR, GRID, MATRIX, RATES, SHAPES, SOUNDS, Clip

LINES = ((0.08, 0.12, "First words"), (0.24, 0.16, "und, zweitens, Grüße"))
"""Beginning and length in seconds, and text, of the subtitles."""
SHIFT = 0.3
"""Seconds by which sound comes late or ends early or late."""
DVB = bytes.fromhex("0f100001000205000f8000010000")
"""A page without regions, and its end, of a DVB subtitle."""
HEADER = "\r\n".join(
    (
        "[Script Info]", "ScriptType: v4.00+", "PlayResX: 384", "PlayResY: 288", "", "[V4+ Styles]",
        "Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, "
        "Bold, Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, "
        "Shadow, Alignment, MarginL, MarginR, MarginV, Encoding",
        "Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0", "",
        "[Events]", "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text",
        "",
    )
).encode()  # fmt: skip


def make(path: Path, clip: Clip) -> Path:
    """The clip as a file."""
    coder = CODERS[clip.codec]
    options = dict(coder.options)
    if clip.codec == "dnxhd":
        options["profile"] = DNXHR[clip.pixels]
    if clip.codec == "hevc" and clip.rate == "one":
        # x265 leaves the decoding time of so few frames to chance.
        options["x265-params"] = f"{options['x265-params']}:bframes=0"
    rate = RATES.get(clip.rate, Fraction(25))
    tick = Fraction(1, 1000) if coder.name in ("mpeg4",) else Fraction(1, 90_000)
    if not coder.free or clip.home in GRID:
        tick = 1 / rate
    matrix, primaries, transfer = MATRIX[clip.colour]
    times, packets = clip.times, []
    with av.open(str(path), "w") as out:
        video = out.add_stream(coder.name, rate=rate, options=options)
        video.width, video.height, video.pix_fmt = clip.width, clip.height, clip.pixels
        context = video.codec_context
        context.time_base = tick
        context.sample_aspect_ratio = SHAPES[clip.shape]
        context.colorspace = 0 if clip.pixels.startswith(("gbr", "rgb", "bgr")) else matrix
        context.color_primaries, context.color_trc = primaries, transfer
        context.color_range = 2 if clip.full or clip.pixels.startswith("yuvj") else 0
        if coder.name != "mjpeg":
            context.thread_count = 1
        if clip.rotation:
            video.set_display_rotation(clip.rotation if clip.rotation <= 180 else clip.rotation - 360)
        tracks = [_track(out, words) for words in SOUNDS[clip.sound]]
        words = _words(out, clip.words) if clip.words != "none" else None
        lengths: dict[int, int] = {}
        for index, time in enumerate(times[:-1]):
            begin, end = round(time / tick), round(times[index + 1] / tick)
            lengths[round(float(time), 3)] = float(times[index + 1] - time)
            frame = picture(clip, index)
            frame.pts, frame.time_base, frame.duration = begin, tick, end - begin
            frame.colorspace, frame.color_range = context.colorspace, context.color_range
            frame.color_primaries, frame.color_trc = primaries, transfer
            packets += video.encode(frame)
        packets += video.encode(None)
        for packet in packets:
            # Encoders guess how long the last frame stands.
            length = lengths[round(float(packet.pts * packet.time_base), 3)]
            packet.duration = round(length / packet.time_base)
        for number, track in enumerate(tracks):
            packets += _noise(track, clip, number)
        if words is not None:
            packets += _lines(words, clip.words)
        packets.sort(key=lambda p: float((p.dts if p.dts is not None else p.pts) * p.time_base))
        for packet in packets:
            out.mux(packet)
    if clip.home == "mkv" and clip.shape != "square":
        tell_shape(path, clip.width, clip.height, SHAPES[clip.shape])
    return path


def picture(clip: Clip, index: int) -> Any:
    """A slope of colours that shows which way up it is, with a bar that tells the frame's number."""
    high, wide = clip.height, clip.width
    y, x = np.mgrid[0:high, 0:wide].astype(np.float64)
    rng = np.random.default_rng(index)
    red = 0.2 + 0.5 * x / wide + 0.02 * rng.random((high, wide))
    green = 0.15 + 0.6 * y / high
    blue = 0.6 - 0.4 * x / wide + 0.01 * index
    bar = (x - index * wide / 16) % wide < wide / 8
    colours = np.stack(
        [np.where(bar, 0.85, red), np.where(bar, 0.9, green), np.where(bar, 0.3, blue)], 2
    )
    deep = np.round(np.clip(colours, 0, 1) * 65535).astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(deep), format="rgb48le")
    frame = frame.reformat(format=clip.pixels)
    if "a" in clip.pixels and frame.format.components[-1].is_alpha and len(frame.planes) == 4:
        plane = frame.planes[3]
        wanted = np.uint8 if frame.format.components[3].bits == 8 else np.uint16
        rows = np.frombuffer(plane, wanted).reshape(plane.height, -1)
        rows[:, : plane.width] = np.linspace(0, (1 << frame.format.components[3].bits) - 1, plane.width)
    return frame


def _track(out: Any, words: str) -> Any:
    encoder, layout = words.split()
    track = out.add_stream(encoder, rate=48_000, layout=layout)
    track.codec_context.bit_rate = 128_000
    return track


def _noise(track: Any, clip: Clip, number: int) -> list[Any]:
    """Packets of noise, so that no two are alike."""
    first, last = float(clip.times[0]), float(clip.times[-1])
    begin = SHIFT if clip.sync == "late" else 0.0
    end = last - SHIFT if clip.sync == "short" else last + SHIFT if clip.sync == "long" else last
    if clip.rate == "gap":
        end = 0.6
    channels = track.codec_context.layout.nb_channels
    rng = np.random.default_rng(number + 1)
    total = round((max(end, begin + 0.1, first * 0.4) - begin) * 48_000)
    found: list[Any] = []
    for start in range(0, total, 1024):
        size = min(1024, total - start)
        wave = (0.1 * rng.standard_normal((channels, size))).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=track.codec_context.layout.name)
        frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
        frame.pts = round(begin * 48_000) + start
        found += track.encode(frame)
    return found + track.encode(None)


def _words(out: Any, kind: str) -> Any:
    stream = out.add_stream("dvbsub" if kind == "dvb" else kind)
    if kind == "dvb":
        stream.codec_context.extradata = bytes.fromhex("0001000110")
    else:
        stream.codec_context.subtitle_header = HEADER
    stream.metadata["language"] = "deu"
    return stream


def _lines(stream: Any, kind: str) -> list[Any]:
    found: list[Any] = []
    for number, (begin, length, text) in enumerate(LINES):
        if kind == "dvb":
            packet = av.Packet(DVB)
        else:
            line = f"{number},0,Default,,0,0,0,,{text}".encode()
            shown = SubtitleSet.create(line, 0, round(length * 1000))
            packet = stream.codec_context.encode_subtitle(shown)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = round(begin * 1000)
        packet.duration = round(length * 1000)
        found.append(packet)
    return found


def tell_shape(path: Path, width: int, height: int, aspect: Fraction) -> None:
    """Write Matroska's displayed size, which PyAV cannot set, over the element of its colours."""
    # With a unit of 4, the displayed size would be unknown.
    data = bytearray(path.read_bytes().replace(b"\x54\xb2\x81\x04", b"\x54\xb2\x81\x00"))
    place = data.index(b"\x55\xb0")
    room = 3 + (data[place + 2] & 0x7F)
    shape = b"".join(
        bytes.fromhex(name) + b"\x82" + value.to_bytes(2)
        for name, value in (("54b0", width * aspect.numerator), ("54ba", height * aspect.denominator))
    )
    rest = room - len(shape)
    assert rest == 0 or rest >= 2, "no room for a displayed size"
    filling = b"\xec" + bytes([0x80 | (rest - 2)]) + bytes(rest - 2) if rest else b""
    data[place : place + room] = shape + filling
    path.write_bytes(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A track of sound."""

    codec: str
    times: list[float]
    packets: list[bytes]

    @property
    def body(self) -> str:
        return hashlib.sha256(b"".join(self.packets)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """All that a file holds; times in seconds on its own clock."""

    times: list[float]
    pictures: list[Any]
    """Decoded frames; of a long film the first only."""
    luma: list[str]
    """Hashes of all frames' luma."""
    end: float
    """When the last frame ends, as its packet says; NaN where it does not."""
    width: int
    height: int
    pixels: str
    aspect: Fraction
    rotation: int
    matrix: int
    range: int
    primaries: int
    transfer: int
    sounds: list[Sound]
    words: list[tuple[float, float, str]]
    """Of all text tracks."""
    kinds: list[tuple[str, str]]
    """(type, codec) of all streams."""
    start: float
    container: str


def read(path: Path, *, keep: bool = True) -> Film:
    """Decode everything; without `keep`, only the first picture is kept."""
    with av.open(str(path)) as container:
        videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        assert videos, (
            f"no film among {list(container.streams)} in {path.stat().st_size} bytes of {path}"
        )
        video = videos[0]
        if keep:
            video.codec_context.thread_count = 1
        else:
            video.thread_type = "AUTO"
        decoder = _with_opacity(video) if video.metadata.get("alpha_mode") == "1" else video
        frames: list[Any] = []
        shown: list[float] = []
        luma: list[str] = []
        ends: list[float] = []
        sounds: dict[int, Sound] = {}
        words: list[tuple[float, float, str]] = []
        for packet in container.demux():
            kind = packet.stream.type
            if packet.stream is video:
                if packet.size and packet.pts is not None:
                    ends.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
                    if not packet.duration:
                        ends.append(float("nan"))
                for frame in map(_planar, decoder.decode(packet if packet.size else None)):
                    shown.append(float(frame.pts * (frame.time_base or video.time_base)))
                    luma.append(hashlib.sha256(samples(frame, 0)).hexdigest())
                    if keep or not frames:
                        frames.append(frame)
            elif kind == "audio" and packet.size:
                own = sounds.setdefault(
                    packet.stream.index,
                    Sound(codec=packet.stream.codec_context.codec.canonical_name, times=[], packets=[]),
                )
                own.times.append(float(packet.pts * packet.time_base))
                own.packets.append(_bare(bytes(packet), own.codec))
            elif kind == "subtitle" and packet.size:
                words += _said(packet)
        first = frames[0]
        turned = first.rotation
        if decoder is not video:  # which does not hand the stream's rotation to its frames
            container.seek(0)
            turned = next(container.decode(video)).rotation
        kinds = [
            (s.type, s.codec_context.codec.canonical_name if s.codec_context else "")
            for s in container.streams
        ]
        return Film(
            times=shown, pictures=frames, luma=luma,
            end=max(ends) if ends and np.isfinite(ends).all() else float("nan"),
            width=first.width, height=first.height, pixels=first.format.name,
            aspect=video.sample_aspect_ratio or Fraction(1), rotation=turned % 360,
            matrix=int(first.colorspace), range=int(first.color_range),
            primaries=int(first.color_primaries), transfer=int(first.color_trc),
            sounds=[sounds[index] for index in sorted(sounds)], words=sorted(words), kinds=kinds,
            start=(container.start_time or 0) / av.time_base, container=container.format.name,
        )  # fmt: skip


def _with_opacity(video: Any) -> Any:
    """A decoder of VP8 or VP9 that shows opacity, which FFmpeg's own does not."""
    given = video.codec_context
    names = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
    decoder = av.CodecContext.create(names[given.codec.canonical_name], "r")
    decoder.extradata = given.extradata
    for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
        setattr(decoder, name, getattr(given, name))
    return decoder


def _planar(frame: Any) -> Any:
    return frame.reformat(format="yuv422p") if frame.format.name == "yuyv422" else frame


def _bare(packet: bytes, codec: str) -> bytes:
    """AAC in a transport stream has a header before each packet."""
    if codec == "aac" and packet[0] == 0xFF and packet[1] & 0xF6 == 0xF0:
        return packet[7 if packet[1] & 1 else 9 :]
    return packet


def _said(packet: Any) -> Iterator[tuple[float, float, str]]:
    """Begin, end and text of what a packet shows; of pictures, their bytes."""
    begin = float(packet.pts * packet.time_base)
    if packet.stream.codec_context.name == "dvbsub":
        yield begin, begin, bytes(packet).hex()
        return
    shown = packet.stream.codec_context.decode2(packet)
    for rect in shown or ():
        if rect.type in (b"ass", b"text"):
            line = rect.ass.decode() if rect.ass else rect.text.decode()
            text = re.sub(r"\{.*?\}", "", line.split(",", 8)[-1]).strip()
            length = (
                packet.duration * packet.time_base if packet.duration else shown.end_display_time / 1000
            )
            if text.strip():
                yield begin, begin + float(length), text


def samples(frame: Any, number: int) -> np.ndarray:
    """One plane's samples."""
    part = frame.format.components[number]
    plane = frame.planes[part.plane]
    rows = np.frombuffer(plane, np.uint8 if part.bits <= 8 else np.uint16).reshape(plane.height, -1)
    return rows[:, : plane.width].copy()
