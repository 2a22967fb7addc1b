"""What the site has beyond its Markdown: pictures, and what is made from the code."""

import ast
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("runtime", "export", "training")
OUTSIDE = re.compile(r"(?<=\]\()\.\./([^)#]+)(?=[)#])")
"""Links that lead out of docs/, as a reader of the repository follows them."""
PART = r"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)"

COMMANDS = {
    "velatura": "velatura.runtime.__main__",
    "velatura train": "velatura.training.command",
    "velatura export": "velatura.export.command",
    "velatura evaluate": "velatura.export.evaluate",
    "velatura import": "velatura.export.import_command",
}
"""Commands with options of their own, and the modules that hold their typer apps."""


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Shows mkdocstrings the packages under their names, which the repository's folders do not have."""
    place = tempfile.TemporaryDirectory(prefix="velatura-docs-")
    folder = Path(place.name) / "velatura"
    folder.mkdir()
    for package in PACKAGES:
        (folder / package).symlink_to(ROOT / package)
    handler: Any = config.plugins["mkdocstrings"].config["handlers"]["python"]
    handler["paths"] = [place.name]
    # The folder lives as long as the configuration does.
    config["extra"]["packages"] = place
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds every file outside of docs/ that a page links to."""
    for page in files.documentation_pages():
        for path in OUTSIDE.findall(page.content_string):
            if files.get_file_from_path(f"repository/{path}") is None and (ROOT / path).is_file():
                target = f"repository/{path}"
                copy = File.generated(config, target, abs_src_path=str(ROOT / path))
                copy.inclusion = InclusionLevel.NOT_IN_NAV  # a README becomes a page, of none's menu
                files.append(copy)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead to the copies; the commands' and the modules' pages are filled from the code."""
    del config, files
    markdown = OUTSIDE.sub(r"repository/\1", markdown)
    if page.file.src_uri == "commands.md":
        return fill(markdown, "commands", commands())
    if page.file.src_uri == "models.md":
        return fill(markdown, "metrics", metrics())
    if page.file.src_uri == "architecture.md":
        return fill(markdown, "modules", modules())
    return markdown


def fill(markdown: str, name: str, text: str) -> str:
    """The page with `text` between its markers. Raises ValueError where they are missing."""
    filled, times = re.subn(PART.format(name=name), lambda _: text, markdown, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"{times} parts named {name!r}: one is wanted")
    return filled


def metrics() -> str:
    """Markdown of the measures of `velatura evaluate`: key in the report, words, the better way."""
    from velatura.training.metrics import METRICS

    lines = [f"| `{one.key.format('NAME')}` | {one.title} | {one.better} |" for one in METRICS]
    return "\n".join(["| in the report | measure | better |", "| --- | --- | --- |", *lines, ""])


def commands() -> str:
    """Markdown of every command's arguments and options, as typer writes it."""
    parts: list[str] = []
    for name, module in COMMANDS.items():
        done = subprocess.run(
            [sys.executable, "-m", "typer", module, "utils", "docs", "--name", name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"no documents of {name}: {done.stderr}")
        text = done.stdout
        if name == "velatura":
            # Those that pass their arguments on have pages of their own.
            for other in list(COMMANDS)[1:]:
                text = re.sub(rf"## `{other}`.*?(?=\n## |\Z)", "", text, flags=re.DOTALL)
            text = text.partition("\n## ")[1] + text.partition("\n## ")[2]
        else:
            text = f"\n#{text}"
        parts.append(text.strip())
    return "\n\n".join(parts) + "\n"


def modules() -> str:
    """Markdown of all modules, by folder, each with the first line of its docstring."""
    lines: list[str] = []
    for package in (*PACKAGES, "benchmarks/game"):
        folders = sorted({path.parent for path in (ROOT / package).rglob("*.py")})
        for folder in folders:
            name = folder.relative_to(ROOT).as_posix()
            lines += [f"\n### {name}\n"]
            init = folder / "__init__.py"
            if init.exists() and (said := first_line(init)):
                lines += [f"{said}\n"]
            lines += ["| module | holds |", "|---|---|"]
            lines += [
                f"| `{path.name}` | {first_line(path)} |"
                for path in sorted(folder.glob("*.py"))
                if path.name != "__init__.py"
            ]
    return "\n".join(lines) + "\n"


def first_line(path: Path) -> str:
    """The first sentence or line of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("|", r"\|").strip()
