"""`velatura serve` as a user runs it."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from velatura.runtime.errors import EngineError, ModelError, SourceError
from velatura.runtime.game import Client
from velatura.runtime.game.shm import segment

from ..commands import velatura
from .shared import fresh_name, leftovers, picture, serving, until


def serve(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return velatura("serve", *arguments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(number: int) -> None:
    name = fresh_name()
    with serving(name, "-m", "identity", "--max-size", "64x48", "--clients", "2") as server:
        assert any(line.startswith(f"serving {name}: identity, 2 clients") for line in server.said)
        with Client(name, deadline_ms=30_000, require=True) as client:
            sent = picture(64, 48)
            assert np.array_equal(client(sent), sent)
            assert server.stop(number) == 0
            assert client(sent) is sent
            assert client.status == "unconnected"
    assert leftovers() == []
    assert any("came to slot 0" in line for line in server.said)
    assert any("clients: 1 in" in line and "1 frames done" in line for line in server.said), server.said


def test_statistics_are_lines_of_json() -> None:
    name = fresh_name()
    with serving(name, "--stats", "json", "--max-size", "64x48") as server:
        with Client(name, deadline_ms=30_000, require=True) as client:
            client(picture(64, 48))
            until(lambda: any('"done": 1' in line for line in server.said))
        assert server.stop() == 0
    found = [json.loads(line) for line in server.said if line.startswith("{")]
    assert found[0]["ready"]["name"] == name
    assert found[0]["ready"]["max_size"] == [64, 48]
    assert "summary" in found[-1]
    assert found[-1]["summary"]["done"] == 1
    (client_found,) = next(
        one["stats"]["clients"] for one in found if one.get("stats", {}).get("clients")
    )
    assert client_found["slot"] == 0


def test_a_name_is_served_once() -> None:
    name = fresh_name()
    with serving(name, "--max-size", "64x48") as server:
        done = serve("--shm", name)
        assert done.returncode == EngineError.exit_code
        assert f"{name} is served already by process {server.pid}" in done.stderr
        assert server.running


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--shm", "../x"), 2, "is no name for shared memory"),
        (("--shm", ""), 2, "is no name for shared memory"),
        (("--shm", "-x"), 2, "is no name for shared memory"),
        (("--shm", "x" * 300), 2, "is no name for shared memory"),
        (("--shm", "n", "--max-size", "big"), 2, "--max-size"),
        (("--shm", "n", "--max-size", "99999x10"), 2, "max_width"),
        (("--shm", "n", "--clients", "0"), 2, "clients"),
        (("--shm", "n", "--budget-ms", "-3"), 2, "budget"),
        (("--shm", "n", "--stats", "xml"), 2, "--stats"),
        (("--shm", "n", "--strength", "2"), 2, "--strength"),
        (("--shm", "n", "--mask", "nowhere.png"), SourceError.exit_code, "cannot be read"),
        (("--shm", "n", "-m", "no-such-model"), ModelError.exit_code, "unknown model"),
        ((), 2, "--shm"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(arguments: tuple[str, ...], code: int, text: str) -> None:
    done = serve(*arguments)
    assert done.returncode == code, done.stderr
    assert text in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not segment.segment_path("n").exists()


def test_without_shared_memory_it_says_what_is_missing() -> None:
    code = """
import sys
from pathlib import Path
from velatura.runtime.game.shm import segment
segment.FOLDER = Path("/nonexistent/shm")
sys.argv = ["velatura", "serve", "--shm", "n"]
from velatura.runtime.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == EngineError.exit_code
    assert "/nonexistent/shm is missing" in done.stderr
