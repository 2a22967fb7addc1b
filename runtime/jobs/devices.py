"""`velatura devices`: the cameras, screens and windows of this machine."""

import json
from typing import Any

import typer

from ..errors import SourceError
from ..sources.camera import list_cameras
from ..sources.screen import list_screens, list_windows


def show_devices(*, as_json: bool) -> None:
    """Print cameras, screens and windows, or the reason why there are none of a kind."""
    found = _devices()
    if as_json:
        typer.echo(json.dumps(found))
        return
    for kind in ("cameras", "screens", "windows"):
        typer.echo(f"{kind}:")
        for device in found[kind]:
            title = " ".join(
                str(device[key]) for key in ("title", "size", "problem") if device.get(key)
            )
            typer.echo(f"  {device['name']:<24} {title}".rstrip())
        if not found[kind]:
            typer.echo(
                f"  none{': ' if found['problems'].get(kind) else ''}{found['problems'].get(kind, '')}"
            )


def _devices() -> dict[str, Any]:
    problems: dict[str, str] = {}
    cameras = [
        {"name": c.name, "title": c.title, "device": c.device, "problem": c.problem}
        for c in list_cameras()
    ]
    screens: list[dict[str, str]] = []
    windows: list[dict[str, str]] = []
    try:
        screens = [{"name": s.name, "title": s.title, "size": str(s.box)} for s in list_screens()]
    except SourceError as error:
        problems["screens"] = str(error)
    try:
        windows = [{"name": f"window:{w.title}", "size": str(w.box)} for w in list_windows()]
    except SourceError as error:
        problems["windows"] = str(error)
    return {"cameras": cameras, "screens": screens, "windows": windows, "problems": problems}
