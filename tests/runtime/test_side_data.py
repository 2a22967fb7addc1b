"""What a video states beside its pictures arrives, or that it does not is said before work starts.

Clips are edited by hand, and what comes out is told by the FFmpeg command.
"""

import json
import re
import struct
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import pytest
from av.sidedata.sidedata import Type

from . import videos
from .commands import velatura

TURN = struct.pack(">3i", 30 << 16, -(10 << 16), 5 << 16)
HDR_OPTIONS = (
    "log-level=error:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
    "L(10000000,50):max-cll=1000,400"
)


def told(path: Path) -> str:
    """The FFmpeg command's description of a file."""
    done = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", path],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stderr


def box(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + name + data


def with_boxes(path: Path, boxes: bytes) -> Path:
    """The MP4, whose moov is at its end, with boxes at the end of its sample entry."""
    data = bytearray(path.read_bytes())
    entry = data.index(b"stsd") - 4 + 16
    end = entry + int.from_bytes(data[entry : entry + 4], "big")
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"):
        at = data.index(name) - 4
        data[at : at + 4] = struct.pack(">I", int.from_bytes(data[at : at + 4], "big") + len(boxes))
    grown = int.from_bytes(data[entry : entry + 4], "big") + len(boxes)
    data[entry : entry + 4] = struct.pack(">I", grown)
    path.write_bytes(data[:end] + boxes + data[end:])
    return path


def sphere(shape: bytes) -> bytes:
    projection = box(b"proj", box(b"prhd", bytes(4) + TURN) + shape)
    return box(b"sv3d", box(b"svhd", bytes(4) + b"by hand\0") + projection)


EQUIRECTANGULAR = sphere(box(b"equi", bytes(4) + struct.pack(">4I", 0, 0, 1 << 30, 0)))
CUBEMAP = sphere(box(b"cbmp", bytes(12)))
PADDED = sphere(box(b"cbmp", bytes(8) + struct.pack(">I", 2)))


def film(folder: Path, boxes: bytes) -> Path:
    return with_boxes(videos.make(folder / "in.mp4", codec="libx264", size=(96, 64)), boxes)


def run(source: Path, target: Path, *options: object) -> str:
    """What a run says, whose output its own check and `velatura verify` find good."""
    done = velatura("run", source, target, "-m", "identity", *options, check=True)
    return done.stderr


@pytest.mark.parametrize("suffix", ["mp4", "mov", "m4v", "mkv", "webm"])
def test_a_sphere_stays_one(suffix: str, tmp_path: Path) -> None:
    source, target = film(tmp_path, EQUIRECTANGULAR), tmp_path / f"out.{suffix}"
    assert "spherical" not in run(source, target, *(("--journal",) if suffix == "mp4" else ()))
    wanted, found = (
        re.findall(r"Spherical Mapping: tiled equirectangular .*", told(path))
        for path in (source, target)
    )
    assert "(30.000000/-10.000000/5.000000) [33, 0," in wanted[0]
    assert found == wanted
    velatura("verify", source, target, "--deep", check=True)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_cubemap_and_pictures_for_two_eyes(suffix: str, tmp_path: Path) -> None:
    stereo = box(b"st3d", bytes(4) + b"\x01")
    source = film(tmp_path, stereo + CUBEMAP)
    target = tmp_path / f"out.{suffix}"
    notes = run(source, target, "-m", "upscale-2x")
    assert "left out" not in notes
    found = told(target)
    assert "Spherical Mapping: cubemap" in found
    assert "Stereo 3D: top and bottom" in found
    assert "SAR 1:1" in found
    assert "192x128" in found


def test_what_nothing_here_writes_is_said(tmp_path: Path) -> None:
    source = film(tmp_path, PADDED)
    assert "spherical (360 degree) metadata, cubemap, is left out" in run(source, tmp_path / "out.mp4")


@pytest.mark.parametrize("name", ["out.ts", "out.y4m", "%02d.png"])
def test_where_there_is_no_room_it_is_said_before_work(name: str, tmp_path: Path) -> None:
    source = film(tmp_path, EQUIRECTANGULAR + box(b"st3d", bytes(4) + b"\x02"))
    target = tmp_path / name
    lines = [
        line for line in run(source, target).splitlines() if "left out" in line or "side data" in line
    ]
    assert any("spherical" in line for line in lines), lines
    assert any("stereoscopic" in line for line in lines), lines
    report = json.loads(
        velatura("run", source, target, "-m", "identity", "--overwrite", "--json", check=True).stdout
    )
    assert any("spherical" in line for line in report["notes"])
    planned = velatura("run", source, target, "-m", "identity", "--overwrite", "--dry-run", check=True)
    assert "spherical" in planned.stdout + planned.stderr


STEREO = {
    "left_right": ("side by side", ("mkv", "webm", "mp4")),
    "right_left": ("side by side.*inverted", ("mkv", "webm")),
    "row_interleaved_lr": ("interleaved lines", ("mkv",)),
}


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("left_right", "webm"),
        ("left_right", "mp4"),
        ("right_left", "mkv"),
        ("right_left", "mp4"),
        ("row_interleaved_lr", "mkv"),
        ("row_interleaved_lr", "webm"),
    ],
)
def test_the_places_of_two_eyes(mode: str, suffix: str, tmp_path: Path) -> None:
    plain = videos.make(tmp_path / "plain.mkv", codec="libx264", size=(96, 64))
    source, target = tmp_path / "in.mkv", tmp_path / f"out.{suffix}"
    copy = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", plain, "-c", "copy"]
    subprocess.run([*copy, "-metadata:s:v", f"stereo_mode={mode}", source], check=True)
    words, kept = STEREO[mode]
    line = rf"Stereo 3D: {words}"
    assert re.search(line, told(source))
    notes = run(source, target)
    if suffix in kept:
        assert re.search(line, told(target))
        assert "SAR 1:1" in told(target)
        assert "left out" not in notes
    else:
        assert "Stereo" not in told(target)
        assert "that it is stereoscopic" in notes


@pytest.mark.parametrize(
    ("home", "suffix"), [("mov", "mov"), ("mov", "mkv"), ("mkv", "mov"), ("mov", "mp4")]
)
def test_a_timecode_stays(home: str, suffix: str, tmp_path: Path) -> None:
    plain = videos.make(tmp_path / "plain.mkv", codec="libx264", rate=25, tone=True)
    source, target = tmp_path / f"in.{home}", tmp_path / f"out.{suffix}"
    copy = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", plain, "-c", "copy"]
    subprocess.run([*copy, "-timecode", "01:02:03:04", source], check=True)
    notes = run(source, target)
    assert re.search(r"timecode +: 01:02:03:04", told(target), re.IGNORECASE)
    assert "left out" not in notes
    if suffix == "mov":
        assert "tmcd" in told(target)
    velatura("verify", source, target, "--deep", check=True)


def test_a_timecode_that_would_not_fit_is_said(tmp_path: Path) -> None:
    plain = videos.make(tmp_path / "plain.mkv", codec="libx264", rate=25)
    source = tmp_path / "in.mkv"
    copy = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", plain, "-c", "copy"]
    subprocess.run([*copy, "-metadata", "timecode=01:02:03:48", source], check=True)
    assert "it does not fit 25 frames a second" in run(source, tmp_path / "out.mov")
    assert "timecode of the source are left out" in run(source, tmp_path / "fast.mov", "--fps", 50)
    assert ".avi files hold none" in run(source, tmp_path / "out.avi", "--codec", "mpeg4")


def test_the_light_around_the_viewer(tmp_path: Path) -> None:
    source = film(tmp_path, box(b"amve", struct.pack(">IHH", 314_000, 15_635, 16_450)))
    assert "left out" not in run(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        data = next(container.decode(video=0)).side_data.get(Type.AMBIENT_VIEWING_ENVIRONMENT)
    light = struct.unpack("=6i", bytes(data))
    assert float(Fraction(*light[:2])) == pytest.approx(31.4)
    assert float(Fraction(*light[2:4])) == pytest.approx(0.3127)
    assert "viewing environment is left out" in run(source, tmp_path / "out.mkv")


@pytest.mark.parametrize(
    ("name", "codec"), [("out.mkv", "ffv1"), ("out.mov", "prores"), ("out.mp4", "av1")]
)
def test_mastering_and_light_levels_where_the_container_has_room(
    name: str, codec: str, tmp_path: Path
) -> None:
    source = videos.make(
        tmp_path / "in.mp4",
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"x265-params": HDR_OPTIONS, "color_primaries": "bt2020", "color_trc": "smpte2084",
                 "colorspace": "bt2020nc"},
    )  # fmt: skip
    notes = run(source, tmp_path / name, "--codec", codec)
    assert "left out" not in notes
    found = {}
    for path in (source, tmp_path / name):
        with av.open(str(path)) as container:
            sides = next(container.decode(video=0)).side_data
        display = struct.unpack("=22i", bytes(sides.get(Type.MASTERING_DISPLAY_METADATA)))
        pairs = zip(display[:20:2], display[1:20:2], strict=True)
        found[path.name] = [n / d for n, d in pairs]
        light = struct.unpack_from("=2I", bytes(sides.get(Type.CONTENT_LIGHT_LEVEL)))
        found[path.name] += list(light)
    assert found[name] == pytest.approx(found["in.mp4"], abs=2e-4)


TEXT = "CLOSED CAPTIONS"


def pair(one: int, two: int) -> bytes:
    """A pair of CEA-608 of the first field, with odd parity."""
    return b"\xfc" + bytes(b | (0x80 if bin(b).count("1") % 2 == 0 else 0) for b in (one, two))


def captions(number: int) -> bytes:
    """Roll-up captions of the frame: two pairs a frame that spell `TEXT`, and a third that is none."""
    script = [(0x14, 0x25), (0x14, 0x25), (0x14, 0x2D), (0x14, 0x2D), (0x14, 0x70), (0x14, 0x70)]
    letters = TEXT.ljust(16).encode()
    script += list(zip(letters[::2], letters[1::2], strict=True))
    script += [(0x14, 0x2D)] * 2
    given = script[number] if number < len(script) else (0, 0)
    return pair(*given) + b"\xf9\x00\x00"


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return broadcast(tmp_path_factory.mktemp("captions") / "in.ts")


def broadcast(path: Path, *, begin: int = 0) -> Path:
    """MPEG-2 with captions in its user data, from the frame `begin` on."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("mpeg2video", rate=25, options={"bf": "2", "g": "10", "b": "2000000"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        for index in range(50):
            image = av.VideoFrame.from_ndarray(videos.drawing((96, 64), index), format="rgb24")
            image = image.reformat(format="yuv420p")
            image.pts, image.time_base = index, Fraction(1, 25)
            out.mux([captioned_packet(p, begin) for p in video.encode(image)])
        out.mux([captioned_packet(p, begin) for p in video.encode(None)])
    return path


def captioned_packet(packet: av.Packet, begin: int) -> av.Packet:
    data = bytes(packet)
    number = round(packet.pts * packet.time_base * 25)
    if number < begin:
        return packet
    said = captions(number)
    user = b"\0\0\1\xb2GA94\x03" + bytes([0x40 | len(said) // 3, 0xFF]) + said + b"\xff"
    at = data.index(b"\0\0\1\1")  # the first slice
    made = av.Packet(data[:at] + user + data[at:])
    made.stream, made.time_base = packet.stream, packet.time_base
    made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
    made.is_keyframe = packet.is_keyframe
    return made


def spoken(path: Path) -> str:
    """The captions, as the FFmpeg command reads them."""
    name = str(path).replace("\\", "/").replace(":", "\\:")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i",
               f"movie={name}[out+subcc]", "-map", "0:s", "-f", "srt", "-"]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("out.mp4", ("--codec", "h264")),
        ("out.mkv", ("--codec", "h264", "--journal")),
        ("out.ts", ("--codec", "h264", "-m", "upscale-2x")),
        ("out.mp4", ("--codec", "hevc")),
        ("out.mkv", ("--codec", "hevc", "--journal")),
    ],
)
def test_closed_captions_come_with_their_pictures(
    name: str, options: tuple[str, ...], captioned: Path, tmp_path: Path
) -> None:
    target = tmp_path / name
    assert "captions" not in run(captioned, target, *options)
    assert TEXT in spoken(captioned)
    assert TEXT in spoken(target)
    assert by_frames(target) == by_frames(captioned)


def by_frames(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(f.side_data.get(Type.A53_CC) or b"") for f in container.decode(video=0)]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("out.webm", (), "vp9 does not carry them"),
        ("out.mkv", ("--codec", "ffv1"), "ffv1 does not carry them"),
        ("out.y4m", (), "hold no side data"),
        ("out.mp4", ("--fps", 50), "captions of the source are left out"),
    ],
)
def test_captions_that_go_are_said(
    name: str, options: tuple[str, ...], words: str, captioned: Path, tmp_path: Path
) -> None:
    assert words in run(captioned, tmp_path / name, *options)


@pytest.mark.parametrize("journal", ["--journal", "--no-journal"])
def test_captions_that_begin_late_are_kept_or_said(journal: str, tmp_path: Path) -> None:
    late = broadcast(tmp_path / "in.ts", begin=20)
    assert "captions" not in run(late, tmp_path / "out.mp4", journal)
    assert by_frames(tmp_path / "out.mp4") == by_frames(late)
    assert "ffv1 does not carry them" in run(late, tmp_path / "out.mkv", "--codec", "ffv1", journal)


def test_grain_that_is_drawn_by_the_decoder_is_said(tmp_path: Path) -> None:
    """As AV1 from cameras and streams has it: the pictures that come out have it in their pixels."""
    made: Callable[..., Path] = videos.make
    plain = made(tmp_path / "plain.mp4", codec="libsvtav1", options={"preset": "12"})
    grainy = made(
        tmp_path / "grainy.mp4",
        codec="libsvtav1",
        options={"preset": "8", "svtav1-params": "film-grain=30"},
    )
    assert "film grain" not in run(plain, tmp_path / "one.mp4")
    assert "film grain" in run(grainy, tmp_path / "two.mp4")
