"""The encoders by their plain names, and the options of each for the three qualities."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import SinkError
from ..sinks.base import Encoding, Quality

ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "ffv1": "ffv1",
    "prores": "prores_ks",
    "gif": "gif",
    "rawvideo": "rawvideo",
    "h264_nvenc": "h264_nvenc",
    "hevc_nvenc": "hevc_nvenc",
    "av1_nvenc": "av1_nvenc",
}
"""FFmpeg's encoder by the name that is asked for; any other encoder of FFmpeg goes by its own."""

BY_SUFFIX = {".webm": "vp9", ".gif": "gif", ".y4m": "rawvideo", "-": "rawvideo"}
"""Codecs that `auto` picks by file suffix; for all others it picks H.264."""

Options = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """Facts about an encoder that FFmpeg does not tell."""

    qualities: Mapping[Quality, Options] = field(default_factory=dict[Quality, Options])
    """FFmpeg's options for each quality."""
    always: Options = field(default_factory=dict[str, str])
    """Options that are set whatever the quality."""
    crf: tuple[str, int, int] | None = None
    """The option of constant quality, its best and its worst value."""
    no_crf: str = "has no constant quality"
    """The reason, for an error message, where `crf` is None."""
    preset: str | None = None
    """The option that trades speed for size."""
    presets: tuple[str, ...] = ()
    """Its values; empty where FFmpeg checks them."""
    params: str | None = None
    """The option that holds the library's own options, as `key=value:key=value`."""


def _by_quality(draft: Options, good: Options, archive: Options) -> dict[Quality, Options]:
    return {"draft": draft, "good": good, "archive": archive}


_X_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow",
    "placebo",
)  # fmt: skip


def _nvenc(worst: int, draft: int, good: int, archive: int) -> Codec:
    return Codec(
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
        qualities=_by_quality(
            {"crf": "26", "preset": "superfast"},
            {"crf": "18", "preset": "veryfast"},
            {"crf": "8", "preset": "slow"},
        ),
        crf=("crf", 0, 51),
        preset="preset",
        presets=_X_PRESETS,
        params="x264-params",
    ),
    "libx265": Codec(
        qualities=_by_quality(
            {"crf": "28", "preset": "ultrafast"},
            {"crf": "20", "preset": "veryfast"},
            {"crf": "8", "preset": "slow"},
        ),
        always={"x265-params": "log-level=error"},
        crf=("crf", 0, 51),
        preset="preset",
        presets=_X_PRESETS,
        params="x265-params",
    ),
    "libsvtav1": Codec(
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
        qualities=_by_quality(
            {"crf": "38", "cpu-used": "8", "deadline": "realtime"},
            {"crf": "24", "cpu-used": "6"},
            {"crf": "6", "cpu-used": "2"},
        ),
        always={"b": "0", "row-mt": "1"},
        crf=("crf", 0, 63),
        preset="cpu-used",
    ),
    "ffv1": Codec(no_crf="is lossless"),
    "rawvideo": Codec(no_crf="is lossless"),
    "prores_ks": Codec(
        # 4:4:4 has profiles of its own: see `profile`.
        qualities=_by_quality({"profile": "lt"}, {"profile": "standard"}, {"profile": "hq"}),
        # Editors expect Apple's vendor code.
        always={"vendor": "apl0"},
        no_crf="goes by profiles: --preset proxy, lt, standard, hq, 4444 or 4444xq",
        preset="profile",
        presets=("proxy", "lt", "standard", "hq", "4444", "4444xq"),
    ),
    "gif": Codec(no_crf="has 256 colours a picture"),
    "mpeg4": Codec(),
    "mpeg2video": Codec(),
    "h264_nvenc": _nvenc(51, 32, 21, 8),
    "hevc_nvenc": _nvenc(51, 34, 23, 10),
    "av1_nvenc": _nvenc(63, 42, 30, 14),
}

_RATES = frozenset({"crf", "qp", "cq", "b", "rc"})
"""Options that each state a rate or a quality, so that only one of them may be set."""

HARDWARE = {"h264_nvenc": "h264", "hevc_nvenc": "hevc", "av1_nvenc": "av1"}
"""Encoders that need a device, with the name of one that does not."""


def encoder_of(encoding: Encoding, suffix: str) -> str:
    """Returns FFmpeg's name of the encoder for a file suffix; the suffix `-` is standard output."""
    name = encoding.codec
    if name == "auto":
        name = BY_SUFFIX.get(suffix.lower(), "h264")
    return ENCODERS.get(name, name)


def spoken(encoder: str) -> str:
    """Returns the plain name of an encoder, as it is given to --codec."""
    return next((name for name, other in ENCODERS.items() if other == encoder), encoder)


def wanted_options(encoder: str, encoding: Encoding) -> dict[str, str]:
    """Returns the options for the quality, `crf` and `preset`; `merged` adds the user's `options`
    later.

    Raises SinkError for values that the encoder does not have.
    """
    codec = CODECS.get(encoder, Codec())
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
        if encoder in HARDWARE:
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
    params = CODECS.get(encoder, Codec()).params
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
