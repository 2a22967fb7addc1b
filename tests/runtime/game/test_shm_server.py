"""Frames between a server and the Python client."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from velatura.runtime import DepthConvention, MotionConvention, PostProcess
from velatura.runtime.errors import EngineError, ModelError
from velatura.runtime.game import Client
from velatura.runtime.game.shm import layout, server
from velatura.runtime.game.shm.layout import Area, Request
from velatura.runtime.game.shm.server import Server, Work
from velatura.runtime.game.shm.slot_client import Link

from .shared import Inverting, fresh_name, inverted, leftovers, picture, until

PATIENT = 30_000.0
"""Milliseconds: a deadline that no machine is too busy for."""
IDENTITY = Work(models=("identity",))


def _nothing(post: Inverting) -> None:
    del post


def _two(work: Work) -> int:
    del work
    return 2


class Place:
    """A server, the post-processes that it has opened, and clients that end with it."""

    def __init__(self, work: Work = IDENTITY, *, post: Any = None, **options: Any) -> None:
        self.name = fresh_name()
        self.posts: list[Inverting] = []
        self.told: list[str] = []
        self.prepare: Callable[[Inverting], None] = _nothing
        options = {"max_size": (128, 96), "clients": 3} | options
        open_post = self._open if post is Inverting else post
        self.server = Server(self.name, work, open_post=open_post, tell=self.told.append, **options)
        self.server.start()
        self._clients: list[Client] = []

    def client(self, **options: Any) -> Client:
        made = Client(self.name, **{"deadline_ms": PATIENT, "require": True} | options)
        self._clients.append(made)
        return made

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.server.close()

    def _open(self, conventions: Any, size: tuple[int, int]) -> Inverting:
        post = Inverting(conventions, size)
        self.prepare(post)
        self.posts.append(post)
        return post


@pytest.fixture
def places() -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def open_place(*arguments: Any, **options: Any) -> Place:
        made.append(Place(*arguments, **options))
        return made[-1]

    yield open_place
    for place in made:
        place.close()
    assert leftovers() == []


# ---- what comes back ------------------------------------------------------------------------------


def test_the_identity_gives_back_the_frame_where_it_lies(places: Callable[..., Place]) -> None:
    place = places()
    client = place.client()
    assert client.title == "identity"
    for turn in range(7):
        sent = picture(60 + turn, 40, turn)
        shown = client(sent)
        assert client.status == "done"
        assert np.array_equal(shown, sent)
        assert not np.shares_memory(shown, sent)
        drawn = client.buffer(50, 30)
        drawn[:] = turn
        shown = client(drawn)
        assert np.shares_memory(shown, drawn), "no copy either way"
        assert (shown == turn).all()
    assert client.counts.done == client.counts.frames == 14


@pytest.mark.parametrize("order", ["rgba", "bgra", "rgb", "bgr"])
def test_every_order_comes_back_as_it_was_sent(places: Callable[..., Place], order: Any) -> None:
    place = places(post=Inverting)
    client = place.client(order=order)
    sent = picture(33, 17)[..., : len(order)]
    shown = client(sent)
    wanted = inverted(picture(33, 17))[..., : len(order)]
    assert np.array_equal(shown, wanted)
    (post,) = place.posts
    assert post.conventions.order == ("rgba" if order.startswith("r") else "bgra")


@pytest.mark.parametrize("kind", ["flipped", "mirrored", "cropped", "every second", "transposed"])
def test_pictures_of_any_strides_are_sent(places: Callable[..., Place], kind: str) -> None:
    client = places(post=Inverting).client()
    whole = picture(80, 60)
    sent = {
        "flipped": whole[::-1],
        "mirrored": whole[:, ::-1],
        "cropped": whole[5:40, 7:50],
        "every second": whole[::2, ::2],
        "transposed": whole.transpose(1, 0, 2),
    }[kind]
    assert np.array_equal(client(sent), inverted(sent))


def test_everything_beside_the_picture_arrives(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    motion = MotionConvention(scale=(64.0, -48.0), direction="from_previous", jittered=True)
    depth = DepthConvention(kind="device", near=0.25, far=500.0, reversed=True)
    client = place.client(flipped=True, motion=motion, depth=depth)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(24, 32, 2)).astype(np.float32)
    vectors[0, 0] = np.nan
    far = rng.random((12, 16), np.float32)
    mask = rng.random((6, 8), np.float32)
    client(picture(64, 48))
    client(picture(64, 48), vectors, far, reactive=mask, jitter=(0.25, -0.5))
    client(picture(64, 48), vectors.astype(np.float64), reset=True, reactive=mask > 0.5)
    first, second, third = place.posts[0].given
    assert first["reset"], "the first frame has nothing before it"
    assert first["motion"] is first["depth"] is first["reactive"] is None
    assert not second["reset"]
    assert np.array_equal(second["motion"], vectors, equal_nan=True)
    assert np.array_equal(second["depth"], far)
    assert second["reactive"].dtype == np.uint8
    assert np.abs(second["reactive"] / 255 - mask).max() <= 0.5 / 255 + 1e-6
    assert second["jitter"] == (0.25, -0.5)
    assert third["reset"]
    assert np.array_equal(third["reactive"], np.where(mask > 0.5, 255, 0))
    found = place.posts[0].conventions
    assert (found.motion, found.depth, found.flipped) == (motion, depth, True)
    assert found.deadline_ms == pytest.approx(PATIENT, rel=0.1)
    assert len(place.posts) == 1, "frames that lack something need no other post-process"


def test_the_size_may_change_at_any_time(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    client = place.client()
    for width, height in ((10, 10), (128, 96), (1, 1), (127, 3), (10, 10)):
        sent = picture(width, height)
        assert np.array_equal(client(sent), inverted(sent))
    assert len(place.posts) == 1, "a post-process follows by itself"


def test_results_may_be_larger_and_are_brought_to_out(
    places: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Work, "scale", _two)

    def open_post(*what: Any) -> Inverting:
        return Inverting(*what, scale=2)

    client = places(Work(models=("twice",)), post=open_post).client()
    sent = picture(128, 96)
    wanted = np.repeat(np.repeat(inverted(sent), 2, 0), 2, 1)
    assert np.array_equal(client(sent), wanted)
    out = np.zeros((192, 256, 4), np.uint8)
    assert client(sent, out=out) is out
    assert np.array_equal(out, wanted)
    small = np.zeros((50, 60, 4), np.uint8)
    assert client(sent, out=small) is small
    assert small.any()


def test_a_bypassed_frame_is_left_alone(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    client = place.client()
    sent = picture(20, 20)
    assert np.array_equal(client(sent, bypass=True), sent)
    assert client.status == "done"
    assert not place.posts


def test_a_real_model_is_opened_beside_the_frames(places: Callable[..., Place]) -> None:
    work = Work(models=("starry-night",), backend="openvino", precision="fp32", stability=0.0)
    place = places(work)
    client = place.client()
    sent = np.ascontiguousarray(np.repeat(np.repeat(picture(16, 12), 6, 0), 6, 1))
    assert np.array_equal(client(sent), sent), "until then it passes"
    assert client.status == "passed"
    until(lambda: client(sent) is not None and client.status == "done", 60)
    shown = client(sent).copy()
    with PostProcess(
        "starry-night", (96, 72), backend="openvino", precision="fp32", stability=0.0
    ) as post:
        # On a busy machine frames pass there, too.
        wanted = until(lambda: (made := post(sent)) is not None and not post.last.passed and (made,))[0]
    assert np.abs(shown.astype(int) - wanted.astype(int)).max() <= 1
    assert np.array_equal(shown[..., 3], sent[..., 3])


def test_a_frames_own_alpha_keeps_its_interface(places: Callable[..., Place]) -> None:
    work = Work(
        models=("wave",), backend="openvino", precision="fp32", stability=0.0, mask="alpha",
        keep_colours=False, strength=0.9,
    )  # fmt: skip
    client = places(work).client()
    sent = np.ascontiguousarray(np.repeat(np.repeat(picture(16, 12), 6, 0), 6, 1))
    sent[..., 3] = 255
    sent[:30, :40, 3] = 0
    until(lambda: client(sent) is not None and client.status == "done", 60)
    shown = until(lambda: (made := client(sent)) is not None and client.status == "done" and (made,))[0]
    assert np.array_equal(shown[:30, :40], sent[:30, :40])
    assert not np.array_equal(shown[30:], sent[30:])


# ---- pipelined use --------------------------------------------------------------------------------


def test_three_frames_may_be_under_way(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    gate = threading.Event()
    place.prepare = lambda post: setattr(post, "before", lambda: gate.wait(30))
    client = place.client()
    assert client.collect() is None
    frames = [picture(30, 20, seed) for seed in range(4)]
    assert [client.submit(frame) for frame in frames] == [True, True, True, False]
    assert client.status == "busy"
    assert client.collect() is None
    gate.set()
    for index in range(3):
        found = client.collect(PATIENT)
        assert found is not None
        assert found.index == index
        assert found.status == "done"
        assert np.array_equal(found.picture, inverted(frames[index]))
    assert client.collect(PATIENT) is None, "nothing is under way: it does not wait"
    assert client.submit(frames[3])
    found = client.collect(PATIENT)
    assert found is not None
    assert found.index == 4, "the refused one counts"


def test_results_that_nobody_collects_make_room(places: Callable[..., Place]) -> None:
    client = places(post=Inverting).client()
    frames = [picture(30, 20, seed) for seed in range(9)]
    for frame in frames:
        until(lambda frame=frame: client.submit(frame))
    found = None
    while (newer := client.collect(2000)) is not None:
        found = newer
    assert found is not None
    assert np.array_equal(found.picture, inverted(frames[-1]))


def test_a_late_frame_passes_and_the_next_gets_its_own_result(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    gate = threading.Event()
    place.prepare = lambda post: setattr(post, "before", lambda: gate.wait(30))
    client = place.client(deadline_ms=20)
    first, second = picture(30, 20, 1), picture(30, 20, 2)
    assert client(first) is first
    assert client.status == "late"
    gate.set()
    client.deadline_ms = PATIENT
    assert np.array_equal(client(second), inverted(second))
    assert client.counts.late == 1


def test_a_frame_that_nobody_waits_for_is_not_worked_on(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    gate = threading.Event()
    place.prepare = lambda post: setattr(post, "before", lambda: gate.wait(30))
    client = place.client(deadline_ms=20)
    for _ in range(3):
        client(picture(30, 20))
    sent = picture(30, 20, 5)
    assert client(sent) is sent
    assert client.status == "busy", "a full ring is not waited for"
    gate.set()
    client.deadline_ms = PATIENT
    until(lambda: client(sent) is not sent)
    assert len(place.posts[0].given) == 2, "the two behind the first had run out of time"


# ---- several clients ------------------------------------------------------------------------------


def test_clients_at_once_get_their_own(places: Callable[..., Place]) -> None:
    place = places(post=Inverting, clients=4)
    wrong: list[str] = []

    def play(order: Any, width: int, height: int, seed: int) -> None:
        client = Client(place.name, deadline_ms=PATIENT, order=order, require=True)
        with client:
            for turn in range(60):
                sent = picture(width, height, 1000 * seed + turn)
                sent[..., 0] = seed
                shown = client(sent)
                if client.status != "done" or not np.array_equal(shown, inverted(sent)):
                    wrong.append(f"{seed}/{turn}: {client.status} {client.trouble}")

    sizes = (("rgba", 128, 96), ("bgra", 31, 17), ("rgba", 5, 90), ("bgra", 128, 1))
    threads = [threading.Thread(target=play, args=(*one, seed)) for seed, one in enumerate(sizes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    until(lambda: not place.server.stats().clients)
    assert place.server.stats().done == 240
    assert place.server.stats().served == 4
    assert all(post.closed for post in place.posts)


def test_one_that_is_stuck_holds_up_nobody(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    gate = threading.Event()
    place.prepare = lambda post: setattr(post, "before", lambda: gate.wait(60))
    stuck = place.client(deadline_ms=20)
    stuck(picture(20, 20))
    place.prepare = _nothing
    client = place.client()
    for seed in range(50):
        sent = picture(40, 30, seed)
        assert np.array_equal(client(sent), inverted(sent))
    gate.set()


def test_one_whose_models_fail_holds_up_nobody_and_reads_why(
    places: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "AGAIN", 0.05)
    place = places(post=Inverting)

    def fail() -> None:
        raise RuntimeError("out of paint")

    place.prepare = lambda post: setattr(post, "before", fail)
    unlucky = place.client()
    sent = picture(20, 20)
    assert np.array_equal(unlucky(sent), sent)
    assert unlucky.status == "passed"
    place.prepare = _nothing
    other = place.client()
    assert np.array_equal(other(sent), inverted(sent))
    until(lambda: any("out of paint" in line for line in place.told))
    until(lambda: np.array_equal(unlucky(sent), inverted(sent)))
    assert place.posts[0].closed


def test_what_motion_and_depth_mean_may_change_with_every_frame(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    client = place.client(depth=DepthConvention(kind="device"))
    motion, depth = np.zeros((20, 20, 2), np.float32), np.ones((20, 20), np.float32)
    for turn in range(20):
        client._sending._scale = (1.0 + turn, 1.0)
        client._sending._planes = (0.5, 100.0 + turn)
        client(picture(20, 20), motion, depth)
        assert client.status == "done"
    (post,) = place.posts
    for turn, given in enumerate(post.given):
        motion_meant, depth_meant = given["meant"]
        assert motion_meant.scale == (1.0 + turn, 1.0)
        assert (depth_meant.near, depth_meant.far) == (0.5, 100.0 + turn)


def test_a_post_process_reads_by_the_conventions_that_are_set() -> None:
    color, motion = picture(16, 12), np.ones((12, 16, 2), np.float32)
    depth = np.full((12, 16), 0.5, np.float32)
    meant = MotionConvention(scale=(2.0, -3.0)), DepthConvention(kind="device", near=1.0, far=3.0)
    with PostProcess("identity", (16, 12)) as post:
        for conventions in ((MotionConvention(), DepthConvention()), meant):
            post.interpret(*conventions)
            frame = post._read(
                post._given(color, motion, depth, False, None, (0.0, 0.0)), whole=True
            ).frame
            assert np.array_equal(frame.motion, conventions[0].read(motion, (16, 12)))
            assert np.array_equal(frame.depth, conventions[1].read(depth, (16, 12)))
        assert frame.motion[0, 0].tolist() == [2.0, -3.0]


def test_changing_orders_do_not_keep_the_machine_opening_models(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    client = place.client()
    begin = time.monotonic()
    for turn in range(200):
        client._sending._format = layout.RGBA if turn % 2 else layout.BGRA
        client(picture(20, 20))
    assert len(place.posts) <= 2 + (time.monotonic() - begin) / server.AGAIN
    assert client.counts.done + client.counts.passed == 200
    assert all(post.closed for post in place.posts[:-1])


def test_a_full_server_refuses_and_takes_the_next_when_one_leaves(
    places: Callable[..., Place],
) -> None:
    place = places(clients=2)
    clients = [place.client(), place.client()]
    with pytest.raises(EngineError, match="has 2 clients, and room for no more"):
        place.client()
    waiting = place.client(require=False)
    sent = picture(20, 20)
    assert waiting(sent) is sent
    assert waiting.status == "unconnected"
    clients[0].close()
    until(lambda: waiting(sent) is not sent)
    assert np.array_equal(clients[1](sent), sent)


def test_a_slot_is_given_on_clean(places: Callable[..., Place]) -> None:
    place = places(post=Inverting, clients=1)
    first = place.client()
    first(picture(128, 96), np.ones((96, 128, 2), np.float32))
    plan, segment = place.server.segment.plan, place.server.segment
    areas = plan.areas(0, 0)
    assert segment.bytes(areas[0]).any()
    before = os.fstat(segment.fd).st_blocks
    first.close()
    until(lambda: not place.server.stats().clients)
    assert os.fstat(segment.fd).st_blocks < before
    second = Client(place.name, deadline_ms=PATIENT, require=True)
    with second:
        assert not any(segment.bytes(area).any() for area in areas), "an earlier client's pictures"
        sent = picture(30, 20)
        assert np.array_equal(second(sent), inverted(sent))
        assert place.posts[1].given[0]["reset"]
    assert place.posts[0].closed


def test_a_slot_is_freed_once(places: Callable[..., Place], monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*what: Any) -> None:
        # As if any thread but the one that looks after the slots had lost the processor here.
        if threading.current_thread().name != "velatura-serve":
            time.sleep(0.03)
        free(*what)

    free = server.free
    monkeypatch.setattr(server, "free", late)
    monkeypatch.setattr(server, "free", late)
    place = places(clients=1)
    segment = place.server.segment
    doorbell = segment.futex(layout.HEADER, 0, "doorbell")
    control = segment.record(layout.CONTROL, segment.plan.slot(0).offset)
    sent = picture(20, 20)

    def rung() -> bool:
        doorbell.value = doorbell.value + 1
        doorbell.wake()
        return int(control["state"][0]) == layout.FREE

    for turn in range(10):
        until(rung)
        assert int(control["generation"][0]) == turn
        with Client(place.name, deadline_ms=PATIENT, require=True) as client:
            for _ in range(8):
                rung()
                assert np.array_equal(client(sent), sent)
                assert client.status == "done"
                time.sleep(0.005)
    until(rung)
    time.sleep(0.1)
    assert int(control["generation"][0]) == 10


def test_a_server_leaves_nothing_of_clients_that_come_and_go(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    sent = picture(64, 48)
    with Client(place.name, deadline_ms=PATIENT, require=True) as client:
        client(sent)
    until(lambda: not place.server.stats().clients)
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208
    for _ in range(40):
        with Client(place.name, deadline_ms=PATIENT, require=True) as client:
            assert np.array_equal(client(sent), inverted(sent))
        until(lambda: not place.server.stats().clients)
    del client
    until(lambda: threading.active_count() <= threads)
    assert len(os.listdir("/proc/self/fd")) <= files  # noqa: PTH208


# ---- without a server -----------------------------------------------------------------------------


def test_without_a_server_frames_pass_and_one_is_found_later() -> None:
    name = fresh_name()
    with pytest.raises(EngineError, match=f"velatura serve --shm {name}"):
        Client(name, require=True)
    sent = picture(20, 20)
    with Client(name, deadline_ms=PATIENT) as client:
        for _ in range(5):
            assert client(sent) is sent
            assert client.submit(sent) is False
            assert client.collect(1000) is None
        assert client.status == "unconnected"
        assert not client.connected
        assert client.title == ""
        assert f"velatura serve --shm {name}" in client.trouble
        out = np.zeros_like(sent)
        assert client(sent, out=out) is out
        assert np.array_equal(out, sent)
        drawn = client.buffer(20, 20)
        assert client(drawn) is drawn
        with Server(name, IDENTITY, max_size=(64, 64)) as server:
            server.start()
            until(lambda: client(sent) is not sent)
            assert client.connected
            assert client.trouble == ""
        shown = client(sent)
        assert shown is sent
        assert client.status == "unconnected"
        assert leftovers() == []
        with Server(name, IDENTITY, max_size=(64, 64)) as server:
            server.start()
            until(lambda: client(sent) is not sent)
            assert client.counts.connections == 2


def test_a_view_of_a_stopped_servers_memory_is_still_whole() -> None:
    name = fresh_name()
    sent = picture(20, 20)
    with Server(name, IDENTITY, max_size=(64, 64)) as server:
        server.start()
        client = Client(name, deadline_ms=PATIENT, require=True)
        shown = client(sent)
    # What a game has on its screen does not turn black.
    assert np.array_equal(shown, sent)
    client.close()
    del server, client
    assert np.array_equal(shown, sent)
    shown[:] = 1


def test_a_server_that_ends_takes_nothing_from_under_a_client(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    gate = threading.Event()
    gate.set()
    place.prepare = lambda post: setattr(post, "before", lambda: gate.wait(60))
    client = place.client()
    sent = picture(20, 20)
    shown = client(sent)
    assert np.array_equal(shown, inverted(sent))
    gate.clear()
    assert client.submit(sent)
    closing = threading.Thread(target=place.server.close)
    closing.start()
    # It has seen that, and left, before the frame under way is done and its desk ends.
    until(lambda: client.collect(100.0) is None and not client.connected)
    gate.set()
    closing.join()
    assert np.array_equal(shown, inverted(sent))


def test_a_client_that_waits_is_woken_when_the_server_stops(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    gate = threading.Event()
    place.prepare = lambda post: setattr(post, "before", lambda: gate.wait(60))
    client = place.client(deadline_ms=60_000)
    sent = picture(20, 20)
    closing = threading.Timer(0.2, place.server.close)
    closing.start()
    begin = time.monotonic()
    assert client(sent) is sent
    assert time.monotonic() - begin < 30, "it waited for the deadline"
    assert client.status == "unconnected"
    gate.set()
    closing.join()


def test_a_forked_child_has_no_part_in_its_parents_slot(places: Callable[..., Place]) -> None:
    place = places()
    client = place.client()
    sent = picture(20, 20)
    client(sent)
    child = os.fork()
    if child == 0:
        code = 1
        with suppress(BaseException):
            client._next_try = float("inf")
            code = 0 if client(sent) is sent and client.status == "unconnected" else 2
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(client(sent), sent)
    assert client.status == "done"


# ---- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("color", "text"),
    [
        (np.zeros((4, 4), np.uint8), "color is"),
        (np.zeros((4, 4, 3), np.uint8), "color is"),
        (np.zeros((0, 4, 4), np.uint8), "color is"),
        (np.zeros((4, 4, 4), np.float32), "uint8, sRGB"),
        ("picture", "color is a str"),
    ],
)
def test_what_is_no_picture_is_said(color: Any, text: str) -> None:
    with Client(fresh_name()) as client, pytest.raises(ValueError, match=text):
        client(color)


def test_wrong_options_and_extras_are_said() -> None:
    for options, text in (
        ({"deadline_ms": 0}, "deadline"),
        ({"deadline_ms": -1.0}, "deadline"),
        ({"deadline_ms": float("nan")}, "deadline"),
        ({"deadline_ms": float("inf")}, "deadline"),
        ({"order": "argb"}, "order"),
    ):
        with pytest.raises(ValueError, match=text):
            Client(fresh_name(), **options)
    sent = picture(8, 8)
    with Client(fresh_name()) as client:
        for extras, text in (
            ({"motion": np.zeros((8, 8), np.float32)}, "motion"),
            ({"motion": np.zeros((8, 8, 2), np.int32)}, "motion"),
            ({"depth": np.zeros((8, 8, 3), np.float32)}, "depth"),
            ({"reactive": np.zeros(8, np.float32)}, "reactive"),
            ({"jitter": (float("inf"), 0.0)}, "jitter"),
            ({"out": np.zeros((8, 8, 3), np.uint8)}, "out"),
        ):
            with pytest.raises(ValueError, match=text):
                client(sent, **extras)


def test_a_picture_that_the_server_does_not_take_passes(places: Callable[..., Place]) -> None:
    client = places().client()
    sent = picture(129, 96)
    assert client(sent) is sent
    assert client.status == "refused"
    assert "up to 128x96" in client.trouble
    small = picture(10, 10)
    assert client(small, np.zeros((200, 200, 2), np.float32)) is small
    assert client.status == "refused"
    assert np.array_equal(client(small), small)
    assert client.status == "done"


def test_a_full_shared_memory_refuses_and_kills_nobody(
    places: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*what: int) -> None:
        assert len(what) == 3
        raise OSError(28, "No space left on device")

    place = places(post=Inverting)
    client = place.client()
    sent = picture(30, 20)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert client(sent) is sent
        assert client.status == "refused"
        assert "no room for frames" in client.trouble
    assert np.array_equal(client(sent), inverted(sent))


def test_memory_that_only_the_server_lacks_ends_no_server(
    places: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places(post=Inverting)
    link = Link(place.name)
    plan = link.segment.plan
    real = os.posix_fallocate
    full: set[int] = set()

    def reserve(fd: int, offset: int, size: int) -> None:
        if offset in full:
            raise OSError(28, "No space left on device")
        real(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    sizes = {
        f"{kind}_{side}": 8 for kind in ("motion", "depth", "reactive") for side in ("width", "height")
    }
    request = Request(sequence=0, width=8, height=8, stride=32, format=1, flags=14, **sizes)
    colour = link.colour(8, 8)
    for number in range(8):
        # Holes, whatever the client says of them: of each kind of area one, then none.
        area = plan.areas(link._slot, number % plan.ring)[number] if number < 5 else None
        full.clear()
        full.update(() if area is None else (area.offset,))
        answer = link.wait(link.submit(request, colour, number), time.monotonic() + 30)
        assert answer is not None
        assert answer.status == (layout.DONE if area is None else layout.PASSED), number
        if area is not None:
            assert "no room for frames" in link.message
    link.close()
    assert len(place.posts[0].given) == 3


def test_a_result_that_there_is_no_memory_to_read_is_refused(
    places: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places(post=Inverting)
    real = os.posix_fallocate
    full = threading.Event()

    def reserve(fd: int, offset: int, size: int) -> None:
        if full.is_set():
            raise OSError(28, "No space left on device")
        real(fd, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", reserve)
    # From when the server has all that it needs itself.
    place.prepare = lambda post: setattr(post, "before", full.set)
    client = place.client()
    sent = picture(30, 20)
    assert client(sent) is sent
    assert client.status == "refused"
    assert "no room for frames" in client.trouble


def test_models_that_cannot_be_served_are_said() -> None:
    with pytest.raises(ModelError, match="unknown model"):
        Server(fresh_name(), Work(models=("no-such-model",)))
    with pytest.raises(ValueError, match="enlarge 16 times"):
        Server(fresh_name(), Work(models=("upscale-4x", "upscale-4x")))
    with pytest.raises(ValueError, match="slot_count"):
        Server(fresh_name(), IDENTITY, clients=0)
    assert leftovers() == []


def test_what_is_told_to_a_broken_listener_stops_no_desk() -> None:
    name = fresh_name()

    def tell(text: str) -> None:
        raise BrokenPipeError(text)

    server = Server(name, IDENTITY, max_size=(64, 64), tell=tell)
    client = Client(name, deadline_ms=PATIENT, require=True)
    with pytest.raises(BrokenPipeError):
        server.serve()
    sent = picture(8, 8)
    assert np.array_equal(client(sent), sent)
    client.close()
    with suppress(BrokenPipeError):
        server.close()
    assert leftovers() == []


def test_figures_name_the_clients(places: Callable[..., Place]) -> None:
    place = places(post=Inverting)
    client = place.client()
    for _ in range(5):
        client(picture(40, 30))
    (found,) = place.server.stats().clients
    assert (found.pid, found.size, found.done, found.passed) == (os.getpid(), (40, 30), 5, 0)
    assert found.work.count == 5
    assert found.rung == "full"


def test_the_page_of_control_is_the_documented_one(places: Callable[..., Place]) -> None:
    place = places()
    client = place.client()
    client(picture(16, 8))
    plan = place.server.segment.plan
    page = bytes(place.server.segment.bytes(Area(plan.slot(0).offset, 4096)))
    words = np.frombuffer(page, "<u4")
    assert words[0] == layout.TAKEN
    assert words[1] == os.getpid()
    assert words[2] == 1 << 16
    assert words[4] == words[5]
    entry = np.frombuffer(page[128 : 128 + 256], "<u4")
    assert list(entry[2:6]) == [16, 8, 64, 1]
    assert list(entry[34:39]) == [1, 16, 8, 64, 0]
