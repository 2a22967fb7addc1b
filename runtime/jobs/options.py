"""The commands' common options: their types, their checks, and their errors."""

import json
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, NoReturn, cast

import typer

from ..backends import Fit, Precision
from ..card import CardFlags
from ..errors import SourceError, VelaturaError
from ..zoo import named_models

MODELS = "Zoo name or .onnx file; repeat to chain several."
STRENGTH = "Keep results on what they show, 0 (off) to 1. [off]"
PART = "How much of the models' work is seen: 0 (none) to 1. [by the model's card, else 1]"
KEEP_COLOURS = "The source's colours under the models' light and dark. [by the model's card, else no]"
MASK = "Picture of SOURCE's size: black is left untouched, white is the models', gray between."
RANGE = "For a foreign model: 1, 255, -1..1 or LOW..HIGH; IN:OUT where its results differ."
MEAN = "For a foreign model: what it subtracts, R,G,B in the numbers of --range."
DEVIATION = "For a foreign model: what it divides by then, R,G,B."
CHANNELS = "For a foreign model: rgb or bgr."
FIT = "For a model of one size: tile the frames to it, or resize them."


def complete_model(incomplete: str) -> list[str]:
    """Returns the models' names that begin so, for a shell; where there is none it offers files."""
    return [name for name in named_models() if name.startswith(incomplete)]


Part = Annotated[float | None, typer.Option("--strength", min=0.0, max=1.0, help=PART)]
KeepColours = Annotated[
    bool | None, typer.Option("--keep-colours/--no-keep-colours", help=KEEP_COLOURS)
]
MaskFile = Annotated[str | None, typer.Option("--mask", metavar="FILE.png", help=MASK)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Models = Annotated[
    list[str] | None,
    typer.Option("-m", "--model", help=MODELS, autocompletion=complete_model),
]
OnBackend = Annotated[str, typer.Option("--backend", help="auto, or one of `velatura doctor`'s.")]
InPrecision = Annotated[Precision, typer.Option("--precision", help="As for `velatura run`.")]
ValueRange = Annotated[str | None, typer.Option("--range", metavar="RANGE", help=RANGE)]
Mean = Annotated[str | None, typer.Option(metavar="R,G,B", help=MEAN)]
Deviation = Annotated[str | None, typer.Option(metavar="R,G,B", help=DEVIATION)]
Channels = Annotated[Literal["rgb", "bgr"] | None, typer.Option(help=CHANNELS)]
Fitting = Annotated[Fit, typer.Option(help=FIT)]


class reporting:  # noqa: N801 - reads as a verb
    """Turns deliberate errors into one line and their exit code; bugs keep their traceback."""

    def __init__(self, debug: bool, as_json: bool) -> None:
        self.debug = debug
        self.as_json = as_json

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._end(error, "stopped; nothing was written", 130)
        if not isinstance(error, VelaturaError) or self.debug:
            return
        self._end(error, str(error), error.exit_code)

    def _end(self, error: BaseException, text: str, code: int) -> NoReturn:
        if self.as_json:
            told = {"error": text, "kind": type(error).__name__, "exit_code": code}
            typer.echo(json.dumps({**told, "notes": getattr(error, "__notes__", [])}))
        fail(text, code)


def fail(text: str, code: int) -> NoReturn:
    typer.echo(f"velatura: {text}", err=True)
    raise SystemExit(code)


def usage(text: str) -> NoReturn:
    raise typer.BadParameter(text)


def sister(group: str, name: str) -> Callable[..., Any] | None:
    """Returns what a package beside the runtime does under that entry point: no import leads there.

    None where it is not installed. Raises ModuleNotFoundError for what it needs and is not there.
    """
    found = list(entry_points(group=f"velatura.{group}", name=name))
    return found[0].load() if found else None


def width_height(option: str, text: str) -> tuple[int, int]:
    return _sides(option, text, "WIDTHxHEIGHT")


def height_width(option: str, text: str) -> tuple[int, int]:
    return _sides(option, text, "HEIGHTxWIDTH")


def _sides(option: str, text: str, form: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        usage(f"{option} {text!r} is not {form}")
    return int(parts[0]), int(parts[1])


def capabilities(text: str) -> tuple[int, ...]:
    parts = [part.strip().removeprefix("sm") for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        usage(f"--sm {text!r} is no list of compute capabilities such as 86,89")
    return tuple(int(part) for part in parts)


def flags_of(
    value_range: str | None,
    channels: Literal["rgb", "bgr"] | None,
    mean: str | None = None,
    deviation: str | None = None,
) -> CardFlags:
    return card_flags(
        range_of("--range", value_range) if value_range else None,
        channels,
        numbers("--mean", mean) if mean else (),
        numbers("--deviation", deviation) if deviation else (),
    )


def card_flags(
    value_range: "float | str | None",
    channels: Literal["rgb", "bgr"] | None,
    mean: tuple[float, ...],
    deviation: tuple[float, ...],
) -> CardFlags:
    """Returns the flags for a range as `range_of` gives it."""
    if bool(mean) != bool(deviation):
        usage("--mean and --deviation belong together")
    given = made = None
    if isinstance(value_range, str):
        first, _, second = value_range.partition(":")
        given, made = _span("--range", first), _span("--range", second) if second else None
    return CardFlags(
        value_range=given if given is not None else cast("float | None", value_range),
        output_range=made,
        colour_order=channels,
        mean=mean,
        deviation=deviation,
    )


def range_of(option: str, text: str) -> "float | str":
    """Returns the range as it is stored: the largest value of one from 0, else the words, checked."""
    if text in ("1", "255"):
        return float(text)
    for part in text.split(":", 1):
        _span(option, part)
    return text


def _span(option: str, text: str) -> tuple[float, float]:
    low, dots, high = text.partition("..")
    try:
        span = (float(low), float(high)) if dots else (0.0, {"1": 1.0, "255": 255.0}[text])
    except (KeyError, ValueError):
        span = (0.0, 0.0)
    if not -1e6 < span[0] < span[1] < 1e6:
        usage(f"{option} {text!r} is no range: 1, 255, -1..1, LOW..HIGH, or IN:OUT of these")
    return span


def numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in (1, 3) or not all(abs(one) < 1e6 for one in found):
        usage(f"{option} {text!r} is no R,G,B of three numbers (one for a model of luma)")
    if option == "--deviation" and min(found) <= 0:
        usage(f"{option} {text!r} is not above 0")
    return found


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


def moment(option: str, text: str) -> str:
    """Returns a moment of a source in its plainest words."""
    from ..sources.cut import Moment

    try:
        return Moment.parse(text).text
    except ValueError as error:
        usage(f"{option} {error}")


def check_moments(start: str | None, end: str | None) -> None:
    from ..sources.cut import Moment, check_order

    try:
        check_order(Moment.parse(start) if start else None, Moment.parse(end) if end else None)
    except ValueError as error:
        usage(str(error))


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
