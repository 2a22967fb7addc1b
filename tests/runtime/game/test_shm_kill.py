"""Either side dies at any moment: the other goes on, and nothing stays."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from velatura.runtime.game import Client
from velatura.runtime.game.shm import segment

from .shared import Process, fresh_name, leftovers, picture, serving, until

PATIENT = 30_000.0
"""Milliseconds. A frame that waited so long for a dead server would be counted as late."""
SIZE = ("--max-size", "320x240")


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    yield
    assert leftovers() == []


def kill_servers(times: int, seed: int) -> None:
    """Under a client that plays on."""
    rng = random.Random(seed)
    name = fresh_name()
    sent = picture(160, 120)
    with Client(name, deadline_ms=PATIENT) as client:
        for turn in range(times):
            process = Process(name, "-m", "identity", *SIZE)
            until(lambda: client(sent) is not sent, 60)
            assert client.counts.connections == turn + 1
            killer = threading.Timer(rng.random() * 0.1, process.kill)
            killer.start()
            before = client.counts.done
            while client.connected:
                shown = client(sent)
                assert np.array_equal(shown, sent)
                assert (client.status == "done") == (shown is not sent)
            killer.join()
            assert client.counts.done > before or client.counts.unconnected
            # Who has lost it takes away what the dead one left.
            assert not segment.segment_path(name).exists()
            for _ in range(100):
                assert client(sent) is sent
        counts = client.counts
        assert counts.late == counts.passed == counts.refused == counts.busy == 0
        assert counts.connections == times


def kill_clients(times: int, seed: int, *options: str, pool: int = 0) -> None:
    """Beside a client that must not notice. So many threads may a library's own pool gain."""
    rng = random.Random(seed)
    name = fresh_name()
    with serving(name, "--clients", "3", *SIZE, *options) as server:
        with Client(name, deadline_ms=PATIENT, require=True) as client:
            sent = picture(64, 48)
            until(lambda: client(sent) is not sent and client.status == "done", 60)
            kill_one(server, client, rng, name)
            threads, files = until(lambda: settle(server))
            for _ in range(times - 1):
                kill_one(server, client, rng, name)
            until(lambda: server.threads() <= threads + pool and server.files() <= files, 60)
            assert server.files() == files
            assert client.counts.connections == 1
            assert client.counts.late == client.counts.refused == client.counts.unconnected == 0
        # Every slot is free again, and its lock: as many as there are find room.
        others = [until(lambda: connected(name)) for _ in range(3)]
        for other in others:
            other(sent)
            assert other.connected
            other.close()
        assert server.running
        assert server.stop() == 0


def kill_one(server: Process, client: Client, rng: random.Random, name: str) -> None:
    """A game that plays, until some moment."""
    width, height = rng.randint(1, 320), rng.randint(1, 240)
    script = Path(__file__).with_name("player.py")
    game = subprocess.Popen(
        [sys.executable, str(script), name, str(width), str(height)], stdout=subprocess.PIPE
    )
    assert game.stdout is not None
    threading.Thread(target=game.stdout.readline).start()
    killer: threading.Timer | None = None
    turn = 0
    while killer is None or killer.is_alive():
        turn += 1
        sent = picture(64, 48, turn)
        client(sent)
        assert client.status == "done", client.trouble
        assert server.running
        if killer is None and any(f"client {game.pid} came" in line for line in server.said):
            killer = threading.Timer(rng.random() * 0.1, game.kill)
            killer.start()
    game.wait()
    game.stdout.close()
    until(lambda: any(f"client {game.pid} left" in line for line in server.said), 60)


def settle(server: Process) -> tuple[int, int] | None:
    """Threads and files of the server, once they stay the same."""
    before = server.threads(), server.files()
    time.sleep(0.3)
    return before if before == (server.threads(), server.files()) else None


def connected(name: str) -> Client | None:
    """A client, when there is room for one."""
    client = Client(name, deadline_ms=PATIENT)
    return client if client.connected else None


def test_servers_die_under_a_client() -> None:
    kill_servers(3, seed=1)


def test_clients_die_beside_another() -> None:
    kill_clients(4, 2, "-m", "identity")


@pytest.mark.soak
def test_fifty_servers_die_under_a_client() -> None:
    kill_servers(50, seed=3)


@pytest.mark.soak
def test_fifty_clients_die_beside_another() -> None:
    kill_clients(50, 4, "-m", "identity")


@pytest.mark.soak
def test_clients_of_a_network_die_beside_another() -> None:
    options = ("-m", "upscale-2x", "--backend", "openvino", "--precision", "fp32")
    kill_clients(8, 5, *options, pool=3)


def test_a_server_that_was_killed_without_clients_is_swept_by_the_next() -> None:
    first, second = fresh_name(), fresh_name()
    process = Process(first, *SIZE)
    process.kill()
    with serving(second, *SIZE):
        until(lambda: not segment.segment_path(first).exists())
        assert segment.segment_path(second).exists()
