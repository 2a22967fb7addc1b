"""Sound that a file cannot hold as it is: converted, in time, and said; never a hint in a circle."""

from pathlib import Path

import av
import numpy as np
import pytest
from velatura.runtime import SinkError
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job

from . import videos
from .commands import velatura

RATE = 48_000
BEEP = 0.5
"""Seconds at which the sound begins."""


def film(path: Path, codec: str, *, rate: int = RATE, layout: str = "stereo") -> Path:
    """A second of pictures, and of a tone that begins in the middle, in a container that holds both."""
    plain = videos.make(path.with_name("plain.mkv"), codec="libx264", frames=25)
    channels = 1 if layout == "mono" else 2
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(given.streams.video[0])
        sound = out.add_stream(codec, rate=rate, layout=layout)
        times = np.arange(rate) / rate
        tone = (8000 * np.sin(2 * np.pi * 440 * times) * (times >= BEEP)).astype(np.int16)
        for begin in range(0, rate, 1000):
            piece = np.repeat(tone[None, begin : begin + 1000], channels, 0)
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(piece.T).reshape(1, -1), format="s16", layout=layout
            )
            frame.sample_rate, frame.pts = rate, begin
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
    return path


def heard(path: Path) -> tuple[str, float, float]:
    """Codec, the time at which the tone begins, and the end of the sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        begins, end = None, 0.0
        for frame in container.decode(stream):
            samples = frame.to_ndarray().astype(float)
            if not frame.format.is_planar:
                samples = samples.reshape(-1, len(frame.layout.channels)).T
            scale = 1.0 if frame.format.name.startswith("flt") else 32768.0
            loud = np.abs(samples[0]) / scale > 0.1
            at = float(frame.pts * frame.time_base)
            if begins is None and loud.any():
                begins = at + int(loud.argmax()) / frame.sample_rate
            end = at + frame.samples / frame.sample_rate
        assert begins is not None
        return stream.codec_context.codec.canonical_name, begins, end


CASES = [
    ("in.mkv", "pcm_s16le", ".webm", "opus"), ("in.mov", "pcm_s8", ".mkv", "aac"),
    ("in.mov", "pcm_alaw", ".mp4", "aac"), ("in.mov", "pcm_mulaw", ".mkv", "aac"),
    ("in.mkv", "flac", ".ts", "aac"), ("in.mkv", "aac", ".webm", "opus"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "codec", "suffix", "becomes"), CASES)
def test_it_is_converted_in_time(
    name: str, codec: str, suffix: str, becomes: str, tmp_path: Path
) -> None:
    source, target = film(tmp_path / name, codec), tmp_path / f"out{suffix}"
    done = velatura("run", source, target, check=True)
    assert f"is converted to {'libopus' if becomes == 'opus' else becomes}" in done.stderr
    found, begins, end = heard(target)
    assert found == becomes
    with av.open(str(target)) as container:
        shift = float((container.start_time or 0) / av.time_base) if suffix == ".ts" else 0.0
    assert abs(begins - shift - BEEP) < 0.03
    assert abs(end - shift - 1.0) < 0.06
    assert velatura("verify", source, target).returncode == 0


@pytest.mark.parametrize(("wanted", "becomes"), [("opus", "opus"), ("flac", "flac"), ("aac", "aac")])
def test_what_it_becomes_can_be_chosen(wanted: str, becomes: str, tmp_path: Path) -> None:
    source = film(tmp_path / "in.mov", "pcm_mulaw", rate=8000, layout="mono")
    velatura(
        "run",
        source,
        tmp_path / "o.mkv",
        "--audio-codec",
        wanted,
        "--audio-bitrate",
        24_000,
        check=True,
    )
    found, begins, end = heard(tmp_path / "o.mkv")
    assert found == becomes
    assert abs(begins - BEEP) < 0.03
    assert abs(end - 1.0) < 0.14


def test_what_can_be_copied_is(tmp_path: Path) -> None:
    source = film(tmp_path / "in.mkv", "aac")
    done = velatura("run", source, tmp_path / "o.mp4", "--audio-codec", "opus", check=True)
    assert "converted" not in done.stderr
    assert heard(tmp_path / "o.mp4")[0] == "aac"


def test_a_refusal_names_what_helps(tmp_path: Path) -> None:
    """Not another kind of file, which may refuse it, too."""
    source = film(tmp_path / "in.mkv", "pcm_s16le")
    job = Job(source=str(source), sink=str(tmp_path / "o.webm"), audio_codec="aac")
    told = r"cannot hold pcm_s16le audio, nor what --audio-codec aac makes of it: use --no-audio"
    with pytest.raises(SinkError, match=told):
        run_job(job, quiet=True)
    assert not (tmp_path / "o.webm").exists()
    assert run_job(Job(source=str(source), sink=str(tmp_path / "o.webm"), audio=False), quiet=True) == 0


def test_sound_that_falls_back_goes_on(tmp_path: Path) -> None:
    """Two recordings joined, whose clock begins anew in the middle, with sound to be converted."""
    part = film(tmp_path / "part.ts", "mp2")
    joined = tmp_path / "in.ts"
    joined.write_bytes(part.read_bytes() * 2)
    velatura("run", joined, tmp_path / "o.webm", check=True)
    codec, begins, end = heard(tmp_path / "o.webm")
    assert codec == "opus"
    assert abs(begins - BEEP) < 0.05
    assert abs(end - 2.0) < 0.15
