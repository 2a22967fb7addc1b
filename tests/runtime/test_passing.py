"""What passes by the models arrives: sound, subtitles, fonts, covers, chapters, languages, roles."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job

from . import videos

FONT = bytes(range(256)) * 20
ASS = b"0,0,Default,,0,0,0,,{\\i1}Hello{\\i0} there"


def rich_film(path: Path, *, subtitle: str = "ass") -> Path:
    """Two languages of sound, subtitles, a font, a cover, chapters and a title, two seconds long."""
    plain = videos.make(path.with_name("plain.mkv"), codec="libx264", frames=50, tone=True)
    cover = cv2.imencode(".png", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        out.metadata["title"] = "The film"
        video = out.add_stream_from_template(given.streams.video[0])
        sounds = []
        for language, role in (("eng", Disposition.default), ("deu", Disposition.comment)):
            stream = out.add_stream_from_template(given.streams.audio[0])
            stream.metadata["language"] = language
            stream.metadata["title"] = f"in {language}"
            stream.disposition = role
            sounds.append(stream)
        words: Any = out.add_stream(subtitle)
        words.metadata["language"] = "fra"
        words.disposition = Disposition.forced
        words.codec_context.subtitle_header = videos_header()
        if path.suffix == ".mkv":
            out.add_attachment("Sans.ttf", "font/ttf", FONT)
            out.add_attachment("cover.png", "image/png", cover)
        out.set_chapters(
            [
                {"id": 1, "start": 0, "end": 1000, "time_base": Fraction(1, 1000),
                 "metadata": {"title": "One"}},
                {"id": 2, "start": 1000, "end": 2000, "time_base": Fraction(1, 1000),
                 "metadata": {"title": "Two"}},
            ]
        )  # fmt: skip
        shown = av.subtitles.subtitle.SubtitleSet.create(ASS, 0, 800)
        packet = words.codec_context.encode_subtitle(shown)
        packet.stream, packet.time_base = words, Fraction(1, 1000)
        packet.pts = packet.dts = 400
        packet.duration = 800
        sent = False
        for moving in given.demux():
            if not moving.size:
                continue
            seconds = float(moving.pts * moving.time_base)
            if not sent and seconds > 0.4:
                out.mux(packet)
                sent = True
            if moving.stream.type == "video":
                moving.stream = video
                out.mux(moving)
                continue
            data, times = bytes(moving), (moving.pts, moving.dts, moving.duration, moving.time_base)
            for sound in sounds:
                copy = av.Packet(data)
                copy.pts, copy.dts, copy.duration, copy.time_base = times
                copy.is_keyframe = True
                copy.stream = sound
                out.mux(copy)
    return path


def videos_header() -> bytes:
    from velatura.runtime.media.passthrough import PLAIN_HEADER

    return PLAIN_HEADER


def run(source: Path, target: Path, **options: object) -> list[dict[str, Any]]:
    job = Job(source=str(source), sink=str(target), models=("identity",), **options)  # type: ignore[arg-type]
    assert run_job(job, quiet=True) == 0
    return streams(target)


def streams(path: Path) -> list[dict[str, Any]]:
    with av.open(str(path)) as container:
        return [
            {
                "type": s.type,
                "codec": s.codec_context.name if s.codec_context else None,
                "language": s.metadata.get("language"),
                "title": s.metadata.get("title"),
                "role": s.disposition,
            }
            for s in container.streams
        ]


def payload(path: Path, index: int) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams[index]) if p.size]


def test_matroska_keeps_everything(tmp_path: Path) -> None:
    source = rich_film(tmp_path / "film.mkv")
    found = run(source, tmp_path / "out.mkv")
    assert [s["type"] for s in found] == [s["type"] for s in streams(source)]
    assert found[0]["type"] == "video", "the video comes first, as players expect"
    assert [s["language"] for s in found[1:4]] == ["eng", "deu", "fra"]
    assert [s["title"] for s in found[1:3]] == ["in eng", "in deu"]
    assert found[2]["role"] & Disposition.comment
    assert found[3]["role"] & Disposition.forced
    for index in (1, 2, 3):
        assert payload(tmp_path / "out.mkv", index) == payload(source, index), "copied bit for bit"
    with av.open(str(tmp_path / "out.mkv")) as container:
        fonts = [s for s in container.streams if s.type == "attachment"]
        assert [font.data for font in fonts] == [FONT]
        covers = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
        assert len(covers) == 1
        chapters = container.chapters()
        assert [c["metadata"]["title"] for c in chapters] == ["One", "Two"]
        assert container.metadata["title"] == "The film"


def chapters(path: Path) -> list[tuple[str, float, float]]:
    with av.open(str(path)) as container:
        return [
            (
                c["metadata"]["title"],
                float(c["start"] * c["time_base"]),
                float(c["end"] * c["time_base"]),
            )
            for c in container.chapters()
        ]


@pytest.mark.quick_rows(2)
@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_a_film_that_ends_early_has_its_own_chapters(name: str, journal: bool, tmp_path: Path) -> None:
    source, target = rich_film(tmp_path / "film.mkv"), tmp_path / name
    for frames, wanted in (
        (50, [("One", 0.0, 1.0), ("Two", 1.0, 2.0)]),
        (30, [("One", 0.0, 1.0), ("Two", 1.0, 1.2)]),
        (20, [("One", 0.0, 0.8)]),
    ):
        run(source, target, frames=frames, journal=journal, overwrite=True)
        assert chapters(target) == wanted
        with av.open(str(target)) as container:
            # The subtitle is shown until 1.2 s.
            assert container.duration / av.time_base < max(frames / 25, 1.2) + 0.06


def test_mp4_gets_words_it_can_hold_and_the_rest_is_said_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = rich_film(tmp_path / "film.mkv")
    job = Job(source=str(source), sink=str(tmp_path / "out.mp4"), models=("identity",))
    assert run_job(job) == 0
    said = capsys.readouterr().err
    assert "stream 3 (subtitle, ass) is converted to mov_text; its styles are lost" in said
    assert "(attachment) is left out: .mp4 files hold no attachments" in said
    found = streams(tmp_path / "out.mp4")
    assert [s["codec"] for s in found if s["type"] == "subtitle"] == ["mov_text"]
    assert [s["language"] for s in found[1:4]] == ["eng", "deu", "fra"]
    with av.open(str(tmp_path / "out.mp4")) as container:
        words = [p for p in container.demux(subtitles=0) if p.size > 2]
        assert [bytes(p)[2:].split(b"\x00")[0] for p in words] == [b"Hello there"]
        assert float(words[0].pts * words[0].time_base) == pytest.approx(0.4, abs=0.002)
        assert float(words[0].duration * words[0].time_base) == pytest.approx(0.8, abs=0.002)
        covers = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
        assert len(covers) == 1


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "srt"), (".mp4", "mov_text")])
def test_a_file_with_its_own_subtitles(
    suffix: str, codec: str, own_clips: Path, tmp_path: Path
) -> None:
    source = own_clips / "words.mp4"
    target = tmp_path / f"out{suffix}"
    found = run(source, target)
    assert [s["codec"] for s in found if s["type"] == "subtitle"] == [codec]
    assert payload(target, 1) == payload(source, 1)
    words = b" ".join(p for p in payload(target, 2))
    for word in (b"First words", "Grüße".encode()):
        assert word in words


def test_transport_streams_get_nothing_that_no_player_finds(tmp_path: Path) -> None:
    source = rich_film(tmp_path / "film.mkv")
    found = run(source, tmp_path / "out.ts")
    assert [s["type"] for s in found] == ["video", "audio", "audio"]


def test_sound_may_be_left_out_alone(tmp_path: Path) -> None:
    source = rich_film(tmp_path / "film.mkv")
    found = run(source, tmp_path / "out.mkv", audio=False)
    assert [s["type"] for s in found if s["type"] in ("audio", "subtitle")] == ["subtitle"]


def test_a_second_video_passes_and_the_main_one_is_processed(tmp_path: Path) -> None:
    first = videos.make(tmp_path / "a.mkv", codec="libx264", frames=25)
    second = videos.make(tmp_path / "b.mkv", codec="libx264", frames=25, size=(32, 32))
    both = tmp_path / "both.mkv"
    with av.open(str(first)) as one, av.open(str(second)) as two, av.open(str(both), "w") as out:
        targets = [out.add_stream_from_template(c.streams.video[0]) for c in (one, two)]
        for container, target in zip((one, two), targets, strict=True):
            for packet in container.demux(video=0):
                if packet.size:
                    packet.stream = target
                    out.mux(packet)
    target = tmp_path / "out.mkv"
    job = Job(source=str(both), sink=str(target), models=("upscale-2x",))
    assert run_job(job, quiet=True) == 0
    with av.open(str(target)) as container:
        sizes = [(s.width, s.height) for s in container.streams.video]
    assert sizes == [(128, 96), (32, 32)]
    assert payload(target, 1) == payload(both, 1)


def test_stopping_early_ends_all_streams(tmp_path: Path) -> None:
    source = rich_film(tmp_path / "film.mkv")
    run(source, tmp_path / "out.mkv", frames=10)
    with av.open(str(tmp_path / "out.mkv")) as container:
        ends = [
            float((p.pts + (p.duration or 0)) * p.time_base)
            for p in container.demux(container.streams.audio[0])
            if p.size
        ]
    assert max(ends) < 0.6
    assert np.isfinite(ends).all()


@pytest.mark.parametrize("suffix", [".mov", ".avi"])
def test_a_cover_does_not_become_a_second_film(
    suffix: str, own_clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / f"out{suffix}"
    job = Job(source=str(own_clips / "cover.mp4"), sink=str(target), models=("identity",))
    assert run_job(job) == 0
    assert "(cover art, png) is left out" in capsys.readouterr().err
    assert [s["type"] for s in streams(target)] == ["video", "audio"]
