"""A virtual camera, which other programs use like a real one, by pyvirtualcam."""

from importlib import import_module
from typing import Any

import numpy as np

from ..colour import to_rgb8
from ..errors import SinkError
from ..frame import Frame
from .base import Delivery, Sink
from .kind import Writing


def open_live(uri: str, writing: Writing) -> Sink:
    """Open `virtual:[DEVICE]`. Raises SinkError."""
    return VirtualCameraSink(uri.partition(":")[2] or None, rate=float(writing.like.rate))


class VirtualCameraSink(Sink):
    """Frames into a device of v4l2loopback (Linux), OBS (Windows, macOS) or Unity Capture (Windows)."""

    delivery = Delivery(asks=False)

    def __init__(self, device: str | None = None, *, rate: float) -> None:
        """`device` is a path such as /dev/video2; None takes the first. Raises SinkError without the
        package."""
        self.uri = f"virtual:{device or ''}"
        self._device = device
        self._rate = rate
        self._camera: Any = None
        try:
            self._library: Any = import_module("pyvirtualcam")
        except ImportError as error:
            raise SinkError(
                "a virtual camera needs pyvirtualcam: pip install 'velatura[live]'"
            ) from error

    def write(self, frame: Frame) -> None:
        if self._camera is None:
            self._camera = self._open(frame.width, frame.height)
        if (self._camera.width, self._camera.height) != (frame.width, frame.height):
            raise SinkError(
                f"a virtual camera cannot change from {self._camera.width}x{self._camera.height} to "
                f"{frame.width}x{frame.height}"
            )
        self._camera.send(np.ascontiguousarray(to_rgb8(frame)))
        self.frames += 1

    def close(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    def abort(self) -> None:
        self.close()

    def _open(self, width: int, height: int) -> Any:
        try:
            return self._library.Camera(width=width, height=height, fps=self._rate, device=self._device)
        except (RuntimeError, ValueError) as error:
            raise SinkError(
                f"no virtual camera: {error}. On Linux load v4l2loopback (modprobe v4l2loopback), on "
                "Windows and macOS install OBS"
            ) from error
