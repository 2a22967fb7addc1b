"""What is opened beside the frames: one after the other, the last that was asked for."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from velatura.runtime.adaptive import background_open
from velatura.runtime.adaptive.background_open import Opening

from .engines import wait_until


class Thing:
    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False

    def close(self) -> None:
        self.closed = True


class Maker:
    """Makes things, as slowly and as badly as it is told."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun: list[str] = []
        self.made: list[Thing] = []
        self.failures: list[str] = []
        self.refuse = 0

    def ask(
        self, opening: Opening[Thing], name: str, *, delay: float = 0.0, retry: bool = False
    ) -> None:
        opening.begin(
            lambda: self.make(name), lambda error, _: self.failures.append(str(error)),
            delay=delay, retry=retry,
        )  # fmt: skip

    def make(self, name: str) -> Thing:
        self.begun.append(name)
        assert self.go.wait(30)
        if self.refuse > 0:
            self.refuse -= 1
            raise OSError(f"no {name}")
        self.made.append(Thing(name))
        return self.made[-1]


@pytest.fixture
def maker() -> Iterator[Maker]:
    maker = Maker()
    yield maker
    maker.go.set()


def openers() -> int:
    return sum(thread.name == "velatura-open" for thread in threading.enumerate())


def taken(opening: Opening[Thing]) -> Thing:
    found: list[Thing] = []

    def there() -> bool:
        thing = opening.take()
        if thing is not None:
            found.append(thing)
        return bool(found)

    assert wait_until(there)
    return found[0]


def test_of_many_requests_the_last_is_opened_and_one_thread_does_it(maker: Maker) -> None:
    before, opening = openers(), Opening[Thing]()
    for k in range(40):
        maker.ask(opening, str(k))
        if k == 0:
            assert wait_until(lambda: maker.begun == ["0"])
    assert openers() == before + 1
    assert opening.busy
    assert opening.take() is None
    maker.go.set()
    thing = taken(opening)
    assert (thing.name, thing.closed) == ("39", False)
    assert maker.begun == ["0", "39"]
    assert maker.made[0].closed
    assert not opening.busy
    assert opening.take() is None
    assert wait_until(lambda: openers() == before)
    maker.ask(opening, "again")
    assert taken(opening).name == "again"


def test_what_is_wanted_no_more_is_closed(maker: Maker) -> None:
    opening = Opening[Thing]()
    maker.ask(opening, "on its way")
    assert wait_until(lambda: len(maker.begun) == 1)
    opening.close()
    maker.go.set()
    assert wait_until(lambda: [thing.closed for thing in maker.made] == [True])
    maker.ask(opening, "there")
    assert wait_until(lambda: len(maker.made) == 2)
    opening.close()
    assert opening.take() is None
    assert wait_until(lambda: maker.made[1].closed)


def test_it_is_tried_again_only_where_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch, maker: Maker
) -> None:
    monkeypatch.setattr(background_open, "FIRST", 0.01)
    opening = Opening[Thing]()
    maker.go.set()
    maker.refuse = 3
    maker.ask(opening, "one")
    assert wait_until(lambda: not opening.busy)
    assert maker.failures == ["no one"]
    assert opening.take() is None
    maker.ask(opening, "two", retry=True)
    assert taken(opening).name == "two"
    assert maker.failures == ["no one", "no two", "no two"]


def test_a_later_request_does_not_wait_for_the_pause_of_an_earlier_one(maker: Maker) -> None:
    opening = Opening[Thing]()
    maker.go.set()
    maker.ask(opening, "late", delay=60.0, retry=True)
    maker.ask(opening, "soon")
    assert taken(opening).name == "soon"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_is_told_and_fails_keeps_nothing_from_being_opened(maker: Maker) -> None:
    opening = Opening[Thing]()
    maker.refuse = 1
    asked = threading.Event()

    def broken(*_: object) -> None:
        assert asked.wait(10)
        raise RuntimeError("nobody hears it")

    maker.go.set()
    opening.begin(lambda: maker.make("one"), broken)
    assert wait_until(lambda: maker.refuse == 0)
    maker.ask(opening, "two")
    asked.set()
    assert taken(opening).name == "two"
    maker.ask(opening, "three")
    assert taken(opening).name == "three"


def test_a_process_that_ends_waits_for_what_is_being_opened() -> None:
    script = """
import threading, time
from velatura.runtime.adaptive.background_open import Opening

class Thing:
    def close(self):
        print("closed", flush=True)

begun = threading.Event()
def make(name, seconds):
    begun.set()
    time.sleep(seconds)
    print(name, flush=True)
    return Thing()

opening = Opening()
opening.begin(lambda: make("first", 1.0), print)
begun.wait(10)
opening.begin(lambda: make("second", 0.0), print)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["first", "closed"]
