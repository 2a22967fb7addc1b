"""The pauses between attempts at what has failed."""


class Backoff:
    """Pauses that double from the first to the longest, until a success resets them."""

    def __init__(
        self, retries: int | None = None, *, first: float = 0.5, longest: float = 10.0
    ) -> None:
        """`retries` attempts in a row may fail; None is for ever. The pauses are in seconds."""
        self._retries = retries
        self._first, self._longest = first, longest
        self.reset()

    def reset(self) -> None:
        """Reset after a success."""
        self.failures = 0
        """Failures since the last success."""
        self._pause = self._first

    def pause(self) -> float:
        """Returns the seconds to wait after a failure."""
        self.failures += 1
        pause, self._pause = self._pause, min(2 * self._pause, self._longest)
        return pause

    def next(self) -> float | None:
        """Returns the same; None to give up."""
        pause = self.pause()
        return None if self._retries is not None and self.failures > self._retries else pause
