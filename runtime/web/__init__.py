"""The browser view: the live picture, its controls and its figures on a local page."""

from .panel import Panel
from .sink import ViewSink

__all__ = ["Panel", "ViewSink"]
