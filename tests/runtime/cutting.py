"""Runs of the command that are cut off, and what came of them."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from velatura.runtime.sinks import segmented_file

from . import videos
from .commands import velatura

SINK, INTERRUPTED = 4, 130
FRAMES = 64
SHORT = "import velatura.runtime.sinks.segmented_file as j; j.SEGMENT = 10"
MAIN = "from velatura.runtime.__main__ import main; main()"

DIE = "import os, signal; die = lambda: os.kill(os.getpid(), signal.SIGKILL)"
DIE_AFTER_SEGMENTS = f"""
{DIE}
import velatura.runtime.resume.journal as jj
keep = jj.Journal.keep
def kept(self, *a, **k):
    found = keep(self, *a, **k)
    if len(self.segments) == {{0}}: die()
    return found
jj.Journal.keep = kept
"""
DIE_AT_CALL = f"""
{DIE}
import pathlib
calls = 0
def counted(inner):
    def call(*a, **k):
        global calls
        for half in (0, 1):
            calls += 1
            if calls == {{0}}: die()
            if not half: result = inner(*a, **k)
        return result
    return call
os.fsync = counted(os.fsync)
for name in ("replace", "unlink", "rmdir", "mkdir"):
    setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
"""


def command(source: Path, target: Path, *options: object, before: str = "") -> list[str]:
    arguments = ["run", source, target, "-m", "identity", *options]
    code = f"{before}\n{SHORT}\n{MAIN}"
    return [sys.executable, "-c", code, *map(str, arguments)]


def run(
    source: Path, target: Path, *options: object, before: str = "", **how: Any
) -> subprocess.CompletedProcess[str]:
    """In a process of its own where something is done `before`, or to the process."""
    if not before and not how:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(segmented_file, "SEGMENT", 10)
            return velatura("run", source, target, "-m", "identity", *options)
    return subprocess.run(
        command(source, target, *options, before=before),
        capture_output=True, text=True, check=False, timeout=120, **how,
    )  # fmt: skip


def cut_off(source: Path, target: Path, *options: object, segments: int = 3) -> None:
    """A run that dies just after so many segments."""
    done = run(source, target, *options, before=DIE_AFTER_SEGMENTS.format(segments))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert journal(target).is_dir()


def finish(source: Path, target: Path, *options: object, alone: bool = True) -> str:
    """The same command again; its standard error."""
    done = run(source, target, *options)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if alone:
        assert names(target.parent) == sorted([source.name, target.name])
    return done.stderr


def journal(target: Path) -> Path:
    return target.with_name(f".{target.name}.journal")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def contents(path: Path) -> dict[str, Any]:
    """All decoded frames with their times, all packets of the sound, and what the header says."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [
            (
                float(frame.pts * frame.time_base),
                hashlib.sha256(b"".join(bytes(videos.plane(frame, i)) for i in range(3))).hexdigest(),
            )
            for frame in container.decode(stream)
        ]
        header = (stream.width, stream.height, stream.codec_context.name, stream.pix_fmt,
                  stream.average_rate, stream.duration, stream.frames)  # fmt: skip
        duration = container.duration
    with av.open(str(path)) as container:
        sound = [
            (p.pts, p.dts, p.duration, hashlib.sha256(bytes(p)).hexdigest())
            for stream in container.streams.audio[:1]
            for p in container.demux(stream)
            if p.size
        ]
    return {"frames": frames, "header": header, "duration": duration, "sound": sound}
