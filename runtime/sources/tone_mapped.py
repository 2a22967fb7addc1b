"""HDR as SDR: another source's frames, tone-mapped to BT.709 with 8 bits."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from ..colour import to_format, to_rgb
from ..frame import HLG, PQ, Colour, Frame, Hdr, PixelFormat, VideoInfo
from ..media.options import ToneMap
from ..media.packet_index import PacketIndex, Start
from ..media.pixel_format import in_depth
from .base import DerivedSource, Source

Values = npt.NDArray[np.float64]
Light = npt.NDArray[np.float32]

NODES = 4096
"""Luminances at which a curve is worked out, evenly spaced in PQ; it is linear between them."""

USUAL_PEAK = 1000.0
"""Candela per square metre of the brightest pixel where nothing is stated, and of a display of HLG."""

WHITE: dict[ToneMap, float] = {"bt2390": 203.0, "hable": 100.0}
"""Candela per square metre that are white in SDR: diffuse white of ITU-R BT.2408, and, of FFmpeg's
filter `tonemap`, the unit of its linear light."""

WORDS: dict[ToneMap, str] = {"bt2390": "BT.2390", "hable": "Hable's curve"}

PRIMARIES: dict[int, tuple[tuple[float, float], ...]] = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""CIE x, y of red, green and blue by the code points of ITU-T H.273; white is D65 in all. What states
others, or none, is taken for BT.2020."""

D65 = (0.3127, 0.3290)


class ToneMappedSource(DerivedSource):
    """Gives the inner source's frames in SDR: BT.709, limited range, 8 bits; frames in SDR untouched.

    The brightest of red, green and blue goes through the curve and takes the others with it, so that
    the hue stays. The inner source is closed with this one.
    """

    def __init__(self, source: Source, curve: ToneMap) -> None:
        super().__init__(source)
        info = source.info
        self._curve: ToneMap = curve
        self._peak = _peak(info.hdr)
        if not info.colour.hdr:
            note = "the source is not HDR: --tone-map leaves it as it is"
            self.info = replace(info, notes=(*info.notes, note))
            return
        kind = {PQ: "PQ", HLG: "HLG"}[info.colour.transfer]
        note = (
            f"HDR ({kind}) becomes SDR (BT.709, 8 bit) by {WORDS[curve]}, from {self._peak:.0f} cd/m2"
        )
        self.info: VideoInfo = replace(
            info,
            format=replace(info.format, bits=8),
            colour=_sdr(info.colour),
            hdr=None,
            notes=(*info.notes, note),
        )

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._source:
            yield tone_mapped(frame, self._curve, self._peak) if frame.colour.hdr else frame

    def index(self, *, every: int, ahead: int) -> PacketIndex | None:
        return self._source.index(every=every, ahead=ahead)

    def start_at(self, start: Start, *, sure: bool) -> bool:
        return self._source.start_at(start, sure=sure)

    @property
    def end(self) -> Fraction | None:
        return self._source.end

    def seek(self, seconds: float) -> bool:
        return self._source.seek(seconds)


def tone_mapped(frame: Frame, curve: ToneMap, peak: float) -> Frame:
    """Returns a frame in PQ or HLG as SDR; `peak` is its film's brightest light in candela per square
    metre."""
    rgb = to_rgb(in_depth(frame, 16))
    bits = rgb.format.bits
    light: Light = np.take(_light(frame.colour.transfer, bits), rgb.planes[0].astype(np.intp))
    if frame.colour.transfer == HLG:
        # The system's gamma of 1.2 (ITU-R BT.2100-2, table 5) is one of luminance; FFmpeg's `zscale`
        # has it on each colour, which makes strong ones stronger.
        base = light if curve == "hable" else cv2.transform(light, _xyz(frame.colour.primaries)[1:2])
        part = np.float32(USUAL_PEAK) * cast(Light, cv2.pow(base, 0.2))
        light *= part if part.ndim == 3 else part[..., None]
    light = cast(Light, cv2.transform(light, np.linalg.inv(_xyz(1)) @ _xyz(frame.colour.primaries)))
    brightest: Light = light.max(axis=-1)
    nodes, ratios = _ratios(curve, peak)
    factor = np.interp(brightest, nodes, ratios).astype(np.float32)
    light *= factor[..., None]
    # A display's light, so that the inverse of its own curve (ITU-R BT.1886) gives the signal.
    signal = cv2.pow(np.clip(light, 0.0, 1.0), 1 / 2.4)
    pixels = np.rint(signal * rgb.format.peak).astype(rgb.format.dtype)
    shown = replace(rgb, planes=(pixels,))
    colour = _sdr(frame.colour)
    format = replace(frame.format, bits=8)
    if format.family == "rgb":
        return to_format(shown, format, colour)
    return in_depth(to_format(shown, replace(format, bits=bits), colour), 8)


def _sdr(colour: Colour) -> Colour:
    return Colour(matrix="bt709", range="limited", primaries=1, transfer=1, siting=colour.siting)


def _peak(hdr: Hdr | None) -> float:
    stated = hdr.max_cll if hdr is not None else None
    if not stated and hdr is not None and hdr.luminance is not None:
        stated = float(hdr.luminance[1])
    return float(stated or USUAL_PEAK)


@lru_cache(maxsize=8)
def _light(transfer: int, bits: int) -> Light:
    """Returns the light of each sample: candela per square metre of PQ, the scene's 0 to 1 of HLG."""
    signal = np.linspace(0, 1, PixelFormat("rgb", bits).peak + 1)
    return (_from_pq(signal) if transfer == PQ else _from_hlg(signal)).astype(np.float32)


# Constants of SMPTE ST 2084.
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def _from_pq(signal: Values) -> Values:
    root = signal ** (1 / _M2)
    return 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)


def _to_pq(light: Values) -> Values:
    power = (light / 10_000) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


def _from_hlg(signal: Values) -> Values:
    """Returns the inverse of the OETF of ITU-R BT.2100-2, table 5."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


@lru_cache(maxsize=8)
def _xyz(primaries: int) -> Values:
    """Returns the (3, 3) map from linear R, G, B to CIE X, Y, Z (SMPTE RP 177)."""
    points = PRIMARIES.get(primaries, PRIMARIES[9])
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in (*points, D65)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


@lru_cache(maxsize=8)
def _ratios(curve: ToneMap, peak: float) -> tuple[Values, Values]:
    """Returns luminances, and by what light of each is multiplied to become that of SDR, 1 at white."""
    nodes = _from_pq(np.linspace(0, 1, NODES))
    nodes[0] = nodes[1] / 2
    mapped = _bt2390(nodes, peak) if curve == "bt2390" else _hable(nodes, peak)
    return nodes, mapped / nodes


def _bt2390(light: Values, peak: float) -> Values:
    """Returns the EETF of ITU-R BT.2390-11, 5.4.1, for a black of 0 and a white of 203."""
    white = WHITE["bt2390"]
    if peak <= white:
        return light / white
    top = float(_to_pq(np.array(peak)))
    signal = np.minimum(_to_pq(light) / top, 1.0)
    most = float(_to_pq(np.array(white))) / top
    knee = 1.5 * most - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    bent = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (3 * t**2 - 2 * t**3) * most
    )
    return _from_pq(np.where(signal < knee, signal, bent) * top) / white


def _hable(light: Values, peak: float) -> Values:
    """Returns the filmic curve of J. Hable (2010), with the constants of FFmpeg's filter `tonemap`."""

    def bent(x: Values) -> Values:
        a, b, c, d, e, f = 0.15, 0.50, 0.10, 0.20, 0.02, 0.30
        return (x * (a * x + c * b) + d * e) / (x * (a * x + b) + d * f) - e / f

    white = WHITE["hable"]
    return bent(light / white) / bent(np.array(peak / white))
