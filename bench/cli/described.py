"""What `ditbench describe` shows of schemes, as grids and text."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from bench.cli.common import console
from bench.cli.errors import of_scheme

if TYPE_CHECKING:
    from rich.console import Group

    from architectures import Description
    from bench.views.grid import Grid


def cost_grid(costs: dict[str, dict[str, float]], title: str) -> Grid:
    """The cost of schemes beside each other."""
    from bench.views.grid import Grid

    rows = []
    for name, cost in costs.items():
        total, modulation = cost["parameters_total"], cost["parameters_modulation"]
        millions = [_millions(total), _millions(modulation), f"{100 * modulation / total:.1f} %"]
        rows.append([name, *millions, _millions(cost["parameters_prompt"]), f"{cost['macs_forward'] / 1e9:,.3f}"])
    return Grid(["scheme", "parameters", "modulation", "share", "prompt", "GMAC"], rows, title)


def systems(backbone: str, image_size: int, tokens: int) -> dict[str, dict[str, Any]]:
    """Systems by year: how each is conditioned, what of it is published, its cost on a backbone, its source.

    `parameters` and `modulation` are those as published, where a whole system is here.
    """
    import architectures

    found: dict[str, dict[str, Any]] = {}
    for name, system in architectures.history().items():
        found[name] = {"year": system.year, "conditioning": system.conditioning, "source": system.source}
        if name in architectures.PUBLISHED:
            modulation, total = architectures.share(name)
            found[name] |= {"parameters": total, "modulation": modulation}
        found[name]["on_backbone"] = architectures.on_backbone(name, backbone, image_size, tokens)._asdict()
    return found


def history_grid(backbone: str, image_size: int, tokens: int) -> Grid:
    """Systems by year, with the scheme and options that each is conditioned by, and their cost on a backbone."""
    import architectures
    from bench.views.grid import Grid

    rows = []
    for name, one in systems(backbone, image_size, tokens).items():
        published = [_millions(one["parameters"]), _share(one)] if "parameters" in one else ["-", "-"]
        cost = architectures.on_backbone(name, backbone, image_size, tokens)  # counted once
        here = [_millions(cost.parameters), _share(cost._asdict()), f"{cost.multiply_adds / 1e9:.2f}", cost.once]
        rows.append([str(one["year"]), name, one["conditioning"], *published, *here, one["source"]])
    counted = ["published", "share", backbone, "share", "GMAC"]
    return Grid(
        ["year", "system", "conditioned as", *counted, "once a prompt", "source"],
        rows,
        "Systems by year: parameters and modulation's share as published and on the backbone, what a sampler computes "
        "once a prompt",
        frozenset({0, 1, 2, 8, 9}),
    )


def _millions(count: float) -> str:
    return f"{count / 1e6:,.2f} M"


def _share(one: dict[str, Any]) -> str:
    return f"{100 * one['modulation'] / one['parameters']:.1f} %"


def print_description(description: Description) -> None:
    """Equations, facts, published systems of this form, options."""
    import architectures

    def line(label: str, text: Any) -> None:
        out.print(f"{label:22} {text}")

    out = console()
    out.print(description.name + "\n", style="bold")
    named = architectures.NAMED.get(description.name)
    if named is not None:
        out.print(f"{named.conditioning} ({named.year}; {named.source}). {named.says}".rstrip() + "\n")
        out.print(_derived(named.scheme, description) + "\n")
    else:
        out.print(inspect.cleandoc(description.equations) + "\n")
    out.print("as the blocks compute it, in order\n")
    for equations in description.computed:
        out.print("    " + equations.replace("\n", "\n    ") + "\n")
    fields = ("source", "vector", "prompt", "identity_at_init", "modulation_parameters")
    for field in fields[1:3] if named and named.options else fields:  # the others are of the scheme's own options
        line(field.replace("_", " "), getattr(description.facts, field))
    line("origin", " ".join(description.origin.values()))
    for system, (modulation, total) in architectures.shares(description.name).items():
        share = f"{total / 1e6:,.2f} M parameters, {100 * modulation / total:.2f} % modulation"
        options = architectures.PUBLISHED[system].options
        with_options = f" ({', '.join(f'{name}={value}' for name, value in options.items())})" if options else ""
        line("as published", f"{system}{with_options}: {share}")
    out.print()
    out.print(_options_grid(description) if description.options else "no options")


def _derived(scheme: str, description: Description) -> str:
    """Whose equations a name's are derived from, and its own c; those of the scheme are of the scheme's own options."""
    vector = description.facts.vector.replace("timestep", "e_t").replace("pooled prompt", "prompt")
    own = f"    c = {vector}" if vector != "none" else "    no c: nothing is modulated by a vector"
    return f"derived from `{scheme}`; equations of `{scheme}`: ditbench describe {scheme}\n\n{own}"


def _options_grid(description: Description) -> Grid:
    from bench.views.grid import Grid

    rows = [
        [name, str(option.default), " | ".join(option.choices) or option.kind.__name__, option.help]
        for name, option in description.options.items()
    ]
    return Grid(["option", "default", "choices", "meaning"], rows, "Options", frozenset(range(4)))


def beginnings(names: list[str]) -> Group:
    """First steps from initialisation: with a random output layer, and with the real one."""
    from rich.console import Group
    from rich.text import Text

    return Group(
        _beginning_grid(names, "Output layer random: a block as analysed alone", live=True),
        _beginning_grid(names, "The network: its output layer is initialised to zero", live=False),
        Text(
            "Norms of gradients in float64 under plain gradient descent; `gates` of the gates' vectors, `branches` of "
            "the weights behind them; - where a scheme has none."
        ),
    )


def _beginning_grid(names: list[str], title: str, *, live: bool) -> Grid:
    import architectures
    from bench.views.grid import Grid

    headings = [f"{part}, step {step}" for step in range(3) for part in ("identity", "gates", "branches")]
    rows = []
    for name in names:
        with of_scheme(name):
            steps = list(architectures.initial_steps(name, live=live))
        parts = (("yes" if step.identity else "no", _norm(step.gates), _norm(step.branches)) for step in steps)
        rows.append([name, *(text for part in parts for text in part)])
    return Grid(["scheme", *headings], rows, title)


def _norm(norm: float | None) -> str:
    return "-" if norm is None else "0" if norm == 0 else f"{norm:.1e}"
