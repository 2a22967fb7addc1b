"""Sinks of frames: one module per kind, and `open_sink`, which picks one by the URI."""

from pathlib import Path

from .base import Encoding, HasInfo, Sink

__all__ = ["Encoding", "Sink", "open_sink"]

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def open_sink(
    uri: str | Path,
    *,
    like: HasInfo,
    encoding: Encoding | None = None,
    overwrite: bool = False,
    audio: bool = True,
) -> Sink:
    """Open a video file, an image sequence (`frames/%05d.png`), or `null:`.

    `like` is the source: its rate, aspect, colours and audio carry over. Nothing appears under the
    given name before all is written. Raises SinkError when it exists and `overwrite` is false, or when
    it cannot be written.
    """
    text = str(uri)
    if text == "null:":
        from .null import NullSink

        return NullSink()
    if Path(text).suffix.lower() in PICTURES:
        from .sequence import SequenceSink

        return SequenceSink(text, like=like.info, overwrite=overwrite)
    from .file import FileSink

    return FileSink(
        Path(text), like=like.info, encoding=encoding or Encoding(), overwrite=overwrite, audio=audio
    )
