"""Frame: one picture with its time and the description of its colours. No input or output here."""

import hashlib
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.integer[Any] | np.floating[Any]]
"""Pixels: uint8 for 8 bits, uint16 (value in the low bits) above."""

Family = Literal["yuv", "gray", "rgb"]
Matrix = Literal["bt601", "bt709", "bt2020"]
Range = Literal["limited", "full"]
Siting = Literal["left", "center", "topleft"]


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The layout of a frame's planes."""

    family: Family
    """`yuv`: three planes Y, U, V. `gray`: one plane Y. `rgb`: one plane (H, W, 3), packed."""
    bits: int = 8
    """Bits per sample: 8 in uint8, 9..16 in uint16."""
    subsample: tuple[int, int] = (1, 1)
    """Luma samples per chroma sample, horizontally and vertically: 4:2:0 is (2, 2)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of a sample."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    @property
    def peak(self) -> int:
        """The largest sample value."""
        return (1 << self.bits) - 1

    def chroma_size(self, width: int, height: int) -> tuple[int, int]:
        """Returns width and height of a chroma plane; a last odd row or column has its own sample."""
        return -(-width // self.subsample[0]), -(-height // self.subsample[1])

    def plane_shapes(self, width: int, height: int) -> tuple[tuple[int, ...], ...]:
        """Returns the shapes of all planes of a `width` x `height` frame."""
        if self.family == "rgb":
            return ((height, width, 3),)
        if self.family == "gray":
            return ((height, width),)
        chroma_width, chroma_height = self.chroma_size(width, height)
        return ((height, width), (chroma_height, chroma_width), (chroma_height, chroma_width))

    def __str__(self) -> str:
        if self.family != "yuv":
            return f"{self.family} {self.bits} bit"
        names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
        return f"yuv {names.get(self.subsample, self.subsample)} {self.bits} bit"


YUV420P = PixelFormat("yuv", 8, (2, 2))
YUV444P = PixelFormat("yuv", 8, (1, 1))
GRAY = PixelFormat("gray")
RGB = PixelFormat("rgb")

PQ, HLG = 16, 18
"""Code points of ITU-T H.273 for the transfer of HDR."""


@dataclass(frozen=True, slots=True)
class Colour:
    """The meaning of a frame's numbers. Code points are those of ITU-T H.273."""

    matrix: Matrix = "bt709"
    range: Range = "limited"
    primaries: int = 2
    """H.273 code point; 2 is unspecified."""
    transfer: int = 2
    """H.273 code point; 2 is unspecified."""
    siting: Siting = "left"
    """The place of a subsampled chroma sample: MPEG-2 and H.264 default to left."""

    @property
    def hdr(self) -> bool:
        """Whether the transfer is PQ or HLG (ITU-R BT.2100)."""
        return self.transfer in (PQ, HLG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdr:
    """Static HDR metadata: the display that a film was graded on (SMPTE ST 2086), and its light."""

    red: tuple[Fraction, Fraction] | None = None
    """CIE 1931 x, y; all five of the display are there or none."""
    green: tuple[Fraction, Fraction] | None = None
    blue: tuple[Fraction, Fraction] | None = None
    white: tuple[Fraction, Fraction] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    """Darkest and brightest, in candela per square metre."""
    max_cll: int | None = None
    """Brightest pixel of the film, in candela per square metre (CTA-861.3)."""
    max_fall: int | None = None
    """Brightest frame's average, in candela per square metre."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spherical:
    """The projection of a picture that is seen from within a sphere (Google's Spherical Video V2)."""

    projection: str
    """`equirectangular`, or `cubemap`, `half equirectangular`, `fisheye` and others."""
    yaw: int = 0
    """Degrees in 16.16 fixed point; as `pitch` and `roll` are."""
    pitch: int = 0
    roll: int = 0
    bounds: tuple[int, int, int, int] = (0, 0, 0, 0)
    """What is cut off at left, top, right and bottom, in 0.32 fixed point of the whole."""
    padding: int = 0
    """Pixels from the edge of each face of a cubemap that are not shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stereo:
    """The places of the pictures for two eyes in one."""

    layout: str
    """`side by side`, `top and bottom`, `alternating frames`, `checkerboard`, `rows`, `columns`."""
    inverted: bool = False
    """True if the right eye's picture comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideData:
    """What a video states of itself beside its pictures and their colours."""

    spherical: Spherical | None = None
    stereo: Stereo | None = None
    ambient: tuple[Fraction, Fraction, Fraction] | None = None
    """The light around the viewer: lux, and CIE 1931 x, y."""
    timecode: str = ""
    """That of the first frame, `HH:MM:SS:FF`; a `;` before the frames is drop frame."""
    captions: bool = False
    """True if frames have closed captions (`Frame.captions`)."""
    others: tuple[str, ...] = ()
    """Names of what nothing here writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One picture. Planes may be read-only views of a decoder's memory: write to copies only.

    Raises ValueError when the planes do not fit the format.
    """

    planes: tuple[Array, ...]
    format: PixelFormat
    pts: int
    """Presentation time in units of `time_base`."""
    time_base: Fraction
    colour: Colour = field(default_factory=Colour)
    aspect: Fraction = Fraction(1)
    """Sample aspect ratio: width of a pixel over its height."""
    rotation: int = 0
    """Degrees, counter-clockwise, by which a player must turn the picture: 0, 90, 180, 270."""
    index: int = 0
    """Number of the frame in its source, from 0."""
    duration: int | None = None
    """The time for which it is shown, in units of `time_base`; None until the next one, or as usual."""
    depth: Array | None = None
    """(H, W) float32, the engine's depth buffer, when there is one."""
    motion: Array | None = None
    """(H, W, 2) float32, pixels to this pixel's place in the previous frame."""
    reactive: Array | None = None
    """(H, W) float32, 0..1: the part of a pixel that earlier frames must not supply (particles,
    glass)."""
    cut: bool = False
    """True if the frame before shows nothing of this one: a camera cut."""
    captured: float | None = None
    """The time of capture at a live source, in seconds of `time.monotonic`; None where it is not
    live."""
    alpha: Array | None = None
    """(H, W) opacity, from 0 to the peak of the format's depth whatever the range; None is opaque."""
    captions: bytes = b""
    """Closed captions of CEA-608 and 708 that come with it, three bytes each (ATSC A/53, cc_data)."""

    def __post_init__(self) -> None:
        shapes = self.format.plane_shapes(self.width, self.height)
        found = tuple(plane.shape for plane in self.planes)
        if found != shapes:
            raise ValueError(f"planes {found} do not fit {self.format}, which needs {shapes}")
        for plane in self.planes:
            if plane.dtype != self.format.dtype:
                raise ValueError(f"{self.format} needs {self.format.dtype}, not {plane.dtype}")
        if self.alpha is not None and (
            self.alpha.shape != self.planes[0].shape[:2] or self.alpha.dtype != self.format.dtype
        ):
            raise ValueError(
                f"opacity of {self.alpha.shape} and {self.alpha.dtype} does not fit a frame of "
                f"{self.planes[0].shape[:2]} and {self.format.dtype}"
            )

    @property
    def width(self) -> int:
        """Pixels per row."""
        return int(self.planes[0].shape[1])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.planes[0].shape[0])

    @property
    def seconds(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    @property
    def length(self) -> Fraction | None:
        """The time for which it is shown, in seconds; None where that is unknown."""
        return self.duration * self.time_base if self.duration else None

    def digest(self) -> str:
        """Returns a hash of the pixels, their description and the time; the number does not count."""
        hashed = hashlib.sha256()
        told = (self.format, self.pts, self.time_base, self.colour, self.aspect, self.rotation)
        hashed.update(repr((*told, self.duration, self.planes[0].shape)).encode())
        for plane in (*self.planes, *(() if self.alpha is None else (self.alpha,))):
            hashed.update(np.ascontiguousarray(plane).data)
        return hashed.hexdigest()

    def with_planes(
        self, planes: tuple[Array, ...], format: PixelFormat, colour: Colour | None = None
    ) -> Self:
        """Returns a frame of the same time with other pixels.

        Depth, motion, reactivity and opacity stay only while the size does, the opacity only while
        the depth of the samples does.
        """
        same = planes[0].shape[:2] == self.planes[0].shape[:2]
        return replace(
            self,
            planes=planes,
            format=format,
            colour=colour or self.colour,
            depth=self.depth if same else None,
            motion=self.motion if same else None,
            reactive=self.reactive if same else None,
            alpha=self.alpha if same and format.bits == self.format.bits else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """The facts about a source that are known before its first frame."""

    width: int
    height: int
    format: PixelFormat
    rate: Fraction
    """Average frames per second; frames carry their own times, which may vary."""
    time_base: Fraction
    frames: int | None = None
    """Number of frames that the file states; None where it states none."""
    duration: float | None = None
    """Seconds that the file states."""
    colour: Colour = field(default_factory=Colour)
    aspect: Fraction = Fraction(1)
    rotation: int = 0
    alpha: bool = False
    """True if frames have an opacity."""
    hdr: Hdr | None = None
    """Static HDR metadata that the file states."""
    side: SideData = field(default_factory=SideData)
    """Spherical and stereoscopic pictures, timecode, closed captions."""
    interlaced: bool = False
    """True if frames hold two fields of different times."""
    codec: str = ""
    audio: tuple[str, ...] = ()
    """Codec names of the audio streams."""
    path: str | None = None
    """The file from which sound and other streams can be copied."""
    stream: int = 0
    """Index of the video stream in that file; all others may pass by."""
    audio_stream: int | None = None
    """Index of the only audio stream that passes; None for all of them."""
    files: tuple[str, ...] = ()
    """All files that are read: none of them may be written to."""
    start: float = 0.0
    """Seconds on the file's own clock that count as time 0."""
    part: bool = False
    """True if frames were left out before time 0, or after the last: other streams are cut there,
    too."""
    notes: tuple[str, ...] = ()
    """Notes on guesses and on what will be left out, one line each."""


@dataclass(frozen=True, slots=True)
class Damage:
    """The frames that a source could not deliver."""

    lost: int = 0
    """Frames that the file stated and that are missing, or that failed to decode."""
    reason: str = ""

    def __bool__(self) -> bool:
        return self.lost > 0
