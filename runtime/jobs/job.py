"""The job of a run: its options, and what they open: source, engines, stages, sink, journal.

A new option is one field of `Job` here: the command line, journals and batches follow from it.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, Protocol, TypeVar, get_type_hints

import typer

from ..backends import Building, Engine, Fit, Precision, Progress, open_engine
from ..backends.identity import NAME as IDENTITY
from ..errors import SinkError
from ..frame import VideoInfo
from ..media.codecs import SHOWN
from ..media.options import AudioCodec, Deinterlace, Encoding, Quality, ToneMap
from ..sinks import Sink, open_sink
from ..sources import Source, open_source
from ..stages import Stage
from .options import (
    CHANNELS,
    DEVIATION,
    FIT,
    KEEP_COLOURS,
    MASK,
    MEAN,
    MODELS,
    PART,
    RANGE,
    STRENGTH,
    card_flags,
    check_moments,
    complete_model,
    moment,
    numbers,
    pair,
    part_of_one,
    range_of,
    rate_of,
    red_green_blue,
    width_height,
)

if TYPE_CHECKING:
    from ..stages import Blending

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """The command-line form of a field of `Job`, and its treatment in a journal."""

    names: tuple[str, ...]
    """The names on the command line; a journal knows the field by the first. Empty: the field's own."""
    help: str
    given: Any
    """The type as which the command line is parsed; None is the field's own."""
    read: Callable[[str, Any], Any] | None
    """Converts what is given at the named option to the field's value; it may raise
    typer.BadParameter."""
    told: Callable[[Any], Any] | None
    """Converts the value for a report of a change, where it is not reported as it is."""
    decides: bool
    """True if another value gives other frames, or another file."""
    sparse: bool
    """True if a journal stores it only where it differs from the default: earlier ones do not have
    it."""
    shown: Mapping[str, Any]
    """Further arguments for the command line's help and checks."""

    @property
    def name(self) -> str:
        """The name by which a user knows it."""
        return self.names[0].partition("/")[0]


Panel = Literal["Models", "Picture", "Encoder", "Sound", "Output", "Resume", "Batch"]
"""The groups in which the help shows options, in their order."""


def _option(
    panel: Panel,
    default: T,
    *names: str,
    help: str,
    given: Any = None,
    read: Callable[[str, Any], Any] | None = None,
    told: Callable[[Any], Any] | None = None,
    decides: bool = True,
    sparse: bool = False,
    **shown: Any,
) -> T:
    """Returns a field of `Job`, with its flag as metadata."""
    flag = Flag(
        names=names,
        help=help,
        given=given,
        read=read,
        told=told,
        decides=decides,
        sparse=sparse,
        shown={"rich_help_panel": panel, **shown},
    )
    return field(default=default, metadata={"flag": flag})


def _contents(path: str) -> str:
    """Returns what stands for a file in a journal: what it holds, whatever its name."""
    try:
        return f"a file of SHA-256 {hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}"
    except OSError:  # refused by name where it is opened
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The options of one run. A new one is one field: the command line and journals follow from it."""

    source: str
    sink: str
    models: tuple[str, ...] = _option(
        "Models",
        (),
        "-m",
        "--model",
        help=MODELS,
        given=list[str] | None,
        read=lambda _, given: tuple(given),
        told=list,
        autocompletion=complete_model,
    )
    strength: float | None = _option("Picture", None, help=PART, sparse=True, min=0.0, max=1.0)
    keep_colours: bool | None = _option(
        "Picture", None, "--keep-colours/--no-keep-colours", help=KEEP_COLOURS, sparse=True
    )
    mask: str | None = _option(
        "Picture", None, help=MASK, told=_contents, sparse=True, metavar="FILE.png"
    )
    size: tuple[int, int] | None = _option(
        "Picture",
        None,
        help="Resize to WIDTHxHEIGHT after the models.",
        given=str | None,
        read=width_height,
        told=lambda size: f"{size[0]}x{size[1]}" if size else None,
    )
    backend: str = _option("Models", "auto", help="auto, or one of `velatura doctor`'s, or identity.")
    precision: Precision = _option(
        "Models",
        "auto",
        help="auto (measured, remembered), fp32, fp16 (GPUs), bf16, int8 or int8-bf16 (CPUs).",
    )
    codec: str = _option("Encoder", "auto", help=f"{SHOWN}, or an FFmpeg encoder. [by SINK]")
    quality: Quality = _option("Encoder", "good", help="draft (fast), good, or archive (large, slow).")
    crf: int | None = _option("Encoder", None, help="Constant quality; lower is better. [--quality]")
    preset: str | None = _option("Encoder", None, help="Encoder speed. [--quality]")
    pix_fmt: str | None = _option("Encoder", None, help="Pixel format of the output, e.g. yuv444p.")
    background: tuple[int, int, int] = _option(
        "Picture",
        (0, 0, 0),
        help="Colour below what is transparent, where SINK holds no opacity: #RRGGBB. [black]",
        given=str | None,
        read=lambda option, given: red_green_blue(option, given or "black"),
        told=lambda colour: "#{:02x}{:02x}{:02x}".format(*colour),
        sparse=True,
    )
    enc: tuple[tuple[str, str], ...] = _option(
        "Encoder",
        (),
        help="Option of the FFmpeg encoder; repeatable.",
        given=list[str] | None,
        read=lambda option, given: tuple(pair(option, text) for text in given),
        told=lambda options: [f"{key}={value}" for key, value in options],
        metavar="KEY=VALUE",
    )
    fps: str | None = _option(
        "Picture", None, help="Convert to this frame rate; of an image sequence, its rate [25]."
    )
    deinterlace: Deinterlace = _option(
        "Picture", "auto", help="auto, no, force (frames that do not say so), fields (double rate)."
    )
    tone_map: ToneMap | None = _option(
        "Picture",
        None,
        help="Make HDR into SDR by that curve: bt2390 or hable (as FFmpeg's).",
        sparse=True,
    )
    stabilize: float | None = _option(
        "Models",
        None,
        help=STRENGTH,
        read=lambda option, given: part_of_one(option, given) or None,
        metavar="STRENGTH",
    )
    start: str | None = _option(
        "Picture",
        None,
        help="Begin there: seconds, hh:mm:ss.mmm, or a frame's number (250f).",
        read=moment,
        sparse=True,
        metavar="TIME",
    )
    end: str | None = _option(
        "Picture",
        None,
        help="End before that: the same.",
        read=moment,
        sparse=True,
        metavar="TIME",
    )
    bake: bool = _option("Picture", False, help="Turn pictures upright and make their pixels square.")
    frames: int | None = _option("Picture", None, help="Stop after this many frames.", min=1)
    audio: bool = _option("Sound", True, "--audio/--no-audio", help="Copy the audio.")
    video_stream: int | None = _option(
        "Picture",
        None,
        help="Which of several videos, by its number in the file. [the default, or the largest]",
        sparse=True,
        min=0,
    )
    audio_stream: int | None = _option(
        "Sound",
        None,
        help="The only audio to copy, by its number in the file. [all]",
        sparse=True,
        min=0,
    )
    audio_codec: AudioCodec = _option(
        "Sound",
        "auto",
        help="What audio becomes that SINK cannot hold: aac, opus, flac. [by SINK]",
        sparse=True,
    )
    audio_bitrate: int | None = _option(
        "Sound",
        None,
        help="Bits per second of audio that is converted. [96000 a channel]",
        sparse=True,
        min=8000,
    )
    overwrite: bool = _option("Output", False, help="Replace an existing output.", decides=False)
    tolerate: bool = _option(
        "Output", False, help="Exit with 0 though frames of a damaged source are lost.", decides=False
    )
    value_range: float | str | None = _option(
        "Models", None, "--range", help=RANGE, given=str | None, read=range_of, metavar="RANGE"
    )
    mean: tuple[float, ...] = _option(
        "Models", (), help=MEAN, given=str | None, read=numbers, told=list, sparse=True, metavar="R,G,B"
    )
    deviation: tuple[float, ...] = _option(
        "Models",
        (),
        help=DEVIATION,
        given=str | None,
        read=numbers,
        told=list,
        sparse=True,
        metavar="R,G,B",
    )
    channels: Literal["rgb", "bgr"] | None = _option("Models", None, help=CHANNELS)
    fit: Fit = _option("Models", "tile", help=FIT)
    building: Building = _option(
        "Models",
        "wait",
        "--while-building",
        help="While an engine is built, frames: wait, fallback (to the CPU) or pass (unchanged).",
        sparse=True,
    )
    journal: bool | None = _option(
        "Resume",
        None,
        "--journal/--no-journal",
        help="Keep what is done beside SINK, so that a run cut off goes on there. [long videos]",
        decides=False,
    )
    restart: bool = _option(
        "Resume", False, help="Throw away what a run that was cut off left.", decides=False
    )
    workers: int = _option(
        "Resume", 1, help="Processes that work on one file side by side.", decides=False, min=1
    )

    @property
    def encoding(self) -> Encoding:
        """The encoding of the frames."""
        return Encoding(
            codec=self.codec,
            quality=self.quality,
            crf=self.crf,
            preset=self.preset,
            pix_fmt=self.pix_fmt,
            options=self.enc,
            background=self.background,
            audio_codec=self.audio_codec,
            audio_bitrate=self.audio_bitrate,
        )

    @classmethod
    def of_command(cls, source: str, sink: str, given: Mapping[str, Any]) -> "Job":
        """Returns the job for the command line's values, by the fields' names. Raises
        typer.BadParameter."""
        values: dict[str, Any] = {}
        for name, flag in FLAGS.items():
            value = given[name]
            if value is not None:
                values[name] = flag.read(flag.name, value) if flag.read is not None else value
        check_moments(values.get("start"), values.get("end"))
        return cls(source=source, sink=sink, **values)

    def settings(self) -> dict[str, Any]:
        """Returns all options that affect the frames, by the names that a user knows."""
        found: dict[str, Any] = {}
        for name, flag in FLAGS.items():
            value = getattr(self, name)
            if flag.decides and not (flag.sparse and value == USUAL[name]):
                found[flag.name] = flag.told(value) if flag.told is not None else value
        return found


USUAL: Mapping[str, Any] = {part.name: part.default for part in fields(Job)}
"""The values of `Job`'s fields where nothing is given."""


def _flags() -> dict[str, Flag]:
    found: dict[str, Flag] = {}
    types = get_type_hints(Job)
    for part in fields(Job):
        if "flag" in part.metadata:
            flag: Flag = part.metadata["flag"]
            names = flag.names or (f"--{part.name.replace('_', '-')}",)
            found[part.name] = replace(flag, names=names, given=flag.given or types[part.name])
    return found


FLAGS: Mapping[str, Flag] = _flags()
"""The options of `Job`, by its fields' names."""


def takes_job(command: Callable[P, R]) -> Callable[P, R]:
    """Returns the command with its `**given` replaced by the options of `Job`, in the order of its
    fields.

    They come after the command's arguments and before its own options.
    """
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if isinstance(USUAL[name], tuple) else USUAL[name],
            annotation=Annotated[flag.given, typer.Option(*flag.names, help=flag.help, **flag.shown)],
        )
        for name, flag in FLAGS.items()
    ]
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    begin = [p for p in own if p.default is inspect.Parameter.empty]
    end = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p not in begin]
    told: Any = command
    told.__signature__ = signature.replace(parameters=[*begin, *options, *end])
    told.__annotations__ = {p.name: p.annotation for p in (*begin, *options, *end)}
    return command


def open_input(job: Job) -> Source:
    """Returns the source with its frames as the models shall see them. Raises SourceError."""
    return open_source(
        job.source,
        rate=rate_of(job.fps),
        deinterlace=job.deinterlace,
        tone_map=job.tone_map,
        video_stream=job.video_stream,
        audio_stream=job.audio_stream,
        start=job.start,
        end=job.end,
    )


def open_engines(
    job: Job,
    stack: ExitStack,
    progress: Progress,
    choices: tuple[tuple[str, str], ...] = (),
    *,
    pixels: int | None = None,
) -> list[Engine]:
    """Returns an engine for each model; `choices` are those of `auto` in an earlier run, `pixels` the
    number in all frames of the source, where that is known."""
    chosen = choices or (None,) * len(job.models)
    return [
        stack.enter_context(_engine(name, job, progress, choice, pixels))
        for name, choice in zip(job.models, chosen, strict=True)
    ]


def _engine(
    name: str, job: Job, progress: Progress, choice: tuple[Any, Any] | None, pixels: int | None
) -> Engine:
    # What was measured to be fastest may differ today; frames must not change in the middle of a film.
    given = (job.backend, job.precision)
    backend, precision = choice if choice is not None and name != IDENTITY else given
    return open_engine(
        name,
        backend,
        precision=precision,
        flags=card_flags(job.value_range, job.channels, job.mean, job.deviation),
        fit=job.fit,
        building=job.building,
        pixels=pixels,
        progress=progress,
    )


class Blended(Protocol):
    """What a job and a live session say of blending."""

    @property
    def strength(self) -> float | None: ...

    @property
    def keep_colours(self) -> bool | None: ...

    @property
    def mask(self) -> str | None: ...


def blending_of(job: Blended, info: VideoInfo) -> "Blending":
    """Returns what the job says of how results and the source's frames are blended; the models' cards
    may say more. Raises SourceError for a mask that is none, or does not fit the source."""
    from ..stages import Blending, Mask

    mask = None
    if job.mask is not None:
        size = (info.width, info.height)
        mask = Mask.load(job.mask).fitted(size, aspect=float(info.aspect), rotation=info.rotation)
    return Blending(strength=job.strength, keep_colours=job.keep_colours, mask=mask)


def stages_of(
    job: Job, engines: list[Engine], blending: "Blending", *, segment: int | None = None
) -> list[Stage]:
    """Returns the stages that a frame passes through, in order.

    Models see the picture as it is coded, which is how they were trained; --size means the picture that
    --bake has turned upright. With --stabilize, frames of a `segment` (the journal's) do not depend on
    the process that makes them: it processes the `lead_of` frames before the segment first.
    """
    from ..sinks import segmented_file
    from ..stages import Blend, Conform, Neural, Resize, Stabilize, Upright

    stages: list[Stage] = [Neural(engine) for engine in engines]
    if job.stabilize:
        stages = [Stabilize(stages, job.stabilize, spell=segment or segmented_file.SEGMENT)]
    blending = blending.of([engine.card for engine in engines])
    if stages and not blending.idle:
        blend = Blend(blending)
        stages = [blend.keep, *stages, blend]
    if job.bake:
        stages.append(Upright())
    if job.size is not None:
        stages.append(Resize(*job.size))
    return [*stages, Conform()]


def lead_of(stages: Sequence[Stage]) -> int:
    """Returns the number of frames before a segment that must be processed, too, so that its own are
    right."""
    from ..stages import Stabilize

    return max((stage.overlap for stage in stages if isinstance(stage, Stabilize)), default=0)


def journals(job: Job, like: VideoInfo) -> bool:
    """Returns whether the run keeps a journal. Raises SinkError where it should and cannot."""
    from ..sinks import why_no_journal
    from ..sinks.segmented_file import is_short

    if job.sink == "null:" and not job.journal and job.workers == 1:
        return False
    reason = why_no_journal(job.sink, like=like, encoding=job.encoding)
    if job.building != "wait":
        reason = reason or f"what frames come depends on time with --while-building {job.building}"
    if job.journal and reason:
        raise SinkError(f"{job.sink} can have no journal: {reason}")
    if job.workers > 1 and (reason or job.journal is False):
        reason = reason or "--no-journal was given"
        raise SinkError(f"{job.sink} cannot be made by several --workers, in segments: {reason}")
    wanted = not is_short(like, job.frames) if job.journal is None else job.journal
    return wanted and not reason


def open_output(job: Job, source: Source, *, journal: bool) -> Sink:
    """Returns the sink, which goes on where the `journal` of an earlier run ends. Raises SinkError."""
    return open_sink(
        job.sink,
        like=source,
        encoding=job.encoding,
        overwrite=job.overwrite,
        audio=job.audio,
        journal=settings_of(job) if journal else None,
        restart=job.restart,
        shared=job.workers > 1,
    )


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
