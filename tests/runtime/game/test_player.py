"""A C program against real servers: served, killed under it, served again, and lied to."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from velatura.runtime.game.shm import futex, layout, segment
from velatura.runtime.game.shm.layout import Layout

from . import sdk
from .sdk import INCLUDE, compile_c

pytestmark = [
    pytest.mark.skipif(futex.missing() is not None, reason="shared memory is for Linux"),
    pytest.mark.skipif(sdk.GCC is None, reason="gcc must be installed"),
]

_NUMBERS = count()
_PLAYER = Path(__file__).with_name("player.c")
_SANE = "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g"


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the compiler's checks of memory and arithmetic, where it has them."""
    folder = tmp_path_factory.mktemp("player")
    try:
        compile_c("int main(void) { return 0; }\n", folder / "checked", *_SANE)
    except AssertionError:
        return compile_c(_PLAYER, folder / "player", "-O2")
    return compile_c(_PLAYER, folder / "player", *_SANE)


@pytest.fixture
def name() -> Iterator[str]:
    """Of a segment; nothing of that name is left behind."""
    name = f"player-{os.getpid()}-{next(_NUMBERS)}"
    yield name
    assert not os.path.lexists(segment.segment_path(name)), "a segment was left"


class Game:
    """A running player."""

    def __init__(self, player: Path, name: str, width: int = 64, height: int = 48) -> None:
        self.process = subprocess.Popen(
            [player, name, str(width), str(height)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Game":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def turn(self, letter: str) -> tuple[str, bool, str]:
        """Its answer to a letter: the status, whether the frame came back as it was, and the error."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{letter}\n")
        self.process.stdin.flush()
        status, same, *error = self.process.stdout.readline().rstrip("\n").split(" ", 2)
        return status, same == "same", "".join(error)

    def end(self) -> int:
        """The exit status, after the client has closed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(60)


@contextmanager
def serving(name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "velatura.runtime", "serve", "--shm", name, *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield server
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(60)
        finally:
            server.kill()
            server.wait()


def test_served_killed_and_served_again(player: Path, name: str) -> None:
    with Game(player, name) as game:
        assert game.turn("p")[:2] == ("gone", True)
        for _ in range(2):
            with serving(name, "-m", "identity") as server:
                assert game.turn("w")[0] == "ok"
                for _ in range(20):
                    assert game.turn("p") == ("done", True, "")
                server.kill()
                server.wait()
                for _ in range(20):
                    status, same, error = game.turn("p")
                    assert (status, same) == ("gone", True)
                assert "no server of this name runs" in error
                assert not segment.segment_path(name).exists(), "the client has swept it up"
        assert game.end() == 0


def test_upscaled_as_the_python_client_has_it(name: str, tmp_path: Path) -> None:
    from velatura.runtime.game.shm.client import Client

    library = sdk.load(tmp_path)
    y, x = np.mgrid[:48, :64]
    pixels = np.stack([x * 4, y * 5, (x + y) * 2, np.full_like(x, 200)], -1).astype(np.uint8)
    with (
        serving(name, "-m", "upscale-2x"),
        sdk.CClient(library, name) as client,
        Client(name, deadline_ms=20_000) as other,
    ):
        assert client.wait() == sdk.OK
        # The models are opened beside the frames: until then, they pass.
        for _ in range(20_000):
            status, picture = client.process(pixels, flags=sdk.RESET)
            if status == sdk.DONE:
                break
        assert status == sdk.DONE, client.error
        assert picture.shape == (96, 128, 4)
        assert (picture[..., 3] == 200).all(), "alpha passes"
        small = picture.astype(float).reshape(48, 2, 64, 2, 4).mean((1, 3))
        assert np.abs(small - pixels).mean() < 4
        for _ in range(20_000):
            expected = other(pixels, reset=True)
            if other.status == "done":
                break
        assert other.status == "done", other.trouble
        assert np.array_equal(picture, expected)


_INTERESTING = np.array(
    [0, 1, 2, 3, 15, 16, 63, 64, 255, 4096, 4097, 16384, 16385, 1 << 20, 1 << 31, (1 << 32) - 1],
    np.uint64,
)


@pytest.mark.parametrize("seed", range(4))
def test_a_server_that_lies_breaks_nothing(player: Path, name: str, seed: int) -> None:
    """Headers, control pages and rings of random words and of likely traps, while the client plays."""
    rng = np.random.default_rng(seed)
    made, lock = segment.create(name, Layout(slot_count=1, max_width=64, max_height=48), "liar")
    page = made.plan.slot(0).offset
    header = made.record(layout.HEADER, 0)
    fields = [
        key for key in (layout.HEADER.names or ()) if key not in ("magic", "version_major", "title")
    ]
    stop = threading.Event()

    def scribble() -> None:
        control = made.bytes(layout.Area(page, layout.PAGE))
        submitted = made.futex(layout.CONTROL, page, "submitted")
        completed = made.futex(layout.CONTROL, page, "completed")
        while not stop.is_set():
            for _ in range(rng.integers(1, 12)):
                at = 4 * int(rng.integers(0, 224))
                kind = rng.integers(3)
                word = rng.integers(1 << 32, dtype=np.uint64) if kind == 0 else rng.choice(_INTERESTING)
                if kind == 2:
                    # An answer that may well be believed, but for one word of it.
                    turn = (submitted.value - 1) % (1 << 32) % 3
                    result = made.record(layout.RESULT, made.plan.entry(0, turn).offset + 128)
                    result["result_sequence"] = (submitted.value - 1) % (1 << 32)
                    result["status"], result["out_area"] = rng.integers(1, 4), 1
                    result["out_width"] = result["out_height"] = rng.integers(0, 65)
                    result["out_stride"] = rng.choice([256, 260, 1 << 31])
                if at >= 8:
                    control[at : at + 4] = np.frombuffer(np.uint32(word).tobytes(), np.uint8)
            made.word(layout.CONTROL, page, "state")[0] = rng.choice([0, 0, 1, 1, 1, 1, 2])
            completed.value = submitted.value - int(rng.choice([0, 0, 0, 1, 2, 7]))
            completed.wake()
            stop.wait(0.0005)

    try:
        with Game(player, name) as game, ThreadPoolExecutor(1) as pool:
            scribbling = pool.submit(scribble)
            for _ in range(60):
                game.turn("t")
                game.turn("f")
            stop.set()
            scribbling.result()
            kept = header.copy()
            for _ in range(150):
                header[:] = kept
                for key in rng.choice(fields, rng.integers(1, 4)):
                    large = layout.HEADER[str(key)].itemsize == 8 and rng.integers(2)
                    header[str(key)] = rng.integers(1 << 63) if large else int(rng.choice(_INTERESTING))
                made.word(layout.CONTROL, page, "state")[0] = layout.FREE
                game.turn("t")
                game.turn("f")
            noise = rng.integers(0, 256, (40, layout.PAGE), np.uint8)
            for turn, data in enumerate(noise):
                keep = 8 if turn % 2 else 12  # the magic, and every other time the major version
                made.bytes(layout.Area(0, layout.PAGE))[keep:] = data[keep:]
                game.turn("t")
            header[:] = kept
            assert game.turn("q")[1], "whatever it was told, the picture is there"
            assert game.end() == 0
    finally:
        stop.set()
        made.unlink()
        lock.release()


def test_the_player_compiles_with_every_standard(tmp_path: Path) -> None:
    for standard, cxx in (("c99", False), ("gnu11", False), ("c++11", True), ("c++17", True)):
        source = _PLAYER.read_text()
        compile_c(source, tmp_path / "player", f"-std={standard}", cxx=cxx)
    assert (INCLUDE / "velatura.hpp").exists()


@pytest.mark.soak
def test_killed_at_random(player: Path, name: str) -> None:
    """Either side, at any moment; the other goes on, and nothing is left."""
    rng = np.random.default_rng(7)
    for turn in range(100):
        with serving(name, "-m", "identity") as server, Game(player, name) as game:
            assert game.turn("w")[0] == "ok"
            for _ in range(rng.integers(1, 200)):
                assert game.turn("p") == ("done", True, "")
            if turn % 2:
                server.kill()
                assert game.turn("p")[1]
                server.wait()
                assert game.turn("p")[:2] == ("gone", True)
            else:
                game.process.kill()
                game.process.wait()
                with Game(player, name) as another:
                    assert another.turn("w")[0] == "ok"
                    assert another.turn("p") == ("done", True, "")
    assert not segment.segment_path(name).exists()
