"""Refusals by name: encrypted films, and values that an encoder does not take."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from . import videos
from .commands import velatura

KEYS = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "76a6c65c5ea762046bd749a2e632ccbb",
        "-encryption_kid", "a7e61c373e219033c21091fa607bf3b8")  # fmt: skip


def mp4(folder: Path) -> Path:
    plain, path = videos.make(folder / "plain.mp4", codec="libx264"), folder / "in.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", plain, "-c", "copy", *KEYS, path]
    subprocess.run(command, check=True)
    return path


def ts(folder: Path) -> Path:
    """Packets of the video, whose payload is scrambled, as their heads say."""
    path = videos.make(folder / "in.ts", codec="libx264", frames=30, size=(96, 64))
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 188):
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == 0x100:
            begin = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
            data[at + 3] |= 0x80
            data[begin : at + 188] = bytes(byte ^ 0x5A for byte in data[begin : at + 188])
    path.write_bytes(data)
    return path


def vob(folder: Path) -> Path:
    path = videos.make(folder / "in.vob", codec="mpeg2video", frames=30, size=(96, 64))
    data, at = bytearray(path.read_bytes()), 0
    while (at := data.find(b"\0\0\1\xe0", at)) >= 0:
        begin, end = at + 9 + data[at + 8], at + 6 + int.from_bytes(data[at + 4 : at + 6])
        data[at + 6] |= 0x10
        data[begin:end] = bytes(byte ^ 0x5A for byte in data[begin:end])
        at = end
    path.write_bytes(data)
    return path


def element(name: str, data: bytes) -> bytes:
    return bytes.fromhex(name) + (len(data) | 0x4000).to_bytes(2) + data


def mkv(folder: Path) -> Path:
    """The element of its encryption stands where a title was."""
    path, title = folder / "in.mkv", "t" * 80
    plain = videos.make(folder / "plain.mkv", codec="libx264")
    name = ["-metadata:s:v", f"title={title}"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", plain, "-c", "copy", *name, path]
    subprocess.run(command, check=True)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x53\x6e\xd0" + title.encode())
    cipher = element("5035", element("47e1", b"\5") + element("47e2", b"0123456789abcdef"))
    found = element("6d80", element("6240", element("5033", b"\1") + cipher))
    rest = 83 - len(found)
    data[at : at + 83] = found + b"\xec" + bytes([0x80 | rest - 2]) + bytes(rest - 2)
    cluster = data.index(b"\x1f\x43\xb6\x75")
    data[cluster + 40 :] = bytes(byte ^ 0x5A for byte in data[cluster + 40 :])
    # The sum of the changed header's bytes: an unknown element in its place.
    for name in (b"\x16\x54\xae\x6b",):
        place = data.index(name)
        crc = data.index(b"\xbf\x84", place)
        data[crc] = 0xEC
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [(mp4, "Common Encryption"), (ts, "scrambling of MPEG-TS"), (vob, "CSS"), (mkv, "Matroska")],
)
def test_encryption_is_named(make: object, words: str, tmp_path: Path) -> None:
    assert callable(make)
    done = velatura("run", make(tmp_path), tmp_path / "out.mkv", "-m", "identity")
    assert done.returncode == 3
    assert "is encrypted" in done.stderr
    assert words in done.stderr
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--enc", "preset=quick"), "h264 takes ultrafast, superfast"),
        (("--enc", "tune=zz"), "h264 takes film, animation"),
        (("--enc", "profile=zz"), "h264 takes baseline, main"),
        (("--enc", "crf=abc"), "h264 takes -1 to"),
        (("--enc", "aq-mode=zz"), "none, variance"),
        (("--codec", "hevc", "--enc", "tune=film"), "hevc takes psnr, ssim"),
        (("--codec", "av1", "--preset", "zz"), "av1 takes -2 to 13"),
        (("--codec", "vp9", "--enc", "cpu-used=99"), "vp9 takes -8 to 8"),
        (("--codec", "vp9", "--enc", "deadline=zz"), "vp9 takes best, good, realtime"),
        (("--codec", "vp9", "--preset", "40"), "vp9 takes -8 to 8"),
    ],
)
def test_a_wrong_value_is_refused_with_those_there_are(
    options: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    source = videos.make(tmp_path / "in.mkv")
    done = velatura("run", source, tmp_path / "out.mkv", "-m", "identity", *options)
    assert done.returncode == 4
    assert words in done.stderr
    assert "rror setting" not in done.stderr
    assert "[error]" not in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("tune=film,zerolatency",), ("b=2M",), ("crf=18.5",), ("profile=high",), ("aq-mode=variance",),
        ("mixed-refs=true",), ("g=max",), ("flags=+cgop",),
    ],
)  # fmt: skip
def test_what_ffmpeg_takes_is_taken(options: tuple[str, ...], tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", frames=4)
    given = [word for option in options for word in ("--enc", option)]
    velatura(
        "run", source, tmp_path / "out.mkv", "-m", "identity", "--codec", "h264", *given, check=True
    )
