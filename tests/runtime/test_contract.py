"""Good files hold what was promised, and every kind of damage is reported as what it is."""

import json
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from velatura.runtime import SourceError
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job
from velatura.runtime.jobs.verify import verify
from velatura.runtime.verify import inspect as inspection_module
from velatura.runtime.verify.compare import (
    ContractError,
    Promise,
    Tally,
    check,
    compare,
    compare_times,
    inspect,
    require,
)

from ..own_data import CLIPS
from . import videos

CFR = [40 * i for i in range(40)]
"""25 frames a second, in milliseconds."""
VFR = list(np.cumsum(random.Random(5).choices([20, 33, 40, 67, 120], k=40)))
TICKS = {"mpeg2video": Fraction(1, 25), "mpeg4": Fraction(1, 25_000)}
"""The time bases of encoders that do not take any."""
LONG = {"g": "100"}
INTRA = {"g": "1"}


def film(
    path: Path,
    times: Sequence[float] = CFR,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (96, 64),
    drawn: tuple[int, int] | None = None,
    pix_fmt: str = "yuv420p",
    colours: tuple[int, int, int, int] = (6, 1, 2, 2),
    aspect: Fraction = Fraction(1),
    rotation: int = 0,
    turn: int = 0,
    tone: float | None = None,
    tally: Tally | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """A film as a user may have it: `times` in milliseconds, `colours` as matrix, range, primaries and
    transfer, `drawn` another size that is scaled to it, `turn` quarters of a turn that are in the
    pixels, `tone` seconds of sound."""
    with av.open(str(path), "w", options=container or {}) as out:
        video = out.add_stream(codec, rate=25, options=options or {})
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        context = video.codec_context
        tick = context.time_base = TICKS.get(codec, Fraction(1, 90_000))
        context.sample_aspect_ratio = aspect
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = colours
        if rotation:
            video.set_display_rotation(rotation if rotation <= 180 else rotation - 360)
        sound = out.add_stream("aac", rate=48_000, layout="stereo") if tone else None
        for index, time in enumerate(times):
            # A slope under the noise: pictures that show which way up they are.
            first = drawn or size
            picture = np.rot90(slope(index, first if turn % 2 == 0 else first[::-1]), turn)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(*size, format=pix_fmt)
            frame.pts, frame.time_base = round(Fraction(time) / 1000 / tick), tick
            if tally is not None:
                tally.frame(time / 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None:
            videos.add_tone(Noting(out, tally), sound, tone or 0.0)
    if tally is not None:
        matrix, range_, primaries, transfer = colours
        tally.picture(
            width=size[0], height=size[1], aspect=aspect, rotation=rotation, matrix=matrix,
            range=range_, primaries=primaries, transfer=transfer,
        )  # fmt: skip
    return path


class Noting:
    """A container that notes what is written."""

    def __init__(self, out: Any, tally: Tally | None) -> None:
        self.out, self.tally = out, tally

    def mux(self, packets: Any) -> None:
        for packet in packets:
            if self.tally is not None:
                self.tally.packet(packet)
            self.out.mux(packet)


def slope(index: int, size: tuple[int, int]) -> np.ndarray:
    picture = videos.drawing(size, index).astype(int)
    return (picture // 2 + np.linspace(0, 120, size[1], dtype=int)[:, None, None]).astype(np.uint8)


Change = Callable[[Any, int, int], Any]
"""(packet, its number in its stream, how many there are) -> packet, packets, bytes in its place, or
None to drop it."""


def rewrite(
    source: Path, target: Path, *, video: Change | None = None, audio: Change | None = None,
    tracks: int | None = None, sounds: Sequence[Path] = (),
) -> Path:  # fmt: skip
    """The packets of a film, changed; of its sound only `tracks` streams, and that of other files."""
    changes = {"video": video, "audio": audio}
    with av.open(str(target), "w") as out:
        files = [av.open(str(path)) for path in (source, *sounds)]
        streams: dict[Any, Any] = {}
        for number, file in enumerate(files):
            for stream in file.streams:
                kept = stream.type in ("video", "audio") and not (number and stream.type == "video")
                if stream.type == "audio" and tracks is not None and number >= tracks:
                    kept = False
                if kept:
                    streams[stream] = out.add_stream_from_template(stream)
        packets = [p for file in files for p in timed(file) if p.stream in streams]
        counts = {s: sum(p.stream is s for p in packets) for s in streams}
        seen = dict.fromkeys(streams, 0)
        ready: list[Any] = []
        for packet in packets:
            stream = packet.stream
            change = changes[stream.type]
            result = change(packet, seen[stream], counts[stream]) if change else packet
            seen[stream] += 1
            if isinstance(result, bytes):
                new = av.Packet(result)
                new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
                new.duration, new.is_keyframe, new.stream = packet.duration, packet.is_keyframe, stream
                result = new
            ready += result if isinstance(result, list) else [result] if result is not None else []
        ready.sort(key=lambda p: float((p.dts if p.dts is not None else p.pts) * p.time_base))
        for packet in ready:
            packet.stream = streams[packet.stream]
            out.mux(packet)
        for file in files:
            file.close()
    return target


def timed(file: Any) -> list[Any]:
    """All packets; the first of reordered frames get the decoding times that Matroska leaves out."""
    packets = [packet for packet in file.demux() if packet.size]
    for stream in file.streams:
        own = [packet for packet in packets if packet.stream is stream]
        known = next((n for n, packet in enumerate(own) if packet.dts is not None), 0)
        for number in range(known):
            own[number].dts = own[known].dts - (known - number) * max(own[known].duration, 1)
    return packets


def copied(packet: Any, later: int) -> Any:
    """The packet once more, `later` ticks on."""
    new = av.Packet(bytes(packet))
    new.pts, new.dts, new.time_base = packet.pts + later, packet.dts + later, packet.time_base
    new.duration, new.is_keyframe, new.stream = packet.duration, packet.is_keyframe, packet.stream
    return new


def moved(packet: Any, later: int) -> Any:
    packet.pts += later
    packet.dts += later
    return packet


def kinds(promise: Promise, path: Path, *, deep: bool = False) -> set[str]:
    return {c.kind for c in check(promise, path, deep=deep) if not c.holds}


def broken(source: Path, output: Path, *, deep: bool = False) -> set[str]:
    return kinds(Promise.of_source(inspect(source)), output, deep=deep)


def holds(source: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the command finds, in both depths."""
    for deep in (False, True):
        code = verify(str(source), str(output), deep=deep, as_json=False)
        assert code == 0, capsys.readouterr().out
    capsys.readouterr()


# ---- good files -----------------------------------------------------------------------------------

REAL = [
    "rabbit320.mp4", "edge/SAR-2by3.mp4", "edge/bitmap.mp4", "edge/bt709_full_range.mp4",
    "edge/fire2.mp4", "edge/h264-png.mp4", "edge/h264_10bits.mp4", "edge/mov_text.mp4",
    "edge/no_duration.webm", "edge/testsrc_with_attachment.mkv", "edge/video_with_failing_audio.mp4",
    "edge/webvtt.mkv", "bigbuckbunny.mp4", "crystal.mp4", "elf.mp4", "pig.mp4", "rabbit.mp4",
    "shooter_gameplay.mp4",
]  # fmt: skip


def run_and_verify(source: Path, target: Path, capsys: pytest.CaptureFixture[str], **job: Any) -> None:
    made = Job(source=str(source), sink=str(target), models=("identity",), preset="ultrafast", **job)
    assert run_job(made, quiet=True) == 0
    holds(source, target, capsys)


@pytest.mark.quick_rows(4)
@pytest.mark.parametrize("name", CLIPS)
def test_clips_hold(
    own_clips: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_and_verify(own_clips / name, tmp_path / "out.mp4", capsys)


@pytest.mark.soak
@pytest.mark.parametrize("name", REAL)
def test_real_clips_hold(
    clips: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_and_verify(clips / name, tmp_path / "out.mp4", capsys)


@pytest.mark.parametrize("suffix", [".mkv", ".mov", ".ts"])
@pytest.mark.parametrize("name", ["words.mp4", "ten_bits.mp4", "words.mkv"])
def test_other_containers_hold(
    own_clips: Path, name: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_and_verify(own_clips / name, tmp_path / f"out{suffix}", capsys)


def test_a_scaled_clip_holds(
    own_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = own_clips / "words.mp4", tmp_path / "out.mp4"
    run_and_verify(source, target, capsys, size=(144, 96))
    verify(str(source), str(target), deep=False, as_json=False)
    words = " ".join(capsys.readouterr().out.split())
    assert "96x64, or a scale of it 144x96, 1.5x ok" in words


GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "b-frames": (".mp4", {"options": {"bf": "3"}, "tone": 1.6}),
    "open groups": (".mp4", {"options": {"x264-params": "open-gop=1:keyint=10:bframes=3"}}),
    "open groups of HEVC": (
        ".mkv",
        {"codec": "libx265", "options": {"x265-params": "log-level=error:keyint=10"}},
    ),
    "fields": (".ts", {"options": {"x264-params": "interlaced=1"}, "size": (96, 96)}),
    "variable rate": (".mp4", {"times": VFR, "tone": 2.0}),
    "variable rate in Matroska": (".mkv", {"times": VFR, "tone": 2.0}),
    "late start": (".mp4", {"times": [t + 500 for t in CFR], "tone": 2.1}),
    "late start in MPEG-TS": (".ts", {"times": [t + 500 for t in CFR], "tone": 2.1}),
    "late alone": (".mkv", {"times": [t + 500 for t in CFR]}),
    "one frame": (".mp4", {"times": [0]}),
    "one frame a second": (".mp4", {"times": [1000 * i for i in range(6)]}),
    "hidden frames": (
        ".webm",
        {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "100k"}},
    ),
    "MPEG-2": (".ts", {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}, "tone": 1.6}),
    "MPEG-4 in AVI": (".avi", {"codec": "mpeg4", "tone": 1.6}),
    "wide pixels": (".mp4", {"aspect": Fraction(4, 3)}),
    "a quarter of a turn": (".mp4", {"rotation": 90}),
    "half a turn": (".mov", {"rotation": 180}),
    "full range": (".mp4", {"colours": (1, 2, 1, 1)}),
    "wide gamut": (".mkv", {"colours": (9, 1, 9, 16)}),
    "intra": (".mkv", {"codec": "ffv1", "options": INTRA, "tone": 1.6}),
    "4:4:4": (".mkv", {"codec": "ffv1", "pix_fmt": "yuv444p"}),
}


@pytest.mark.quick_rows(8)
@pytest.mark.parametrize("name", GOOD)
def test_a_file_holds_what_itself_and_its_copies_promise(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suffix, made = GOOD[name]
    tally = Tally()
    source = film(tmp_path / f"in{suffix}", tally=tally, **made)
    holds(source, source, capsys)
    # AVI holds no times, and the encoder's own clock is not told.
    if suffix != ".avi":
        require(tally.promise(duration=inspect(source).duration), source)
    if name != "hidden frames" and suffix != ".avi":
        for other in (".mkv", ".mp4"):
            if "ffv1" not in made.values() or other == ".mkv":
                holds(source, rewrite(source, tmp_path / f"copy{other}"), capsys)


@pytest.mark.quick_rows(3)
@pytest.mark.parametrize("name", ["b-frames", "open groups", "variable rate", "late start",
                                  "hidden frames", "fields", "a quarter of a turn"])  # fmt: skip
def test_what_a_run_makes_of_it_holds(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suffix, made = GOOD[name]
    source = film(tmp_path / f"in{suffix}", **made)
    run_and_verify(source, tmp_path / "out.mp4", capsys)
    run_and_verify(source, tmp_path / "out.mkv", capsys)


def test_a_rotation_or_an_aspect_may_be_baked_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rotation, size in ((90, (64, 96)), (270, (64, 96)), (180, (96, 64))):
        source = film(tmp_path / f"in{rotation}.mp4", rotation=rotation)
        baked = film(tmp_path / f"out{rotation}.mp4", size=size, turn=rotation // 90)
        holds(source, baked, capsys)
    square = film(tmp_path / "square.mp4", size=(64, 64), rotation=90)
    holds(square, film(tmp_path / "turned.mp4", size=(64, 64), turn=1), capsys)
    wide = film(tmp_path / "wide.mp4", aspect=Fraction(4, 3))
    holds(wide, film(tmp_path / "plain.mp4", size=(128, 64), drawn=(96, 64)), capsys)


def test_two_streams_of_sound_and_a_cover_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film(tmp_path / "a.mp4", tone=1.6)
    film(tmp_path / "b.mp4", tone=1.0)
    source = rewrite(tmp_path / "a.mp4", tmp_path / "both.mkv", sounds=[tmp_path / "b.mp4"])
    run_and_verify(source, tmp_path / "out.mp4", capsys)
    assert len([t for t in inspect(source).tracks if t.kind == "audio"]) == 2


def test_untagged_colours_are_what_players_take_them_for(tmp_path: Path) -> None:
    short = CFR[:3]
    silent = film(tmp_path / "in.mp4", short, colours=(2, 0, 2, 2))
    assert broken(silent, film(tmp_path / "a.mp4", short, colours=(6, 1, 6, 6))) == set()
    assert broken(silent, film(tmp_path / "b.mp4", short, colours=(5, 1, 2, 2))) == set()
    assert broken(silent, film(tmp_path / "c.mp4", short, colours=(1, 1, 1, 1))) == {"matrix"}
    # The guess changes with the size, so that a silent file of 720 lines is another promise.
    high = film(tmp_path / "d.mp4", short, size=(1080, 720), colours=(2, 0, 2, 2))
    assert broken(silent, high) == {"matrix"}


# ---- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return film(tmp_path / "in.mp4", options=LONG, tone=1.6)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi"])
def test_a_cut_file_is_truncated(source: Path, suffix: str, tmp_path: Path) -> None:
    fast = {"movflags": "+faststart"} if suffix in (".mp4", ".mov") else {}
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    whole = film(tmp_path / f"whole{suffix}", codec=codec, options=LONG, tone=1.6, container=fast)
    assert broken(source, whole) == set()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert {"truncated", "frames"} <= broken(source, cut)


def test_a_cut_transport_stream_has_fewer_frames(source: Path, tmp_path: Path) -> None:
    """It has no header that tells its length."""
    whole = film(tmp_path / "whole.ts", options=LONG, tone=1.6)
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert "frames" in broken(source, cut)


def test_a_file_without_its_index_is_unreadable(source: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    assert broken(source, cut) == {"unreadable"}
    assert broken(source, tmp_path / "nowhere.mp4") == {"unreadable"}


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mp4", "libx264"), (".mkv", "libx264"), (".ts", "libx264"), (".avi", "mpeg4"),
     (".mkv", "ffv1"), (".mp4", "libx265")],
)  # fmt: skip
def test_a_damaged_last_packet_is_found(suffix: str, codec: str, tmp_path: Path) -> None:
    options = {"x265-params": "log-level=error:bframes=2"} if codec == "libx265" else LONG
    whole = film(tmp_path / f"in{suffix}", codec=codec, options=options)

    def garble(packet: Any, number: int, count: int) -> Any:
        body = bytes(packet)
        # Zeros, as of a lost sector. FFV1 takes them for a flat picture, and fails on noise only.
        rest = len(body) - 12
        lost = random.Random(2).randbytes(rest) if codec == "ffv1" else bytes(rest)
        return body if number < count - 1 else body[:12] + lost

    damaged = rewrite(whole, tmp_path / f"bad{suffix}", video=garble)
    assert broken(whole, damaged) == {"tail"}
    assert broken(whole, damaged, deep=True) == {"tail"}


def test_a_damaged_packet_in_the_middle_is_found_in_depth(tmp_path: Path) -> None:
    def garble(packet: Any, number: int, _: int) -> Any:
        body = bytes(packet)
        return body[:12] + bytes(len(body) - 12) if number == 5 else body

    intra = film(tmp_path / "intra.mp4", options=INTRA)
    damaged = rewrite(intra, tmp_path / "bad.mp4", video=garble)
    assert broken(intra, damaged) == set()
    assert broken(intra, damaged, deep=True) == {"pictures"}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("number", [0, 17, 39])
def test_a_dropped_frame_is_found(number: int, suffix: str, tmp_path: Path) -> None:
    whole = film(tmp_path / f"in{suffix}", options=INTRA, tone=1.6)
    bad = rewrite(whole, tmp_path / f"bad{suffix}", video=lambda p, n, _: None if n == number else p)
    found = broken(whole, bad)
    assert "frames" in found
    assert not found & {"times", "speed", "tail", "truncated"}
    (mismatch,) = (m for m in compare(Promise.of_source(inspect(whole)), inspect(bad))
                   if m.kind == "frames")  # fmt: skip
    assert f"1 missing, the first at {number * 0.04:.3f} s" in mismatch.meaning


def test_a_dropped_frame_whose_gap_is_closed_is_found(source: Path, tmp_path: Path) -> None:
    assert broken(source, film(tmp_path / "bad.mp4", CFR[:-1], tone=1.6)) == {"frames"}


def test_a_duplicated_frame_is_found(tmp_path: Path) -> None:
    whole = film(tmp_path / "in.mp4", options=INTRA)

    def double(packet: Any, number: int, _: int) -> Any:
        return [packet, copied(packet, packet.duration // 2)] if number == 9 else packet

    assert broken(whole, rewrite(whole, tmp_path / "between.mp4", video=double)) == {"frames"}
    assert broken(whole, film(tmp_path / "after.mp4", [*CFR, 1600])) == {"frames"}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
@pytest.mark.parametrize("ticks", [4800, -4800])
def test_shifted_sound_is_found(ticks: int, suffix: str, source: Path, tmp_path: Path) -> None:
    bad = rewrite(source, tmp_path / f"bad{suffix}", audio=lambda p, _, __: moved(p, ticks))
    assert broken(source, bad) == {"offset"}


def test_missing_sound_is_found(source: Path, tmp_path: Path) -> None:
    assert broken(source, rewrite(source, tmp_path / "bad.mp4", tracks=0)) == {"stream"}


@pytest.mark.parametrize("lost", [0, 1])
def test_a_missing_second_sound_is_found_and_the_other_is_known(lost: int, tmp_path: Path) -> None:
    one, two = film(tmp_path / "1.mp4", tone=1.6), film(tmp_path / "2.mp4", tone=1.0)
    both = rewrite(one, tmp_path / "both.mp4", sounds=[two])
    silent = film(tmp_path / "silent.mp4")
    left = rewrite(silent, tmp_path / "left.mp4", sounds=[two if lost == 0 else one])
    assert broken(both, left) == {"stream"}


def test_a_missing_subtitle_is_found(own_clips: Path, tmp_path: Path) -> None:
    clip = own_clips / "words.mp4"
    found = inspect(clip)
    promise = replace(Promise.of_source(found), tracks=found.tracks, beside=())
    assert kinds(promise, clip) == set()
    bare = rewrite(clip, tmp_path / "bare.mp4")
    assert kinds(promise, bare) == {"stream"}
    assert kinds(Promise.of_source(found), bare) == {"stream"}
    # What no file of that kind holds is no fault of its maker.
    assert kinds(Promise.of_source(found), rewrite(clip, tmp_path / "bare.ts")) == set()


def test_a_missing_font_is_found(own_clips: Path, tmp_path: Path) -> None:
    clip = own_clips / "attachment.mkv"
    promise = Promise.of_source(inspect(clip))
    assert kinds(promise, clip) == set()
    assert kinds(promise, rewrite(clip, tmp_path / "bare.mkv")) == {"stream"}
    assert kinds(promise, rewrite(clip, tmp_path / "bare.mp4")) == set()


def test_unwanted_sound_is_found(source: Path, tmp_path: Path) -> None:
    assert broken(film(tmp_path / "silent.mp4"), source) == {"stream"}


def test_cut_sound_is_found(source: Path, tmp_path: Path) -> None:
    bad = rewrite(source, tmp_path / "bad.mp4", audio=lambda p, n, count: p if n < count - 24 else None)
    assert broken(source, bad) == {"packets", "duration"}


def test_sound_with_a_hole_is_found(source: Path, tmp_path: Path) -> None:
    bad = rewrite(source, tmp_path / "bad.mkv", audio=lambda p, n, _: None if n == 30 else p)
    assert broken(source, bad) == {"packets"}


@pytest.mark.parametrize(
    ("colours", "kind"),
    [((6, 1, 1, 1), "matrix"), ((1, 2, 1, 1), "range"), ((1, 1, 9, 1), "primaries"),
     ((1, 1, 1, 16), "transfer"), ((9, 1, 1, 1), "matrix")],
)  # fmt: skip
@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_wrong_colour_tags_are_found(
    colours: tuple[int, int, int, int], kind: str, codec: str, tmp_path: Path
) -> None:
    suffix = ".mkv" if codec == "ffv1" else ".mp4"
    whole = film(tmp_path / f"in{suffix}", codec=codec, colours=(1, 1, 1, 1))
    assert broken(whole, film(tmp_path / f"bad{suffix}", codec=codec, colours=colours)) == {kind}


def test_a_wrong_size_is_found(source: Path, tmp_path: Path) -> None:
    assert broken(source, film(tmp_path / "a.mp4", size=(96, 54), tone=1.6)) == {"size"}
    assert broken(source, film(tmp_path / "b.mp4", size=(192, 128), tone=1.6)) == set()
    # A run knows its size to the pixel.
    tally = Tally()
    film(tmp_path / "c.mp4", tally=tally)
    promise = tally.promise(duration=1.6)
    assert kinds(promise, tmp_path / "c.mp4") == set()
    assert kinds(promise, film(tmp_path / "d.mp4", size=(192, 128))) == {"size"}


@pytest.mark.parametrize(
    ("rotation", "size"), [(90, (96, 64)), (180, (96, 64)), (270, (96, 64)), (90, (64, 64))]
)
def test_a_lost_rotation_is_found(rotation: int, size: tuple[int, int], tmp_path: Path) -> None:
    whole = film(tmp_path / "in.mp4", size=size, rotation=rotation)
    assert broken(whole, film(tmp_path / "bad.mp4", size=size)) == {"rotation"}
    other = film(tmp_path / "other.mp4", size=size, rotation=(rotation + 90) % 360)
    assert broken(whole, other) == {"rotation"}


def test_a_lost_aspect_is_found(tmp_path: Path) -> None:
    whole = film(tmp_path / "in.mp4", aspect=Fraction(4, 3))
    assert broken(whole, film(tmp_path / "bad.mp4")) == {"aspect"}
    assert broken(whole, film(tmp_path / "big.mp4", size=(192, 128))) == {"aspect"}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_variable_rate_that_became_constant_is_found(suffix: str, tmp_path: Path) -> None:
    whole = film(tmp_path / f"in{suffix}", VFR)
    steps = np.linspace(VFR[0], VFR[-1], len(VFR))
    bad = film(tmp_path / f"bad{suffix}", list(steps))
    assert broken(whole, bad) == {"times"}
    (mismatch,) = compare(Promise.of_source(inspect(whole)), inspect(bad))
    assert "became a constant one" in mismatch.meaning


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_slower_by_a_thousandth_is_found(suffix: str, tmp_path: Path) -> None:
    times = [40.0 * i for i in range(400)]
    whole = film(tmp_path / f"in{suffix}", times, codec="mpeg4")
    bad = film(tmp_path / f"bad{suffix}", [time * 1.001 for time in times], codec="mpeg4")
    assert broken(whole, bad) == {"speed"}
    (mismatch,) = compare(Promise.of_source(inspect(whole)), inspect(bad))
    assert "0.10% slower" in mismatch.meaning


def test_one_frame_at_another_time_is_found(source: Path, tmp_path: Path) -> None:
    times = [*CFR[:7], CFR[7] + 8, *CFR[8:]]
    bad = film(tmp_path / "bad.mp4", times, tone=1.6)
    assert broken(source, bad) == {"times"}
    (mismatch,) = compare(Promise.of_source(inspect(source)), inspect(bad))
    assert "the first 7, are up to 8 ms late" in mismatch.meaning


def test_a_file_that_begins_late_is_found(tmp_path: Path) -> None:
    whole = film(tmp_path / "in.mp4")
    late = film(tmp_path / "bad.mp4", [time + 900 for time in CFR])
    assert broken(whole, late) == {"begin"}


def test_a_last_picture_that_stands_too_long_is_found(tmp_path: Path) -> None:
    whole = film(tmp_path / "in.mp4", options=INTRA)

    def stretch(packet: Any, number: int, count: int) -> Any:
        if number == count - 1:
            packet.duration *= 20
        return packet

    assert broken(whole, rewrite(whole, tmp_path / "bad.mp4", video=stretch)) == {"duration"}


def test_sound_in_another_codec_is_found(source: Path, tmp_path: Path) -> None:
    film(tmp_path / "silent.mkv")
    videos.make(tmp_path / "mp3.mkv", tone=True, audio_codec="libmp3lame", frames=40)
    other = rewrite(tmp_path / "silent.mkv", tmp_path / "b.mkv", sounds=[tmp_path / "mp3.mkv"])
    assert "codec" in broken(source, other)


# ---- what is told ---------------------------------------------------------------------------------


def test_an_error_names_what_is_wrong(source: Path, tmp_path: Path) -> None:
    promise = Promise.of_source(inspect(source))
    bad = film(tmp_path / "bad.mp4", CFR[:-3])
    with pytest.raises(ContractError, match=r"(?s)frames: 37 instead of 40.*audio, stream: none"):
        require(promise, bad)
    assert ContractError.exit_code == 10
    require(promise, source)
    require(promise, source, frames=40)
    with pytest.raises(ContractError, match="encoder, frames: 40 instead of 41"):
        require(promise, source, frames=41)


def test_the_command_shows_a_table(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(str(source), str(source), deep=False, as_json=False) == 0
    assert "MISMATCH" not in capsys.readouterr().out
    bad = film(tmp_path / "bad.mp4", CFR[:-1], tone=1.6)
    assert verify(str(source), str(bad), deep=False, as_json=False) == 10
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if "MISMATCH" in line] == [
        ["video", "frames", "40", "39", "MISMATCH"]
    ]
    assert any("1 missing, the first at 1.560 s" in line for line in lines)


def test_the_command_prints_json(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(str(source), str(tmp_path / "none.mp4"), deep=False, as_json=True) == 10
    report = json.loads(capsys.readouterr().out)
    assert not report["holds"]
    assert [one["kind"] for one in report["checks"]] == ["unreadable"]
    assert verify(str(source), str(source), deep=True, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["holds"]
    assert {"frames", "tail", "pictures", "offset"} <= {one["kind"] for one in report["checks"]}


def test_a_source_that_is_no_video_is_no_broken_output(source: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    for name in ("text.mp4", "none.mp4"):
        with pytest.raises(SourceError):
            verify(str(tmp_path / name), str(source), deep=False, as_json=False)


def test_other_streams_are_named_and_not_compared(
    own_clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = str(own_clips / "cover.mp4")
    assert verify(clip, clip, deep=False, as_json=False) == 0
    assert "not compared: cover (png)" in capsys.readouterr().err


# ---- how it is read -------------------------------------------------------------------------------


def test_only_the_last_group_is_decoded(tmp_path: Path) -> None:
    clip = film(tmp_path / "in.mp4", options={"g": "8", "sc_threshold": "0"})
    decoded = 0
    original = inspection_module._Decoder._decode

    def counting(self: Any, packet: Any) -> None:
        nonlocal decoded
        decoded += packet is not None
        original(self, packet)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection_module._Decoder, "_decode", counting)
        assert inspect(clip).tail == ""
        assert decoded == 8
        inspect(clip, deep=True)
        assert decoded == 48


def test_a_long_group_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = film(tmp_path / "in.mp4", options={"g": "15", "sc_threshold": "0"})
    usual = inspect(clip)
    monkeypatch.setattr(inspection_module, "HELD", 2000)
    bounded = inspect(clip)
    assert (bounded.tail, bounded.failed, bounded.rotation) == ("", 0, 0)
    assert usual.sketch is not None
    np.testing.assert_array_equal(bounded.sketch, usual.sketch)


def test_a_tally_without_frames_promises_nothing() -> None:
    with pytest.raises(ValueError, match="promises nothing"):
        Tally().promise(duration=1.0)


def test_times_are_compared() -> None:
    wanted = np.arange(10) / 25
    assert compare_times(wanted, wanted + 3, 0.002).none
    assert compare_times(wanted, np.round(wanted + 3.0004, 3), 0.002).none
    assert compare_times(wanted[:1], wanted[:1], 0.002).none
    late = compare_times(wanted, wanted + 0.01 * (np.arange(10) == 9), 0.002)
    assert (late.kind, late.index) == ("moved", 9)
    assert compare_times(wanted, np.delete(wanted, 4), 0.002).missing == pytest.approx([0.16])
    assert compare_times(wanted[1:], wanted, 0.002).extra == pytest.approx([0.36])
    assert compare_times(wanted[1:], wanted, 0.002, clock=0.0).extra == pytest.approx([-0.04])
    assert compare_times(wanted, wanted * 1.02, 0.002).stretch == pytest.approx(0.02)
    assert compare_times(wanted, wanted[1:] + 7, 0.002, clock=7.0).missing == pytest.approx([0.0])


@pytest.mark.parametrize("name", ["one_pixel.mp4", "words.mp4", "words.mkv"])
def test_mutated_files_end_in_a_verdict(own_clips: Path, name: str, tmp_path: Path) -> None:
    """Also those whose names are not UTF-8 any more, or whose codec nobody knows."""
    whole = (own_clips / name).read_bytes()
    promise = Promise.of_source(inspect(own_clips / name))
    target = tmp_path / f"out{Path(name).suffix}"
    for seed in range(60):
        rng = random.Random(seed)
        mutated = bytearray(whole)
        for _ in range(rng.choice([1, 8, 60])):
            place = rng.randrange(min(len(mutated), 4000) if seed % 2 else len(mutated))
            mutated[place] ^= 1 << rng.randrange(8)
        target.write_bytes(mutated[: rng.randrange(len(mutated))] if seed % 5 == 0 else mutated)
        assert check(promise, target, deep=seed % 3 == 0)


# ---- `verify` agrees with `run` -------------------------------------------------------------------

SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "h264.ts": (".ts", {"options": {"bf": "2"}, "tone": 1.0}),
    "h264 alone": (".h264", {"options": {"bf": "2"}}),
    "hevc": (".mp4", {"codec": "libx265", "options": {"x265-params": "log-level=error"}, "tone": 1.0}),
    "fields of MPEG-2": (
        ".ts",
        {"codec": "mpeg2video", "options": {"bf": "2", "flags": "+ildct+ilme"}, "size": (96, 96)},
    ),
    "MPEG-2 alone": (".m2v", {"codec": "mpeg2video"}),
    "MPEG-4": (".avi", {"codec": "mpeg4"}),
}


@pytest.mark.quick_rows(12)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov", ".flv", ".nut", ".h264"])
@pytest.mark.parametrize("name", SOURCES)
def test_verify_agrees_with_run(
    name: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, made = SOURCES[name]
    source, target = film(tmp_path / f"in{home}", CFR[:12], **made), tmp_path / f"out{suffix}"
    audio = suffix != ".h264"
    job = Job(
        source=str(source), sink=str(target), models=("identity",), preset="ultrafast", audio=audio
    )
    assert run_job(job, quiet=True) == 0
    if audio or "tone" not in made:
        holds(source, target, capsys)


def test_segments_of_picture_subtitles_may_be_joined(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each subtitle of Blu-ray is some segments; Matroska's muxer makes one packet of them."""
    sets = b"".join(
        b"PG" + struct.pack(">IIBH", 9000 * time, 0, kind, len(body)) + body
        for time, number in ((2, 0), (6, 1), (9, 2))
        for kind, body in ((0x16, struct.pack(">HHBHBBBB", 96, 64, 16, number, 128, 0, 0, 0)),
                           (0x17, b"\0"), (0x80, b""))
    )  # fmt: skip
    (tmp_path / "words.sup").write_bytes(sets)
    plain, source = film(tmp_path / "plain.ts", tone=1.6), tmp_path / "in.m2ts"
    with av.open(str(source), "w", options={"mpegts_m2ts_mode": "1"}) as out:
        files = [av.open(str(path)) for path in (plain, tmp_path / "words.sup")]
        streams = {s: out.add_stream_from_template(s) for file in files for s in file.streams}
        packets = [packet for file in files for packet in file.demux() if packet.size]
        for packet in packets:
            if packet.stream.type == "subtitle":
                packet.dts = packet.pts
        for packet in sorted(packets, key=lambda p: float(p.dts * p.time_base)):
            packet.stream = streams[packet.stream]
            out.mux(packet)
        for file in files:
            file.close()
    (track,) = (track for track in inspect(source).tracks if track.kind == "subtitle")
    assert (track.codec, track.packets) == ("hdmv_pgs_subtitle", 3)
    run_and_verify(source, tmp_path / "out.mkv", capsys)
    (track,) = (t for t in inspect(tmp_path / "out.mkv").tracks if t.kind == "subtitle")
    assert track.packets == 3
