"""Choices: what a page may ask of a render, checked, and the job that follows from it."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

from ..jobs.batch import Suffixes
from ..jobs.job import FLAGS, Job
from ..media.codecs import CODECS, ENCODERS
from ..media.options import Quality
from ..web.panel import CHAIN, RubbishError
from ..zoo import named_models

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm")
"""The kinds of file that a page may ask for."""
CODEC_NAMES = ("auto", "h264", "hevc", "av1", "vp9")
"""The codecs that a page may ask for, as `--codec` names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """A page's choices."""

    fields: Mapping[str, Any]
    """Values of `Job`'s fields, by their names; all others are the job's usual ones."""
    suffix: str
    """Of the output."""

    @classmethod
    def parse(cls, given: Any) -> "Choices":
        """Returns the choices of a JSON object. Raises RubbishError for all but those in `CHECKS`."""
        if not isinstance(given, dict):
            raise RubbishError("the choices must be a JSON object")
        rest = dict(cast("dict[str, Any]", given))
        suffix = rest.pop("suffix", SUFFIXES[0])
        if suffix not in SUFFIXES:
            raise RubbishError(f"suffix must be one of: {', '.join(SUFFIXES)}")
        unknown = [name for name in rest if name not in CHECKS]
        if unknown:
            raise RubbishError(f"no choice {', '.join(unknown)}; there are: {', '.join(CHECKS)}")
        fields = {name: CHECKS[name](name, value) for name, value in rest.items() if value is not None}
        return cls(fields=fields, suffix=suffix)

    @classmethod
    def from_json(cls, held: Mapping[str, Any]) -> "Choices":
        """Returns the choices that `to_json` gave."""
        fields = dict(held["fields"])
        fields["models"] = tuple(fields.get("models", ()))
        return cls(fields=fields, suffix=held["suffix"])

    def to_json(self) -> dict[str, Any]:
        """Returns them as they are kept."""
        return {"fields": dict(self.fields), "suffix": self.suffix}

    @property
    def models(self) -> tuple[str, ...]:
        """The chain of models."""
        return self.fields.get("models", ())

    def job(self, source: Path, sink: Path) -> Job:
        """Returns the job of a file."""
        return Job(source=str(source), sink=str(sink), **self.fields)

    def check(self) -> None:
        """Raise SinkError for an encoder, or its options, that such a file cannot have."""
        Suffixes(self.suffix, self.job(Path(), Path()).encoding)


def _models(name: str, value: Any) -> tuple[str, ...]:
    found = cast("list[Any]", value) if isinstance(value, list) else []
    if not isinstance(value, list) or len(found) > CHAIN:
        raise RubbishError(f"{name} must be a list of at most {CHAIN} names")
    known = named_models()
    # A name, never a path: a page opens no other file of this machine.
    unknown = [one for one in found if not isinstance(one, str) or one not in known]
    if unknown:
        raise RubbishError(f"no model {unknown[0]!r}; there are: {', '.join(known)}")
    return tuple(cast("list[str]", found))


def _one_of(*names: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if value not in names:
            raise RubbishError(f"{name} must be one of: {', '.join(names)}")
        return value

    return check


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 63:
        raise RubbishError(f"{name} must be a whole number from 0 to 63")
    return value


def _word(name: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]{1,16}", value):
        raise RubbishError(f"{name} must be a word")
    return value


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RubbishError(f"{name} must be true or false")
    return value


def _part(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RubbishError(f"{name} must be a number from 0 to 1")
    # NaN fails both comparisons; an integer may be too large to become a float.
    if not 0 <= value <= 1 or not math.isfinite(value):
        raise RubbishError(f"{name} must be a number from 0 to 1")
    return float(value)


def _mixed() -> dict[str, Callable[[str, Any], Any]]:
    """Returns the checks of what mixes a result with the original, as far as a run has it."""
    names = [name for name in ("strength", "keep_colours") if name in FLAGS]
    return {name: _switch if _is_switch(name) else _part for name in names}


def _is_switch(name: str) -> bool:
    hint = get_type_hints(Job)[name]
    return bool in (hint, *get_args(hint))


CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "models": _models,
    **_mixed(),
    "stabilize": _part,
    "quality": _one_of(*get_args(Quality)),
    "codec": _one_of(*CODEC_NAMES),
    "crf": _whole,
    "preset": _word,
    "audio": _switch,
}
"""What a page may choose, by the names of `Job`'s fields, and what checks it."""


def offered() -> dict[str, Any]:
    """Returns what a page needs to know to offer the choices."""
    codecs = [CODECS[ENCODERS[name]] for name in CODEC_NAMES[1:]]
    return {
        "mixed": [
            {"name": name, "switch": _is_switch(name), "help": FLAGS[name].help} for name in _mixed()
        ],
        "suffixes": list(SUFFIXES),
        "qualities": list(get_args(Quality)),
        "codecs": [
            {
                "name": codec.plain,
                "crf": None if codec.crf is None else codec.crf[1:],
                "presets": list(codec.presets),
            }
            for codec in codecs
        ],
    }
