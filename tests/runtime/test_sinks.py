"""What is written: pixels, times, tags, sound; and what is left when it fails."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from velatura.runtime import (
    Encoding,
    Frame,
    Pump,
    SinkError,
    StageError,
    open_engine,
    open_sink,
    open_source,
)
from velatura.runtime.stages import Neural

from . import videos


def copy(source: Path, target: Path, encoding: Encoding | None = None, **options: bool) -> None:
    """Through the identity model, as a user would."""
    with (
        open_source(source) as given,
        open_engine("identity") as engine,
        open_sink(target, like=given, encoding=encoding, **options) as sink,
    ):
        Pump(given, [Neural(engine)], sink).run()


LOSSLESS = Encoding(codec="ffv1")


@pytest.mark.parametrize(
    "name",
    ["film.mp4", "one_pixel.mp4", "full_range.mp4",
     "turned.mp4", "ten_bits.mp4", "no_duration.webm",
     "attachment.mkv", "words.mkv"],
)  # fmt: skip
def test_identity_is_bit_exact_and_keeps_everything(own_clips: Path, name: str, tmp_path: Path) -> None:
    before = videos.read(own_clips / name)
    copy(own_clips / name, tmp_path / "out.mkv", LOSSLESS)
    after = videos.read(tmp_path / "out.mkv")
    assert len(after.luma) == len(before.luma)
    for one, other in zip(before.luma, after.luma, strict=True):
        np.testing.assert_array_equal(one, other)
    # Matroska keeps milliseconds, and moves all streams together where sound begins before zero.
    shift = after.seconds[0] - before.seconds[0]
    assert 0 <= shift < 0.03
    assert after.seconds == pytest.approx([s + shift for s in before.seconds], abs=0.0011)
    assert after.rotation % 360 == before.rotation % 360
    assert after.aspect == before.aspect
    assert after.pix_fmt == before.pix_fmt.replace("yuvj", "yuv")
    if before.range:
        assert after.range == before.range
    assert (after.primaries, after.transfer) == (before.primaries, before.transfer)
    assert after.matrix in ((before.matrix,) if before.matrix != 2 else (1, 6))
    assert [data for _, data in after.audio] == [data for _, data in before.audio]
    sound = [s + shift for s, _ in before.audio]
    assert [s for s, _ in after.audio] == pytest.approx(sound, abs=0.0021)


@pytest.mark.parametrize("name", ["turned.mp4", "wide_pixels.mp4", "full_range.mp4"])
def test_mp4_keeps_times_tags_rotation_and_sound(own_clips: Path, name: str, tmp_path: Path) -> None:
    before = videos.read(own_clips / name)
    copy(own_clips / name, tmp_path / "out.mp4")
    after = videos.read(tmp_path / "out.mp4")
    assert after.codec == "h264"
    assert after.seconds == pytest.approx(before.seconds, abs=1e-4)
    assert after.rotation % 360 == before.rotation % 360
    assert after.aspect == before.aspect
    assert (after.primaries, after.transfer) == (before.primaries, before.transfer)
    assert after.range == (before.range or 1)
    assert [data for _, data in after.audio] == [data for _, data in before.audio]
    assert [s for s, _ in after.audio] == pytest.approx([s for s, _ in before.audio], abs=1e-3)


@pytest.mark.parametrize(
    ("codec", "suffix", "canonical"),
    [("h264", ".mp4", "h264"), ("hevc", ".mp4", "hevc"), ("av1", ".mp4", "av1"),
     ("vp9", ".webm", "vp9"), ("ffv1", ".mkv", "ffv1"), ("libx264", ".mov", "h264"),
     ("mpeg4", ".avi", "mpeg4"), ("h264", ".ts", "h264")],
)  # fmt: skip
def test_codecs(codec: str, suffix: str, canonical: str, tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", size=(128, 96), frames=10)
    target = tmp_path / f"out{suffix}"
    copy(source, target, Encoding(codec=codec))
    found = videos.read(target)
    assert found.codec == canonical
    assert len(found.luma) == 10
    error = np.mean(
        [
            np.abs(a.astype(int) - b).mean()
            for a, b in zip(videos.read(source).luma, found.luma, strict=True)
        ]
    )
    assert error < 20


def test_better_quality_costs_bytes(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", frames=10)
    copy(source, tmp_path / "fine.mp4", Encoding(crf=10, preset="medium"))
    copy(source, tmp_path / "rough.mp4", Encoding(crf=40))
    assert (tmp_path / "fine.mp4").stat().st_size > 2 * (tmp_path / "rough.mp4").stat().st_size


def test_ten_bits_stay_ten_bits(own_clips: Path, tmp_path: Path) -> None:
    copy(own_clips / "ten_bits.mp4", tmp_path / "out.mp4")
    assert videos.read(tmp_path / "out.mp4").pix_fmt == "yuv420p10le"


@pytest.mark.parametrize(
    ("codec", "suffix", "kept"),
    [("h264", ".mp4", True), ("h264", ".mov", True), ("h264", ".mkv", True), ("h264", ".ts", True),
     ("hevc", ".mkv", True), ("av1", ".mp4", True), ("vp9", ".mp4", True), ("ffv1", ".mp4", True),
     ("prores", ".mov", True), ("ffv1", ".mkv", True), ("av1", ".mkv", True), ("vp9", ".webm", True),
     ("prores", ".mkv", True), ("ffv1", ".avi", False)],
)  # fmt: skip
def test_an_aspect_that_is_lost_is_said_before_work(
    own_clips: Path, codec: str, suffix: str, kept: bool, tmp_path: Path
) -> None:
    target, encoding = tmp_path / f"out{suffix}", Encoding(codec=codec)
    with (
        open_source(own_clips / "wide_pixels.mp4") as given,
        open_sink(target, like=given, encoding=encoding, audio=False) as sink,
    ):
        assert any("become square" in note for note in sink.notes) != kept
        Pump(given, [], sink).run(limit=3)
        assert sum("become square" in note for note in sink.notes) == (not kept)
    assert (videos.read(target).aspect == Fraction(2, 3)) == kept


def test_a_pixel_format_can_be_chosen(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv")
    copy(source, tmp_path / "out.mp4", Encoding(pix_fmt="yuv444p"))
    assert videos.read(tmp_path / "out.mp4").pix_fmt == "yuv444p"


def test_an_odd_size_is_padded_and_said(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", size=(65, 241), frames=3)
    with open_source(source) as given, open_sink(tmp_path / "o.mp4", like=given) as sink:
        Pump(given, [], sink).run()
        assert any("65x241 is padded to 66x242" in note for note in sink.notes)
    found = videos.read(tmp_path / "o.mp4")
    assert found.luma[0].shape == (242, 66)
    copy(source, tmp_path / "o.mkv", Encoding(codec="ffv1", pix_fmt="yuv444p"))
    assert videos.read(tmp_path / "o.mkv").luma[0].shape == (241, 65)


@pytest.mark.parametrize(
    ("codec", "inside", "outside"),
    [("aac", ".mp4", ".mkv"), ("libopus", ".mkv", ".mp4"), ("libmp3lame", ".mkv", ".mp4"),
     ("flac", ".mkv", ".mp4")],
)  # fmt: skip
def test_sound_is_copied_packet_for_packet(
    codec: str, inside: str, outside: str, tmp_path: Path
) -> None:
    """Also where it is longer than the picture."""
    video = "libx264" if inside == ".mp4" else "ffv1"
    source = videos.make(
        tmp_path / f"in{inside}", codec=video, tone=True, audio_codec=codec, frames=20, seconds=2.0
    )
    copy(source, tmp_path / f"out{outside}")
    before, after = videos.read(source), videos.read(tmp_path / f"out{outside}")
    assert [data for _, data in after.audio] == [data for _, data in before.audio]
    drift = np.array([b - a for (a, _), (b, _) in zip(before.audio, after.audio, strict=True)])
    pictures = after.seconds[0] - before.seconds[0]
    assert np.abs(drift - pictures).max() < 0.005


def test_sound_can_be_left_out(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mp4", codec="libx264", tone=True)
    copy(source, tmp_path / "out.mp4", audio=False)
    assert videos.read(tmp_path / "out.mp4").audio == []


def test_sound_that_the_container_cannot_hold_is_refused_before_work(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", tone=True, audio_codec="aac")
    with open_source(source) as given, pytest.raises(SinkError, match=r"cannot hold aac.*--no-audio"):
        open_sink(tmp_path / "out.webm", like=given, encoding=Encoding(codec="vp9", audio_codec="aac"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv"]


def test_a_limit_cuts_the_sound_with_the_picture(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mp4", codec="libx264", tone=True, frames=50, seconds=2.0)
    with open_source(source) as given, open_sink(tmp_path / "out.mp4", like=given) as sink:
        Pump(given, [], sink).run(limit=10)
        sink.stop_early()
    found = videos.read(tmp_path / "out.mp4")
    assert len(found.luma) == 10
    assert 0.3 < found.audio[-1][0] < 0.45


def test_frames_of_equal_times_do_not_break_the_file(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", frames=4)
    with open_source(source) as given, open_sink(tmp_path / "out.mp4", like=given) as sink:
        for frame in given:
            sink.write(replace(frame, pts=min(frame.pts, 40)))
    assert len(videos.read(tmp_path / "out.mp4").luma) == 4


def test_nothing_appears_before_the_end_and_nothing_stays_after_an_error(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv")
    target = tmp_path / "out.mp4"

    def use(*, fail: bool) -> None:
        with open_source(source) as given, open_sink(target, like=given) as sink:
            for frame in given:
                sink.write(frame)
                assert not target.exists()
            if fail:
                raise RuntimeError("elsewhere")

    with pytest.raises(RuntimeError, match="elsewhere"):
        use(fail=True)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]
    use(fail=False)
    assert target.exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_the_earlier_output_survives_a_failure(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv")
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")

    def broken(frame: Frame) -> Frame:
        raise RuntimeError(f"no {frame.index}")

    with (
        pytest.raises(StageError),
        open_source(source) as given,
        open_sink(target, like=given, overwrite=True) as sink,
    ):
        Pump(given, [broken], sink).run()
    assert target.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_stale_partial_file_is_no_obstacle(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv")
    (tmp_path / ".out.partial.mp4").write_bytes(b"from a crash")
    copy(source, tmp_path / "out.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "out.mp4"]


def test_a_size_change_in_mid_stream_is_an_error(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", frames=2)
    other = videos.make(tmp_path / "other.mkv", frames=2, size=(32, 32))
    with open_source(source) as given, open_source(other) as second:
        frames = [*given, *second]
        sink = open_sink(tmp_path / "out.mp4", like=given)
        sink.write(frames[0])
        with pytest.raises(SinkError, match="frame 0 is 32x32 in a file of 64x48"):
            sink.write(replace(frames[2], pts=99))
        sink.abort()


def test_without_frames_there_is_no_file(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv")
    with open_source(source) as given:
        sink = open_sink(tmp_path / "out.mp4", like=given)
        with pytest.raises(SinkError, match="no frame came"):
            sink.close()
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize(
    ("encoding", "name", "complaint"),
    [
        (Encoding(codec="h265000"), "o.mp4", "no encoder 'h265000'"),
        (Encoding(codec="aac"), "o.mp4", "encodes audio"),
        (Encoding(codec="ffv1", crf=3), "o.mkv", "takes no --crf"),
        (Encoding(pix_fmt="rgb1000"), "o.mp4", "does not take rgb1000"),
        (Encoding(codec="vp9"), "o.mov", "refuse"),
        (Encoding(), "o.xyz", "unknown file type"),
        (Encoding(), "o", "unknown file type"),
        (Encoding(preset="lightning"), "o.mp4", "refuse.*lightning|lightning.*refuse"),
    ],
)
def test_what_cannot_be_encoded_is_refused(
    encoding: Encoding, name: str, complaint: str, tmp_path: Path
) -> None:
    source = videos.make(tmp_path / "in.mkv")
    with pytest.raises(SinkError, match=complaint):
        copy(source, tmp_path / name, encoding)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


def test_sequences_round_trip(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", pix_fmt="bgr0", frames=4)
    with open_source(source) as given, open_sink(tmp_path / "%02d.png", like=given) as sink:
        Pump(given, [], sink).run()
    for index in range(4):
        pixels = cv2.imread(str(tmp_path / f"{index:02d}.png"))
        np.testing.assert_array_equal(pixels[..., ::-1], videos.drawing((64, 48), index))
    with open_source(source) as given, pytest.raises(SinkError, match="exists"):
        open_sink(tmp_path / "%02d.png", like=given)


def write_first(clip: Path, folder: Path) -> None:
    with open_source(clip) as given, open_sink(folder / "%d.png", like=given) as sink:
        Pump(given, [], sink).run(limit=1)


def test_pictures_of_a_turned_video_are_upright(own_clips: Path, tmp_path: Path) -> None:
    with (
        open_source(own_clips / "turned.mp4") as given,
        open_sink(tmp_path / "%d.png", like=given) as sink,
    ):
        Pump(given, [], sink).run(limit=1)
        turned = videos.read(own_clips / "turned.mp4").luma[0]
    found = cv2.cvtColor(cv2.imread(str(tmp_path / "0.png")), cv2.COLOR_BGR2GRAY).astype(float)
    assert np.corrcoef(found.ravel(), turned[::-1, ::-1].ravel())[0, 1] > 0.99


def test_deep_frames_become_deep_pictures(own_clips: Path, tmp_path: Path) -> None:
    with (
        open_source(own_clips / "ten_bits.mp4") as given,
        open_sink(tmp_path / "%d.png", like=given) as sink,
    ):
        Pump(given, [], sink).run(limit=1)
    pixels = cv2.imread(str(tmp_path / "0.png"), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint16
    assert pixels.max() > 1023


def test_one_name_takes_one_picture(tmp_path: Path) -> None:
    source = videos.make(tmp_path / "in.mkv", frames=2)
    with open_source(source) as given:
        sink = open_sink(tmp_path / "one.png", like=given)
        first, second = given
        sink.write(first)
        with pytest.raises(SinkError, match="takes one frame"):
            sink.write(second)


def test_the_null_sink_counts() -> None:
    with open_source("pattern:8x8?frames=3") as given, open_sink("null:", like=given) as sink:
        Pump(given, [], sink).run()
        assert sink.frames == 3


def test_rates_are_written(tmp_path: Path) -> None:
    import av

    with open_source("pattern:64x64@24000/1001?frames=48") as given:
        with open_sink(tmp_path / "out.mp4", like=given) as sink:
            Pump(given, [], sink).run()
        assert sink.duration == pytest.approx(48 * 1001 / 24000)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(24000, 1001)
