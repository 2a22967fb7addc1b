"""OutputFile: a video file in the making, hidden beside its target until it is whole."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from ..errors import ContractError, SinkError
from ..frame import VideoInfo
from ..media import matroska, mp4
from ..media.codecs import CODECS, codec_of, spoken
from ..media.encode import Coding, Kept, VideoEncoder
from ..media.live_audio import Hearing, PassingSound, sound_codec
from ..media.passthrough import Passage, PassingStreams
from ..media.pyav import open_input
from ..media.side_data import MATROSKA, MP4, Carried, carried
from ..resume.output_lock import Claim, partial_path
from ..verify.expected import Promise, Tally
from ..verify.trial_encode import rehearsed

if TYPE_CHECKING:
    from ..verify.compare import Shown
    from ..verify.picture import Likeness

NO_FILE = 1
"""FFmpeg's AVFMT_NOFILE: the muxer opens what it writes by itself."""


class OutputFile:
    """The container with its video stream and the streams that are copied beside it.

    Open, `begin`, `mux` in order, then `finish` and `publish`, or `abort`. Errors are SinkErrors where
    the caller works inside `reporting`.
    """

    def __init__(self, path: Path, encoder: VideoEncoder, *, like: VideoInfo, audio: bool) -> None:
        """Check everything that can be checked before work starts. Raises SinkError."""
        self.path = path
        self.partial = partial_path(path)
        self.notes: tuple[str, ...] = ()
        self.tally = Tally()
        """A record of what was written, which the file must hold when it is read again."""
        self.plan: tuple[Passage, ...] = ()
        """The decision about each of the source's other streams."""
        self._encoder = encoder
        self._like = like
        self._passing: PassingStreams | PassingSound | None = None
        self._carried = Carried()
        self._reserved: Coding | None = None
        with reporting(path):
            self._container = self._open()
            try:
                if not _holds(self._container, encoder.name, encoder.canonical):
                    other = ".mkv" if path.suffix != ".mkv" else "another --codec"
                    raise SinkError(f"{path.suffix} files cannot hold {encoder.canonical}: use {other}")
                self._carried = carried(like, kind=self.kind, suffix=path.suffix, encoder=encoder.name)
                self.notes += self._carried.notes
                if encoder.name in CODECS:  # others may take their own size only
                    self._kept(encoder.coding(like))
                if codec_of(encoder.name).palette and audio and like.audio:
                    audio = False
                    self._note("a GIF holds pictures only: the sound is left out")
                if like.path is not None:
                    if self.kind == "avi":
                        _refuse_late(like, audio=audio)
                    passing = PassingStreams(
                        like,
                        self._container,
                        path.suffix,
                        audio=audio,
                        encoding=encoder.encoding,
                        on_packet=self.tally.packet,
                        timecode=self._carried.timecode,
                    )
                    self._passing = passing
                    self.notes += passing.notes
                    self.plan = passing.plan
            except BaseException:
                self.abort()
                raise

    @property
    def kind(self) -> str:
        """FFmpeg's name of the container."""
        return self._container.format.name

    def carry(self, sound: Hearing, *, origin: float) -> None:
        """Add a live source's sound, before `begin`; `origin` is the first frame's time on its clock,
        which is 0 in the file. Raises SinkError where the container takes none."""
        codec = sound_codec(self._container)
        if codec is None:
            raise SinkError(f"{self.path.suffix} files take no sound: use .mkv or --no-audio")
        self._passing = PassingSound(
            sound, self._container, origin=origin, codec=codec, on_packet=self.tally.packet
        )

    def begin(self, coding: Coding) -> VideoStream:
        """Adds the streams, writes the header and returns the video stream, which encodes. Raises
        SinkError."""
        kept = self._kept(coding)
        stream = self._encoder.add_stream(self._container, coding)
        self.tally.picture(
            width=coding.width,
            height=coding.height,
            aspect=coding.aspect if kept.aspect else None,
            rotation=coding.rotation if kept.rotation else None,
            matrix=coding.matrix,
            range=coding.range,
            primaries=coding.primaries,
            transfer=coding.transfer,
            states=self._carried.names,
        )
        if self._passing is not None:
            self._passing.begin(stream)
        if self.kind in MATROSKA and (coding.aspect != 1 or self._carried.boxed):
            matroska.reserve(stream, self._carried.stereo)
            self._reserved = coding
        elif self.kind in MP4 and self._carried.boxed:
            mp4.reserve(stream)
            self._reserved = coding
        try:
            self._container.start_encoding()
        except (FFmpegError, ValueError) as error:
            raise SinkError(
                f"{self._encoder.name} or the container refuse {coding.width}x{coding.height} "
                f"{coding.pix_fmt} in a {self.path.suffix} file with {dict(coding.options)}: "
                "try .mkv or other options"
            ) from error
        return stream

    def mux(self, packet: "Packet[Any]") -> None:
        """Write a packet of the video."""
        self.tally.frame(float((packet.pts or 0) * packet.time_base))
        self._container.mux(packet)

    def pass_until(self, seconds: float) -> None:
        """Write the packets of the other streams that begin at or before that time."""
        if self._passing is not None:
            self._passing.mux_until(seconds)

    def end_at(self, seconds: float) -> None:
        """Drop packets of the other streams that begin later."""
        if self._passing is not None:
            self._passing.end = seconds

    def finish(self) -> None:
        """Write the rest of the other streams and the end of the file."""
        if self._passing is not None:
            self._passing.finish()
            self._passing.close()
        self._container.close()
        if (coding := self._reserved) is not None:
            with self.partial.open("r+b") as file:
                if self.kind in MP4:
                    mp4.state(file, self._carried)
                else:
                    size = (coding.width, coding.height)
                    matroska.state(file, coding.aspect, size, self._carried)

    def prove(self, *, frames: int, duration: float, likeness: "Likeness | None" = None) -> None:
        """Read the finished file again: it must hold `frames` frames and all else that was written, and
        with a `likeness` show what the source does.

        Raises ContractError; the file then lies under another name, so that nothing wrong takes the
        place of anything good, and nothing is lost.
        """
        promise, shown = self.tally.promise(duration=duration), None
        if likeness is not None and self._like.path is not None:
            from ..verify.compare import Film, Shown

            like = self._like
            film = Film(
                path=self._like.path,
                stream=like.stream,
                times=None,
                opacity=like.alpha,
            )
            shown = Shown(source=film, likeness=likeness, start=like.start)
        prove(promise, self.partial, self.path, frames=frames, shown=shown)

    def publish(self, *, overwrite: bool) -> None:
        """Give the finished file its name. Raises SinkError if that is taken meanwhile."""
        publish(self.partial, self.path, overwrite=overwrite)

    def abort(self) -> None:
        """Give up and remove the unfinished file."""
        self._leave()
        self.partial.unlink(missing_ok=True)

    def keep(self) -> Path | None:
        """Gives up, but keeps the unfinished file under another name; returns its path, or None."""
        self._leave()
        if not self.partial.exists():
            return None
        kept = self.path.with_name(f"{self.path.stem}.unfinished{self.path.suffix}")
        self.partial.replace(kept)
        return kept

    def _leave(self) -> None:
        if self._passing is not None:
            self._passing.close()
        with suppress(FFmpegError, OSError, ValueError):
            self._container.close()  # what it has to say was reported already

    def _open(self) -> OutputContainer:
        fast = {"movflags": "+faststart"} if self.path.suffix in (".mp4", ".mov", ".m4v") else {}
        try:
            # A whole path: FFmpeg takes what stands before a colon for a protocol.
            container = av.open(os.path.abspath(self.partial), "w", options=fast)  # noqa: PTH100
        except ValueError as error:
            raise SinkError(
                f"{self.path}: unknown file type {self.path.suffix!r}; use .mp4 or .mkv"
            ) from error
        if container.format.flags & NO_FILE:
            container.close()
            raise SinkError(
                f"{self.path.suffix} is no single file: `velatura live` writes such streams"
            )
        return container

    def _kept(self, coding: Coding) -> Kept:
        """Returns which of aspect and rotation players will read from the file; others are noted."""
        kept = rehearsed(self._encoder, coding, kind=self.kind, suffix=self.path.suffix)
        name = f"{self.path.suffix} files with {spoken(self._encoder.name)}"
        if not kept.aspect:
            self._note(
                f"{name} cannot say that pixels are {coding.aspect} wide: they become square; .mp4 "
                "keeps their shape, --bake makes up for it"
            )
        if not kept.rotation:
            self._note(
                f"{name} cannot say that the picture is turned: it lies; .mp4 and .mkv say it, --bake "
                "turns the picture itself"
            )
        return kept

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes += (line,)


def check_target(path: Path, *, like: VideoInfo, overwrite: bool) -> None:
    """Raise SinkError where no file may be created."""
    if path.is_dir():
        raise SinkError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise SinkError(f"no folder {path.parent}: create it first")
    if path.exists() and any(path.samefile(file) for file in like.files):
        raise SinkError(f"{path} is the input itself: choose another output")
    if path.exists() and not overwrite:
        raise SinkError(f"{path} exists: --overwrite replaces it")
    if not os.access(path.parent, os.W_OK):
        raise SinkError(f"the folder {path.parent} is not writable")


def claim_target(path: Path, *, like: VideoInfo, overwrite: bool) -> Claim:
    """Returns the exclusive right to make a file, which may be created. Raises SinkError."""
    check_target(path, like=like, overwrite=True)
    with reporting(path):
        claim = Claim(path)
    try:
        check_target(path, like=like, overwrite=overwrite)
    except BaseException:
        claim.release()
        raise
    return claim


def prove(
    promise: Promise, partial: Path, path: Path, *, frames: int, shown: "Shown | None" = None
) -> None:
    """Read a finished file again, whose final name is `path`. Raises ContractError.

    It then lies under another name, so that nothing wrong takes the place of anything good, and nothing
    is lost.
    """
    from ..verify.compare import require

    try:
        require(promise, partial, frames=frames, name=path, shown=shown)
    except ContractError as error:
        rejected = path.with_name(f"{path.stem}.rejected{path.suffix}")
        partial.replace(rejected)
        raise ContractError(f"{error}. What was written lies in {rejected}") from error


def publish(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Give a finished file its name. Raises SinkError if that is taken meanwhile."""
    if path.exists() and not overwrite:
        raise SinkError(f"{path} has appeared meanwhile: --overwrite replaces it")
    partial.replace(path)


@contextmanager
def reporting(path: Path) -> Generator[None]:
    """Errors of FFmpeg and of the file system raised again as SinkError."""
    try:
        yield
    except SinkError:
        raise
    except (FFmpegError, OSError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = getattr(error, "strerror", None) or str(error)
        hint = ": make room and run it again" if full else ""
        raise SinkError(f"{path} cannot be written: {reason}{hint}") from error


def _refuse_late(like: VideoInfo, *, audio: bool) -> None:
    """Raise SinkError for a source with a stream that begins late: AVI starts all streams at once."""
    assert like.path is not None
    with open_input(like.path) as container:
        for stream in container.streams:
            main = stream.index == like.stream
            heard = audio and like.audio_stream in (None, stream.index)
            if not main and not (heard and stream.type == "audio"):
                continue
            if stream.start_time is None or not stream.time_base:
                continue
            late = float(stream.start_time * stream.time_base) - like.start
            if late > 1 / like.rate:
                part = "picture" if main else "sound"
                raise SinkError(
                    f"AVI files begin all at once, and the {part} of this source begins {late:.2f} s "
                    "late: use .mkv or .mp4"
                )


def _holds(container: OutputContainer, *names: str) -> bool:
    """Returns whether the container takes a codec of one of these names."""
    # MPEG-TS declares no list: FFmpeg then names only its two defaults, yet muxes most codecs.
    return container.format.name == "mpegts" or not container.supported_codecs.isdisjoint(names)
