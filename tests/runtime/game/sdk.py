"""velatura.h, compiled, and called from Python."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import velatura.runtime.game

INCLUDE = Path(velatura.runtime.game.__file__).parent / "include"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wshadow", "-Wconversion"]
GCC, GXX = shutil.which("gcc"), shutil.which("g++")

OK, DONE, PASSED, REFUSED, GONE, BUSY, LATE, EMPTY = range(8)
RESET, MOTION, DEPTH, REACTIVE, FLIPPED = 1, 2, 4, 8, 16
BYPASS = 512

Pixels = npt.NDArray[np.uint8]
_u32, _u64, _float, _pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_float, ctypes.c_void_p


class CFrame(ctypes.Structure):
    _fields_ = (
        ("pixels", _pointer),
        *((name, _u32) for name in ("width", "height", "stride", "format", "flags")),
        ("motion", _pointer),
        *((name, _u32) for name in ("motion_width", "motion_height")),
        *((name, _float) for name in ("motion_scale_x", "motion_scale_y")),
        ("depth", _pointer),
        *((name, _u32) for name in ("depth_width", "depth_height")),
        *((name, _float) for name in ("depth_near", "depth_far")),
        ("reactive", _pointer),
        *((name, _u32) for name in ("reactive_width", "reactive_height")),
        *((name, _float) for name in ("jitter_x", "jitter_y")),
        ("deadline_us", _u32),
    )


class CPicture(ctypes.Structure):
    _fields_ = (
        ("pixels", _pointer),
        ("bytes", ctypes.c_size_t),
        *((name, _u32) for name in ("stride", "width", "height")),
    )


class CView(ctypes.Structure):
    _fields_ = (
        ("pixels", _pointer),
        *((name, _u32) for name in ("width", "height", "stride", "format")),
        ("sequence", _u64),
        ("latency_ns", _u64),
        ("work_ms", _float),
    )

    def picture(self) -> Pixels:
        """A copy of what it shows."""
        data = ctypes.string_at(self.pixels, self.stride * (self.height - 1) + self.width * 4)
        rows = np.frombuffer(data, np.uint8)
        return np.lib.stride_tricks.as_strided(
            rows, (self.height, self.width, 4), (self.stride, 4, 1)
        ).copy()


class CCanvas(ctypes.Structure):
    _fields_ = tuple((name, _pointer) for name in ("pixels", "motion", "depth", "reactive"))


class COptions(ctypes.Structure):
    _fields_ = (("deadline_us", _u32), ("retry_us", _u32))


def compile_c(source: str | Path, out: Path, *options: str, cxx: bool = False) -> Path:
    """Compile a file, or a text, with every warning an error."""
    if isinstance(source, str):
        path = out.with_suffix(".cpp" if cxx else ".c")
        path.write_text(source)
        source = path
    compiler = GXX if cxx else GCC
    assert compiler is not None
    standard = (
        () if any(o.startswith("-std") for o in options) else ("-std=c++11" if cxx else "-std=c99",)
    )
    command = [
        compiler,
        *standard,
        *STRICT,
        f"-I{INCLUDE}",
        *options,
        str(source),
        "-o",
        str(out),
        "-lm",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def load(folder: Path) -> Any:
    """The functions, from a shared library."""
    text = "#define VELATURA_IMPLEMENTATION\n#include <velatura.h>\n"
    library: Any = ctypes.CDLL(
        str(compile_c(text, folder / "libvelatura.so", "-shared", "-fPIC", "-O2"))
    )
    for name in ("velatura_open", "velatura_error", "velatura_models", "velatura_status_text"):
        getattr(library, name).restype = _pointer if name == "velatura_open" else ctypes.c_char_p
    return library


def frame_of(pixels: Pixels | None, **members: Any) -> CFrame:
    """A frame of an (H, W, 4) picture; arrays among the members are handed over by their address."""
    frame = CFrame()
    if pixels is not None:
        frame.pixels, frame.stride = pixels.ctypes.data, pixels.strides[0]
        frame.height, frame.width = pixels.shape[:2]
    for name, value in members.items():
        setattr(frame, name, value.ctypes.data if isinstance(value, np.ndarray) else value)
    return frame


class CClient:
    """A client of the C header."""

    def __init__(self, library: Any, name: str, *, deadline: float = 20.0, retry: float = 0.01) -> None:
        """Seconds; the deadline is long, as the machine may be busy."""
        options = COptions(int(deadline * 1e6), int(retry * 1e6))
        self.library = library
        self.handle = ctypes.c_void_p(library.velatura_open(name.encode(), ctypes.byref(options)))
        assert self.handle

    def __enter__(self) -> "CClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """May be called again."""
        self.library.velatura_close(self.handle)
        self.handle = None

    @property
    def error(self) -> str:
        return self.library.velatura_error(self.handle).decode(errors="replace")

    @property
    def models(self) -> str:
        return self.library.velatura_models(self.handle).decode(errors="replace")

    @property
    def connected(self) -> bool:
        return bool(self.library.velatura_connected(self.handle))

    def wait(self, seconds: float = 60.0) -> int:
        return self.library.velatura_wait(self.handle, int(seconds * 1e6))

    def process(
        self,
        pixels: Pixels,
        out: Pixels | None = None,
        *,
        size: tuple[int, int] = (0, 0),
        **members: Any,
    ) -> tuple[int, Pixels]:
        """The status and the picture. `out` is an (H, W, 4) picture to fill, otherwise there is plenty
        of room. `size` is the width and height that are wanted."""
        frame = frame_of(pixels, **members)
        room = np.zeros((*(4 * side for side in pixels.shape[:2]), 4), np.uint8) if out is None else out
        picture = CPicture(room.ctypes.data, room.nbytes, 0, *size)
        if out is not None:
            picture.stride = out.strides[0]
            picture.bytes = out.strides[0] * (out.shape[0] - 1) + out.shape[1] * 4
        status = self.library.velatura_process(self.handle, ctypes.byref(frame), ctypes.byref(picture))
        if out is not None:
            return status, out
        shape = picture.height, picture.width, 4
        return status, room.reshape(-1)[: shape[0] * shape[1] * 4].reshape(shape).copy()

    def submit(self, pixels: Pixels | None, frame: CFrame | None = None, **members: Any) -> int:
        frame = frame_of(pixels, **members) if frame is None else frame
        return self.library.velatura_submit(self.handle, ctypes.byref(frame))

    def result(self, seconds: float = 20.0) -> tuple[int, CView]:
        view = CView()
        status = self.library.velatura_result(self.handle, ctypes.byref(view), int(seconds * 1e6))
        return status, view

    def begin(self, frame: CFrame) -> tuple[int, CCanvas]:
        canvas = CCanvas()
        status = self.library.velatura_begin(self.handle, ctypes.byref(frame), ctypes.byref(canvas))
        return status, canvas
