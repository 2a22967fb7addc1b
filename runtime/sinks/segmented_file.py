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
from ..media.packet_index import PacketIndex, Trace
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
        self.trace: Callable[[int], Trace] | None = None
        """Tells what was seen of the source while a segment's frames were read."""
        check_target(path, like=like, overwrite=True)
        with reporting(path):
            self._coder = SegmentCoder(self._encoder, files=like.files)
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
                self._coder.begin(self._journal.writer(), coding, self._clock, kind=self.kind)
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

    @property
    def length(self) -> int:
        """Frames of a segment."""
        return self._journal.state.length

    @property
    def traces(self) -> list[Trace] | None:
        """What was seen of the source in the whole segments before the first that is missing; None
        where it is not known of each."""
        whole = [s.about for s in self._journal.segments if s.about.frames == self.length]
        traces = [about.trace for about in whole if about.trace is not None]
        return traces if len(traces) == len(whole) else None

    def index(self, find: Callable[[], PacketIndex | None]) -> PacketIndex | None:
        """Returns the journal's index of the source, or the one that is found, which it then keeps."""
        if self._journal.state.index is None and (index := find()) is not None:
            with reporting(self.path):
                self._journal.keep_index(index)
        return self._journal.state.index

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

    def share(self) -> Share:
        """Returns what other processes must know to make segments, after `prepare`."""
        journal = self._journal
        assert journal.state.coding is not None
        return Share(
            path=self.path.absolute(),
            folder=journal.folder.absolute(),
            state=journal.state,
            coding=journal.state.coding,
            kind=self.kind,
            encoding=replace(self._encoding, codec=self._encoder.name),
            files=self._files,
        )

    def made(self) -> frozenset[int]:
        """Returns the numbers of the segments that other processes need not make.

        The one that ends the film is not among them: its end is to be looked for again.
        """
        self._journal.drop_final()
        return frozenset((*range(len(self._journal.segments)), *self._journal.scattered))

    def accept(self, path: Path, number: int) -> bool:
        """Take in a segment that another process has made; False where it is there already. Raises
        SinkError where it is damaged or another."""
        with reporting(self.path):
            return self._journal.accept(path, number)

    def drop_strays(self) -> frozenset[int]:
        """Returns the numbers of segments that were not read where they should, and are removed."""
        with reporting(self.path):
            return self._journal.drop_strays()

    def end_of(self, number: int) -> str:
        """Returns the digest of a segment's last source frame; empty where it is not known."""
        segments = self._journal.segments
        found = segments[number] if 0 <= number < len(segments) else self._journal.scattered.get(number)
        return found.about.trace.end if found is not None and found.about.trace is not None else ""

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
        trace = self.trace(len(self._journal.segments)) if self.trace is not None else None
        self._journal.keep(writer, frames=frames, headers=headers, final=final, trace=trace)

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
    """Encodes segments as a JournalSink does, for the process that has the journal."""

    def __init__(self, share: Share) -> None:
        """Set the encoder up. Raises SinkError."""
        self.uri = str(share.path)
        self._share = share
        self._number = 0
        self._encoder = VideoEncoder(share.encoding, suffix=share.path.suffix)
        with reporting(share.path):
            self._coder = SegmentCoder(self._encoder, files=share.files)
            # It may have been replaced while this process started.
            if any(share.state.settings.get(k) != v for k, v in self._coder.source.items()):
                raise SinkError(f"the source of {self.uri} was changed: --restart begins anew")

    def begin(self, number: int) -> None:
        """Name the segment whose frames come next."""
        self._number = number

    def write(self, frame: Frame) -> None:
        share = self._share
        with reporting(share.path):
            if not self._coder.open:
                writer = SegmentWriter(share.folder, self._number)
                clock = Clock(share.coding.rate)
                self._coder.begin(writer, share.coding, clock, kind=share.kind)
            self._coder.write(frame)
        self.frames += 1

    def end(self, trace: Trace) -> Path:
        """Returns the path of the segment, which has a temporary name. Raises SinkError.

        Only the source's last one may be short.
        """
        state = self._share.state
        with reporting(self._share.path):
            writer, frames, headers = self._coder.end()
            if not state.has_headers(headers):
                writer.abort()
                raise SinkError(f"{self.uri}: this encoder writes other headers in another process")
            writer.close(
                journal=state.id,
                frames=frames,
                headers=headers,
                final=frames < state.length,
                trace=trace,
                named=False,
            )
        return writer.partial

    def close(self) -> None:
        self._coder.abort()

    def abort(self) -> None:
        self._coder.abort()


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
