"""Sources of frames: one module per kind, and `open_source`, which picks one by the URI."""

from fractions import Fraction
from pathlib import Path

from .base import Deinterlace, Source

__all__ = ["Deinterlace", "Source", "open_source"]


def open_source(
    uri: str | Path, *, rate: Fraction | None = None, deinterlace: Deinterlace = "auto"
) -> Source:
    """Open a video file, an image sequence or a test pattern.

    `frames/%05d.png` and `frames/*.png` are sequences, `pattern:640x360@30?frames=90` is the moving
    test pattern, all else is a file. `rate` is the frame rate of sequences (25 when not given). Raises
    SourceError with what is wrong and what to do.
    """
    text = str(uri)
    if text.startswith("pattern:"):
        from .pattern import PatternSource

        return PatternSource(text)
    name = Path(text).name
    if not Path(text).exists() and any(sign in name for sign in "%*?["):
        from .sequence import SequenceSource

        return SequenceSource(text, rate=rate or Fraction(25))
    from .file import FileSource

    return FileSource(Path(text))
