"""The page of all built-in schemes, written from what each declares; a test holds the README to it."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, NamedTuple

import torch

from architectures.backbone import create, describe, parameter_split
from architectures.named import NAMED, Named
from architectures.prompt import Features, Labels
from architectures.registry import BUILT_IN, CONTROLS, canonical
from architectures.systems.catalogue import PUBLISHED, System, published
from architectures.work import multiply_adds


class Cost(NamedTuple):
    """Of a conditioning on the fixed backbone.

    Attributes:
        modulation: parameters that make shift, scale and gate. parameters: all.
        multiply_adds: of one image's pass, its prompt's encoder included.
        kept: whether the prompt's keys and values in the blocks depend on neither image nor t, so that a sampler
            computes them once a prompt; of others it is the encoder's output.
    """

    modulation: int
    parameters: int
    multiply_adds: float
    kept: bool

    @property
    def once(self) -> str:
        """What a sampler computes once a prompt, in a word."""
        return "keys, values" if self.kept else "encoding"


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


def on_backbone(name: str, backbone: str = "DiT-B/2", image_size: int = 32, tokens: int = 64) -> Cost:
    """What a published system or a name of `NAMED` costs as a scheme of the fixed backbone.

    Args:
        name: of it.
        backbone: `DiT-B/2` and so on.
        image_size: pixels a side.
        tokens: of a prompt, each of 768 channels; 0: a label of 1000.
    """
    one = PUBLISHED.get(name) or NAMED[name]
    return _cost(one.scheme, tuple(one.options.items()), backbone, image_size, tokens)


@cache
def _cost(scheme: str, options: tuple[tuple[str, Any], ...], backbone: str, image_size: int, tokens: int) -> Cost:
    prompt = Features(768, 768, tokens) if tokens else Labels(1000)
    with torch.device("meta"):
        model = create(scheme, backbone, image_size=image_size, in_channels=3, prompt=prompt, **dict(options))
    split = parameter_split(model)
    work = multiply_adds(model, 3, image_size, prompt)
    return Cost(split["modulation"], split["total"], work, model.scheme.prompt_alone)


def history() -> dict[str, System | Named]:
    """Published systems, and names of those that options give: the oldest first."""
    known: dict[str, System | Named] = {**PUBLISHED, **NAMED, **PUBLISHED}  # a name of both is the published system
    return dict(sorted(known.items(), key=lambda item: item[1].year))


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
    return "\n\n".join(["\n".join(rows), _history_table(), _notes(), *pages]) + "\n"


def _history_table() -> str:
    """Systems by year: how each is conditioned, what it has as published, and what that costs on one backbone."""
    rows = [
        "As published, and as a scheme on DiT-B/2 at 32 px with 64 prompt tokens (GMAC: of one pass). Once a prompt a "
        "sampler computes the encoder's output, or the prompt's keys and values in all blocks.",
        "",
        "| year | system | conditioned as | parameters | modulation | on DiT-B/2 | modulation | GMAC | once a prompt "
        "| source |",
        "|---|---|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for name, system in history().items():
        counts, cost = "- | -", on_backbone(name)
        if name in PUBLISHED:
            modulation, total = share(name)
            counts = f"{total:,} | {modulation / total:.1%}"
        here = f"{cost.parameters:,} | {cost.modulation / cost.parameters:.1%} | {cost.multiply_adds / 1e9:.2f}"
        about = f"| {system.year} | `{name}` | `{system.conditioning}` | {counts} | {here}"
        rows.append(f"{about} | {cost.once} | {system.source} |")
    return "\n".join(rows)


def _notes() -> str:
    """What of a named system its scheme does not have, or has otherwise."""
    notes = (f"| `{name}` | {NAMED[name].says} |" for name in history() if name in NAMED and NAMED[name].says)
    return "\n".join(["| name | here |", "|---|---|", *notes])


def _also(name: str) -> str:
    """The other names of a scheme as it is, and that it is a control."""
    control = ", a control" if name in CONTROLS else ""
    same = sorted(other for other, one in NAMED.items() if one.scheme == name and not one.options)
    return control + "".join(f", also `{other}`" for other in same)
