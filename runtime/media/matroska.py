"""What FFmpeg neither writes nor tells of Matroska files: the shape of pixels, a projection, mastering
metadata, and a file's lost end.

FFmpeg's muxer takes them from fields of the stream that PyAV does not set. Room is therefore reserved
in the track's name, and the elements that state the displayed size and the rest (RFC 9559, 5.1.4.1.28)
are put in its place when the file is finished; no other byte moves.
"""

import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO

from ..frame import Hdr, Spherical, Stereo
from .side_data import MATROSKA, STEREO_MODES, Carried

KINDS = MATROSKA
"""FFmpeg's names of the containers concerned."""

SMALL = 200
"""Pixels of a side below which rounding the displayed size is off by more than 1/4 of a percent."""

_ROOM = " " * 220
_SEGMENT, _TRACKS, _ENTRY, _CRC, _VOID = 0x18538067, 0x1654AE6B, 0xAE, 0xBF, 0xEC
_CLUSTER = 0x1F43B675
_NAME, _VIDEO = 0x536E, 0xE0
_WIDTH, _HEIGHT, _UNIT = 0x54B0, 0x54BA, 0x54B2
_PROJECTION, _COLOUR, _MASTERING = 0x7670, 0x55B0, 0x55D0
_PER_EYE = {"side by side": (2, 1), "top and bottom": (1, 2), "columns": (2, 1), "rows": (1, 2)}
"""How often the displayed size, which is that of one eye, fits into a stereoscopic picture."""

Element = tuple[int, bytes, bytes]
"""An EBML element: identifier, head as it is coded, contents."""


def reserve(stream: Any, stereo: Stereo | None = None) -> None:
    """Make room in a stream's header before it is written, which states the pictures of two eyes."""
    stream.metadata["title"] = stream.metadata.get("title", "") + _ROOM
    if stereo is not None:
        stream.metadata["stereo_mode"] = STEREO_MODES[stereo.layout, stereo.inverted]


def state(
    file: BinaryIO, aspect: Fraction, size: tuple[int, int], carried: Carried | None = None
) -> None:
    """Write the displayed size of pictures of `size`, and other facts, into a finished file with room
    for them.

    A file of another structure is left unchanged; the verification then finds what is missing.
    """
    # Whole numbers tell the shape of a small picture in a larger one only.
    width, height = (side * (8 if min(size) < SMALL and aspect != 1 else 1) for side in size)
    shown = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    carried = carried or Carried()
    if carried.stereo is not None:
        across, down = _PER_EYE.get(carried.stereo.layout, (1, 1))
        shown = (max(shown[0] // across, 1), max(shown[1] // down, 1))
    for start, length in _places(file):
        file.seek(start)
        tracks, changed, summed = file.read(length), b"", False
        for identifier, head, data in _elements(tracks):
            summed |= identifier == _CRC
            if identifier != _CRC:
                changed += head + (_entry(data, shown, carried) if identifier == _ENTRY else data)
        if summed:
            changed = _coded(_CRC, zlib.crc32(changed).to_bytes(4, "little")) + changed
        if len(changed) == len(tracks):
            file.seek(start)
            file.write(changed)


def is_cut(file: BinaryIO) -> bool:
    """Returns whether the file ends within or after a cluster (its pictures and sound) though its
    segment goes on, which FFmpeg's demuxer takes for the end.

    A segment or cluster without a stated length, as live streams have, promises nothing.
    """
    size = file.seek(0, 2)
    file.seek(0)
    within, last, end = 0, 0, 0
    while (head := _head(file)) is not None:
        last, length = head
        if length is None:
            return False
        end = file.tell() + length
        if last == _SEGMENT:
            within = end
        elif end >= size:
            break
        else:
            file.seek(end)
    return last == _CLUSTER and size < max(end, within)


def _entry(data: bytes, shown: tuple[int, int], carried: Carried) -> bytes:
    """Returns a track's entry with its displayed size and the rest, if there is room for it."""
    elements = [(identifier, value) for identifier, _, value in _elements(data)]
    if not any(one == _NAME and name.endswith(_ROOM.encode()) for one, name in elements):
        return data
    changed: list[bytes] = []
    for identifier, value in elements:
        if identifier == _NAME:
            name = value.decode().removesuffix(_ROOM)
            changed += [_coded(identifier, name.encode())] if name else []
        elif identifier == _VIDEO:
            stated = (_WIDTH, _HEIGHT, _UNIT)
            rest = [(one, of) for one, _, of in _elements(value) if one not in stated]
            rest += [(_WIDTH, _number(shown[0])), (_HEIGHT, _number(shown[1]))]
            if carried.spherical is not None:
                rest.append((_PROJECTION, _projection(carried.spherical)))
            if carried.hdr is not None:
                light = _light(carried.hdr)
                colour = next((of for one, of in rest if one == _COLOUR), b"")
                rest = [(one, of) for one, of in rest if one != _COLOUR] + [(_COLOUR, colour + light)]
            changed.append(_coded(identifier, b"".join(_coded(*element) for element in rest)))
        else:
            changed.append(_coded(identifier, value))
    found = b"".join(changed)
    left = len(data) - len(found) - 3
    return found + bytes([_VOID, 0x40 | left >> 8, left & 255]) + bytes(left) if left >= 0 else data


def _projection(spherical: Spherical) -> bytes:
    """Returns the contents of a Projection; private are those of MP4's boxes equi and cbmp."""
    cube = spherical.projection == "cubemap"
    left, top, right, bottom = spherical.bounds
    private = (0, spherical.padding) if cube else (top, bottom, left, right)
    turns = (spherical.yaw, spherical.pitch, spherical.roll)
    elements = [
        (0x7671, bytes([2 if cube else 1])),
        (0x7672, struct.pack(f">{1 + len(private)}I", 0, *private)),
    ]
    elements += [(0x7673 + n, struct.pack(">f", turn / 65536)) for n, turn in enumerate(turns)]
    return b"".join(_coded(*element) for element in elements)


def _light(hdr: Hdr) -> bytes:
    """Returns the elements of Colour with light levels and mastering metadata."""
    levels = ((0x55BC, hdr.max_cll), (0x55BD, hdr.max_fall))
    found = b"".join(_coded(identifier, _number(level)) for identifier, level in levels if level)
    if hdr.red and hdr.green and hdr.blue and hdr.white and hdr.luminance:
        points = [part for point in (hdr.red, hdr.green, hdr.blue, hdr.white) for part in point]
        # From red's x up: chromaticities, then the brightest and the darkest.
        numbers = [*points, *reversed(hdr.luminance)]
        parts = (_coded(0x55D1 + n, struct.pack(">d", part)) for n, part in enumerate(numbers))
        found += _coded(_MASTERING, b"".join(parts))
    return found


def _places(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yields the offset and the length of the contents of the Tracks element."""
    file.seek(0)
    while (head := _head(file)) is not None:
        identifier, length = head
        if identifier == _TRACKS:
            yield file.tell(), length or 0
            return
        if identifier != _SEGMENT:
            file.seek(length or 0, 1)


def _head(file: BinaryIO) -> tuple[int, int | None] | None:
    """Reads the identifier and the length of an element, None for an unknown one; None at the end."""
    start = file.tell()
    data = file.read(12)
    if len(data) < 2 or not data[0]:
        return None
    identifier, size = _raw(data), 9 - data[0].bit_length()
    if len(data) <= size or not data[size]:
        return None
    length, width = _length(data[size:])
    file.seek(start + size + width)
    return identifier, None if length == (1 << 7 * width) - 1 else length


def _elements(data: bytes) -> Iterator[Element]:
    place = 0
    while place < len(data):
        identifier, size = _raw(data[place:]), 9 - data[place].bit_length()
        length, width = _length(data[place + size :])
        begin = place + size + width
        yield identifier, data[place:begin], data[begin : begin + length]
        place = begin + length


def _raw(data: bytes) -> int:
    """Returns the identifier at the start of the data; its first byte tells its length."""
    return int.from_bytes(data[: 9 - data[0].bit_length()], "big")


def _length(data: bytes) -> tuple[int, int]:
    """Returns a coded length and the number of bytes that code it."""
    width = 9 - data[0].bit_length()
    return int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1), width


def _coded(identifier: int, data: bytes) -> bytes:
    name = identifier.to_bytes(-(-identifier.bit_length() // 8), "big")
    width = next(w for w in range(1, 9) if len(data) < (1 << 7 * w) - 1)
    return name + (len(data) | 1 << 7 * width).to_bytes(width, "big") + data


def _number(value: int) -> bytes:
    return value.to_bytes(-(-value.bit_length() // 8), "big")
