"""A video file made in segments, so that an interrupted run can be resumed and several processes can
share the work."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..errors import SinkError
from ..frame import Frame, VideoInfo
from ..media.encode import Coding, VideoEncoder
from ..media.timestamps import Clock
from ..resume.journal import Choices, Journal, Share, software
from ..resume.output_lock import Claim
from ..resume.segments import SegmentCoder, SegmentWriter, headers_of, in_order, sync_folder
from .base import Sink
from .kind import Writing
from .output_file import OutputFile, check_target, reporting

SEGMENT = 250
"""Frames of a segment: as many as H.264's and HEVC's encoders put between two key frames anyway."""

SHORT = 4
"""Segments below which a new run is as fast as resuming one."""


def is_short(like: VideoInfo, frames: int | None) -> bool:
    """Returns whether so few frames will come, at most `frames`, that a journal gains nothing."""
    stated = like.frames or (round(like.duration * like.rate) if like.duration else None)
    expected = min((n for n in (stated, frames) if n is not None), default=None)
    return expected is not None and expected < SHORT * SEGMENT


class JournalSink(Sink):
    """Writes the same file as a FileSink; finished segments survive whatever ends the process.

    Each segment is a run of `SEGMENT` frames from an encoder of its own, whether the run is interrupted
    or not: both give the same pictures. At the end the packets are joined unchanged, with all other
    streams beside them. The first `kept` frames of the source need not come any more.
    """

    def __init__(self, uri: str, writing: Writing) -> None:
        """Check everything that can be checked before work starts. Raises SinkError.

        With `writing.shared`, other processes make the segments: `prepare`, `share`, `collect`,
        `close`.
        """
        path, like, encoding = Path(uri), writing.like, writing.encoding
        self.uri = uri
        self.path = path
        self.overwrite = writing.overwrite
        self._encoding, self._files = encoding, like.files
        self._encoder = VideoEncoder(encoding, suffix=path.suffix, like=like)
        self._clock = Clock(like.rate)
        self._early = self._interrupted = False
        check_target(path, like=like, overwrite=True)
        with reporting(path):
            self._coder = SegmentCoder(self._encoder, self._clock, files=like.files)
            known = {**(writing.journal or {}), **self._coder.source, "the software": software()}
            self._claim = Claim(path)
            try:
                self._journal = Journal(
                    path, known, length=SEGMENT, restart=writing.restart, scattered=writing.shared
                )
            except BaseException:
                self._claim.release()
                raise
            try:
                if not self._journal.published:
                    check_target(path, like=like, overwrite=self.overwrite)
                # Opened three times: here to hear what it refuses, at the first frame, and at the end.
                self._output = partial(OutputFile, path, self._encoder, like=like, audio=writing.audio)
                trial = self._output()
                trial.abort()
            except BaseException:
                self.abort()
                raise
        self.kind = trial.kind
        """FFmpeg's name of the container."""
        self.notes = (
            *self._claim.notes, *self._journal.notes, *trial.notes, *self._encoder.notes
        )  # fmt: skip
        self.frames = self._journal.frames
        self.kept = self.frames + self._journal.scattered_frames
        self._go_on_from_segments()

    @property
    def published(self) -> bool:
        """True if the output has its name already, so that only the journal is left to remove."""
        return self._journal.published

    @property
    def choices(self) -> Choices:
        """Returns the backend and precision of each model, where frames of an earlier run are kept."""
        return self._journal.state.choices if self.kept else ()

    def choose(self, choices: Sequence[tuple[str, str]]) -> None:
        with reporting(self.path):
            self._journal.choose(choices)

    def write(self, frame: Frame) -> None:
        with reporting(self.path):
            coding = self._journal.state.coding or self.prepare(frame)
            if not self._coder.open:
                self._coder.begin(self._journal.writer(), coding, kind=self.kind)
            self._coder.write(frame)
            self.duration = self._clock.duration
            if self._coder.frames == self._journal.state.length:
                self._end_segment(final=False)
        self.frames += 1

    def stop_early(self, *, interrupted: bool = False) -> None:
        self._early, self._interrupted = True, interrupted

    def close(self) -> None:
        """End the last segment, join all, give the file its name, remove the journal."""
        if not self.frames:
            self.abort()
            raise SinkError(f"{self.path}: no frame came, so nothing was written")
        try:
            with reporting(self.path):
                if self._coder.open:
                    self._end_segment(final=not self._interrupted)
                # Captions may begin late.
                self.notes = tuple(dict.fromkeys((*self.notes, *self._encoder.notes)))
                if not self._journal.published:
                    self._join()
                self._journal.remove()
        except BaseException:
            self.abort()
            raise
        self._claim.release()

    def abort(self) -> None:
        """Give up; finished segments stay, and the same command resumes after them."""
        self._coder.abort()
        try:
            with reporting(self.path):
                if self._journal.segments or self._journal.scattered or self._journal.published:
                    self.left = self._journal.frames + self._journal.scattered_frames
                    self._journal.leave()
                else:
                    self._journal.remove()
        finally:
            self._claim.release()

    def prepare(self, frame: Frame) -> Coding:
        """Set up a trial output, so that refusals are found now rather than at the end of a long
        run."""
        coding = self._encoder.coding(frame)
        trial = self._output()
        try:
            headers = headers_of(trial.begin(coding))
        finally:
            trial.abort()
        self.notes = (*self._journal.notes, *trial.notes, *self._encoder.notes)
        self._journal.begin(coding, headers)
        return coding

    def share(self, *, of: int) -> list[Share]:
        """Returns the work of `of` processes after `prepare`: together they make all missing
        segments."""
        journal = self._journal
        assert journal.state.coding is not None
        share = Share(
            path=self.path.absolute(),
            folder=journal.folder.absolute(),
            state=journal.state,
            coding=journal.state.coding,
            kind=self.kind,
            encoding=replace(self._encoding, codec=self._encoder.name),
            files=self._files,
            made=frozenset((*range(len(journal.segments)), *journal.scattered)),
        )
        return [replace(share, number=number, of=of) for number in range(of)]

    def collect(self, frames: int | None = None) -> None:
        """Take in the segments of other processes: all `frames` of the output, unless they were
        stopped.

        Raises SinkError where some are missing.
        """
        with reporting(self.path):
            self._journal.collect(frames)
        self.frames = self._journal.frames
        self._go_on_from_segments()

    def _end_segment(self, *, final: bool) -> None:
        writer, frames, headers = self._coder.end()
        self._journal.check_headers(headers)
        self._journal.keep(writer, frames=frames, headers=headers, final=final)

    def _go_on_from_segments(self) -> None:
        coding = self._journal.state.coding
        if coding is None:
            return
        for segment in self._journal.segments:
            self._clock.pass_by(segment.about.first, coding.time_base)
            length = segment.about.length * coding.time_base
            self._clock.pass_by(segment.about.last, coding.time_base, length)
        self.duration = self._clock.duration

    def _join(self) -> None:
        """Write all packets, and the streams beside them, into the output."""
        coding = self._journal.state.coding
        assert coding is not None
        output = self._output()
        try:
            stream = output.begin(coding)
            self._journal.check_headers(headers_of(stream))
            if self._early:
                output.end_at(self._clock.end)
            segments = self._journal.segments
            for packet in in_order(segments, max(s.about.depth for s in segments)):
                packet.stream = stream
                packet.time_base = coding.time_base
                seconds = float((packet.dts or 0) * coding.time_base)
                output.mux(packet)
                output.pass_until(seconds)
            output.finish()
            with output.partial.open("rb") as file:
                os.fsync(file.fileno())
            output.prove(frames=self.frames, duration=self.duration, likeness=self.likeness)
            self._journal.finish(output.partial, stopped=self._interrupted)
            if self.ready is not None:
                self.ready(output.partial)
            output.publish(overwrite=self.overwrite)
            sync_folder(self.path.parent)
        except BaseException:
            output.abort()
            raise


class ShareSink(Sink):
    """Encodes the frames of one share into its segments.

    The frames come in order and are those that `Share.takes`. The segments are those that a JournalSink
    makes.
    """

    def __init__(self, share: Share) -> None:
        """Set the encoder up. Raises SinkError."""
        self.uri = str(share.path)
        self._share = share
        self._numbers = share.segments()
        self._encoder = VideoEncoder(share.encoding, suffix=share.path.suffix)
        with reporting(share.path):
            self._coder = SegmentCoder(self._encoder, Clock(share.coding.rate), files=share.files)
            # It may have been replaced while this process started.
            if any(share.state.settings.get(k) != v for k, v in self._coder.source.items()):
                raise SinkError(f"the source of {self.uri} was changed: --restart begins anew")

    def write(self, frame: Frame) -> None:
        share = self._share
        with reporting(share.path):
            if not self._coder.open:
                writer = SegmentWriter(share.folder, next(self._numbers))
                self._coder.begin(writer, share.coding, kind=share.kind)
            self._coder.write(frame)
            if self._coder.frames == share.state.length:
                self._end_segment(final=False)
        self.frames += 1

    def close(self) -> None:
        """End the last segment; only the source's last one may be short."""
        with reporting(self._share.path):
            if self._coder.open:
                self._end_segment(final=True)

    def abort(self) -> None:
        self._coder.abort()

    def _end_segment(self, *, final: bool) -> None:
        writer, frames, headers = self._coder.end()
        if not self._share.state.has_headers(headers):
            writer.abort()
            raise SinkError(f"{self.uri}: this encoder writes other headers in another process")
        writer.close(journal=self._share.state.id, frames=frames, headers=headers, final=final)


class OnlySink(Sink):
    """Gives only some frames to a sink, which stays its owner's: the others led up to them."""

    def __init__(self, sink: Sink, wanted: Callable[[Frame], bool]) -> None:
        self.uri = sink.uri
        self._sink = sink
        self._wanted = wanted

    def write(self, frame: Frame) -> None:
        if self._wanted(frame):
            self._sink.write(frame)
            self.frames += 1

    def close(self) -> None:
        return None

    def abort(self) -> None:
        return None
