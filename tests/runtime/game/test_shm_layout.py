"""The binary layout, and whom a segment's file is trusted for."""

import os
import platform
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from velatura.runtime.errors import EngineError
from velatura.runtime.game import Client
from velatura.runtime.game.shm import layout, locks, segment
from velatura.runtime.game.shm.futex import Futex
from velatura.runtime.game.shm.layout import Area, Header, Layout, Request, Result

from .shared import fresh_name, until

PLAN = Layout(slot_count=2, max_width=64, max_height=48, max_scale=2)


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One of its own, in which no other test's server sweeps; nothing stays there."""
    with tempfile.TemporaryDirectory(prefix="test-velatura-", dir="/dev/shm") as folder:
        monkeypatch.setattr(segment, "FOLDER", Path(folder))
        yield
        assert list(Path(folder).iterdir()) == []


def files() -> list[str]:
    """What lies in the folder."""
    return sorted(path.name for path in segment.FOLDER.iterdir())


# ---- layout ---------------------------------------------------------------------------------------


def test_members_stand_where_the_published_layout_has_them() -> None:
    header = Header(layout=PLAN, minor=0, pid=77, session=0x1122334455667788, title="wave")
    page = header.pack(layout.READY)
    assert struct.unpack_from("<8I", page, 0)[2:] == (1, 0, 4096, 2, 3, 2)
    assert struct.unpack_from("<3Q", page, 32) == (PLAN.file_bytes, 4096, PLAN.slot_stride)
    assert struct.unpack_from("<6I", page, 56) == (64, 48, 2, 0, 77, 0)
    assert struct.unpack_from("<2Q", page, 80) == (0x1122334455667788, 0)
    assert page[96:101] == b"wave\0"
    assert len(page) == 4096
    assert page[160:] == bytes(4096 - 160)


def test_requests_and_results_are_read_as_c_writes_them() -> None:
    packed = struct.pack("<Q11I6fIQ", 5, 6, 7, 28, 2, 3, 8, 9, 10, 11, 12, 13,
                         0.25, -0.5, 2.0, -3.0, 0.5, 99.0, 1234, 1 << 40)  # fmt: skip
    assert len(packed) == 88
    found = Request.read(np.frombuffer(packed.ljust(128, b"\0"), layout.REQUEST))
    assert found == Request(
        sequence=5, width=6, height=7, stride=28, format=2, flags=3, motion_width=8,
        motion_height=9, depth_width=10, depth_height=11, reactive_width=12, reactive_height=13,
        jitter_x=0.25, jitter_y=-0.5, motion_scale_x=2.0, motion_scale_y=-3.0, depth_near=0.5,
        depth_far=99.0, deadline_us=1234, submitted_ns=1 << 40,
    )  # fmt: skip
    back = np.zeros(1, layout.REQUEST)
    found.write(back)
    assert back.tobytes() == packed.ljust(128, b"\0")
    answer = struct.pack("<Q6IQf", 5, 1, 12, 14, 48, 1, 0, 99, 1.5).ljust(128, b"\0")
    result = Result.read(np.frombuffer(answer, layout.RESULT))
    assert result == Result(
        result_sequence=5, status=1, out_width=12, out_height=14, out_stride=48, out_area=1,
        completed_ns=99, work_ms=1.5,
    )  # fmt: skip
    back = np.zeros(1, layout.RESULT)
    result.write(back)
    assert back.tobytes() == answer


@given(
    slots=st.integers(1, 20), width=st.integers(1, 300), height=st.integers(1, 300),
    scale=st.integers(1, 8), ring=st.integers(1, 8),
)  # fmt: skip
def test_areas_are_pages_that_fill_the_file_without_overlap(
    slots: int, width: int, height: int, scale: int, ring: int
) -> None:
    plan = Layout(slot_count=slots, max_width=width, max_height=height, max_scale=scale, ring=ring)
    position = 4096
    for slot in range(slots):
        assert plan.slot(slot).offset == position
        position += 4096
        for turn in range(ring):
            areas = plan.areas(slot, turn)
            pixels = width * height
            needed = (pixels * 4, pixels * scale**2 * 4, pixels * 8, pixels * 4, pixels)
            for area, least in zip(areas, needed, strict=True):
                assert area.offset == position
                assert area.offset % 4096 == area.size % 4096 == 0
                assert least <= area.size < least + 4096
                position += area.size
    assert plan.file_bytes == position


@pytest.mark.parametrize("name", ["slot_count", "max_width", "max_height", "max_scale", "ring"])
@pytest.mark.parametrize("value", [0, -1, 1 << 20])
def test_a_layout_beyond_its_limits_is_refused(name: str, value: int) -> None:
    figures = {"slot_count": 1, "max_width": 1, "max_height": 1, name: value}
    with pytest.raises(ValueError, match=name):
        Layout(**figures)


@given(st.binary(min_size=0, max_size=160))
def test_garbage_is_no_header(found: bytes) -> None:
    with pytest.raises(EngineError):
        Header.unpack((b"VELATURA" + found).ljust(4096, b"\0"), 1 << 40)


def test_every_bit_of_a_header_may_flip_without_harm() -> None:
    header = Header(layout=PLAN, minor=0, pid=1, session=3, title="t")
    whole = bytearray(header.pack(layout.READY))
    whole[:8] = layout.MAGIC
    assert Header.unpack(bytes(whole), PLAN.file_bytes) == header
    for bit in range(8 * 96):
        spoiled = bytearray(whole)
        spoiled[bit // 8] ^= 1 << bit % 8
        try:
            found = Header.unpack(bytes(spoiled), PLAN.file_bytes)
        except EngineError:
            continue
        # What does not matter for where anything lies.
        assert found.layout == PLAN, bit


def test_another_major_version_is_named_with_ours() -> None:
    page = bytearray(Header(layout=PLAN, minor=0, pid=1, session=3, title="").pack(layout.READY))
    page[:8] = layout.MAGIC
    struct.pack_into("<2I", page, 8, 2, 5)
    with pytest.raises(EngineError, match=r"version 2\.5 .*1\.0"):
        Header.unpack(bytes(page), PLAN.file_bytes)


@given(st.text(max_size=200), st.integers(1, 120))
def test_texts_fit_and_end(text: str, size: int) -> None:
    packed = layout.pack_text(text, size)
    assert len(packed) == size
    assert packed[-1] == 0
    found = layout.unpack_text(packed)
    assert found.isprintable()
    if text.isprintable() and len(text.encode("utf-8", "replace")) < size:
        assert found == text


# ---- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/x", "a/b", "a/../b", "x" * 65, "x" * 300, "a\0b", "\0", "-rf", ".hidden",
     "a b", "a\n", "\n", "é", "ｘ", "a\\b", "a;b", "٣", "~", "a%2f", "x\u202e"],
)  # fmt: skip
def test_bad_names_are_refused(name: str) -> None:
    for use in (segment.check_name, segment.segment_path, segment.attach):
        with pytest.raises(ValueError, match="is no name for shared memory"):
            use(name)
    with pytest.raises(ValueError, match="is no name"):
        segment.create(name, PLAN, "")


@given(st.text(max_size=80))
def test_no_name_leaves_the_folder(name: str) -> None:
    try:
        path = segment.segment_path(name)
    except ValueError:
        return
    assert path.parent == segment.FOLDER
    assert path.name == f"velatura-{name}"
    assert os.path.normpath(path) == str(path)


@pytest.mark.parametrize("name", ["a", "_", "game", "Game_2.final-x", "x" * 64, "0"])
def test_good_names_are_taken(name: str) -> None:
    assert segment.segment_path(name) == segment.FOLDER / f"velatura-{name}"


# ---- the file -------------------------------------------------------------------------------------


def test_a_segment_is_the_owners_alone_whatever_the_umask() -> None:
    name = fresh_name()
    before = os.umask(0)
    try:
        made, lock = segment.create(name, PLAN, "wave")
    finally:
        os.umask(before)
    found = made.path.stat()
    assert found.st_mode & 0o777 == 0o600
    assert found.st_size == PLAN.file_bytes
    other = segment.attach(name)
    assert other.header == made.header
    assert other.header.title == "wave"
    assert other.alive()
    made.unlink()
    lock.release()
    assert not other.alive()


def test_untouched_pages_cost_nothing() -> None:
    plan = Layout(slot_count=8, max_width=1920, max_height=1080, max_scale=4)
    made, lock = segment.create(fresh_name(), plan, "")
    with lock:
        assert plan.file_bytes > 3 << 30
        assert os.fstat(made.fd).st_blocks * 512 < 1 << 20
        area = plan.areas(3, 1)[1]
        made.reserve(Area(area.offset, 1 << 20))
        assert os.fstat(made.fd).st_blocks * 512 >= 1 << 20
        made.bytes(area)[:100] = 7
        made.discard(area)
        assert os.fstat(made.fd).st_blocks * 512 < 1 << 20
        assert not made.bytes(area)[:100].any()
        made.unlink()


def test_a_name_is_served_once_and_again_after_a_death() -> None:
    name = fresh_name()
    first, lock = segment.create(name, PLAN, "")
    with pytest.raises(EngineError, match=f"served already by process {os.getpid()}"):
        segment.create(name, PLAN, "")
    lock.release()  # as by a death: the file stays
    second, other = segment.create(name, PLAN, "")
    assert os.fstat(second.fd).st_ino != os.fstat(first.fd).st_ino
    # What the first one's own clean-up does now must not touch the second's file.
    first.unlink()
    assert segment.attach(name).header == second.header
    second.unlink()
    other.release()


def test_a_dead_servers_file_is_taken_away_by_whoever_finds_it() -> None:
    name = fresh_name()
    _, lock = segment.create(name, PLAN, "")
    lock.release()
    assert len(files()) == 1
    with pytest.raises(segment.Absent, match="died"):
        segment.attach(name)
    assert files() == []
    with pytest.raises(segment.Absent, match="velatura serve --shm"):
        segment.attach(name)


def test_sweeping_takes_the_dead_and_leaves_the_living() -> None:
    alive, dead, strange = fresh_name(), fresh_name(), fresh_name()
    made, lock = segment.create(alive, PLAN, "")
    segment.create(dead, PLAN, "")[1].release()
    path = segment.segment_path(strange)
    path.symlink_to("/nonexistent")
    segment.sweep()
    assert files() == sorted(f"velatura-{n}" for n in (alive, strange))
    path.unlink()
    made.unlink()
    lock.release()


@pytest.mark.parametrize("kind", ["weights", "another version", "no bytes", "the magic alone"])
def test_what_only_has_such_a_name_is_never_removed(kind: str) -> None:
    name = fresh_name()
    path = segment.segment_path(name)
    if kind == "another version":
        made, lock = segment.create(name, PLAN, "")
        made.record(layout.HEADER, 0)["version_major"] = 2
        lock.release()
        text = r"version 2\.0 .*1\.0"
    else:
        path.touch(0o600)
        path.write_bytes({"weights": b"weights " * 4096, "no bytes": b""}.get(kind, layout.MAGIC))
        text = "too few for a header" if kind == "the magic alone" else "is no segment of velatura"
    inode = path.stat().st_ino
    uses = (
        lambda: segment.attach(name),
        lambda: segment.create(name, PLAN, ""),
        lambda: segment.remove(path),
    )
    for use in uses:
        with pytest.raises(EngineError, match=text) as caught:
            use()
        assert "remove it" in str(caught.value)
        assert not isinstance(caught.value, segment.Absent)
        assert path.stat().st_ino == inode
    segment.sweep()
    with Client(name) as client:
        assert not client.connected
        assert str(path) in client.trouble
    assert path.stat().st_ino == inode
    path.unlink()


@pytest.mark.parametrize(
    "kind", ["link", "folder", "fifo", "open to others", "empty", "short", "noise"]
)
def test_a_file_that_is_not_to_be_trusted_is_refused(kind: str) -> None:
    name = fresh_name()
    path = segment.segment_path(name)
    real, lock = segment.create(fresh_name(), PLAN, "")
    held = None
    try:
        if kind == "link":
            path.symlink_to(real.path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path, 0o600)
        else:
            path.touch(0o600)
            if kind == "open to others":
                path.chmod(0o640)
            content = bytes(real.bytes(Area(0, 4096)))
            path.write_bytes({"empty": b"", "noise": os.urandom(8192)}.get(kind, content))
            # As if a living server had it.
            fd = os.open(path, os.O_RDWR)
            held = locks.Lock(fd, layout.SERVER_LOCK)
            os.close(fd)
            assert held.take()
        with pytest.raises(EngineError) as caught:
            segment.attach(name)
        assert not isinstance(caught.value, segment.Absent)
        assert str(path) in str(caught.value)
        with pytest.raises(EngineError):
            segment.create(name, PLAN, "")
        assert os.path.lexists(path), "what is not ours to remove was removed"
    finally:
        if held is not None:
            held.release()
        path.rmdir() if kind == "folder" else path.unlink()
        real.unlink()
        lock.release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_refused() -> None:
    name = fresh_name()
    made, lock = segment.create(name, PLAN, "")
    os.chown(made.path, 12345, -1)
    with pytest.raises(EngineError, match="belongs to user 12345"):
        segment.attach(name)
    lock.release()
    with pytest.raises(EngineError, match="belongs to user 12345"):
        segment.create(name, PLAN, "")
    made.path.unlink()


def test_locks_end_with_their_process_and_not_with_its_forks() -> None:
    name = fresh_name()
    code = f"""
import os, pathlib, time
from velatura.runtime.game.shm import segment
from velatura.runtime.game.shm.layout import Layout
segment.FOLDER = pathlib.Path({str(segment.FOLDER)!r})
made, lock = segment.create({name!r}, Layout(slot_count=1, max_width=8, max_height=8), "")
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(100)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        found = segment.attach(name)
        assert found.alive()
        process.kill()
        process.wait()
        # The child has every file and mapping of its parent, and lives on.
        os.kill(child, 0)
        until(lambda: not found.alive())
        assert segment.remove(found.path)
    finally:
        os.kill(child, 9)
        process.stdout.close()


def test_views_outlive_what_is_closed() -> None:
    made, lock = segment.create(fresh_name(), PLAN, "")
    view = made.bytes(PLAN.areas(0, 0)[0])
    made.unlink()
    lock.release()
    made.close()
    del made
    view[:] = 5
    assert view.sum() == 5 * view.size


def test_a_futex_wakes_and_times_out() -> None:
    word = np.zeros(1, np.uint32)
    futex = Futex(word)
    assert not futex.wait(0, 0.01)
    assert futex.wait(1, 10.0), "another value does not sleep"
    thread = threading.Timer(0.05, lambda: (setattr(futex, "value", 3), futex.wake()))
    thread.start()
    until(lambda: futex.wait(0, 5.0))
    assert futex.value == 3
    thread.join()
    with pytest.raises(ValueError, match="aligned"):
        Futex(np.zeros(2, np.uint32))


@pytest.mark.parametrize(
    ("where", "name", "value", "text"),
    [
        (sys, "platform", "win32", "on Linux only .*, not on win32"),
        (platform, "machine", lambda: "sparc64", "x86_64, .*, not on a sparc64"),
        (
            segment,
            "FOLDER",
            Path("/nonexistent/shm"),
            "/nonexistent/shm is missing; mount a tmpfs",
        ),
    ],
)
def test_where_it_cannot_work_it_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, where: Any, name: str, value: Any, text: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(where, name, value)
        for use in (lambda: segment.create("n", PLAN, ""), lambda: segment.attach("n")):
            with pytest.raises(EngineError, match=text):
                use()
