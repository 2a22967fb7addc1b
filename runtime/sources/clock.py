"""The time of each frame: strictly increasing, whatever the file says."""

from collections import deque


class Clock:
    """Gives every frame its time, in the ticks of its stream.

    A frame's own time stands wherever it is later than that of the frame before. Where the file's clock
    falls back by two frames or more, as where recordings were joined, the rest goes on one frame after
    the frame before, until the file's own times are later again. A frame that comes less than that too
    early is put one tick after the one before it. Frames without a time follow their predecessor.
    """

    def __init__(self, *, start: int | None, step: int, counting: bool = False) -> None:
        """`start` is the tick that counts as 0, None for that of the first frame; `step` is a frame's
        usual length.

        With `counting` the frames' own times are not to be trusted, and the packets' stand for them in
        their order: AVI knows no other, and decoders give frames in the order of display.
        """
        self.restarts = self.late = 0
        self._start = start
        self._step = step
        self._sent: deque[int] | None = deque() if counting else None
        self._last: int | None = None
        self._length = step
        self._offset = 0

    def sent(self, ticks: int | None) -> None:
        """A packet went to the decoder."""
        if self._sent is not None and ticks is not None:
            self._sent.append(ticks)

    def failed(self) -> None:
        """The packet that was sent last gives no frame."""
        if self._sent:
            self._sent.pop()

    def time(self, pts: int | None, duration: int) -> tuple[int, int]:
        """(time, duration) of the next frame, which says `pts` and lasts `duration`, 0 if unknown."""
        if self._sent:
            pts = self._sent.popleft()
        last, follows = self._last, 0 if self._last is None else self._last + self._length
        if self._start is None and pts is not None:
            self._start = pts - follows
        own = None if pts is None else pts - (self._start or 0)
        if last is None:
            ticks = follows if own is None else own
        elif own is None:
            ticks = follows
        elif own > last:
            ticks, self._offset = own, 0
        elif own + self._offset > last:
            ticks = own + self._offset
        elif last - own - self._offset >= 2 * self._step:
            self.restarts += 1
            self._offset = follows - own
            ticks = follows
        else:
            self.late += 1
            ticks = last + 1
        self._last, self._length = ticks, max(duration, 1) if duration else self._step
        return ticks, self._length

    def repairs(self) -> tuple[str, ...]:
        """What had to be changed, one line each."""
        lines: list[str] = []
        if self.restarts:
            lines.append(
                f"the file's clock falls back {_times(self.restarts)}: the picture goes on there "
                "without a gap, which its sound may not"
            )
        if self.late:
            frames = "1 frame was" if self.late == 1 else f"{self.late} frames were"
            lines.append(f"{frames} timed before the frame before: shown a moment after it instead")
        return tuple(lines)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
