"""Sources of frames: one module per kind, and `open_source`, which picks one by the URI."""

from fractions import Fraction
from pathlib import Path

from ..errors import SourceError
from .base import FASTEST, Deinterlace, Source, names_sequence

__all__ = ["Deinterlace", "Source", "open_source"]


def open_source(
    uri: str | Path,
    *,
    rate: Fraction | None = None,
    deinterlace: Deinterlace = "auto",
    video_stream: int | None = None,
    audio_stream: int | None = None,
) -> Source:
    """Open a video file, a pipe, an image sequence or a test pattern.

    `frames/%05d.png` and `frames/*.png` are sequences, `pattern:640x360@30?frames=90` is the moving
    test pattern, `-` is standard input, all else is a file. `rate` is the frame rate of sequences (25
    when not given); all else is converted to it, by frames given twice or left out. Of a file
    with several videos FFmpeg's choice is taken, or `video_stream`; all its audio passes, or only
    `audio_stream`: both are indices in the file. Raises SourceError with what is wrong and what to do.
    """
    if rate is not None and not 0 < rate <= FASTEST:
        raise SourceError(f"{rate} is no frame rate: it must be above 0 and at most {FASTEST}")
    text = str(uri)
    pattern = text.startswith("pattern:")
    pictures = names_sequence(text)
    if (pictures or pattern) and (video_stream, audio_stream) != (None, None):
        raise SourceError(
            f"{text} is no file with streams: leave --video-stream and --audio-stream out"
        )
    if pictures:
        from .sequence import SequenceSource

        return SequenceSource(text, rate=rate or Fraction(25))
    source: Source
    if pattern:
        from .pattern import PatternSource

        source = PatternSource(text)
    else:
        from .file import FileSource

        source = FileSource(
            text, deinterlace=deinterlace, video_stream=video_stream, audio_stream=audio_stream
        )
    if rate is None:
        return source
    from .constant_rate import RateSource

    return RateSource(source, rate)
