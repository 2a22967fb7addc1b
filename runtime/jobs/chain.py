"""The chain of a run, opened from its options: source, engines, stages, and the settings for a
journal."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, cast

from ..backends import Engine, Precision, Progress, open_engine
from ..backends.identity import NAME as IDENTITY
from ..card import CardFlags
from ..sinks.segmented_file import SEGMENT
from ..sources import Source, open_source
from ..stages import Conform, Neural, Resize, Stabilize, Stage, Upright
from .options import Job, rate_of

__all__ = ["Job", "lead_of", "open_engines", "open_input", "settings_of", "stages_of"]


def open_input(job: Job) -> Source:
    """Returns the source with its frames as the models shall see them. Raises SourceError."""
    return open_source(
        job.source,
        rate=rate_of(job.fps),
        deinterlace=job.deinterlace,
        video_stream=job.video_stream,
        audio_stream=job.audio_stream,
    )


def open_engines(
    job: Job, stack: ExitStack, progress: Progress, choices: tuple[tuple[str, str], ...] = ()
) -> list[Engine]:
    """Returns an engine for each model; `choices` are those of `auto` in an earlier run."""
    chosen = choices or (None,) * len(job.models)
    return [
        stack.enter_context(_engine(name, job, progress, choice))
        for name, choice in zip(job.models, chosen, strict=True)
    ]


def stages_of(job: Job, engines: list[Engine], *, segment: int = SEGMENT) -> list[Stage]:
    """Returns the stages that a frame passes through, in order.

    Models see the picture as it is coded, which is how they were trained; --size means the picture that
    --bake has turned upright. With --stabilize, frames of a `segment` do not depend on the process that
    makes them: it processes the `lead_of` frames before the segment first.
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
    """Returns the number of frames before a segment that must be processed, too, so that its own are
    right."""
    return max((stage.overlap for stage in stages if isinstance(stage, Stabilize)), default=0)


def settings_of(job: Job) -> dict[str, Any]:
    """Returns all options that affect the frames, by the names that a user knows."""
    from ..backends.model import find_model, has_int8

    files: dict[str, str] = {}
    for name in job.models:
        if name != IDENTITY:
            kinds = ("fp32", "int8") if has_int8(name) else ("fp32",)
            paths = [find_model(name, precision=kind) for kind in kinds]
            hashes = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths]
            files[f"the file of model {name}"] = " and ".join(hashes)
    return {**files, **job.settings()}


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
