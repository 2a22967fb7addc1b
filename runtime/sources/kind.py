"""Kinds of sources: what a line of the table says, what a kind's module offers, and addresses."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol, Self
from urllib.parse import parse_qsl

from ..errors import SourceError
from ..media.options import Deinterlace
from .base import FASTEST, Source
from .live import LiveSource


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A line of the table: how a kind is recognised, before the libraries of its module are loaded."""

    name: str
    module: str
    """The `SourceModule` in this package."""
    run: str = ""
    """What the help of `velatura run` shows of its addresses; empty for what does not wait.

    What waits is played at its own pace where it must not wait (`paced`)."""
    live: str = ""
    """What the help of `velatura live` shows."""
    schemes: tuple[str, ...] | None = None
    """What stands before the colon of an address, in lower case; None is its name alone."""
    network: bool = False
    """Whether `//` must follow the colon; the module then gets the whole address."""
    names: Callable[[str], bool] | None = None
    """Returns whether an address without a scheme is of this kind."""
    sign: Literal["?", "#"] = "?"
    """What stands before the options of an address."""
    strict: bool = True
    """Whether what reads as options of no known key is refused, rather than taken for a name's part."""
    timed: bool = True
    """Whether frames have times of their own; else they get the rate that is asked for."""
    devices: str = ""
    """The heading of its devices in `velatura devices`; empty where there is nothing to list."""

    def takes(self, uri: str) -> bool:
        """Returns whether an address is of this kind."""
        if self.names is not None and self.names(uri):
            return True
        scheme, colon, rest = uri.partition(":")
        schemes = (self.name,) if self.schemes is None else self.schemes
        named = bool(colon) and scheme.lower() in schemes
        return named and (not self.network or rest.startswith("//"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a source that waits is read."""

    rate: Fraction | None = None
    """The rate of pictures that have none of their own."""
    deinterlace: Deinterlace = "auto"
    video_stream: int | None = None
    """Index in the file; None is FFmpeg's choice."""
    audio_stream: int | None = None
    """Index in the file of the only sound that passes; None is all sound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device, or another thing of this machine, that can be captured."""

    name: str
    """Its address: `camera:0`."""
    title: str | None = None
    """Its own name, empty where it has none; None for kinds that have none, as in the other fields."""
    device: str | None = None
    """Its file on Linux, its number elsewhere."""
    size: str | None = None
    problem: str | None = None
    """The reason why it cannot be opened now."""

    def to_json(self) -> dict[str, str]:
        """Returns the fields that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class SourceModule(Protocol):
    """The module of a kind: has `open_waiting` for what waits for its reader, else all the rest."""

    OPTIONS: tuple[str, ...]
    """The keys that a live address may set."""

    def open_waiting(self, uri: str, reading: Reading, /) -> Source:
        """Open it. Raises SourceError."""
        ...

    def open_live(self, address: "Address", *, options: Mapping[str, str], keep: bool) -> LiveSource:
        """Open it and wait for its first picture; `options` are FFmpeg's. Raises SourceError."""
        ...

    def list_devices(self, kind: str) -> list[Device]:
        """Returns what there is of the kind of that name; only asked of kinds with `devices`.

        Raises SourceError with the reason why there can be none."""
        ...


CONNECTION = ("patience", "retries", "stall")
"""Options of what is waited for, and opened again."""


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a live source's URI; options in the URI override those given beside it."""

    uri: str
    kind: SourceKind
    place: str
    """The part after `camera:` and the like; of a stream, the address that FFmpeg gets."""
    options: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def parse(cls, uri: str, kind: SourceKind, keys: tuple[str, ...]) -> Self:
        """Returns the parsed URI of a kind whose options are `keys`. Raises SourceError for others."""
        whole = kind.network or uri.startswith("/")
        text = uri if whole else uri.partition(":")[2]
        return cls(uri, kind, *_split(text, kind, keys))

    def given(self, **values: object) -> Self:
        """Returns the address with these values for options that the URI does not set."""
        words = {"rate": "fps"}
        found = {
            words.get(name, name): "x".join(map(str, value)) if isinstance(value, tuple) else str(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            for name, value in values.items()
            if value is not None
        }
        return replace(self, options=found | self.options)

    def size(self) -> tuple[int, int] | None:
        """Returns (1280, 720) for `size=1280x720`; None unless given."""
        text = self.options.get("size")
        if text is None:
            return None
        parts = text.lower().split("x")
        if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise SourceError(f"{self.uri}: the size {text!r} is not WIDTHxHEIGHT")
        return int(parts[0]), int(parts[1])

    def rate(self) -> Fraction | None:
        """Returns the rate of `fps=30`, `fps=30000/1001` or `fps=29.97`; None unless given."""
        text = self.options.get("fps")
        if text is None:
            return None
        try:
            rate = Fraction(text)
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if not 0 < rate <= FASTEST:
            raise SourceError(f"{self.uri}: fps={text} is no frame rate above 0 and at most {FASTEST}")
        return rate

    def number(self, key: str, default: float) -> float:
        """Returns a number above 0."""
        text = self.options.get(key)
        try:
            value = default if text is None else float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise SourceError(f"{self.uri}: {key}={text} is not a number above 0")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Returns the value of `key=1` or `key=0`."""
        text = self.options.get(key)
        if text is not None and text not in ("0", "1"):
            raise SourceError(f"{self.uri}: {key}={text} is neither 0 nor 1")
        return default if text is None else text == "1"

    def retries(self) -> int | None:
        """Returns how many attempts in a row may fail; None is unlimited."""
        text = self.options.get("retries")
        if text is not None and not text.isdigit():
            raise SourceError(f"{self.uri}: retries={text} is not a number of attempts")
        return None if text is None else int(text)

    def choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        """Returns an option's value, which must be one of `choices`; None unless given."""
        text = self.options.get(key)
        if text is not None and text not in choices:
            raise SourceError(f"{self.uri}: {key}={text} is not {' or '.join(choices)}")
        return text


def file_address(
    uri: str, kind: SourceKind, keys: tuple[str, ...], *, inner: Callable[[str], SourceKind]
) -> Address:
    """Returns the parts of the address of what waits: `file:` may stand before it, and options behind.

    What exists under the whole name has none; `inner` gives the kind of the name alone. Raises
    SourceError for options other than `keys`.
    """
    if _exists(uri):
        return Address(uri, kind, uri)
    scheme, _, rest = uri.partition(":")
    path = rest.removeprefix("//") if scheme.lower() == "file" else uri
    return Address(uri, kind, *_split(path, inner(path), keys))


def is_video_device(uri: str) -> bool:
    """Returns whether it is the path of a camera on Linux."""
    return uri.startswith("/dev/video")


def is_sequence(text: str) -> bool:
    """Returns whether a name stands for a numbered (`%05d`) or globbed set of pictures, and is no
    file."""
    return not Path(text).exists() and any(sign in Path(text).name for sign in "%*?[")


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError) as error:  # too long, or of signs that no name has
        raise SourceError(f"{path!r} names no file: {error}") from error


def _split(text: str, kind: SourceKind, keys: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Returns the part before the options, and the options; options of others stay in place."""
    place, sign, query = text.rpartition(kind.sign)
    if not sign:
        return text, {}
    pairs = parse_qsl(query, keep_blank_values=True)
    ours = {key: value for key, value in pairs if key in keys}
    others = [(key, value) for key, value in pairs if key not in keys]
    if kind.strict and (others or not pairs):
        wrong = ", ".join(key for key, _ in others) or repr(query)
        raise SourceError(f"{text}: no option {wrong}; there are {', '.join(keys)}")
    rest = "&".join(f"{key}={value}" for key, value in others)
    if not ours:
        return text, {}
    return place + (sign + rest if rest else ""), ours
