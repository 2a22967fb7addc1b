"""What the commands' options have in common: their types, their checks, and how a command fails."""

import json
from fractions import Fraction
from typing import Annotated, Any, NoReturn

import typer

from ..card import CardFlags
from ..errors import SourceError, VelaturaError

PRECISIONS = ("auto", "fp32", "fp16", "bf16", "int8", "int8-bf16")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
ValueRange = Annotated[str | None, typer.Option("--range", help="For a foreign model: 1 or 255.")]
Channels = Annotated[str | None, typer.Option(help="For a foreign model: rgb or bgr.")]
Fitting = Annotated[
    str, typer.Option(help="For a model of one size: tile the frames to it, or resize them.")
]


class reporting:  # noqa: N801 - reads as a verb
    """Errors made on purpose become one line and their exit code; bugs keep their traceback."""

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
