"""The engine cache: whole or absent, one builder at a time, bounded, harmless where it cannot write."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime import EngineError, open_engine
from velatura.runtime.cache import FOLDER_VARIABLE, EngineCache, default_folder, write_whole

KEY = {"name": "net", "backend": "rtx", "precision": "fp16", "graph": "abc", "size": [720, 1280]}


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    assert cache.get(KEY) is None
    cache.put(KEY, b"engine")
    assert EngineCache(tmp_path).get(KEY) == b"engine"
    (entry,) = cache.entries()
    assert entry.whole
    assert entry.key == KEY
    assert entry.path.name.startswith("net-rtx-fp16-")


@pytest.mark.parametrize("word", ["graph", "size", "backend", "name"])
def test_every_part_of_the_key_counts(tmp_path: Path, word: str) -> None:
    cache = EngineCache(tmp_path)
    cache.put(KEY, b"engine")
    other = {**KEY, word: "another"}
    assert cache.get(other) is None
    assert cache.get({**KEY, "driver": 13000}) is None
    assert cache.get(KEY) == b"engine"


@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=1, max_size=200), where=st.floats(0, 0.999), how=st.sampled_from("cfa"))
def test_a_damaged_file_is_absent_and_built_again(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, where: float, how: str
) -> None:
    """Cut, one bit flipped, or something added, anywhere."""
    cache = EngineCache(tmp_path_factory.mktemp("c"))
    cache.put(KEY, data)
    path = cache.path_of(KEY)
    stored = path.read_bytes()
    place = int(where * len(stored))
    if how == "c":
        path.write_bytes(stored[:place])
    elif how == "f":
        path.write_bytes(stored[:place] + bytes([stored[place] ^ 4]) + stored[place + 1 :])
    else:
        path.write_bytes(stored + b"x")
    assert cache.get_or_build(KEY, lambda: b"anew") == (b"anew", True)
    assert cache.get_or_build(KEY, lambda: pytest.fail("built twice")) == (b"anew", False)


def test_a_file_of_another_key_under_this_name_is_not_taken(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.put({**KEY, "graph": "other"}, b"other")
    cache.path_of({**KEY, "graph": "other"}).rename(cache.path_of(KEY))
    assert cache.get(KEY) is None


def test_a_builder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)

    def fail() -> bytes:
        raise EngineError("no memory")

    with pytest.raises(EngineError, match="no memory"):
        cache.get_or_build(KEY, fail)
    assert cache.entries() == []
    assert cache.get_or_build(KEY, lambda: b"x") == (b"x", True)


def test_what_a_neighbour_puts_while_it_is_looked_for_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was removed as if it were damaged, and built a second time."""
    cache, neighbour = EngineCache(tmp_path), EngineCache(tmp_path)
    real = Path.open

    def opening(path: Path, *words: str) -> IO[Any]:
        try:
            return real(path, *words)
        except FileNotFoundError:
            neighbour.put(KEY, b"engine")
            raise

    monkeypatch.setattr(Path, "open", opening)
    assert cache.get(KEY) is None
    assert cache.get(KEY) == b"engine"


BUILDER = """
import sys, time
from pathlib import Path
from velatura.runtime.cache import EngineCache
folder, mark = sys.argv[1:]
def build():
    with Path(mark).open("a") as file:
        file.write("built\\n")
    time.sleep(0.5)
    return b"engine" * 1000
data, fresh = EngineCache(folder).get_or_build({"name": "net"}, build)
assert data == b"engine" * 1000
print(fresh)
"""


def test_of_four_processes_one_builds(tmp_path: Path) -> None:
    folder, mark = tmp_path / "cache", tmp_path / "mark"
    command = [sys.executable, "-c", BUILDER, str(folder), str(mark)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate(timeout=60)[0].strip() for process in running]
    assert sorted(answers) == ["False", "False", "False", "True"]
    assert mark.read_text() == "built\n"


def test_a_killed_builder_does_not_lock_the_others_out(tmp_path: Path) -> None:
    folder, mark = tmp_path / "cache", tmp_path / "mark"
    slow = BUILDER.replace("time.sleep(0.5)", "time.sleep(60)")
    command = [sys.executable, "-c", slow, str(folder), str(mark)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while not mark.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    start = time.monotonic()
    assert EngineCache(folder).get_or_build({"name": "net"}, lambda: b"mine") == (b"mine", True)
    assert time.monotonic() - start < 5


def test_the_least_used_go_when_there_are_too_many(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path, limit=3500)
    for number in range(3):
        cache.put({"name": f"n{number}"}, bytes(1000))
        os.utime(cache.path_of({"name": f"n{number}"}), (number, number))
    assert cache.get({"name": "n0"}) is not None  # used just now
    cache.put({"name": "n3"}, bytes(1000))
    kept = {str(entry.key["name"]) for entry in cache.entries()}
    assert kept == {"n0", "n2", "n3"}


def test_clear_removes_engines_and_leftovers(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.get_or_build(KEY, lambda: b"x")
    (tmp_path / f".{cache.path_of(KEY).name}.abc123").write_bytes(b"half")
    timings = cache.timings("tensorrt", "11.4")
    assert timings is not None
    timings.write_bytes(b"tactics")
    (tmp_path / "notes.txt").write_text("mine")
    assert cache.clear() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = EngineCache(tmp_path / "file" / "cache")
    assert cache.problem is not None
    assert "not kept" in cache.problem
    assert cache.get_or_build(KEY, lambda: b"x") == (b"x", True)
    assert cache.get_or_build(KEY, lambda: b"y") == (b"y", True)
    assert cache.timings("tensorrt", "11.4") is None
    with open_engine("upscale-2x", precision="fp32", cache=cache) as engine:
        engine.prepare(32, 32)


def test_a_whole_entry_that_the_library_refuses_is_replaced(tmp_path: Path) -> None:
    """Else each start would compile again, for ever."""
    cache = EngineCache(tmp_path)

    def prepare() -> None:
        with open_engine("upscale-2x", "openvino", precision="fp32", cache=cache) as engine:
            engine.prepare(32, 32)

    prepare()
    (entry,) = cache.entries()
    cache.put(entry.key, b"no model of OpenVINO's")
    prepare()
    assert len(cache.get(entry.key) or b"") > 1000


def test_the_folder_is_the_users_unless_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert default_folder().name == "velatura"


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_a_written_file_is_for_whom_its_writers_files_are(tmp_path: Path) -> None:
    """Not for its owner alone, as the standard library's temporary files are."""
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    write_whole(tmp_path / "whole", b"engine")
    assert (tmp_path / "whole").stat().st_mode == plain.stat().st_mode
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "whole"}
