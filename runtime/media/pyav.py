"""The differences between PyAV 18 and PyAV 19, in one place.

PyAV 18 raises an error at metadata in another encoding than UTF-8 unless it is told to replace what it
cannot read; PyAV 19 does so by itself and no longer takes the option. PyAV 19 gives rational numbers of
its own where PyAV 18 gives a `Fraction` or None.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, BinaryIO

import av
from av.container import InputContainer

MAJOR = int(av.__version__.partition(".")[0])

# Names in another encoding than UTF-8 must not prevent reading the film.
_READING: Mapping[str, Any] = {} if MAJOR >= 19 else {"metadata_errors": "replace"}


def open_input(file: str | BinaryIO | Any, **options: Any) -> InputContainer:
    """Opens a container for reading: a path, an address, or an object with `read`.

    `options` are those of `av.open`. Raises av.FFmpegError where it cannot be opened.
    """
    container: InputContainer = av.open(file, "r", **_READING, **options)
    return container


def ratio(value: Any) -> Fraction | None:
    """Returns a rate, time base or aspect of PyAV as a fraction; None for 0/1, which is unknown."""
    return Fraction(value.numerator, value.denominator) if value else None
