"""FramesSink: the frames of a live run in an `async for`."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..frame import Frame
from ..sinks import Sink
from .output import Mailbox

if TYPE_CHECKING:
    from .pump import LivePump


class FramesSink(Sink):
    """Hands frames to a coroutine; the newest replaces older ones while that is busy.

    ```
    frames = FramesSink()
    pump = LivePump(source, processor, [frames])
    async for frame in frames.of(pump):
        ...
    ```
    """

    def __init__(self) -> None:
        self.uri = "frames:"
        self._mailbox = Mailbox[Frame]()

    @property
    def dropped(self) -> int:
        """The number of frames that a newer one replaced."""
        return self._mailbox.dropped

    def write(self, frame: Frame) -> None:
        self._mailbox.put(frame)
        self.frames += 1

    def close(self) -> None:
        self._mailbox.close()

    def abort(self) -> None:
        self._mailbox.close(drop=True)

    async def of(self, pump: "LivePump") -> AsyncIterator[Frame]:
        """Run the pump in a thread, and yield its frames; leaving the loop stops it.

        Raises what the pump raises, after the last frame.
        """
        run = asyncio.create_task(asyncio.to_thread(self._run, pump))
        try:
            while True:
                frame = await asyncio.to_thread(self._mailbox.take)
                if frame is None:
                    break
                yield frame
        finally:
            pump.stop()
            self._mailbox.close(drop=True)
            await run

    def _run(self, pump: "LivePump") -> None:
        try:
            pump.run()
        finally:
            self._mailbox.close()
