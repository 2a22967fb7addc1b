"""velatura.h and velatura.hpp compile everywhere, agree with the layout, and do what they say."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from velatura.runtime.game.shm import futex, layout, segment
from velatura.runtime.game.shm.layout import Layout
from velatura.runtime.game.shm.server import Server, Work

from . import sdk
from .sdk import (
    BUSY,
    BYPASS,
    DONE,
    EMPTY,
    GONE,
    LATE,
    OK,
    PASSED,
    REFUSED,
    CClient,
    Pixels,
    compile_c,
    frame_of,
)

pytestmark = [
    pytest.mark.skipif(futex.missing() is not None, reason="shared memory is for Linux"),
    pytest.mark.skipif(sdk.GCC is None or sdk.GXX is None, reason="gcc and g++ must be installed"),
]

SIZE = 64, 48
_NUMBERS = count()
_BODY = "#define VELATURA_IMPLEMENTATION\n#include <velatura.{0}>\nint main(void) {{ return 0; }}\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sdk.load(tmp_path_factory.mktemp("sdk"))


@pytest.fixture
def name() -> Iterator[str]:
    """Of a segment; nothing of that name is left behind."""
    name = f"header-{os.getpid()}-{next(_NUMBERS)}"
    yield name
    assert not os.path.lexists(segment.segment_path(name)), "a segment was left"


@pytest.fixture
def pixels() -> Pixels:
    return noise(0)


def noise(seed: int, width: int = SIZE[0], height: int = SIZE[1]) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)


class Post:
    """Negatives; notes what it was given, and waits at a gate."""

    def __init__(self) -> None:
        self.last = SimpleNamespace(passed=False)
        self.rung = "all"
        self.given: list[dict[str, Any]] = []
        self.conventions: list[Any] = []
        self.gate = threading.Event()
        self.gate.set()

    def open(self, conventions: Any, size: tuple[int, int]) -> "Post":
        del size
        self.conventions.append(conventions)
        return self

    def __call__(
        self, color: Any, motion: Any = None, depth: Any = None, reset: bool = False, **more: Any
    ) -> None:
        self.gate.wait(60)
        copies = {"color": color, "motion": motion, "depth": depth, "reactive": more["reactive"]}
        self.given.append(
            {key: None if value is None else np.array(value) for key, value in copies.items()}
            | {"reset": reset, "jitter": more["jitter"]}
        )
        np.subtract(255, color, out=more["out"])

    def interpret(self, motion: Any, depth: Any) -> None:
        pass

    def listen(self, tell: Any) -> None:
        pass

    def close(self) -> None:
        pass


def serving(name: str, post: Post | None = None, **options: Any) -> Server:
    """A server in this process; the identity without a post-process."""
    open_post: Callable[..., Any] | None = None if post is None else post.open
    options = {"max_size": (320, 240)} | options
    server = Server(name, Work(models=("identity",)), open_post=open_post, **options)
    server.start()
    return server


class TestCompiling:
    @pytest.mark.parametrize("standard", ["c99", "c11", "gnu99", "gnu17"])
    def test_as_c(self, standard: str, tmp_path: Path) -> None:
        compile_c(_BODY.format("h"), tmp_path / "out", f"-std={standard}", "-O2")

    @pytest.mark.quick_rows(2)
    @pytest.mark.parametrize("header", ["h", "hpp"])
    @pytest.mark.parametrize("standard", ["c++11", "c++17", "c++20"])
    def test_as_cpp(self, standard: str, header: str, tmp_path: Path) -> None:
        compile_c(_BODY.format(header), tmp_path / "out", f"-std={standard}", "-O2", cxx=True)

    def test_a_private_copy_leaves_no_names(self, tmp_path: Path) -> None:
        compile_c(_BODY.format("h"), tmp_path / "out", "-DVELATURA_STATIC")
        symbols = subprocess.check_output(["nm", "-g", "--defined-only", tmp_path / "out"], text=True)
        assert "velatura" not in symbols

    def test_c_and_cpp_share_one_copy(self, tmp_path: Path) -> None:
        compile_c(_BODY.format("h").replace("main", "unused"), tmp_path / "one.o", "-c")
        text = '#include <velatura.hpp>\nint main() { return velatura::Client("x").connected(); }\n'
        compile_c(text, tmp_path / "out", str(tmp_path / "one.o"), cxx=True)
        assert subprocess.run([tmp_path / "out"], check=False).returncode == 0

    def test_too_late_an_include_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(AssertionError, match=r"include velatura\.h before any other header"):
            compile_c("#include <stdio.h>\n" + _BODY.format("h"), tmp_path / "out")
        compile_c("#include <stdio.h>\n" + _BODY.format("h"), tmp_path / "out", "-D_GNU_SOURCE")


def test_the_layout_is_the_one_of_the_python_side(tmp_path: Path) -> None:
    shifted = {name: (layout.RESULT_OFFSET + at) for name, (_, at, *_) in layout.RESULT.fields.items()}
    structures = {
        "header": {name: at for name, (_, at, *_) in layout.HEADER.fields.items()},
        "slot": {name: at for name, (_, at, *_) in layout.CONTROL.fields.items()},
        "entry": {name: at for name, (_, at, *_) in layout.REQUEST.fields.items()}
        | {name: at for name, at in shifted.items() if name != "reserved"},
    }
    lines = [
        f'printf("{kind}.{name} %zu %zu\\n", offsetof(velatura_shm_{kind}, {name}), '
        f"sizeof(((velatura_shm_{kind} *)0)->{name}));"
        for kind, members in structures.items()
        for name in members
    ]
    constants = {
        "VERSION": layout.MAJOR << 16 | layout.MINOR, "SHM_PAGE": layout.PAGE,
        "SHM_LOCKS": layout.SERVER_LOCK, "SHM_RING_MOST": layout.MOST_RING,
        "SHM_SIDE_MOST": layout.MOST_SIDE, "SHM_SCALE_MOST": layout.MOST_SCALE,
        "SHM_SLOTS_MOST": layout.MOST_SLOTS, "RESET": layout.CUT, "HAS_MOTION": layout.MOTION,
        "HAS_DEPTH": layout.DEPTH, "HAS_REACTIVE": layout.REACTIVE, "FLIPPED": layout.FLIPPED,
        "MOTION_JITTERED": layout.JITTERED, "DEPTH_REVERSED": layout.REVERSED,
        "DEPTH_DEVICE": layout.DEVICE_DEPTH, "MOTION_FROM_PREVIOUS": layout.FROM_PREVIOUS,
        "BYPASS": layout.BYPASS, "RGBA8": layout.RGBA, "BGRA8": layout.BGRA,
    }  # fmt: skip
    lines += [f'printf("{key} %llu\\n", (unsigned long long)VELATURA_{key});' for key in constants]
    entries = "offsetof(velatura_shm_slot, entries), sizeof(velatura_shm_entry)"
    lines += [f'printf("entries %zu %zu\\n", {entries});']
    body = "\n".join(lines)
    text = f"#include <velatura.h>\n#include <stdio.h>\nint main(void) {{\n{body}\nreturn 0;\n}}\n"
    found = subprocess.check_output([compile_c(text, tmp_path / "offsets")], text=True).splitlines()
    kinds = {"header": layout.HEADER, "slot": layout.CONTROL, "entry": layout.REQUEST}
    expected: list[str] = []
    for kind, members in structures.items():
        for name, at in members.items():
            record = kinds[kind] if name in (kinds[kind].names or ()) else layout.RESULT
            expected.append(f"{kind}.{name} {at} {record[name].itemsize}")
    expected += [f"{key} {value}" for key, value in constants.items()]
    expected += [f"entries {layout.ENTRIES} {layout.ENTRY_BYTES}"]
    assert found == expected
    assert layout.ENTRIES + layout.MOST_RING * layout.ENTRY_BYTES <= layout.PAGE


def test_the_page_has_the_numbers_of_the_python_side() -> None:
    records = iter((layout.HEADER, layout.CONTROL, layout.REQUEST, layout.RESULT))
    shifts = iter((0, 0, 0, layout.RESULT_OFFSET))
    bytes_of = {"u32": 4, "u64": 8, "f32": 4}
    lines = (sdk.INCLUDE / "layout.md").read_text().splitlines()
    begins = [number for number, line in enumerate(lines) if line.startswith("| at | type | name |")]
    assert len(begins) == 4
    for begin in begins:
        record, shift = next(records), next(shifts)
        found: dict[str, tuple[int, int]] = {}
        for line in lines[begin + 2 :]:
            if not line.startswith("|"):
                break
            places, kind, members = (cell.strip() for cell in line.split("|")[1:4])
            if kind == "entry[ring]":
                assert int(places) == layout.ENTRIES
                continue
            size = int(kind[5:-1]) if kind.startswith("char[") else bytes_of[kind]
            for at, member in zip(places.split(", "), members.split(", "), strict=True):
                found[member] = (int(at) - shift, size)
        assert found == {key: (at, kind.itemsize) for key, (kind, at, *_) in record.fields.items()}


def test_the_command_prints_the_folder_and_loads_little() -> None:
    code = (
        "import sys; sys.argv = ['velatura', 'include-dir']\n"
        "from velatura.runtime.__main__ import main\n"
        "try: main()\n"
        "finally: print({name.partition('.')[0] for name in sys.modules}, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = {path.name for path in Path(done.stdout.strip()).iterdir()}
    assert {"velatura.h", "velatura.hpp", "layout.md"} <= found
    for heavy in ("cv2", "av", "onnx", "openvino", "onnxruntime", "torch"):
        assert f"'{heavy}'" not in done.stderr


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/abs",
        "-x",
        ".x",
        "a b",
        "a\n",
        "ä",
        "a\0b",
        "x" * 65,
        "%s%n",
        "a;b",
    ],
)
def test_a_hostile_name_opens_nothing(library: Any, name: str) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    c_name = name.encode().partition(b"\0")[0] if "\0" not in name else b"-"
    assert library.velatura_name_is_valid(c_name) == 0
    assert not library.velatura_open(c_name, None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_good_names(library: Any) -> None:
    for good in ("a", "_", "0", "Game-1.main_view", "x" * 64):
        assert library.velatura_name_is_valid(good.encode()) == 1
        segment.check_name(good)
    assert library.velatura_open(None, None) is None


class TestWithoutAServer:
    def test_frames_pass(self, library: Any, name: str, pixels: Pixels) -> None:
        with CClient(library, name) as client:
            status, picture = client.process(pixels)
            assert status == GONE
            assert np.array_equal(picture, pixels)
            assert f"velatura serve --shm {name}" in client.error
            assert (client.submit(pixels), client.result()[0], client.connected) == (GONE, EMPTY, False)

    def test_a_picture_of_the_size_that_is_wanted(self, library: Any, name: str) -> None:
        ramp = np.zeros((16, 32, 4), np.uint8)
        ramp[..., 0] = np.arange(32) * 8
        ramp[..., 1] = np.arange(16)[:, None] * 16
        with CClient(library, name) as client:
            _, picture = client.process(ramp, size=(64, 32))
            assert picture.shape == (32, 64, 4)
            assert np.abs(np.diff(picture[..., 0].astype(int), axis=1)[:, 1:-1] - 4).max() <= 1
            assert np.abs(np.diff(picture[..., 1].astype(int), axis=0)[1:-1] - 8).max() <= 1
            assert np.abs(picture.mean((0, 1)) - ramp.mean((0, 1))).max() < 0.6
            _, half = client.process(ramp, size=(16, 8))
            assert half.shape == (8, 16, 4)
            assert np.abs(half.mean((0, 1)) - ramp.mean((0, 1))).max() < 0.6

    def test_what_is_wrong_is_refused(self, library: Any, name: str, pixels: Pixels) -> None:
        with CClient(library, name) as client:
            assert client.process(pixels, stride=255)[0] == REFUSED
            assert client.process(pixels, width=0)[0] == REFUSED
            assert client.submit(None, width=64, height=48) == REFUSED
            assert client.process(pixels, np.zeros((8, 8, 4), np.uint8))[0] == REFUSED
            assert "no room" in client.error


class TestIdentity:
    @pytest.fixture
    def client(self, library: Any, name: str) -> Iterator[CClient]:
        with serving(name), CClient(library, name) as client:
            assert client.wait() == OK
            yield client

    def test_bytes_come_back_as_they_were(self, client: CClient) -> None:
        for seed in range(7):
            status, picture = client.process(noise(seed))
            assert status == DONE, client.error
            assert np.array_equal(picture, noise(seed))
        assert client.models == "identity"
        assert client.error == ""

    def test_strides_and_formats(self, client: CClient) -> None:
        wide = noise(1, 100, 48)
        for form in (0, 1, 2):
            out = np.zeros((48, 90, 4), np.uint8)
            status, _ = client.process(wide[:, :64], out[:, 3:67], format=form)
            assert status == DONE
            assert np.array_equal(out[:, 3:67], wide[:, :64])
            assert not out[:, :3].any()
            assert not out[:, 67:].any()

    def test_a_picture_over_its_own_frame(self, client: CClient, pixels: Pixels) -> None:
        kept = pixels.copy()
        assert client.process(pixels, pixels)[0] == DONE
        assert np.array_equal(pixels, kept)

    def test_sizes_change_from_frame_to_frame(self, client: CClient) -> None:
        for width, height in ((1, 1), (320, 240), (7, 200), (320, 1)):
            status, picture = client.process(noise(2, width, height))
            assert status == DONE
            assert np.array_equal(picture, noise(2, width, height))

    def test_what_the_server_cannot_take_passes(self, client: CClient, pixels: Pixels) -> None:
        status, picture = client.process(noise(3, 321, 10))
        assert status == REFUSED
        assert "321x10: the server takes 1x1 to 320x240" in client.error
        assert np.array_equal(picture, noise(3, 321, 10))
        status, picture = client.process(pixels, flags=1 << 20)
        assert status == REFUSED
        assert "unknown flags" in client.error
        assert np.array_equal(picture, pixels)
        assert client.process(pixels, format=9)[0] == REFUSED
        assert client.process(pixels)[0] == DONE

    def test_pipelined(self, client: CClient) -> None:
        assert client.result()[0] == EMPTY
        assert client.submit(noise(0)) == OK
        for turn in range(1, 8):
            assert client.submit(noise(turn)) == OK
            status, view = client.result()
            assert (status, view.sequence) == (DONE, turn - 1)
            assert np.array_equal(view.picture(), noise(turn - 1))

    def test_without_copies(self, client: CClient) -> None:
        for turn in range(5):
            frame = frame_of(None, width=SIZE[0], height=SIZE[1])
            status, canvas = client.begin(frame)
            assert status == OK
            assert canvas.motion is None
            drawn = noise(turn)
            sdk.ctypes.memmove(canvas.pixels, drawn.ctypes.data, drawn.nbytes)
            assert client.submit(None, frame) == OK
            status, view = client.result()
            assert status == DONE
            assert view.pixels == canvas.pixels, "the result lies where the frame was drawn"
            assert np.array_equal(view.picture(), drawn)

    def test_results_that_nobody_collects_make_room(self, client: CClient, pixels: Pixels) -> None:
        taken = [turn for turn in range(50) if client.submit(noise(turn)) == OK]
        assert len(taken) >= 3
        seen = []
        while (found := client.result(0.0 if seen else 20.0))[0] != EMPTY:
            if found[0] != LATE:
                assert np.array_equal(found[1].picture(), noise(taken[found[1].sequence]))
                seen.append(found[1].sequence)
        assert 1 <= len(seen) <= 3
        assert seen[-1] == len(taken) - 1, "the newest is not what makes room"
        assert seen == sorted(seen)
        assert client.process(pixels)[0] == DONE


class TestPost:
    def test_everything_arrives(self, library: Any, name: str, pixels: Pixels) -> None:
        post = Post()
        rng = np.random.default_rng(4)
        motion = rng.normal(size=(24, 32, 2)).astype(np.float32)
        depth = rng.uniform(size=(48, 64)).astype(np.float32)
        reactive = rng.integers(0, 256, (12, 16), np.uint8)
        with serving(name, post), CClient(library, name) as client:
            assert client.wait() == OK
            flags = layout.JITTERED | layout.FROM_PREVIOUS | layout.DEVICE_DEPTH | layout.FLIPPED
            for turn in range(3):
                status, picture = client.process(
                    pixels, flags=flags | (layout.CUT if turn == 2 else 0), format=2,
                    motion=motion, motion_width=32, motion_height=24, motion_scale_x=2.0,
                    motion_scale_y=-3.0, depth=depth, depth_near=0.25, depth_far=50.0,
                    reactive=reactive, reactive_width=16, reactive_height=12, jitter_x=0.25,
                    jitter_y=-0.5,
                )  # fmt: skip
                assert status == DONE
                assert np.array_equal(picture, 255 - pixels)
        assert [given["reset"] for given in post.given] == [True, False, True], "the first one is a cut"
        for given in post.given:
            for key, value in (("color", pixels), ("motion", motion), ("depth", depth)):
                assert np.array_equal(given[key], value)
            assert np.array_equal(given["reactive"], reactive)
            assert given["jitter"] == (0.25, -0.5)
        (found,) = post.conventions
        assert (found.order, found.flipped) == ("bgra", True)
        assert (found.motion.scale, found.motion.direction) == ((2.0, -3.0), "from_previous")
        assert found.motion.jittered
        assert (found.depth.kind, found.depth.near, found.depth.far) == ("device", 0.25, 50.0)

    def test_a_late_frame_passes_and_its_result_is_dropped(
        self, library: Any, name: str, pixels: Pixels
    ) -> None:
        post = Post()
        with serving(name, post), CClient(library, name) as client:
            assert client.wait() == OK
            post.gate.clear()
            try:
                for _ in range(3):
                    status, picture = client.process(pixels, deadline_us=30_000)
                    assert status == PASSED
                    assert "not ready after 30000 us" in client.error
                    assert np.array_equal(picture, pixels)
                assert client.process(pixels)[0] == PASSED, "the ring is full: no waiting at all"
                assert client.submit(pixels) == BUSY
                assert client.connected
            finally:
                post.gate.set()
            for seed in range(1, 4):
                status, picture = client.process(noise(seed))
                while status == PASSED:
                    status, picture = client.process(noise(seed))
                assert status == DONE
                assert np.array_equal(picture, 255 - noise(seed))

    def test_memory_that_is_slow_to_come_is_waited_for_in_part(self, library: Any, name: str) -> None:
        pixels = noise(0, 1024, 1024)
        with serving(name, max_size=(1024, 1024)), CClient(library, name) as client:
            assert client.wait() == OK
            # No time at all: each call gets one of four megabytes, and goes on where the last ended.
            found = [client.submit(pixels, deadline_us=1) for _ in range(4)]
            assert found == [BUSY, BUSY, BUSY, OK]
            assert client.result()[0] in (DONE, PASSED)
            for _ in range(3):
                status, picture = client.process(pixels, deadline_us=1)
                assert status == PASSED
                assert "slow to give memory" in client.error
                assert np.array_equal(picture, pixels)
            status, picture = client.process(pixels)
            assert status == DONE
            assert np.array_equal(picture, pixels)

    def test_bypass(self, library: Any, name: str, pixels: Pixels) -> None:
        with serving(name, Post()), CClient(library, name) as client:
            assert client.wait() == OK
            assert np.array_equal(client.process(pixels, flags=BYPASS)[1], pixels)
            assert np.array_equal(client.process(pixels)[1], 255 - pixels)


class TestPlaces:
    def test_two_clients_of_one_process(self, library: Any, name: str) -> None:
        with serving(name), CClient(library, name) as one, CClient(library, name) as two:
            assert (one.wait(), two.wait()) == (OK, OK)
            for turn in range(6):
                assert one.submit(noise(turn)) == OK
                assert two.submit(noise(turn + 100)) == OK
                for client, seed in ((two, turn + 100), (one, turn)):
                    status, view = client.result()
                    assert status == DONE
                    assert np.array_equal(view.picture(), noise(seed))

    def test_a_full_server_takes_the_next_when_one_leaves(
        self, library: Any, name: str, pixels: Pixels
    ) -> None:
        with (
            serving(name, clients=1),
            CClient(library, name) as first,
            CClient(library, name) as second,
        ):
            assert first.wait() == OK
            assert second.wait(0.0) == GONE
            assert "all 1 places of the server are taken" in second.error
            assert second.process(pixels)[0] == GONE
            assert first.process(pixels)[0] == DONE
            first.close()
            assert second.wait() == OK
            assert second.process(pixels)[0] == DONE

    def test_a_place_is_free_again(self, library: Any, name: str, pixels: Pixels) -> None:
        with serving(name, clients=1):
            for _ in range(5):
                with CClient(library, name) as client:
                    assert client.wait() == OK
                    assert client.process(pixels)[0] == DONE

    def test_where_the_counter_wraps(self, library: Any, name: str) -> None:
        with serving(name, clients=1) as server, CClient(library, "nobody-of-this-name"):
            page = server.segment.plan.slot(0).offset
            for word in ("submitted", "completed"):
                server.segment.word(layout.CONTROL, page, word)[0] = (1 << 32) - 4
            with CClient(library, name) as client:
                assert client.wait() == OK
                seen = []
                for turn in range(9):
                    while (status := client.submit(noise(turn))) == BUSY:
                        pass
                    assert status == OK
                    if turn >= 1:
                        status, view = client.result()
                        assert status == DONE, client.error
                        seen.append(view.sequence - (1 << 32) + 4)
                        assert np.array_equal(view.picture(), noise(seen[-1]))
                assert seen == [0, 1, 2, 4, 5, 6, 7, 8], (
                    "the ring runs empty at the wrap, and only there"
                )
                for turn in range(9):
                    status, picture = client.process(noise(turn))
                    assert status == DONE, client.error
                    assert np.array_equal(picture, noise(turn))
                # What is said of a submit that was too early stays until something else goes wrong.
                early = ("frames are on their way already", "slow to give memory for a frame")
                assert not client.error or any(text in client.error for text in early)


def mapped(address: int) -> bool:
    """Whether there is memory at that address; a look at it would tell as well, but once only."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ends = [line.split()[0].split("-") for line in lines]
    return any(int(begin, 16) <= address < int(end, 16) for begin, end in ends)


def pointers(of: Any) -> tuple[int | None, ...]:
    """The four of a frame or a canvas."""
    return of.pixels, of.motion, of.depth, of.reactive


class TestEnds:
    def test_a_server_that_ends_over_a_frame(self, library: Any, name: str, pixels: Pixels) -> None:
        post = Post()
        with CClient(library, name) as client:
            server = serving(name, post)
            assert client.wait() == OK
            assert client.submit(pixels) == OK
            status, earlier = client.result()
            assert status == DONE
            post.gate.clear()
            assert client.submit(pixels) == OK
            closing = threading.Thread(target=server.close)
            closing.start()
            status, view = client.result(60.0)
            assert status == GONE
            assert np.array_equal(view.picture(), pixels), "the frame itself is still there"
            post.gate.set()
            closing.join()
            assert "the server has ended" in client.error
            for _ in range(2):
                # What the game shows stays whole, and where it is, for two frames more.
                assert mapped(view.pixels)
                assert np.array_equal(view.picture(), pixels)
                assert np.array_equal(earlier.picture(), 255 - pixels)
                assert client.process(pixels)[0] == GONE
            assert mapped(view.pixels)
            assert client.process(pixels)[0] == GONE
            assert not mapped(view.pixels)
            with serving(name, post):
                assert client.wait() == OK
                assert client.process(pixels)[0] == DONE
        assert [given["reset"] for given in post.given][-1], "after a new start there is no past"

    def test_a_frame_drawn_in_place_outlives_its_server(self, library: Any, name: str) -> None:
        with CClient(library, name) as client:
            server = serving(name)
            assert client.wait() == OK
            frame = frame_of(None, width=SIZE[0], height=SIZE[1])
            status, canvas = client.begin(frame)
            assert status == OK
            server.close()
            with serving(name):
                assert not client.connected
                sdk.ctypes.memset(canvas.pixels, 7, SIZE[0] * SIZE[1] * 4)
                assert client.submit(None, frame) == GONE
                assert sdk.ctypes.string_at(canvas.pixels, 8) == b"\7" * 8
                assert client.wait() == OK

    def test_what_is_shown_stays_though_the_place_is_lost(
        self, library: Any, name: str, pixels: Pixels
    ) -> None:
        with serving(name, Post()) as server, CClient(library, name) as client:
            assert client.wait() == OK
            assert client.submit(pixels) == OK
            status, view = client.result()
            assert status == DONE
            control = server.segment.record(layout.CONTROL, server.segment.plan.slot(0).offset)
            control["generation"] += 1
            for _ in range(2):
                assert client.process(pixels)[0] == GONE
                # In that time the server looks at its places, and takes back what nobody has.
                time.sleep(0.3)
                assert np.array_equal(view.picture(), 255 - pixels)
            assert "took this client's place back" in client.error
            assert client.wait() == OK
            assert client.process(pixels)[0] == DONE

    def test_a_canvas_that_is_not_given_leaves_no_pointers_in_the_frame(
        self, library: Any, name: str
    ) -> None:
        with CClient(library, name) as client:
            frame = frame_of(None, width=SIZE[0], height=SIZE[1], flags=sdk.MOTION | sdk.DEPTH)
            frame.flags |= sdk.REACTIVE
            with serving(name):
                assert client.wait() == OK
                assert client.begin(frame)[0] == OK
                assert None not in pointers(frame)
                frame.width = 321
                assert client.begin(frame)[0] == REFUSED
                assert set(pointers(frame)) == {None}
                frame.width = SIZE[0]
                assert client.begin(frame)[0] == OK
            assert not client.connected
            status, canvas = client.begin(frame)
            assert status == GONE
            assert set(pointers(frame)) == {None}
            assert set(pointers(canvas)) == {None}

    def test_a_dead_servers_name_is_removed_but_no_other(self, library: Any, name: str) -> None:
        dead, lock = segment.create(name, Layout(slot_count=1, max_width=64, max_height=48), "dead")
        with CClient(library, name) as client:
            assert client.connected
            lock.release()
            dead.unlink()
            with serving(name) as server:
                assert not client.connected
                assert segment.segment_path(name).exists(), "it is the new server's"
                assert client.wait() == OK
                assert server.segment.alive()
        dead, lock = segment.create(name, Layout(slot_count=1, max_width=64, max_height=48), "dead")
        lock.release()
        with CClient(library, name) as client:
            assert "the server has ended" in client.error

    @pytest.mark.parametrize(
        ("code", "times", "status", "text"),
        [
            ("ENOSPC", 1000, "refused", "/dev/shm is full: a frame needs 12288 bytes more"),
            ("EIO", 1000, "refused", "no memory in /dev/shm for a frame: Input/output error"),
            ("EINTR", 1000, "refused", "no memory in /dev/shm for a frame: Interrupted system call"),
            ("EINTR", 5, "done", ""),
            ("EOPNOTSUPP", 1000, "done", ""),
            ("ENOSYS", 1000, "done", ""),
        ],
    )
    def test_memory_that_cannot_be_had(
        self, name: str, tmp_path: Path, code: str, times: int, status: str, text: str
    ) -> None:
        wrapper = """
            #define VELATURA_IMPLEMENTATION
            #include <velatura.h>
            long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f);
            long __real_syscall(long number, long a, long b, long c, long d, long e, long f);
            long __wrap_syscall(long number, long a, long b, long c, long d, long e, long f) {
                static int times = TIMES;
                if (number != SYS_fallocate || times-- <= 0)
                    return __real_syscall(number, a, b, c, d, e, f);
                errno = CODE;
                return -1;
            }
            int main(int count, char **words) {
                static unsigned char in[64 * 48 * 4] = {1, 2, 3}, out[64 * 48 * 4];
                velatura_client *client = velatura_open(words[count - 1], NULL);
                velatura_frame frame = {0};
                velatura_picture picture = {0};
                frame.pixels = in;
                frame.width = 64;
                frame.height = 48;
                picture.pixels = out;
                picture.bytes = sizeof out;
                puts(velatura_status_text(velatura_wait(client, 60000000)));
                puts(velatura_status_text(velatura_process(client, &frame, &picture)));
                puts(velatura_error(client));
                velatura_close(client);
                return memcmp(in, out, sizeof in) != 0;
            }
        """
        options = "-Wl,--wrap=syscall", "-Wno-missing-field-initializers"
        program = compile_c(wrapper, tmp_path / "full", *options, f"-DCODE={code}", f"-DTIMES={times}")
        with serving(name):
            told = subprocess.check_output([program, name], text=True).splitlines()
        assert told == ["ok", status, f"{name}: {text}" if text else ""]


class TestStrangers:
    """Files of that name which no server of this version made."""

    @pytest.fixture
    def made(self, name: str) -> Iterator[tuple[segment.Segment, Any]]:
        made, lock = segment.create(name, Layout(slot_count=1, max_width=64, max_height=48), "strange")
        yield made, lock
        made.unlink()
        lock.release()

    def test_another_version_is_refused_by_its_name(
        self, library: Any, name: str, made: tuple[segment.Segment, Any], pixels: Pixels
    ) -> None:
        made[0].record(layout.HEADER, 0)["version_major"] = 2
        made[0].record(layout.HEADER, 0)["version_minor"] = 7
        with CClient(library, name) as client:
            status, picture = client.process(pixels)
            assert status == GONE
            assert "version 2.7" in client.error
            assert "this program 1.0" in client.error
            assert np.array_equal(picture, pixels)
        assert segment.segment_path(name).exists(), "it may live, and is not ours to remove"

    def test_another_minor_version_is_served(
        self, library: Any, name: str, made: tuple[segment.Segment, Any]
    ) -> None:
        made[0].record(layout.HEADER, 0)["version_minor"] = 7
        with CClient(library, name) as client:
            assert client.connected
            control = made[0].record(layout.CONTROL, made[0].plan.slot(0).offset)
            assert int(control["client_version"][0]) == layout.MAJOR << 16 | layout.MINOR
            assert int(control["client_pid"][0]) == os.getpid()

    def test_others_may_not_read_it(
        self, library: Any, name: str, made: tuple[segment.Segment, Any]
    ) -> None:
        made[0].path.chmod(0o644)
        with CClient(library, name) as client:
            assert "not a file of this user's alone" in client.error

    @pytest.mark.parametrize("kind", ["fifo", "link", "folder", "empty", "zeros", "noise"])
    def test_no_segment_at_all(self, library: Any, name: str, kind: str, pixels: Pixels) -> None:
        path = segment.segment_path(name)
        target = path.with_name(f"{path.name}.target")
        if kind == "fifo":
            os.mkfifo(path, 0o600)
        elif kind == "link":
            made, lock = segment.create(target.name.removeprefix(segment.PREFIX), _SMALL, "target")
            path.symlink_to(target)
        elif kind == "folder":
            path.mkdir(0o700)
        else:
            data = {"empty": b"", "zeros": bytes(1 << 16), "noise": noise(5, 128, 128).tobytes()}[kind]
            path.write_bytes(data)
            path.chmod(0o600)
        try:
            with CClient(library, name) as client:
                assert client.process(pixels)[0] == GONE
                assert client.error
        finally:
            path.rmdir() if kind == "folder" else path.unlink()
            if kind == "link":
                made.unlink()
                lock.release()

    def test_answers_that_cannot_be(
        self, library: Any, name: str, made: tuple[segment.Segment, Any], pixels: Pixels
    ) -> None:
        plan = made[0].plan
        right = {"status": 1, "out_width": 64, "out_height": 48, "out_stride": 256, "out_area": 1}
        wrong = [
            {}, {"status": 0}, {"status": 4}, {"out_area": 2}, {"out_width": 65}, {"out_width": 0},
            {"out_height": 0xFFFFFFFF}, {"out_stride": 255}, {"out_stride": 0xFFFFFFFF},
            {"result_sequence": 5},
        ]  # fmt: skip
        with CClient(library, name) as client:
            for change in wrong:
                page = plan.slot(0).offset
                made[0].word(layout.CONTROL, page, "state")[0] = layout.FREE
                assert client.wait() == OK
                before = int(made[0].word(layout.CONTROL, page, "completed")[0])
                assert client.submit(pixels) == OK
                result = made[0].record(layout.RESULT, plan.entry(0, before % 3).offset + 128)
                for key, value in ({"result_sequence": before} | right | change).items():
                    result[key] = value
                made[0].word(layout.CONTROL, page, "completed")[0] = before + 1
                status, view = client.result()
                assert status == (GONE if change else DONE), (change, client.error)
                if change:
                    assert "contradicts itself" in client.error
                    assert np.array_equal(view.picture(), pixels)
            page = plan.slot(0).offset
            made[0].word(layout.CONTROL, page, "state")[0] = layout.FREE
            assert client.wait() == OK
            made[0].word(layout.CONTROL, page, "completed")[0] += 9
            assert client.submit(pixels) == GONE
            assert "frames that were never sent" in client.error


_SMALL = Layout(slot_count=1, max_width=64, max_height=48)


def test_the_cpp_wrapper(name: str, tmp_path: Path) -> None:
    text = """
        #define VELATURA_IMPLEMENTATION
        #include <velatura.hpp>
        #include <iostream>
        #include <utility>
        int main(int, char **words) {
            try { velatura::Client bad("../" + std::string(words[1])); return 1; }
            catch (const std::invalid_argument &) {}
            try { velatura::Client bad(std::string("a\\0b", 3)); return 2; }
            catch (const std::invalid_argument &) {}
            velatura::Client first(words[1]);
            velatura::Client client(std::move(first));
            if (first.get() || !client.wait(60000000)) return 3;
            std::vector<unsigned char> pixels(64 * 48 * 4), out, later;
            unsigned char next = 0;
            for (unsigned char &value : pixels) value = next = static_cast<unsigned char>(next + 7);
            velatura_frame frame = velatura_frame();
            frame.pixels = pixels.data();
            frame.width = 64;
            frame.height = 48;
            frame.deadline_us = 20000000;
            velatura::Picture made = client.process(frame, out);
            if (!made || made.width != 64 || out != pixels) return 4;
            if (client.submit(frame) != VELATURA_OK) return 5;
            if (!client.collect(later, 20000000) || later != pixels) return 6;
            if (client.collect(later).status != VELATURA_EMPTY || client.error() != "") return 7;
            first = std::move(client);
            if (client.get() || !first.connected() || first.models() != "identity") return 8;
            std::cout << first.output_size(64, 48).width << std::endl;
            return 0;
        }
    """
    program = compile_c(text, tmp_path / "wrapper", "-Wno-unused", cxx=True)
    with serving(name):
        done = subprocess.run([program, name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "64\n")
