"""Garbage on either side: a client that means harm, and a server that does."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from velatura.runtime.game import Client
from velatura.runtime.game.shm import layout, segment
from velatura.runtime.game.shm.layout import Area, Layout, Request, Result
from velatura.runtime.game.shm.locks import Lock
from velatura.runtime.game.shm.segment import Segment
from velatura.runtime.game.shm.server import Server, Work
from velatura.runtime.game.shm.slot_client import Answer, Link

from . import hostile
from .shared import Inverting, fresh_name, inverted, leftovers, picture, serving, until

PATIENT = 30_000.0
NETWORK = Work(models=("test",))


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Work, "scale", _one)
    yield
    assert leftovers() == []


def _one(work: Work) -> int:
    del work
    return 1


# ---- a hostile client -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_hostile_client_harms_itself_only(seed: int) -> None:
    name = fresh_name()
    rng = np.random.default_rng(seed)
    with Server(name, NETWORK, max_size=(64, 64), clients=4, open_post=Inverting) as server:
        server.start()
        with Client(name, deadline_ms=PATIENT, require=True) as good:
            link: Link | None = None
            for turn in range(250):
                if link is None:
                    # What it has done to the header keeps itself out, too, until that is put right.
                    link = until(lambda: _link(name))
                hostile.attack(rng, link, link.segment)
                if turn % 3 == 0:
                    sent = picture(1 + turn % 64, 1 + seed % 64, turn)
                    assert np.array_equal(good(sent), inverted(sent)), good.trouble
                if rng.random() < 0.05:
                    link.close()
                    link = None
            if link is not None:
                link.close()
            assert good.counts.done == good.counts.frames
            assert good.counts.connections == 1
            # All is put right for those who come now.
            with until(lambda: _client(name)) as late:
                sent = picture(64, 64)
                assert np.array_equal(late(sent), inverted(sent))
            until(lambda: len(server.stats().clients) == 1)


def _link(name: str) -> Link | None:
    try:
        return Link(name)
    except segment.EngineError:
        return None


def _client(name: str) -> Client | None:
    client = Client(name, deadline_ms=PATIENT)
    return client if client.connected else None


def test_a_hostile_process_beside_a_good_one() -> None:
    """At the same time, in processes of their own: what is checked is not what it was a moment ago."""
    name = fresh_name()
    script = Path(__file__).with_name("hostile.py")
    with serving(name, "-m", "identity", "--max-size", "64x64", "--clients", "4") as server:
        with Client(name, deadline_ms=PATIENT, require=True) as good:
            good(picture(64, 64))
            enemies = [
                subprocess.Popen(
                    [sys.executable, str(script), name, str(seed), "1"],
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for seed in range(2)
            ]
            turn = 0
            while any(enemy.poll() is None for enemy in enemies):
                turn += 1
                sent = picture(1 + turn % 64, 1 + turn % 63, turn)
                assert np.array_equal(good(sent), sent)
                assert good.status == "done", good.trouble
            for enemy in enemies:
                out, _ = enemy.communicate()
                assert enemy.returncode == 0
                assert int(out) > 0, "it never had a slot"
            assert good.counts.connections == 1
            with until(lambda: _client(name)) as late:
                assert np.array_equal(late(sent), sent)
        assert server.running
        assert server.stop() == 0


def test_a_client_that_never_reads_is_answered_and_forgotten() -> None:
    name = fresh_name()
    with Server(name, NETWORK, max_size=(64, 64), open_post=Inverting) as server:
        server.start()
        deaf, good = Link(name), Client(name, deadline_ms=PATIENT, require=True)
        for turn in range(200):
            colour = deaf.colour(64, 64)
            request = Request(sequence=0, width=64, height=64, stride=256, format=1)
            # No room is asked for, no answer looked at.
            deaf.submit(request, colour, turn)
            sent = picture(20, 20, turn)
            assert np.array_equal(good(sent), inverted(sent))
        deaf.close()
        good.close()
        until(lambda: not server.stats().clients)


RIGHT: dict[str, Any] = {"sequence": 0, "width": 8, "height": 8, "stride": 32, "format": 1}


def _ask(link: Link, request: Request) -> Answer:
    answer = link.wait(link.submit(request, link.colour(8, 8), 0), time.monotonic() + 30)
    assert answer is not None
    return answer


def _refused(request: Request, note: str) -> None:
    name = fresh_name()
    with Server(name, NETWORK, max_size=(64, 48), open_post=Inverting) as server:
        server.start()
        link = Link(name)
        answer = _ask(link, request)
        assert answer.status == layout.REFUSED
        assert answer.picture is None
        assert note in link.message
        # The next one, which is right, is not held against it.
        sent = link.submit(
            Request(sequence=0, width=8, height=8, stride=32, format=1), link.colour(8, 8), 1
        )
        answer = link.wait(sent, time.monotonic() + 30)
        assert answer is not None
        assert answer.status == layout.DONE
        link.close()


BIG = 0xFFFFFFFF
DEVICE = {"flags": layout.DEPTH | layout.DEVICE_DEPTH, "depth_width": 8, "depth_height": 8}


@pytest.mark.parametrize(
    ("wrong", "note"),
    [
        ({"width": 0}, "0x8"),
        ({"width": 65}, "65x8: this server takes 1x1 to 64x48"),
        ({"height": BIG}, f"8x{BIG}"),
        ({"width": BIG, "stride": BIG}, str(BIG)),
        ({"stride": 31}, "a stride of 31 bytes for 8 pixels"),
        ({"stride": BIG}, f"8 rows of {BIG} bytes"),
        ({"stride": 0}, "a stride of 0"),
        ({"format": 0}, "format 0"),
        ({"format": 3}, "format 3"),
        ({"flags": 1024}, "unknown flags 0x400"),
        ({"flags": 1 << 31}, "unknown flags"),
        ({"flags": 2}, "a motion of 0x0"),
        ({"flags": 2, "motion_width": 65, "motion_height": 1}, "a motion of 65x1"),
        ({"flags": 4, "depth_width": 8, "depth_height": BIG}, "a depth of"),
        ({"flags": 8, "reactive_width": BIG, "reactive_height": BIG}, "a reactive mask of"),
        ({"jitter_x": float("nan")}, "jitter"),
        ({"jitter_y": float("inf")}, "jitter"),
        ({"flags": 2, "motion_width": 8, "motion_height": 8, "motion_scale_x": float("nan")}, "scale"),
        ({"flags": 2, "motion_width": 8, "motion_height": 8, "motion_scale_y": 0.0}, "scale"),
        ({**DEVICE, "depth_near": float("nan")}, "near"),
        ({**DEVICE, "depth_near": 2.0, "depth_far": 1.0}, "far"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_with_a_word(wrong: dict[str, float], note: str) -> None:
    _refused(Request(**(RIGHT | wrong)), note)


def test_a_wide_stride_is_no_mistake() -> None:
    name = fresh_name()
    with Server(name, NETWORK, max_size=(64, 48), open_post=Inverting) as server:
        server.start()
        link = Link(name)
        area = link.segment.bytes(link.segment.plan.areas(link._slot, 0)[0])
        rows = area[: 8 * 200].reshape(8, 200)[:, :32].reshape(8, 8, 4)
        rows[:] = picture(8, 8)
        sent = link.submit(Request(sequence=0, width=8, height=8, stride=200, format=1), rows, 0)
        answer = link.wait(sent, time.monotonic() + 30)
        assert answer is not None
        assert np.array_equal(answer.picture, inverted(picture(8, 8)))
        link.close()


def test_counters_that_jump_are_refused_and_go_on_from_there() -> None:
    name = fresh_name()
    with Server(name, NETWORK, max_size=(64, 48), open_post=Inverting) as server:
        server.start()
        link = Link(name)
        link._submitted.value = link._submitted.value + 4
        link._submitted.wake()
        until(lambda: link._completed.value == link._submitted.value)
        assert "jumped" in link.message
        link._count = link._answered = link._completed.value
        sent = link.submit(
            Request(sequence=0, width=8, height=8, stride=32, format=1), link.colour(8, 8), 0
        )
        answer = link.wait(sent, time.monotonic() + 30)
        assert answer is not None
        assert answer.status == layout.DONE
        link.close()


@pytest.mark.parametrize("deep", [1, 3])
def test_counters_go_round(deep: int) -> None:
    """As after two years of frames, with so many under way."""
    name = fresh_name()
    with Server(name, NETWORK, max_size=(64, 48), clients=1, open_post=Inverting) as server:
        near = 0xFFFFFFFD
        control = server.segment.record(layout.CONTROL, server.segment.plan.slot(0).offset)
        control["submitted"] = control["completed"] = near
        server.start()
        with Client(name, deadline_ms=PATIENT, require=True) as client:
            sent: dict[int, np.ndarray] = {}
            for turn in range(9):
                frame = picture(9, 9, turn)
                until(lambda frame=frame: client.submit(frame))
                sent[client._index - 1] = frame
                if len(sent) >= deep:
                    found = client.collect(PATIENT)
                    assert found is None or np.array_equal(found.picture, inverted(sent[found.index]))
            until(lambda: client.collect(PATIENT) is None)
            assert client.counts.done >= 9 - deep
            assert int(control["completed"][0]) == (near + 9) & 0xFFFFFFFF


def test_a_client_of_another_version_reads_which() -> None:
    name = fresh_name()
    with Server(name, NETWORK, max_size=(64, 48), open_post=Inverting) as server:
        server.start()
        link = Link(name)
        link._control["client_version"] = 2 << 16 | 3
        sent = link.submit(
            Request(sequence=0, width=8, height=8, stride=32, format=1), link.colour(8, 8), 0
        )
        answer = link.wait(sent, time.monotonic() + 30)
        assert answer is not None
        assert answer.status == layout.REFUSED
        assert "version 2.3 of the layout, the server 1.0" in link.message
        link.close()


def test_a_server_of_another_version_is_refused_and_frames_pass() -> None:
    name = fresh_name()
    made, lock = segment.create(name, Layout(slot_count=1, max_width=8, max_height=8), "")
    made.record(layout.HEADER, 0)["version_major"] = 7
    with Client(name) as client:
        sent = picture(8, 8)
        assert client(sent) is sent
        assert "version 7.0 of the layout, this client 1.0" in client.trouble
    made.unlink()
    lock.release()


# ---- a hostile server -----------------------------------------------------------------------------


class Liar:
    """A server that answers whatever comes with garbage, in a thread of its own."""

    def __init__(self, seed: int) -> None:
        self.name = fresh_name()
        self._rng = np.random.default_rng(seed)
        self.plan = Layout(slot_count=2, max_width=32, max_height=24, max_scale=2)
        self._stop = threading.Event()
        self.segment: Segment
        self._lock: Lock
        self.segment, self._lock = segment.create(self.name, self.plan, "liar")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.segment.unlink()
        self._lock.release()

    def _run(self) -> None:
        rng = self._rng
        extremes = np.array(hostile.EXTREMES, np.uint32)
        while not self._stop.is_set():
            slot = int(rng.integers(0, 2))
            page = self.plan.slot(slot).offset
            submitted = self.segment.futex(layout.CONTROL, page, "submitted")
            completed = self.segment.futex(layout.CONTROL, page, "completed")
            kind = rng.integers(0, 12)
            if kind == 0:
                completed.value = int(rng.choice(extremes))
            elif kind == 1:
                begin = int(rng.integers(0, 1000))
                self.segment.bytes(Area(page + begin, 24))[:] = rng.integers(0, 256, 24, np.uint8)
            elif kind == 2:
                self.segment.bytes(Area(8, 150))[:] = rng.integers(0, 256, 150, np.uint8)
            elif kind == 3:
                segment.restore(self.segment, layout.READY)
                control = self.segment.record(layout.CONTROL, page)
                control["state"] = int(rng.integers(0, 2))
            else:
                for turn in range(self.plan.ring):
                    offset = self.plan.entry(slot, turn).offset
                    request = Request.read(self.segment.record(layout.REQUEST, offset))
                    words = rng.choice(extremes, 8)
                    result = Result(
                        result_sequence=request.sequence,
                        status=int(rng.integers(0, 5)),
                        out_width=int(rng.choice([request.width, 64, 65, words[0]])),
                        out_height=int(rng.choice([request.height, 48, 49, words[1]])),
                        out_stride=int(rng.choice([request.stride, 256, words[2]])),
                        out_area=int(rng.choice([0, 1, 1, 2, words[3]])),
                        work_ms=float(rng.choice(hostile.FLOATS)),
                    )
                    result.write(self.segment.record(layout.RESULT, offset + layout.RESULT_OFFSET))
                completed.value = submitted.value
            completed.wake()
            time.sleep(0.0002)


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize("seed", range(4))
def test_a_hostile_server_never_harms_a_client(seed: int) -> None:
    liar = Liar(seed)
    try:
        client = Client(liar.name, deadline_ms=3)
        believed = turn = 0
        end = time.monotonic() + 60
        while turn < 700 or believed < 20 or client.counts.connections < 4:
            assert time.monotonic() < end, "too little came back: the test tests nothing"
            turn += 1
            client._next_try = 0.0
            sent = picture(1 + turn % 32, 1 + turn % 24, turn)
            if turn % 7 == 6:
                client.submit(sent)
                found = client.collect(2)
                shown = sent if found is None else found.picture
            else:
                shown = client(sent)
            assert shown.dtype == np.uint8
            assert shown.ndim == 3
            assert shown.shape[2] == 4
            assert 0 < shown.shape[0] <= 48
            assert 0 < shown.shape[1] <= 64
            # Every byte of it can be read.
            believed += shown is not sent and int(shown.sum()) >= 0
            if not client.connected:
                time.sleep(0.001)
        client.close()
    finally:
        liar.close()


def test_a_desk_outlives_what_its_client_writes_while_it_works() -> None:
    """What was checked is used, whatever stands there by then."""
    name = fresh_name()
    requests: list[Link] = []

    class Changing(Inverting):
        def __call__(self, color: np.ndarray, *given: object, **more: object) -> np.ndarray:
            link = requests[0]
            for record in link._requests:
                record.view(np.uint8)[:] = 255
            return super().__call__(color, *given, **more)

    with Server(name, NETWORK, max_size=(64, 48), open_post=Changing) as server:
        server.start()
        link = Link(name)
        requests.append(link)
        colour = link.colour(8, 8)
        colour[:] = picture(8, 8)
        sent = link.submit(Request(**RIGHT), colour, 0)
        answer = link.wait(sent, time.monotonic() + 30)
        assert answer is not None
        assert answer.status == layout.DONE
        assert np.array_equal(answer.picture, inverted(picture(8, 8)))
        (found,) = until(lambda: server.stats().clients)
        assert (found.done, found.refused) == (1, 0)
        link.close()
