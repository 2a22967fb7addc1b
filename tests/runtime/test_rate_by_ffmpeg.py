"""`--fps` beside the FFmpeg command's own filter, over clips of many kinds, each made from its seed."""

import random
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from velatura.runtime import open_source

KINDS = [
    (".mp4", "libx264"), (".mp4", "libx264"), (".mkv", "libx264"), (".ts", "libx264"),
    (".flv", "libx264"), (".flv", "libx264"), (".mov", "mpeg4"), (".mp4", "mpeg4"), (".avi", "mpeg4"),
    (".mkv", "ffv1"), (".nut", "ffv1"), (".webm", "libvpx-vp9"), (".mp4", "libsvtav1"),
    (".wmv", "wmv2"), (".mkv", "mpeg2video"), (".mpg", "mpeg2video"), (".ts", "mpeg2video"),
    (".ivf", "libvpx-vp9"),
]  # fmt: skip
STEADY = {"mpeg2video", "mpeg4"}
"""Encoders whose time base is one frame."""
SIDE = 32


def make(seed: int, folder: Path) -> Path:
    """A clip with its seed's container, codec, time base, times, beginning, B-frames and sound."""
    rng = random.Random(seed)
    suffix, codec = rng.choice(KINDS)
    rate = rng.choice([Fraction(25), Fraction(30000, 1001), Fraction(15)])
    base = rng.choice([Fraction(1, 1000), Fraction(1, 90000), Fraction(1001, 30000), Fraction(1, 600),
                       Fraction(1, 25)])  # fmt: skip
    rate = Fraction(25) if codec == "mpeg2video" and rate == 15 else rate
    base = 1 / rate if codec in STEADY else base
    step = max(round(1 / rate / base), 1)
    kind = "steady" if suffix in (".avi", ".mpg") else rng.choice(["steady", "variable", "unsteady"])
    late = rng.choice([0, 0, rng.randint(0, 3 * step)]) if suffix != ".avi" else 0
    ticks = [late]
    for _ in range(rng.randint(6 if suffix == ".ts" else 2, 30)):
        wide = rng.randint(1, 4 * step)
        near = max(step + rng.randint(-(step // 4), step // 4), 1)
        ticks.append(ticks[-1] + {"steady": step, "variable": wide, "unsteady": near}[kind])
    # AVI times pictures by their decoding, which FFmpeg then shows a frame late, and we do not.
    behind = "2" if codec == "libx264" and rng.random() < 0.4 else "0"
    sound = suffix in (".mp4", ".mkv", ".ts", ".mov", ".flv") and rng.random() < 0.4
    path = folder / f"{seed}{suffix}"
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options={"bf": behind} if behind != "0" else {})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.codec_context.time_base = base
        heard = out.add_stream("aac", rate=48_000, layout="mono") if sound else None
        if heard is not None:
            silence = np.zeros((1, 1024), np.float32)
            for number in range(20):
                piece = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
                piece.sample_rate, piece.pts = 48_000, 1024 * number
                out.mux(heard.encode(piece))
            out.mux(heard.encode(None))
        for index, pts in enumerate(ticks):
            planes = np.full((SIDE * 3 // 2, SIDE), 128, np.uint8)
            planes[:SIDE] = 20 + 7 * index % 210
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = pts, base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def by_ffmpeg(path: Path, rate: str) -> list[int]:
    """The grey level of each frame that the command gives, with the sound, whose beginning counts."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-map", "0:v:0",
               "-vf", f"fps={rate}", "-fps_mode", "passthrough", "-pix_fmt", "yuv420p",
               "-f", "rawvideo", "-", "-map", "0:a?", "-f", "null", "-"]  # fmt: skip
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, SIDE * 3 // 2, SIDE)
    return frames[:, SIDE // 2, SIDE // 2].astype(int).tolist()


def check(seed: int, folder: Path) -> None:
    path = make(seed, folder)
    rate = random.Random(-seed).choice(["24", "25", "30000/1001", "10", "60", "12", "50", "24000/1001"])
    wanted = by_ffmpeg(path, rate)
    with open_source(path, rate=Fraction(rate)) as source:
        found = [int(frame.planes[0][SIDE // 2, SIDE // 2]) for frame in source]
    told = f"seed {seed}: {path.name} at {rate}"
    # Where FFmpeg leaves nothing of a film, one frame stands for it.
    assert len(found) == max(len(wanted), 1), told
    assert all(abs(one - two) <= 3 for one, two in zip(found, wanted, strict=bool(wanted))), told


@pytest.mark.parametrize("seed", range(24))
def test_the_frames_of_ffmpegs_filter(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(20))
def test_the_frames_of_ffmpegs_filter_over_many_clips(block: int, tmp_path: Path) -> None:
    for seed in range(1000 + 50 * block, 1050 + 50 * block):
        check(seed, tmp_path)
