"""How the command line is read: commands without their name, groups of options in the help, errors."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import SinkError, SourceError
from ..jobs.job import Panel
from ..sinks import needs_live as live_sink
from ..sources import needs_live as live_source
from ..zoo import named_models

DESTRUCTIVE = frozenset(["--overwrite", "--restart"])
"""Options that throw something away, which nobody must be talked into by a slip of the pen."""

CUTTING = frozenset(["--start", "--end"])
"""Options of files that have nothing to take hold of where frames come as they come."""


class CarefulCommand(TyperCommand):
    """A command whose help has its options in groups, and that suggests no destructive option for one
    that does not exist, such as --over."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter:
            raise
        except Exception as error:  # its class is Typer's own, without a public name
            wrong: Any = error
            near: list[str] | None = getattr(wrong, "possibilities", None)
            if near:
                wrong.possibilities = [name for name in near if name not in DESTRUCTIVE]
            if ctx.info_name == "live" and getattr(wrong, "option_name", None) in CUTTING:
                wrong.message = (
                    f"{wrong.option_name} is for files, of which `velatura run` makes files: what is "
                    "live has no beginning to count from (--seconds ends it)"
                )
                wrong.possibilities = []
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, as the plain help does, by their groups."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        groups |= {name: [] for name in get_args(Panel)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            group = getattr(parameter, "rich_help_panel", None) or kind
            groups.setdefault(group, []).append(record)
        for title, records in groups.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Commands(TyperGroup):
    """The commands, of which `run` and `live` need not be named before what they read and write."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {name for one in self.get_params(ctx) for name in one.opts}
        return super().parse_args(ctx, _named(args, {*self.commands, *own}))


def _named(words: list[str], known: set[str]) -> list[str]:
    """Returns the words with `run` or `live` before them where they begin with no command, but name a
    source."""
    if not words or words[0] in known:
        return words
    begins = words[0] == "-" or not words[0].startswith("-")
    named = [word for word in (words[:1] if begins else words) if _names_source(word)]
    if not named or (not begins and not known.isdisjoint(words)):
        return words
    return ["live" if any(live_sink(w) or live_source(w) for w in words) else "run", *words]


def _names_source(word: str) -> bool:
    if word.startswith("-"):
        return word == "-"
    return any(sign in word for sign in "./\\:*%") or Path(word).exists()


def refuse_live(source: str, sink: str, models: Sequence[str]) -> None:
    """Raises SourceError or SinkError, with the line to type, for what only `velatura live` takes."""
    chain = [word for name in models for word in ("-m", name)]
    line = shlex.join(["velatura", "live", source, sink, *chain])
    if live_source(source):
        raise SourceError(f"{source} does not wait for its reader, so `live` is the command: {line}")
    if live_sink(sink):
        raise SinkError(f"{sink} is shown as it comes, so `live` is the command: {line}")


def offer_models(source: str, sink: str) -> None:
    """Print the models' names, and the line to type, for a run that nothing was asked of."""
    names = list(named_models())
    line = shlex.join(["velatura", "run", source, sink, "-m"])
    typer.echo(
        "\n".join(
            [
                "No model was named, and nothing else is asked for. There are:",
                *(f"  {name}" for name in names),
                f"Type for example: {line} {names[0]}",
                "`velatura models` says what each does; `-m identity` only converts.",
            ]
        ),
        err=True,
    )


def in_terminal() -> bool:
    """Returns whether a person sees what is printed, and can answer."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()  # pyright: ignore[reportUnnecessaryComparison]


def wants_json(words: Sequence[str]) -> bool:
    """Returns whether a line of words asks for one JSON object on standard output, which no frames
    take."""
    given = list(words[: words.index("--")] if "--" in words else words)
    # As a source `-` comes first, or right after its command.
    frames = [n for n, word in enumerate(given) if word == "-" and n and given[n - 1] != "run"]
    return "--json" in given and not frames
