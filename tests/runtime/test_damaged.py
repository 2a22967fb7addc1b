"""Frames that a damaged packet does not touch: as many come as FFmpeg gives, and the loss is told."""

from pathlib import Path

import av
import pytest
from av.error import FFmpegError
from velatura.runtime import open_source

from . import videos

FRAMES = 29


def damage(source: Path, target: Path, packets: tuple[int, ...]) -> Path:
    """A copy in which the bytes of those packets, in the order of decoding, are worthless."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(p for p in given.demux() if p.size):
            copy = av.Packet(b"\xff" * packet.size if number in packets else bytes(packet))
            copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
            copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
            copy.stream = stream
            out.mux(copy)
    return target


def ffmpeg_gives(path: Path) -> list[int]:
    """The times of the frames of FFmpeg's decoder in one thread, which holds none back at a failure."""
    times: list[int] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for packet in container.demux(stream):
            try:
                times += [frame.pts for frame in stream.decode(packet)]
            except FFmpegError:
                continue
    return times


@pytest.mark.parametrize("codec", ["libx264", "ffv1", "libx265"])
@pytest.mark.parametrize("packets", [(10,), (25,), (25, 27), (28,)])
def test_no_frame_is_lost_beside_the_damaged_ones(
    codec: str, packets: tuple[int, ...], tmp_path: Path
) -> None:
    whole = videos.make(tmp_path / "whole.mkv", codec=codec, frames=FRAMES)
    path = damage(whole, tmp_path / "damaged.mkv", packets)
    wanted = ffmpeg_gives(path)
    assert len(wanted) < FRAMES
    with open_source(path) as source:
        assert [frame.pts for frame in source] == wanted
        # A picture that is lost with the one it was coded from is no failure of its own.
        assert 0 < source.damage.lost <= FRAMES - len(wanted)


def test_fields_are_no_losses(tmp_path: Path) -> None:
    """The second field of a picture may be a packet of its own, with a time of its own."""
    path = videos.make(
        tmp_path / "fields.ts", codec="mpeg2video", frames=FRAMES, size=(64, 64),
        options={"flags": "+ildct+ilme", "top": "1"},
    )  # fmt: skip
    with open_source(path, deinterlace="no") as source:
        assert len(list(source)) == FRAMES
        assert not source.damage


@pytest.mark.parametrize("tone", [False, True], ids=["silent", "with sound"])
@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_a_matroska_file_that_lacks_its_end_is_damaged(codec: str, tone: bool, tmp_path: Path) -> None:
    """Wherever it is cut: FFmpeg's demuxer takes that for the end, and the last frames are less than
    what a stated duration may be wrong by."""
    whole = videos.make(tmp_path / "whole.mkv", codec=codec, frames=25, tone=tone)
    data, path = whole.read_bytes(), tmp_path / "cut.mkv"
    lost: set[int] = set()
    for length in range(len(data) // 3, len(data), len(data) // 60):
        path.write_bytes(data[:length])
        with open_source(path) as source:
            missing = 25 - len(list(source))
            assert bool(source.damage) >= bool(missing), f"{length} of {len(data)} bytes"
            if missing and (codec, tone) == ("ffv1", False):  # no frame waits for a later one
                assert source.damage.lost == missing
        lost.add(missing)
    assert {1, 2, 3} <= lost, "the cuts are fine enough"


def test_a_matroska_file_that_lacks_only_its_index_is_whole(tmp_path: Path) -> None:
    whole = videos.make(tmp_path / "whole.mkv", codec="libx264", frames=25)
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole.read_bytes()[:-8])
    with open_source(path) as source:
        assert len(list(source)) == 25
        assert not source.damage
