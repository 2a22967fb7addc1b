"""The table of encoders: plain names, qualities, HDR, and what else is known of each."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..errors import SinkError
from .options import Encoding, Quality

Options = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """Facts about an encoder that FFmpeg does not tell."""

    plain: str = ""
    """What `--codec` calls it; without one it goes by FFmpeg's own name, as any other encoder does."""
    shown: bool = True
    """Whether the help shows its plain name."""
    suffixes: tuple[str, ...] = ()
    """Suffixes of the files for which `auto` picks it; for all others it picks H.264."""
    software: str = ""
    """Of an encoder that needs a device: the plain name of one that does not."""
    lossless: bool = False
    """Whether pictures come back bit for bit: then RGB may stay RGB."""
    most_bits: int = 16
    """Bits of a sample that are coded, of those that it takes."""
    most_rate: int | None = None
    """Frames a second above which it does not open; frames keep their own times."""
    shows_alpha: bool = True
    """Whether decoders show the opacity that it takes."""
    alpha_suffixes: tuple[str, ...] = ()
    """Suffixes of the only files with room for its opacity, which lies beside pictures of 4:2:0; empty
    where any file has it."""
    palette: bool = False
    """Whether it has a palette for each picture and times in hundredths of a second, as GIF."""
    for_hdr: str = ""
    """The plain name of the encoder that `auto` picks in its place where the source is HDR."""
    shows_hdr: bool = False
    """Whether players show its streams as HDR, or who reads them knows what they hold."""
    mastering: Literal["x265", "svtav1"] | None = None
    """Whose words state the mastering display and the light levels in its options (`media.hdr`)."""
    captions: Literal["h264", "hevc"] | None = None
    """The syntax in which closed captions are put into its packets (`media.captions`)."""
    joins: bool = False
    """Whether its segments were seen to join without a change of one picture, as a journal needs."""
    joins_alpha: bool = True
    """Whether they hold the opacity."""
    qualities: Mapping[Quality, Options] = field(default_factory=dict[Quality, Options])
    """FFmpeg's options for each quality."""
    always: Options = field(default_factory=dict[str, str])
    """Options that are set whatever the quality."""
    with_avx512: Options = field(default_factory=dict[str, str])
    """Options that are set on a processor with AVX-512."""
    environment: Options = field(default_factory=dict[str, str])
    """Variables of the environment, where it reads what it should from there alone."""
    crf: tuple[str, int, int] | None = None
    """The option of constant quality, its best and its worst value."""
    no_crf: str = "has no constant quality"
    """The reason, for an error message, where `crf` is None."""
    preset: str | None = None
    """The option that trades speed for size."""
    presets: tuple[str, ...] = ()
    """Its values; empty where FFmpeg checks them."""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """The words that its other options take, where FFmpeg hands them on to the library."""
    full_chroma: Mapping[Quality, str] = field(default_factory=dict[Quality, str])
    """The values of `preset` that are for 4:4:4 only, by quality; all of them begin as these do."""
    params: str | None = None
    """The option that holds the library's own options, as `key=value:key=value`."""


def _by_quality(draft: Options, good: Options, archive: Options) -> dict[Quality, Options]:
    return {"draft": draft, "good": good, "archive": archive}


_X_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
    "placebo",
)  # fmt: skip


def _nvenc(
    software: str,
    worst: int,
    draft: int,
    good: int,
    archive: int,
    captions: Literal["h264", "hevc"] | None = None,
) -> Codec:
    return Codec(
        plain=f"{software}_nvenc",
        shown=False,
        software=software,
        most_bits=10,  # it takes 16
        # Players take H.264 for SDR.
        shows_hdr=software != "h264",
        captions=captions,
        qualities=_by_quality(
            {"preset": "p1", "rc": "vbr", "cq": str(draft)},
            {"preset": "p4", "rc": "vbr", "cq": str(good)},
            {"preset": "p7", "rc": "constqp", "qp": str(archive)},
        ),
        always={"b": "0"},
        crf=("cq", 0, worst),
        preset="preset",
        presets=tuple(f"p{n}" for n in range(1, 8)),
    )


CODECS: Mapping[str, Codec] = {
    "libx264": Codec(
        plain="h264",
        for_hdr="hevc",
        captions="h264",
        joins=True,
        # x264's macroblock trees are no function of the pictures with AVX-512 where a row is not of 8
        # blocks or a multiple: 20 runs over one clip of 160x120 gave 19 files. With AVX2 all are one,
        # and none is slower.
        with_avx512={"x264-params": "asm=AVX2"},
        qualities=_by_quality(
            {"crf": "26", "preset": "superfast"},
            {"crf": "18", "preset": "veryfast"},
            {"crf": "8", "preset": "slow"},
        ),
        crf=("crf", 0, 51),
        preset="preset",
        presets=_X_PRESETS,
        values={
            "preset": _X_PRESETS,
            "tune": (
                "film",
                "animation",
                "grain",
                "stillimage",
                "psnr",
                "ssim",
                "fastdecode",
                "zerolatency",
            ),
            "profile": ("baseline", "main", "high", "high10", "high422", "high444"),
        },
        params="x264-params",
    ),
    "libx265": Codec(
        plain="hevc",
        # Opacity in HEVC is a layer of its own, which hardly any decoder shows.
        shows_alpha=False,
        shows_hdr=True,
        mastering="x265",
        captions="hevc",
        joins=True,
        qualities=_by_quality(
            {"crf": "28", "preset": "ultrafast"},
            {"crf": "20", "preset": "veryfast"},
            {"crf": "8", "preset": "slow"},
        ),
        always={"x265-params": "log-level=error"},
        crf=("crf", 0, 51),
        preset="preset",
        presets=_X_PRESETS,
        values={
            "preset": _X_PRESETS,
            "tune": ("psnr", "ssim", "grain", "animation", "fastdecode", "zerolatency"),
        },
        params="x265-params",
    ),
    "libsvtav1": Codec(
        plain="av1",
        most_rate=240,
        # Errors only, as from the other encoders.
        environment={"SVT_LOG": "1"},
        shows_hdr=True,
        mastering="svtav1",
        joins=True,
        qualities=_by_quality(
            {"crf": "38", "preset": "12"},
            {"crf": "26", "preset": "9"},
            {"crf": "4", "preset": "5"},
        ),
        crf=("crf", 0, 63),
        preset="preset",
        params="svtav1-params",
    ),
    "libvpx-vp9": Codec(
        plain="vp9",
        suffixes=(".webm",),
        for_hdr="av1",
        # It lies beside the packets, where only Matroska has room for it; and libvpx lists opacity with
        # 4:2:2 and 4:4:4, which it then refuses.
        alpha_suffixes=(".webm", ".mkv"),
        joins=True,
        joins_alpha=False,
        qualities=_by_quality(
            {"crf": "38", "cpu-used": "8", "deadline": "realtime"},
            {"crf": "24", "cpu-used": "6"},
            {"crf": "6", "cpu-used": "2"},
        ),
        always={"b": "0", "row-mt": "1"},
        crf=("crf", 0, 63),
        preset="cpu-used",
    ),
    "ffv1": Codec(plain="ffv1", lossless=True, shows_hdr=True, joins=True, no_crf="is lossless"),
    "prores_ks": Codec(
        plain="prores",
        shows_hdr=True,
        joins=True,
        qualities=_by_quality({"profile": "lt"}, {"profile": "standard"}, {"profile": "hq"}),
        # Editors look for Apple's.
        always={"vendor": "apl0"},
        no_crf="goes by profiles: --preset proxy, lt, standard, hq, 4444 or 4444xq",
        preset="profile",
        presets=("proxy", "lt", "standard", "hq", "4444", "4444xq"),
        full_chroma={"draft": "4444", "good": "4444", "archive": "4444xq"},
    ),
    "gif": Codec(plain="gif", suffixes=(".gif",), palette=True, no_crf="has 256 colours a picture"),
    "rawvideo": Codec(
        plain="rawvideo",
        shown=False,
        suffixes=(".y4m", "-"),
        lossless=True,
        shows_hdr=True,
        no_crf="is lossless",
    ),
    "mpeg4": Codec(),
    "mpeg2video": Codec(),
    "h264_nvenc": _nvenc("h264", 51, 32, 21, 8, "h264"),
    "hevc_nvenc": _nvenc("hevc", 51, 34, 23, 10, "hevc"),
    "av1_nvenc": _nvenc("av1", 63, 42, 30, 14),
}

UNKNOWN = Codec()
"""Of an encoder that no entry is about."""

ENCODERS = {codec.plain: encoder for encoder, codec in CODECS.items() if codec.plain}
"""FFmpeg's encoder by the name that is asked for; any other encoder of FFmpeg goes by its own."""

SHOWN = ", ".join(name for name, encoder in ENCODERS.items() if CODECS[encoder].shown)
"""The plain names that the help shows."""

_RATES = frozenset({"crf", "qp", "cq", "b", "rc"})
"""Options that each state a rate or a quality, so that only one of them may be set."""


def encoder_of(encoding: Encoding, suffix: str, *, hdr: bool = False) -> str:
    """Returns FFmpeg's name of the encoder for a file suffix; the suffix `-` is standard output.

    For a source in HDR `auto` is an encoder that carries it, where the kind of file has one.
    """
    name = encoding.codec
    if name == "auto":
        kinds = (encoder for encoder, codec in CODECS.items() if suffix.lower() in codec.suffixes)
        usual = next(kinds, ENCODERS["h264"])
        return ENCODERS[CODECS[usual].for_hdr] if hdr and CODECS[usual].for_hdr else usual
    return ENCODERS.get(name, name)


def codec_of(encoder: str) -> Codec:
    """What is known of an encoder, by FFmpeg's name."""
    return CODECS.get(encoder, UNKNOWN)


def spoken(encoder: str) -> str:
    """Returns the plain name of an encoder, as it is given to --codec."""
    return codec_of(encoder).plain or encoder


def wanted_options(encoder: str, encoding: Encoding) -> dict[str, str]:
    """Returns the options for the quality, `crf` and `preset`; `merged` adds the user's `options`
    later.

    Raises SinkError for values that the encoder does not have.
    """
    codec = codec_of(encoder)
    options = {**codec.always, **codec.qualities.get(encoding.quality, {})}
    if encoding.crf is not None:
        if codec.crf is None:
            raise SinkError(f"{spoken(encoder)} {codec.no_crf} and takes no --crf")
        name, best, worst = codec.crf
        if not best <= encoding.crf <= worst:
            raise SinkError(
                f"--crf {encoding.crf}: {spoken(encoder)} takes {best} (best) to {worst} (worst)"
            )
        options[name] = str(encoding.crf)
        if codec.software:
            options["rc"] = "vbr"
            options.pop("qp", None)
    if encoding.preset is not None:
        if codec.preset is None:
            raise SinkError(f"{spoken(encoder)} has no presets: leave --preset out")
        if codec.presets and encoding.preset not in codec.presets:
            raise SinkError(
                f"--preset {encoding.preset}: {spoken(encoder)} refuses it; it takes "
                f"{', '.join(codec.presets)}"
            )
        options[codec.preset] = encoding.preset
    return options


def merged(encoder: str, ours: Options, theirs: Options) -> dict[str, str]:
    """Returns both sets of options, where `theirs` win; the library's parameters are merged by key."""
    params = codec_of(encoder).params
    if not _RATES.isdisjoint(theirs):
        # Encoders take a crf before any other, so that ours would undo what is asked for.
        ours = {name: value for name, value in ours.items() if name not in _RATES}
    options = {**ours, **theirs}
    if params is not None and params in ours and params in theirs:
        options[params] = _joined({**_parts(ours[params]), **_parts(theirs[params])})
    return options


def nearest(name: str, known: tuple[str, ...]) -> str:
    """Returns the known names that are like `name`, as in `; near are: crf, crf_max`, or nothing."""
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"; near are: {', '.join(near)}" if near else ""


def _parts(text: str) -> dict[str, str]:
    """Returns the parts of `key=value:key=value`; a key without a value gets the value 1."""
    pairs = (part.partition("=") for part in text.split(":") if part)
    return {key: value if equals else "1" for key, equals, value in pairs}


def _joined(parts: Options) -> str:
    return ":".join(f"{key}={value}" for key, value in parts.items())
