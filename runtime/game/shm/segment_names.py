"""Names of segments, and the folder that contains them."""

import re
from pathlib import Path

FOLDER = Path("/dev/shm")
PREFIX = "velatura-"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def check_name(name: str) -> str:
    """Returns the name. Raises ValueError for one that is too long, or could lead out of the folder."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for shared memory: up to 64 letters, digits, dots, dashes and "
            "underscores, neither dot nor dash first"
        )
    return name


def segment_path(name: str) -> Path:
    """Returns the path of the segment of that name. Raises ValueError for a bad name."""
    return FOLDER / f"{PREFIX}{check_name(name)}"
