"""The models that have names: the shipped ones beside this file, and the user's own in a folder."""

import os
from pathlib import Path

FOLDER_VARIABLE = "VELATURA_MODELS"


def zoo_models() -> dict[str, dict[str, Path]]:
    """Returns the shipped models' files by name and precision, in order of name.

    `NAME.onnx` is the model in FP32 (`fp32`), and `NAME.int8.onnx`, where it passed parity, in INT8
    (`int8`).
    """
    return _models(Path(__file__).parent)


def own_models() -> dict[str, dict[str, Path]]:
    """Returns the files of the user's own models, as `zoo_models` does; none where there is no
    folder."""
    return _models(own_folder())


def named_models() -> dict[str, dict[str, Path]]:
    """Returns all models that have a name: the shipped ones, then the user's own.

    A shipped model keeps its name, so that it is the same on every machine.
    """
    shipped = zoo_models()
    return shipped | {name: files for name, files in own_models().items() if name not in shipped}


def own_folder() -> Path:
    """Returns `$VELATURA_MODELS`, else the system's folder for a user's data, such as
    ~/.local/share/velatura/models."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("velatura", appauthor=False) / "models"


def _models(folder: Path) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    # A leading letter or digit: an export that is still being measured has a name with a leading dot.
    for path in sorted(folder.glob("[A-Za-z0-9]*.onnx")):
        name, _, variant = path.stem.partition(".")
        found.setdefault(name, {})[variant or "fp32"] = path
    return {name: files for name, files in found.items() if "fp32" in files}
