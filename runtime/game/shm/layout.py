"""The binary layout of a segment, version 1: every offset, size and flag is defined here only.

Little-endian, naturally aligned, offsets from the file's beginning. One header page; then slots of one
stride, each a control page and, for every frame of its ring, the areas of colour, output, motion, depth
and reactivity. Areas are as large as the segment's largest pictures; untouched pages cost
nothing. The page beside `velatura.h` describes the same layout.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, cast

import numpy as np

from ...errors import EngineError

MAGIC = b"VELATURA"
MAJOR, MINOR = 1, 0
PAGE = 4096
RING = 3
"""Frames that a client may have under way."""

STARTING, READY, STOPPING = 1, 2, 3
"""The server's states, for information only: whether it lives is told by its lock."""
FREE, TAKEN = 0, 1
"""A slot's states. Clients take free ones, under their lock; only the server frees."""
NONE, DONE, PASSED, REFUSED = 0, 1, 2, 3
"""The outcomes of a frame."""
RGBA, BGRA = 1, 2
"""Formats of 8-bit sRGB."""
IN_PLACE, OUTPUT = 0, 1
"""The area of a result: the colour area, unchanged, or the output area."""

CUT = 1
MOTION = 2
DEPTH = 4
REACTIVE = 8
FLIPPED = 16
JITTERED = 32
REVERSED = 64
DEVICE_DEPTH = 128
FROM_PREVIOUS = 256
BYPASS = 512
KNOWN = 2 * BYPASS - 1
"""All flags of this version."""

SERVER_LOCK = 1 << 62
"""The byte, beyond every file's end, that the server holds while it lives; the client of slot k holds
the one k + 1 further."""

MOST_SIDE, MOST_SCALE, MOST_SLOTS, MOST_RING = 16384, 8, 256, 15
"""Limits for either side, beyond which a header is invalid."""


def _record(size: int, **members: tuple[int, str]) -> "np.dtype[np.void]":
    return np.dtype(
        {
            "names": list(members),
            "offsets": [offset for offset, _ in members.values()],
            "formats": [kind for _, kind in members.values()],
            "itemsize": size,
        }
    )


HEADER = _record(
    PAGE,
    magic=(0, "V8"),
    version_major=(8, "<u4"),
    version_minor=(12, "<u4"),
    header_bytes=(16, "<u4"),
    slot_count=(20, "<u4"),
    ring=(24, "<u4"),
    state=(28, "<u4"),
    file_bytes=(32, "<u8"),
    slots_offset=(40, "<u8"),
    slot_stride=(48, "<u8"),
    max_width=(56, "<u4"),
    max_height=(60, "<u4"),
    max_scale=(64, "<u4"),
    doorbell=(68, "<u4"),
    server_pid=(72, "<u4"),
    flags=(76, "<u4"),
    session=(80, "<u8"),
    heartbeat_ns=(88, "<u8"),
    title=(96, "V64"),
)
CONTROL = _record(
    128,
    state=(0, "<u4"),
    client_pid=(4, "<u4"),
    client_version=(8, "<u4"),
    generation=(12, "<u4"),
    submitted=(16, "<u4"),
    completed=(20, "<u4"),
    error_count=(24, "<u4"),
    reserved=(28, "<u4"),
    message=(32, "V96"),
)
ENTRIES, ENTRY_BYTES = 128, 256
"""The offset of the ring in a control page, and the size of each entry."""
REQUEST = _record(
    128,
    sequence=(0, "<u8"),
    width=(8, "<u4"),
    height=(12, "<u4"),
    stride=(16, "<u4"),
    format=(20, "<u4"),
    flags=(24, "<u4"),
    motion_width=(28, "<u4"),
    motion_height=(32, "<u4"),
    depth_width=(36, "<u4"),
    depth_height=(40, "<u4"),
    reactive_width=(44, "<u4"),
    reactive_height=(48, "<u4"),
    jitter_x=(52, "<f4"),
    jitter_y=(56, "<f4"),
    motion_scale_x=(60, "<f4"),
    motion_scale_y=(64, "<f4"),
    depth_near=(68, "<f4"),
    depth_far=(72, "<f4"),
    deadline_us=(76, "<u4"),
    submitted_ns=(80, "<u8"),
)
RESULT = _record(
    128,
    result_sequence=(0, "<u8"),
    status=(8, "<u4"),
    out_width=(12, "<u4"),
    out_height=(16, "<u4"),
    out_stride=(20, "<u4"),
    out_area=(24, "<u4"),
    reserved=(28, "<u4"),
    completed_ns=(32, "<u8"),
    work_ms=(40, "<f4"),
)
RESULT_OFFSET = 128
"""The offset of the result in its ring entry; the server's half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A client's request for a frame, as it stands in the ring, unchecked."""

    sequence: int
    width: int
    height: int
    stride: int
    """Bytes from one row of the colour area to the next."""
    format: int
    flags: int = 0
    motion_width: int = 0
    motion_height: int = 0
    depth_width: int = 0
    depth_height: int = 0
    reactive_width: int = 0
    reactive_height: int = 0
    jitter_x: float = 0.0
    jitter_y: float = 0.0
    motion_scale_x: float = 1.0
    motion_scale_y: float = 1.0
    depth_near: float = 0.1
    depth_far: float = 1000.0
    deadline_us: int = 0
    """Microseconds from `submitted_ns` after which nobody waits for it any more; 0 is no limit."""
    submitted_ns: int = 0
    """Nanoseconds of CLOCK_MONOTONIC."""

    @classmethod
    def read(cls, record: "np.ndarray[Any, np.dtype[np.void]]") -> Self:
        """Returns a copy, each field read once: what is checked is then what is used."""
        return cls(**dict(zip(_REQUESTED, record[0].tolist(), strict=True)))

    def write(self, record: "np.ndarray[Any, np.dtype[np.void]]") -> None:
        """Write the request into the ring."""
        record[0] = tuple(getattr(self, name) for name in _REQUESTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The server's result for a frame, as it stands in the ring, unchecked."""

    result_sequence: int
    status: int
    out_width: int
    out_height: int
    out_stride: int
    out_area: int
    reserved: int = 0
    completed_ns: int = 0
    work_ms: float = 0.0

    @classmethod
    def read(cls, record: "np.ndarray[Any, np.dtype[np.void]]") -> Self:
        """Returns a copy, each field read once."""
        return cls(**dict(zip(_RESULTED, record[0].tolist(), strict=True)))

    def write(self, record: "np.ndarray[Any, np.dtype[np.void]]") -> None:
        """Write the result into the ring."""
        record[0] = tuple(getattr(self, name) for name in _RESULTED)


_REQUESTED = tuple(field.name for field in fields(Request))
_RESULTED = tuple(field.name for field in fields(Result))


@dataclass(frozen=True, slots=True)
class Area:
    """A range of the file's bytes."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The places of everything in a segment, computed from its five figures. Raises ValueError for
    invalid figures."""

    slot_count: int
    max_width: int
    max_height: int
    max_scale: int = 1
    """The largest factor from a frame's side to its result's."""
    ring: int = RING

    def __post_init__(self) -> None:
        for name, most in (
            ("slot_count", MOST_SLOTS),
            ("max_width", MOST_SIDE),
            ("max_height", MOST_SIDE),
            ("max_scale", MOST_SCALE),
            ("ring", MOST_RING),
        ):
            value = getattr(self, name)
            if not 1 <= value <= most:
                raise ValueError(f"a segment with {name} {value}: it must be within 1..{most}")

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Bytes of the areas of one ring entry: colour, output, motion, depth, reactivity."""
        pixels = self.max_width * self.max_height
        colour, output, motion = pixels * 4, pixels * 4 * self.max_scale**2, pixels * 8
        return _pages(colour), _pages(output), _pages(motion), _pages(colour), _pages(pixels)

    @property
    def slots_offset(self) -> int:
        return PAGE

    @property
    def slot_stride(self) -> int:
        return PAGE + self.ring * sum(self.sizes)

    @property
    def file_bytes(self) -> int:
        return self.slots_offset + self.slot_count * self.slot_stride

    def slot(self, index: int) -> Area:
        """Returns the whole of a slot; its control page comes first."""
        return Area(self.slots_offset + index * self.slot_stride, self.slot_stride)

    def entry(self, slot: int, turn: int) -> Area:
        """Returns an entry of a slot's ring."""
        return Area(self.slot(slot).offset + ENTRIES + turn * ENTRY_BYTES, ENTRY_BYTES)

    def areas(self, slot: int, turn: int) -> tuple[Area, Area, Area, Area, Area]:
        """Returns colour, output, motion, depth and reactivity of an entry of a slot's ring."""
        sizes = self.sizes
        begin = self.slot(slot).offset + PAGE + turn * sum(sizes)
        found: list[Area] = []
        for size in sizes:
            found.append(Area(begin, size))
            begin += size
        colour, output, motion, depth, reactive = found
        return colour, output, motion, depth, reactive


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A segment's header, checked."""

    layout: Layout
    minor: int
    pid: int
    session: int
    title: str

    def pack(self, state: int) -> bytes:
        """Returns the header page; magic, doorbell and heartbeat are 0."""
        record = np.zeros(1, HEADER)
        layout = self.layout
        for name, value in (
            ("version_major", MAJOR),
            ("version_minor", self.minor),
            ("header_bytes", PAGE),
            ("slot_count", layout.slot_count),
            ("ring", layout.ring),
            ("state", state),
            ("file_bytes", layout.file_bytes),
            ("slots_offset", layout.slots_offset),
            ("slot_stride", layout.slot_stride),
            ("max_width", layout.max_width),
            ("max_height", layout.max_height),
            ("max_scale", layout.max_scale),
            ("server_pid", self.pid),
            ("session", self.session),
        ):
            record[name] = value
        record["title"] = np.void(pack_text(self.title, 64))
        return record.tobytes()

    @classmethod
    def unpack(cls, page: bytes, file_bytes: int) -> "Header":
        """Returns the header in a page, of a file of that size. Raises EngineError for one that is
        invalid, or another version's."""
        check_magic(page)
        found = np.frombuffer(page[:PAGE], HEADER)[0]
        try:
            layout = Layout(
                slot_count=int(found["slot_count"]),
                max_width=int(found["max_width"]),
                max_height=int(found["max_height"]),
                max_scale=int(found["max_scale"]),
                ring=int(found["ring"]),
            )
        except ValueError as error:
            raise EngineError(f"its header is garbage: {error}") from error
        for name, wanted in (
            ("header_bytes", PAGE),
            ("slots_offset", layout.slots_offset),
            ("slot_stride", layout.slot_stride),
            ("file_bytes", layout.file_bytes),
        ):
            if int(found[name]) != wanted:
                raise EngineError(
                    f"its header is garbage: {name} is {int(found[name])}, which should be {wanted}"
                )
        if file_bytes < layout.file_bytes:
            raise EngineError(f"it was cut off: {file_bytes} of {layout.file_bytes} bytes are there")
        return cls(
            layout=layout,
            minor=int(found["version_minor"]),
            pid=int(found["server_pid"]),
            session=int(found["session"]),
            title=unpack_text(found["title"].tobytes()),
        )


def check_magic(page: bytes) -> None:
    """Raise EngineError where a header page is invalid, or another major version's."""
    if page[: len(MAGIC)] != MAGIC:
        raise EngineError("it is no segment of velatura: its first bytes are not VELATURA")
    if len(page) < PAGE:
        raise EngineError(f"it has {len(page)} bytes, too few for a header")
    found = np.frombuffer(page[:PAGE], HEADER)[0]
    major, minor = int(found["version_major"]), int(found["version_minor"])
    if major != MAJOR:
        raise EngineError(
            f"the server speaks version {major}.{minor} of the layout, this client "
            f"{MAJOR}.{MINOR}: install the same release of velatura on both sides"
        )


def member(kind: "np.dtype[np.void]", name: str) -> tuple[int, int]:
    """Returns offset and size of a member of a record."""
    members = cast("Mapping[str, tuple[np.dtype[Any], int]]", kind.fields)
    inner, offset = members[name][:2]
    return offset, inner.itemsize


def pack_text(text: str, size: int) -> bytes:
    """Returns UTF-8 that ends in NUL, cut between two characters where it is too long."""
    data = text.encode("utf-8", "replace")[: size - 1]
    return data.decode("utf-8", "ignore").encode().ljust(size, b"\0")


def unpack_text(data: bytes) -> str:
    """Returns the text before the first NUL, whatever stands there; nothing in it moves a terminal's
    cursor."""
    text = data.partition(b"\0")[0].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _pages(size: int) -> int:
    return -(-size // PAGE) * PAGE
