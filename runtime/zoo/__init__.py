"""The shipped models: `NAME.onnx` in FP32 and, where it passed parity, `NAME.int8.onnx`."""

from pathlib import Path


def zoo_models() -> dict[str, dict[str, Path]]:
    """Returns the shipped models' files by name and precision (`fp32`, `int8`), in order of name."""
    found: dict[str, dict[str, Path]] = {}
    # A leading letter: an export that is still being measured has a name with a leading dot.
    for path in sorted(Path(__file__).parent.glob("[a-z]*.onnx")):
        name, _, variant = path.stem.partition(".")
        found.setdefault(name, {})[variant or "fp32"] = path
    return found
