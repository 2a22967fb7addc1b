"""Facts about the machine: its CPU, and its NVIDIA GPUs by the driver alone, without any package."""

import contextlib
import ctypes
import datetime
import os
import platform
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CPU_FLAGS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd",
)  # fmt: skip
"""CPU extensions that speed up inference."""


NVIDIA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

PACKAGES = ("velatura", "numpy", "av", "opencv-python", "onnx", "torch")
"""Packages whose versions affect speed and results, beside those of the backends."""


def cpu_name() -> str:
    """Returns the processor's own name."""
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def cpu_and_cores() -> str:
    """Returns the facts on which a measured speed on the CPU depends."""
    return f"{cpu_name()}, {os.cpu_count()} cores"


def cpu_features() -> list[str]:
    """Returns those of `CPU_FLAGS` that the CPU has; none where the system does not list them."""
    for line in _cpuinfo():
        if line.startswith(("flags", "Features")):
            found = set(line.split(":", 1)[1].split())
            return [flag for flag in CPU_FLAGS if flag in found]
    return []


def packages(also: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those of `PACKAGES` and of `also` that are installed."""
    found: dict[str, str] = {}
    for name in (*PACKAGES, *also):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def facts(also: Iterable[str]) -> dict[str, Any]:
    """Returns the facts that a measurement must state: CPU, cores, memory, versions, date.

    `also` names the packages of the backends.
    """
    memory = None
    if hasattr(os, "sysconf"):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {
        "cpu": f"{cpu_name()} ({' '.join(cpu_features())})",
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": packages(also),
        "date": datetime.date.today().isoformat(),
    }


@cache
def nvidia_problem() -> str | None:
    """Returns the reason why no NVIDIA GPU can be used, or None when the driver lists one."""
    try:
        driver = ctypes.CDLL(NVIDIA_DRIVER)
    except OSError:
        return f"no NVIDIA driver is installed ({NVIDIA_DRIVER} was not found)"
    code = int(driver.cuInit(0))
    if code:
        return f"the NVIDIA driver finds no usable GPU (cuInit: error {code})"
    count = ctypes.c_int()
    code = int(driver.cuDeviceGetCount(ctypes.byref(count)))
    if code or count.value == 0:
        return "the NVIDIA driver lists no GPU"
    return None


def nvidia_gpu() -> str:
    """Returns the first GPU and the CUDA version of its driver, where `nvidia_problem` finds no
    problem."""
    driver = ctypes.CDLL(NVIDIA_DRIVER)
    name, gpu, version = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(gpu), 0)
    driver.cuDeviceGetName(name, len(name), gpu)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"{name.value.decode()}, driver {version.value}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
