"""Job: the options of one run, and what they open."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal, cast

from ..backends import Building, Engine, Fit, Precision, Progress, open_engine
from ..backends.identity import NAME as IDENTITY
from ..card import CardFlags
from ..sinks import Encoding
from ..sinks.base import Quality
from ..sinks.journalled import SEGMENT
from ..sources import Deinterlace, Source, open_source
from ..stages import Conform, Neural, Resize, Stabilize, Stage, Upright
from .options import rate_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The options of one run."""

    source: str
    sink: str
    models: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    backend: str = "auto"
    precision: Precision = "auto"
    codec: str = "auto"
    quality: Quality = "good"
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    enc: tuple[tuple[str, str], ...] = ()
    """Options of the FFmpeg encoder."""
    fps: str | None = None
    """Of an image sequence; a video file is converted to it."""
    deinterlace: Deinterlace = "auto"
    stabilize: float | None = None
    """How much earlier results count, 0..1; None is not at all."""
    bake: bool = False
    """Turn pictures upright and make pixels square, rather than telling players to."""
    frames: int | None = None
    audio: bool = True
    overwrite: bool = False
    tolerate: bool = False
    value_range: float | None = None
    channels: Literal["rgb", "bgr"] | None = None
    fit: Fit = "tile"
    building: Building = "wait"
    journal: bool | None = None
    """None keeps one where it gains something."""
    restart: bool = False
    workers: int = 1
    """Processes that make segments of the output side by side."""

    @property
    def encoding(self) -> Encoding:
        """How frames are coded."""
        return Encoding(
            codec=self.codec,
            quality=self.quality,
            crf=self.crf,
            preset=self.preset,
            pix_fmt=self.pix_fmt,
            options=self.enc,
        )


def open_input(job: Job) -> Source:
    """The source with its frames as the models shall see them. Raises SourceError."""
    return open_source(job.source, rate=rate_of(job.fps), deinterlace=job.deinterlace)


def open_engines(
    job: Job, stack: ExitStack, progress: Progress, choices: tuple[tuple[str, str], ...] = ()
) -> list[Engine]:
    """An engine for each model; `choices` are what an earlier run's `auto` came to."""
    chosen = choices or (None,) * len(job.models)
    return [
        stack.enter_context(_engine(name, job, progress, choice))
        for name, choice in zip(job.models, chosen, strict=True)
    ]


def stages_of(job: Job, engines: list[Engine], *, segment: int = SEGMENT) -> list[Stage]:
    """What happens to a frame, in order.

    Models see the picture as it is coded, which is how they were trained; --size means the picture that
    --bake has turned upright. With --stabilize, frames of a `segment` are the same whoever makes them:
    those before it, `lead_of` many, come first.
    """
    stages: list[Stage] = [Neural(engine) for engine in engines]
    if job.stabilize:
        stages = [Stabilize(stages, job.stabilize, spell=segment)]
    if job.bake:
        stages.append(Upright())
    if job.size is not None:
        stages.append(Resize(*job.size))
    return [*stages, Conform()]


def lead_of(stages: Sequence[Stage]) -> int:
    """How many frames before a segment must be made, too, for its own to be what they are."""
    return max((stage.overlap for stage in stages if isinstance(stage, Stabilize)), default=0)


def settings_of(job: Job) -> dict[str, Any]:
    """All options that decide what frames come, by the names that a user knows."""
    from ..backends.model import find_model, has_int8

    files: dict[str, str] = {}
    for name in job.models:
        if name != IDENTITY:
            kinds = ("fp32", "int8") if has_int8(name) else ("fp32",)
            paths = [find_model(name, precision=kind) for kind in kinds]
            hashes = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths]
            files[f"the file of model {name}"] = " and ".join(hashes)
    size = f"{job.size[0]}x{job.size[1]}" if job.size else None
    return {
        "-m": list(job.models),
        **files,
        "--size": size,
        "--backend": job.backend,
        "--precision": job.precision,
        "--codec": job.codec,
        "--crf": job.crf,
        "--preset": job.preset,
        "--pix-fmt": job.pix_fmt,
        "--quality": job.quality,
        "--enc": [f"{key}={value}" for key, value in job.enc],
        "--deinterlace": job.deinterlace,
        "--stabilize": job.stabilize,
        "--bake": job.bake,
        "--fps": job.fps,
        "--frames": job.frames,
        "--audio": job.audio,
        "--range": job.value_range,
        "--channels": job.channels,
        "--fit": job.fit,
    }


def _engine(name: str, job: Job, progress: Progress, choice: tuple[str, str] | None) -> Engine:
    # What was measured to be fastest may differ today; frames must not change in the middle of a film.
    backend, precision = choice or (job.backend, job.precision)
    return open_engine(
        name,
        backend if name != IDENTITY else job.backend,
        precision=cast("Precision", precision if name != IDENTITY else job.precision),
        flags=CardFlags(value_range=job.value_range, colour_order=job.channels),
        fit=job.fit,
        building=job.building,
        progress=progress,
    )
