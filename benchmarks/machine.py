"""What a figure is worth nothing without: the machine, the versions, the date."""

import datetime
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("velatura", "numpy", "av", "opencv-python", "openvino", "onnxruntime")


def facts() -> dict[str, Any]:
    """CPU, cores, memory, versions and date."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "date": datetime.date.today().isoformat(),
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, lowest and highest of repeated measurements."""
    return {
        "median": round(statistics.median(values), 4),
        "lowest": round(min(values), 4),
        "highest": round(max(values), 4),
        "runs": len(values),
    }


def repeat(measure: Callable[[], float], times: int) -> list[float]:
    """`times` measurements after one that is thrown away."""
    measure()
    return [measure() for _ in range(times)]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        lines = path.read_text().splitlines()
        name = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""
        )
        flags = next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), [])
        notable = [
            f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if f in flags
        ]
        return f"{name} ({' '.join(notable)})"
    return platform.processor() or "unknown"
