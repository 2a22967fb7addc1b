"""Address: the parsed URI of a live source."""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl

from ..errors import SourceError
from .base import FASTEST
from .live_kinds import LIVE_KINDS, kind_of


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a live source's URI; options in the URI override those given beside it."""

    uri: str
    kind: str
    """A key of `LIVE_KINDS`."""
    place: str
    """The part after `camera:` and the like; of a stream, the address that FFmpeg gets."""
    options: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Returns the parsed URI. Raises SourceError for options that this kind of source lacks."""
        kind = kind_of(uri)
        if kind == "file":
            if _exists(uri):
                return cls(uri, kind, uri)
            scheme, _, rest = uri.partition(":")
            path = rest.removeprefix("//") if scheme.lower() == "file" else uri
            place, options = _split(path, kind, strict=not path.startswith("pattern:"))
            return cls(uri, kind, place, options)
        whole = LIVE_KINDS[kind].network or uri.startswith("/")
        text = uri if whole else uri.partition(":")[2]
        return cls(uri, kind, *_split(text, kind, strict=LIVE_KINDS[kind].strict))

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


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError) as error:  # too long, or of signs that no name has
        raise SourceError(f"{path!r} names no file: {error}") from error


def _split(text: str, kind: str, *, strict: bool) -> tuple[str, dict[str, str]]:
    """Returns the part before the options, and the options; options of others stay in place."""
    place, sign, query = text.rpartition(LIVE_KINDS[kind].sign)
    if not sign:
        return text, {}
    pairs = parse_qsl(query, keep_blank_values=True)
    keys = LIVE_KINDS[kind].options
    ours = {key: value for key, value in pairs if key in keys}
    others = [(key, value) for key, value in pairs if key not in keys]
    if strict and (others or not pairs):
        wrong = ", ".join(key for key, _ in others) or repr(query)
        raise SourceError(f"{text}: no option {wrong}; there are {', '.join(keys)}")
    rest = "&".join(f"{key}={value}" for key, value in others)
    if not ours:
        return text, {}
    return place + (sign + rest if rest else ""), ours
