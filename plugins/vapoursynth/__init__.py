"""velatura in VapourSynth's scripts: `from velatura.vapoursynth import apply`.

The folder is not at the top of the repository, where a Python that was started there would find it in
place of VapourSynth itself.
"""

from velatura.runtime.vapoursynth import apply

__all__ = ["apply"]
