"""`verify` and every run see what is shown: twelve wrong outputs are caught, and good ones are not."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from velatura.runtime import ContractError
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.run import run_job
from velatura.runtime.jobs.verify import verify
from velatura.runtime.stages import Conform
from velatura.runtime.verify import picture
from velatura.runtime.verify.compare import Promise, check_shown, inspect

from ..own_data import scenes
from . import videos

SIZE = (160, 96)
COUNT = 24
Pictures = list[np.ndarray]


def write(
    path: Path,
    pictures: Pictures,
    *,
    matrix: str = "ITU601",
    full: bool = False,
    late: float = 0.0,
    chapters: int = 2,
    subtitles: bool = True,
    times: list[int] | None = None,
) -> Path:
    """A film at 25 frames a second with a tone, subtitles and chapters; it is tagged as BT.601 in
    limited range whatever its pixels are."""
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "18"})
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        context.colorspace, context.color_range = 6, 1
        tone = out.add_stream("aac", rate=48_000, layout="stereo")
        words: Any = out.add_stream("subrip") if subtitles else None
        if words is not None:
            words.codec_context.subtitle_header = b"[Script Info]\n[Events]\n"
        out.set_chapters(
            [
                {"id": n, "start": n * 400, "end": n * 400 + 400, "time_base": Fraction(1, 1000),
                 "metadata": {"title": f"{n}"}}
                for n in range(chapters)
            ]
        )  # fmt: skip
        out.start_encoding()
        for index, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame = frame.reformat(
                format="yuvj420p" if full else "yuv420p",
                dst_colorspace=matrix,
                dst_color_range=1 + full,
            )
            plain = av.VideoFrame(frame.width, frame.height, "yuv420p")
            for old, new in zip(frame.planes, plain.planes, strict=True):
                new.update(bytes(old)[: new.buffer_size].ljust(new.buffer_size, b"\0"))
            plain.pts, plain.time_base = (times or range(1000))[index], Fraction(1, 25)
            out.mux(video.encode(plain))
        out.mux(video.encode(None))
        if words is not None:
            said = av.Packet(b"so it begins")
            said.stream, said.time_base = words, Fraction(1, 1000)
            said.pts = said.dts = 100
            said.duration = 500
            out.mux(said)
        videos.add_tone(Late(out, late), tone, COUNT / 25)
    return path


class Late:
    """A container into which sound is put later than it should be."""

    def __init__(self, out: Any, seconds: float) -> None:
        self.out, self.seconds = out, seconds

    def mux(self, packets: Any) -> None:
        for packet in packets:
            shift = round(self.seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            self.out.mux(packet)


def film() -> Pictures:
    return list(scenes(COUNT * 2, SIZE)[::2])


def exchanged(pictures: Pictures) -> Pictures:
    pictures[11], pictures[12] = pictures[12], pictures[11]
    return pictures


def other_film(_: Pictures) -> Pictures:
    blurred = [cv2.GaussianBlur(videos.drawing(SIZE, n), (0, 0), 4) for n in range(COUNT)]
    return [cv2.normalize(one, None, 0, 255, cv2.NORM_MINMAX) for one in blurred]


def overwritten(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = np.random.default_rng(1).bytes(4000)
    path.write_bytes(data)
    return path


Wrong = Callable[[Path], Path]
WRONGS: dict[str, tuple[Wrong, str]] = {
    "mirror": (lambda p: write(p, [one[:, ::-1] for one in film()]), "picture"),
    "negative": (lambda p: write(p, [255 - one for one in film()]), "picture"),
    "range": (lambda p: write(p, film(), full=True), "levels"),
    "one frame dropped": (
        lambda p: write(p, film()[:9] + film()[10:], times=[*range(9), *range(10, COUNT)]),
        "frames",
    ),
    "one frame dropped, the gap closed": (
        lambda p: write(p, film()[:9] + film()[10:] + film()[-1:]),
        "order",
    ),
    "two exchanged": (lambda p: write(p, exchanged(film())), "order"),
    "a tail that stands": (lambda p: write(p, film()[:-6] + film()[-6:-5] * 6), "order"),
    "sound 200 ms off": (lambda p: write(p, film(), late=0.2), "offset"),
    "matrix": (lambda p: write(p, film(), matrix="ITU709"), "colours"),
    "chapter lost": (lambda p: write(p, film(), chapters=1), "chapters"),
    "subtitle lost": (lambda p: write(p, film(), subtitles=False), "stream"),
    "bytes overwritten": (lambda p: overwritten(write(p, film())), ""),
    "another film": (lambda p: write(p, other_film(film())), "picture"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("shown") / "in.mkv", film())


@pytest.mark.quick_rows(13)
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", WRONGS)
def test_wrong_outputs_are_caught(
    name: str, deep: bool, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, kind = WRONGS[name]
    output = make(tmp_path / "out.mkv")
    assert verify(str(source), str(output), deep=deep, as_json=False) == 10
    checks = check_shown(Promise.of_source(inspect(source)), inspect(source), output, deep=deep)
    broken = {one.kind for one in checks if not one.holds}
    assert kind in broken or (not kind and broken), (broken, capsys.readouterr().out)


def test_the_same_film_again_is_right(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = write(tmp_path / "out.mkv", film())
    for deep in (False, True):
        assert verify(str(source), str(output), deep=deep, as_json=False) == 0, capsys.readouterr().out


# ---- every model and every purpose ----------------------------------------------------------------

PURPOSES: dict[str, dict[str, Any]] = {
    "other rate": {"fps": "50"},
    "fewer frames": {"frames": 9},
    "half the rate": {"fps": "12.5"},
    "another size": {"size": (96, 96)},
    "turned upright": {"bake": True},
    "fields": {"deinterlace": "fields"},
    "upscaled": {"models": ("upscale-2x",)},
    "painted": {"models": ("wave",), "frames": 4},
    "with a journal": {"journal": True},
}


@pytest.mark.parametrize("purpose", PURPOSES)
def test_what_a_run_does_on_purpose_is_no_fault(purpose: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    job = {"models": ("identity",), "preset": "ultrafast", **PURPOSES[purpose]}
    assert run_job(Job(source=str(source), sink=str(target), **job), quiet=True) == 0
    kinds = ("picture", "levels", "colours", "order")
    checks = check_shown(Promise.of_source(inspect(source)), inspect(source), target, deep=True)
    shown = [one for one in checks if one.kind in kinds]
    assert shown
    assert [str(one) for one in shown if not one.holds] == []


def test_a_run_that_shows_something_else_is_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a fault of a stage would."""
    right = Conform.__call__

    def mirrored(self: Conform, frame: Any) -> Any:
        done = right(self, frame)
        return done.with_planes(
            tuple(np.ascontiguousarray(p[:, ::-1]) for p in done.planes), done.format
        )

    monkeypatch.setattr(Conform, "__call__", mirrored)
    for journal in (False, True):
        target = tmp_path / f"out{journal}.mkv"
        job = Job(source=str(source), sink=str(target), models=("identity",), journal=journal)
        with pytest.raises(ContractError, match="shown mirrored"):
            run_job(job, quiet=True)
        assert not target.exists()


def test_the_own_check_decodes_a_few_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = write(tmp_path / "long.mkv", film() * 10, subtitles=False)
    decoded: list[int] = []
    leave = picture.Reader.__exit__

    def counted(self: picture.Reader, *error: object) -> None:
        decoded.append(self.decoded)
        leave(self, *error)

    monkeypatch.setattr(picture.Reader, "__exit__", counted)
    job = Job(
        source=str(long), sink=str(tmp_path / "out.mkv"), models=("identity",), preset="ultrafast"
    )
    assert run_job(job, quiet=True) == 0
    assert len(decoded) == 2
    assert 4 < sum(decoded) <= 6 + COUNT * 10 // 75 + 16, "one packet may give several frames"
