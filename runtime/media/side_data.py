"""Side data of a video: reading it, and which of it an output carries."""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ..frame import Hdr, SideData, Spherical, Stereo, VideoInfo
from .codecs import codec_of, spoken
from .pixel_format import side_bytes

_SPHERICAL = struct.Struct("=4i5I")
"""FFmpeg's AVSphericalMapping: projection, yaw, pitch, roll; bounds and padding."""
_STEREO = struct.Struct("=2i")
"""The beginning of AVStereo3D: layout and flags."""
_INVERTED = 1
_AMBIENT = struct.Struct("=6i")
"""AVAmbientViewingEnvironment: three fractions."""

PROJECTIONS = (
    "equirectangular", "cubemap", "equirectangular", "half equirectangular", "rectilinear", "fisheye",
    "parametric immersive",
)  # fmt: skip
"""Projections by FFmpeg's numbers; the third is a part of the first."""
LAYOUTS = (
    "", "side by side", "top and bottom", "alternating frames", "checkerboard",
    "side by side of a quincunx", "rows", "columns", "two eyes of an unspecified layout",
)  # fmt: skip
"""Layouts of stereoscopic pictures by FFmpeg's numbers."""

_OTHERS = {
    Type.AFD: "active format description",
    Type.ICC_PROFILE: "colour profile (ICC)",
    Type.S12M_TIMECODE: "timecode of single frames (SMPTE ST 12-1)",
    Type.FILM_GRAIN_PARAMS: "film grain parameters",
    Type.REGIONS_OF_INTEREST: "regions of interest",
    Type.DETECTION_BBOXES: "marks of detected objects",
}
"""Side data that nothing here writes, and that is no fact about the coding alone."""


def read_side_data(
    container: InputContainer, stream: VideoStream, first: Sequence[VideoFrame]
) -> SideData:
    """Returns what a file and its first frames state; at least one frame must be given."""
    timecode = next(
        (
            value
            for metadata in (stream.metadata, container.metadata)
            for name, value in metadata.items()
            if name.lower() == "timecode"
        ),
        "",
    )
    names = [name for kind, name in _OTHERS.items() if any(side_bytes(one, kind) for one in first)]
    return SideData(
        spherical=_spherical(side_bytes(first[0], Type.SPHERICAL)),
        stereo=_stereo(side_bytes(first[0], Type.STEREO3D)),
        ambient=_ambient(side_bytes(first[0], Type.AMBIENT_VIEWING_ENVIRONMENT)),
        timecode=timecode,
        captions=any(side_bytes(frame, Type.A53_CC) for frame in first),
        others=tuple(dict.fromkeys(names)),
    )


def stated(container: InputContainer, stream: VideoStream, frame: VideoFrame) -> frozenset[str]:
    """Returns the names of what a file states, by one of its frames, as in `Carried.names`."""
    side = read_side_data(container, stream, [frame])
    parts = {
        "spherical projection": side.spherical,
        "stereoscopic layout": side.stereo,
        "ambient light": side.ambient,
        "mastering display": side_bytes(frame, Type.MASTERING_DISPLAY_METADATA),
        "light levels": side_bytes(frame, Type.CONTENT_LIGHT_LEVEL),
        "timecode": side.timecode,
    }
    return frozenset(name for name, part in parts.items() if part)


def draws_grain(stream: VideoStream) -> bool:
    """Returns whether an AV1 stream describes film grain, which decoders draw.

    It is the last flag of the sequence header (AV1, 5.5.1), before the bit that ends it.
    """
    if stream.codec_context.codec.canonical_name != "av1":
        return False
    data = stream.codec_context.extradata or b""
    data = data[4:] if data[:1] == b"\x81" else data
    # A sequence header with its size, which one byte tells.
    if len(data) < 3 or data[0] != 0x0A or data[1] > 0x7F:
        return False
    return bin(int.from_bytes(data[2 : 2 + data[1]]))[2:].rstrip("0")[-2:-1] == "1"


def _spherical(data: bytes) -> Spherical | None:
    if len(data) < _SPHERICAL.size:
        return None
    numbers: tuple[int, ...] = _SPHERICAL.unpack_from(data)
    projection, yaw, pitch, roll, left, top, right, bottom, padding = numbers
    known = PROJECTIONS[projection] if projection < len(PROJECTIONS) else "unknown projection"
    return Spherical(
        projection=known,
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        bounds=(left, top, right, bottom),
        padding=padding,
    )


def _stereo(data: bytes) -> Stereo | None:
    if len(data) < _STEREO.size:
        return None
    numbers: tuple[int, ...] = _STEREO.unpack_from(data)
    layout, flags = numbers
    named = LAYOUTS[min(layout, len(LAYOUTS) - 1)]
    return Stereo(layout=named, inverted=bool(flags & _INVERTED)) if named else None


def _ambient(data: bytes) -> tuple[Fraction, Fraction, Fraction] | None:
    if len(data) < _AMBIENT.size:
        return None
    numbers = _AMBIENT.unpack_from(data)
    if not all(numbers[1::2]) or not numbers[0]:
        return None
    light, x, y = (Fraction(n, d) for n, d in zip(numbers[::2], numbers[1::2], strict=True))
    return light, x, y


MP4 = frozenset({"mp4", "mov", "ipod"})
"""Containers of boxes, by FFmpeg's names."""
MATROSKA = frozenset({"matroska", "webm"})
"""FFmpeg's names of Matroska and its part for the web."""

TIMECODES = frozenset({"mp4", "mov", "matroska", "webm"})
"""Containers into which FFmpeg writes a timecode."""
_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d\d+)")
_DROPPING = (30, 60)
"""Frames a second, rounded, of timecodes that drop numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What is written of a source's side data into one output."""

    spherical: Spherical | None = None
    stereo: Stereo | None = None
    ambient: tuple[Fraction, Fraction, Fraction] | None = None
    hdr: Hdr | None = None
    """The mastering display and the light levels, where the container states them."""
    timecode: str = ""
    notes: tuple[str, ...] = ()
    """One line for each part that is left out."""

    @property
    def boxed(self) -> bool:
        """Whether something is written that FFmpeg's muxers are not told of."""
        return any((self.spherical, self.stereo, self.ambient, self.hdr))

    @property
    def names(self) -> frozenset[str]:
        """The parts of it that a file must be found to hold."""
        parts = {
            "spherical projection": self.spherical,
            "stereoscopic layout": self.stereo,
            "ambient light": self.ambient,
            "mastering display": self.hdr is not None and self.hdr.red is not None,
            "light levels": self.hdr is not None and self.hdr.max_cll is not None,
            "timecode": self.timecode,
        }
        return frozenset(name for name, part in parts.items() if part)


def carried(like: VideoInfo, *, kind: str, suffix: str, encoder: str) -> Carried:
    """Returns what an output of FFmpeg's container `kind` carries; the rest is said in `notes`."""
    side, notes = like.side, list[str]()
    files = f"{suffix} files"
    boxes = kind in MP4 or kind in MATROSKA
    spherical = side.spherical
    if spherical is not None and not (boxes and _states_projection(spherical)):
        why = f"{files} hold none; .mp4 and .mkv do" if not boxes else "nothing here writes that kind"
        notes.append(f"the spherical (360 degree) metadata, {spherical.projection}, is left out: {why}")
        spherical = None
    stereo = side.stereo
    if stereo is not None and not _states_stereo(stereo, kind):
        other = "" if kind in MATROSKA else "; .mkv does"
        notes.append(
            f"that it is stereoscopic, {stereo.layout}, is left out: {files} do not say it{other}"
        )
        stereo = None
    ambient = side.ambient
    if ambient is not None and kind not in MP4:
        notes.append(
            f"the light of the viewing environment is left out: {files} do not state it; .mp4 does"
        )
        ambient = None
    hdr = None if codec_of(encoder).mastering is not None else like.hdr
    if hdr is not None and not boxes:
        notes.append(
            f"neither {files} nor {spoken(encoder)} hold the mastering display and light levels, which "
            "are left out; .mp4 and .mkv do"
        )
        hdr = None
    timecode = side.timecode
    if timecode and (why := _no_timecode(like, kind, files)):
        notes.append(f"the timecode {timecode} is left out: {why}")
        timecode = ""
    if side.captions and not codec_of(encoder).captions:
        notes.append(no_captions(spoken(encoder)))
    notes += [f"the {name} is left out" for name in side.others]
    return Carried(
        spherical=spherical,
        stereo=stereo,
        ambient=ambient,
        hdr=hdr,
        timecode=timecode,
        notes=tuple(notes),
    )


def no_captions(where: str) -> str:
    """Returns the note that closed captions are left out of an output."""
    return (
        f"the closed captions within the video are left out: {where} does not carry them; --codec h264 "
        "or hevc does"
    )


def unheld(like: VideoInfo, what: str) -> tuple[str, ...]:
    """Returns the notes of an output that holds no side data at all, such as `what`."""
    side = like.side
    parts = {
        "spherical (360 degree) metadata": side.spherical,
        "stereoscopic layout": side.stereo,
        "timecode": side.timecode,
        "closed captions": side.captions,
        "light of the viewing environment": side.ambient,
    }
    names = [*(name for name, part in parts.items() if part), *side.others]
    return (f"{what} hold no side data, which is left out: {', '.join(names)}",) if names else ()


def _states_projection(spherical: Spherical) -> bool:
    return spherical.projection == "equirectangular" or (
        spherical.projection == "cubemap" and not spherical.padding
    )


STEREO_BOX = {"top and bottom": 1, "side by side": 2}
"""The layouts that MP4's box st3d tells, with the left eye first."""
STEREO_MODES = {
    ("side by side", False): "left_right",
    ("side by side", True): "right_left",
    ("top and bottom", False): "top_bottom",
    ("top and bottom", True): "bottom_top",
    ("checkerboard", False): "checkerboard_lr",
    ("checkerboard", True): "checkerboard_rl",
    ("rows", False): "row_interleaved_lr",
    ("rows", True): "row_interleaved_rl",
    ("columns", False): "col_interleaved_lr",
    ("columns", True): "col_interleaved_rl",
    ("alternating frames", False): "block_lr",
    ("alternating frames", True): "block_rl",
}
"""FFmpeg's names of Matroska's stereo modes."""
_OF_WEBM = ("side by side", "top and bottom")


def _states_stereo(stereo: Stereo, kind: str) -> bool:
    if kind in MP4:
        return stereo.layout in STEREO_BOX and not stereo.inverted
    known = (stereo.layout, stereo.inverted) in STEREO_MODES
    return known and (kind == "matroska" or (kind == "webm" and stereo.layout in _OF_WEBM))


def _no_timecode(like: VideoInfo, kind: str, files: str) -> str:
    """Returns the reason why a container cannot state the timecode; empty where it can."""
    if kind not in TIMECODES:
        return f"{files} hold none; .mov, .mp4 and .mkv do"
    found, rate = _TIMECODE.fullmatch(like.side.timecode), round(like.rate)
    if found is None:
        return "it is none of HH:MM:SS:FF"
    hours, minutes, seconds, dropping, frames = found.groups()
    fits = int(hours) < 24 and int(minutes) < 60 and int(seconds) < 60 and int(frames) < rate
    if not fits or (dropping != ":" and rate not in _DROPPING):
        return f"it does not fit {float(like.rate):.4g} frames a second"
    return ""
