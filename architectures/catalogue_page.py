"""The page of all built-in schemes, written from what each declares; a test holds the README to it."""

from __future__ import annotations

import inspect

import torch

from architectures.backbone import describe, parameter_split
from architectures.registry import ALIASES, BUILT_IN, CONTROLS, canonical
from architectures.systems.catalogue import PUBLISHED, published


def shares(scheme: str) -> dict[str, tuple[int, int]]:
    """Published systems that are conditioned as this scheme is: name -> parameters of modulation, of all.

    Counted on `meta`: nothing is allocated.
    """
    counts = {}
    for name, (conditioned_as, _, _) in PUBLISHED.items():
        if conditioned_as == canonical(scheme):
            with torch.device("meta"):
                split = parameter_split(published(name))
            counts[name] = (split["modulation"], split["total"])
    return counts


def gallery() -> str:
    """Markdown: a table of all built-in schemes, then the equations of each."""
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
            lines.append(f"- `published({system!r})`: {total:,} parameters, {m:,} of them modulation")
        pages.append("\n".join(lines))
    return "\n".join(rows) + "\n\n" + "\n\n".join(pages) + "\n"


def _also(name: str) -> str:
    """The other names of a scheme, and that it is a control."""
    control = ", a control" if name in CONTROLS else ""
    return control + "".join(f", also `{alias}`" for alias, scheme in sorted(ALIASES.items()) if scheme == name)
