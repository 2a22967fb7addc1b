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
