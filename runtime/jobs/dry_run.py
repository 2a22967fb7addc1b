"""`velatura run --dry-run`: the expected time and size of a run, estimated from a sample of it."""

import json
import re
import shutil
import tempfile
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av
import typer

from ..backends import Engine
from ..errors import SinkError, SourceError, VelaturaError
from ..frame import Frame, VideoInfo
from ..meter import peak_memory
from ..resume.journal import journal_folder
from ..sinks import Sink
from ..sinks.base import PICTURES
from ..sinks.output_file import check_target
from ..sources import Source
from .compare import Pair, check_comparison, joined, labelled, rgb8, same_size, shown_at, write_png
from .dry_run_sample import (
    Coded,
    Estimate,
    Packet,
    Sample,
    film_frames,
    film_seconds,
    forecast_bytes,
    forecast_seconds,
    passing_bytes,
    read_coded,
    take_sample,
    weights_of,
)
from .job import Job, blending_of, journals, open_engines, open_input, open_output, stages_of
from .progress import BuildView, Reporter
from .run import terminable

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
        blending = blending_of(job, source.info)
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
                stages = stages_of(job, engines, blending)
                sample = take_sample(job, source, stages, sink, budget=budget)
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
        open_output(job, source, journal=False).abort()
    elif journal and not job.restart and journal_folder(path).exists():
        sink = open_output(job, source, journal=True)
        sink.abort()
        return sink.kept
    else:
        check_target(path, like=source.info, overwrite=job.overwrite)
    return 0


def _open_trial(job: Job, source: Source, folder: Path) -> tuple[Path | None, Sink]:
    """Returns a sink with the job's options, in a temporary folder. Raises SinkError."""
    if job.sink == "null:":
        return None, open_output(job, source, journal=False)
    path = folder / ("sample.y4m" if job.sink == "-" else Path(job.sink).name)
    return path, open_output(replace(job, sink=str(path)), source, journal=False)


@contextmanager
def _in_its_name(folder: Path, sink: str) -> Generator[None]:
    """Errors about the sample's file raised again with the name of the job's own."""
    try:
        yield
    except VelaturaError as error:
        text = str(error)
        if str(folder) not in text:
            raise
        raise error.with_text(text.replace(str(folder / Path(sink).name), sink)) from error


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
            f"{trial.kept} frames of an earlier run are there; where the source cannot be sought in, "
            "reading them again comes on top"
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


def lines_of(report: dict[str, Any]) -> list[str]:
    """Returns the lines of `run_preflight`'s report for a person."""
    given, made = report["input"], report["output"]
    flags = [name for name in ("hdr", "alpha", "interlaced") if given[name]]
    told = [
        f"{report['source']} -> {report['sink']}, tried on {report['sampled_frames']} frames",
        f"  in       {given['size']} {given['format']}, {given['codec']}, {_rate(given['rate'])} fps, "
        + ", ".join([given["colour"], *flags]),
        f"  out      {made['size']} {made['format']}" + (f", {made['codec']}" if made["codec"] else ""),
        *(f"  model    {m['name']}: {m['backend']}, {m['precision']}" for m in report["models"]),
        *([f"  steady   --stabilize {report['stabilize']:g}"] if report["stabilize"] else []),
        f"  length   {_length(report)}",
        f"  time     {_time(report)}",
    ]
    if report["sink"] != "null:":
        told.append(f"  size     {_size(report)}")
    if report["peak_memory_mib"] is not None:
        told.append(f"  memory   {report['peak_memory_mib']:.0f} MiB at most so far")
    if report["sink"] not in ("null:", "-"):
        told.append(f"  journal  {'kept beside the output' if report['journal'] else 'none'}")
    told += [f"  beside   {line}" for line in report["streams"]]
    return [*told, *(f"  still    {still}" for still in report["stills"])]


def _rate(text: str) -> str:
    top, _, bottom = text.partition("/")
    return f"{int(top) / int(bottom or 1):.3f}".rstrip("0").rstrip(".")


def _length(report: dict[str, Any]) -> str:
    if report["frames"] is None:
        return "unknown"
    return f"{report['frames']} frames, {time_in_words(report['duration'])}"


def _time(report: dict[str, Any]) -> str:
    rate = f"{report['fps']:.1f} fps"
    if report["seconds"] is None:
        return f"unknown, at {rate}"
    likely, least, most = (
        time_in_words(report["seconds"][name]) for name in ("likely", "least", "most")
    )
    return f"about {likely} left ({least} to {most}), at {rate}"


def _size(report: dict[str, Any]) -> str:
    free = report["free_bytes"]
    room = "" if free is None else f"; {bytes_in_words(free)} are free"
    if report["output_bytes"] is None:
        return f"unknown{room}"
    likely, least, most = (
        bytes_in_words(report["output_bytes"][n]) for n in ("likely", "least", "most")
    )
    need = report["needed_bytes"]
    with_journal = f", {bytes_in_words(need)} with the journal" if report["journal"] and need else ""
    return f"about {likely} ({least} to {most}{with_journal}){room}"


def shortage_of(report: dict[str, Any]) -> str:
    """Returns the warning that the output may not fit."""
    journal = " with its journal" if report["journal"] else ""
    return (
        f"{report['sink']} may need {bytes_in_words(report['needed_bytes'])}{journal}, and "
        f"{bytes_in_words(report['free_bytes'])} are free: make room, or choose another folder"
    )


def time_in_words(seconds: float) -> str:
    """Returns a duration as `1:02:03` or `0:07`; tenths below ten seconds."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def bytes_in_words(size: float) -> str:
    """Returns a size as `12 kB`, `3.2 MB` or `1.4 GB`."""
    if size < 1e6:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


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
