"""Commands about conditioning schemes: `schemes`, `describe`, `check`, `new-scheme`."""

from __future__ import annotations

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
from bench.cli.described import beginnings, cost_grid, history_grid, print_description, systems
from bench.cli.errors import of_scheme

if TYPE_CHECKING:
    from rich.console import Group


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
        console().print(beginnings(names))
        return
    costs, at = {}, (backbone, image_size, tokens)
    for name in names:
        with of_scheme(name):
            costs[name] = _cost(name, *at)
    if as_json:
        size = {"backbone": backbone, "image_size": image_size, "tokens": tokens}
        print(json.dumps(size | {"schemes": costs} | ({"systems": systems(*at)} if everything else {}), indent=2))
        return
    if scheme is not None:
        with of_scheme(scheme):
            description = architectures.describe(scheme)
        print_description(description)
    prompt = f"{tokens} prompt tokens" if tokens else "a class label"
    console().print(cost_grid(costs, f"Cost on {backbone}, {image_size} px, {prompt}"))
    if everything:
        console().print(history_grid(*at))


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
