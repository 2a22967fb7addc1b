"""Clips of every kind that a user may have, chosen so that nearly every pair of properties meets."""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from functools import cache
from itertools import combinations
from typing import Any

MATRIX = {"unset": (2, 2, 2), "bt601": (6, 6, 6), "bt709": (1, 1, 1), "bt2020": (9, 9, 14)}
"""Matrix, primaries and transfer in code points of H.273."""
SHAPES = {
    "square": Fraction(1),
    "4to3": Fraction(4, 3),
    "2to3": Fraction(2, 3),
    "64to45": Fraction(64, 45),
}
RATES = {
    "25": Fraction(25), "ntsc": Fraction(30_000, 1001), "film": Fraction(24_000, 1001),
    "12.5": Fraction(25, 2), "60": Fraction(60),
}  # fmt: skip
FREE = ("vfr", "pulldown", "late", "one", "gap", "hold")
"""Times that are no grid: random steps, 3:2 pulldown, half a second late, one frame that stands for two
seconds, half a minute of nothing, a last frame that stands for a second."""


@dataclass(frozen=True, slots=True)
class Coder:
    """A video codec, and what is legal with it."""

    name: str
    homes: tuple[str, ...]
    pixels: tuple[str, ...]
    options: dict[str, str] = field(default_factory=dict)
    sizes: tuple[str, ...] = ("64x48", "66x50", "96x64")
    odd: bool = False
    """Whether it codes odd sizes with subsampled chroma."""
    free: bool = True
    """Whether its frames may come at any time."""
    rates: tuple[str, ...] = tuple(RATES)
    tags: bool = False
    """Whether its own stream tells the colours."""
    colours: tuple[str, ...] = ()
    """What it can tell, where that is not all."""


H264 = (
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "yuv420p10le",
    "yuv422p10le",
    "yuv444p10le",
    "gray",
    "yuvj420p",
)
HEVC = ("yuv420p", "yuv420p10le", "yuv422p10le", "yuv420p12le", "yuv444p12le", "gray10le", "gbrp")
QUIET = "log-level=error"
CODERS = {
    "h264": Coder("libx264", ("mp4", "mkv", "mov", "ts", "avi", "flv", "nut"), H264,
                  {"bf": "0", "preset": "ultrafast"}, tags=True),
    "h264b": Coder("libx264", ("mp4", "mkv", "mov", "ts", "flv", "nut"), H264, {"bf": "3"}, tags=True),
    "h264open": Coder("libx264", ("mp4", "mkv", "mov", "ts"), ("yuv420p", "yuv420p10le"),
                      {"x264-params": "open-gop=1:keyint=6:min-keyint=6:bframes=3:scenecut=0"},
                      tags=True),
    "hevc": Coder("libx265", ("mp4", "mkv", "mov", "ts"), HEVC,
                  {"x265-params": f"{QUIET}:keyint=8:bframes=3", "preset": "ultrafast"}, tags=True),
    "av1": Coder("libsvtav1", ("mp4", "mkv", "webm"), ("yuv420p", "yuv420p10le"), {"preset": "12"},
                 sizes=("96x64",), tags=True),
    "vp9": Coder("libvpx-vp9", ("webm", "mkv", "mp4"), ("yuv420p", "yuv422p", "yuv444p", "gbrp"),
                 {"cpu-used": "8", "deadline": "realtime"}, odd=True, tags=True),
    "vp8": Coder("libvpx", ("webm", "mkv", "ogv"), ("yuv420p", "yuva420p"),
                 {"auto-alt-ref": "0", "cpu-used": "8", "deadline": "realtime"}, odd=True,
                 colours=("unset",)),
    "mpeg2": Coder("mpeg2video", ("ts", "mpg", "mkv", "mov", "mxf"), ("yuv420p", "yuv422p"),
                   {"bf": "2", "g": "9"}, odd=True, free=False, rates=("25", "ntsc", "film", "60")),
    "mpeg4": Coder("mpeg4", ("avi", "mp4", "mkv", "mov"), ("yuv420p",), odd=True),
    "mpeg4b": Coder("mpeg4", ("mp4", "mkv", "mov", "ts"), ("yuv420p",), {"bf": "2"}),
    "mjpeg": Coder("mjpeg", ("avi", "mov", "mkv"), ("yuvj420p", "yuvj422p", "yuvj444p"), odd=True,
                   colours=("unset",)),
    "prores": Coder("prores_ks", ("mov", "mkv"), ("yuv422p10le", "yuv444p10le", "yuva444p10le")),
    "ffv1": Coder("ffv1", ("mkv", "avi", "nut"),
                  ("yuv420p", "yuv422p", "yuv444p", "yuv440p", "yuv411p", "yuv420p10le", "yuv422p10le",
                   "yuv444p10le", "yuv420p12le", "yuv422p12le", "yuv444p12le", "yuv420p9le",
                   "yuv444p16le", "gray", "gray10le", "gray12le", "gray16le", "bgr0", "gbrp10le",
                   "rgb48le", "yuva420p", "yuva444p10le"), odd=True),
    "dnxhd": Coder("dnxhd", ("mov",), ("yuv422p", "yuv422p10le", "yuv444p10le"),
                   sizes=("256x120",), free=False, colours=("unset", "bt709")),
    "utvideo": Coder("utvideo", ("avi", "nut"), ("yuv420p", "yuv422p", "yuv444p", "gbrp")),
    "raw": Coder("rawvideo", ("avi", "nut", "mov"), ("yuv420p", "rgb24", "gray", "yuyv422")),
    "png": Coder("png", ("mov", "avi", "nut"), ("rgb24", "rgb48be", "gray", "rgba"), odd=True),
    "qtrle": Coder("qtrle", ("mov",), ("rgb24", "argb"), odd=True),
    "h264rgb": Coder("libx264rgb", ("mp4", "mkv"), ("rgb24",), {"qp": "0"}, odd=True, tags=True),
    "huffyuv": Coder("huffyuv", ("avi", "nut"), ("yuv422p", "rgb24")),
    "flv1": Coder("flv", ("flv", "avi"), ("yuv420p",), odd=True, free=False),
    "wmv2": Coder("wmv2", ("wmv", "avi"), ("yuv420p",), free=False),
}  # fmt: skip
DNXHR = {"yuv422p": "dnxhr_hq", "yuv422p10le": "dnxhr_hqx", "yuv444p10le": "dnxhr_444"}

SOUNDS: dict[str, tuple[str, ...]] = {
    "none": (),
    "aac": ("aac stereo",), "mono": ("aac mono",), "aac51": ("aac 5.1",), "opus": ("libopus stereo",),
    "mp3": ("libmp3lame stereo",), "pcm": ("pcm_s16le stereo",), "pcm24": ("pcm_s24le stereo",),
    "ac3": ("ac3 5.1",), "flac": ("flac stereo",), "alac": ("alac stereo",), "mp2": ("mp2 stereo",),
    "wma": ("wmav2 stereo",), "two": ("aac stereo", "aac mono"), "mixed": ("ac3 stereo", "aac stereo"),
}  # fmt: skip
"""Encoder and layout of each track."""
AAC = ("none", "aac", "mono", "aac51", "two")
HOMES: dict[str, tuple[str, ...]] = {
    "mp4": (*AAC, "opus", "mp3", "ac3", "flac", "alac", "mixed"),
    "mkv": tuple(name for name in SOUNDS if name != "wma"),
    "mov": (*AAC, "pcm", "pcm24", "ac3", "alac", "mixed"),
    "webm": ("none", "opus"),
    "avi": ("none", "mp3", "pcm", "ac3", "mp2"),
    "ts": (*AAC, "mp2", "ac3", "mp3", "mixed", "opus"),
    "mpg": ("none", "mp2", "ac3"),
    "flv": ("none", "aac", "mono", "mp3"),
    "nut": ("none", "pcm", "aac", "flac", "mp3"),
    "mxf": ("none", "pcm", "pcm24"),
    "wmv": ("none", "wma", "mp3"),
    "ogv": ("none", "opus", "flac"),
}
"""What sound a container holds."""
WORDS = {
    "mkv": ("none", "subrip", "ass", "webvtt", "dvb"), "mp4": ("none", "mov_text"),
    "mov": ("none", "mov_text"), "webm": ("none", "webvtt"), "ts": ("none", "dvb"),
}  # fmt: skip
GRID = ("avi", "mpg", "mxf", "wmv", "ogv")
"""Containers whose frames stand on a grid, or whose times are too coarse to tell."""
TURNING = ("mp4", "mov", "mkv")
TARGETS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "mp4": ("mp4", "auto", HOMES["mp4"]),
    "h264.mkv": ("mkv", "h264", tuple(SOUNDS)),
    "mov": ("mov", "auto", HOMES["mov"]),
    "ts": ("ts", "auto", (*AAC, "mp2", "ac3", "mp3", "mixed")),
    "hevc.mp4": ("mp4", "hevc", HOMES["mp4"]),
    "vp9.webm": ("webm", "vp9", HOMES["webm"]),
    "av1.mkv": ("mkv", "av1", tuple(SOUNDS)),
    "av1.mp4": ("mp4", "av1", HOMES["mp4"]),
}
"""Suffix, --codec and the sound that is legal there, of the second output; the first is FFV1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip, by the names of its properties, and one output that is made of it."""

    codec: str
    home: str
    pixels: str
    size: str
    rate: str
    rotation: int
    shape: str
    colour: str
    full: bool
    sound: str
    sync: str
    words: str
    target: str

    def __str__(self) -> str:
        usual = {"rotation": 0, "shape": "square", "colour": "unset", "full": False, "sync": "even",
                 "words": "none"}  # fmt: skip
        told = [
            f"turned{value}" if name == "rotation" else "full" if name == "full" else str(value)
            for name, value in asdict(self).items()
            if name not in usual or value != usual[name]
        ]
        return "-".join(told[:-1]) + "-to-" + told[-1]

    @property
    def width(self) -> int:
        return int(self.size.split("x")[0])

    @property
    def height(self) -> int:
        return int(self.size.split("x")[1])

    @property
    def times(self) -> list[Fraction]:
        """When each frame is shown, in seconds, and last when the last one ends."""
        if self.rate in RATES:
            count = 10 if self.codec in ("hevc", "av1", "vp9", "dnxhd") else 14
            return [i / RATES[self.rate] for i in range(count + 1)]
        chosen = random.Random(self.rate).choices([20, 33, 40, 67, 120], k=12)
        steps = {
            "vfr": chosen,
            "pulldown": [33, 50] * 6,
            "late": [40] * 12,
            "one": [2000],
            "gap": [40] * 6 + [30_000] + [40] * 5,
            "hold": [40] * 9 + [1000],
        }[self.rate]
        begin = 500 if self.rate == "late" else 0
        return [Fraction(begin + sum(steps[:i]), 1000) for i in range(len(steps) + 1)]


ORDER = tuple(one.name for one in fields(Clip))


def legal(name: str, chosen: dict[str, Any]) -> list[Any]:
    """What a property may be beside those that are chosen before it."""
    coder = CODERS[chosen["codec"]] if chosen else None
    if coder is None:
        return list(CODERS)
    home = chosen.get("home", "")
    match name:
        case "home":
            return list(coder.homes)
        case "pixels":
            return list(coder.pixels)
        case "size":
            if chosen["pixels"] == "yuyv422":
                return list(coder.sizes)
            whole = "444" in chosen["pixels"] or chosen["pixels"].startswith(
                ("gray", "gbr", "rgb", "bgr")
            )
            odd = whole or coder.odd
            return [*coder.sizes, *(["65x49", "51x64"] if odd and len(coder.sizes) > 1 else [])]
        case "rate":
            free = coder.free and home not in GRID
            if home == "mxf":
                return ["25"]
            return [*coder.rates, *(FREE if free else ())]
        case "rotation":
            return [0, 90, 180, 270] if home in TURNING else [0]
        case "shape":
            return list(SHAPES) if shaped(chosen["codec"], home) else ["square"]
        case "colour":
            if coder.colours:
                return list(coder.colours)
            # Where `filming.tell_shape` writes, there are colours.
            told = home == "mkv" and chosen["shape"] != "square"
            tagged = coder.tags or home in ("mkv", "mov")
            return [c for c in MATRIX if c != "unset" or not told] if tagged else ["unset"]
        case "full":
            silent = chosen["codec"] in ("vp8", "prores", "mpeg2") or is_rgb(chosen["pixels"])
            tagged = (coder.tags or home == "mkv") and not silent
            return [False, True] if tagged else [False]
        case "sound":
            return (
                [s for s in HOMES[home] if s != "none"]
                if chosen["rate"] == "late"
                else list(HOMES[home])
            )
        case "sync":
            if chosen["sound"] == "none" or home == "mxf":
                return ["even"]
            return ["short"] if chosen["rate"] in ("gap", "late") else ["even", "late", "short", "long"]
        case "words":
            return list(WORDS.get(home, ("none",)))
        case _:
            return [t for t, (_, _, sounds) in TARGETS.items() if chosen["sound"] in sounds]


def shaped(codec: str, home: str) -> bool:
    """Whether such a file tells the shape of its pixels."""
    if home == "mkv":
        return CODERS[codec].tags
    own = codec in ("h264", "h264b", "h264open", "hevc", "mpeg4", "mpeg4b")
    return home in ("mp4", "mov", "ts") and own


def is_rgb(pixels: str) -> bool:
    return pixels.startswith(("rgb", "bgr", "gbr", "argb"))


def draw(rng: random.Random, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """A legal clip with these properties, all else by chance; None where chance chose badly."""
    chosen: dict[str, Any] = {}
    for name in ORDER:
        options = legal(name, chosen)
        if name in wanted and wanted[name] not in options:
            return None
        if not options:
            return None
        chosen[name] = wanted.get(name, rng.choice(options) if name not in wanted else None)
    return chosen


CANDIDATES = 20
"""Clips of which the best is taken."""
TRIES = 4000


@cache
def cover(count: int, seed: int = 5) -> tuple[Clip, ...]:
    """`count` clips in which as many pairs of properties meet as can be, greedily."""
    rng = random.Random(seed)
    met: set[tuple[str, Any, str, Any]] = set()
    clips: list[Clip] = []
    alone = {(name, value) for name in ORDER for value in values(name)}
    while len(clips) < count:
        # First whatever was not seen at all, so that even a few clips hold everything once.
        missing = sorted(alone, key=str)
        found: list[dict[str, Any]] = []
        for _ in range(TRIES):
            if len(found) == CANDIDATES:
                break
            one = draw(rng, dict([rng.choice(missing)]) if missing else {})
            if one is not None:
                found.append(one)
        best = max(
            found, key=lambda one: len(set(pairs(one)) - met) + 20 * len(alone & set(one.items()))
        )
        clips.append(Clip(**best))
        met.update(pairs(best))
        alone -= set(best.items())
    return tuple(clips)


def values(name: str) -> list[Any]:
    """All that a property can be."""
    return {
        "codec": list(CODERS),
        "home": list(HOMES),
        "pixels": sorted({pixels for coder in CODERS.values() for pixels in coder.pixels}),
        "size": ["64x48", "66x50", "65x49", "51x64", "96x64", "256x120"],
        "rate": [*RATES, *FREE],
        "rotation": [0, 90, 180, 270],
        "shape": list(SHAPES),
        "colour": list(MATRIX),
        "full": [False, True],
        "sound": list(SOUNDS),
        "sync": ["even", "late", "short", "long"],
        "words": ["none", "subrip", "ass", "webvtt", "dvb", "mov_text"],
        "target": list(TARGETS),
    }[name]


def pairs(one: dict[str, Any]) -> Iterator[tuple[str, Any, str, Any]]:
    for a, b in combinations(ORDER, 2):
        yield a, one[a], b, one[b]
