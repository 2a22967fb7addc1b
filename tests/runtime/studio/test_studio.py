"""The studio's server: who may ask, what it takes, and what becomes of a queue."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest
from aiohttp import web
from velatura.runtime.errors import SinkError, SourceError
from velatura.runtime.studio import stills
from velatura.runtime.studio.films import plain_name
from velatura.runtime.studio.server import Studio

from .. import videos
from ..commands import velatura
from .desk import Desk, render_of, told, until

LIMIT = 4_000_000
"""Bytes of an upload in these tests."""
ROOM = 64 << 20
"""Bytes by which memory may grow."""

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos.make(
        tmp_path_factory.mktemp("clip") / "a clip.mp4", codec="libx264", size=(96, 64), frames=30,
        tone=True, seconds=1.2,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, clip: Path) -> Path:
    """What the page may look into, beside what it may not."""
    inside = tmp_path / "videos"
    (inside / "more").mkdir(parents=True)
    (inside / "more" / "inner.mp4").write_bytes(clip.read_bytes())
    (inside / ".hidden.mp4").write_bytes(clip.read_bytes())
    (inside / "notes.txt").write_text("no video")
    (tmp_path / "outside.mp4").write_bytes(clip.read_bytes())
    (inside / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (inside / "up").symlink_to(tmp_path)
    return inside


@pytest.fixture
def studio(tmp_path: Path, folder: Path) -> Iterator[Studio]:
    found = Studio(tmp_path / "workspace", folder=folder, limit=LIMIT)
    yield found
    found.close()


@pytest.fixture
def desk(studio: Studio) -> Desk:
    return Desk(studio.url)


def left(studio: Studio) -> list[str]:
    """What lies in the folders of films."""
    return sorted(path.name for path in (studio.workspace / "films").rglob("*"))


# Who may ask


def test_no_route_answers_without_the_token(studio: Studio, desk: Desk) -> None:
    router = web.UrlDispatcher()
    studio._route(router)
    routes = [(route.method, route.get_info()) for route in router.routes()]
    assert len(routes) >= 18
    for method, info in routes:
        path = info.get("path") or info["formatter"].format(film="0" * 16, render="0" * 16, do="pause")
        body = b"{}" if method in ("POST", "PUT") else None
        for cookie in ("", "velatura_1=guess", desk.cookie.partition("=")[0] + "=guess"):
            assert desk.send(method, path, body, Cookie=cookie)[0] == 401, path
        for headers in (
            {"Origin": "http://evil.example"}, {"Host": "evil.example"},
            {"Sec_Fetch_Site": "cross-site"},
        ):  # fmt: skip
            assert desk.send(method, path, body, **headers)[0] == 403, path


@pytest.mark.parametrize("file", ["/", "/studio.js", "/compare.js", "/studio.css", "/theme.css"])
def test_the_page_loads_nothing_from_elsewhere(desk: Desk, file: str) -> None:
    status, body, headers = desk.send("GET", file)
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    text = body.decode().replace("http://www.w3.org/2000/svg", "")
    assert "://" not in text.replace("${scheme}://${location.host}", "")


def test_a_workspace_has_one_studio(studio: Studio) -> None:
    with pytest.raises(SinkError, match="another velatura studio works in"):
        Studio(studio.workspace)


def test_bad_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no folder"):
        Studio(tmp_path / "one", folder=tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot be used"):
        Studio(tmp_path / "file")
    with pytest.raises(SinkError, match="reached from other machines"):
        Studio(tmp_path / "two", host="0.0.0.0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SinkError, match="is taken"):
            Studio(tmp_path / "three", port=taken.getsockname()[1])
    Studio(tmp_path / "three").close()  # the refused one has left its place
    done = velatura("studio", "--workspace", tmp_path / "four", "--folder", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no folder" in done.stderr


def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "velatura.runtime", "studio", "--workspace", str(tmp_path / "there")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        desk = Desk(process.stdout.readline().strip())
        assert b"velatura studio" in desk.send("GET", "/")[1]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        process.stdout.close()


# Videos


def test_the_folder_shows_what_is_in_it_and_nothing_else(desk: Desk) -> None:
    found = desk.ask("GET", "/api/folder?path=")
    assert (found["folders"], found["files"]) == (["more"], [])
    assert [one["name"] for one in desk.ask("GET", "/api/folder?path=more")["files"]] == ["inner.mp4"]


@pytest.mark.parametrize("path", [
    "..", "../outside.mp4", "more/../../outside.mp4", "/etc/passwd", "link.mp4", "up", "up/outside.mp4",
    "..%2foutside.mp4", "%00", "~", "more/inner.mp4%00.txt", "a" * 3000,
])  # fmt: skip
def test_no_path_leads_out_of_the_folder(studio: Studio, desk: Desk, path: str) -> None:
    assert desk.refused("GET", f"/api/folder?path={path}")[0] == 422
    assert desk.refused("POST", "/api/films", {"path": path.replace("%00", "\0")})[0] == 422
    assert told(studio)["films"] == []
    assert left(studio) == []


def test_without_a_folder_there_is_none(tmp_path: Path) -> None:
    studio = Studio(tmp_path / "workspace")
    try:
        status, words = Desk(studio.url).refused("GET", "/api/folder?path=")
        assert (status, "--folder" in words) == (422, True)
    finally:
        studio.close()


def test_a_video_of_the_folder_stays_where_it_is(studio: Studio, desk: Desk, folder: Path) -> None:
    film = desk.ask("POST", "/api/films", {"path": "more/inner.mp4"})
    assert (film["own"], film["width"], film["height"], film["frames"]) == (False, 96, 64, 30)
    assert desk.ask("POST", "/api/films", {"path": "more/inner.mp4"})["id"] == film["id"]
    desk.ask("DELETE", f"/api/films/{film['id']}")
    assert (folder / "more" / "inner.mp4").is_file()
    assert left(studio) == []
    # What was added is not followed to another place.
    film = desk.ask("POST", "/api/films", {"path": "more/inner.mp4"})["id"]
    (folder / "more" / "inner.mp4").unlink()
    (folder / "more" / "inner.mp4").symlink_to(folder.parent / "outside.mp4")
    assert desk.refused("GET", f"/api/films/{film}/file")[0] == 404


@pytest.mark.parametrize(("name", "plain"), [
    ("../../../etc/cron.d/evil.mp4", "evil.mp4"), ("C:\\films\\evil.MKV", "evil.mkv"), ("..", "film"),
    ("", "film"), (".mp4", "mp4"), ("a\x1b[31m\n.mp4", "a__31m_.mp4"), ("x.sh", "x"),
    ("a" * 400 + ".mp4", "a" * 80 + ".mp4"), ("Übung 1.mov", "Übung 1.mov"), ("<b>.mp4", "_b_.mp4"),
])  # fmt: skip
def test_names_are_never_trusted(name: str, plain: str) -> None:
    assert plain_name(name) == plain


def test_an_upload_is_a_film_under_a_name_of_the_studio(studio: Studio, desk: Desk, clip: Path) -> None:
    film = desk.upload(clip, "../../../evil one.mp4")
    assert (film["name"], film["own"], film["audio"]) == ("evil one.mp4", True, ["aac"])
    assert left(studio) == sorted([film["id"], "film.json", "film.mp4"])
    assert desk.send("GET", f"/api/films/{film['id']}/file")[1] == clip.read_bytes()
    desk.ask("DELETE", f"/api/films/{film['id']}")
    assert left(studio) == []


def test_an_upload_that_stops_leaves_nothing(studio: Studio, desk: Desk, clip: Path) -> None:
    port = int(desk.base.rpartition(":")[2])
    head = (
        "PUT /api/films?name=cut.mp4 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Cookie: {desk.cookie}\r\nContent-Length: {clip.stat().st_size}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head.encode() + clip.read_bytes()[:2000])
        until(lambda: "film.mp4" in left(studio))
    until(lambda: left(studio) == [])
    assert told(studio)["films"] == []


def test_what_is_left_of_an_upload_when_the_studio_was_killed_is_removed(tmp_path: Path) -> None:
    cut = tmp_path / "workspace" / "films" / ("0" * 16)
    cut.mkdir(parents=True)
    (cut / "film.mp4").write_bytes(b"cut")
    studio = Studio(tmp_path / "workspace")
    studio.close()
    assert left(studio) == []


def test_an_upload_above_the_limit_is_refused(studio: Studio, desk: Desk) -> None:
    status, words = desk.refused("PUT", "/api/films?name=large.mp4", b"x" * (LIMIT + 1))
    assert status == 413
    assert "--max-upload" in words

    async def without_length() -> tuple[int, str]:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(6):
                yield b"x" * 1_000_000

        async with (
            aiohttp.ClientSession(headers={"Cookie": desk.cookie}) as client,
            client.put(f"{desk.base}/api/films?name=large.mp4", data=parts()) as answer,
        ):
            return answer.status, await answer.text()

    status, words = asyncio.run(without_length())
    assert (status, "--max-upload" in words) == (422, True)
    until(lambda: left(studio) == [])


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def grown_by(workspace: Path, size: int) -> int:
    """Bytes by which this process grows while it sends, and takes, an upload."""
    studio = Studio(workspace, limit=4 << 30)
    desk, part, most = Desk(studio.url), bytes(1 << 20), [0]
    try:
        desk.refused("PUT", "/api/films?name=warm.mp4", b"warm")
        before = memory()

        async def send() -> int:
            async def parts() -> AsyncIterator[bytes]:
                for _ in range(size >> 20):
                    most[0] = max(most[0], memory())
                    yield part

            headers = {"Cookie": desk.cookie, "Content-Length": str(size)}
            limit = aiohttp.ClientTimeout(total=None)
            async with (
                aiohttp.ClientSession(headers=headers, timeout=limit) as client,
                client.put(f"{desk.base}/api/films?name=large.mp4", data=parts()) as answer,
            ):
                return answer.status

        assert asyncio.run(send()) == 422  # it is no video, and nothing of it stays
        assert left(studio) == []
        return most[0] - before
    finally:
        studio.close()


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="this system does not tell its memory"
)
def test_an_upload_is_not_held_in_memory(tmp_path: Path) -> None:
    assert grown_by(tmp_path, 160 << 20) < ROOM


@pytest.mark.soak
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="this system does not tell its memory"
)
def test_two_gigabytes_are_not_held_in_memory(tmp_path: Path) -> None:
    assert grown_by(tmp_path, 2 << 30) < ROOM


def lists(inside: Path) -> dict[str, bytes]:
    """Files that would lead FFmpeg to another one."""
    return {
        "a.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n" + str(inside).encode() + b"\n",
        "b.mp4": b"ffconcat version 1.0\nfile '" + str(inside).encode() + b"'\n",
        "c.mkv": b"v=0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "d.mov": b"not a video at all",
        "e.mp4": b"",
    }


def test_a_broken_file_or_a_list_of_others_is_refused(studio: Studio, desk: Desk, folder: Path) -> None:
    for name, data in lists(folder.parent / "outside.mp4").items():
        status, words = desk.refused("PUT", f"/api/films?name={name}", data)
        assert status == 422, name
        assert name.partition(".")[0] in words
        assert str(studio.workspace) not in words
    # Beside what it names, FFmpeg would follow it.
    (folder / "more" / "list.mp4").write_bytes(b"ffconcat version 1.0\nfile inner.mp4\n")
    assert desk.refused("POST", "/api/films", {"path": "more/list.mp4"})[0] == 422
    assert left(studio) == []


def test_a_film_that_is_cut_in_its_middle_is_refused_or_shown(desk: Desk, clip: Path) -> None:
    status, words = desk.refused("PUT", "/api/films?name=cut.mp4", clip.read_bytes()[:4000])
    assert (status, "cut off" in words) == (422, True)


ENORMOUS = {
    "a.y4m": b"YUV4MPEG2 W16000 H16000 F25:1 Ip C420jpeg\nFRAME\n" + bytes(1000),
    "b.gif": b"GIF89a\xff\xff\xff\xff\xf0\x00\x00" + bytes(6)
    + b",\0\0\0\0\xff\xff\xff\xff\0\x08\x02L\x01\0;",
}  # fmt: skip
"""Some bytes each that state pictures of hundreds of megabytes."""


@pytest.mark.parametrize("name", list(ENORMOUS))
def test_pictures_of_enormous_size_are_refused_before_they_are_decoded(
    studio: Studio, desk: Desk, name: str
) -> None:
    most, ending = [0], threading.Event()

    def watch() -> None:
        while not ending.wait(0.002):
            most[0] = max(most[0], memory())

    desk.refused("PUT", f"/api/films?name={name}", b"warm")
    before = memory()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        status, words = desk.refused("PUT", f"/api/films?name={name}", ENORMOUS[name])
    finally:
        ending.set()
        thread.join()
    assert status == 422
    assert "million pixels" in words or "too large" in words
    assert most[0] - before < ROOM
    assert left(studio) == []


# Stills


def decoded(data: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return found


def test_a_frame_is_shown_before_and_after(
    desk: Desk, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    plain = stills.open_engine

    def counting(name: str, **options: Any) -> Any:
        opened.append(name)
        return plain(name, **options)

    monkeypatch.setattr(stills, "open_engine", counting)
    film = f"/api/films/{desk.upload(clip)['id']}"
    before = decoded(desk.picture(f"{film}/before?at=0.4"))
    assert before.shape == (64, 96, 3)
    seen = videos.read(clip).luma[10]
    assert abs(float(cv2.cvtColor(before, cv2.COLOR_BGR2GRAY).mean()) - float(seen.mean())) < 24
    other = decoded(desk.picture(f"{film}/before?at=1.0"))
    assert np.abs(before.astype(int) - other).mean() > 3, "every time shows one frame"
    chosen = {"models": ["upscale-2x"]}
    for at in ("0.4", "0.4", "1.0"):
        after = decoded(desk.picture(f"{film}/after?at={at}", chosen))
        assert after.shape == (128, 192, 3)
    desk.picture(f"{film}/card?at=0.4&model=upscale-2x")
    assert opened == ["upscale-2x"], "the engine stays open"
    small = cv2.resize(decoded(desk.picture(f"{film}/after?at=0.4", chosen)), (96, 64))
    assert np.abs(small.astype(int) - before).mean() < 12
    none = decoded(desk.picture(f"{film}/after?at=0.4", {**chosen, "strength": 0.0}))
    assert np.abs(cv2.resize(none, (96, 64)).astype(int) - before).mean() < 6
    assert [one["name"] for one in desk.ask("GET", "/api/models")["choices"]["mixed"]] == [
        "strength", "keep_colours",
    ]  # fmt: skip
    assert decoded(desk.picture(f"{film}/glance?at=99")).shape == (64, 96, 3)


@pytest.mark.parametrize("chosen", [
    {"models": ["/etc/passwd.onnx"]}, {"models": ["../wave"]}, {"models": "wave"}, {"models": [1]},
    {"models": ["wave"] * 9}, {"quality": "best"}, {"crf": True}, {"crf": -1}, {"crf": 1.5},
    {"preset": "fast; rm"}, {"codec": "rawvideo"}, {"audio": 1}, {"stabilize": 2},
    {"stabilize": float("nan")}, {"strength": 1.5}, {"keep_colours": 1},
    {"suffix": ".sh"}, {"sink": "/tmp/x.mp4"}, {"overwrite": True},
    {"enc": [["a", "b"]]}, [], "x", None,
])  # fmt: skip
def test_a_choice_that_is_none_is_refused(studio: Studio, desk: Desk, chosen: Any, clip: Path) -> None:
    film = desk.upload(clip)["id"]
    for path, body in (
        (f"/api/films/{film}/after?at=0", chosen), (f"/api/films/{film}/plan", chosen),
        ("/api/renders", {"film": film, "choices": chosen}),
    ):  # fmt: skip
        assert desk.refused("POST", path, body)[0] == 400
    assert told(studio)["renders"] == []


@pytest.mark.parametrize("at", ["-1", "nan", "inf", "x", "1e9"])
def test_a_time_that_is_none_is_refused(desk: Desk, clip: Path, at: str) -> None:
    assert desk.refused("GET", f"/api/films/{desk.upload(clip)['id']}/before?at={at}")[0] == 400


def test_a_request_that_is_no_json_is_refused(desk: Desk) -> None:
    for body in (b"", b"{", b"[" * 5000, b"\xff", b" " * 200_000):
        assert desk.refused("POST", "/api/renders", body)[0] in (400, 413)
    assert desk.refused("POST", "/api/renders", {"film": "0" * 16, "choices": {}})[0] == 404
    assert desk.refused("GET", "/api/films/../../etc/passwd")[0] in (403, 404)


# The queue


def test_a_plan_says_what_a_render_would_take(studio: Studio, desk: Desk, tmp_path: Path) -> None:
    # Long enough for a tenth of a second.
    clip = videos.make(tmp_path / "in.mp4", codec="libx264", size=(96, 64), frames=900, tone=True)
    film = desk.upload(clip)["id"]
    report = desk.ask("POST", f"/api/films/{film}/plan", {"quality": "draft"})
    assert report["output"]["size"] == "96x64"
    assert report["seconds"]["likely"] > 0
    assert report["output_bytes"]["likely"] > 0
    assert report["streams"] == ["stream 1 (audio, aac) is copied"]
    assert report["fits"] is True
    for choices in ({"codec": "h264", "suffix": ".webm"}, {"preset": "warp"}, {"crf": 60}):
        body = {"film": film, "choices": choices}
        for refused in (
            desk.refused("POST", f"/api/films/{film}/plan", choices),
            desk.refused("POST", "/api/renders", body),
        ):
            assert refused[0] == 422, refused
    assert list((studio.workspace / "renders").iterdir()) == []


def test_a_queue_outlives_its_studio_and_ends_in_a_checked_file(tmp_path: Path, clip: Path) -> None:
    first = Studio(tmp_path / "workspace")
    desk = Desk(first.url)
    film = desk.upload(clip)["id"]
    choices = {"models": ["upscale-2x"], "quality": "draft"}
    render = desk.ask("POST", "/api/renders", {"film": film, "choices": choices})["id"]
    assert desk.ask("POST", f"/api/renders/{render}/pause")["state"] in ("paused", "stopping")
    until(lambda: render_of(first, render)["state"] == "paused")
    assert desk.refused("DELETE", f"/api/films/{film}")[0] == 409
    assert desk.refused("GET", f"/api/renders/{render}/file")[0] == 404
    first.close()

    second = Studio(tmp_path / "workspace")
    try:
        desk = Desk(second.url)
        assert render_of(second, render)["state"] == "paused"
        assert told(second)["films"][0]["id"] == film
        desk.ask("POST", f"/api/renders/{render}/resume")
        until(lambda: render_of(second, render)["verified"])
        found = render_of(second, render)
        assert (found["state"], found["error"], found["frames"]) == ("done", "", 30)
        assert found["verified"]["checks"] > 10
        assert (found["verified"]["wrong"], found["verified"]["error"]) == (0, "")
        report = desk.ask("GET", f"/api/renders/{render}/verified")
        assert (report["holds"], len(report["checks"])) == (True, found["verified"]["checks"])
        assert found["file"] == "a clip-upscale-2x.mp4"
        whole = Path(found["output"]).read_bytes()
        made = videos.read(Path(found["output"]))
        assert (made.width, made.height, len(made.luma)) == (192, 128, 30)

        # What players and downloads ask for.
        path = f"/api/renders/{render}/file"
        status, body, headers = desk.send("GET", f"{path}?download=1", Range="bytes=100-299")
        assert (status, body) == (206, whole[100:300])
        assert headers["Content-Range"] == f"bytes 100-299/{len(whole)}"
        assert "a%20clip-upscale-2x.mp4" in headers["Content-Disposition"]
        assert desk.send("GET", path, Range=f"bytes={len(whole)}-")[0] == 416
        assert desk.send("GET", path)[2]["Content-Type"] == "video/mp4"
        assert decoded(desk.picture(f"/api/renders/{render}/still?at=0.5")).shape == (128, 192, 3)

        desk.ask("DELETE", f"/api/renders/{render}")
        assert told(second)["renders"] == []
        assert list((tmp_path / "workspace" / "renders").iterdir()) == []
    finally:
        second.close()


def test_a_render_that_fails_says_why_and_the_next_one_is_made(
    studio: Studio, desk: Desk, folder: Path, clip: Path
) -> None:
    gone = desk.ask("POST", "/api/films", {"path": "more/inner.mp4"})["id"]
    kept = desk.upload(clip)["id"]
    (folder / "more" / "inner.mp4").write_bytes(b"no video any more")
    choices = {"models": [], "quality": "draft"}
    ids = [
        desk.ask("POST", "/api/renders", {"film": film, "choices": choices})["id"]
        for film in (gone, kept)
    ]
    until(lambda: render_of(studio, ids[1])["verified"])
    states = [render_of(studio, id)["state"] for id in ids]
    assert states == ["failed", "done"]
    assert "cannot be opened as a video" in render_of(studio, ids[0])["error"]
    # With its file back, a new try makes it.
    (folder / "more" / "inner.mp4").write_bytes(clip.read_bytes())
    desk.ask("POST", f"/api/renders/{ids[0]}/resume")
    until(lambda: render_of(studio, ids[0])["state"] == "done")


def test_pages_are_told_of_changes_and_of_nothing_else(desk: Desk, clip: Path) -> None:
    async def look() -> list[int]:
        counts: list[int] = []
        async with (
            aiohttp.ClientSession(headers={"Cookie": desk.cookie}) as client,
            client.ws_connect(f"{desk.base}/socket") as socket,
        ):
            counts.append(len(json.loads((await socket.receive(10)).data)["films"]))
            with pytest.raises(TimeoutError):
                await socket.receive(0.6)
        return counts

    async def change() -> int:
        async with (
            aiohttp.ClientSession(headers={"Cookie": desk.cookie}) as client,
            client.ws_connect(f"{desk.base}/socket") as socket,
        ):
            await socket.receive(10)
            await asyncio.to_thread(desk.upload, clip)
            return len(json.loads((await socket.receive(10)).data)["films"])

    assert asyncio.run(look()) == [0]
    assert asyncio.run(change()) == 1


def test_a_closed_studio_leaves_no_lock_and_its_port(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    begin = time.monotonic()
    studio.close()
    again = Studio(tmp_path, port=studio.port)
    again.close()
    assert again.port == studio.port
    assert time.monotonic() - begin < 30
