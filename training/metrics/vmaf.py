"""VMAF, the film industry's measure of a coded video, by an FFmpeg that has it."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Image
from .base import Metric


def ffmpeg() -> str:
    """An FFmpeg with libvmaf: the one of the package imageio-ffmpeg; most distributions' lack it.

    Raises ValueError when that package is missing.
    """
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise ValueError("VMAF needs the package imageio-ffmpeg: pip install it") from error
    package: Any = imageio_ffmpeg
    return str(package.get_ffmpeg_exe())


def vmaf(outputs: Sequence[Image], references: Sequence[Image]) -> float:
    """VMAF (Netflix 2016, the library's own model) of limited-range luma planes, 0..100 at best.

    (H, W) uint8 each, all of one size, of even sides. Motion counts for nothing between stills: each is
    a frame of its own. Raises ValueError for planes of other shapes or without the package, OSError
    with FFmpeg's words where it fails.
    """
    shapes = {plane.shape for plane in (*outputs, *references)}
    if len(shapes) != 1 or len(outputs) != len(references):
        raise ValueError(f"VMAF compares planes of one size, one by one, not {sorted(shapes)}")
    ((height, width),) = shapes
    if height % 2 or width % 2:
        raise ValueError(f"VMAF needs even sides, not {width}x{height}")
    program = ffmpeg()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        gray = np.full((height // 2, width), 128, np.uint8).tobytes()
        given: list[str] = []
        for name, planes in (("output", outputs), ("reference", references)):
            raw = folder / f"{name}.yuv"
            raw.write_bytes(b"".join(plane.tobytes() + gray for plane in planes))
            given += [
                "-f",
                "rawvideo",
                "-pix_fmt",
                "yuv420p",
                "-s",
                f"{width}x{height}",
                "-i",
                str(raw),
            ]
        done = subprocess.run(
            [
                program, "-hide_banner", "-loglevel", "error", *given,
                "-lavfi", "[0:v][1:v]libvmaf=log_fmt=json:log_path=vmaf.json", "-f", "null", "-",
            ],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise OSError(f"FFmpeg cannot compute VMAF: {done.stderr.strip()}")
        report: Any = json.loads((folder / "vmaf.json").read_text())
    return float(report["pooled_metrics"]["vmaf"]["mean"])


def _of_planes(outputs: Sequence[Image], truths: Sequence[Image], border: int) -> float | None:
    del border
    if find_spec("imageio_ffmpeg") is None:
        return None
    return round(vmaf(outputs, [np.ascontiguousarray(truth) for truth in truths]), 2)


METRIC = Metric(
    key="{}_vmaf",
    title="VMAF of luma (Netflix 2016), 100 at best",
    better="higher",
    planes=_of_planes,
)
