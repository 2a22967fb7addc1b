"""Streams from the network, sent by other processes over this machine's own loop."""

import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from velatura.runtime.errors import SourceError
from velatura.runtime.frame import Frame
from velatura.runtime.sources import ffmpeg_live, open_live_source
from velatura.runtime.sources.live import LiveSource

from .senders import number, sending


@pytest.fixture
def port() -> int:
    """One that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Reading:
    """Reads a source in a thread of its own, as a pump does."""

    def __init__(self, source: LiveSource) -> None:
        self.source = source
        self.frames: list[Frame] = []
        self.late: list[float] = []
        self.told: list[str] = []
        self.error: BaseException | None = None
        self._changed = threading.Condition()
        source.tell = self.told.append
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for frame in self.source:
                with self._changed:
                    assert frame.captured is not None
                    self.late.append(time.monotonic() - frame.captured)
                    self.frames.append(frame)
                    self._changed.notify_all()
        except SourceError as error:
            self.error = error
        with self._changed:
            self._changed.notify_all()

    def until(self, count: int, seconds: float = 10.0) -> None:
        with self._changed:
            came = self._changed.wait_for(
                lambda: len(self.frames) >= count or not self.thread.is_alive(), seconds
            )
        assert came, f"{len(self.frames)} of {count} frames; {self.told}"

    def more(self, count: int) -> None:
        self.until(len(self.frames) + count)

    def close(self) -> float:
        """Seconds that closing took, with the end of the iteration."""
        begin = time.monotonic()
        self.source.close()
        self.thread.join(5)
        assert not self.thread.is_alive()
        return time.monotonic() - begin

    @property
    def numbers(self) -> list[int]:
        return [number(frame.planes[0]) for frame in self.frames]


def steady(reading: Reading) -> None:
    """Times increase, and pictures came as fast as their source made them."""
    pts = [frame.pts for frame in reading.frames]
    assert all(a < b for a, b in pairwise(pts))
    assert float(np.median(reading.late)) < 0.05


def test_udp_gives_pictures_and_sound_on_one_clock_and_closes_at_once(port: int) -> None:
    with sending(f"udp://127.0.0.1:{port}?pkt_size=1316", "mpegts", tone=True) as sender:
        source = open_live_source(f"udp://127.0.0.1:{port}#stall=2")
        assert (source.info.width, source.info.height, source.info.rate) == (160, 120, 30)
        audio = source.audio
        assert audio is not None
        assert audio.codec == source.info.audio[0] == "aac"
        audio.listen()
        reading = Reading(source)
        reading.until(90)
        sender.kill()
        # The receiver waits for a packet that never comes.
        time.sleep(0.3)
        assert reading.close() < 1.0
    steady(reading)
    numbers = reading.numbers
    # A busy machine loses datagrams and leaves out what is late: none comes twice or out of its order,
    # and most follow the one before.
    steps = [(b - a) % 256 for a, b in pairwise(numbers)]
    assert all(0 < step < 128 for step in steps)
    assert np.median(steps) == 1
    # A packet that is less late than all before it puts the clock right, the sound's and the pictures'.
    sent = accumulate(((b - a) % 256 for a, b in pairwise(numbers)), initial=0)
    offsets = [frame.seconds - n / 30 for frame, n in zip(reading.frames, sent, strict=True)]
    moved = max(offsets) - min(offsets)
    # A beep begins with every 30th picture.
    heard: list[tuple[float, float]] = []
    reached: float | None = None
    while (sound := audio.take(0)) is not None:
        wave = np.abs(sound.frame.to_ndarray()[0])
        assert (sound.frame.sample_rate, sound.frame.layout.name) == (48_000, "stereo")
        assert reached is None or abs(sound.seconds - reached) < 0.0021 + moved
        reached = sound.seconds + len(wave) / 48_000
        heard += [
            (sound.seconds + at / 48_000, float(wave[at : at + 48].max()))
            for at in range(0, len(wave), 48)
        ]
    begins = [b[0] for a, b in pairwise(heard) if a[1] < 0.1 <= b[1]]
    shown = [frame.seconds for frame, n in zip(reading.frames, numbers, strict=True) if n % 30 == 0]
    last = reading.frames[-1].seconds
    pairs = [min(abs(begin - moment) for moment in shown) for begin in begins if 1 < begin < last]
    assert pairs, (begins, shown)
    assert max(pairs) < 0.04 + moved, (begins, shown, moved)


def test_a_sender_that_restarts_is_heard_again(port: int) -> None:
    url = f"udp://127.0.0.1:{port}"
    with sending(url + "?pkt_size=1316", "mpegts") as first:
        reading = Reading(open_live_source(url + "#stall=1"))
        reading.more(15)
        first.kill()
    time.sleep(1.5)
    assert any("nothing came; trying again in 0.5 s" in line for line in reading.told)
    before = len(reading.frames)
    with sending(url + "?pkt_size=1316", "mpegts"):
        reading.more(30)
        reading.close()
    steady(reading)
    numbers = reading.numbers
    assert numbers[before] < numbers[before - 1], "it began anew"
    # The pause is in the times, too.
    assert reading.frames[before].seconds - reading.frames[before - 1].seconds > 1


def test_a_listener_outlives_its_senders_and_follows_size_and_format(port: int) -> None:
    url = f"tcp://127.0.0.1:{port}"
    with sending(url, "mpegts", pix_fmt="yuv444p", change=1.5) as first:
        reading = Reading(open_live_source(url + "?listen=1#stall=2"))
        assert str(reading.source.info.format) == "yuv 4:4:4 8 bit"
        reading.until(60)
        first.kill()
    kinds = {(str(frame.format), frame.width, frame.height) for frame in reading.frames}
    assert kinds == {("yuv 4:4:4 8 bit", 160, 120), ("yuv 4:2:0 8 bit", 320, 240)}
    assert any("pictures are now 320x240 yuv420p" in line for line in reading.told)
    assert reading.frames[-1].planes[1].shape == (120, 160)
    with sending(url, "mpegts"):
        reading.more(15)
        assert reading.close() < 1.0
    steady(reading)
    assert any("trying again" in line for line in reading.told)
    assert (np.diff(reading.numbers[:50]) == 1).mean() > 0.9, "every picture told its number"


def test_rtsp_arrives_and_closes_at_once(port: int) -> None:
    url = f"rtsp://127.0.0.1:{port}/live"
    with sending(url, "rtsp", rtsp_transport="tcp"):
        reading = Reading(open_live_source(url, options={"rtsp_flags": "listen"}, stall=2))
        reading.until(45)
        assert reading.close() < 1.0
    steady(reading)
    assert (np.diff(reading.numbers) == 1).mean() > 0.9


def test_rtmp_arrives(port: int) -> None:
    url = f"rtmp://127.0.0.1:{port}/live/x"
    with sending(url, "flv"):
        reading = Reading(open_live_source(url, options={"listen": "1"}, stall=2))
        reading.until(45)
        assert reading.close() < 1.0
    steady(reading)


def test_rubbish_among_packets_is_counted_and_lived_with(port: int) -> None:
    inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    inner.bind(("127.0.0.1", 0))
    inner.settimeout(0.5)
    ended = threading.Event()
    rng = np.random.default_rng(1)

    def relay() -> None:
        outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        count = 0
        while not ended.is_set():
            try:
                packet = inner.recv(4096)
            except TimeoutError:
                continue
            count += 1
            if count % 5 == 0:
                outer.sendto(rng.bytes(rng.integers(1, 1400)), ("127.0.0.1", port))
            if count > 60 and count % 9 == 0:
                broken = bytearray(packet)
                at = int(rng.integers(4, len(packet) - 40))
                broken[at : at + 40] = rng.bytes(40)
                packet = bytes(broken)
            outer.sendto(packet, ("127.0.0.1", port))
        outer.close()

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        inside = inner.getsockname()[1]
        with sending(f"udp://127.0.0.1:{inside}?pkt_size=1316", "mpegts", size=(320, 240)):
            reading = Reading(open_live_source(f"udp://127.0.0.1:{port}#stall=2"))
            reading.until(100, 15)
            reading.close()
    finally:
        ended.set()
        thread.join()
        inner.close()
    steady(reading)
    assert reading.error is None
    assert reading.source.damage.lost > 0
    assert any("times so far" in line for line in reading.told)


@pytest.fixture
def playlist(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/live.m3u8"
    server.shutdown()
    thread.join()
    server.server_close()


def test_hls_is_paced_though_it_comes_in_heaps(playlist: str, tmp_path: Path) -> None:
    with sending(str(tmp_path / "live.m3u8"), "hls", hls_time="1", hls_flags="delete_segments"):
        # The first attempts find no playlist, as no segment is whole.
        reading = Reading(open_live_source(playlist, patience=10, stall=3))
        assert any("trying again" in line for line in reading.told)
        reading.until(75)
        assert reading.close() < 1.0
    steady(reading)
    captured = [frame.captured or 0.0 for frame in reading.frames]
    steps = np.diff(captured)
    assert abs(float(np.median(steps)) - 1 / 30) < 0.002
    # A segment is a second: taken as they come, 29 of 30 would have no distance at all.
    assert (steps > 0.02).mean() > 0.9
    assert set(np.diff(reading.numbers)) == {1}


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("udp://127.0.0.1:{port}", "gave no picture within 1 s"),
        ("rtsp://127.0.0.1:{port}/none", "Connection refused"),
        ("http://127.0.0.1:{port}/live.m3u8", "Connection refused"),
        ("tcp://127.0.0.1:{port}?listen=1", "that the sender is running"),
    ],
)
def test_a_stream_that_never_starts_is_given_up(uri: str, words: str, port: int) -> None:
    begin = time.monotonic()
    with pytest.raises(SourceError, match="gave no picture within 1 s") as raised:
        open_live_source(uri.format(port=port), patience=1, stall=1)
    assert words in str(raised.value)
    assert time.monotonic() - begin < 2


def test_what_ffmpeg_lacks_is_said_at_once() -> None:
    with pytest.raises(SourceError, match=r"no SRT|gave no picture within 1 s"):
        open_live_source("srt://127.0.0.1:9", patience=1)
    with pytest.raises(SourceError, match="no option colour; there are"):
        open_live_source("rtsp://127.0.0.1/x#colour=red")
    with pytest.raises(SourceError, match="transport is an option of RTSP"):
        open_live_source("udp://127.0.0.1:9#transport=tcp")


def test_retries_end(port: int) -> None:
    url = f"udp://127.0.0.1:{port}"
    with sending(url + "?pkt_size=1316", "mpegts") as sender:
        reading = Reading(open_live_source(url + "#stall=0.5&retries=0"))
        reading.more(5)
        sender.kill()
    reading.thread.join(5)
    assert "is given up: nothing came" in str(reading.error)


def test_a_connection_that_hangs_is_left(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ffmpeg_live.StreamSource._demux
    hangs = threading.Event()

    def demux(
        self: ffmpeg_live.StreamSource, container: Any, stream: Any, backlog: Any, *rest: Any
    ) -> bool:
        if self._turn > 1:
            return whole(self, container, stream, backlog, *rest)
        for count, packet in enumerate(container.demux(stream)):
            backlog.put(packet)
            if count == 30:
                hangs.wait(20)
                return False
        return False

    monkeypatch.setattr(ffmpeg_live.StreamSource, "_demux", demux)
    url = f"udp://127.0.0.1:{port}"
    with sending(url + "?pkt_size=1316", "mpegts"):
        reading = Reading(open_live_source(url + "?reuse=1#stall=0.5"))
        reading.until(60, 15)
        reading.close()
    hangs.set()
    steady(reading)
    assert any("the connection hangs; trying again" in line for line in reading.told)


def test_a_slow_decoder_catches_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ffmpeg_live.StreamSource._decode_packet

    def slow(self: ffmpeg_live.StreamSource, packet: object, arrived: float) -> None:
        time.sleep(0.1)
        whole(self, packet, arrived)  # type: ignore[arg-type]

    monkeypatch.setattr(ffmpeg_live.StreamSource, "_decode_packet", slow)
    url = f"udp://127.0.0.1:{port}"
    with sending(url + "?pkt_size=1316", "mpegts"):
        reading = Reading(open_live_source(url))
        reading.until(45, 15)
        reading.close()
    # Ten pictures a second of thirty: after four and a half seconds a queue would hold three.
    assert max(reading.late) < 1.5
    assert any("were left out" in line for line in reading.told)
    assert reading.numbers[-1] > 100
