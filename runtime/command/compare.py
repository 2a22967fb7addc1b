"""`velatura compare`: two videos side by side, as a PNG, a page with a slider, or a clip."""

import base64
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import typer

from ..backends.tuning import agreement_db
from ..cache import write_whole
from ..colour import to_rgb
from ..errors import SinkError, SourceError
from ..frame import Array, Frame, PixelFormat, VideoInfo
from ..sinks import open_sink
from ..sources import open_source
from ..stages import Resize

View = Literal["wipe", "side"]
"""`wipe`: the left half of one and the right half of the other; `side`: both whole."""

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
) -> None:
    """Write a .png of one moment, an .html page of several, or a clip of the whole.

    `at` are seconds; without it the middle, for a page evenly spread. The smaller picture is enlarged
    to the larger one, bicubically. Raises SourceError, and SinkError for a target that exists or has
    another suffix.
    """
    if target.exists() and not overwrite:
        raise SinkError(f"{target} exists: --overwrite replaces it")
    suffix = target.suffix.lower()
    if suffix == ".png":
        pairs = list(_pairs(first, second, at[:1] or _spread(first, 1)))
        _write_png(target, _joined(_only(pairs, first), view))
    elif suffix in (".html", ".htm"):
        pairs = list(_pairs(first, second, at or _spread(first, PAGE_PAIRS)))
        _only(pairs, first)
        write_whole(target, _page(first, second, pairs).encode())
    elif suffix:
        _write_clip(first, second, target, view, overwrite=overwrite)
        pairs = []
    else:
        raise SinkError(f"{target} needs a suffix: .png, .html, or that of a video")
    for pair in pairs:
        typer.echo(f"{pair.seconds:.2f} s: {agreement_db(pair.first, pair.second):.1f} dB apart")
    typer.echo(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def _only(pairs: list[Pair], first: str) -> Pair:
    if not pairs:
        raise SourceError(f"{first} has no frame at that time")
    return pairs[0]


def _spread(uri: str, count: int) -> list[float]:
    """Times that cut a video into equal parts."""
    with open_source(uri) as source:
        info = source.info
        length = info.duration or (info.frames or 0) / float(info.rate)
    return [length * (number + 1) / (count + 1) for number in range(count)]


def _pairs(first: str, second: str, times: Sequence[float]) -> Iterator[Pair]:
    """For each time the frames that both show then; times beyond the end show the last frame."""
    ones, twos = _shown(first, times), _shown(second, times)
    for seconds, one, two in zip(times, ones, twos, strict=False):
        left, right = _same_size(_rgb(one), _rgb(two))
        yield Pair(seconds, left, right)


def _shown(uri: str, times: Sequence[float]) -> list[Frame]:
    """The frame on the screen at each of the times, which grow."""
    found: list[Frame] = []
    wanted = sorted(times)
    last: Frame | None = None
    with open_source(uri) as source:
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


def _rgb(frame: Frame) -> Array:
    pixels = to_rgb(frame).planes[0]
    if frame.format.bits == 8:
        return pixels
    return np.right_shift(pixels, frame.format.bits - 8).astype(np.uint8)


def _same_size(one: Array, two: Array) -> tuple[Array, Array]:
    """Both at the larger of the sizes."""
    height, width = max(one.shape[0], two.shape[0]), max(one.shape[1], two.shape[1])
    enlarged = [
        picture
        if picture.shape[:2] == (height, width)
        else np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC))
        for picture in (one, two)
    ]
    return enlarged[0], enlarged[1]


def _joined(pair: Pair, view: View) -> Array:
    if view == "side":
        line = np.full((pair.first.shape[0], LINE, 3), 255, np.uint8)
        return np.ascontiguousarray(np.hstack([pair.first, line, pair.second]))
    middle = pair.first.shape[1] // 2
    joined = np.hstack([pair.first[:, :middle], pair.second[:, middle:]])
    joined[:, middle - LINE // 2 : middle + LINE // 2] = 255
    return np.ascontiguousarray(joined)


def _write_png(target: Path, picture: Array) -> None:
    write_whole(target, _png(picture))


def _png(picture: Array) -> bytes:
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    if not done:
        raise SinkError("a picture could not be encoded as PNG")
    return data.tobytes()


def _write_clip(first: str, second: str, target: Path, view: View, *, overwrite: bool) -> None:
    """Every frame of the first video beside what the second shows at its time."""
    with open_source(first) as one, open_source(second) as two:
        width, height = _larger(one.info, two.info)
        joined = width * 2 + LINE if view == "side" else width
        like = replace(one.info, width=joined, height=height, audio=(), path=None, aspect=Fraction(1))
        fit = Resize(width, height)
        later = iter(two)
        shown, coming = next(later, None), next(later, None)
        if shown is None:
            raise SourceError(f"{second} holds no frame that can be decoded")
        with open_sink(target, like=_Like(like), overwrite=overwrite) as sink:
            for frame in one:
                seconds = float(frame.pts * frame.time_base)
                while coming is not None and float(coming.pts * coming.time_base) <= seconds + 1e-6:
                    shown, coming = coming, next(later, None)
                pair = Pair(seconds, _rgb(fit(frame)), _rgb(fit(shown)))
                result = _joined(pair, view)
                sink.write(
                    replace(frame.with_planes((result,), PixelFormat("rgb")), aspect=Fraction(1))
                )


@dataclass(slots=True)
class _Like:
    info: VideoInfo


def _larger(one: VideoInfo, two: VideoInfo) -> tuple[int, int]:
    return max(one.width, two.width), max(one.height, two.height)


def _page(first: str, second: str, pairs: Sequence[Pair]) -> str:
    """One file that needs nothing else: pictures inside, a slider for each pair, keys included."""
    names = html.escape(Path(first).name), html.escape(Path(second).name)
    blocks = "\n".join(
        PAIR.format(
            seconds=f"{pair.seconds:.2f}",
            decibels=f"{agreement_db(pair.first, pair.second):.1f}",
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
