"""Estimates for a whole run from its sample: seconds, bytes, room on the disk; and the same in
words."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from ..media.passthrough import Passage
from ..media.pyav import open_input
from .dry_run_sample import Excerpt, Sample

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
    with open_input(source) as container:
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


def lines_of(report: dict[str, Any]) -> list[str]:
    """Returns the lines of `dry_run.run_preflight`'s report for a person."""
    given, made = report["input"], report["output"]
    flags = [name for name in ("hdr", "alpha", "interlaced") if given[name]]
    told = [
        f"{report['source']} -> {report['sink']}, tried on {report['sampled_frames']} frames",
        f"  in       {given['size']} {given['format']}, {given['codec']}, {_rate(given['rate'])} fps, "
        + ", ".join([given["colour"], *flags]),
        f"  out      {made['size']} {made['format']}" + (f", {made['codec']}" if made["codec"] else ""),
        *(f"  model    {m['name']}: {m['backend']}, {m['precision']}" for m in report["models"]),
        *([f"  steady   --stabilize {report['stabilize']:g}"] if report["stabilize"] else []),
        f"  length   {_length(report)}",
        f"  time     {_time(report)}",
    ]
    if report["sink"] != "null:":
        told.append(f"  size     {_size(report)}")
    if report["peak_memory_mib"] is not None:
        told.append(f"  memory   {report['peak_memory_mib']:.0f} MiB at most so far")
    if report["sink"] not in ("null:", "-"):
        told.append(f"  journal  {'kept beside the output' if report['journal'] else 'none'}")
    told += [f"  beside   {line}" for line in report["streams"]]
    return [*told, *(f"  still    {still}" for still in report["stills"])]


def _rate(text: str) -> str:
    top, _, bottom = text.partition("/")
    return f"{int(top) / int(bottom or 1):.3f}".rstrip("0").rstrip(".")


def _length(report: dict[str, Any]) -> str:
    if report["frames"] is None:
        return "unknown"
    return f"{report['frames']} frames, {time_in_words(report['duration'])}"


def _time(report: dict[str, Any]) -> str:
    rate = f"{report['fps']:.1f} fps"
    if report["seconds"] is None:
        return f"unknown, at {rate}"
    likely, least, most = (
        time_in_words(report["seconds"][name]) for name in ("likely", "least", "most")
    )
    return f"about {likely} left ({least} to {most}), at {rate}"


def _size(report: dict[str, Any]) -> str:
    free = report["free_bytes"]
    room = "" if free is None else f"; {bytes_in_words(free)} are free"
    if report["output_bytes"] is None:
        return f"unknown{room}"
    likely, least, most = (
        bytes_in_words(report["output_bytes"][n]) for n in ("likely", "least", "most")
    )
    need = report["needed_bytes"]
    with_journal = f", {bytes_in_words(need)} with the journal" if report["journal"] and need else ""
    return f"about {likely} ({least} to {most}{with_journal}){room}"


def shortage_of(report: dict[str, Any]) -> str:
    """Returns the warning that the output may not fit."""
    journal = " with its journal" if report["journal"] else ""
    return (
        f"{report['sink']} may need {bytes_in_words(report['needed_bytes'])}{journal}, and "
        f"{bytes_in_words(report['free_bytes'])} are free: make room, or choose another folder"
    )


def time_in_words(seconds: float) -> str:
    """Returns a duration as `1:02:03` or `0:07`; tenths below ten seconds."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def bytes_in_words(size: float) -> str:
    """Returns a size as `12 kB`, `3.2 MB` or `1.4 GB`."""
    if size < 1e6:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
