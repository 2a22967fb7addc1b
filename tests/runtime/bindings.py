"""The real public surface of a library's Python bindings, read without the library itself.

The bindings of TensorRT need shared libraries that are not on PyPI. To import them, nine functions that
do nothing are enough: `stub_libraries` compiles those, and `read` imports the bindings beside them in a
process of its own. Run as a script, this prints the surface of a module as JSON.
"""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip
LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")

Surface = dict[str, Any]
"""Name -> None for what is no class, else {"enum": {name: number} or None, "members": {name: docstring
of a method, or None}}."""


def stub_libraries(folder: Path, version: tuple[int, int, int, int]) -> None:
    """Compile libnvinfer.so.MAJOR of that version and its companions. Raises OSError without gcc."""
    source, major = folder / "stub.c", version[0]
    parts = zip(("Major", "Minor", "Patch", "Build"), version, strict=True)
    source.write_text(
        "".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS)
        + "".join(f"int getInferLib{part}Version(void) {{ return {n}; }}\n" for part, n in parts)
    )
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)],
            check=True,
            capture_output=True,
        )


def install(folder: Path, requirement: str) -> None:
    """Put a package into a folder. Raises CalledProcessError where pip does not get it."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--no-deps", "--target", str(folder), requirement]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


def read(folder: Path, module: str) -> Surface:
    """The surface of a module in that folder, with the shared libraries that lie there, too."""
    return json.loads(run(folder, [__file__, module]))


def run(folder: Path, arguments: list[str]) -> str:
    """What Python prints that finds modules and shared libraries in that folder."""
    paths = {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def surface(module: Any) -> Surface:
    """What a module offers."""
    names = [name for name in dir(module) if not name.startswith("_")]
    return {name: _describe(getattr(module, name)) for name in [*names, "__version__"]}


def _describe(thing: Any) -> Any:
    if not isinstance(thing, type):
        return None
    members: dict[str, Any] = {}
    for name in dir(thing):
        member = getattr(thing, name)
        if name == "__init__" or not name.startswith("_"):
            members[name] = (member.__doc__ or "") if callable(member) else None
    numbers = getattr(thing, "__members__", None)
    enum = {name: int(value) for name, value in numbers.items()} if numbers is not None else None
    return {"enum": enum, "members": members}


def signatures(name: str, doc: str) -> list[list[tuple[str, bool]]]:
    """The overloads of a method in a pybind11 docstring: (parameter, whether it can be left out) each,
    without `self`."""
    found: list[list[tuple[str, bool]]] = []
    for match in re.finditer(rf"^(?:\d+\. )?{name}\(self: ", doc, re.MULTILINE):
        parts = _split(doc[match.end() :])
        found.append([(part.partition(":")[0].strip(), " = " in part) for part in parts[1:]])
    return found


def _split(text: str) -> list[str]:
    """At the commas of the outermost level, up to the parenthesis that closes it."""
    parts, depth, start = [""], 0, 0
    for index, letter in enumerate(text):
        if letter in "([":
            depth += 1
        elif letter in ")]" and depth:
            depth -= 1
        elif letter == ")" or (letter == "," and not depth):
            parts.append(text[start:index])
            start = index + 1
            if letter == ")":
                break
    return parts[1:]


if __name__ == "__main__":
    print(json.dumps(surface(importlib.import_module(sys.argv[1]))))
