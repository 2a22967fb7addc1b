"""Whatever comes in comes out right, or is refused in words: by PyAV alone, then by `verify`."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from velatura.runtime.errors import VelaturaError
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job
from velatura.runtime.jobs.verify import verify

from . import filming
from .filming import LINES, Film, samples
from .matrix import MATRIX, ORDER, SHAPES, SOUNDS, TARGETS, Clip, cover, is_rgb, pairs, values

QUICK, ALL = 40, 420
CLIPS = cover(ALL)
ROUNDED = 0.0021
"""Seconds: Matroska and FLV round to 1 ms, both files may."""
SYNC = 0.010
COARSE = ("avi", "matroska,webm", "flv")
PACKED = ("rgba", "argb", "pal8")
ALIKE = {6: 5, 4: 5, 10: 9}
"""Codes of matrices that are the same, or nearly."""
LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}


def run(source: Path, target: Path, said: pytest.CaptureFixture[str], **options: Any) -> str:
    """What it says, with exit code 0."""
    job = Job(source=str(source), sink=str(target), models=("identity",), **options)
    said.readouterr()
    code = run_job(job)
    words = said.readouterr()
    assert code == 0, words
    return " ".join((words.out + words.err).split())


SAID = {"aspect": "become square", "rotation": "it lies"}
"""What a run may lose if it says so, which `verify` rightly reports: by its name, and the words."""


def agrees(source: Path, target: Path, words: str, said: pytest.CaptureFixture[str]) -> None:
    """`velatura verify` comes to the same verdict."""
    for deep in (False, True):
        said.readouterr()
        code = verify(str(source), str(target), deep=deep, as_json=True)
        report = json.loads(said.readouterr().out)
        broken = [one for one in report["checks"] if not one["holds"]]
        lost = {kind for kind, phrase in SAID.items() if phrase in words}
        assert {one["kind"] for one in broken} <= lost, broken
        assert code == (10 if broken else 0)


# ---- what must be the same in any output ----------------------------------------------------------


def same_times(before: Film, after: Film, coarse: float) -> None:
    """Every frame at its time, counted from the first."""
    assert len(after.times) == len(before.times)
    wanted = np.array(before.times) - before.times[0]
    given = np.array(after.times) - after.times[0]
    np.testing.assert_allclose(given, wanted, rtol=0, atol=ROUNDED + coarse)


def same_sound(before: Film, after: Film, coarse: float) -> None:
    """The same packets bit for bit, each where it was against the picture."""
    # MP4 has one name for both.
    names = [[s.codec.replace("mp2", "mp3") for s in film.sounds] for film in (before, after)]
    assert names[0] == names[1]
    for one, other in zip(before.sounds, after.sounds, strict=True):
        assert other.body == one.body, f"{one.codec} changed"
        pairs_of = (
            zip(one.times, other.times, strict=True)
            if len(one.times) == len(other.times)
            else [(one.times[0], other.times[0])]  # PCM is cut anew
        )
        late = [(b - after.times[0]) - (a - before.times[0]) for a, b in pairs_of]
        assert max(map(abs, late)) <= SYNC + coarse, f"{one.codec}: {max(late, key=abs):+.4f} s"


def same_words(before: Film, after: Film, said: str, coarse: float) -> None:
    """The same subtitles at the same times, or words about what is lost."""
    if len(after.words) < len(before.words):
        lost = re.search(r"\((subtitle|data)[^)]*\) is left out: .* cannot hold", said)
        assert not after.words
        assert lost, f"subtitles vanished without a word: {said}"
        return
    assert [w[2] for w in after.words] == [w[2] for w in before.words]
    for one, other in zip(before.words, after.words, strict=True):
        for a, b in zip(one[:2], other[:2], strict=True):
            assert (b - after.times[0]) - (a - before.times[0]) == pytest.approx(0, abs=SYNC + coarse)


def same_shape(before: Film, after: Film, said: str) -> None:
    """The picture is shown as it was: upright, undistorted, whole."""
    padded = after.width - before.width, after.height - before.height
    if padded != (0, 0):
        # 4:1:1 has blocks of four.
        assert padded[0] in (range(4) if "411" in before.pixels else (0, 1))
        assert padded[1] in (0, 1)
        assert "padded" in said
    if after.rotation != before.rotation:
        assert after.rotation == 0
        assert re.search("it lies|turned", said), f"the rotation is lost without a word: {said}"
    if after.aspect != before.aspect:
        off = abs(float(after.aspect / before.aspect) - 1)
        assert off < 0.01 or "become square" in said, (
            f"{after.aspect} instead of {before.aspect}: {said}"
        )


def same_colours(before: Film, after: Film, said: str) -> None:
    """Numbers mean what they meant."""
    if is_rgb(before.pixels) or is_rgb(after.pixels) or before.pixels in PACKED:
        return
    if not before.pixels.startswith(("gray", "y8")):
        a, b = (matrix_of(f) for f in (before, after))
        assert a == b, f"matrix {after.matrix} instead of {before.matrix}"
    full = [f.range == 2 or f.pixels.startswith("yuvj") for f in (before, after)]
    assert full[0] == full[1], f"range {after.range} instead of {before.range}"
    for name in ("primaries", "transfer"):
        a, b = getattr(before, name), getattr(after, name)
        assert a == b or 2 in (a, b), f"{name} {b} instead of {a}"
        if a != 2 and after.container != "avi":
            assert a == b, f"{name} lost: {said}"


def matrix_of(film: Film) -> int:
    """What a player takes it for."""
    if film.matrix == 2:
        return 1 if film.height >= 720 else 5
    return ALIKE.get(film.matrix, film.matrix)


def same_end(after: Film, wanted: float) -> None:
    """The last frame stands as long as it did."""
    length = after.end - after.times[0]
    assert length == pytest.approx(wanted, abs=ROUNDED + 0.001)


# ---- pictures -------------------------------------------------------------------------------------


def same_luma(before: Film, after: Film, said: str) -> None:
    """Bit for bit in every depth; of RGB, as the matrix that the output names has it."""
    for a, b in zip(before.pictures, after.pictures, strict=True):
        wanted = luma_of(a, after)
        given = samples(b, 0).astype(int)[: a.height, : a.width]
        deep, now = depth(a), depth(b)
        if is_rgb(a.format.name) or a.format.name in PACKED:
            # FFmpeg's own way to 16 bits rounds by one, too.
            np.testing.assert_allclose(given, wanted, rtol=0, atol=1.01 if now <= 12 else 2.01)
        elif now >= deep:
            np.testing.assert_array_equal(given, wanted << (now - deep))
        else:
            assert "bit" in said, f"{deep} bits became {now} without a word: {said}"
            np.testing.assert_allclose(given, wanted / (1 << (deep - now)), rtol=0, atol=1)


def same_chroma(before: Film, after: Film) -> None:
    for a, b in zip(before.pictures, after.pictures, strict=True):
        for number in (1, 2):
            np.testing.assert_array_equal(samples(b, number), samples(a, number))


def same_alpha(before: Film, after: Film, said: str) -> None:
    """Opacity arrives, or its loss is said."""
    count = len(after.pictures[0].format.components)
    if has_opacity(after.pictures[0]):
        for a, b in zip(before.pictures, after.pictures, strict=True):
            shift = depth(b) - depth(a)
            wanted = opacity(a).astype(int) << shift if shift >= 0 else opacity(a) >> -shift
            np.testing.assert_array_equal(samples(b, count - 1)[: a.height, : a.width], wanted)
    else:
        assert re.search("transparen|opacity|alpha", said), f"opacity is lost without a word: {said}"


def opacity(frame: Any) -> np.ndarray:
    if frame.format.name in PACKED:
        return frame.to_ndarray(format="rgba")[..., 3]
    return samples(frame, 3)


def like_source(before: Film, after: Film) -> None:
    """Of a lossy output: each frame shows its own moment, in about its colours, laid over black."""
    over = has_opacity(before.pictures[0]) and not has_opacity(after.pictures[0])
    shown = [seen(a, before, over=over) for a in before.pictures]
    for index, (a, b) in enumerate(zip(before.pictures, after.pictures, strict=True)):
        given = seen(b, after, (a.width, a.height))
        errors = [np.abs(given - shown[index]).mean()]
        for other in (index - 1, index + 1):
            if 0 <= other < len(before.pictures):
                errors.append(np.abs(given - shown[other]).mean())
        assert errors[0] < 12, f"frame {index} differs by {errors[0]:.1f} of 255 on the average"
        assert errors[0] <= min(errors), f"frame {index} shows another moment"


def has_opacity(frame: Any) -> bool:
    return len(frame.format.components) in (2, 4)


def seen(
    frame: Any, film: Film, size: tuple[int, int] | None = None, *, over: bool = False
) -> np.ndarray:
    """The frame in 8-bit RGB as its tags say, smoothed, by the standard's formula; or `over` black."""
    name = frame.format.name
    if is_rgb(name) or name in PACKED:
        rgb = frame.to_ndarray(format="rgb24").astype(float)
    else:
        parts = [samples(frame, n).astype(float) for n in range(len(frame.format.components[:3]))]
        high, wide = parts[0].shape
        peak = 1 << depth(frame)
        full = film.range == 2 or name.startswith("yuvj")
        luma = parts[0] / (peak - 1) if full else (parts[0] / peak * 256 - 16) / 219
        rgb = np.repeat(luma[..., None], 3, 2)
        if len(parts) == 3 and not name.startswith(("gray", "ya")):
            scale = (peak - 1) if full else peak / 256 * 224
            blue, red = (
                np.repeat(np.repeat(p, -(-high // p.shape[0]), 0), -(-wide // p.shape[1]), 1)[
                    :high, :wide
                ]
                for p in parts[1:]
            )
            blue, red = (blue - peak / 2) / scale, (red - peak / 2) / scale
            kr, kb = LUMA[matrix_of(film)]
            r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
            rgb = np.stack([r, (luma - kr * r - kb * b) / (1 - kr - kb), b], 2)
        rgb = np.clip(rgb, 0, 1) * 255
    if over:
        alpha = opacity(frame)
        rgb = rgb * (alpha / ((1 << (8 if name in PACKED else depth(frame))) - 1))[..., None]
    if size is not None:
        rgb = rgb[: size[1], : size[0]]
    high, wide = rgb.shape[0] // 4 * 4, rgb.shape[1] // 4 * 4
    return rgb[:high, :wide].reshape(high // 4, 4, wide // 4, 4, 3).mean((1, 3))


def luma_of(frame: Any, film: Film) -> np.ndarray:
    name = frame.format.name
    if is_rgb(name) or name in PACKED:
        bits = depth(film.pictures[0])
        deep = frame.to_ndarray(format="rgb48le" if depth(frame) > 8 else "rgb24").astype(float)
        rgb = deep / (65535 if depth(frame) > 8 else 255)
        kr, kb = LUMA[matrix_of(film)]
        luma = rgb @ np.array([kr, 1 - kr - kb, kb])
        return luma * ((1 << bits) - 1) if film.range == 2 else (luma * 219 + 16) * (1 << (bits - 8))
    return samples(frame, 0).astype(int)


def depth(frame: Any) -> int:
    return max(part.bits for part in frame.format.components)


# ---- the matrix -----------------------------------------------------------------------------------


def check(clip: Clip, folder: Path, said: pytest.CaptureFixture[str]) -> None:
    source = filming.make(folder / f"in.{clip.home}", clip)
    before = filming.read(source)
    is_what_it_says(clip, before)
    sound = True
    if clip.sound == "wma":
        # It is converted: `test_sound_passes_or_is_converted`.
        sound, before = False, replace(before, sounds=[])
    suffix, codec, _ = TARGETS[clip.target]
    for target, options in (
        (folder / "lossless.mkv", {"codec": "ffv1"}),
        (folder / f"out.{suffix}", {"codec": codec, "preset": FAST.get(codec, "ultrafast"), "crf": 12}),
    ):
        words = run(source, target, said, audio=sound, **options)
        after = filming.read(target)
        coarse = grid(before, after)
        same_times(before, after, coarse)
        same_sound(before, after, coarse)
        same_words(before, after, words, coarse)
        same_shape(before, after, words)
        same_colours(before, after, words)
        if suffix in ("mp4", "mov") and target.suffix != ".mkv" and stands(clip):
            same_end(after, float(clip.times[-1] - clip.times[0]))
        if options["codec"] == "ffv1":
            same_luma(before, after, words)
            alike = before.pixels.replace("yuvj", "yuv") == after.pixels.replace("yuvj", "yuv")
            if alike and before.pixels.startswith("yuv"):
                same_chroma(before, after)
            if (
                clip.pixels.startswith(("yuva", "rgba", "argb"))
                and len(before.pictures[0].format.components) == 4
            ):
                same_alpha(before, after, words)
        else:
            like_source(before, after)
        if sound:
            agrees(source, target, words, said)


def refused(source: Path, target: Path, words: str, **options: Any) -> None:
    """The run ends in an error that says why, and leaves nothing."""
    job = Job(source=str(source), sink=str(target), models=("identity",), **options)
    with pytest.raises(VelaturaError, match=words):
        run_job(job, quiet=True)
    assert not target.exists()
    assert not [path for path in target.parent.iterdir() if path.name.startswith(".")]


FAST = {"vp9": "8", "av1": "12"}


def grid(before: Film, after: Film) -> float:
    """AVI counts frames in place of times and does not know the order of display: that costs one."""
    span = before.times[-1] - before.times[0]
    return span / max(len(before.times) - 1, 1) if "avi" in (before.container, after.container) else 0.0


def stands(clip: Clip) -> bool:
    """Whether the source says how long its last frame stands: FFmpeg's MP4 loses it of VP9, and where
    frames are reordered the last one in the file is not the last to be shown."""
    return clip.home in ("mp4", "mov") and clip.codec not in (
        "vp9",
        "h264b",
        "h264open",
        "hevc",
        "mpeg4b",
        "mpeg2",
    )


def is_what_it_says(clip: Clip, film: Film) -> None:
    """The clip is what its name says, else the test would check less than it seems to."""
    wanted = np.array([float(t - clip.times[0]) for t in clip.times[:-1]])
    given = np.array(film.times) - film.times[0]
    assert len(given) == len(wanted)
    if clip.home not in ("avi", "wmv"):
        np.testing.assert_allclose(given, wanted, rtol=0, atol=0.0011)
    if stands(clip):
        assert film.end - film.times[0] == pytest.approx(
            float(clip.times[-1] - clip.times[0]), abs=0.002
        )
    assert film.rotation == clip.rotation
    assert film.aspect == SHAPES[clip.shape]
    assert (film.width, film.height) == (clip.width, clip.height)
    assert len(film.sounds) == len(SOUNDS[clip.sound])
    assert [w[2] for w in film.words] == wanted_words(clip)
    if clip.full:
        assert film.range == 2
    if (
        clip.colour != "unset"
        and not is_rgb(clip.pixels)
        and not clip.pixels.startswith(("gray", "argb"))
    ):
        assert film.matrix == MATRIX[clip.colour][0]


def wanted_words(clip: Clip) -> list[str]:
    if clip.words == "dvb":
        return [filming.DVB.hex()] * len(LINES)
    return [text for _, _, text in LINES] if clip.words != "none" else []


def test_the_first_clips_hold_every_property_and_all_of_them_nearly_every_pair() -> None:
    quick = CLIPS[:QUICK]
    assert len(set(CLIPS)) >= 400
    for name in ORDER:
        assert {getattr(clip, name) for clip in quick} == set(values(name)), name
    # What chance can make at all, as far as it shows in many draws.
    possible = {pair for clip in cover(1500, seed=9) for pair in pairs(asdict_of(clip))}
    met = {pair for clip in CLIPS for pair in pairs(asdict_of(clip))}
    assert len(met & possible) > 0.9 * len(possible)


def asdict_of(clip: Clip) -> dict[str, Any]:
    return {name: getattr(clip, name) for name in ORDER}


@pytest.mark.parametrize("clip", CLIPS[:QUICK], ids=str)
def test_clips(clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(clip, tmp_path, capsys)


@pytest.mark.soak
@pytest.mark.parametrize("clip", CLIPS[QUICK:], ids=str)
def test_more_clips(clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(clip, tmp_path, capsys)


# ---- sound that a container does not hold ---------------------------------------------------------

NOT_HELD = {
    "mkv": ("wma",),
    "mp4": ("wma",),
    "m4v": ("opus", "mp3", "pcm", "pcm24", "flac", "mp2", "wma"),
    "mov": ("opus", "flac", "wma"),
    "webm": tuple(name for name in SOUNDS if name not in ("none", "opus")),
    "ts": ("pcm", "pcm24", "flac", "alac", "wma"),
    # The picture of this .wmv begins a frame late, which AVI cannot say.
    "avi": ("opus", "alac", "wma"),
    "flv": ("pcm", "pcm24", "alac", "mp2", "wma"),
    "nut": ("alac",),
}


@pytest.mark.quick_rows(30)
@pytest.mark.parametrize("suffix", NOT_HELD)
@pytest.mark.parametrize("sound", [name for name in SOUNDS if name != "none"])
def test_sound_passes_or_is_converted(
    sound: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = "wmv" if sound == "wma" else "mkv"
    clip = replace(PLAIN, codec="wmv2" if home == "wmv" else "h264", home=home, sound=sound)
    source = filming.make(tmp_path / f"in.{home}", clip)
    target = tmp_path / f"out.{suffix}"
    codec = {"webm": "vp9", "nut": "ffv1"}.get(suffix, "h264")
    if (sound, suffix) == ("wma", "avi"):
        refused(source, target, "begin all at once", codec=codec)
        return
    before = filming.read(source)
    words = run(source, target, capsys, codec=codec)
    after = filming.read(target)
    same_times(before, after, grid(before, after))
    if sound in NOT_HELD[suffix]:
        assert re.search(r"\(audio, \w+\) is converted to (aac|libopus|flac)", words)
        for one, other in zip(before.sounds, after.sounds, strict=True):
            late = (other.times[0] - after.times[0]) - (one.times[0] - before.times[0])
            # What an encoder puts before the first sample may count.
            assert abs(late) <= 0.05 + grid(before, after)
        agrees(source, target, words, capsys)
        return
    same_sound(before, after, grid(before, after))
    agrees(source, target, words, capsys)


PLAIN = Clip(
    codec="h264", home="mkv", pixels="yuv420p", size="64x48", rate="25", rotation=0, shape="square",
    colour="unset", full=False, sound="none", sync="even", words="none", target="mp4",
)  # fmt: skip


# ---- real clips -----------------------------------------------------------------------------------

SMALL = (
    "edge/SAR-2by3.mp4", "edge/bitmap.mp4", "edge/h264-png.mp4", "edge/h264_10bits.mp4",
    "edge/mov_text.mp4", "edge/testsrc_with_attachment.mkv", "edge/webvtt.mkv",
)  # fmt: skip
LARGE = (
    "edge/bt709_full_range.mp4", "edge/fire2.mp4", "edge/no_duration.webm",
    "edge/video_with_failing_audio.mp4", "bigbuckbunny.mp4", "crystal.mp4", "elf.mp4", "pig.mp4",
    "rabbit.mp4", "rabbit320.mp4", "shooter_gameplay.mp4",
)  # fmt: skip


@pytest.mark.quick_rows(3)
@pytest.mark.parametrize("name", SMALL)
def test_real_clips(name: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_real(clips / name, tmp_path, capsys)


@pytest.mark.soak
@pytest.mark.parametrize("name", LARGE)
def test_large_real_clips(
    name: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_real(clips / name, tmp_path, capsys)


def test_every_clip_that_is_there_is_checked(clips: Path) -> None:
    found = {path.relative_to(clips).as_posix() for path in clips.rglob("*.*") if path.is_file()}
    assert found <= {*SMALL, *LARGE}


def check_real(source: Path, folder: Path, said: pytest.CaptureFixture[str]) -> None:
    """As `check` does; luma by its hashes."""
    before = filming.read(source, keep=False)
    for name, codec in (("lossless.mkv", "ffv1"), ("out.mp4", "auto")):
        target = folder / name
        words = run(source, target, said, codec=codec, preset=None if codec == "ffv1" else "ultrafast")
        after = filming.read(target, keep=False)
        same_times(before, after, 0.0)
        same_sound(before, after, 0.0)
        same_words(before, after, words, 0.0)
        same_shape(before, after, words)
        same_colours(before, after, words)
        if codec == "ffv1":
            assert after.luma == before.luma
        agrees(source, target, words, said)
