"""Timeline: from a sender's clock to this machine's."""

AGAIN = 1.0
"""Seconds by which a sender's clock must be off to count as a new one: it has restarted or jumped."""
LATE = 0.02
"""Seconds that a paced stream may run dry before its clock is put back."""
AHEAD = 40.0
"""Seconds that a paced stream may lie ahead: a playlist holds less."""
_SLEW = 2e-4
"""Seconds per second by which the clocks may drift apart: twice what bad crystals do."""


class Timeline:
    """Places a sender's times on `time.monotonic`, keeping their distances where it can.

    What came fastest counts as having come without delay, so that jitter on the way does not reach the
    times: the offset falls at once and rises slowly, as a clock drifts.
    """

    def __init__(self, *, paced: bool) -> None:
        """`paced`: what arrives in heaps (HLS) is due at its own time after the first, never before."""
        self._paced = paced
        self._offset: float | None = None
        self._before = 0.0

    def place(self, seconds: float | None, arrived: float) -> float:
        """The moment of `time.monotonic` for what says `seconds`, or nothing, and came at `arrived`."""
        if seconds is None:
            return arrived
        way = arrived - seconds
        offset, passed = self._offset, max(arrived - self._before, 0.0)
        self._before = arrived
        if offset is None:
            offset = way
        elif self._paced:
            if way > offset + LATE or offset - way > AHEAD:
                offset = way
        elif way < offset or way > offset + AGAIN:
            offset = way
        else:
            offset = min(offset + passed * _SLEW, way)
        self._offset = offset
        return seconds + offset

    def of(self, seconds: float) -> float | None:
        """The moment for another stream of the same sender; None before the first picture."""
        return None if self._offset is None else seconds + self._offset

    def reset(self) -> None:
        """Another connection, another clock."""
        self._offset = None
