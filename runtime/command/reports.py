"""Files that a measurement is written to: refused before it, not after it."""

import tempfile
from pathlib import Path

from ..cache import write_whole
from ..errors import SinkError


def make_room(*paths: Path | None) -> None:
    """Make the folders of those that are given, and try whether each file can be made there.

    Raises SinkError where one cannot, or where what has its name is no file.
    """
    for path in filter(None, paths):
        try:
            if path.is_dir():
                raise SinkError(f"{path} is a folder: name a file in it")
            if path.exists() and not path.is_file():
                # A file that appears whole takes the place of what was there, of a device, too.
                raise SinkError(f"{path} is not a file, and would be replaced by one")
            path.parent.mkdir(parents=True, exist_ok=True)
            # With the name of `write_whole`, which may be too long.
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
                pass
        except OSError as error:
            raise _refusal(path, error) from error


def write_report(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all. Raises SinkError."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: OSError) -> SinkError:
    return SinkError(f"{path} cannot be written: {error.strerror or error}")
