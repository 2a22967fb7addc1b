"""Packets of sound and subtitles: cut, measured, and given the durations that they lack."""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.packet import Packet

Timed = tuple[float, "Packet[Any]"]
"""A packet with the seconds of the output at which it begins."""


def end_of(timed: Timed) -> float:
    """Returns the seconds at which a packet ends."""
    return timed[0] + float((timed[1].duration or 0) * timed[1].time_base)


def is_plain(codec: str) -> bool:
    """Returns whether sound is bare samples, so that a packet can be cut anywhere."""
    return _sample_bytes(codec) > 0


def _sample_bytes(codec: str) -> int:
    """Returns the bytes of one sample of one channel; 0 of what is not bare samples, one after
    another."""
    found = re.fullmatch(r"pcm_(?:[sufx](\d+)(?:le|be)?|alaw|mulaw)", codec)
    return 0 if found is None else int(found[1] or 8) // 8


def sliced(packet: "Packet[Any]", first: int, last: int | None) -> "Packet[Any]":
    """Returns some samples of a packet of bare ones, at their time."""
    context: Any = packet.stream.codec_context
    block = _sample_bytes(context.codec.canonical_name) * context.channels
    rate, base = context.sample_rate, packet.time_base
    data = bytes(packet)[first * block : None if last is None else last * block]
    cut: Packet[Any] = Packet(data)
    cut.stream, cut.time_base, cut.is_keyframe = packet.stream, base, True
    cut.pts = cut.dts = (packet.pts or 0) + round(Fraction(first, rate) / base)
    cut.duration = round(Fraction(len(data) // block, rate) / base)
    return cut


def without_start(packet: "Packet[Any]", seconds: float) -> "Packet[Any]":
    """Returns a packet of bare samples without its first seconds; it begins at 0 then."""
    context: Any = packet.stream.codec_context
    cut = sliced(packet, round(seconds * context.sample_rate), None)
    cut.pts = cut.dts = 0
    return cut


def shortened(packet: "Packet[Any]", seconds: float) -> "Packet[Any]":
    """Returns a packet that lasts so many seconds at most, where that can be done to it."""
    codec: Any = packet.stream.codec_context
    if packet.stream.type == "subtitle" and packet.duration:
        packet.duration = min(packet.duration, round(seconds / packet.time_base))
    elif packet.stream.type == "audio" and is_plain(codec.codec.canonical_name):
        return sliced(packet, 0, round(seconds * codec.sample_rate))
    return packet


def heard_from(frame: Any, ticks: int) -> Any:
    """Returns a piece of sound without its first ticks; None where nothing is left of it."""
    first = round(ticks * frame.time_base * frame.sample_rate)
    if first >= frame.samples:
        return None
    samples = frame.to_ndarray()
    step = 1 if frame.format.is_planar else frame.layout.nb_channels
    left = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples[:, first * step :]),
        format=frame.format.name,
        layout=frame.layout.name,
    )
    left.sample_rate, left.time_base, left.pts = frame.sample_rate, frame.time_base, 0
    return left


def silence(like: Any, ticks: int) -> Any:
    """Returns silence of that length before a frame of sound, in its form."""
    samples = max(round(ticks * like.time_base * like.sample_rate), 1)
    made = av.AudioFrame(format=like.format.name, layout=like.layout.name, samples=samples)
    level = b"\x80" if like.format.name.startswith("u8") else b"\0"
    for plane in made.planes:
        plane.update(level * plane.buffer_size)
    made.sample_rate, made.time_base, made.pts = like.sample_rate, like.time_base, like.pts - ticks
    return made


def with_times(packets: "list[Packet[Any]]") -> Iterator[Timed]:
    """Yields an encoder's packets with the seconds at which they begin."""
    for packet in packets:
        if packet.size:  # FLAC's last one has none
            yield float((packet.dts or 0) * packet.time_base), packet


def lasting(packets: Iterator[Any]) -> Iterator[Any]:
    """Yields the packets, those of sound with a duration: MP4 drops a last one that has none."""
    held: dict[int, Any] = {}
    steps: dict[int, int] = {}
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            break  # a damaged end; the video's reader reports it
        if packet is None:
            break
        if packet.size == 0:
            continue
        index = packet.stream.index
        before = held.pop(index, None)
        if before is not None:
            step = (packet.dts or 0) - before.dts
            before.duration = steps[index] = step if step > 0 else steps.get(index, 0)
            yield before
        if packet.stream.type == "audio" and not packet.duration and packet.dts is not None:
            held[index] = packet
        else:
            yield packet
    for index, packet in held.items():
        context = packet.stream.codec_context
        size, rate = getattr(context, "frame_size", 0), getattr(context, "sample_rate", 0)
        alone = round(Fraction(size, rate) / packet.time_base) if size and rate else 0
        packet.duration = steps.get(index) or alone
        yield packet
