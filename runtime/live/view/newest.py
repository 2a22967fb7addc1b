"""Newest: the last frame that came, for any number of viewers of any speed."""

import asyncio
import threading

from ...frame import Frame


class Newest:
    """Frames come from any thread and are awaited in one event loop. Holds one: there is no queue."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._serial = 0
        self._told = False
        self._event = asyncio.Event()

    def put(self, frame: Frame) -> None:
        """Replace what is there; never waits."""
        with self._lock:
            self._frame = frame
            self._serial += 1
            if self._told:
                return
            self._told = True
        self._loop.call_soon_threadsafe(self._tell)

    @property
    def frame(self) -> Frame | None:
        """The last one; None before the first."""
        return self._frame

    async def after(self, serial: int) -> tuple[int, Frame]:
        """The newest frame and its number, as soon as there is one after number `serial`."""
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
