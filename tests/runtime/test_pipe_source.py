"""Videos from standard input and from named pipes."""

import json
import os
import pty
import subprocess
import sys
import threading
from contextlib import suppress
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from velatura.runtime import SourceError, VelaturaError, open_source

from . import videos

READER = """
import json
from velatura.runtime import VelaturaError, open_source
try:
    with open_source("-") as source:
        print(json.dumps({"frames": len(list(source))}))
except VelaturaError as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
"""


def through(data: bytes | None, stdin: int | None = None) -> dict[str, Any]:
    """What a source reads from standard input: `data` through a pipe, or an open file."""
    writer = None
    if stdin is None:
        stdin, into = os.pipe()

        def write() -> None:
            with suppress(BrokenPipeError), os.fdopen(into, "wb") as file:
                file.write(data or b"")

        writer = threading.Thread(target=write)
        writer.start()
    with pytest.MonkeyPatch.context() as patch, open(stdin, closefd=writer is not None) as given:
        patch.setattr(sys, "stdin", given)
        try:
            with open_source("-") as source:
                frames = [[f.seconds, sha256(f.planes[0].tobytes()).hexdigest()] for f in source]
        except VelaturaError as error:
            said: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"}
        else:
            info = source.info
            said = {
                "frames": frames,
                "format": str(info.format),
                "range": info.colour.range,
                "path": info.path,
                "files": info.files,
                "notes": info.notes,
                "lost": source.damage.lost,
                "reason": source.damage.reason,
                "uri": source.uri,
                "rate": str(info.rate),
                "aspect": str(info.aspect),
            }
    if writer is not None:
        writer.join(20)
        assert not writer.is_alive()
    return said


def expected(path: Path) -> list[Any]:
    found = videos.read(path)
    hashes = [sha256(luma.tobytes()).hexdigest() for luma in found.luma]
    start = found.seconds[0]
    return [[round(s - start, 4), h] for s, h in zip(found.seconds, hashes, strict=True)]


def rounded(said: dict[str, Any]) -> list[Any]:
    start = said["frames"][0][0]
    return [[round(seconds - start, 4), digest] for seconds, digest in said["frames"]]


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".y4m", "wrapped_avframe", "yuv420p"),
        (".mkv", "libx264", "yuv420p"),
        (".ts", "libx264", "yuv420p"),
        (".nut", "ffv1", "yuv422p10le"),
    ],
)
def test_what_comes_through_is_what_the_file_holds(
    suffix: str, codec: str, pix_fmt: str, tmp_path: Path
) -> None:
    path = videos.make(tmp_path / f"in{suffix}", codec=codec, pix_fmt=pix_fmt, frames=14)
    said = through(path.read_bytes())
    assert rounded(said) == expected(path)
    assert (said["uri"], said["path"], said["files"], said["lost"]) == ("-", None, (), 0)


@pytest.mark.parametrize(
    ("pix_fmt", "words"),
    [("yuv420p10le", "yuv 4:2:0 10 bit"), ("yuv444p12le", "yuv 4:4:4 12 bit"), ("gray", "gray 8 bit"),
     ("yuv422p", "yuv 4:2:2 8 bit"), ("yuv411p", "yuv 4:1:1 8 bit")],
)  # fmt: skip
def test_y4m_of_every_depth(pix_fmt: str, words: str, tmp_path: Path) -> None:
    path = videos.make(
        tmp_path / "in.y4m", codec="wrapped_avframe", pix_fmt=pix_fmt, frames=3,
        container={"strict": "-1"},
    )  # fmt: skip
    said = through(path.read_bytes())
    assert rounded(said) == expected(path)
    assert said["format"] == words


@pytest.mark.parametrize(
    ("stated", "range"), [("FULL", "full"), ("LIMITED", "limited"), ("", "limited")]
)
def test_the_colour_range_of_y4m(stated: str, range: str) -> None:
    header = b"YUV4MPEG2 W16 H8 F30000:1001 Ip A4:3 C420jpeg"
    header += f" XCOLORRANGE={stated}".encode() if stated else b""
    said = through(header + b"\nFRAME\n" + bytes(16 * 8 * 3 // 2))
    assert said["range"] == range
    assert (said["rate"], said["aspect"]) == ("30000/1001", "4/3")


def test_a_cut_y4m_is_damage(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.y4m", codec="wrapped_avframe", frames=5)
    data = path.read_bytes()
    assert through(data)["lost"] == 0
    for cut in (1, 2000):
        said = through(data[:-cut])
        assert len(said["frames"]) == 4
        assert said["lost"] == 1
        assert "cut off" in said["reason"]
        path.write_bytes(data[:-cut])
        with open_source(path) as source:
            assert len(list(source)) == 4
            assert source.damage.lost == 1


def test_a_cut_matroska_is_damage(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", codec="libx264", frames=60)
    data = path.read_bytes()
    said = through(data[: len(data) // 2])
    assert 0 < len(said["frames"]) < 60
    assert said["lost"] > 10


def test_sound_in_a_pipe_is_said_to_be_left_out(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", codec="libx264", tone=True)
    said = through(path.read_bytes())
    assert any("beside the video is left out: audio" in note for note in said["notes"])


def test_what_is_no_video(tmp_path: Path) -> None:
    assert "nothing came through standard input" in through(b"")["error"]
    (tmp_path / "empty").touch()
    for path in (tmp_path / "empty", Path(os.devnull)):
        with path.open("rb") as file:
            assert "nothing came through standard input" in through(None, file.fileno())["error"]
    assert "cannot be read as a video" in through(b"This is not a video.\n" * 500)["error"]


def test_an_mp4_with_its_index_at_the_end_says_why_not(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mp4", codec="libx264", frames=20, size=(160, 120))
    assert "SourceError: " in through(path.read_bytes())["error"]
    front = videos.make(
        tmp_path / "front.mp4", codec="libx264", frames=20, container={"movflags": "+faststart"}
    )
    assert rounded(through(front.read_bytes())) == expected(front)


def test_a_file_that_the_shell_opens_can_be_sought_in(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mp4", codec="libx264", frames=20)
    with path.open("rb") as file:
        assert rounded(through(None, file.fileno())) == expected(path)


def test_a_terminal_is_not_waited_for() -> None:
    ours, theirs = pty.openpty()
    try:
        assert "standard input is a terminal: pipe a video into it" in through(None, theirs)["error"]
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_program_of_its_own(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.y4m", codec="wrapped_avframe", frames=5)
    command = f'"{sys.executable}" -c "$CODE"'
    for redirection, said in (
        (f'cat "{path}" | {command}', {"frames": 5}),
        (f"{command} <&-", "there is no standard input"),
    ):
        done = subprocess.run(
            redirection, shell=True, env={**os.environ, "CODE": READER},
            stdout=subprocess.PIPE, check=True, timeout=60,
        )  # fmt: skip
        found = json.loads(done.stdout)
        assert found == said if isinstance(said, dict) else said in found["error"]


def test_a_named_pipe_is_a_file_that_comes_once(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.mkv", codec="libx264", frames=20)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    with open_source(pipe) as source:
        frames = list(source)
        assert source.info.path is None
        assert source.info.files == ()
        assert not source.damage
    writer.join(10)
    assert not writer.is_alive()
    for frame, luma in zip(frames, videos.read(path).luma, strict=True):
        np.testing.assert_array_equal(frame.planes[0], luma)


def test_frames_come_while_the_pipe_is_open(tmp_path: Path) -> None:
    """A camera never ends: what is there must not wait for what is not."""
    frame = b"FRAME\n" + bytes(64 * 48 * 3 // 2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    seen = threading.Event()
    timely: list[bool] = []

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            file.write(b"YUV4MPEG2 W64 H48 F25:1 Ip C420jpeg\n" + frame * 40)
            timely.append(seen.wait(20))
            file.write(frame * 2)

    writer = threading.Thread(target=write)
    writer.start()
    with open_source(pipe) as source:
        frames = iter(source)
        for _ in range(20):
            next(frames)
        seen.set()
        assert len(list(frames)) == 22
    writer.join(10)
    assert timely == [True]


def test_rates_apply_to_pipes(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.y4m", codec="wrapped_avframe", frames=5)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    with open_source(pipe, rate=Fraction(50)) as source:
        assert len(list(source)) == 10
    writer.join(10)


def test_a_socket_is_no_video(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tmp_path / "s"))
        with pytest.raises(SourceError, match="cannot be read"):
            open_source(tmp_path / "s")


def test_the_library_still_reads_the_same_y4m(tmp_path: Path) -> None:
    path = videos.make(tmp_path / "in.y4m", codec="wrapped_avframe", frames=5)
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5
