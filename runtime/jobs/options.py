"""The commands' common options: their types, their checks, and their errors."""

import json
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, NoReturn

import typer

from ..backends import Fit, Precision
from ..card import CardFlags
from ..errors import SourceError, VelaturaError

MODELS = "Zoo name or .onnx file; repeat to chain several."
STRENGTH = "Keep results on what they show, 0 (off) to 1. [off]"
RANGE = "For a foreign model: 1 or 255."
CHANNELS = "For a foreign model: rgb or bgr."
FIT = "For a model of one size: tile the frames to it, or resize them."

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Models = Annotated[list[str] | None, typer.Option("-m", "--model", help=MODELS)]
OnBackend = Annotated[str, typer.Option("--backend", help="auto, or one of `velatura doctor`'s.")]
InPrecision = Annotated[Precision, typer.Option("--precision", help="As for `velatura run`.")]
ValueRange = Annotated[Literal["1", "255"] | None, typer.Option("--range", help=RANGE)]
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


def flags_of(value_range: str | None, channels: Literal["rgb", "bgr"] | None) -> CardFlags:
    return CardFlags(value_range=float(value_range) if value_range else None, colour_order=channels)


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
