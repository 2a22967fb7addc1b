"""Bad input: one clear line, its own exit code, nothing lost, nothing half-written."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from velatura.runtime.backends import BACKENDS

from . import networks, videos
from .commands import velatura

VELATURA = [sys.executable, "-m", "velatura.runtime"]
SOURCE, SINK, MODEL, ENGINE, TRUNCATED = 3, 4, 5, 6, 8


def complaint(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line that a failed run prints, notes and a slow machine's progress apart."""
    aside = re.compile(r"note: |\d+/\d+ frames, ")
    lines = [line for line in done.stderr.splitlines() if not aside.match(line)]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("velatura: ")
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return videos.make(tmp_path / "in.mkv", frames=10)


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("This is not a video.\n" * 50)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.mp4").write_bytes(random.Random(1).randbytes(5000))
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        videos.add_tone(out, out.add_stream("aac", rate=48_000, layout="stereo"), 0.5)
    target = tmp_path / "out.mp4"
    for name, said in (
        ("none.mp4", "no file at"),
        (".", "is a folder"),
        ("text.mp4", "cannot be opened as a video"),
        ("empty.mp4", "is empty"),
        ("noise.mp4", "cannot be opened as a video"),
        ("sound.mp4", "has no video stream; it holds audio"),
        ("*.png", "no pictures match"),
    ):
        assert said in complaint(velatura("run", tmp_path / name, target), SOURCE), name
    assert not target.exists()


def test_models_that_are_none(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "corrupt.onnx").write_bytes(b"\x08\x07garbage")
    four = networks.model(
        [networks.helper.make_node("Identity", ["image"], ["result"])], {}, [1, 4, "h", "w"]
    )
    networks.write(four, tmp_path / "four.onnx")
    target = tmp_path / "out.mp4"
    for name, said in (
        ("upscale-3x", "did you mean upscale-4x or upscale-2x"),
        (tmp_path / "none.onnx", "no model file at"),
        (tmp_path, "is a folder"),
        (tmp_path / "corrupt.onnx", "not a readable ONNX model"),
        (tmp_path / "four.onnx", "takes 4 channels"),
    ):
        assert said in complaint(velatura("run", clip, target, "-m", name), MODEL), name
    assert not target.exists()
    line = complaint(velatura("run", clip, target, "-m", "upscale-2x", "--backend", "abacus"), ENGINE)
    assert f"there are: auto, {', '.join(BACKENDS)}, identity" in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corrupt.onnx", "four.onnx", "in.mkv"]


def test_outputs_that_cannot_be(clip: Path, tmp_path: Path) -> None:
    existing = tmp_path / "good.mp4"
    existing.write_bytes(b"good")
    (tmp_path / "link.mkv").symlink_to(clip)
    os.link(clip, tmp_path / "hard.mkv")
    before = clip.read_bytes()
    for target, said in (
        (existing, "exists: --overwrite replaces it"),
        (tmp_path / "no" / "out.mp4", "no folder"),
        (tmp_path, "is a folder"),
        (clip, "is the input itself"),
        (tmp_path / "link.mkv", "is the input itself"),
        (tmp_path / "hard.mkv", "is the input itself"),
        (Path("/proc/out.mp4"), ""),
        (tmp_path / "out.txt", "unknown file type"),
        (tmp_path / "out.wav", "cannot hold h264"),
    ):
        line = complaint(velatura("run", clip, target), SINK)
        assert said in line, target
        overwriting = velatura("run", clip, target, "--overwrite")
        if said.startswith("is the input"):
            complaint(overwriting, SINK)
    assert clip.read_bytes() == before
    assert not [p.name for p in tmp_path.iterdir() if "partial" in p.name]


def test_the_input_is_not_written_over_by_a_sequence(tmp_path: Path) -> None:
    import cv2

    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    pattern = tmp_path / "%d.png"
    complaint(velatura("run", pattern, pattern), SINK)
    complaint(velatura("run", pattern, pattern, "--overwrite"), SINK)
    assert cv2.imread(str(tmp_path / "2.png")).max() == 2


def limit_file_size() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_leaves_the_earlier_output(suffix: str, tmp_path: Path) -> None:
    """A limit on the file's size fails as a full disk does: in the middle of writing."""
    source = videos.make(tmp_path / "in.mkv", frames=60, size=(160, 120))
    target = tmp_path / f"out{suffix}"
    target.write_bytes(b"good")
    done = subprocess.run(
        [*VELATURA, "run", str(source), str(target), "--overwrite", "--crf", "1"],
        capture_output=True, text=True, check=False, timeout=120, preexec_fn=limit_file_size,
    )  # fmt: skip
    assert "cannot be written" in complaint(done, SINK)
    assert target.read_bytes() == b"good"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_really_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        source = videos.make(tmp_path / "in.mkv", frames=80, size=(160, 120))
        done = velatura("run", source, disk / "out.mp4", "--crf", 1)
        assert "No space left on device: make room" in complaint(done, SINK)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.quick_rows(3)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 241), (241, 3), (17, 1)])
@pytest.mark.parametrize("models", [("upscale-2x",), ("starry-night", "upscale-2x")])
def test_smallest_and_odd_sizes(size: tuple[int, int], models: tuple[str, ...], tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", size=size, frames=2, pix_fmt="yuv444p")
    options = [option for model in models for option in ("-m", model)]
    done = velatura("run", source, tmp_path / "o.mkv", *options, "--codec", "ffv1")
    assert done.returncode == 0, done.stderr
    found = videos.read(tmp_path / "o.mkv")
    assert (found.width, found.height) == (2 * size[0], 2 * size[1])
    assert len(found.luma) == 2


def test_the_one_pixel_clip(own_clips: Path, tmp_path: Path) -> None:
    done = velatura("run", own_clips / "one_pixel.mp4", tmp_path / "o.mp4", "-m", "upscale-2x")
    assert done.returncode == 0, done.stderr
    assert videos.read(tmp_path / "o.mp4").luma[0].shape == (2, 2)


def cut(path: Path, target: Path, part: float) -> Path:
    """The first `part` of a file's media data: an index at the front is kept whole."""
    data = path.read_bytes()
    start = max(data.find(b"mdat"), 0)
    target.write_bytes(data[: start + int((len(data) - start) * part)])
    return target


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize("name", ["film.mp4", "turned.mp4"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_files_cut_at_random_places(own_clips: Path, name: str, suffix: str, tmp_path: Path) -> None:
    options = {"movflags": "+faststart"} if suffix == ".mp4" else {}
    whole = videos.remux(own_clips / name, tmp_path / f"whole{suffix}", **options)
    total = len(videos.read(whole).luma)
    draw = random.Random(f"{name}{suffix}")
    for number in range(2):
        part = cut(whole, tmp_path / f"cut{number}{suffix}", draw.uniform(0.35, 0.9))
        target = tmp_path / f"out{number}.mkv"
        done = velatura("run", part, target, "--codec", "ffv1")
        if suffix == ".ts":
            # MPEG-TS promises no length: a cut is only seen where it damages a frame.
            assert done.returncode in (0, TRUNCATED), done.stderr
        else:
            line = complaint(done, TRUNCATED)
            assert "frames lost" in line
            kept = len(videos.read(target).luma)
            assert 0 < kept < total
            assert f"holds the {kept} that could be decoded" in line
            tolerated = velatura("run", part, target, "--codec", "ffv1", "--overwrite", "--tolerate")
            assert tolerated.returncode == 0, tolerated.stderr
            assert "tolerated" in tolerated.stderr
        assert not list(tmp_path.glob(".*"))


def test_an_mp4_without_its_index_is_refused(own_clips: Path, tmp_path: Path) -> None:
    """Most cameras write the index last: nothing can be decoded from such a file when it is cut."""
    whole = videos.remux(own_clips / "film.mp4", tmp_path / "whole.mp4")
    part = tmp_path / "cut.mp4"
    part.write_bytes(whole.read_bytes()[:-30_000])
    assert "cut off before its index" in complaint(velatura("run", part, tmp_path / "o.mp4"), SOURCE)


def test_flipped_bytes_are_survived(own_clips: Path, tmp_path: Path) -> None:
    data = bytearray((own_clips / "film.mp4").read_bytes())
    draw = random.Random(5)
    for _ in range(60):
        data[draw.randrange(len(data) // 4, len(data) * 3 // 4)] ^= 1 << draw.randrange(8)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    done = velatura("run", broken, tmp_path / "o.mp4")
    assert done.returncode in (0, TRUNCATED), done.stderr
    assert "Traceback" not in done.stderr
    assert len(videos.read(tmp_path / "o.mp4").luma) > 60


def test_failing_sound_does_not_stop_the_picture(own_clips: Path, tmp_path: Path) -> None:
    done = velatura("run", own_clips / "failing_sound.mp4", tmp_path / "o.mp4", "--frames", 50)
    assert done.returncode == 0, done.stderr


def test_paths_with_spaces_and_letters_of_the_world(clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "été à la mer – 夏.mkv"
    shutil.copy(clip, source)
    target = tmp_path / "Größe & more.mkv"
    assert velatura("run", source, target).returncode == 0
    assert target.exists()


def test_debug_shows_where_it_came_from(tmp_path: Path) -> None:
    done = velatura("run", tmp_path / "none.mp4", tmp_path / "o.mp4", "--debug")
    assert "Traceback" in done.stderr
    assert "SourceError" in done.stderr
