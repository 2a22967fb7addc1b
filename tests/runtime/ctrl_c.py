"""Ctrl-C inside the process of the tests, at the moment that a test wants."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

WAITS = ("Condition.wait", "Thread.join")


@contextmanager
def heard() -> Generator[None]:
    """SIGINT raises KeyboardInterrupt in the first thread, though a shell may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def press() -> None:
    """Ctrl-C, from any thread: the first one is woken by it wherever it waits."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


@contextmanager
def press_later(
    *moments: Callable[[], bool], then: Callable[[], object] | None = None
) -> Generator[None]:
    """Press once for each of the moments, when it has come and the first thread waits for something;
    then give it time to go wrong and do `then`."""
    over = threading.Event()

    def work() -> None:
        for has_come in moments or (lambda: True,):
            until = time.monotonic() + 20
            while not (has_come() and _waits()) and time.monotonic() < until:
                if over.wait(0.01):
                    break
            if not over.is_set():
                press()
            # Heard before the next one.
            time.sleep(0.1)
        if then is not None:
            time.sleep(0.1)
            then()

    presser = threading.Thread(target=work)
    presser.start()
    try:
        yield
    finally:
        over.set()
        presser.join()


def _waits() -> bool:
    """Whether the first thread waits for another one to do something."""
    ident = threading.main_thread().ident
    frame = sys._current_frames().get(ident or 0)  # pyright: ignore[reportPrivateUsage]
    names: set[str] = set()
    while frame is not None:
        names.add(frame.f_code.co_qualname)
        frame = frame.f_back
    return "Thread.start" not in names and not names.isdisjoint(WAITS)
