"""Ctrl-C inside the process of the tests, at the moment that a test wants."""

import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

WAITS = ("Condition.wait", "Thread.join")
PATIENCE = 20.0
"""Seconds for each of the moments."""


@contextmanager
def press_later(
    *moments: Callable[[], bool],
    then: Callable[[], object] | None = None,
    busy: bool = False,
) -> Generator[None]:
    """Press once for each of the moments, when it has come and the first thread waits for something, or
    whatever it does where it is `busy`; then give it time to go wrong and do `then`.

    A real SIGINT each time, also where a shell has it ignored. None of them is felt outside of the
    block, where it would end the run of the tests. Raises AssertionError where a moment never comes.
    """
    keyboard = _Keyboard(busy)

    def work() -> None:
        if not all(keyboard.press(has_come) for has_come in moments or (lambda: True,)):
            return
        if then is not None:
            time.sleep(0.2)
            then()

    presser = threading.Thread(target=work)
    before = signal.signal(signal.SIGINT, keyboard.hear)
    try:
        presser.start()
        yield
    finally:
        keyboard.over.set()
        presser.join()
        signal.signal(signal.SIGINT, before)
    assert keyboard.pressed == max(len(moments), 1), "it ended before Ctrl-C was pressed"


class _Keyboard:
    """Presses from a thread beside the first one; the first one decides whether it feels them.

    From beside it can't be seen where the first thread is: it has gone on before the signal arrives.
    """

    def __init__(self, busy: bool) -> None:
        self._busy = busy
        self.over = threading.Event()
        self.pressed = 0
        self._wanted = False
        self._late = False

    def press(self, has_come: Callable[[], bool]) -> bool:
        """Whether it was felt before the end."""
        until = time.monotonic() + PATIENCE
        while not has_come() and time.monotonic() < until:
            if self.over.wait(0.01):
                return False
        self._wanted = True
        while self._wanted:
            self._late = time.monotonic() >= until
            _interrupt()
            if self.over.wait(0.01):
                return not self._wanted
        return True

    def hear(self, _: int, frame: FrameType | None) -> None:
        """What SIGINT does, in the first thread, which is at that frame."""
        if self.over.is_set() or not self._wanted:
            return
        if self._late:
            self.over.set()
            raise AssertionError("the moment for Ctrl-C never came")
        if self._busy or _waits(frame):
            self._wanted = False
            self.pressed += 1
            raise KeyboardInterrupt


def _interrupt() -> None:
    """SIGINT for the first thread, which is woken by it wherever it waits."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


def _waits(frame: FrameType | None) -> bool:
    """Whether that is a frame of one who waits for another thread to do something."""
    names: set[str] = set()
    while frame is not None:
        names.add(frame.f_code.co_qualname)
        frame = frame.f_back
    return "Thread.start" not in names and not names.isdisjoint(WAITS)
