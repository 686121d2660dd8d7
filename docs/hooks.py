"""What the documentation takes from the repository, so that nothing is copied by hand.

A line `<!-- include: PATH#heading -->` is replaced by that section of a Markdown file, `<!-- make: NAME -->` by what a
function of `MAKERS` writes.
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # tests read this file where mkdocs is not installed
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
INCLUDE = re.compile(r"^<!-- include: (?P<path>[\w./-]+)#(?P<heading>[\w-]+) -->$", re.MULTILINE)
MAKE = re.compile(r"^<!-- make: (?P<name>[\w-]+) -->$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
PARAMETER = re.compile(r"  (argument|option) (?P<names>\S+(?: --?\S+)*)(?: \[(?P<default>.*?)\])?(?:  (?P<help>.*))?$")
PAGES = {"architectures/README.md": "schemes.md", "README.md": "index.md", "CONTRIBUTING.md": "concepts.md"}


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Puts the included sections and the made ones in."""
    markdown = INCLUDE.sub(lambda found: section(found["path"], found["heading"]), markdown)
    return MAKE.sub(lambda found: MAKERS[found["name"]](), markdown)


# --- sections of Markdown files ---------------------------------------------------------------------------------------


def lines_outside_code(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, those within a fence left out."""
    fenced = False
    for number, line in enumerate(text.splitlines()):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower().replace("`", "")).strip("-")


def section(path: str, heading: str) -> str:
    """A section's text, its own heading left out, its sub-headings from level 3 on.

    Raises:
        ValueError: if the file has no such heading.
    """
    text = (ROOT / path).read_text()
    marks = [(number, line) for number, line in lines_outside_code(text) if re.match(r"#+ ", line)]
    for k, (number, line) in enumerate(marks):
        level = len(line) - len(line.lstrip("#"))
        if slug(line.lstrip("# ")) != heading:
            continue
        end = next((at for at, other in marks[k + 1 :] if len(other) - len(other.lstrip("#")) <= level), None)
        body = re.sub(r"<!--.*?-->\n?", "", "\n".join(text.splitlines()[number + 1 : end]), flags=re.DOTALL)
        return relinked(body.replace("```\n- ", "```\n\n- "), path)
    known = ", ".join(slug(line.lstrip("# ")) for _, line in marks)
    raise ValueError(f"{path} has no section {heading!r} (sections: {known})")


def relinked(text: str, path: str) -> str:
    """Links between files of the repository become links between pages, or the plain path where there is no page."""

    def one(found: re.Match[str]) -> str:
        target = found["target"]
        if target.startswith(("http://", "https://")):
            return found[0]
        file = (ROOT / path).parent.joinpath(target).resolve()
        where = file.relative_to(ROOT).as_posix()
        if where in PAGES:
            return f"[{found['text']}]({PAGES[where]}{found['anchor'] or ''})"
        return f"`{where}`" if found["text"].strip("`") in (where, target) else f"{found['text']} (`{where}`)"

    return LINK.sub(one, text)


# --- what is written from the sources ---------------------------------------------------------------------------------


def commands() -> str:
    """The committed help, a section a command."""
    blocks = re.split(r"\n(?=ditbench )", (ROOT / "tests" / "help.txt").read_text())
    return "\n".join(command(block.rstrip().splitlines()) for block in blocks)


def command(lines: list[str]) -> str:
    """One command of the help in Markdown."""
    text = [line.strip() for line in lines[1:] if line.startswith("    ")]
    examples = [line.removeprefix("Example: ") for line in text if line.startswith("Example: ")]
    said = " ".join(line for line in text if line and not line.startswith("Example: "))
    out = [f"## {lines[0]}\n", said + "\n"]
    if examples:
        out.append("```\n" + "\n".join(examples) + "\n```\n")
    rows = []
    for line in lines[1:]:
        if found := PARAMETER.match(line):
            rows.append(f"| `{found['names']}` | {found['default'] or ''} | {found['help'] or ''} |")
    if rows:
        out.append("| argument or option | default | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(out)


def configuration() -> str:
    """Every key of a matrix with its type, default and meaning."""
    from bench.config.keys import markdown

    return markdown(level=2)


# --- parts of pages ---------------------------------------------------------------------------------------------------


def laws() -> str:
    """The laws that every scheme obeys."""
    from architectures import LAWS

    rows = "\n".join(f"| {law.name} | {law.summary} |" for law in LAWS)
    return f"| law | what it demands |\n|---|---|\n{rows}\n"


def metrics() -> str:
    """The table of metrics, as a claim names them."""
    from bench.store.metrics import METRICS

    out = ["| name | heading | better | margin | within one run alone |", "|---|---|---|---|---|"]
    for one in METRICS:
        heading = (one.heading + (f", {one.unit}" if one.unit not in ("", "%") else "")).replace("|", "\\|")
        margin = f"{one.margin:.1%}" if one.margin else ""
        out.append(f"| `{one.kind}` | {heading} | {one.better} | {margin} | {'yes' if one.timed else ''} |")
    return "\n".join(out) + "\n"


def bias() -> str:
    """FID and KID against the number of images, as `results/bias` holds them."""
    record = json.loads((ROOT / "results" / "bias" / "bias.json").read_text())
    names = list(record["sets"])
    heads = [f"{metric}, {name}" for name in names for metric in ("FID", "KID")]
    out = ["| N | " + " | ".join(heads) + " |", "|---:|" + "---:|" * len(heads)]
    for k, point in enumerate(record["sets"][names[0]]["points"]):
        cells = []
        for name in names:
            here = record["sets"][name]["points"][k]
            cells += [f"{statistics.fmean(here['fid']):.1f}", f"{statistics.fmean(here['kid']):.4f}"]
        out.append(f"| {point['n']:,} | " + " | ".join(cells) + " |")
    limits = [record["sets"][name]["limit"] for name in names]
    cells = [cell for end in limits for cell in (f"**{end['fid']:.1f} ± {end['error']:.1f}**", "")]
    out.append("| limit | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


TITLES = {  # of the modules that public names come from, in the order of the page
    "registry": "Names and plugins",
    "backbone": "Models",
    "prompt": "Prompts",
    "scheme": "Schemes",
    "options": "Options",
    "sublayer": "Blocks",
    "modulation": "Modulation",
    "layers": "Layers",
    "rotary": "Rotary positions",
    "streams": "Streams",
    "laws": "Laws",
    "observation": "Observation",
}


def api(package: str = "architectures", known: Sequence[str] = ()) -> str:
    """A directive for each public name of a package but the known ones, by the module it comes from."""
    module = importlib.import_module(package)
    homes: dict[str, list[str]] = {}
    for name in sorted(set(module.__all__) - set(known)):
        home = getattr(getattr(module, name), "__module__", package).removeprefix("architectures.")
        homes.setdefault(home.partition(".")[0], []).append(name)
    order = [*TITLES, *sorted(set(homes) - {*TITLES, package, "builtins"})]
    parts = []
    for home in order:
        if home in homes:
            parts.append(f"### {TITLES.get(home, home.capitalize())}\n")
            parts += [f"::: {package}.{name}\n    options: {{heading_level: 4}}\n" for name in homes[home]]
    return "\n".join(parts)


def parts() -> str:
    """What plugins import beside `architectures` itself."""
    from importlib.util import find_spec

    name, known = "architectures.parts", importlib.import_module("architectures").__all__
    if find_spec(name) is None:
        return ""
    both = ", ".join(f"`{one}`" for one in sorted(set(importlib.import_module(name).__all__) & set(known)))
    also = f"Also here, as above: {both}.\n\n" if both else ""
    return f"## {name}\n\n{also}{api(name, known)}"


MAKERS: dict[str, Callable[[], str]] = {
    "api": api,
    "bias": bias,
    "commands": commands,
    "configuration": configuration,
    "laws": laws,
    "metrics": metrics,
    "parts": parts,
}
