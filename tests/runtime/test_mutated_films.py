"""Two thousand damaged films: each gives a film or an error of ours; no traceback, no hang."""

import io
import random
import signal
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

import pytest
from velatura.runtime.errors import VelaturaError
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job

from . import filming
from .matrix import Clip, draw

COUNT, BLOCK = 2000, 100
QUICK = 1
"""Blocks that `make test` runs."""
LIMIT = 20
"""Seconds for one file, which takes a tenth of one."""
KINDS = 40
"""Different clips that are damaged."""


def clip_of(number: int) -> Clip:
    rng = random.Random(40_000 + number)
    while (found := draw(rng, {})) is None:
        pass
    return Clip(**found)


@contextmanager
def limited(seconds: int, told: str) -> Generator[None]:
    """An AssertionError where it takes longer."""

    def late(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise AssertionError(f"{told} hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """A file with bits, bytes or stretches of it changed, moved, repeated, removed or cut off."""
    data = bytearray(whole)
    for _ in range(rng.choice([1, 1, 4, 30])):
        # Half of it in the header.
        place = rng.randrange(rng.choice([min(len(data), 3000), len(data)]))
        size = rng.choice([1, 2, 4, 16, 200])
        match rng.choice(["bit", "bit", "byte", "zeros", "ones", "gone", "twice", "swap", "end"]):
            case "bit":
                data[place] ^= 1 << rng.randrange(8)
            case "byte":
                data[place] = rng.randrange(256)
            case "zeros" | "ones" as kind:
                some = min(size, len(data) - place)
                data[place : place + some] = bytes([0 if kind == "zeros" else 255]) * some
            case "gone":
                del data[place : place + size]
            case "twice":
                data[place:place] = data[place : place + size]
            case "swap":
                other = rng.randrange(len(data))
                data[place], data[other] = data[other], data[place]
            case _:
                if rng.random() < 0.2:
                    del data[max(place, 1) :]
        if len(data) < 2:
            break
    return bytes(data)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    clips = [clip_of(number) for number in range(KINDS)]
    return [filming.make(folder / f"{n}.{clip.home}", clip) for n, clip in enumerate(clips)]


def survives(number: int, films: list[Path], folder: Path) -> None:
    rng = random.Random(number)
    whole = films[number % KINDS]
    source, target = folder / f"{number}{whole.suffix}", folder / f"{number}.out.mkv"
    source.write_bytes(damaged(whole.read_bytes(), rng))
    told = f"number {number} ({clip_of(number % KINDS)})"
    job = Job(source=str(source), sink=str(target), models=("identity",), codec="ffv1", journal=False)
    out = io.StringIO()
    with limited(LIMIT, told), redirect_stdout(out), redirect_stderr(out):
        try:
            code, said = run_job(job, quiet=True), "done"
        except VelaturaError as error:
            code, said = error.exit_code, str(error)
        except Exception as error:
            raise AssertionError(f"{told}: {type(error).__name__}: {error}") from error
    assert said.strip(), told
    # What is called good is there; what is refused is not.
    if code == 0:
        assert target.stat().st_size, told
    elif code not in (8, 10):
        assert not target.exists(), told
    for path in folder.iterdir():
        path.unlink()


BLOCKS = [pytest.param(n, marks=() if n < QUICK else pytest.mark.soak) for n in range(COUNT // BLOCK)]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_damaged_film_ends_in_words(block: int, films: list[Path], tmp_path: Path) -> None:
    for number in range(BLOCK * block, BLOCK * (block + 1)):
        survives(number, films, tmp_path)
