"""Live sources: they do not wait for their readers, and can be closed while they are read."""

import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from ..backoff import Backoff
from ..errors import SourceError, VelaturaError
from ..frame import GRAY, RGB, Array, Damage, Frame, VideoInfo
from ..media.addresses import without_secrets
from ..worker import Channel
from .base import SRGB, Source

if TYPE_CHECKING:
    from ..media.live_audio import LiveAudio

TIME_BASE = Fraction(1, 90_000)
"""The time base of every live source; times count from its first frame."""
PATIENCE = 10.0
"""Seconds in which the first picture must come."""
STALL = 5.0
"""Seconds without data after which a connection is taken for dead."""

DEPTH = 3
"""Frames that wait for a reader: enough for its thread to be late once, too few to be noticed."""

Tell = Callable[[str], None]
"""Receives one line about an event that matters to a person; called from the source's own thread."""


class LiveSource(Source):
    """Frames from a thread of the source's own; newer ones replace older ones that nobody takes.

    `close` may be called from any thread, also while another iterates, whose iteration then ends within
    a second. A read that nothing can interrupt is left to its daemon thread, which releases the device
    when that read returns (streams: after `stall` seconds at the latest).

    Frames carry `captured`, the second of `time.monotonic` at which they arrived or, from a paced
    source, were due. Their `pts`, in units of `TIME_BASE`, strictly increase whatever the source's
    clock does. They may change their size and format in mid-stream; `info` describes the first.
    """

    audio: "LiveAudio | None" = None
    """The sound that comes with the pictures, on their clock; None where there is none."""

    def __init__(self, uri: str, *, keep: bool = False) -> None:
        self.uri = without_secrets(uri)
        """The address as it may be shown, without passwords."""
        self._waiting = Channel[Frame]("never" if keep else "oldest", depth=DEPTH)
        self._backoff = Backoff()
        self._closing = threading.Event()
        self._begun = threading.Event()
        self._failure: VelaturaError | None = None
        self._reason = ""
        self._errors = 0
        self._origin: float | None = None
        self._last = -1
        self._count = 0
        self._hear: Tell | None = None
        self._untold: deque[str] = deque(maxlen=20)

    @property
    def tell(self) -> Tell:
        """The function that gets reconnections, damage and changes; earlier messages wait for it."""
        return self._say

    @tell.setter
    def tell(self, hear: Tell) -> None:
        self._hear = hear
        while self._untold:
            hear(self._untold.popleft())

    @property
    def dropped(self) -> int:
        """The number of frames that a newer one replaced before they were taken."""
        return self._waiting.dropped

    @property
    def damage(self) -> Damage:
        """The number of pictures so far that arrived damaged, or not at all."""
        return Damage(self._errors, self._reason if self._errors else "")

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames as they come, until the source ends or is closed. Raises SourceError."""
        yield from self._waiting
        if self._failure is not None and not self._closing.is_set():
            raise self._failure

    def close(self) -> None:
        """Close the source at once, from any thread: nobody waits for a frame or a device any more."""
        self._closing.set()
        self._waiting.close(drop=True)
        if self.audio is not None:
            self.audio.close()

    @abstractmethod
    def _work(self) -> None:
        """Set `info`, call `_opened`, then `_put` frames until `_closing`; runs in the source's
        thread."""

    def _start(self, patience: float) -> None:
        """Start, and wait for the first picture. Raises SourceError when it does not come in time."""
        threading.Thread(target=self._run, name=f"velatura-{self.uri}", daemon=True).start()
        try:
            in_time = self._begun.wait(patience)
        except BaseException:  # Ctrl-C: who waits has no source to close yet
            self.close()
            raise
        if in_time and hasattr(self, "info"):
            return
        self.close()
        if self._failure is not None:
            raise self._failure
        if in_time:
            raise SourceError(f"{self.uri} ended before its first picture")
        reason = f": {self._reason}" if self._reason else ""
        raise SourceError(
            f"{self.uri} gave no picture within {patience:g} s{reason}. Check its address, and that "
            "the sender is running"
        )

    def _run(self) -> None:
        try:
            self._work()
        except VelaturaError as error:
            self._failure = error
        except Exception as error:
            self._failure = SourceError(f"{self.uri} failed: {type(error).__name__}: {error}")
            self._failure.__cause__ = error
        finally:
            self._begun.set()
            self._waiting.close()
            if self.audio is not None:
                self.audio.close()

    def _opened(self) -> None:
        """Signal that `info` and `audio` are known."""
        self._begun.set()

    def _put(self, frame: Frame) -> None:
        self._count += 1
        self._waiting.put(frame)

    def _describe_pixels(
        self, pixels: Array, rate: Fraction, codec: str, notes: tuple[str, ...] = ()
    ) -> None:
        """Signal what frames of `_put_pixels` are like."""
        self.info = VideoInfo(
            width=pixels.shape[1],
            height=pixels.shape[0],
            format=GRAY if pixels.ndim == 2 else RGB,
            rate=rate,
            time_base=TIME_BASE,
            colour=SRGB,
            codec=codec,
            notes=notes,
        )
        self._opened()

    def _put_pixels(self, pixels: Array, moment: float) -> None:
        """Put 8-bit pixels of that moment of `time.monotonic`: (H, W, 3) RGB or (H, W) grey."""
        self._put(
            Frame(
                planes=(pixels,),
                format=GRAY if pixels.ndim == 2 else RGB,
                pts=self._ticks(moment),
                time_base=TIME_BASE,
                colour=SRGB,
                index=self._count,
                captured=moment,
            )
        )

    def _ticks(self, moment: float) -> int:
        """Returns the ticks of a frame of that moment of `time.monotonic`, later than the one
        before."""
        if self._origin is None:
            self._origin = moment
        self._last = max(round((moment - self._origin) / TIME_BASE), self._last + 1)
        return self._last

    def _pause(self, seconds: float) -> bool:
        """Wait; returns True as soon as the source is closed."""
        return self._closing.wait(max(seconds, 0.0))

    def _wait_again(self, failed: str, given_up: str) -> None:
        """Pause before the next attempt. Raises SourceError, saying `given_up`, after too many."""
        wait = self._backoff.next()
        if wait is None:
            raise SourceError(given_up)
        self._say(f"{failed}; trying again in {wait:g} s")
        self._pause(wait)

    def _say(self, text: str) -> None:
        if self._closing.is_set():
            return
        if self._hear is None:
            self._untold.append(text)
        else:
            self._hear(text)


class Seldom:
    """Limits repeated messages: returns whether one may be given again."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._next = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
