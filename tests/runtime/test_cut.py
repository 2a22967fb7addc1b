"""`--start` and `--end`: the frames of the whole run between two moments, beside their own sound."""

import json
import os
import random
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
from velatura.runtime import open_source
from velatura.runtime.errors import SourceError

from . import videos
from .commands import velatura
from .cutting import contents, cut_off, finish, run
from .test_passing import videos_header
from .test_rate_by_ffmpeg import SIDE, make

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
RATE = 48_000
MILLISECOND = Fraction(1, 1000)


def decoded(path: Path, *options: str) -> list[bytes]:
    """The pictures that the command FFmpeg gives, one by one; the sound counts in where 0 is."""
    command = [FFMPEG, "-v", "error", "-i", path, "-map", "0:v:0", *options, "-fps_mode", "passthrough",
               "-pix_fmt", "yuv420p", "-f", "rawvideo", "-",
               "-map", "0:a?", "-f", "null", "-"]  # fmt: skip
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        size = context.width * context.height * 3 // 2
    return [raw[place : place + size] for place in range(0, len(raw), size)]


def heard(path: Path) -> "np.ndarray[Any, np.dtype[np.int16]]":
    """The samples that the command FFmpeg plays, from the time at which the picture begins."""
    command = [FFMPEG, "-v", "error", "-i", path, "-map", "0:a:0",
               "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(RATE),
               "-f", "s16le", "-"]  # fmt: skip
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.int16)


def film(path: Path, *, frames: int = 100, audio: str = "aac", **how: Any) -> Path:
    """Moving pictures with B-frames at 24000/1001, and a sound of which no two moments are alike."""
    samples = np.random.default_rng(7).integers(-9000, 9000, round(frames * RATE * 1001 / 24000))
    samples = np.convolve(samples, np.ones(24) / 24, "same").astype(np.int16)
    with av.open(str(path), "w") as out:
        video = out.add_stream(how.get("codec", "libx264"), rate=Fraction(24000, 1001))
        video.width, video.height, video.pix_fmt = SIDE, SIDE, "yuv420p"
        if video.codec_context.name == "libx264":
            video.options = {"bf": "2", "g": "12", "preset": "ultrafast"}
        sound = out.add_stream(audio, rate=RATE, layout="mono")
        if audio == "aac":
            sound.options = {"aac_pns": "0"}  # noise of the decoder's own is never the same twice
        texts: Any = out.add_stream("subrip") if path.suffix == ".mkv" else None
        if texts is not None:
            texts.codec_context.subtitle_header = videos_header()
        for start in range(0, len(samples), 1000):
            piece = samples[None, start : start + 1000]
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            wanted = av.AudioResampler(format=sound.codec_context.format.name)
            for part in wanted.resample(frame):
                out.mux(sound.encode(part))
        out.mux(sound.encode(None))
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(videos.drawing((SIDE, SIDE), index), format="rgb24")
            picture = picture.reformat(format="yuv420p")
            picture.pts, picture.time_base = index, Fraction(1001, 24000)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        if texts is not None:
            for number, (begin, end) in enumerate(
                [(100, 900), (500, 1500), (1600, 1800), (2200, 3900)]
            ):
                packet = av.Packet(f"line {number}".encode())
                packet.stream, packet.time_base = texts, MILLISECOND
                packet.pts = packet.dts = begin
                packet.duration = end - begin
                out.mux(packet)
            bounds = ((0, 900, "one"), (900, 2100, "two"), (2100, 4000, "three"))
            out.set_chapters([
                {"id": n, "start": a, "end": b, "time_base": MILLISECOND, "metadata": {"title": t}}
                for n, (a, b, t) in enumerate(bounds)
            ])  # fmt: skip
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cut")


@pytest.fixture(scope="module")
def mp4(folder: Path) -> Path:
    return film(folder / "film.mp4")


@pytest.fixture(scope="module")
def mkv(folder: Path) -> Path:
    return film(folder / "film.mkv")


def check(seed: int, folder: Path) -> None:
    """A clip of its seed, cut at two moments of the seed: as FFmpeg cuts it, as the whole has it."""
    path = make(seed, folder)
    rng = random.Random(-seed)
    with open_source(path) as source:
        whole = list(source)
    if len(whole) < 3:
        return
    a, b = sorted(rng.sample(range(len(whole) + 1), 2))
    told = f"seed {seed}: {path.name}, frames {a} to {b} of {len(whole)}"
    with open_source(path, start=f"{a}f", end=f"{b}f") as source:
        numbered = list(source)
    between = whole[a:b]
    assert [frame.planes[0].tobytes() for frame in numbered] == [
        frame.planes[0].tobytes() for frame in between
    ], told
    shift = between[0].pts if a else 0
    assert [frame.pts for frame in numbered] == [frame.pts - shift for frame in between], told
    # A moment between two frames, told in whole milliseconds as players tell it.
    ends = [float(frame.pts * frame.time_base) for frame in whole]
    start, end = (
        f"{ends[n] - 0.4 * (ends[n] - ends[n - 1]):.3f}" if n else "0"
        for n in (a, min(b, len(ends) - 1))
    )
    if not 0 <= float(start) < float(end):
        return
    wanted = decoded(path, "-vf", f"trim=start={start}:end={end}")
    if not wanted:
        return
    with open_source(path, start=start, end=end) as source:
        timed = [frame.planes[0] for frame in source]
    assert len(timed) == len(wanted), told
    grey = [np.frombuffer(one, np.uint8)[: SIDE * SIDE].reshape(SIDE, SIDE) for one in wanted]
    # FFmpeg lays a picture of 4:2:0 out as it is; other formats are not among these clips.
    assert all(
        np.abs(one.astype(int) - two).max() <= 1 for one, two in zip(timed, grey, strict=True)
    ), told


@pytest.mark.parametrize("seed", range(10))
def test_the_frames_are_those_of_ffmpeg_and_of_the_whole(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(10))
def test_the_frames_of_many_clips(block: int, tmp_path: Path) -> None:
    for seed in range(2000 + 40 * block, 2040 + 40 * block):
        check(seed, tmp_path)


@pytest.mark.parametrize(
    ("start", "end", "trim"),
    [
        ("1.001", "3", ("-vf", "trim=start=1.001:end=3")),
        ("0:00:01.2", None, ("-ss", "1.2")),
        ("30f", "61f", ("-vf", "trim=start_frame=30:end_frame=61")),
        (None, "10f", ("-frames:v", "10")),
        ("0", "10f", ("-frames:v", "10")),
        ("99f", None, ("-vf", "trim=start_frame=99")),
    ],
)
def test_a_part_is_bit_for_bit_that_of_the_whole(
    mp4: Path, tmp_path: Path, start: str | None, end: str | None, trim: tuple[str, ...]
) -> None:
    given = [
        word for name, text in (("--start", start), ("--end", end)) if text for word in (name, text)
    ]
    target = tmp_path / "out.mkv"
    velatura("run", mp4, target, "-m", "identity", "--codec", "ffv1", *given, check=True)
    assert decoded(target) == decoded(mp4, *trim)
    times = videos.read(target).seconds
    # Without --start it begins as the whole does: some FFmpegs place the sound's priming before it.
    velatura("run", mp4, tmp_path / "whole.mkv", "-m", "identity", "--codec", "ffv1", check=True)
    whole = videos.read(tmp_path / "whole.mkv").seconds
    assert times[0] == (0 if start not in (None, "0") else whole[0])
    assert np.allclose(np.diff(times), 1001 / 24000, atol=1e-3)
    velatura("verify", mp4, target, *given, check=True)
    velatura("verify", mp4, target, "--deep", *given, check=True)
    assert velatura("verify", mp4, target).returncode == 10
    assert velatura("verify", mp4, target, "--start", "2f", "--end", "20f").returncode == 10


@pytest.mark.parametrize(
    ("source", "sink", "exact"),
    [
        ("film.mp4", "out.mp4", True),  # an edit list says where within a packet it begins
        ("film.mp4", "out.mkv", False),  # whole packets
        ("plain.mov", "out.mkv", True),  # bare samples are cut anywhere
        ("plain.mov", "out.mov", True),
        ("plain.mov", "out.mp4", True),  # AAC is made of it
        ("film.mp4", "out.webm", True),  # and Opus
    ],
)
def test_the_sound_is_cut_with_the_picture(
    mp4: Path, tmp_path: Path, source: str, sink: str, exact: bool
) -> None:
    path = mp4.with_name(source)
    if not path.exists():
        film(path, audio="pcm_s16le")
    target = tmp_path / sink
    velatura(
        "run", path, target, "-m", "identity", "--start", "25f", "--end", "60f",
        *(["--preset", "8"] if sink.endswith("webm") else []), check=True,
    )  # fmt: skip
    whole, part = heard(path).astype(float), heard(target).astype(float)
    begin, length = round(25 * RATE * 1001 / 24000), round(35 * RATE * 1001 / 24000)
    # It ends with the last frame, to a packet; MP4 and Matroska pass a last one that began before.
    assert abs(len(part) - length) <= 1024 + 960
    first = int(np.flatnonzero(part)[0])
    # A packet, and with FFmpeg 8 the 128 samples by which Matroska's rounded times miss its beginning.
    assert first < (60 if exact else 1160)
    middle = slice(4000, length - 4000)
    # Where the sound agrees best with the whole's is where the picture was taken from.
    given = part[middle]
    fits = [float(np.corrcoef(given, whole[begin + late :][middle])[0, 1]) for late in range(-60, 61)]
    # Matroska rounds times to a millisecond; an encoder may shift what it makes by less than that.
    same = sink == "out.mov" or (source, sink) == ("film.mp4", "out.mp4")
    assert abs(int(np.argmax(fits)) - 60) <= (0 if same else 48)
    assert max(fits) > 0.8
    if sink == "out.mp4" and source == "film.mp4":
        again = part[: length - 1024] - whole[begin : begin + length - 1024]
        assert np.abs(again).max() <= 1, "the first samples are whole, too"


@pytest.mark.parametrize(
    ("audio", "source", "sink"),
    [
        ("ac3", "ac3.mkv", "out.mp4"),  # of which FFmpeg forgets what is not to be played
        ("mp2", "mp2.ts", "out.mov"),
        ("aac", "film.mp4", "out.avi"),  # which begins all at once
        ("aac", "film.mp4", "out.ts"),
    ],
)
def test_a_part_holds_what_it_should_in_other_files(
    mp4: Path, tmp_path: Path, audio: str, source: str, sink: str
) -> None:
    path, target = mp4.with_name(source), tmp_path / sink
    if not path.exists():
        film(path, audio=audio)
    for number in (24, 31, 43):  # another part of a packet each
        cut = ("--start", f"{number}f", "--end", "80f")
        velatura("run", path, target, "-m", "identity", "--overwrite", *cut, check=True)
        velatura("verify", path, target, *cut, check=True)


def test_subtitles_and_chapters_are_moved_and_cut(mkv: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    velatura("run", mkv, target, "-m", "identity", "--start", "24f", "--end", "72f", check=True)
    with av.open(str(target)) as container:
        chapters = [(float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]),
                     c["metadata"]["title"]) for c in container.chapters()]  # fmt: skip
        texts = [
            (bytes(p), float(p.pts * p.time_base), float(p.duration * p.time_base))
            for p in container.demux(container.streams.subtitles[0])
            if p.size
        ]
    begin, end = 24 * 1001 / 24000, 72 * 1001 / 24000
    assert [title for *_, title in chapters] == ["two", "three"]
    bounds = [edge for *edges, _ in chapters for edge in edges]
    assert bounds == pytest.approx([0, 2.1 - begin, 2.1 - begin, end - begin], abs=2e-3)
    assert [text for text, *_ in texts] == [b"line 1", b"line 2", b"line 3"]
    assert [at for _, at, _ in texts] == pytest.approx([0, 1.6 - begin, 2.2 - begin], abs=2e-3)
    assert [long for *_, long in texts] == pytest.approx([1.5 - begin, 0.2, end - 2.2], abs=2e-3)


def test_a_part_goes_on_where_it_was_cut_off(mp4: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    source.write_bytes(mp4.read_bytes())
    target, options = tmp_path / "out.mp4", ("--start", "0.9", "--end", "80f")
    cut_off(source, target, "--journal", *options)
    other = run(source, target, "--journal", "--start", "1", "--end", "80f")
    assert other.returncode == 4
    assert "--start" in other.stderr
    # The same moment, in other words.
    assert "going on after 30 frames" in finish(source, target, "--journal", "--start", "0:00:00.900",
                                                "--end", "80f")  # fmt: skip
    resumed = contents(target)
    target.unlink()
    finish(source, target, "--journal", *options)
    assert contents(target) == resumed
    assert len(resumed["frames"]) == 80 - 22
    target.unlink()
    finish(source, target, "--workers", "2", *options)
    assert contents(target) == resumed


def test_a_part_at_another_rate_is_that_of_the_whole(mp4: Path, tmp_path: Path) -> None:
    common = ("-m", "identity", "--codec", "ffv1", "--fps", "30")
    velatura("run", mp4, tmp_path / "whole.mkv", *common, check=True)
    velatura("run", mp4, tmp_path / "part.mkv", *common, "--start", "1", "--end", "60f", check=True)
    assert decoded(tmp_path / "part.mkv") == decoded(tmp_path / "whole.mkv")[30:60]


def test_a_dry_run_and_a_comparison_know_of_it(mp4: Path, tmp_path: Path) -> None:
    told = velatura(
        "run", mp4, tmp_path / "out.mp4", "-m", "identity", "--start", "20f", "--end", "60f",
        "--dry-run", "--json", check=True,
    )  # fmt: skip
    report = json.loads(told.stdout)
    assert report["frames"] == 40
    assert report["duration"] == pytest.approx(40 * 1001 / 24000, abs=2e-3)
    velatura(
        "run", mp4, tmp_path / "out.mkv", "-m", "identity", "--start", "20f", "--end", "60f",
        "--codec", "ffv1", "--compare", tmp_path / "page.html", check=True,
    )  # fmt: skip
    assert "99.0 dB" in (tmp_path / "page.html").read_text(), "each is put beside its own"


def test_a_batch_takes_the_part_of_each(mp4: Path, mkv: Path, tmp_path: Path) -> None:
    del mkv
    for name in ("one", "two"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.mp4").write_bytes(mp4.read_bytes())
    velatura("run", tmp_path / "in", f"{tmp_path}/out/", "-m", "identity", "--end", "9f", check=True)
    for name in ("one", "two"):
        assert len(videos.read(tmp_path / "out" / f"{name}.mp4").luma) == 9


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--start", "100f"), 3, "after the end"),
        (("--start", "1:00"), 3, "after the end"),
        (("--start=-1",), 2, "before the beginning"),
        (("--start", "2", "--end", "1.5"), 2, "lies before --start 2"),
        (("--start", "20f", "--end", "20f"), 2, "is where --start is"),
        (("--start", "50f", "--end", "1"), 3, "no frame of"),
        (("--end", "0"), 2, "leaves nothing"),
        (("--start", "soon"), 2, "no moment"),
        (("--end", "1:75"), 2, "more than 59"),
    ],
    ids=str,
)
def test_moments_that_are_none_are_refused(
    mp4: Path, tmp_path: Path, options: tuple[str, ...], code: int, told: str
) -> None:
    done = velatura("run", mp4, tmp_path / "out.mkv", "-m", "identity", *options)
    assert done.returncode == code
    assert told in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_costs_no_reading(mp4: Path, tmp_path: Path) -> None:
    (tmp_path / "out.mkv").write_text("mine")
    # What lies before --start would have to be decoded to find out that nothing lies behind it.
    done = velatura("run", mp4, tmp_path / "out.mkv", "-m", "identity", "--start", "500f")
    assert done.returncode == 4
    assert "--overwrite" in done.stderr
    assert (tmp_path / "out.mkv").read_text() == "mine"


def test_what_comes_once_is_not_cut(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in ("-", str(tmp_path / "pipe")):
        done = velatura("run", source, tmp_path / "out.mkv", "--start", "1")
        assert done.returncode == 3
        assert "--start and --end are for files" in done.stderr
    done = velatura("live", "camera:0", "null:", "--end", "3")
    assert done.returncode == 2
    assert "--end is for files" in done.stderr
    with pytest.raises(SourceError, match="--start and --end are for files"):
        open_source("-", end="3f")


def test_pictures_and_patterns_are_cut(tmp_path: Path) -> None:
    velatura("run", "pattern:32x24@10?frames=20", tmp_path / "%03d.png", check=True)
    with open_source(tmp_path / "%03d.png", rate=Fraction(10), start="0.5", end="9f") as source:
        assert source.info.frames == 4
        found = list(source)
    with open_source(tmp_path / "%03d.png", rate=Fraction(10)) as source:
        whole = list(source)[5:9]
    assert [f.planes[0].tolist() for f in found] == [f.planes[0].tolist() for f in whole]
    assert [frame.pts for frame in found] == [0, 1, 2, 3]
