"""A live source's sound: a queue of decoded samples with their times."""

import threading
from collections import deque
from dataclasses import dataclass

import av

RATE = 48_000
"""Samples per second that all sound is given with."""
LAYOUT, FORMAT = "stereo", "fltp"
"""Channel layout and sample format: a plane of float32 for each channel, -1 to 1."""
_JITTER = 0.04
"""Seconds by which the time of a piece may be off while the sound counts as continuous."""
_PULL = 0.05
"""The share of that deviation by which each piece's time is corrected."""
LONGEST = 30.0
"""Seconds of sound that wait for a listener at most; newer sound pushes out the oldest."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of sound with its time."""

    seconds: float
    """The time at which the first sample is heard, on the clock of `Frame.seconds` of the same
    source."""
    frame: av.AudioFrame
    """Samples in `RATE`, `LAYOUT` and `FORMAT`, without a time of their own."""


class LiveAudio:
    """Decoded sound in one format, whatever the source changes to. Thread-safe.

    Nothing is decoded or kept before `listen`. The listener calls `take` again and again, and compares
    `seconds` with the frames that it shows. Successive pieces follow each other to within 2 ms, by
    which the sound's clock is kept to that of the pictures; more is a gap, to be filled with silence.
    """

    def __init__(self, codec: str) -> None:
        """`codec` is the name of the source's own codec, for information."""
        self.codec = codec
        self.dropped = 0
        self._listening = self._closed = False
        self._items: deque[Sound] = deque()
        self._waiting = 0.0
        self._reached = 0.0
        self._changed = threading.Condition()
        self._resampler: av.AudioResampler | None = None
        self._kind: tuple[str, str, int] | None = None

    @property
    def listening(self) -> bool:
        """True while a listener wants the sound."""
        return self._listening and not self._closed

    def listen(self) -> None:
        """Start to keep sound; what came before is not kept."""
        self._listening = True

    def put(self, seconds: float, frame: av.AudioFrame) -> None:
        """Add samples of any kind, heard at `seconds`; called by the source's thread."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or kind != self._kind:
            self._resampler = av.AudioResampler(format=FORMAT, layout=LAYOUT, rate=RATE)
            self._kind = kind
        frame.pts = None
        for made in self._resampler.resample(frame):
            self._add(seconds, made)
            seconds += made.samples / RATE

    def _add(self, seconds: float, frame: av.AudioFrame) -> None:
        length = frame.samples / RATE
        with self._changed:
            off = seconds - self._reached
            if self._closed or off + length / 2 < -_JITTER:
                self.dropped += 1
                return
            if abs(off) < _JITTER:
                # The transport is uneven, the sound is not: its time follows the clock slowly.
                seconds = self._reached + off * _PULL
            self._reached = seconds + length
            self._items.append(Sound(seconds, frame))
            self._waiting += length
            while self._waiting > LONGEST:
                self._waiting -= self._items.popleft().frame.samples / RATE
                self.dropped += 1
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> Sound | None:
        """Returns the oldest piece that waits; None after `timeout` seconds, or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout)
            if not self._items:
                return None
            sound = self._items.popleft()
            self._waiting -= sound.frame.samples / RATE
            return sound

    @property
    def closed(self) -> bool:
        """True if all was taken and no more will come."""
        return self._closed and not self._items

    def close(self) -> None:
        """End the sound: no more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
