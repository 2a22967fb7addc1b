"""What surrounds a model: a run with the identity beside PyAV's own decode and encode, and what of the
pixels arrives."""

import contextlib
import hashlib
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
from av.video.frame import PictureType
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job
from velatura.runtime.media.encode import VideoEncoder
from velatura.runtime.sinks import Encoding
from velatura.runtime.sinks.output_file import OutputFile

from .machine import spread
from .quality import ROOT

CLIPS = {"bigbuckbunny.mp4": (60, 3), "rabbit.mp4": (20, 5), "shooter_gameplay.mp4": (24, 5)}
"""Seconds to which each is repeated, and rounds; the first has 720 lines."""
BOUND = 1.25
FORMATS = (
    *(f"yuv{c}p{bits}" for bits in ("", "9le", "10le", "12le", "16le") for c in (420, 422, 444)),
    "yuv440p", "yuv411p", "gray", "gray10le", "gray12le", "gray16le", "rgb24", "gbrp10le", "rgb48le",
)  # fmt: skip
RANGES = {"limited": 1, "full": 2}


def measure() -> dict[str, Any]:
    """Both parts; raises FileNotFoundError without the data folder."""
    folder = ROOT / "clips"
    if not folder.is_dir():
        raise FileNotFoundError(f"no clips at {folder}: set VELATURA_DATA")
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        cost = {name: compare(folder / name, out, *how) for name, how in CLIPS.items()}
        return {"bound": BOUND, "cost": cost, "round_trip": list(round_trips(out))}


# ---- cost -----------------------------------------------------------------------------------------


def compare(clip: Path, folder: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Wall and CPU seconds of each way, in rounds that pass all in turn, and ratios round by round."""
    source, target = folder / "source.mp4", folder / "target.mp4"
    frames = repeat_film(clip, source, seconds)
    parts: list[dict[str, float]] = []
    ways: dict[str, Callable[[], None]] = {
        "pyav": lambda: plain(source, target),
        "velatura": lambda: velatura(source, target, journal=None, parts=parts),
        "velatura --no-journal": lambda: velatura(source, target, journal=False, parts=None),
    }
    coded: dict[str, str] = {}
    # Wall times are worth nothing where others work: the CPU's are.
    busy = os.getloadavg()[0]
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        # Each in each place, so that none always follows the same.
        names = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        for name in names:
            target.unlink(missing_ok=True)
            start, used = time.perf_counter(), time.process_time()
            ways[name]()
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - used)
            coded[name] = coded_hash(target)
    with av.open(str(source)) as container:
        video = container.streams.video[0]
        size, length = f"{video.width}x{video.height}", float(container.duration or 0) / av.time_base
    return {
        "size": size,
        "frames": frames,
        "load_average": [round(busy, 1), round(os.getloadavg()[0], 1)],
        "seconds_of_film": round(length, 2),
        "encoder": {"libx264": encoder_options()},
        "wall_seconds": {name: spread(found) for name, found in wall.items()},
        "cpu_seconds": {name: spread(found) for name, found in cpu.items()},
        "wall_over_pyav": _ratios(wall),
        "cpu_over_pyav": _ratios(cpu),
        "same_packets_without_journal": coded["pyav"] == coded["velatura --no-journal"],
        "parts_seconds": {
            part: round(statistics.median(one[part] for one in parts), 3) for part in parts[0]
        },
    }


def _ratios(found: dict[str, list[float]]) -> dict[str, Any]:
    base = found["pyav"]
    return {
        name: spread([a / b for a, b in zip(values, base, strict=True)])
        for name, values in found.items()
        if name != "pyav"
    }


def encoder_options() -> dict[str, str]:
    """What a run that is told nothing gives to libx264."""
    return dict(VideoEncoder(Encoding(codec="h264"), suffix=".mp4")._options)


def plain(source: Path, target: Path) -> None:
    """The loop that a user of PyAV writes: decode, encode, copy the sound."""
    with (
        av.open(str(source)) as given,
        av.open(str(target), "w", options={"movflags": "+faststart"}) as out,
    ):
        video: Any = given.streams.video[0]
        video.thread_type = "AUTO"
        coded: Any = out.add_stream("libx264", rate=video.average_rate, options=encoder_options())
        context, before = coded.codec_context, video.codec_context
        coded.width, coded.height, coded.pix_fmt = before.width, before.height, before.pix_fmt
        context.time_base, context.thread_type = video.time_base, "AUTO"
        context.sample_aspect_ratio = video.sample_aspect_ratio or Fraction(1)
        for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
            setattr(context, name, getattr(before, name))
        sounds = {s.index: out.add_stream_from_template(s) for s in given.streams.audio}
        for packet in given.demux(video, *given.streams.audio):
            if packet.stream is not video:
                if packet.size:
                    packet.stream = sounds[packet.stream.index]
                    out.mux(packet)
                continue
            for frame in packet.decode():
                # Else key frames would stand where the source has them.
                frame.pict_type = PictureType.NONE
                out.mux(coded.encode(frame))
        out.mux(coded.encode(None))


def velatura(
    source: Path, target: Path, *, journal: bool | None, parts: list[dict[str, float]] | None
) -> None:
    """One run in this process; where its time went is added to `parts`."""
    spent = {"read": 0.0, "identity": 0.0, "write": 0.0, "proof": 0.0}
    prove = OutputFile.prove

    def timed(self: OutputFile, **what: Any) -> None:
        start = time.perf_counter()
        prove(self, **what)
        spent["proof"] += time.perf_counter() - start

    job = Job(
        source=str(source), sink=str(target), models=("identity",), overwrite=True, journal=journal
    )
    said = io.StringIO()
    with mock.patch.object(OutputFile, "prove", timed), contextlib.redirect_stdout(said):
        code = run_job(job, as_json=True)
    if code != 0:
        raise RuntimeError(f"exit code {code} for {source}")
    report = json.loads(said.getvalue().splitlines()[-1])
    for name, found in report["stages_ms"].items():
        part = name if name in spent else "identity" if "identity" in name else "other stages"
        spent[part] = spent.get(part, 0.0) + found["total"] / 1e3
    if parts is not None:
        parts.append(spent)


def repeat_film(clip: Path, target: Path, seconds: float) -> int:
    """The same packets again and again, for at least so long; how many frames that are."""
    frames = 0
    with av.open(str(target), "w") as out:
        streams: dict[int, Any] = {}
        begin = Fraction(0)
        for turn in count():
            if begin >= seconds:
                return frames
            with av.open(str(clip)) as given:
                kept = [s for s in given.streams if s.type in ("video", "audio")]
                if turn == 0:
                    streams = {s.index: out.add_stream_from_template(s) for s in kept}
                length = Fraction(0)
                for packet in given.demux(*kept):
                    if not packet.size or packet.is_discard:
                        continue
                    frames += packet.stream.type == "video"
                    length = max(length, (packet.pts + packet.duration) * packet.time_base)
                    shift = round(begin / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
                begin += length
    return frames


def coded_hash(path: Path) -> str:
    """Of the video's packets."""
    found = hashlib.sha256()
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            found.update(bytes(packet))
    return found.hexdigest()


# ---- round trip -----------------------------------------------------------------------------------


def round_trips(folder: Path) -> Iterator[dict[str, Any]]:
    """Every kind of picture through a run into FFV1, against what went in."""
    for name in FORMATS:
        rgb = name.startswith(("rgb", "gbr"))
        for range_name, code in RANGES.items():
            if rgb and range_name == "limited":
                continue
            source, target = folder / "in.mkv", folder / "out.mkv"
            given = noise_film(source, name, code)
            job = Job(
                source=str(source), sink=str(target), models=("identity",), codec="ffv1", overwrite=True
            )
            if run_job(job, quiet=True) != 0:
                raise RuntimeError(f"{name} did not pass")
            with av.open(str(target)) as container:
                found = list(container.decode(video=0))
            row: dict[str, Any] = {
                "pixels": name,
                "bits": given[0].format.components[0].bits,
                "range": range_name,
                "output": found[0].format.name,
                "frames": len(found),
            }
            if rgb:
                wanted = np.stack([frame.to_ndarray(format="rgb48le") for frame in given]) / 65535
                away = np.abs(np.stack([_rgb(frame) for frame in found]) - wanted).max()
                row["largest_rgb_difference_of_255"] = round(float(away) * 255, 3)
            else:
                row["largest_luma_difference"] = _largest(_plane(given, 0), _plane(found, 0))
                if len(given[0].format.components) == 3 == len(found[0].format.components):
                    row["largest_chroma_difference"] = max(
                        _largest(_plane(given, n), _plane(found, n)) for n in (1, 2)
                    )
            yield row


def noise_film(path: Path, name: str, range_code: int, size: tuple[int, int] = (64, 48)) -> list[Any]:
    """A few frames of noise that has every value of the depth, also those outside of the range."""
    rng = np.random.default_rng(0)
    frames: list[Any] = []
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("ffv1", rate=25, options={"strict": "experimental"})
        stored = {"rgb24": "bgr0"}.get(name, name)
        video.width, video.height, video.pix_fmt = *size, stored
        video.codec_context.color_range = range_code
        for index in range(3):
            frame = av.VideoFrame(*size, name)
            bits = frame.format.components[0].bits
            for plane in frame.planes:
                kind = np.uint8 if bits == 8 else np.uint16
                samples = np.frombuffer(plane, kind)
                samples[:] = rng.integers(0, 1 << bits, samples.size, kind)
            frame.color_range = range_code
            frame = frame if stored == name else frame.reformat(format=stored)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            frames.append(frame)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return frames


def _plane(frames: list[Any], number: int) -> np.ndarray:
    bits = frames[0].format.components[number].bits
    rows = [np.frombuffer(f.planes[number], np.uint8 if bits == 8 else np.uint16) for f in frames]
    width = frames[0].planes[number].width
    return np.stack([r.reshape(frames[0].planes[number].height, -1)[:, :width] for r in rows])


def _rgb(frame: Any) -> np.ndarray:
    """R, G, B from 0 to 1 of a frame in limited 4:4:4, by ITU-R BT.709's or BT.601's formula."""
    bits = frame.format.components[0].bits
    scale = 1 << (bits - 8)
    luma, blue, red = (_plane([frame], n)[0].astype(np.float64) / scale for n in range(3))
    luma, blue, red = (luma - 16) / 219, (blue - 128) / 224, (red - 128) / 224
    kr, kb = (0.2126, 0.0722) if int(frame.colorspace) == 1 else (0.299, 0.114)
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    return np.clip(np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], 2), 0, 1)


def _largest(wanted: np.ndarray, given: np.ndarray) -> int:
    if wanted.shape != given.shape:
        raise RuntimeError(f"{given.shape} came of {wanted.shape}")
    return int(np.abs(wanted.astype(np.int64) - given.astype(np.int64)).max())
