"""Commands about conditioning schemes: `schemes`, `describe`, `check`, `new-scheme`."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.common import (
    Json,
    Plugins,
    Scheme,
    complete_scheme,
    console,
    law_grid,
    load_plugins,
    near,
    progress_bars,
    say,
    wrote,
)
from bench.cli.errors import of_scheme

if TYPE_CHECKING:
    from rich.console import Group

    from architectures import Description
    from bench.views.grid import Grid


def schemes(plugin: Plugins = None, as_json: Json = False) -> None:
    """List the conditioning schemes, plugins included.

    Example: ditbench schemes --plugin my_gate.py
    """
    import architectures

    load_plugins(plugin)
    origins = {name: architectures.origin(name) for name in architectures.schemes()}
    if as_json:
        print(json.dumps(origins, indent=2))
        return
    for name, origin in origins.items():
        if name not in architectures.CONTROLS:
            say(name if origin["kind"] == "built-in" else f"{name}  ({origin['kind']} {origin['name']})")
    say("\ncontrols of comparisons:")
    for name in sorted(architectures.CONTROLS):
        say(name)
    say("\nnames of systems that a scheme's options give, to be used as a scheme's is:")
    width = max(map(len, architectures.NAMED))
    for name, one in architectures.NAMED.items():
        say(f"{name:{width}}  {one.conditioning}")


# --- describe -------------------------------------------------------------------------------------------------------


def describe(
    scheme: Annotated[
        str | None,
        typer.Argument(help="A scheme, see `ditbench schemes`; none with --all.", autocompletion=complete_scheme),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Compare the cost of every scheme.")] = False,
    beginning: Annotated[
        bool,
        typer.Option(
            "--init", help="Show its first steps from initialisation: identity, gradients of gates and branches."
        ),
    ] = False,
    backbone: Annotated[str, typer.Option(help="Its backbone: DiT-XS/2 to DiT-XL/2, any patch.")] = "DiT-B/2",
    image_size: Annotated[int, typer.Option(help="Pixels, or latents, a side.")] = 32,
    tokens: Annotated[int, typer.Option(help="Prompt tokens of 768 channels; 0: a class label of 1000.")] = 64,
    svg: Annotated[Path | None, typer.Option(help="Write a figure: where timestep and prompt enter the block.")] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Print a scheme's equations, facts, options and cost; with --all, the cost of each, and published systems by year.

    Example: ditbench describe adaln-zero --backbone DiT-S/2

    Example: ditbench describe --all --backbone DiT-B/2

    Example: ditbench describe sd3 --svg sd3.svg
    """
    import architectures

    load_plugins(plugin)
    if everything == (scheme is not None):
        raise typer.BadParameter("name one scheme, or give --all")
    names = [scheme] if scheme is not None else architectures.schemes()
    if svg is not None:
        _write_figure(names, svg)
        return
    if beginning:
        console().print(_beginnings(names))
        return
    costs = {}
    for name in names:
        with of_scheme(name):
            costs[name] = _cost(name, backbone, image_size, tokens)
    if as_json:
        size = {"backbone": backbone, "image_size": image_size, "tokens": tokens}
        print(json.dumps(size | {"schemes": costs}, indent=2))
        return
    if scheme is not None:
        with of_scheme(scheme):
            description = architectures.describe(scheme)
        _print_description(description)
    prompt = f"{tokens} prompt tokens" if tokens else "a class label"
    console().print(_cost_grid(costs, f"Cost on {backbone}, {image_size} px, {prompt}"))
    if everything:
        console().print(_history_grid())


def _write_figure(names: list[str], file: Path) -> None:
    from bench.store.files import write_atomic
    from bench.views.diagram import figure, read_anatomy

    anatomies = []
    for name in names:
        with of_scheme(name):
            anatomies.append(read_anatomy(name))
    write_atomic(file, figure(anatomies))
    say(f"wrote  {near(file)}")


def _cost(name: str, backbone: str, image_size: int, tokens: int) -> dict[str, float]:
    import architectures
    from bench.config.schema import Backbone, Data
    from bench.config.spec import CellConfig
    from bench.measure import cost

    kind = architectures.Features(768, 768, tokens) if tokens else architectures.Labels(1000)
    grid = architectures.BackboneConfig.named(backbone).grid(image_size)
    prompt = architectures.fitting(name, kind, grid**2)
    return cost.count(CellConfig(name, backbone=Backbone(name=backbone), data=Data(image_size=image_size)), prompt)


def _cost_grid(costs: dict[str, dict[str, float]], title: str) -> Grid:
    from bench.views.grid import Grid

    rows = []
    for name, cost in costs.items():
        total, modulation = cost["parameters_total"], cost["parameters_modulation"]
        millions = [f"{total / 1e6:,.2f} M", f"{modulation / 1e6:,.2f} M", f"{100 * modulation / total:.1f} %"]
        rows.append(
            [name, *millions, f"{cost['parameters_prompt'] / 1e6:,.2f} M", f"{cost['macs_forward'] / 1e9:,.3f}"]
        )
    return Grid(["scheme", "parameters", "modulation", "share", "prompt", "GMAC"], rows, title)


def _history_grid() -> Grid:
    """Published systems by year, with the scheme and the options that each is conditioned by."""
    import architectures
    from bench.views.grid import Grid

    rows = []
    for name in architectures.history():
        system, (modulation, total) = architectures.PUBLISHED[name], architectures.share(name)
        counts = [f"{total / 1e6:,.2f} M", f"{100 * modulation / total:.1f} %"]
        rows.append([str(system.year), name, system.conditioning, *counts, system.source])
    return Grid(
        ["year", "system", "conditioned as", "parameters", "share", "source"],
        rows,
        "Published systems, with the share of their modulation",
        frozenset({0, 1, 2, 5}),
    )


def _print_description(description: Description) -> None:
    """Equations, facts, published systems of this form, options."""
    import architectures

    def line(label: str, text: Any) -> None:
        out.print(f"{label:22} {text}")

    out = console()
    out.print(description.name + "\n", style="bold")
    named = architectures.NAMED.get(description.name)
    if named is not None:
        out.print(f"{named.conditioning} ({named.year}; {named.source}). {named.says}".rstrip() + "\n")
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


def _options_grid(description: Description) -> Grid:
    from bench.views.grid import Grid

    rows = [
        [name, str(option.default), " | ".join(option.choices) or option.kind.__name__, option.help]
        for name, option in description.options.items()
    ]
    return Grid(["option", "default", "choices", "meaning"], rows, "Options", frozenset(range(4)))


def _beginnings(names: list[str]) -> Group:
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


# --- check ----------------------------------------------------------------------------------------------------------


def check(
    scheme: Scheme,
    options: Annotated[list[str] | None, typer.Argument(help="Its options as key=value, such as gate=one.")] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Hold a scheme to the laws that every scheme obeys, in seconds on a CPU; exit code 1 if it breaks one.

    Example: ditbench check my-gate --plugin my_gate.py
    """
    import architectures
    from bench.config.load import pairs

    load_plugins(plugin)
    chosen = pairs(options or [])
    verdicts = []
    with progress_bars(as_json) as progress:
        for verdict in architectures.check(scheme, chosen):
            verdicts.append(verdict)
            progress(f"check {scheme}", len(verdicts), len(architectures.LAWS))
    if as_json:
        subject = {"scheme": scheme, "origin": architectures.origin(scheme), "options": chosen}
        print(json.dumps(subject | {"laws": [asdict(verdict) for verdict in verdicts]}, indent=2))
    else:
        console().print(_check_grid(scheme, verdicts))
    sys.exit(any(verdict.outcome != "holds" for verdict in verdicts))


def _check_grid(scheme: str, verdicts: list[Any]) -> Group:
    from rich.console import Group
    from rich.text import Text

    rows = [(one.law, one.outcome, one.summary, one.observed) for one in verdicts]
    grid = law_grid(f"{scheme} against the laws", rows)
    broken = [one.law for one in verdicts if one.outcome != "holds"]
    seconds = sum(one.seconds for one in verdicts)
    last = f"{len(verdicts) - len(broken)} of {len(verdicts)} laws hold ({seconds:.1f} s)"
    return Group(grid, Text(last + (f"; not: {', '.join(broken)}" if broken else "")))


# --- new-scheme -----------------------------------------------------------------------------------------------------


def new_scheme(
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and '-'.")],
    package: Annotated[
        Path | None, typer.Option("--package", help="Write an installable package into this folder.")
    ] = None,
) -> None:
    """Write a new scheme that works, with its test: a file here, or a package.

    Example: ditbench new-scheme my-gate --package ditbench-my-gate
    """
    from bench.cli import scaffold

    files = scaffold.new_scheme(name, package or Path(), package=package is not None)
    plugin = "" if package is not None else f" --plugin {name.replace('-', '_')}.py"
    wrote(files, f"ditbench check {name}{plugin}", package)
