"""The live picture as JPEG files, for pages that cannot get it by WebRTC."""

import asyncio
from concurrent.futures import Executor

from .pictures import Newest, jpeg, shown

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
