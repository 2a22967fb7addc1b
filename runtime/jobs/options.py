"""The commands' common options: their types, their checks, and their errors."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Annotated, Any, Literal, NoReturn, ParamSpec, TypeVar, cast, get_args

import typer

from ..backends import Building, Fit, Precision
from ..card import CardFlags
from ..errors import SourceError, VelaturaError
from ..media.codecs import SHOWN
from ..media.options import Deinterlace, Encoding, Quality

P = ParamSpec("P")
R = TypeVar("R")

PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8", "int8-bf16")
_RANGE = "For a foreign model: 1 or 255."
_CHANNELS = "For a foreign model: rgb or bgr."
_FIT = "For a model of one size: tile the frames to it, or resize them."

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
ValueRange = Annotated[str | None, typer.Option("--range", help=_RANGE)]
Channels = Annotated[str | None, typer.Option(help=_CHANNELS)]
Fitting = Annotated[str, typer.Option(help=_FIT)]


class reporting:  # noqa: N801 - reads as a verb
    """Turns deliberate errors into one line and their exit code; bugs keep their traceback."""

    def __init__(self, debug: bool, as_json: bool) -> None:
        self.debug = debug
        self.as_json = as_json

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            fail("stopped; nothing was written", 130)
        if not isinstance(error, VelaturaError) or self.debug:
            return
        if self.as_json:
            fields = {"error": str(error), "kind": type(error).__name__, "exit_code": error.exit_code}
            typer.echo(json.dumps(fields))
        fail(str(error), error.exit_code)


def fail(text: str, code: int) -> NoReturn:
    typer.echo(f"velatura: {text}", err=True)
    raise SystemExit(code)


def width_height(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        usage(f"{option} {text!r} is not WIDTHxHEIGHT")
    return int(parts[0]), int(parts[1])


def height_width(option: str, text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        usage(f"{option} {text!r} is not HEIGHTxWIDTH")
    return int(parts[0]), int(parts[1])


def capabilities(text: str) -> tuple[int, ...]:
    parts = [part.strip().removeprefix("sm") for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        usage(f"--sm {text!r} is no list of compute capabilities such as 86,89")
    return tuple(int(part) for part in parts)


def flags_of(value_range: str | None, channels: str | None) -> CardFlags:
    return CardFlags(
        value_range=float(choice("--range", value_range, ("1", "255"))) if value_range else None,
        colour_order=choice("--channels", channels, ("rgb", "bgr")) if channels else None,
    )


def choice(option: str, value: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        usage(f"{option} is {value!r}, not {' or '.join(choices)}")
    return value


def part_of_one(option: str, value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:
        usage(f"{option} {value:g} is not within 0..1: 0 is off, 0.9 a good beginning, 1 the most")
    return value


def pair(option: str, text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        usage(f"{option} {text!r} is not KEY=VALUE")
    return key, value


def red_green_blue(option: str, text: str) -> tuple[int, int, int]:
    named = {"black": "000000", "white": "ffffff"}
    digits = named.get(text.lower(), text.removeprefix("#"))
    if len(digits) != 6 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
        usage(f"{option} {text!r} is no colour such as #00ff00, black or white")
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def rate_of(text: str | None) -> Fraction | None:
    if text is None:
        return None
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise SourceError(f"--fps {text!r} is not a frame rate; write 25 or 30000/1001") from error
    if rate <= 0:
        raise SourceError(f"--fps {text!r} is not a frame rate: it must be positive")
    return rate


def usage(text: str) -> NoReturn:
    raise typer.BadParameter(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """The command-line form of a field of `Job`, and its treatment in a journal."""

    names: tuple[str, ...]
    """The names on the command line; a journal knows the field by the first."""
    help: str
    given: Any
    """The type as which the command line is parsed."""
    choices: tuple[str, ...] = ()
    """The only allowed values; empty allows any."""
    read: Callable[[Any], Any] | None = None
    """Converts the command line's value to the field's; it may raise typer.BadParameter."""
    decides: bool = True
    """True if another value gives other frames, or another file."""
    told: Callable[[Any], Any] | None = None
    """Converts the value for a report of a change, where it is not reported as it is."""
    sparse: bool = False
    """True if a journal stores it only where it differs from the default: earlier ones do not have
    it."""
    shown: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Further arguments for the command line's help and checks."""

    @property
    def name(self) -> str:
        """The name by which a user knows it."""
        return self.names[0].partition("/")[0]

    def value(self, given: Any) -> Any:
        """Returns the field's value for the command line's."""
        if self.choices and given is not None:
            given = choice(self.name, given, self.choices)
        return self.read(given) if self.read is not None else given


def _flag(
    *names: str,
    given: Any,
    help: str,
    choices: tuple[str, ...] = (),
    read: Callable[[Any], Any] | None = None,
    told: Callable[[Any], Any] | None = None,
    decides: bool = True,
    sparse: bool = False,
    shown: Mapping[str, Any] | None = None,
) -> dict[str, Flag]:
    """Returns the metadata of a field of `Job`."""
    flag = Flag(
        names=names,
        help=help,
        given=given,
        choices=choices,
        read=read,
        told=told,
        decides=decides,
        sparse=sparse,
        shown=shown or {},
    )
    return {"flag": flag}


def _size_told(size: tuple[int, int] | None) -> str | None:
    return f"{size[0]}x{size[1]}" if size else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The options of one run. A new one is one field: the command line and journals follow from it."""

    source: str
    sink: str
    models: tuple[str, ...] = field(
        default=(),
        metadata=_flag(
            "-m",
            "--model",
            given=list[str] | None,
            help="Zoo name or .onnx file; repeat to chain several.",
            read=lambda given: tuple(given or ()),
            told=list,
        ),
    )
    size: tuple[int, int] | None = field(
        default=None,
        metadata=_flag(
            "--size",
            given=str | None,
            help="Resize to WIDTHxHEIGHT after the models.",
            read=width_height,
            told=_size_told,
        ),
    )
    backend: str = field(
        default="auto",
        metadata=_flag(
            "--backend", given=str, help="auto, or one of `velatura doctor`'s, or identity."
        ),
    )
    precision: Precision = field(
        default="auto",
        metadata=_flag(
            "--precision",
            given=str,
            help="auto (measured, remembered), fp32, fp16 (GPUs), bf16, int8 or int8-bf16 (CPUs).",
            choices=PRECISIONS,
        ),
    )
    codec: str = field(
        default="auto",
        metadata=_flag(
            "--codec",
            given=str,
            help=f"{SHOWN}, or an FFmpeg encoder. [by SINK]",
        ),
    )
    quality: Quality = field(
        default="good",
        metadata=_flag(
            "--quality",
            given=str,
            help="draft (fast), good, or archive (large, slow).",
            choices=get_args(Quality),
        ),
    )
    crf: int | None = field(
        default=None,
        metadata=_flag(
            "--crf", given=int | None, help="Constant quality; lower is better. [--quality]"
        ),
    )
    preset: str | None = field(
        default=None, metadata=_flag("--preset", given=str | None, help="Encoder speed. [--quality]")
    )
    pix_fmt: str | None = field(
        default=None,
        metadata=_flag("--pix-fmt", given=str | None, help="Pixel format of the output, e.g. yuv444p."),
    )
    background: tuple[int, int, int] = field(
        default=(0, 0, 0),
        metadata=_flag(
            "--background",
            given=str | None,
            help="Colour below what is transparent, where SINK holds no opacity: #RRGGBB. [black]",
            read=lambda given: red_green_blue("--background", given) if given else (0, 0, 0),
            told=lambda colour: "#{:02x}{:02x}{:02x}".format(*colour),
            sparse=True,
        ),
    )
    enc: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=_flag(
            "--enc",
            given=list[str] | None,
            help="Option of the FFmpeg encoder; repeatable.",
            read=lambda given: tuple(pair("--enc", text) for text in given or ()),
            told=lambda options: [f"{key}={value}" for key, value in options],
            shown={"metavar": "KEY=VALUE"},
        ),
    )
    fps: str | None = field(
        default=None,
        metadata=_flag(
            "--fps",
            given=str | None,
            help="Convert to this frame rate; of an image sequence, its rate [25].",
        ),
    )
    deinterlace: Deinterlace = field(
        default="auto",
        metadata=_flag(
            "--deinterlace",
            given=str,
            help="auto, no, force (frames that do not say so), fields (double rate).",
            choices=get_args(Deinterlace),
        ),
    )
    stabilize: float | None = field(
        default=None,
        metadata=_flag(
            "--stabilize",
            given=float | None,
            help="Keep results on what they show, 0 (off) to 1. [off]",
            read=lambda given: part_of_one("--stabilize", given) or None,
            shown={"metavar": "STRENGTH"},
        ),
    )
    bake: bool = field(
        default=False,
        metadata=_flag(
            "--bake", given=bool, help="Turn pictures upright and make their pixels square."
        ),
    )
    frames: int | None = field(
        default=None,
        metadata=_flag(
            "--frames", given=int | None, help="Stop after this many frames.", shown={"min": 1}
        ),
    )
    audio: bool = field(
        default=True, metadata=_flag("--audio/--no-audio", given=bool, help="Copy the audio.")
    )
    video_stream: int | None = field(
        default=None,
        metadata=_flag(
            "--video-stream",
            given=int | None,
            help="Which of several videos, by its number in the file. [the default, or the largest]",
            sparse=True,
            shown={"min": 0},
        ),
    )
    audio_stream: int | None = field(
        default=None,
        metadata=_flag(
            "--audio-stream",
            given=int | None,
            help="The only audio to copy, by its number in the file. [all]",
            sparse=True,
            shown={"min": 0},
        ),
    )
    overwrite: bool = field(
        default=False,
        metadata=_flag("--overwrite", given=bool, help="Replace an existing output.", decides=False),
    )
    tolerate: bool = field(
        default=False,
        metadata=_flag(
            "--tolerate",
            given=bool,
            help="Exit with 0 though frames of a damaged source are lost.",
            decides=False,
        ),
    )
    value_range: float | None = field(
        default=None,
        metadata=_flag(
            "--range",
            given=str | None,
            help=_RANGE,
            choices=("1", "255"),
            read=lambda given: float(given) if given else None,
        ),
    )
    channels: Literal["rgb", "bgr"] | None = field(
        default=None,
        metadata=_flag("--channels", given=str | None, help=_CHANNELS, choices=("rgb", "bgr")),
    )
    fit: Fit = field(
        default="tile", metadata=_flag("--fit", given=str, help=_FIT, choices=get_args(Fit))
    )
    building: Building = field(
        default="wait",
        metadata=_flag(
            "--while-building",
            given=str,
            help="While an engine is built, frames: wait, fallback (to the CPU) or pass (unchanged).",
            choices=get_args(Building),
            sparse=True,
        ),
    )
    journal: bool | None = field(
        default=None,
        metadata=_flag(
            "--journal/--no-journal",
            given=bool | None,
            help="Keep what is done beside SINK, so that a run cut off goes on there. [long videos]",
            decides=False,
        ),
    )
    restart: bool = field(
        default=False,
        metadata=_flag(
            "--restart", given=bool, help="Throw away what a run that was cut off left.", decides=False
        ),
    )
    workers: int = field(
        default=1,
        metadata=_flag(
            "--workers",
            given=int,
            help="Processes that work on one file side by side.",
            decides=False,
            shown={"min": 1},
        ),
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
        )

    @classmethod
    def of_command(cls, source: str, sink: str, given: Mapping[str, Any]) -> "Job":
        """Returns the job for the command line's values, by the fields' names. Raises
        typer.BadParameter."""
        values = {name: flag.value(given[name]) for name, flag in FLAGS.items()}
        return cls(source=source, sink=sink, **values)

    def settings(self) -> dict[str, Any]:
        """Returns all options that affect the frames, by the names that a user knows."""
        usual = {part.name: part.default for part in fields(self)}
        found: dict[str, Any] = {}
        for name, flag in FLAGS.items():
            value = getattr(self, name)
            if flag.decides and not (flag.sparse and value == usual[name]):
                found[flag.name] = flag.told(value) if flag.told is not None else value
        return found


FLAGS: Mapping[str, Flag] = {
    part.name: cast("Flag", part.metadata["flag"]) for part in fields(Job) if "flag" in part.metadata
}
"""The options of `Job`, by its fields' names."""


def takes_job(command: Callable[P, R]) -> Callable[P, R]:
    """Returns the command with its `**given` replaced by the options of `Job`, in the order of its
    fields.

    They come after the command's arguments and before its own options.
    """
    usual = {part.name: part.default for part in fields(Job)}
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if isinstance(usual[name], tuple) else usual[name],
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
