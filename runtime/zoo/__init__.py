"""The shipped models: `NAME.onnx` in FP32 and, where it passed parity, `NAME.int8.onnx`."""

from pathlib import Path


def zoo_models() -> dict[str, dict[str, Path]]:
    """Model name -> precision (`fp32`, `int8`) -> file, in order of name."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(Path(__file__).parent.glob("*.onnx")):
        name, _, variant = path.stem.partition(".")
        found.setdefault(name, {})[variant or "fp32"] = path
    return found
