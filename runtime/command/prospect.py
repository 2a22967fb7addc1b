"""What a dry run found, in words."""

from typing import Any


def lines_of(report: dict[str, Any]) -> list[str]:
    """The report of `preflight.run_preflight` for a person."""
    given, made = report["input"], report["output"]
    flags = [name for name in ("hdr", "alpha", "interlaced") if given[name]]
    told = [
        f"{report['source']} -> {report['sink']}, tried on {report['sampled_frames']} frames",
        f"  in       {given['size']} {given['format']}, {given['codec']}, {_rate(given['rate'])} fps, "
        + ", ".join([given["colour"], *flags]),
        f"  out      {made['size']} {made['format']}" + (f", {made['codec']}" if made["codec"] else ""),
        *(f"  model    {m['name']}: {m['backend']}, {m['precision']}" for m in report["models"]),
        *([f"  steady   --stabilize {report['stabilize']:g}"] if report["stabilize"] else []),
        f"  length   {_length(report)}",
        f"  time     {_time(report)}",
    ]
    if report["sink"] != "null:":
        told.append(f"  size     {_size(report)}")
    if report["peak_memory_mib"] is not None:
        told.append(f"  memory   {report['peak_memory_mib']:.0f} MiB at most so far")
    if report["sink"] not in ("null:", "-"):
        told.append(f"  journal  {'kept beside the output' if report['journal'] else 'none'}")
    told += [f"  beside   {line}" for line in report["streams"]]
    return [*told, *(f"  still    {still}" for still in report["stills"])]


def _rate(text: str) -> str:
    top, _, bottom = text.partition("/")
    return f"{int(top) / int(bottom or 1):.3f}".rstrip("0").rstrip(".")


def _length(report: dict[str, Any]) -> str:
    if report["frames"] is None:
        return "unknown"
    return f"{report['frames']} frames, {time_in_words(report['duration'])}"


def _time(report: dict[str, Any]) -> str:
    rate = f"{report['fps']:.1f} fps"
    if report["seconds"] is None:
        return f"unknown, at {rate}"
    likely, least, most = (
        time_in_words(report["seconds"][name]) for name in ("likely", "least", "most")
    )
    return f"about {likely} left ({least} to {most}), at {rate}"


def _size(report: dict[str, Any]) -> str:
    free = report["free_bytes"]
    room = "" if free is None else f"; {bytes_in_words(free)} are free"
    if report["output_bytes"] is None:
        return f"unknown{room}"
    likely, least, most = (
        bytes_in_words(report["output_bytes"][n]) for n in ("likely", "least", "most")
    )
    need = report["needed_bytes"]
    with_journal = f", {bytes_in_words(need)} with the journal" if report["journal"] and need else ""
    return f"about {likely} ({least} to {most}{with_journal}){room}"


def shortage_of(report: dict[str, Any]) -> str:
    """Why the output may not fit."""
    journal = " with its journal" if report["journal"] else ""
    return (
        f"{report['sink']} may need {bytes_in_words(report['needed_bytes'])}{journal}, and "
        f"{bytes_in_words(report['free_bytes'])} are free: make room, or choose another folder"
    )


def time_in_words(seconds: float) -> str:
    """`1:02:03`, `0:07`; tenths below ten seconds."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def bytes_in_words(size: float) -> str:
    """`12 kB`, `3.2 MB`, `1.4 GB`."""
    if size < 1e6:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
