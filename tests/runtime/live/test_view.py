"""The browser view's server: what it shows, what it does, and what it refuses."""

import asyncio
import json
import os
import socket
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest
from aiohttp import WSCloseCode, WSMsgType
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st
from velatura.runtime.errors import SinkError
from velatura.runtime.frame import GRAY, RGB, YUV420P, Colour, Frame, PixelFormat
from velatura.runtime.live import Output
from velatura.runtime.web import ViewSink
from velatura.runtime.web.panel import LIMIT, RubbishError, parse
from velatura.runtime.web.pictures import Coder, jpeg, png, shown
from velatura.runtime.web.server import PAGES
from velatura.runtime.web.session import PATIENCE
from velatura.runtime.web.shared import SECONDS, History
from velatura.runtime.web.site import is_loopback

from . import showing
from .showing import PATCHES, FakePanel, Feeder

Client = aiohttp.ClientSession
TOKEN = "0123456789abcdef"


@pytest.fixture
def panel(tmp_path: Path) -> FakePanel:
    return FakePanel(tmp_path, showing.patches(640, 362))


@pytest.fixture
def view(panel: FakePanel) -> Iterator[ViewSink]:
    with ViewSink(controls=panel, ladder=lambda: (("full size", 0.03), ("half size", 0.01))) as sink:
        yield sink


def using(work: Callable[[Client], Awaitable[None]], view: ViewSink | None = None) -> None:
    """Run what a client does, with a limit in time; one that has opened that view's page before."""

    async def run() -> None:
        # Cookies for addresses too, as browsers keep them.
        async with Client(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client:
            if view is not None:
                async with client.get(view.url) as answer:
                    assert answer.status == 200
            await asyncio.wait_for(work(client), 20)

    asyncio.run(run())


async def opened(client: Client, view: ViewSink, **options: Any) -> aiohttp.ClientWebSocketResponse:
    """A page's socket, with its greeting read."""
    page = await client.ws_connect(address(view) + "socket", max_msg_size=0, **options)
    assert (await heard(page, "hello"))["type"] == "hello"
    return page


async def heard(page: aiohttp.ClientWebSocketResponse, *types: str) -> dict[str, Any]:
    """The next message of one of these types."""
    while True:
        message = await page.receive(10)
        assert message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY, message
        if message.type is WSMsgType.TEXT and (found := json.loads(message.data))["type"] in types:
            return found


def address(view: ViewSink) -> str:
    return view.url.partition("?")[0]


def memory() -> int:
    """Bytes that the process has at present."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def port(view: ViewSink) -> int:
    return int(view.uri.rpartition(":")[2])


def path(view: ViewSink) -> str:
    """Of the page, with the token."""
    return "/?" + view.url.partition("/?")[2]


def cookie(view: ViewSink) -> str:
    """The header's line with what an opened page has."""
    with urllib.request.urlopen(view.url) as answer:
        return "Cookie: " + str(answer.headers["Set-Cookie"]).partition(";")[0]


def raw(view: ViewSink, data: bytes) -> bytes:
    """What the server answers to bytes that no client library would send."""
    with socket.create_connection(("127.0.0.1", port(view)), 5) as plain:
        plain.sendall(data)
        found = b""
        while part := plain.recv(65536):
            found += part
        return found


# Who may look


def test_it_is_reached_from_this_machine_alone_unless_there_is_a_token() -> None:
    with ViewSink() as sink:
        assert sink.url.startswith("http://127.0.0.1:")
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", ""):
        with pytest.raises(SinkError, match="give it a token"):
            ViewSink(host=host)
    with pytest.raises(SinkError, match="16 or more"):
        ViewSink(host="0.0.0.0", token="short")
    with pytest.raises(SinkError, match="16 or more"):
        ViewSink(token="")


def test_another_user_of_the_machine_neither_sees_nor_steers_without_the_address() -> None:
    async def look(client: Client) -> None:
        for asked in ("", "app.js", "snapshot.png", "socket", "?token=", "no"):
            async with client.get(address(view) + asked) as answer:
                assert answer.status == 401, asked
                assert "needs its token" in await answer.text()
        async with client.get(address(view), cookies={f"velatura_{port(other)}": "guess"}) as answer:
            assert answer.status == 401
        async with client.get(other.url) as answer:
            assert answer.status == 200
        async with client.get(address(view)) as answer:
            assert answer.status == 401, "another view's page was opened"
        async with client.get(view.url) as answer:
            assert answer.status == 200

    with ViewSink() as view, ViewSink() as other:
        tokens = [sink.url.partition("/?token=")[2] for sink in (view, other)]
        assert all(len(token) >= 16 for token in tokens)
        assert tokens[0] != tokens[1]
        assert tokens[0] not in view.uri, "figures and events name it"
        using(look)


def test_any_signs_may_stand_in_a_token() -> None:
    async def look(client: Client) -> None:
        async with client.get(address(view)) as answer:
            assert answer.status == 200

    with ViewSink(token="a key & a #sign, 100% ü") as view:
        using(look, view)


def test_what_counts_as_this_machine() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "1.127.0.0.1")))


def test_a_port_that_is_taken_is_an_error_which_names_it() -> None:
    with (
        ViewSink() as sink,
        pytest.raises(SinkError, match=rf"port {port(sink)} of 127.0.0.1 is taken"),
    ):
        ViewSink(port=port(sink))
    with pytest.raises(SinkError, match=r"cannot listen at no-such-name\.invalid"):
        ViewSink(host="no-such-name.invalid", token=TOKEN)


def test_after_the_end_the_port_is_free_and_no_thread_is_left() -> None:
    before = threading.active_count()
    with ViewSink() as sink:
        taken = port(sink)
    with ViewSink(port=taken):
        pass
    sink.close()
    with pytest.raises(SinkError, match="is closed"):
        sink.write(showing.patches())
    assert threading.active_count() == before


def test_the_token_opens_the_page_once_and_a_cookie_does_after_that() -> None:
    async def look(client: Client) -> None:
        home = address(view)
        for path in (
            "",
            "app.js",
            "socket",
            "snapshot.png",
            "?token=",
            "?token=0123456789abcdeX",
            "no",
        ):
            async with client.get(home + path) as answer:
                assert answer.status == 401, path
                assert TOKEN not in await answer.text()
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await client.ws_connect(home + "socket")
        async with client.get(view.url) as answer:
            assert answer.status == 200
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
            assert TOKEN not in cookie
            assert f"velatura_{port(view)}=" in cookie
        async with client.get(home + "app.js") as answer:
            assert answer.status == 200
            assert "Set-Cookie" not in answer.headers
        page = await opened(client, view)
        await page.close()
        async with (
            Client(cookies={f"velatura_{port(view)}": "guess"}) as stranger,
            stranger.get(home) as a,
        ):
            assert a.status == 401

    with ViewSink(token=TOKEN) as view:
        using(look)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "[::1"]
)
def test_another_name_for_this_machine_is_refused(view: ViewSink, host: str) -> None:
    answer = raw(view, f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400")), answer[:40]
    assert b"<html" not in answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:9000", "[::1]:80"])
def test_its_own_names_and_a_forwarded_port_are_taken(view: ViewSink, host: str) -> None:
    request = f"GET {path(view)} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert raw(view, request.encode()).startswith(b"HTTP/1.1 200")


def test_another_site_can_neither_read_nor_steer(view: ViewSink) -> None:
    async def look(client: Client) -> None:
        other_port = f"http://127.0.0.1:{port(view) + 1}"
        for origin in ("http://evil.example", other_port, "null", "file://"):
            with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
                await client.ws_connect(address(view) + "socket", origin=origin)
        for path in ("snapshot.png", "app.js", "socket"):
            for site in ("cross-site", "same-site"):
                async with client.get(address(view) + path, headers={"Sec-Fetch-Site": site}) as answer:
                    assert answer.status == 403
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        async with client.get(address(view), headers=link) as answer:
            assert answer.status == 200
        page = await opened(client, view, origin=address(view).rstrip("/"))
        await page.close()

    using(look, view)


def test_every_answer_forbids_scripts_frames_and_files_from_elsewhere(view: ViewSink) -> None:
    async def look(client: Client) -> None:
        for path in ("", "app.js", "missing", "snapshot.png"):
            async with client.get(address(view) + path) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "frame-ancestors 'none'" in policy
                assert "unsafe" not in policy
                assert "http:" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Referrer-Policy"] == "no-referrer"

    using(look, view)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    folder = Path(showing.__file__).resolve().parents[3] / "runtime/web/page"
    for file in folder.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, file
        assert "https://" not in text, file
        assert "//" not in text or file.suffix in (".js", ".html"), file


# What is served


@pytest.mark.parametrize("asked", [
    "/../server.py", "/..%2fserver.py", "/%2e%2e/server.py", "/page/../../../../../../etc/passwd",
    "//etc/passwd", "/etc/passwd", "/....//server.py", "/%252e%252e/server.py", "/..\\server.py",
    "/app.js/../../server.py", "/index.html", "/app.js%00.txt", "/app.js/", "/page/app.js",
    "/secret.txt", "/.", "/%2fetc%2fpasswd", "file:///etc/passwd", "http://evil.example/etc/passwd",
])  # fmt: skip
def test_no_file_but_the_pages_own_is_served(view: ViewSink, asked: str) -> None:
    lines = (f"GET {asked} HTTP/1.1", "Host: localhost", cookie(view), "Connection: close", "", "")
    answer = raw(view, "\r\n".join(lines).encode())
    status, _, body = answer.partition(b"\r\n\r\n")
    page = b"<title>velatura</title>" in body
    assert status.split()[1] in (b"404", b"400", b"403") or page, status
    for secret in (b"root:", b"import ", b"addEventListener"):
        assert secret not in body


def test_a_link_in_the_pages_folder_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from velatura.runtime.web import server, site

    folder = tmp_path / "page"
    folder.mkdir()
    for name, _ in server.FILES.values():
        (folder / name).write_text(f"this is {name}")
    (folder / "secret.txt").symlink_to("/etc/passwd")
    monkeypatch.setattr(site, "files", lambda _: tmp_path)

    async def look(client: Client) -> None:
        async with client.get(address(other)) as answer:
            assert await answer.text() == "this is index.html"
        async with client.get(address(other) + "secret.txt") as answer:
            assert answer.status == 404

    with ViewSink() as other:
        using(look, other)


def test_nothing_can_be_posted(view: ViewSink) -> None:
    async def look(client: Client) -> None:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            async with client.request(method, address(view), data=b"x" * 4096) as answer:
                assert answer.status == 405

    using(look, view)


@pytest.mark.parametrize("data", [
    b"rubbish\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
])  # fmt: skip
def test_rubbish_in_place_of_http_is_refused_and_the_page_still_opens(
    view: ViewSink, data: bytes
) -> None:
    try:
        answer = raw(view, data)
    except ConnectionError:
        answer = b""
    assert not answer or answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.0 4"), answer[
        :40
    ]
    ok = f"GET {path(view)} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert raw(view, ok.encode()).startswith(b"HTTP/1.1 200")


# What a page says


def test_switches_do_what_a_page_says_in_its_order(view: ViewSink, panel: FakePanel) -> None:
    async def look(client: Client) -> None:
        page = await opened(client, view)
        for kind, value in (
            ("off", True), ("strength", 0.25), ("split", 0.75), ("models", ["the-scream", "wave"]),
            ("split", 1), ("strength", 0), ("record", True),
        ):  # fmt: skip
            await page.send_json({"type": kind, "value": value})
        assert (await heard(page, "recorded"))["path"].endswith("recording-001.mkv")
        assert (panel.off, panel.strength, panel.split) == (True, 0.0, 1.0)
        assert panel.models == ("the-scream", "wave")
        found = await heard(page, "state")
        assert found["recording"].endswith("recording-001.mkv")
        assert found["models"] == ["the-scream", "wave"]
        assert found["condition"] == "stalled"
        await page.send_json({"type": "record", "value": False})
        assert not (await heard(page, "recorded"))["on"]
        assert panel.recording is None
        await page.send_json({"type": "split", "value": None})
        await page.send_json({"type": "record", "value": True})
        await heard(page, "recorded")
        assert panel.split is None
        await page.close()

    using(look, view)


def test_what_cannot_be_done_is_told_to_the_one_who_asked(view: ViewSink) -> None:
    panel = view.controls = FakePanel()

    def fail() -> None:
        raise RuntimeError("the graph is torn")

    async def look(client: Client) -> None:
        page, other = await opened(client, view), await opened(client, view)
        await page.send_json({"type": "models", "value": ["wave", "mona-lisa"]})
        text = (await heard(page, "error"))["text"]
        assert text == "no model mona-lisa; there are: starry-night, the-scream, wave"
        await page.send_json({"type": "record", "value": True})
        assert "--record-to FOLDER" in (await heard(page, "error"))["text"]
        panel.during = fail
        await page.send_json({"type": "models", "value": ["wave"]})
        assert "the graph is torn" in (await heard(page, "error"))["text"]
        await page.send_json({"type": "offer", "value": "v=0 rubbish"})
        assert (await heard(page, "error"))["text"].startswith("offer failed")
        assert not panel.swapped
        for _ in range(3):
            assert (await heard(other, "state", "error"))["type"] == "state"
        await page.close()
        await other.close()

    using(look, view)


@pytest.mark.parametrize("text", [
    "", "rubbish", "[]", "null", "3", '"off"', "{}", '{"type": "off"}', '{"type": "off", "value": 1}',
    '{"type": "off", "value": "true"}', '{"type": "off", "value": true, "more": 1}',
    '{"type": "strength", "value": true}', '{"type": "strength", "value": -0.01}',
    '{"type": "strength", "value": 1.01}', '{"type": "strength", "value": NaN}',
    '{"type": "strength", "value": 1e999}', '{"type": "strength", "value": "1"}',
    '{"type": "strength", "value": null}', '{"type": "strength", "value": ' + "9" * 5000 + "}",
    '{"type": "split", "value": Infinity}', '{"type": "split", "value": [0.5]}',
    '{"type": "models", "value": []}', '{"type": "models", "value": "wave"}',
    '{"type": "models", "value": [3]}', '{"type": "models", "value": ["wave", null]}',
    json.dumps({"type": "models", "value": ["wave"] * 9}), '{"type": ["off"], "value": true}',
    '{"type": "__class__", "value": 1}', '{"type": "offer", "value": ""}',
    '{"type": "key", "value": 1}',
    '{"type": "shown", "value": -1}', '{"type": "shown", "value": 4294967296}',
    '{"type": "shown", "value": true}', "[" * 60_000, '{"type": {"a": ' + "[" * 20_000,
])  # fmt: skip
def test_a_message_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RubbishError):
        parse(text)


@settings(max_examples=300, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["type", "value", "x"]), inner, max_size=3)
    | st.fixed_dictionaries({
        "type": st.sampled_from(["off", "strength", "split", "models", "record", "shown", "key"]),
        "value": inner,
    }),
    max_leaves=6,
))  # fmt: skip
def test_whatever_is_parsed_has_a_value_that_fits(thing: Any) -> None:
    try:
        message = parse(json.dumps(thing))
    except RubbishError:
        return
    fits: dict[str, Callable[[Any], bool]] = {
        "off": lambda value: value is True or value is False,
        "record": lambda value: value is True or value is False,
        "mjpeg": lambda value: value is True or value is False,
        "strength": lambda value: type(value) is float and 0 <= value <= 1,
        "split": lambda value: value is None or (type(value) is float and 0 <= value <= 1),
        "models": lambda value: 0 < len(value) <= 8 and all(type(name) is str for name in value),
        "shown": lambda value: type(value) is int and 0 <= value < 1 << 32,
        "key": lambda value: value is None,
    }
    assert fits[message.type](message.value)


def test_a_client_that_sends_rubbish_is_let_go_and_others_stay(
    view: ViewSink, panel: FakePanel
) -> None:
    async def look(client: Client) -> None:
        other, page = await opened(client, view), await opened(client, view)
        for number in range(PATIENCE):
            await (page.send_bytes(b"\x00\xff") if number % 2 else page.send_str("rubbish"))
        while (message := await page.receive(10)).type is not WSMsgType.CLOSE:
            assert message.type is WSMsgType.TEXT
        assert message.data == WSCloseCode.POLICY_VIOLATION
        await other.send_json({"type": "off", "value": True})
        await heard(other, "state")
        await heard(other, "state")
        assert panel.off
        await other.close()

    using(look, view)


def test_a_huge_message_ends_the_connection(view: ViewSink) -> None:
    async def look(client: Client) -> None:
        for data in ("x" * (LIMIT + 1), "x" * (4 << 20)):
            page = await opened(client, view)
            try:
                await page.send_str(data)
                while (message := await page.receive(10)).type is WSMsgType.TEXT:
                    pass
                closed = message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
                assert closed or message.type is WSMsgType.ERROR, message
                assert page.close_code in (WSCloseCode.MESSAGE_TOO_BIG, WSCloseCode.ABNORMAL_CLOSURE)
            except ConnectionError:
                continue
        page = await opened(client, view)
        await page.close()

    using(look, view)


def test_one_that_connects_twenty_times_is_told_when_it_is_enough(view: ViewSink) -> None:
    async def look(client: Client) -> None:
        pages = [await client.ws_connect(address(view) + "socket") for _ in range(20)]
        assert view.pages == PAGES
        for page in pages[PAGES:]:
            message = await page.receive(10)
            assert (message.type, message.data) == (WSMsgType.CLOSE, WSCloseCode.TRY_AGAIN_LATER)
            assert message.extra == "8 pages are open already: close one"
        for page in pages[:PAGES]:
            await heard(page, "hello")
        await pages[0].close()
        for _ in range(100):
            if view.pages < PAGES:
                break
            await asyncio.sleep(0.02)
        again = await opened(client, view)
        for page in (again, *pages):
            await page.close()

    using(look, view)


def test_a_page_that_vanishes_without_a_word_frees_its_place(view: ViewSink) -> None:
    async def look(client: Client) -> None:
        page = await opened(client, view)
        assert view.pages == 1
        page._response.connection.transport.abort()
        for _ in range(100):
            if not view.pages:
                break
            await asyncio.sleep(0.02)
        assert not view.pages

    using(look, view)


# Pictures


def test_jpeg_pictures_come_as_fast_as_the_page_shows_them_and_no_faster(view: ViewSink) -> None:
    async def look(client: Client) -> None:
        page = await opened(client, view)
        await page.send_json({"type": "mjpeg", "value": True})
        first, second = await picture(page), await picture(page)
        assert second[0] > first[0]
        assert first[1].shape == (180, 320, 3)
        # Two are on the way, so there are no more until one is shown; then comes the newest.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(picture(page), 0.5)
        await page.send_json({"type": "shown", "value": second[0]})
        third = await picture(page)
        assert third[0] > second[0] + 8, "what came in the meantime was queued"
        await page.send_json({"type": "mjpeg", "value": False})
        await page.close()

    async def picture(page: aiohttp.ClientWebSocketResponse) -> tuple[int, Any]:
        while (message := await page.receive()).type is not WSMsgType.BINARY:
            pass
        pixels = cv2.imdecode(np.frombuffer(message.data[4:], np.uint8), cv2.IMREAD_COLOR)
        return int.from_bytes(message.data[:4], "big"), pixels

    with Feeder(view):
        using(look, view)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no figures of memory here")
def test_a_page_that_reads_nothing_costs_no_memory_and_holds_nobody_up(view: ViewSink) -> None:
    frame = showing.patches(1280, 720)
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280), np.uint8)

    async def look(client: Client) -> None:
        deaf = await opened(client, view)
        other = await opened(client, view)
        deaf._response.connection.transport.pause_reading()
        await deaf.send_json({"type": "mjpeg", "value": True})
        for serial in range(1, 400):
            # It claims to have shown everything, and reads nothing.
            await deaf.send_json({"type": "shown", "value": serial})
            view.write(replace(frame, planes=(np.roll(noise, serial), *frame.planes[1:])))
            await asyncio.sleep(0.002)
        middle = memory()
        for serial in range(400, 1200):
            view.write(replace(frame, planes=(np.roll(noise, serial), *frame.planes[1:])))
            if serial % 4 == 0:
                await deaf.send_json({"type": "shown", "value": serial})
                await asyncio.sleep(0.002)
        grown = memory() - middle
        assert grown < 32 << 20, f"{grown} bytes more"
        assert (await heard(other, "state"))["type"] == "state"
        deaf._response.connection.transport.abort()
        await other.close()

    using(look, view)


def test_writing_takes_no_time_with_and_without_pages(view: ViewSink) -> None:
    frame = showing.patches(1280, 720)

    def slowest_but_few() -> float:
        times: list[float] = []
        for _ in range(200):
            begin = time.perf_counter()
            view.write(frame)
            times.append(time.perf_counter() - begin)
        return float(np.percentile(times, 90))

    assert slowest_but_few() < 1e-3

    async def look(client: Client) -> None:
        page = await opened(client, view)
        await page.send_json({"type": "mjpeg", "value": True})
        assert await asyncio.get_running_loop().run_in_executor(None, slowest_but_few) < 1e-3
        await page.close()

    using(look, view)


def test_a_snapshot_has_all_pixels_and_no_picture_is_said(view: ViewSink) -> None:
    async def look(client: Client) -> None:
        async with client.get(address(view) + "snapshot.png") as answer:
            assert answer.status == 200
            assert answer.content_type == "image/png"
            assert "attachment" in answer.headers["Content-Disposition"]
            pixels = cv2.imdecode(np.frombuffer(await answer.read(), np.uint8), cv2.IMREAD_UNCHANGED)
            assert pixels.shape == (362, 640, 3)
        for nothing in (FakePanel(), None):
            view.controls = nothing
            async with client.get(address(view) + "snapshot.png") as answer:
                assert answer.status == 503
                assert await answer.text() == "There is no picture yet."
        # The page waits for a run that is not wired yet.
        page = await opened(client, view)
        assert (await heard(page, "state"))["condition"] == "starting"
        await page.send_json({"type": "off", "value": True})
        assert (await heard(page, "error"))["text"] == "the run has not begun yet"
        await page.close()

    using(look, view)


FORMATS: list[tuple[PixelFormat, Colour]] = [
    (YUV420P, Colour()), (YUV420P, Colour(matrix="bt601", range="full")), (RGB, Colour()),
    (PixelFormat("yuv", 10, (2, 1)), Colour(matrix="bt2020")), (PixelFormat("rgb", 16), Colour()),
]  # fmt: skip


@pytest.mark.parametrize(("format", "colour"), FORMATS)
def test_frames_of_every_format_are_shown_in_their_colours(format: PixelFormat, colour: Colour) -> None:
    from velatura.runtime.colour import to_format

    frame = to_format(showing.patches(), format, colour)
    for make, bits in ((jpeg, 8), (png, 8 if format.bits == 8 else 16)):
        data = np.frombuffer(make(shown(frame, 1280) if make is jpeg else frame), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)[..., ::-1] / ((1 << bits) - 1) * 255
        for number, patch in enumerate(PATCHES):
            assert np.abs(pixels[60, 40 + 80 * number] - patch).max() < 4
    for codec in ("H264", "VP8"):
        data, whole = Coder(codec, 320, 180).encode(shown(frame, 1280), pts=0, key=True)
        assert whole
        assert len(data) > 100


def test_what_is_shown_is_upright_square_even_and_not_too_large() -> None:
    pixels = np.zeros((101, 51), np.uint8)
    pixels[:50] = 255
    frame = Frame(planes=(pixels,), format=GRAY, pts=0, time_base=Fraction(1), rotation=90)
    turned = shown(frame, 1280)
    assert (turned.width, turned.height) == (100, 52) or (turned.width, turned.height) == (100, 50)
    assert turned.planes[0][:, :40].mean() > 250
    assert turned.planes[0][:, 60:].mean() < 5
    wide = shown(replace(frame, rotation=0, aspect=Fraction(2)), 1280)
    assert (wide.width, wide.height) == (102, 100)
    large = shown(showing.patches(4096, 2304), 1280)
    assert (large.width, large.height) == (1280, 720)


def test_whole_pictures_come_when_asked_for_and_only_then() -> None:
    frame = showing.patches()
    for codec in ("H264", "VP8"):
        coder = Coder(codec, 320, 180)
        whole = [coder.encode(frame, pts=n * 3000, key=n in (0, 7))[1] for n in range(12)]
        assert [n for n, key in enumerate(whole) if key] == [0, 7], codec


# The chart's figures


def test_seconds_are_kept_for_three_minutes_with_their_percentiles() -> None:
    history = History()
    for second in range(1000, 1400):
        for part in range(100):
            history.add(second + part / 100, 0.010 if part else 0.5)
    found = history.since(1400.0)
    assert len(found) == SECONDS
    assert (found[-1].at, found[-1].frames) == (1399, 100)
    assert (found[-1].p50, found[-1].p99) == (0.010, 0.010)
    for part in range(10):
        history.add(1500 + part / 100, 0.001 * part)
    last = history.since(1501.0)[-1]
    assert (last.p50, last.p99) == pytest.approx((0.004, 0.009))
    assert history.silent(1502.0) == pytest.approx(1.91)
    assert not history.since(1501.0 + SECONDS + 1)


def test_webrtc_in_h264_or_vp8_and_a_second_page_begins_with_a_whole_picture(view: ViewSink) -> None:
    async def watch(client: Client, codec: str) -> tuple[aiohttp.ClientWebSocketResponse, Any, Any]:
        page = await opened(client, view)
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        transceiver = connection.addTransceiver("video", direction="recvonly")
        found = RTCRtpReceiver.getCapabilities("video").codecs
        transceiver.setCodecPreferences([one for one in found if one.mimeType == f"video/{codec}"])
        await connection.setLocalDescription(await connection.createOffer())
        await page.send_json({"type": "offer", "value": connection.localDescription.sdp})
        answer = await heard(page, "answer", "error")
        assert answer.get("codec") == codec, answer
        await connection.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        return page, connection, transceiver.receiver.track

    async def look(client: Client) -> None:
        opened_pages = [await watch(client, codec) for codec in ("H264", "VP8")]
        await asyncio.sleep(1)
        opened_pages.append(await watch(client, "H264"))
        for _, _, track in opened_pages:
            picture = await asyncio.wait_for(track.recv(), 8)
            pixels = picture.to_ndarray(
                format="rgb24",
                src_colorspace=picture.colorspace if picture.colorspace != 2 else "ITU601",
            )
            assert pixels.shape == (180, 320, 3)
            assert np.abs(pixels[60, 40:320:80].astype(int) - PATCHES).max() < 12
        for page, connection, _ in opened_pages:
            await page.close()
            await connection.close()

    with Feeder(view):
        using(look, view)


def test_the_condition_follows_the_deadline(panel: FakePanel) -> None:
    async def look(client: Client) -> None:
        page = await opened(client, view)

        async def until(condition: str) -> dict[str, Any]:
            while (found := await heard(page, "state"))["condition"] != condition:
                view.write(replace(frame, captured=time.monotonic() - delay))
            return found

        delay = 0.01
        view.write(replace(frame, captured=time.monotonic() - delay))
        found = await until("holding")
        assert found["deadline"] == 40.0
        delay = 0.1
        found = await until("late")
        assert 99 < found["p99"] < 200
        panel.off = True
        await until("off")
        await page.close()

    frame = showing.patches()
    with ViewSink(controls=panel, deadline=0.04) as view:
        using(look, view)


def test_it_is_a_sink_of_a_live_run(panel: FakePanel) -> None:
    with ViewSink(controls=panel) as view:
        output = Output(view)
        output.start()
        for _ in range(3):
            output.put(replace(showing.patches(), captured=time.monotonic()))
            time.sleep(0.02)
        assert output.finish(5.0)
        assert output.stats().shown == 3
        assert view.frames == 3
        assert output.stats().failure == ""


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "aiortc", None)
        with ViewSink() as view:
            assert "velatura[live]" in view.notes[0]
    for name in [name for name in sys.modules if name.startswith("velatura.runtime.web.")]:
        if name.rpartition(".")[2] in ("guard", "server", "session"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(SinkError, match=r"pip install 'velatura\[live\]'"):
        ViewSink()
