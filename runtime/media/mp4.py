"""What FFmpeg's muxer of MP4 and MOV is not told of: boxes of a sample entry.

FFmpeg writes them from side data of the stream, which PyAV does not set. Room is therefore reserved in
the name of the track's handler, and the boxes take its place when the file is finished; no other byte
moves.
"""

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..frame import Hdr, Spherical
from .side_data import STEREO_BOX, Carried

_ROOM = " " * 176
_PASCAL = 255
"""Bytes of a handler's name at most, in MOV."""
_ENTRY = 86
"""Bytes of a video's sample entry before its boxes, its head included (ISO/IEC 14496-12, 12.1.3)."""

Box = tuple[bytes, bytes]
"""Name and contents."""


def reserve(stream: Any) -> None:
    """Make room in a stream's header before it is written."""
    name = stream.metadata.get("handler_name", "VideoHandler").encode()[: _PASCAL - len(_ROOM)]
    stream.metadata["handler_name"] = name.decode(errors="ignore") + _ROOM


def state(file: BinaryIO, carried: Carried) -> None:
    """Write boxes into a finished file with room for them.

    A file of another structure is left unchanged; the verification then finds that they are missing.
    """
    boxes = b"".join(_boxes_of(carried))
    file.seek(0)
    while len(head := file.read(16)) >= 8:
        start, size = file.tell() - len(head), int.from_bytes(head[:4], "big")
        size = int.from_bytes(head[8:16], "big") if size == 1 else size
        if head[4:8] == b"moov":
            file.seek(start + 8)
            contents = file.read(size - 8)
            changed = _rewritten(contents, boxes)
            if len(changed) == len(contents):
                file.seek(start + 8)
                file.write(changed)
            return
        if size < 8:
            return
        file.seek(start + size)


def _rewritten(moov: bytes, boxes: bytes) -> bytes:
    """Returns the contents of moov with boxes in the entry of the track that has room for them."""
    return b"".join(
        _box(name, _media(data, boxes) if name == b"trak" else data) for name, data in _inside(moov)
    )


def _media(track: bytes, boxes: bytes) -> bytes:
    parts = list(_inside(track))
    media = dict(parts).get(b"mdia", b"")
    handler = dict(_inside(media)).get(b"hdlr", b"")
    # FFmpeg gives the track of a timecode the same name.
    if _ROOM.encode() not in handler:
        return track
    changed = b""
    for name, data in _inside(media):
        if name == b"hdlr":
            before, _, after = data.partition(_ROOM.encode())
            # MOV tells a name's length before it, MP4 ends it with a 0.
            pascal = not after
            named = before[:24] + bytes([len(before) - 25]) + before[25:] if pascal else before
            data = named + after
        elif name == b"minf" and handler[8:12] == b"vide":
            data = _within(data, [b"stbl", b"stsd"], boxes)
        changed += _box(name, data)
    left = len(media) - len(changed) - 8
    changed += _box(b"free", bytes(left)) if left >= 0 else b""
    return b"".join(_box(name, changed if name == b"mdia" else data) for name, data in parts)


def _within(data: bytes, path: list[bytes], boxes: bytes) -> bytes:
    """Returns boxes with the one at `path` changed, in whose first entry the new ones come last."""
    if path:
        return b"".join(
            _box(name, _within(inner, path[1:], boxes) if name == path[0] else inner)
            for name, inner in _inside(data)
        )
    size = int.from_bytes(data[8:12], "big")
    entry = data[8 : 8 + size]
    # Some entries of MOV end with four zeros.
    end = _ENTRY
    while end + 8 <= size and (step := int.from_bytes(entry[end : end + 4], "big")) >= 8:
        end += step
    entry = entry[:end] + boxes + entry[end:]
    return data[:8] + len(entry).to_bytes(4, "big") + entry[4:] + data[8 + size :]


def _boxes_of(carried: Carried) -> Iterator[bytes]:
    if carried.stereo is not None:
        yield _box(b"st3d", bytes(4) + bytes([STEREO_BOX[carried.stereo.layout]]))
    if carried.spherical is not None:
        yield _sphere(carried.spherical)
    if carried.hdr is not None:
        yield from _light(carried.hdr)
    if carried.ambient is not None:
        # In 0.0001 lux and 0.00002 of x and y (ISO/IEC 14496-12, 12.1.5.5).
        light, x, y = (
            round(n * u) for n, u in zip(carried.ambient, (10_000, 50_000, 50_000), strict=True)
        )
        yield _box(b"amve", struct.pack(">IHH", light, x, y))


def _sphere(spherical: Spherical) -> bytes:
    """Returns the box sv3d (Google's Spherical Video V2)."""
    turns = struct.pack(">3i", spherical.yaw, spherical.pitch, spherical.roll)
    if spherical.projection == "cubemap":
        shape = _box(b"cbmp", bytes(4) + struct.pack(">2I", 0, spherical.padding))
    else:
        left, top, right, bottom = spherical.bounds
        shape = _box(b"equi", bytes(4) + struct.pack(">4I", top, bottom, left, right))
    projection = _box(b"proj", _box(b"prhd", bytes(4) + turns) + shape)
    return _box(b"sv3d", _box(b"svhd", bytes(4) + b"\0") + projection)


def _light(hdr: Hdr) -> Iterator[bytes]:
    """Yields the boxes mdcv and clli, in the units of SMPTE ST 2086."""
    if hdr.red and hdr.green and hdr.blue and hdr.white and hdr.luminance:
        points = [part for point in (hdr.green, hdr.blue, hdr.red, hdr.white) for part in point]
        dark, bright = hdr.luminance
        chroma = struct.pack(">8H", *(round(part * 50_000) for part in points))
        yield _box(b"mdcv", chroma + struct.pack(">2I", round(bright * 10_000), round(dark * 10_000)))
    if hdr.max_cll or hdr.max_fall:
        yield _box(b"clli", struct.pack(">2H", hdr.max_cll or 0, hdr.max_fall or 0))


def _inside(data: bytes) -> Iterator[Box]:
    """Yields the boxes of one that holds boxes only."""
    place = 0
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if size < 8:
            return
        yield data[place + 4 : place + 8], data[place + 8 : place + size]
        place += size


def _box(name: bytes, data: bytes) -> bytes:
    return (len(data) + 8).to_bytes(4, "big") + name + data
