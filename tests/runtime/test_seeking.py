"""Reading that begins in the middle of a film: the same frames come as in a reading of all, or it does
not begin there."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from velatura.runtime import open_source
from velatura.runtime.errors import VelaturaError
from velatura.runtime.jobs import run as jobs_run
from velatura.runtime.jobs.job import Job
from velatura.runtime.jobs.workers import Death, Heard, Maker, Schedule, Task
from velatura.runtime.media.decode import Reader
from velatura.runtime.resume.journal import Journal, Share
from velatura.runtime.sources.segment_part import PartSource

from . import videos
from .cutting import contents, finish, journal, run

LENGTH = 10
COUNT = 64

H264: dict[str, Any] = {"codec": "libx264", "frames": COUNT, "size": (96, 64)}


def b_frames(folder: Path) -> Path:
    return videos.make(folder / "in.mp4", **H264, tone=True, options={"g": "8", "bf": "3"})


def open_gop(folder: Path) -> Path:
    options = {"g": "8", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
    return videos.make(folder / "in.mkv", **H264, options=options)


def one_gop(folder: Path) -> Path:
    return videos.make(folder / "in.mp4", **H264, options={"g": "250"})


def transport(folder: Path) -> Path:
    return videos.make(folder / "in.ts", **H264, tone=True, options={"g": "8", "bf": "2"})


def variable(folder: Path) -> Path:
    times = np.cumsum(np.random.default_rng(1).choice([10, 33, 40, 41, 700], COUNT)).tolist()
    return videos.make(folder / "in.mkv", **H264, pts=times, options={"g": "8", "bf": "2"})


def avi(folder: Path) -> Path:
    return videos.make(folder / "in.avi", codec="mpeg4", frames=COUNT, options={"g": "8"})


def avi_b_frames(folder: Path) -> Path:
    return videos.make(folder / "in.avi", codec="mpeg4", frames=COUNT, options={"g": "8", "bf": "2"})


def program(folder: Path) -> Path:
    options = {"g": "8", "bf": "2"}
    return videos.make(folder / "in.mpg", codec="mpeg2video", frames=COUNT, options=options)


def bare(folder: Path) -> Path:
    return videos.make(folder / "in.h264", **H264, options={"g": "8"})


def vp9(folder: Path) -> Path:
    options = {"g": "8", "cpu-used": "8", "deadline": "realtime", "auto-alt-ref": "1"}
    return videos.make(folder / "in.webm", codec="libvpx-vp9", frames=COUNT, options=options)


def intra(folder: Path) -> Path:
    return videos.make(folder / "in.mkv", frames=COUNT)


def fields(folder: Path) -> Path:
    """MPEG-2 of two fields a picture."""
    options = {"g": "8", "flags": "+ilme+ildct", "bf": "2"}
    return videos.make(folder / "in.ts", codec="mpeg2video", frames=COUNT, options=options)


def late_fields(folder: Path) -> Path:
    """Whole pictures up to the middle, and then fields."""
    whole = videos.make(folder / "a.ts", codec="mpeg2video", frames=COUNT, options={"g": "8"})
    two = fields(folder)
    path = folder / "in.mkv"
    with av.open(str(whole)) as a, av.open(str(two)) as b, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(a.streams.video[0])
        for given, offset in ((a, 0), (b, COUNT * 3600)):
            for packet in given.demux(given.streams.video[0]):
                if packet.dts is not None:
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = stream
                    out.mux(packet)
    return path


def two_sizes(folder: Path) -> Path:
    """Pictures that become larger in the middle."""
    options = {"g": "8"}
    parts = [
        videos.make(
            folder / f"{width}.ts",
            codec="mpeg2video",
            frames=COUNT // 2,
            size=(width, 64),
            options=options,
        )
        for width in (96, 128)
    ]
    path = folder / "in.ts"
    with av.open(str(path), "w") as out:
        stream: Any = None
        for number, part in enumerate(parts):
            with av.open(str(part)) as given:
                stream = stream or out.add_stream_from_template(given.streams.video[0])
                for packet in given.demux(given.streams.video[0]):
                    if packet.dts is not None:
                        packet.pts += number * COUNT // 2 * 3600
                        packet.dts += number * COUNT // 2 * 3600
                        packet.stream = stream
                        out.mux(packet)
    return path


def rotated(folder: Path) -> Path:
    plain = b_frames(folder)
    path = folder / "turned.mp4"
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        stream.set_display_rotation(90)
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    return path


def pictures(folder: Path) -> Path:
    for number in range(COUNT):
        picture = av.VideoFrame.from_ndarray(videos.drawing((64, 48), number), format="rgb24")
        picture.save(str(folder / f"{number:03d}.png"))
    return folder / "%03d.png"


def damaged(folder: Path) -> Path:
    """One packet in the middle is not what was coded; its frame is lost, or wrong."""
    plain = videos.make(folder / "plain.mkv", codec="mpeg4", frames=COUNT, options={"g": "8"})
    path = folder / "in.mkv"
    with av.open(str(plain)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(given.demux(given.streams.video[0])):
            if packet.dts is None:
                continue
            if number == 24:
                spoilt = av.Packet(b"\xff" * packet.size)
                spoilt.pts, spoilt.dts, spoilt.time_base = packet.pts, packet.dts, packet.time_base
                packet = spoilt
                packet.is_keyframe = True
            packet.stream = stream
            out.mux(packet)
    return path


def cut_short(folder: Path) -> Path:
    path = transport(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


@dataclass(frozen=True)
class Clip:
    make: Callable[[Path], Path]
    options: tuple[str, ...] = ()
    """Those of the command."""
    seeks: bool = True
    """False where all must be read from the beginning."""
    shifted: bool = False
    """True where a frame is lost unseen, so that sought ones have another number than in a reading of
    all: the segment before shows that, and a segment alone does not."""
    code: int = 0


CLIPS = {
    "b-frames": Clip(b_frames),
    "open gop": Clip(open_gop),
    "one gop": Clip(one_gop, seeks=False),
    "transport": Clip(transport),
    "variable": Clip(variable),
    "avi": Clip(avi),
    "avi with b-frames": Clip(avi_b_frames, seeks=False),
    "program": Clip(program),
    "bare": Clip(bare, seeks=False),
    "vp9": Clip(vp9),
    "intra": Clip(intra),
    "fields": Clip(fields, seeks=False),
    "late fields": Clip(late_fields),
    "two sizes": Clip(two_sizes, shifted=True),
    "rotated": Clip(rotated),
    "pictures": Clip(pictures),
    "damaged": Clip(damaged, shifted=True, code=8),
    "cut short": Clip(cut_short),
    "other rate": Clip(b_frames, ("--fps", "30"), seeks=False),
    "stabilised": Clip(b_frames, ("--stabilize", "0.3")),
    "limited": Clip(b_frames, ("--frames", "47")),
}


@pytest.fixture(scope="module", params=[*CLIPS])
def clip(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, Path]:
    found = CLIPS[request.param]
    return found, found.make(tmp_path_factory.mktemp("clip"))


class Inline:
    """Workers in the tests' own process, one after the other: the interface that processes stand
    behind."""

    tasks: list[tuple[int, Task]]
    deadly: dict[int, int]
    """Segments, and how many workers die at them."""

    def __init__(self, count: int, job: Job, share: Share) -> None:
        self.count = count
        self._given = job, share
        self._makers: dict[int, Maker] = {}
        self._at: dict[int, Task] = {}

    def give(self, worker: int, task: Task) -> None:
        self.tasks.append((worker, task))
        self._at[worker] = task

    def hear(self, seconds: float) -> list[tuple[int, Heard]]:
        del seconds
        worker = min(self._at, key=lambda worker: self._at[worker].segment % 3)
        task = self._at.pop(worker)
        if self.deadly.get(task.segment):
            self.deadly[task.segment] -= 1
            self._makers.pop(worker, None)
            return [(worker, Death(-9))]
        if worker not in self._makers:
            self._makers[worker] = Maker(*self._given)
        try:
            return [(worker, 1), (worker, self._makers[worker].make(task, abs))]
        except VelaturaError as error:
            return [(worker, error)]

    def renew(self, worker: int) -> None:
        assert worker not in self._makers

    def close(self) -> None:
        for maker in self._makers.values():
            maker.close()
        self._makers = {}


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> type[Inline]:
    class Own(Inline):
        tasks: list[tuple[int, Task]] = []  # noqa: RUF012
        deadly: dict[int, int] = {}  # noqa: RUF012

    monkeypatch.setattr(jobs_run, "LocalWorkers", Own)
    return Own


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Times of the packets that went into decoders."""
    packets: list[int] = []
    images = Reader._images

    def counted(self: Reader, packet: Any) -> Any:
        if packet is not None and packet.size:
            packets.append(packet.pts)
        return images(self, packet)

    monkeypatch.setattr(Reader, "_images", counted)
    return packets


def part_of(stack: ExitStack, path: Path, lead: int = 0) -> PartSource:
    def opened() -> Any:
        return stack.enter_context(open_source(path))

    return stack.enter_context(PartSource(opened(), opened, length=LENGTH, lead=lead))


@pytest.mark.parametrize("lead", [0, pytest.param(4, marks=pytest.mark.soak)])
def test_a_segment_is_that_of_a_reading_of_all(clip: tuple[Clip, Path], lead: int) -> None:
    found, path = clip
    with ExitStack() as stack:
        whole = [frame.digest() for frame in stack.enter_context(open_source(path))]
        ahead = max(lead, 1)
        index = part_of(stack, path).index(every=LENGTH, ahead=ahead)
        sought = 0
        for segment in range(len(whole) // LENGTH, 1, -2):
            part = part_of(stack, path, lead)
            begin = segment * LENGTH
            part.take(segment, start=index.start(begin - ahead) if index is not None else None)
            frames = list(part)
            trace = part.trace(segment)
            if found.shifted and trace.sought and trace.before != whole[begin - 1]:
                continue
            sought += trace.sought
            assert [f.index for f in frames] == list(range(begin - lead, begin - lead + len(frames)))
            assert [f.digest() for f in frames] == whole[begin - lead : begin + LENGTH]
            assert trace.before == whole[begin - 1]
        if not found.options:
            assert bool(sought) == found.seeks or found.shifted


def one_process(path: Path, target: Path, clip: Clip) -> dict[str, Any]:
    done = run(path, target, "--journal", *clip.options)
    assert done.returncode == clip.code, done.stderr
    made = contents(target)
    target.unlink()
    return made


def broken_off(
    path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, *options: object, segments: int
) -> None:
    """A run that ends just after so many segments."""
    keep = Journal.keep

    def kept(self: Journal, *args: Any, **named: Any) -> Any:
        if len(self.segments) == segments:
            raise OSError("the disk is gone")
        return keep(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", kept)
        assert run(path, target, "--journal", *options).returncode == 4
    assert len(list(journal(target).glob("*.seg"))) == segments


def check_parts(
    clip: Clip,
    folder: Path,
    inline: type[Inline],
    monkeypatch: pytest.MonkeyPatch,
    *,
    workers: tuple[int, ...],
    cuts: dict[int, tuple[object, ...]],
) -> None:
    """Make the film by several workers, and cut off after some segments and gone on with."""
    path, target = clip.make(folder), folder / "out.mkv"
    whole = one_process(path, target, clip)
    for number in workers:
        done = run(path, target, "--journal", *clip.options, "--workers", number)
        assert done.returncode == clip.code, done.stderr
        assert contents(target) == whole
        assert not journal(target).exists()
        target.unlink()
        assert any(task.start for _, task in inline.tasks) == clip.seeks
        inline.tasks.clear()
    for segments, then in cuts.items():
        broken_off(path, target, monkeypatch, *clip.options, segments=segments)
        done = run(path, target, "--journal", *clip.options, *then)
        assert done.returncode == clip.code, done.stderr
        assert f"going on after {segments * LENGTH} frames" in done.stderr
        assert contents(target) == whole
        target.unlink()


@pytest.mark.parametrize("name", ["b-frames", "late fields", "stabilised"])
def test_films_in_parts_are_those_of_one_process(
    name: str, tmp_path: Path, inline: type[Inline], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_parts(CLIPS[name], tmp_path, inline, monkeypatch, workers=(2,), cuts={4: ()})


@pytest.mark.soak
@pytest.mark.parametrize("name", CLIPS)
def test_films_of_all_clips_in_parts_are_those_of_one_process(
    name: str, tmp_path: Path, inline: type[Inline], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: dict[int, tuple[object, ...]] = {1: (), 3: ("--workers", 2), 4: ()}
    check_parts(CLIPS[name], tmp_path, inline, monkeypatch, workers=(2, 3), cuts=cuts)


def test_kept_frames_are_not_decoded_again(
    tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, target = b_frames(tmp_path), tmp_path / "out.mkv"
    broken_off(path, target, monkeypatch, segments=5)
    decoded.clear()
    finish(path, target, "--journal", alone=False)
    # Less than two groups of 8 pictures before the 14 frames that are left, and a look at the film.
    assert len(decoded) < 14 + 2 * 8 + 10


def test_workers_decode_no_more_than_they_make(
    tmp_path: Path, decoded: list[int], inline: type[Inline]
) -> None:
    path = videos.make(tmp_path / "in.mp4", **{**H264, "frames": 200}, options={"g": "8", "bf": "2"})
    finish(path, tmp_path / "out.mkv", "--journal", "--workers", 2, alone=False)
    assert len(decoded) < 200 * 1.6
    # Each works on where it is, so that little is sought.
    jumps = sum(
        all(before.segment + 1 != task.segment for who, before in inline.tasks[:n] if who == worker)
        for n, (worker, task) in enumerate(inline.tasks)
    )
    assert jumps < 12


def test_a_frame_that_is_lost_unseen_sends_the_workers_back(
    tmp_path: Path, inline: type[Inline]
) -> None:
    """Of what is sought after it every frame has a wrong number: the segment before tells."""
    path, target = damaged(tmp_path), tmp_path / "out.mkv"
    whole = one_process(path, target, CLIPS["damaged"])
    assert run(path, target, "--journal", "--workers", 2, "--tolerate").returncode == 0
    assert contents(target) == whole
    made = [task.segment for _, task in inline.tasks]
    assert len(made) > len(set(made)), "some were made again"


def test_a_worker_that_dies_costs_its_segment(tmp_path: Path, inline: type[Inline]) -> None:
    path, target = b_frames(tmp_path), tmp_path / "out.mkv"
    inline.deadly.update({0: 1, 2: 2, 6: 1})
    finish(path, target, "--journal", "--workers", 2, alone=False)
    made = sorted(task.segment for _, task in inline.tasks)
    assert made == [0, 0, 1, 2, 2, 2, 3, 4, 5, 6, 6]
    assert len(contents(target)["frames"]) == COUNT


def test_a_segment_that_kills_every_worker_ends_the_run(tmp_path: Path, inline: type[Inline]) -> None:
    path, target = b_frames(tmp_path), tmp_path / "out.mkv"
    inline.deadly[4] = 3
    done = run(path, target, "--journal", "--workers", 2)
    assert done.returncode == 4
    assert "3 worker processes died at the frames 40 to 49 (exit code -9" in done.stderr
    assert "are kept beside" in done.stderr
    assert not target.exists()
    assert journal(target).exists()


def schedule(
    *, of: int, made: tuple[int, ...] = (), seeks: bool = True, known: bool = True
) -> Schedule:
    return Schedule(made, expected=of if known else None, seeks=seeks)


def test_workers_begin_apart_and_go_on_where_they_are() -> None:
    plan = schedule(of=12)
    assert [plan.next(worker, 0.0) for worker in (0, 1, 2)] == [0, 6, 3]
    plan.done(0, 1.0, made=True)
    assert plan.next(0, 1.0) == 1
    plan.done(1, 1.0, made=True)
    assert plan.next(1, 1.0) == 7


def test_what_cannot_be_sought_is_made_in_order() -> None:
    plan = schedule(of=12, seeks=False, known=False)
    assert [plan.next(worker, 0.0) for worker in (0, 1)] == [0, 1]
    plan.done(0, 1.0, made=True)
    assert plan.next(0, 1.0) == 2


def test_a_straggler_is_helped_and_no_other() -> None:
    plan = schedule(of=3)
    plan.end = 3
    given = [plan.next(worker, 0.0) for worker in (0, 1, 2)]
    plan.done(0, 1.0, made=True)
    assert plan.next(0, 1.5) is None, "no longer than usual"
    plan.done(1, 1.6, made=True)
    assert plan.next(0, 9.0) == given[2]
    assert plan.next(1, 9.0) is None, "two are at it"
    plan.done(2, 9.5, made=True)
    assert plan.complete


def test_the_end_is_looked_for_where_the_index_expects_none() -> None:
    plan = schedule(of=2)
    assert [plan.next(worker, 0.0) for worker in (0, 1)] == [0, 1]
    plan.done(0, 1.0, made=True)
    plan.done(1, 1.0, made=True)
    assert not plan.complete
    assert plan.next(1, 1.0) == 2
    plan.done(1, 1.1, made=False)
    plan.end = 2
    assert plan.complete
