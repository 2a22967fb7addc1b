"""Sinks of frames: one module per kind, and `open_sink`, which picks one by the URI."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .base import PICTURES, Encoding, HasInfo, Sink

__all__ = ["Encoding", "Sink", "open_sink"]


def open_sink(
    uri: str | Path,
    *,
    like: HasInfo,
    encoding: Encoding | None = None,
    overwrite: bool = False,
    audio: bool = True,
    journal: Mapping[str, Any] | None = None,
    restart: bool = False,
    shared: bool = False,
) -> Sink:
    """Open a video file, an image sequence (`frames/%05d.png`), `-` or `null:`.

    `-` is standard output, which gets YUV4MPEG2, or bare planes with the codec `rawvideo`.

    `like` is the source: its rate, aspect, colours and audio carry over. Nothing appears under the
    given name before all is written. Raises SinkError when it exists and `overwrite` is false, or when
    it cannot be written.

    With `journal`, a video file is made in segments that survive whatever ends the process. The mapping
    names all options that affect the output, by the words in which a change is reported; the source's
    files are added here. An interrupted run is resumed where they are the same (`sink.kept` is the
    number of its frames), else a SinkError states the difference. `restart` removes its segments.
    `shared` is for a journal whose segments other processes make.
    """
    text = str(uri)
    if text == "null:":
        from .null import NullSink

        return NullSink()
    if Path(text).suffix.lower() in PICTURES:
        from .sequence import SequenceSink

        return SequenceSink(
            text, like=like.info, encoding=encoding or Encoding(), overwrite=overwrite, audio=audio
        )
    path, encoding = Path(text), encoding or Encoding()
    if text == "-" or path.suffix.lower() == ".y4m":
        from .y4m import RawSink

        return RawSink(text, like=like.info, encoding=encoding, overwrite=overwrite, audio=audio)
    if journal is not None:
        from .segmented_file import JournalSink

        return JournalSink(
            path,
            like=like.info,
            encoding=encoding,
            overwrite=overwrite,
            audio=audio,
            settings=journal,
            restart=restart,
            shared=shared,
        )
    from .file import FileSink

    return FileSink(path, like=like.info, encoding=encoding, overwrite=overwrite, audio=audio)
