"""`velatura devices`: the cameras, screens and windows of this machine."""

import json

import typer

from ..errors import SourceError
from ..sources import KINDS, list_devices


def show_devices(*, as_json: bool) -> None:
    """Print the devices of every kind of source, or the reason why there are none of a kind."""
    found: dict[str, list[dict[str, str]]] = {}
    problems: dict[str, str] = {}
    for kind in KINDS:
        if not kind.devices:
            continue
        found[kind.devices] = []
        try:
            found[kind.devices] = [device.to_json() for device in list_devices(kind)]
        except SourceError as error:
            problems[kind.devices] = str(error)
    if as_json:
        typer.echo(json.dumps({**found, "problems": problems}))
        return
    for heading, devices in found.items():
        typer.echo(f"{heading}:")
        for device in devices:
            title = " ".join(device[key] for key in ("title", "size", "problem") if device.get(key))
            typer.echo(f"  {device['name']:<24} {title}".rstrip())
        if not devices:
            typer.echo(f"  none: {problems[heading]}" if heading in problems else "  none")
