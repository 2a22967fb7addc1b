"""The browser view: the live picture, its controls and its figures on a local page."""

from .contract import Panel
from .sink import ViewSink

__all__ = ["Panel", "ViewSink"]
