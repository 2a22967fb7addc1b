"""`velatura compare`: two videos side by side, as a PNG, a page with a slider, or a clip."""

import base64
import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import typer

from ..backends.precision_choice import psnr
from ..cache import write_whole
from ..colour import to_rgb
from ..errors import SinkError, SourceError
from ..frame import Array, Frame, PixelFormat, VideoInfo
from ..sinks import open_sink
from ..sinks.base import PICTURES
from ..sources import Source, open_source
from ..stages import Resize, Upright
from .job import Job

View = Literal["wipe", "side"]
"""The layout of both pictures. `wipe`: the left half of one and the right half of the other; `side`:
both whole."""

PAGES = (".html", ".htm")
VIDEOS = (".mp4", ".mkv", ".mov", ".m4v", ".webm", ".avi", ".ts", ".m2ts", ".gif", ".nut", ".ogv")
PAGE_PAIRS = 6
LINE = 2
"""Pixels of the line between the halves."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The frames of both videos at one time, at one size, in 8-bit RGB."""

    seconds: float
    first: Array
    second: Array


def compare(
    first: str,
    second: str,
    target: Path,
    *,
    at: Sequence[float] = (),
    view: View = "wipe",
    overwrite: bool = False,
    say: Callable[[str], None] = typer.echo,
    start: str | None = None,
    end: str | None = None,
) -> None:
    """Write a .png of one moment, an .html page of several, or a clip of the whole.

    `at` are seconds; without it the middle, for a page evenly spread. The smaller picture is enlarged
    to the larger one, bicubically; both are shown upright and in square pixels. `say` is called with
    the closing lines. `start` and `end` are the part of `first` of which `second` was made. Raises
    SourceError, and SinkError for a target that exists or has another suffix.
    """
    check_target(target, overwrite=overwrite)
    suffix = target.suffix.lower()
    opened = partial(open_source, start=start, end=end)
    if suffix == ".png":
        pairs = list(_pairs(first, second, at[:1] or _spread(first, second, 1, opened), opened))
        write_png(target, joined(_only(pairs, first), view))
    elif suffix in PAGES:
        pairs = list(_pairs(first, second, at or _spread(first, second, PAGE_PAIRS, opened), opened))
        _only(pairs, first)
        write_whole(target, _page(first, second, pairs).encode())
    else:
        _write_clip(first, second, target, view, opened, overwrite=overwrite)
        pairs = []
    for pair in pairs:
        say(f"{pair.seconds:.2f} s: {psnr(pair.first, pair.second):.1f} dB apart")
    say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise SinkError where `compare` would refuse to write that file."""
    if target.exists() and not overwrite:
        raise SinkError(f"{target} exists: --overwrite replaces it")
    if target.suffix.lower() not in (".png", *PAGES, *VIDEOS):
        raise SinkError(f"{target} needs a suffix: .png, .html, or that of a video such as .mp4")
    if not target.parent.is_dir():
        raise SinkError(f"no folder {target.parent}: create it first")


def check_comparison(job: Job, target: Path) -> None:
    """Raise SinkError where a run could not be compared with its source in that file afterwards."""
    check_target(target, overwrite=job.overwrite)
    suffix = Path(job.sink).suffix.lower()
    if job.source == "-" or job.sink in ("-", "null:") or suffix in PICTURES:
        raise SinkError("--compare reads SOURCE and SINK again: both must be files, SINK a video")
    if target.resolve() in (Path(job.sink).resolve(), Path(job.source).resolve()):
        raise SinkError(f"{target} is the input or the output itself: --compare needs another file")


def _only(pairs: list[Pair], first: str) -> Pair:
    if not pairs:
        raise SourceError(f"{first} has no frame at that time")
    return pairs[0]


Opened = Callable[[str], Source]


def _spread(first: str, second: str, count: int, opened: Opened) -> list[float]:
    """Returns times that cut the common length of both videos into equal parts."""
    length = min(filter(None, (_length(first, opened), _length(second))), default=0.0)
    return [length * (number + 1) / (count + 1) for number in range(count)]


def _length(uri: str, opened: Opened = open_source) -> float:
    """Returns the video's seconds; 0 where the file does not state them."""
    with opened(uri) as source:
        info = source.info
        return info.duration or (info.frames or 0) / float(info.rate)


def _pairs(first: str, second: str, times: Sequence[float], opened: Opened) -> Iterator[Pair]:
    """Yields the frames that both show at each time; times beyond the end show the last frame."""
    ones, twos = shown_at(first, times, opened), shown_at(second, times)
    for seconds, one, two in zip(times, ones, twos, strict=False):
        left, right = same_size(rgb8(one), rgb8(two))
        yield Pair(seconds, left, right)


def shown_at(uri: str, times: Sequence[float], opened: Opened = open_source) -> list[Frame]:
    """Returns the frame that is shown at each of the times, which increase. Raises SourceError."""
    found: list[Frame] = []
    wanted = sorted(times)
    last: Frame | None = None
    with opened(uri) as source:
        for frame in source:
            seconds = float(frame.pts * frame.time_base)
            while last is not None and len(found) < len(wanted) and seconds > wanted[len(found)] + 1e-6:
                found.append(last)
            if len(found) == len(wanted):
                return found
            last = frame
    if last is None:
        raise SourceError(f"{uri} holds no frame that can be decoded")
    return found + [last] * (len(wanted) - len(found))


def rgb8(frame: Frame) -> Array:
    """Returns the frame as a screen shows it, upright and in square pixels: (H, W, 3) uint8."""
    frame = Upright()(frame)
    pixels = to_rgb(frame).planes[0]
    if frame.format.bits == 8:
        return pixels
    return np.right_shift(pixels, frame.format.bits - 8).astype(np.uint8)


def same_size(one: Array, two: Array) -> tuple[Array, Array]:
    """Returns two (H, W, 3) uint8 pictures at the larger of their sizes."""
    height, width = max(one.shape[0], two.shape[0]), max(one.shape[1], two.shape[1])
    enlarged = [
        picture
        if picture.shape[:2] == (height, width)
        else np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC))
        for picture in (one, two)
    ]
    return enlarged[0], enlarged[1]


def joined(pair: Pair, view: View) -> Array:
    """Returns one (H, W, 3) uint8 picture of both, with a white line between them."""
    if view == "side":
        line = np.full((pair.first.shape[0], LINE, 3), 255, np.uint8)
        return np.ascontiguousarray(np.hstack([pair.first, line, pair.second]))
    middle = pair.first.shape[1] // 2
    halves = np.hstack([pair.first[:, :middle], pair.second[:, middle:]])
    halves[:, middle - LINE // 2 : middle + LINE // 2] = 255
    return np.ascontiguousarray(halves)


def labelled(picture: Array, text: str) -> Array:
    """Returns a copy of an (H, W, 3) uint8 picture with a line of text on a dark patch at the lower
    left."""
    result = np.ascontiguousarray(picture).copy()
    height, width = result.shape[:2]
    font, weight = cv2.FONT_HERSHEY_SIMPLEX, max(round(height / 240), 1)
    (wide, _), _ = cv2.getTextSize(text, font, 1.0, weight)
    scale = min(height / 400, 0.9 * width / wide)
    (wide, high), below = cv2.getTextSize(text, font, scale, weight)
    gap = high // 2 + 1
    top, right = max(height - high - below - 2 * gap, 0), min(wide + 2 * gap, width)
    result[top:, :right] //= 4
    place = (gap, height - below - gap)
    cv2.putText(result, text, place, font, scale, (255, 255, 255), weight, cv2.LINE_AA)
    return result


def write_png(target: Path, picture: Array) -> None:
    """Write an (H, W, 3) uint8 picture into a PNG file, atomically."""
    write_whole(target, _png(picture))


def _png(picture: Array) -> bytes:
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    if not done:
        raise SinkError("a picture could not be encoded as PNG")
    return data.tobytes()


def _write_clip(
    first: str, second: str, target: Path, view: View, opened: Opened, *, overwrite: bool
) -> None:
    """Write every frame of the first video beside the second's at its time, while both last."""
    upright = Upright()
    with opened(first) as one, open_source(second) as two:
        ones, twos = map(upright, one), map(upright, two)
        begin, shown = next(ones, None), next(twos, None)
        if begin is None or shown is None:
            raise SourceError(
                f"{first if begin is None else second} holds no frame that can be decoded"
            )
        width, height = max(begin.width, shown.width), max(begin.height, shown.height)
        across = width * 2 + LINE if view == "side" else width
        fit, coming = Resize(width, height), next(twos, None)
        with open_sink(
            target, like=_Like(_plain(one.info, across, height)), overwrite=overwrite
        ) as sink:
            for frame in chain((begin,), ones):
                seconds = float(frame.pts * frame.time_base)
                while coming is not None and float(coming.pts * coming.time_base) <= seconds + 1e-6:
                    shown, coming = coming, next(twos, None)
                # Some containers round times to milliseconds.
                if coming is None and seconds > shown.seconds + float(1 / two.info.rate) - 2e-3:
                    break
                pair = Pair(seconds, rgb8(fit(frame)), rgb8(fit(shown)))
                result = frame.with_planes((joined(pair, view),), PixelFormat("rgb"))
                sink.write(replace(result, aspect=Fraction(1), alpha=None))


@dataclass(slots=True)
class _Like:
    info: VideoInfo


def _plain(info: VideoInfo, width: int, height: int) -> VideoInfo:
    """Returns the rate and clock of a video, without facts about its pixels or its other streams."""
    return VideoInfo(
        width=width,
        height=height,
        format=PixelFormat("rgb"),
        rate=info.rate,
        time_base=info.time_base,
        frames=info.frames,
        duration=info.duration,
        files=info.files,
    )


def _page(first: str, second: str, pairs: Sequence[Pair]) -> str:
    """Returns a self-contained page: pictures inside, a slider for each pair, keyboard included."""
    names = html.escape(Path(first).name), html.escape(Path(second).name)
    blocks = "\n".join(
        PAIR.format(
            seconds=f"{pair.seconds:.2f}",
            decibels=f"{psnr(pair.first, pair.second):.1f}",
            width=pair.first.shape[1],
            height=pair.first.shape[0],
            first=base64.b64encode(_png(pair.first)).decode(),
            second=base64.b64encode(_png(pair.second)).decode(),
            left=names[0],
            right=names[1],
        )
        for pair in pairs
    )
    return PAGE.format(left=names[0], right=names[1], blocks=blocks)


PAIR = """<figure>
<div class="pair" style="aspect-ratio: {width} / {height}; max-width: {width}px">
<img src="data:image/png;base64,{second}" alt="{right} at {seconds} s">
<img class="over" src="data:image/png;base64,{first}" alt="{left} at {seconds} s">
<input type="range" min="0" max="100" value="50" aria-label="{left} against {right} at {seconds} s"
 oninput="this.parentNode.style.setProperty('--at', this.value + '%')">
</div>
<figcaption>{seconds} s, {decibels} dB apart</figcaption>
</figure>"""

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{left} | {right}</title>
<style>
body {{ margin: 2rem auto; max-width: 96vw; font: 1rem/1.5 system-ui;
 background: #181818; color: #ddd }}
figure {{ margin: 0 auto 2rem; width: fit-content; max-width: 100% }}
.pair {{ position: relative; width: 96vw; --at: 50% }}
.pair img {{ position: absolute; inset: 0; width: 100%; height: 100% }}
.over {{ clip-path: inset(0 calc(100% - var(--at)) 0 0) }}
.pair::after {{ content: ""; position: absolute; top: 0; bottom: 0; left: var(--at); width: 2px;
 background: #fff; pointer-events: none }}
input {{ position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0;
 cursor: ew-resize }}
.pair:focus-within {{ outline: 2px solid #6af }}
</style>
<h1>{left} | {right}</h1>
{blocks}
</html>
"""
