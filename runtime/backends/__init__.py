"""Backends: one module per inference library, and `open_engine`, which picks one."""

from .base import Backend, Engine, Hint, Pending, Precision
from .opening import BACKENDS, open_engine, refusals

__all__ = [
    "BACKENDS",
    "Backend",
    "Engine",
    "Hint",
    "Pending",
    "Precision",
    "open_engine",
    "refusals",
]
