"""The command `ditbench`: parsing and calls. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.views.readme import update_readme

if TYPE_CHECKING:
    from bench.run.loop import CellState
    from bench.store.folders import CellFolder, Store
    from bench.store.table import Table

app = typer.Typer(
    name="ditbench",
    help="How should a diffusion transformer be told what to draw? Fair measurements of conditioning schemes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Root = Annotated[Path, typer.Option(envvar="DITBENCH_ROOT", help="The results directory.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes as key=value, such as train.steps=100.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", envvar="DITBENCH_PLUGINS", help="A Python file that registers schemes; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
RUNS = Path("runs")


def _schemes(incomplete: str) -> list[str]:
    """Names of schemes that begin so, for the shell."""
    from architectures import schemes

    return [name for name in schemes() if name.startswith(incomplete)]


def _places(context: typer.Context, incomplete: str) -> list[str]:
    """Matrices, and after a slash their variants, for the shell."""
    from bench.store.folders import Store

    store = Store(Path(context.params.get("root") or RUNS).resolve())
    names = store.matrices()
    matrix, slash, _ = incomplete.partition("/")
    if slash and matrix in names:
        names = [f"{matrix}/{variant}" for variant in dict.fromkeys(row.variant for row in store.rows(matrix))]
    return [name for name in names if name.startswith(incomplete)]


Name = Annotated[
    str | None, typer.Argument(help="A matrix, by its name; the last one run if left out.", autocompletion=_places)
]
Scheme = Annotated[str, typer.Argument(help="A scheme, see `ditbench schemes`.", autocompletion=_schemes)]


def main() -> None:
    """The console script: a user's mistake is a sentence and exit code 2, never a traceback."""
    try:
        app()
    except (ValueError, FileNotFoundError) as error:
        if os.environ.get("DITBENCH_DEBUG"):
            raise
        print(f"ditbench: {error}", file=sys.stderr)
        sys.exit(2)


# --- run ------------------------------------------------------------------------------------------------------------


@app.command()
def run(
    matrix: Annotated[Path, typer.Argument(help="A matrix file, such as configs/quickstart.yaml.")],
    overrides: Overrides = None,
    root: Root = RUNS,
    plugin: Plugins = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cells and their cost; train nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Take a changed plan under the same name.")] = False,
    track: Annotated[bool, typer.Option(help="Feed MLflow while running; `ditbench sync` does it later.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the table at the end.")] = False,
) -> None:
    """Run every cell of a matrix; run it again to go on where it stopped.

    Example: ditbench run configs/quickstart.yaml train.steps=200 name=short
    """
    from dataclasses import replace

    from bench.config import load as config
    from bench.run.manifest import commit
    from bench.run.plan import plan
    from bench.store import provenance
    from bench.store.folders import Store

    loaded = config.load(matrix, overrides)
    loaded = replace(loaded, plugins=[*loaded.plugins, *map(str, plugin or [])])
    store = Store(root.resolve())
    with _progress(quiet) as progress:
        planned = plan(loaded, store, command=provenance.command(), progress=progress)
    console = _console()
    for warning in planned.warnings:
        console.print(f"[bold]warning[/bold]: {warning}", markup=True, highlight=False)
    if not quiet:
        console.print(_plan_table(planned))
    if dry_run:
        return
    commit(planned, store, fresh=fresh)
    states = _run_with_display(planned, store, quiet=quiet, track=track)
    _finish(loaded.name, store, track)
    bad = [one for one in states if one.status != "done"]
    sys.exit(1 if bad else 0)


def _run_with_display(planned: Any, store: Store, *, quiet: bool, track: bool) -> list[CellState]:
    import torch

    from bench.run.executors import Local
    from bench.run.loop import run as run_cells

    executor = Local(planned.matrix.run.jobs, gpus=torch.cuda.device_count())
    sync = _sync_quietly(store, planned.matrix.name) if track else lambda: None
    console = _console()
    if quiet or not console.is_terminal:
        say: Callable[[str], None] = (lambda text: None) if quiet else _say_line
        show = (lambda states: None) if quiet else _Ticker(say)
        return run_cells(planned, store, executor=executor, say=say, show=show, sync=sync)
    from rich.live import Live

    with Live(console=console, refresh_per_second=2, transient=True) as live:
        return run_cells(
            planned,
            store,
            executor=executor,
            say=lambda text: console.print(text, markup=False, highlight=False),
            show=lambda states: live.update(_state_table(states)),
            sync=sync,
        )


class _Ticker:
    """In a log: a plain line on each running cell, at most every half minute."""

    def __init__(self, say: Callable[[str], None], every: float = 30.0) -> None:
        import time

        self.say, self.every, self.clock, self.last = say, every, time.monotonic, time.monotonic()

    def __call__(self, states: list[CellState]) -> None:
        if self.clock() - self.last < self.every:
            return
        self.last = self.clock()
        for one in states:
            if one.status == "running":
                self.say("  " + " ".join([one.label, *_cells_of(one)[2:]]))


def _finish(name: str, store: Store, track: bool) -> None:
    from bench.store.table import collect
    from bench.views import report
    from bench.views.text import terminal

    console = _console()
    table = collect(store, name)
    console.print(terminal(table))
    path = report.write_files(table, store.matrix_folder(name) / "report", page=True)
    if track:
        _sync_quietly(store, name)()
    console.print(f"report     {_near(path)}", markup=False, highlight=False)
    where = "" if store.root == RUNS.resolve() else f" --root {_near(store.root)}"
    console.print(f"dashboard  ditbench dashboard {name}{where}", markup=False, highlight=False)


def _sync_quietly(store: Store, name: str) -> Callable[[], None]:
    """Feeds MLflow; a dashboard that cannot be fed is said once and stops no run."""
    said: list[str] = []

    def sync() -> None:
        try:
            from bench.views import mlflow as tracking

            tracking.sync(store, name)
        except Exception as error:  # whatever MLflow raises: the results are on disk
            if str(error) not in said:
                said.append(str(error))
                print(f"ditbench: the dashboard was not fed ({error}); `ditbench sync` does it later", file=sys.stderr)

    return sync


@app.command()
def cell(folder: Annotated[Path, typer.Argument(help="A cell's folder, made by `ditbench run`.")]) -> None:
    """Run one planned cell to its end (what `run` does for each).

    Example: ditbench cell runs/cells/adaln-zero-1a2b3c4d5e6f
    """
    from bench.run.cell import EXITS
    from bench.run.cell import run as run_cell

    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such cell folder")
    sys.exit(EXITS.get(run_cell(folder), 1))


@app.command()
def status(
    name: Name = None,
    root: Root = RUNS,
    as_json: Json = False,
) -> None:
    """Show where a matrix stands.

    Example: ditbench status quickstart --json
    """
    from bench.store.folders import Store

    store = Store(root.resolve())
    matrix = _matrix(store, name)
    rows = [(row, *store.cell(row.cell).status()) for row in store.rows(matrix)]
    if as_json:
        content = [
            {"cell": r.cell, "variant": r.variant, "seed": r.seed, "status": s, "reason": why} for r, s, why in rows
        ]
        print(json.dumps({"matrix": matrix, "cells": content}, indent=2))
        return
    from rich.table import Table

    table = Table("variant", "seed", "status", "cell", "reason", title=matrix)
    for r, s, why in rows:
        table.add_row(r.variant, str(r.seed), s, r.cell, why)
    console = _console()
    console.print(table)
    done = sum(s == "done" for _, s, _ in rows)
    console.print(f"{done} of {len(rows)} cells done")


# --- look -----------------------------------------------------------------------------------------------------------


@app.command()
def report(
    name: Annotated[
        str | None, typer.Argument(help="A matrix, by its name (the last one run if left out), or a record's folder.")
    ] = None,
    root: Root = RUNS,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Of a record: the folder to write into.")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write a matrix's report, one page that holds everything, or that of a committed record.

    Example: ditbench report quickstart --open
    """
    from bench.store.folders import Store
    from bench.store.table import collect
    from bench.views import report as reports
    from bench.views.text import terminal

    if name and (Path(name) / "cells.json").is_file():
        from bench.views.record import load_record

        table, folder = load_record(Path(name)), out or RUNS / "records" / Path(name).resolve().parent.name
        path = reports.write_files(table, folder, page=True, kept=Path(name)).resolve()
    else:
        store = Store(root.resolve())
        matrix = _matrix(store, name)
        table = collect(store, matrix)
        path = reports.write_files(table, store.matrix_folder(matrix) / "report", page=True)
    console = _console()
    console.print(terminal(table))
    console.print(f"report     {_near(path)}", markup=False, highlight=False)
    if open_page:
        typer.launch(path.as_uri())


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A row of the table: a variant, with its axes where there are any.")],
    b: Annotated[str, typer.Argument(help="The row it is compared with.")],
    name: Annotated[
        str | None, typer.Argument(help="A matrix (the last one run if left out), or a record's folder.")
    ] = None,
    root: Root = RUNS,
    metric: Annotated[list[str] | None, typer.Option(help="Only these, such as fid; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Say whether variant A is better than B, metric by metric: better, worse or undecided, and how sure.

    Example: ditbench compare adaln-zero adaln quickstart
    """
    from dataclasses import asdict

    from bench.findings import compare as comparing
    from bench.store.metrics import find

    table = _table(root, name)
    every = comparing.comparable(table, a, b)
    found = comparing.compare(table, a, b, [find(every, one) for one in metric] if metric else every)
    said = comparing.caveats(table, a, b)
    if as_json:
        print(json.dumps({"a": a, "b": b, "metrics": [asdict(one) for one in found], "caveats": said}, indent=2))
        return
    from rich.table import Table

    shown = Table(title=f"{a} against {b}: {table.name}", title_justify="left")
    for k, column in enumerate(comparing.HEADINGS):
        shown.add_column(column.format(a=a, b=b), justify="left" if k in (0, 7) else "right", overflow="fold")
    for row in comparing.lines(found):
        shown.add_row(*row)
    console = _console()
    console.print(shown)
    console.print("Paired by seed; 95 %; Holm's correction over all that is shown.", highlight=False)
    for note in said:
        console.print(f"- {note}", markup=False, highlight=False)


@app.command()
def claims(
    names: Annotated[
        list[str] | None, typer.Argument(help="Matrices or records' folders; every committed record if left out.")
    ] = None,
    root: Root = RUNS,
    records: Annotated[Path, typer.Option(help="Where records are kept.")] = Path("results"),
    as_json: Json = False,
) -> None:
    """Print what became of each claim: supported, contradicted or undecided, with the numbers it rests on.

    Example: ditbench claims
    """
    from dataclasses import asdict

    from bench.findings import claims as claiming

    wanted = names or [str(folder) for folder in claiming.newest(records).values()]
    found = [claiming.decide(_table(root, name)) for name in wanted]
    verdicts = [one for one in found if one is not None]
    if as_json:
        print(json.dumps([asdict(one) for one in verdicts], indent=2))
        return
    if not verdicts:
        raise ValueError(
            f"no claim in {', '.join(names) if names else _near(records.resolve())}; run one: configs/claims/"
        )
    from rich.table import Table

    shown = Table("claim and its tests", "verdict", "evidence", title="Claims", title_justify="left")
    for one in verdicts:
        shown.add_row(f"{one.says} ({one.name})", one.verdict, "\n".join(one.caveats), style="bold")
        for finding in one.findings:
            shown.add_row(f"  {finding.asks}", finding.verdict, finding.evidence)
        shown.add_section()
    _console().print(shown)


def _table(root: Path, name: str | None) -> Table:
    """A matrix's cells from the results directory, or from a record's folder."""
    from bench.store.table import collect

    if name and (Path(name) / "cells.json").is_file():
        from bench.views.record import load_record

        return load_record(Path(name))
    store = _store(root)
    return collect(store, _matrix(store, name))


def _store(root: Path) -> Store:
    from bench.store.folders import Store

    return Store(root.resolve())


@app.command()
def record(
    name: Name = None,
    root: Root = RUNS,
    destination: Annotated[Path, typer.Option(help="Where records are kept.")] = Path("results"),
    allow_dirty: Annotated[bool, typer.Option("--allow-dirty", help="Record although files are uncommitted.")] = False,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Record although cells lack a result.")
    ] = False,
) -> None:
    """Write a matrix's committable record: table, cells, environment, figures.

    Example: ditbench record cifar10
    """
    from bench.store.folders import Store
    from bench.views import record as records

    store = Store(root.resolve())
    path = records.record(
        store,
        _matrix(store, name),
        repository=Path.cwd(),
        destination=destination,
        allow_dirty=allow_dirty,
        allow_partial=allow_partial,
    )
    print(f"record     {_near(path)}")
    if update_readme(Path("README.md"), destination):
        print("README.md  shows it; commit both")


@app.command()
def sample(
    cell: Annotated[
        str | None,
        typer.Argument(
            help="A cell: its folder, its id, or MATRIX/VARIANT; with --all a matrix; none with --published.",
            autocompletion=_places,
        ),
    ] = None,
    prompts: Annotated[list[str] | None, typer.Argument(help="Captions, or class names or numbers.")] = None,
    root: Root = RUNS,
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG to write.")] = Path("sample.png"),
    everything: Annotated[bool, typer.Option("--all", help="Every variant of a matrix, a row each.")] = False,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Pictures of each prompt.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the sampler; the cell's own if left out.")] = None,
    guidance: Annotated[float | None, typer.Option(help="The cell's own if left out.")] = None,
    published: Annotated[str | None, typer.Option(help="Draw with a published system's weights, such as dit.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Its weights: a safetensors file, or a folder of them.")] = None,
    features: Annotated[Path | None, typer.Option(help="Its encoded prompts, a safetensors file.")] = None,
    vae: Annotated[Path | None, typer.Option(help="A local AutoencoderKL; without it, latents are saved.")] = None,
    latent: Annotated[int, typer.Option(min=1, help="Latents a side, with --published.")] = 32,
    set_size: Annotated[list[str] | None, typer.Option("--size", help="A size of it as key=value.")] = None,
    plugin: Plugins = None,
) -> None:
    """Draw pictures from a trained cell, or with --all from every variant of a matrix, with the same noise.

    Example: ditbench sample --published dit --weights DiT-XL-2-256.safetensors 207 360

    Example: ditbench sample quickstart "a small red ring at the top left, night" --all
    """
    from bench.config.load import pairs
    from bench.store.files import write_atomic
    from bench.store.folders import Store
    from bench.views.sample import cells as samples
    from bench.views.sample.published import PublishedRequest, sample_published

    _load(plugin)
    texts = prompts or []
    warn = lambda text: print(f"ditbench: {text}", file=sys.stderr)  # noqa: E731
    if published is not None:
        if weights is None:
            raise ValueError("--published needs --weights FILE, a safetensors file")
        asked = PublishedRequest([text for text in (cell, *texts) if text is not None], features, (latent, latent), vae)
        how = samples.SampleSettings(count, seed, steps, guidance, warn=warn)
        print(sample_published(published, weights, pairs(set_size or []), asked, how, out))
        return
    if cell is None or not texts:
        raise typer.BadParameter("name a cell and at least one prompt, or give --published")
    store = Store(root.resolve())
    with _progress(False) as progress:
        how = samples.SampleSettings(count, seed, steps, guidance, progress, warn)
        if everything:
            if len(texts) > 1:
                raise ValueError("--all draws one prompt, a row a variant; give one")
            picture = samples.sample_variants(_first_seeds(store, _matrix(store, cell)), texts[0], how)
        else:
            picture = samples.sample_prompts(_cell(store, cell), texts, how)
    write_atomic(out, picture)
    print(out)


def _first_seeds(store: Store, matrix: str) -> dict[str, CellFolder]:
    """The first cell of each row of a matrix's table."""
    from bench.store.folders import name_of

    found: dict[str, CellFolder] = {}
    for row in store.rows(matrix):
        found.setdefault(name_of(row), store.cell(row.cell))
    return found


@app.command()
def doctor(root: Root = RUNS, as_json: Json = False) -> None:
    """Look whether this machine can run a benchmark: Python, torch, GPU, extractor, store, disk, clock, plugins.

    Example: ditbench doctor
    """
    from dataclasses import asdict

    from bench.cli import doctor as doctors
    from bench.store.folders import Store

    findings = list(doctors.examine(Store(root.resolve())))
    if as_json:
        print(json.dumps([asdict(one) for one in findings], indent=2))
    else:
        from rich.table import Table
        from rich.text import Text

        styles = {"ok": "green", "note": "yellow", "bad": "bold red"}
        table = Table("item", "", "what was found", "what to do")
        for one in findings:
            table.add_row(one.item, Text(one.state, styles[one.state]), Text(one.words), Text(one.remedy))
        _console().print(table)
    sys.exit(any(one.state == "bad" for one in findings))


@app.command()
def sync(
    name: Name = None,
    root: Root = RUNS,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make the experiment anew from the results.")] = False,
) -> None:
    """Feed MLflow from the results directory (all matrices if none is named).

    Example: ditbench sync quickstart --rebuild
    """
    from bench.store.folders import Store
    from bench.views import mlflow as tracking

    store = Store(root.resolve())
    for matrix in [_matrix(store, name)] if name else store.matrices():
        print(f"{matrix}: {tracking.sync(store, matrix, rebuild=rebuild)}")


@app.command()
def dashboard(
    name: Name = None,
    root: Root = RUNS,
    host: Annotated[
        str, typer.Option(help="Other than loopback exposes everything logged to that network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve MLflow on this machine and print the address of the experiment.

    Example: ditbench dashboard quickstart --open
    """
    from bench.store.folders import Store
    from bench.views import dashboard as dashboards

    store = Store(root.resolve())
    show = typer.launch if open_page else lambda url: None
    dashboards.run(store, _matrix(store, name), host=host, port=port, show=show)


# --- schemes --------------------------------------------------------------------------------------------------------


@app.command()
def schemes(plugin: Plugins = None, as_json: Json = False) -> None:
    """List the conditioning schemes, plugins included.

    Example: ditbench schemes --plugin my_gate.py
    """
    import architectures

    _load(plugin)
    found = {name: architectures.origin(name) for name in architectures.schemes()}
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for name, origin in found.items():
        print(name if origin["kind"] == "built-in" else f"{name}  ({origin['kind']} {origin['name']})")


@app.command()
def describe(
    scheme: Annotated[
        str | None, typer.Argument(help="A scheme, see `ditbench schemes`; none with --all.", autocompletion=_schemes)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Compare what every scheme costs.")] = False,
    beginning: Annotated[
        bool,
        typer.Option("--beginning", help="Show how it begins to learn: identity, gradients of gates and branches."),
    ] = False,
    backbone: Annotated[str, typer.Option(help="What it stands on: DiT-XS/2 to DiT-XL/2, any patch.")] = "DiT-B/2",
    image_size: Annotated[int, typer.Option(help="Pixels, or latents, a side.")] = 32,
    tokens: Annotated[int, typer.Option(help="Prompt tokens of 768 channels; 0: a class label of 1000.")] = 64,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Print a scheme's equations, facts, options and cost; with --all, what each scheme would cost.

    Example: ditbench describe adaln-zero --backbone DiT-S/2

    Example: ditbench describe --all --backbone DiT-B/2
    """
    import inspect

    import architectures
    from bench.config.schema import Backbone, Data
    from bench.config.spec import CellConfig
    from bench.measure import cost

    _load(plugin)
    if everything == (scheme is not None):
        raise typer.BadParameter("name one scheme, or give --all")
    names = architectures.schemes() if everything else [scheme]
    if beginning:
        _console().print(_beginnings([name for name in names if name]))
        return
    prompt = architectures.Features(768, 768, tokens) if tokens else architectures.Labels(1000)

    def counted(name: str) -> dict[str, float]:
        config = CellConfig(name, backbone=Backbone(name=backbone), data=Data(image_size=image_size))
        return cost.count(config, prompt)

    costs = {name: counted(name) for name in names if name}
    if as_json:
        found = {"backbone": backbone, "image_size": image_size, "tokens": tokens, "schemes": costs}
        print(json.dumps(found, indent=2))
        return
    console = _console()
    from rich.table import Column, Table

    what = f"{backbone}, {image_size} px, {f'{tokens} prompt tokens' if tokens else 'a class label'}"
    split = Table(
        "scheme", *(Column(name, justify="right") for name in ("parameters", "modulation", "share", "prompt", "GMAC")),
        title=f"Cost on {what}", title_justify="left",
    )  # fmt: skip
    for name, one in costs.items():
        total, steered = one["parameters_total"], one["parameters_modulation"]
        millions = [f"{total / 1e6:,.2f} M", f"{steered / 1e6:,.2f} M", f"{100 * steered / total:.1f} %"]
        split.add_row(name, *millions, f"{one['parameters_prompt'] / 1e6:,.2f} M", f"{one['macs_forward'] / 1e9:,.3f}")
    if everything:
        console.print(split)
        return
    assert scheme is not None
    told = architectures.describe(scheme)
    console.print(f"[bold]{told.name}[/bold]\n", highlight=False)
    console.print(inspect.cleandoc(told.equations) + "\n", markup=False, highlight=False)
    for field in ("source", "vector", "prompt", "identity_at_init", "modulation_parameters"):
        console.print(f"{field.replace('_', ' '):22} {getattr(told.facts, field)}", markup=False, highlight=False)
    console.print(f"{'origin':22} {' '.join(told.origin.values())}", markup=False, highlight=False)
    for system, (modulation, total) in architectures.shares(scheme).items():
        said = f"{total / 1e6:,.2f} M parameters, {100 * modulation / total:.2f} % modulation"
        console.print(f"{'as published':22} {system}: {said}", markup=False, highlight=False)
    console.print()
    table = Table("option", "default", "choices", "what it decides", title="Options", title_justify="left")
    for name, option in told.options.items():
        table.add_row(name, str(option.default), " | ".join(option.choices) or option.kind.__name__, option.says)
    console.print(table if told.options else "no options")
    console.print(split)


def _beginnings(names: list[str]) -> Any:
    """How schemes begin: with an output layer that is drawn (a block as analysed alone), and with the real one."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    import architectures

    tables = []
    for live, what in (
        (True, "Output layer drawn: a block as analysed alone"),
        (False, "The network: its output layer begins at zero"),
    ):
        shown = Table(title=what, title_justify="left")
        for k, column in enumerate(
            ("scheme", *(f"{part}, step {step}" for step in range(3) for part in ("identity", "gates", "branches")))
        ):
            shown.add_column(column, justify="left" if k == 0 else "right")
        for name in names:
            told = architectures.beginning(name, live=live)
            shown.add_row(
                name,
                *(
                    text
                    for one in told
                    for text in ("yes" if one.identity else "no", _size(one.gates), _size(one.branches))
                ),
            )
        tables.append(shown)
    said = (
        "Norms of gradients in float64 under plain gradient descent; `gates` of the gates' vectors, `branches` of the "
        "weights behind them; - where a scheme has none."
    )
    return Group(*tables, Text(said))


def _size(norm: float | None) -> str:
    return "-" if norm is None else "0" if norm == 0 else f"{norm:.1e}"


@app.command()
def check(
    scheme: Scheme,
    options: Annotated[list[str] | None, typer.Argument(help="Its options as key=value, such as gate=one.")] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Hold a scheme to the laws that every scheme obeys, in seconds on a CPU; exit code 1 if it breaks one.

    Example: ditbench check my-gate --plugin my_gate.py
    """
    from dataclasses import asdict

    import architectures
    from bench.config.load import pairs

    _load(plugin)
    chosen = pairs(options or [])
    verdicts = []
    with _progress(as_json) as progress:
        for verdict in architectures.check(scheme, chosen):
            verdicts.append(verdict)
            progress(f"check {scheme}", len(verdicts), len(architectures.LAWS))
    if as_json:
        found = {"scheme": scheme, "origin": architectures.origin(scheme), "options": chosen}
        print(json.dumps(found | {"laws": [asdict(verdict) for verdict in verdicts]}, indent=2))
    else:
        _console().print(_check_table(scheme, verdicts))
    sys.exit(any(verdict.outcome != "holds" for verdict in verdicts))


def _check_table(scheme: str, verdicts: list[Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    styles = {"holds": "green", "broken": "bold red", "not tried": "dim"}
    table = Table("law", "", "what it says", "what was seen", title=f"{scheme} against the laws", title_justify="left")
    for one in verdicts:
        table.add_row(one.law, Text(one.outcome, styles[one.outcome]), one.says, Text(one.words))
    broken = [one.law for one in verdicts if one.outcome != "holds"]
    seconds = sum(one.seconds for one in verdicts)
    last = f"{len(verdicts) - len(broken)} of {len(verdicts)} laws hold ({seconds:.1f} s)"
    return Group(table, Text(last + (f"; not: {', '.join(broken)}" if broken else "")))


@app.command("new-scheme")
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

    folder = package or Path()
    for path in scaffold.new_scheme(name, folder, package=package is not None):
        print(f"wrote  {_near(path)}")
    if package is not None:
        print(f"next   pip install -e {folder} && ditbench check {name}")
    else:
        file = name.replace("-", "_") + ".py"
        print(f"next   ditbench check {name} --plugin {file}")


# --- helpers --------------------------------------------------------------------------------------------------------


def _load(plugins: list[Path] | None) -> None:
    import architectures

    for path in plugins or []:
        architectures.load_plugin(path)


def _matrix(store: Store, name: str | None) -> str:
    """The matrix meant: by its name, or by its file's; the last one run if none is named."""

    known = store.matrices()
    if not known:
        raise ValueError(f"no matrix was run in {_near(store.root)}; start with: ditbench run configs/quickstart.yaml")
    if name is None:
        return known[0]
    wanted = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    if wanted not in known:
        from architectures import nearest

        hint = nearest(wanted, known)
        raise ValueError(f"no matrix {name!r} in {_near(store.root)} (matrices: {', '.join(known)}){hint}")
    return wanted


def _cell(store: Store, text: str) -> CellFolder:
    from bench.store.folders import CellFolder

    if (Path(text) / "config.json").is_file():
        return CellFolder(Path(text).resolve())
    matrix, slash, variant = text.partition("/")
    if slash and matrix in store.matrices():
        rows = [row for row in store.rows(matrix) if row.variant == variant]
        if rows:
            return store.cell(rows[0].cell)
        names = sorted({row.variant for row in store.rows(matrix)})
        raise ValueError(f"matrix {matrix!r} has no variant {variant!r} (variants: {', '.join(names)})")
    ids = sorted(path.parent.name for path in (store.root / "cells").glob("*/config.json"))
    found = [id for id in ids if id.startswith(text)]
    if len(found) == 1:
        return store.cell(found[0])
    which = f"several cells begin so: {', '.join(found)}" if found else f"cells: {', '.join(ids) or 'none'}"
    raise ValueError(f"no cell {text!r} in {_near(store.root)}; {which}")


def _near(path: Path) -> str:
    """A path as short as it can be written from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _console() -> Any:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def _say_line(text: str) -> None:
    print(text, flush=True)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each piece of work that is announced; on a terminal alone."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield tell


def _plan_table(planned: Any) -> Any:
    from rich.table import Table

    matrix = planned.matrix
    table = Table(
        title=f"{matrix.name}: {len(planned.cells)} cells of {matrix.train.steps:,} steps", title_justify="left"
    )
    matched = any(one.budget for one in planned.cells)
    columns = ("cell", "parameters", "modulation", "prompt path", "GMAC a picture", "training PFLOP")
    for column in (*columns, f"equal {matrix.budget.match}") if matched else columns:
        table.add_column(column, justify="left" if column == "cell" else "right")
    for one in planned.cells:
        if one.reason:
            table.add_row(one.label, one.reason)
            continue
        cost, train = one.cost, one.spec.config.train
        table.add_row(
            one.label,
            f"{cost['parameters_total'] / 1e6:.2f} M",
            f"{cost['parameters_modulation'] / cost['parameters_total']:.1%}",
            f"{cost['parameters_prompt'] / cost['parameters_total']:.1%}",
            f"{cost['macs_forward'] / 1e9:.3f}",
            f"{cost['flops_train_per_image'] * train.batch * train.steps / 1e15:.3f}",
            *([one.budget] if matched else []),
        )
    return table


def _state_table(states: list[CellState]) -> Any:
    from rich.table import Table

    table = Table()
    for column in ("cell", "status", "step", "loss", "images/s", "time left"):
        table.add_column(column, justify="left" if column in ("cell", "status") else "right")
    for one in states:
        table.add_row(*_cells_of(one))
    return table


def _cells_of(one: CellState) -> list[str]:
    left = "" if one.left is None else f"{int(one.left // 60)}:{int(one.left % 60):02d}"
    return [
        one.label,
        one.status,
        one.stage or f"{one.step:,}/{one.steps:,}",
        "" if one.loss is None else f"loss {one.loss:.4f}",
        "" if one.rate is None else f"{one.rate:,.0f} images/s",
        left and f"{left} left",
    ]
