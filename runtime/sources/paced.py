"""A video file played like a camera: every frame at its time, in a loop if wanted."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet

from ..errors import SourceError, VelaturaError
from ..frame import Damage, Frame
from ..media.demux import STDIN
from ..media.live_audio import LiveAudio
from ..media.pyav import open_input, ratio
from ..worker import Channel
from .base import Source
from .kind import Address
from .live import TIME_BASE, LiveSource, Seldom

LATE = 0.5
"""Seconds by which a frame may be late before the clock is reset: the file is too slow to decode."""
_AHEAD = 8
"""Frames that are decoded before they are due, which hides the gap between two rounds."""
_JITTER = 0.02
"""Seconds of lateness before the clock is reset for a pipe, whose sender has a clock of its own."""
_SOUND_AHEAD = 0.2
"""Seconds by which sound is given before its picture."""


OPTIONS = ("loop", "pace", "patience", "speed")
"""The keys that an address may set."""


def open_paced(address: Address, make: Callable[[], Source], *, keep: bool) -> LiveSource:
    """Play what `make` opens: a file, a pipe, an image sequence or the test pattern, by its own
    times."""
    pipe = address.place == STDIN
    return PacedSource(
        address.uri,
        make,
        speed=address.number("speed", 1.0),
        loop=address.flag("loop", False) and not pipe,
        paced=address.flag("pace", True),
        follow=pipe,
        keep=keep or pipe,
        patience=address.number("patience", 10.0),
    )


class PacedSource(LiveSource):
    """Frames of another source, each when it is due; `captured` is that time, however late it comes."""

    def __init__(
        self,
        uri: str,
        make: Callable[[], Source],
        *,
        speed: float = 1.0,
        loop: bool = False,
        paced: bool = True,
        follow: bool = False,
        keep: bool = False,
        patience: float = 10.0,
    ) -> None:
        """`make` opens the source, again for each round of a `loop`.

        With `follow` the sender has a clock of its own, as behind a pipe: late frames were sent late.
        Without `paced` every frame is due when it comes. Raises SourceError.
        """
        super().__init__(uri, keep=keep)
        self._make = make
        self._speed = speed
        self._loop = loop
        self._paced = paced
        self._follow = follow
        self._keep = keep
        self._anchor: float | None = None
        self._base = 0.0
        self._lost = Damage()
        self._tell_late = Seldom()
        self._frames = 0
        self._ahead = Channel[tuple[float, Frame]]("never", depth=_AHEAD)
        self._broken: VelaturaError | None = None
        self._start(patience)

    @property
    def damage(self) -> Damage:
        return self._lost

    def close(self) -> None:
        super().close()
        self._ahead.close(drop=True)

    def _work(self) -> None:
        threading.Thread(target=self._read, name=f"velatura-read-{self.uri}", daemon=True).start()
        for own, frame in self._ahead:
            due = self._due(own)
            if self._pause(due - time.monotonic()):
                return
            self._put(
                replace(
                    frame, pts=self._ticks(due), time_base=TIME_BASE, captured=due, index=self._count
                )
            )
        if self._broken is not None:
            raise self._broken

    def _read(self) -> None:
        """Open and decode ahead, so that neither affects the times."""
        try:
            before = -1
            while not self._closing.is_set() and self._frames > before:
                before = self._frames
                with self._make() as source:
                    if not self._begun.is_set():
                        self._describe(source)
                    self._play(source)
                    self._lost = self._lost or source.damage
                if not self._loop:
                    return
        except VelaturaError as error:
            self._broken = error
        except Exception as error:
            self._broken = SourceError(f"{self.uri} failed: {type(error).__name__}: {error}")
        finally:
            self._ahead.close()

    def _describe(self, source: Source) -> None:
        info = source.info
        rate = (info.rate * Fraction(self._speed)).limit_denominator(100_000)
        # Its sound goes by its own way, beside the pictures, and must not be copied from the file.
        sounds = info.path is not None and bool(info.audio)
        self.audio = LiveAudio(info.audio[0]) if sounds and self._speed == 1 else None
        notes = info.notes
        if sounds and self.audio is None:
            notes = (*notes, f"the sound is left out at a speed of {self._speed:g}")
        self.info = replace(
            info, rate=rate, time_base=TIME_BASE, frames=None, duration=None, path=None, start=0.0,
            audio=info.audio[:1] if self.audio is not None else (), notes=notes,
        )  # fmt: skip
        self._opened()

    def _play(self, source: Source) -> None:
        """Play the source once."""
        sound = _FileSound(source.info.path, source.info.start) if self.audio is not None else None
        end = 0.0
        try:
            for frame in source:
                own = self._base + frame.seconds / self._speed
                end = max(end, own)
                if sound is not None and self.audio is not None and self.audio.listening:
                    sound.give(self.audio, frame.seconds + _SOUND_AHEAD, self._base)
                self._frames += 1
                self._ahead.put((own, frame))
                if self._closing.is_set():
                    return
        finally:
            if sound is not None:
                sound.close()
        stated = source.end
        last = float(1 / self.info.rate)
        self._base = max(self._base + float(stated) / self._speed if stated else 0.0, end + last / 2)
        if stated is None:
            self._base = end + last

    def _due(self, own: float) -> float:
        now = time.monotonic()
        if self._anchor is None:
            self._anchor = now - own
        due = self._anchor + own
        if not self._paced:
            return now
        late = now - due
        if self._follow and late > _JITTER:
            self._anchor, due = self._anchor + late, now
        elif not self._keep and late > LATE:
            # A camera does not fall behind for ever, and never stands still to catch up.
            self._anchor, due = self._anchor + late, now
            if self._tell_late():
                self._say(f"{self.uri} cannot be decoded in time: its clock was put back {late:.1f} s")
        return due


class _FileSound:
    """The sound of a file, decoded along with its pictures."""

    def __init__(self, path: str | None, start: float) -> None:
        self._start = start
        self._container: InputContainer | None = open_input(path) if path else None
        self._packets = iter(self._container.demux(audio=0)) if self._container is not None else None
        self._next: Packet[Any] | None = None

    def give(self, audio: LiveAudio, until: float, base: float) -> None:
        """Hand over the sound before `until`, in seconds of the file, shifted by `base`."""
        while self._packets is not None:
            packet = self._next or next(self._packets, None)
            self._next = None
            if packet is None:
                return
            if packet.pts is None:
                continue
            if float(packet.pts * packet.time_base) - self._start > until:
                self._next = packet
                return
            try:
                frames = packet.decode()
            except FFmpegError:
                audio.dropped += 1
                continue
            for frame in frames:
                base_of = ratio(frame.time_base) or Fraction(1, frame.sample_rate)
                seconds = float((frame.pts or 0) * base_of) - self._start
                audio.put(base + seconds, frame)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
