"""Backends: one module per inference library, and `open_engine`, which picks one."""

from .base import Backend, Engine, Fit, Hint, Options, Pending, Precision, Progress
from .open import BACKENDS, Building, open_engine, refusals

__all__ = [
    "BACKENDS",
    "Backend",
    "Building",
    "Engine",
    "Fit",
    "Hint",
    "Options",
    "Pending",
    "Precision",
    "Progress",
    "open_engine",
    "refusals",
]
