"""`velatura run --dry-run`: the expected time and size of a run, estimated from a sample of it."""

import json
import re
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import typer

from ..backends import Engine
from ..errors import SinkError, SourceError, VelaturaError
from ..frame import Frame, VideoInfo
from ..meter import peak_memory
from ..resume.journal import journal_folder
from ..sinks import Sink, open_sink
from ..sinks.base import PICTURES
from ..sinks.output_file import check_target
from ..sources import Source
from .chain import Job, open_engines, open_input, settings_of, stages_of
from .compare import Pair, check_comparison, joined, labelled, rgb8, same_size, shown_at, write_png
from .dry_run_estimate import (
    Coded,
    Estimate,
    Packet,
    forecast_bytes,
    forecast_seconds,
    lines_of,
    passing_bytes,
    read_coded,
    shortage_of,
    weights_of,
)
from .dry_run_sample import Sample, film_frames, film_seconds, take_sample
from .progress import BuildView, Reporter
from .run import journals, terminable

BUDGET = 10.0
"""Seconds of work that the sample may take."""

NO_ROOM = SinkError.exit_code
ROOM = 2 << 30
"""Bytes that the folder for temporary files should have free."""


def run_preflight(
    job: Job,
    comparison: Path | None = None,
    *,
    quiet: bool = False,
    as_json: bool = False,
    budget: float = BUDGET,
) -> int:
    """Tries the job on a sample, reports the estimates for the whole, and writes nothing at its sink.

    `budget` is the seconds that the sample may take once engines are open and the first frame is done.

    Three stills are written to a folder beside the sink. Returns the exit code: that of a full disk
    where the output will not fit, else 0. Raises VelaturaError for whatever the run itself would be
    refused for, a `comparison` with its source included.
    """
    if comparison is not None:
        check_comparison(job, comparison)
    if job.source == "-":
        raise SourceError("what comes through a pipe can be read once only: no --dry-run of it")
    say = Reporter(silent=quiet or as_json)
    with terminable(), ExitStack() as stack:
        source = stack.enter_context(open_input(job))
        journal = journals(job, source.info)
        kept = _refusals(job, source, journal=journal)
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="velatura-", dir=_roomy(job)))
        )
        with _in_its_name(folder, job.sink):
            path, sink = _open_trial(job, source, folder)
            try:
                with BuildView("", silent=say.silent) as view:
                    engines = open_engines(job, stack, view)
                sample = take_sample(job, source, stages_of(job, engines), sink, budget=budget)
            except BaseException:
                sink.abort()
                raise
            trial = Trial(path=path, sample=sample, plan_of=sink, engines=engines, kept=kept)
            report = _report(job, source.info, trial, journal=journal)
            report["stills"] = [str(still) for still in _write_stills(job, source.info, trial)]
    for line in report["notes"]:
        if line not in report["streams"]:
            say.note(line)
    if as_json:
        typer.echo(json.dumps(report))
    elif not quiet:
        typer.echo("\n".join(lines_of(report)))
    if report["fits"] is False:
        typer.echo(f"velatura: {shortage_of(report)}", err=True)
        return NO_ROOM
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The results of the sample."""

    path: Path | None
    """The video file, or the pattern of pictures; None where nothing is kept."""
    sample: Sample
    plan_of: Sink
    engines: list[Engine]
    kept: int
    """Frames that an earlier run has finished."""

    @property
    def video(self) -> Path | None:
        """The sample's file, where it is one video."""
        return self.path if self.path is not None and self.path.is_file() else None


def _refusals(job: Job, source: Source, *, journal: bool) -> int:
    """Raises where the run would refuse its target; else returns the number of frames in its
    journal."""
    if job.sink in ("null:", "-"):
        return 0
    path = Path(job.sink)
    if path.suffix.lower() in PICTURES:
        open_sink(job.sink, like=source, overwrite=job.overwrite).abort()
    elif journal and not job.restart and journal_folder(path).exists():
        sink = open_sink(
            job.sink,
            like=source,
            encoding=job.encoding,
            overwrite=job.overwrite,
            audio=job.audio,
            journal=settings_of(job),
            shared=job.workers > 1,
        )
        sink.abort()
        return sink.kept
    else:
        check_target(path, like=source.info, overwrite=job.overwrite)
    return 0


def _open_trial(job: Job, source: Source, folder: Path) -> tuple[Path | None, Sink]:
    """Returns a sink with the job's options, in a temporary folder. Raises SinkError."""
    if job.sink == "null:":
        return None, open_sink("null:", like=source)
    path = folder / ("sample.y4m" if job.sink == "-" else Path(job.sink).name)
    return path, open_sink(path, like=source, encoding=job.encoding, audio=job.audio)


@contextmanager
def _in_its_name(folder: Path, sink: str) -> Generator[None]:
    """Errors about the sample's file raised again with the name of the job's own."""
    try:
        yield
    except VelaturaError as error:
        text = str(error)
        if str(folder) not in text:
            raise
        raise type(error)(text.replace(str(folder / Path(sink).name), sink)) from error


def _roomy(job: Job) -> str | None:
    """Returns the folder for the sample: None is that of temporary files, unless it is too full."""
    if shutil.disk_usage(tempfile.gettempdir()).free > ROOM or job.sink in ("null:", "-"):
        return None
    return str(Path(job.sink).parent)


def _report(job: Job, info: VideoInfo, trial: Trial, *, journal: bool) -> dict[str, Any]:
    """Returns the whole report, as --json prints it."""
    sample, sink = trial.sample, trial.plan_of
    frames, length = film_frames(info, job.frames), film_seconds(info, job.frames)
    weights = weights_of(sample.excerpts, length)
    coded = _coded(trial)
    seconds = size = None
    if frames is not None:
        seconds = forecast_seconds(sample, max(frames - trial.kept, 1), weights=weights)
        if coded is not None:
            size = _whole(forecast_bytes(sample, coded, frames, weights=weights), info, sink, length)
    free = None if trial.path is None or job.sink == "-" else _free(job)
    needed = None if size is None or free is None else round(size.most * (2 if journal else 1))
    memory = peak_memory()
    mean = sum(w * e.per_frame for w, e in zip(weights, sample.excerpts, strict=True))
    return {
        "source": job.source,
        "sink": job.sink,
        "input": {
            "size": f"{info.width}x{info.height}",
            "format": str(info.format),
            "codec": info.codec,
            "rate": str(info.rate),
            "colour": f"{info.colour.matrix}, {info.colour.range} range",
            "hdr": info.hdr is not None,
            "alpha": info.alpha,
            "interlaced": info.interlaced,
        },
        "output": _output(trial),
        "deinterlace": job.deinterlace,
        "stabilize": job.stabilize,
        "models": [
            {"name": e.card.name, "backend": e.backend, "precision": e.precision} for e in trial.engines
        ],
        "frames": frames,
        "duration": None if length is None else round(length, 3),
        "frames_kept": trial.kept,
        "sampled_frames": sample.frames,
        "sampled_at": [round(excerpt.at, 3) for excerpt in sample.excerpts],
        "fps": round(1 / mean, 2) if mean else None,
        "seconds": _figures(seconds, 1),
        "output_bytes": _figures(size, None),
        "needed_bytes": needed,
        "free_bytes": free,
        "fits": None if needed is None or free is None else needed <= free,
        "peak_memory_mib": round(memory / 2**20, 1) if memory is not None else None,
        "journal": journal,
        "workers": job.workers,
        "streams": [passage.words() for passage in sink.plan],
        "notes": _notes(job, info, trial),
    }


def _notes(job: Job, info: VideoInfo, trial: Trial) -> list[str]:
    """Returns all notes that the run would give before and after."""
    engines = [note for engine in trial.engines for note in engine.notes]
    notes = [*info.notes, *engines, *trial.plan_of.notes, *trial.sample.notes]
    if film_frames(info, job.frames) is None:
        notes.append("the source does not tell its length: only its beginning was tried")
    if job.workers > 1:
        notes.append("the time is that of one process; several share this machine's cores")
    if trial.kept:
        notes.append(
            f"{trial.kept} frames of an earlier run are there; reading them again comes on top"
        )
    return list(dict.fromkeys(notes))


def _coded(trial: Trial) -> Coded | None:
    """Returns the coded frames; None where none are kept."""
    if trial.video is not None:
        return read_coded(trial.video)
    if trial.path is None:
        return None
    sizes = [p.stat().st_size for p in sorted(trial.path.parent.iterdir())]
    rate = len(sizes) / max(float(trial.sample.excerpts[-1].begin), 1e-3)
    return Coded(packets=tuple(Packet(i / rate, s, True) for i, s in enumerate(sizes)), beside=0)


def _whole(picture: Estimate, info: VideoInfo, sink: Sink, length: float | None) -> Estimate | None:
    """Returns the estimate with the streams beside the picture; None where they are unknown."""
    if info.path is None or not sink.plan:
        return picture
    beside = passing_bytes(info.path, sink.plan, length)
    if beside is None:
        return None
    return Estimate(picture.likely + beside, picture.least + beside, picture.most + beside)


def _output(trial: Trial) -> dict[str, Any]:
    """Returns size, format and codec of the output."""
    after = trial.sample.excerpts[0].after
    facts = {"size": f"{after.width}x{after.height}", "format": str(after.format), "codec": None}
    if trial.video is not None:
        with av.open(str(trial.video)) as container:
            context = container.streams.video[0].codec_context
            facts["size"] = f"{context.width}x{context.height}"
            facts["format"], facts["codec"] = context.pix_fmt, context.codec.canonical_name
    elif trial.path is not None:
        facts["codec"] = trial.path.suffix.lstrip(".")
    return {**facts, "aspect": str(after.aspect), "rotation": after.rotation}


def _free(job: Job) -> int:
    return shutil.disk_usage(Path(job.sink).parent).free


def _figures(estimate: Estimate | None, digits: int | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    return {name: round(getattr(estimate, name), digits) for name in ("likely", "least", "most")}


def preview_folder(sink: str) -> Path:
    """Returns the folder of the stills: beside the sink, or the current one where the sink is no
    file."""
    if sink in ("null:", "-"):
        return Path("dry-run.preview")
    path = Path(sink)
    stem = re.sub(r"%(0\d+)?d", "", path.stem).strip("-_. ")
    if not stem:
        path, stem = path.parent, path.parent.name or "pictures"
    return path.with_name(f"{stem}.preview") if path.name else Path(f"{stem}.preview")


def _write_stills(job: Job, info: VideoInfo, trial: Trial) -> list[Path]:
    """Write stills of before and after side by side, from up to three places of the film."""
    folder = preview_folder(job.sink)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise SinkError(f"no folder {folder} can be made for stills: {error.strerror}") from error
    excerpts = trial.sample.excerpts[1:] or trial.sample.excerpts
    afters: Sequence[Frame] = [excerpt.after for excerpt in excerpts]
    if trial.video is not None:
        half = 0.5 / float(info.rate)
        afters = shown_at(str(trial.video), [float(excerpt.begin) + half for excerpt in excerpts])
    written: list[Path] = []
    for number, (excerpt, after) in enumerate(zip(excerpts, afters, strict=True), 1):
        before, told = excerpt.before, f"{excerpt.at:.1f} s"
        one, two = same_size(rgb8(before), rgb8(after))
        pair = Pair(
            excerpt.at,
            labelled(one, f"before, {before.width}x{before.height}, {told}"),
            labelled(two, f"after, {after.width}x{after.height}"),
        )
        written.append(folder / f"still-{number}.png")
        write_png(written[-1], joined(pair, "side"))
    return written
