"""Engines that do what a test tells them, and frames for them."""

import threading
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from velatura.runtime.backends import Engine
from velatura.runtime.card import ModelCard
from velatura.runtime.errors import EngineError
from velatura.runtime.frame import RGB, YUV420P, Array, Colour, Frame, PixelFormat, VideoInfo


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def frame(index: int = 0, size: tuple[int, int] = (128, 96), format: PixelFormat = YUV420P) -> Frame:
    """A picture with edges that moves by two pixels a frame."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    unit = format.peak / 255
    luma = 126 + 60 * np.sin((x - 2 * index) / 9) * np.cos(y / 13)
    luma = (luma * unit).astype(format.dtype)
    planes: tuple[Array, ...] = (luma,)
    if format.family == "rgb":
        planes = (np.dstack([luma, luma[::-1], luma // 2 + 20]),)
    elif format.family == "yuv":
        chroma = format.chroma_size(width, height)
        planes += tuple(
            np.full(chroma[::-1], round(level * unit), format.dtype) for level in (100, 150)
        )
    return Frame(
        planes=planes, format=format, pts=index, time_base=Fraction(1, 30), index=index,
        colour=Colour(range="full"), captured=time.monotonic(),
    )  # fmt: skip


def info_of(one: Frame) -> VideoInfo:
    return VideoInfo(
        width=one.width, height=one.height, format=one.format, rate=Fraction(30),
        time_base=one.time_base, colour=one.colour,
    )  # fmt: skip


STYLE = ModelCard(name="negative", task="style", dtype="uint8", layout="nhwc")
LUMA = ModelCard(
    name="bright", task="upscale", input_colour="luma", output_colour="luma", dtype="uint8", scale=2
)


class Negative(Engine):
    """Turns pictures to their negative after `seconds`; fails, hangs and counts as told."""

    def __init__(self, card: ModelCard = STYLE, *, seconds: float = 0.0) -> None:
        super().__init__(card, backend="test", precision="exact", in_flight=1)
        self.seconds = seconds
        self.fail: str | None = None
        self.hang: threading.Event | None = None
        self.calls: list[tuple[int, ...]] = []
        self.closed = False

    def submit(self, image: Array, bits: int = 8) -> Callable[[], Array]:
        assert not self.closed
        self.calls.append(image.shape)
        if self.hang is not None:
            self.hang.wait(30)
        if self.fail is not None:
            raise EngineError(self.fail)
        if self.seconds:
            # As a network's: by the number of pixels.
            time.sleep(self.seconds * image.shape[0] * image.shape[1] / (128 * 96))
        made = (1 << bits) - 1 - image
        if self.card.scale > 1:
            made = made.repeat(self.card.scale, 0).repeat(self.card.scale, 1)
        return lambda: made

    def close(self) -> None:
        self.closed = True


class Shelf:
    """What opens engines by name, and remembers them."""

    def __init__(self, **cards: ModelCard) -> None:
        self.cards = {"negative": STYLE, "double": LUMA, **cards}
        self.opened: list[Negative] = []
        self.refuse: str | None = None
        self.seconds = 0.0
        self.slow: threading.Event | None = None

    def __call__(self, name: str) -> Negative:
        if self.slow is not None:
            self.slow.wait(10)
        if self.refuse is not None:
            raise EngineError(self.refuse)
        if name not in self.cards:
            raise EngineError(f"no model is called {name}")
        self.opened.append(Negative(self.cards[name], seconds=self.seconds))
        return self.opened[-1]


__all__ = ["RGB", "Negative", "Shelf", "frame", "info_of", "wait_until"]
