"""The page of all built-in schemes, written from what each declares; a test holds the README to it."""

from __future__ import annotations

import inspect
from functools import cache

import torch

from architectures.backbone import describe, parameter_split
from architectures.named import NAMED
from architectures.registry import BUILT_IN, CONTROLS, canonical
from architectures.systems.catalogue import PUBLISHED, published


def shares(scheme: str) -> dict[str, tuple[int, int]]:
    """Published systems that are conditioned as this scheme or an option of it is: name -> `share`."""
    counts = {}
    for name, system in PUBLISHED.items():
        if system.scheme == canonical(scheme):
            counts[name] = share(name)
    return counts


@cache
def share(system: str) -> tuple[int, int]:
    """Parameters of a published system's modulation, and all. Counted on `meta`: nothing is allocated."""
    with torch.device("meta"):
        split = parameter_split(published(system))
    return split["modulation"], split["total"]


def history() -> list[str]:
    """Published systems, the oldest first."""
    return sorted(PUBLISHED, key=lambda name: PUBLISHED[name].year)


def gallery() -> str:
    """Markdown: a table of all built-in schemes, one of published systems by year, then the equations of each."""
    rows = [
        "| scheme | c | the prompt enters by | modulation parameters (width d, n blocks) | as published | begins |",
        "|---|---|---|---|---|---|",
    ]
    pages = []
    for name in sorted(BUILT_IN):
        description = describe(name)
        facts, systems = description.facts, shares(name)
        as_published = ", ".join(f"{100 * m / total:.1f} % of {system}" for system, (m, total) in systems.items() if m)
        begins = "identity" if facts.identity_at_init else "open"
        rows.append(
            f"| [`{name}`](#{name}){_also(name)} | {facts.vector} | {facts.prompt} | `{facts.modulation_parameters}` | "
            f"{as_published or '-'} | {begins} |"
        )
        lines = [
            f"### {name}",
            "",
            f"{facts.source}{_also(name)}.",
            "",
            "```text",
            inspect.cleandoc(description.equations),
            "```",
        ]
        for system, (m, total) in systems.items():
            options = f", `{PUBLISHED[system].conditioning}`" if PUBLISHED[system].options else ""
            lines.append(f"- `published({system!r})`{options}: {total:,} parameters, {m:,} of them modulation")
        pages.append("\n".join(lines))
    return "\n\n".join(["\n".join(rows), _history_table(), _named_table(), *pages]) + "\n"


def _history_table() -> str:
    """Published systems by year, with the scheme and the options that each is conditioned by."""
    rows = ["| year | system | conditioned as | parameters | modulation | source |", "|---|---|---|---:|---:|---|"]
    for name in history():
        system, (modulation, total) = PUBLISHED[name], share(name)
        counts = f"{total:,} | {modulation / total:.1%}"
        rows.append(f"| {system.year} | `{name}` | `{system.conditioning}` | {counts} | {system.source} |")
    return "\n".join(rows)


def _named_table() -> str:
    """Names of systems that a scheme's options give, by year."""
    rows = ["| year | name | is | source | here |", "|---|---|---|---|---|"]
    for name, one in sorted(NAMED.items(), key=lambda item: item[1].year):
        rows.append(f"| {one.year} | `{name}` | `{one.conditioning}` | {one.source} | {one.says or '-'} |")
    return "\n".join(rows)


def _also(name: str) -> str:
    """The other names of a scheme as it is, and that it is a control."""
    control = ", a control" if name in CONTROLS else ""
    same = sorted(other for other, one in NAMED.items() if one.scheme == name and not one.options)
    return control + "".join(f", also `{other}`" for other in same)
