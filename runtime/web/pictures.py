"""Pictures for the page: the newest frame, upright, with square pixels, as JPEG, PNG, H.264 or VP8."""

import asyncio
import threading
from concurrent.futures import Executor
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal, cast

import av
import cv2
import numpy as np
from av.codec.context import CodecContext
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from ..colour import to_rgb, to_yuv
from ..errors import SinkError
from ..frame import YUV420P, Colour, Frame
from ..stages.geometry import Resize, Upright


class Newest:
    """The newest frame: set by any thread and awaited in one event loop. Holds one: there is no
    queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._serial = 0
        self._told = False
        self._event = asyncio.Event()

    def put(self, frame: Frame) -> None:
        """Replace the frame; never waits."""
        with self._lock:
            self._frame = frame
            self._serial += 1
            if self._told:
                return
            self._told = True
        self._loop.call_soon_threadsafe(self._tell)

    @property
    def frame(self) -> Frame | None:
        """The newest frame; None before the first."""
        return self._frame

    async def after(self, serial: int) -> tuple[int, Frame]:
        """Returns the newest frame and its number, as soon as there is one after number `serial`."""
        while True:
            event = self._event
            with self._lock:
                if self._frame is not None and self._serial > serial:
                    return self._serial, self._frame
            await event.wait()

    def _tell(self) -> None:
        with self._lock:
            self._told = False
        event, self._event = self._event, asyncio.Event()
        event.set()


Codec = Literal["H264", "VP8"]
CLOCK = 90_000
"""Ticks a second of RTP's clock for video (RFC 6184, RFC 7741)."""
JPEG_QUALITY = 88
LARGEST = 800_000
"""Approximate bits of a key frame at most."""

_PRIMARIES = {"bt601": 6, "bt709": 1, "bt2020": 9}
_MATRICES = {"bt601": 6, "bt709": 1, "bt2020": 9}
"""H.273 code points."""


def shown(frame: Frame, longest: int) -> Frame:
    """Returns the frame as a page shows it: 8 bits, upright, square pixels, even sides of up to
    `longest` pixels."""
    frame = Upright()(replace(frame, alpha=None, depth=None, motion=None))
    factor = min(1.0, longest / max(frame.width, frame.height))
    width, height = (max(2, 2 * round(side * factor / 2)) for side in (frame.width, frame.height))
    return Resize(width, height)(frame)


def jpeg(frame: Frame) -> bytes:
    """Returns a frame of any format as JPEG."""
    return _file(".jpg", _bgr(frame, 8), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def png(frame: Frame) -> bytes:
    """Returns a frame of any format as PNG at its full size, with 16 bits where it has more than 8."""
    frame = Upright()(replace(frame, alpha=None, depth=None, motion=None))
    pixels = _bgr(frame, 8 if frame.format.bits == 8 else 16)
    return _file(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def _bgr(frame: Frame, bits: int) -> "np.ndarray[Any, np.dtype[Any]]":
    rgb = to_rgb(frame)
    pixels = rgb.planes[0]
    if rgb.format.bits != bits:
        ratio = ((1 << bits) - 1) / rgb.format.peak
        pixels = np.rint(pixels * np.float32(ratio)).astype(np.uint8 if bits == 8 else np.uint16)
    return cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)


def _file(kind: str, pixels: "np.ndarray[Any, np.dtype[Any]]", options: list[int]) -> bytes:
    done, data = cv2.imencode(kind, pixels, options)
    if not done:
        raise SinkError(f"OpenCV could not write a picture of {pixels.shape[1]}x{pixels.shape[0]}")
    return data.tobytes()


class Coder:
    """Encodes frames of one size as a video stream without reordering or look-ahead.

    H.264 takes 1.4 ms for 640x360 and 5.5 ms for 1280x720 on one core, VP8 2.7 ms and 9.3 ms.
    """

    def __init__(self, codec: Codec, width: int, height: int) -> None:
        self.codec: Codec = codec
        self.size = width, height
        self._colour: Colour | None = None
        self._context: VideoCodecContext | None = None

    def encode(self, frame: Frame, *, pts: int, key: bool) -> tuple[bytes, bool]:
        """Encodes one frame of this coder's size, `pts` in ticks of `CLOCK`; as a key frame if `key`.

        Its data, and whether they are a whole picture.
        """
        # VP8 cannot state colours other than BT.601 (RFC 6386, 9.2): players assume it.
        colour = Colour() if frame.format.family == "rgb" else frame.colour
        if self.codec == "VP8":
            colour = Colour(matrix="bt601")
        yuv = to_yuv(frame, YUV420P, colour)
        if self._context is None or colour != self._colour:
            self._context, self._colour = _context(self.codec, self.size, colour), colour
        picture = _picture(yuv)
        picture.pts, picture.time_base = pts, Fraction(1, CLOCK)
        picture.pict_type = PictureType.I if key else PictureType.NONE
        data, whole = b"", False
        for packet in cast("list[Packet[Any]]", self._context.encode(picture)):
            data += bytes(packet)
            whole |= packet.is_keyframe
        return data, whole


def _context(codec: Codec, size: tuple[int, int], colour: Colour) -> VideoCodecContext:
    # A quarter of a bit for each pixel at 30 fps, which a page on the same machine or network can have.
    rate = int(np.clip(size[0] * size[1] * 30 * 0.25, 1e6, 10e6))
    context = CodecContext.create("libx264" if codec == "H264" else "libvpx", "w")
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.time_base, context.framerate = Fraction(1, CLOCK), Fraction(30)
    context.thread_count = 1
    context.gop_size = 300
    # A whole picture must fit a socket's buffer, and aiortc's memory for sending again what was lost,
    # 128 packets of 1300 bytes: 100 kB.
    common = {"maxrate": str(rate), "bufsize": str(min(rate // 2, LARGEST))}
    if codec == "VP8":
        context.bit_rate = rate
        context.options = common | {
            "deadline": "realtime", "cpu-used": "-8", "lag-in-frames": "0",
            "error-resilient": "default", "max-intra-rate": str(100 * LARGEST * 30 // rate),
        }  # fmt: skip
        return context
    context.color_range = 1 if colour.range == "limited" else 2
    context.colorspace = _MATRICES[colour.matrix]
    context.color_primaries = colour.primaries if colour.primaries != 2 else _PRIMARIES[colour.matrix]
    context.color_trc = colour.transfer if colour.transfer != 2 else 1
    context.profile = "Baseline"
    context.options = common | {
        "preset": "ultrafast", "tune": "zerolatency", "crf": "20", "forced-idr": "1",
    }  # fmt: skip
    return context


def _picture(frame: Frame) -> av.VideoFrame:
    picture = av.VideoFrame(frame.width, frame.height, "yuv420p")
    for plane, target in zip(frame.planes, picture.planes, strict=True):
        rows = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
        rows[: plane.shape[0], : plane.shape[1]] = plane
    return picture


IN_FLIGHT = 2
"""Pictures that a page may have been sent and not yet shown: one that it draws, one on the way."""


class Jpegs:
    """Encodes each frame at most once, and only if a page waits for it."""

    def __init__(self, newest: Newest, executor: Executor, *, longest: int) -> None:
        self._newest, self._executor, self._longest = newest, executor, longest
        self._lock = asyncio.Lock()
        self._serial, self._data = 0, b""

    async def after(self, serial: int) -> tuple[int, bytes]:
        """Returns the newest picture and its number, as soon as there is one after number `serial`."""
        found, frame = await self._newest.after(serial)
        async with self._lock:
            if self._serial < found:
                loop = asyncio.get_running_loop()
                self._data = await loop.run_in_executor(
                    self._executor, lambda: jpeg(shown(frame, self._longest))
                )
                self._serial = found
            return self._serial, self._data


class Feed:
    """Sends one page the newest picture, whenever it has shown the one before the last."""

    def __init__(self, jpegs: Jpegs) -> None:
        self._jpegs = jpegs
        self._sent = 0
        self._flying: list[int] = []
        self._landed = asyncio.Event()
        self._landed.set()

    def shown(self, serial: int) -> None:
        """Note that the page is done with a picture, and with those before it."""
        self._flying = [number for number in self._flying if number > serial]
        self._landed.set()

    async def next(self) -> bytes:
        """Returns the next picture: its number in four bytes, the highest first, and the JPEG file."""
        while len(self._flying) >= IN_FLIGHT:
            self._landed.clear()
            await self._landed.wait()
        self._sent, data = await self._jpegs.after(self._sent)
        self._flying.append(self._sent)
        return (self._sent & 0xFFFFFFFF).to_bytes(4, "big") + data
