"""Long films and many short ones: nothing grows."""

import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job

from . import videos

MINUTES = 20
RATE = 25
FRAMES = MINUTES * 60 * RATE
STARTING = 5.0
"""Seconds that are no sample of the run itself."""
GROWTH = 6 << 20
"""Bytes by which a process's memory may differ between the second and the last third of a run; about
one MiB was measured."""
ENDING = 40 << 20
"""Bytes that joining the segments and reading the file again may take beside."""


pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")


@dataclass(frozen=True)
class Sample:
    """What a process has at one moment."""

    seconds: float
    """On `time.perf_counter`'s clock."""
    memory: int
    """Resident bytes."""
    files: int
    threads: int


def look(process: int) -> Sample:
    """Raises OSError for a process that has ended."""
    place = Path("/proc") / str(process)
    pages = int((place / "statm").read_text().split()[1])
    return Sample(
        seconds=time.perf_counter(),
        memory=pages * os.sysconf("SC_PAGE_SIZE"),
        files=len(os.listdir(place / "fd")),  # noqa: PTH208 (pathlib would open a file of its own)
        threads=len(os.listdir(place / "task")),  # noqa: PTH208
    )


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty minutes, 30,000 frames, with sound."""
    path = tmp_path_factory.mktemp("long") / "in.mp4"
    rng = np.random.default_rng(0)
    grounds = [rng.integers(40, 120, (64, 96, 3), np.uint8) for _ in range(8)]
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "30"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound = out.add_stream("aac", rate=48_000, layout="mono")
        sound.codec_context.bit_rate = 32_000
        heard = 0
        wave = (0.1 * rng.standard_normal((1, 4096))).astype(np.float32)
        for index in range(FRAMES):
            picture = grounds[index % 8].copy()
            picture[:, index * 3 % 96] = 230
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            out.mux(video.encode(frame))
            while heard < (index + 1) * 48_000 // RATE:
                part = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                part.sample_rate, part.pts, part.time_base = 48_000, heard, Fraction(1, 48_000)
                out.mux(sound.encode(part))
                heard += 4096
        out.mux(video.encode(None))
        out.mux(sound.encode(None))
    return path


def watched(command: list[str]) -> tuple[list[Sample], dict[str, float]]:
    """Run a command, and look at its process ten times a second until it ends."""
    samples: list[Sample] = []
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        while run.poll() is None:
            with suppress(OSError):
                samples.append(look(run.pid))
            time.sleep(0.1)
        out, err = run.communicate()
    assert run.returncode == 0, err
    report = json.loads(out)
    # Starting, and at the end joining segments and reading the file again, are other work.
    ended = begin + report["seconds"]
    return [one for one in samples if begin + STARTING < one.seconds < ended], report


@pytest.mark.soak
@pytest.mark.parametrize("journal", ["--journal", "--no-journal"])
def test_twenty_minutes_take_no_more_than_seven(journal: str, long_film: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    samples, report = watched(
        [sys.executable, "-m", "velatura.runtime", "run", str(long_film), str(target),
         "-m", "identity", "--preset", "ultrafast", journal, "--json"]
    )  # fmt: skip
    assert report["frames_out"] == FRAMES
    assert report["seconds"] < 7 * 60
    third = len(samples) // 3
    assert third >= 6, "too short to tell"
    middle, last = samples[third : 2 * third], samples[2 * third :]
    for early, late, what in (
        (max(s.memory for s in middle) + GROWTH, max(s.memory for s in last), "memory"),
        (max(s.files for s in middle) + 2, max(s.files for s in last), "files"),
        (max(s.threads for s in middle), max(s.threads for s in last), "threads"),
    ):
        assert late <= early, f"{what}: {late} after {early}"
    usual = max(s.memory for s in middle)
    assert report["peak_memory_mib"] * 2**20 < usual + ENDING, "the end takes more than the film"
    with av.open(str(target)) as container:
        (video,), (sound,) = container.streams.video, container.streams.audio
        assert video.frames == FRAMES
        packets = {"video": 0, "audio": 0}
        times = []
        for packet in container.demux(video, sound):
            packets[packet.stream.type] += bool(packet.size)
            if packet.stream is video and packet.pts is not None:
                times.append(float(packet.pts * packet.time_base))
    np.testing.assert_allclose(np.diff(np.sort(times)), 1 / RATE, atol=1e-4)
    assert packets["audio"] == len(videos.audio_packets(long_film))


@pytest.mark.slow
def test_many_short_runs_leave_nothing_behind(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mp4", codec="libx264", tone=True, frames=20)

    def once(number: int) -> None:
        target = tmp_path / f"out.{('mp4', 'mkv')[number % 2]}"
        # A journal each third time.
        job = Job(
            source=str(source), sink=str(target), models=("identity",), overwrite=True,
            journal=number % 3 == 0,
        )  # fmt: skip
        assert run_job(job, quiet=True) == 0

    def held() -> Sample:
        gc.collect()
        # What has been freed and the allocator keeps for later depends on who ran beside whom.
        ctypes.CDLL(None).malloc_trim(0)
        return look(os.getpid())

    for number in range(12):
        once(number)
    seen, own = [held()], threading.active_count()
    for number in range(30):
        once(number)
        if number % 10 == 9:
            seen.append(held())
    assert seen[-1].files == seen[0].files
    assert threading.active_count() == own
    assert seen[-1].threads <= seen[0].threads
    grown = seen[-1].memory - seen[0].memory
    assert grown < 6 << 20, f"{[round(each.memory / 2**20, 1) for each in seen]} MiB"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mkv", "out.mp4"]
