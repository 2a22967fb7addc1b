"""Names of segments, and the one folder in which they lie."""

import re
from pathlib import Path

FOLDER = Path("/dev/shm")
PREFIX = "velatura-"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def check_name(name: str) -> str:
    """The name. Raises ValueError for one that is too long, or could lead out of the folder."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for shared memory: up to 64 letters, digits, dots, dashes and "
            "underscores, neither dot nor dash first"
        )
    return name


def segment_path(name: str) -> Path:
    """Where the segment of that name lies. Raises ValueError for a bad name."""
    return FOLDER / f"{PREFIX}{check_name(name)}"
