"""Commands that run cells: `run`, `cell`, `status`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.common import (
    RECORDS,
    RUNS,
    Json,
    Name,
    Overrides,
    Plugins,
    Root,
    chosen_matrix,
    console,
    in_root,
    missing_extra,
    near,
    open_store,
    progress_bars,
    say,
    warn,
)

if TYPE_CHECKING:
    from bench.config.schema import Matrix
    from bench.run.executor import Executor
    from bench.run.loop import CellState
    from bench.run.plan import Plan
    from bench.store.folders import Store
    from bench.views.beside import Beside
    from bench.views.grid import Grid


def run(
    matrix: Annotated[Path, typer.Argument(help="A matrix file, such as configs/quickstart.yaml.")],
    overrides: Overrides = None,
    root: Root = RUNS,
    plugin: Plugins = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cells and their cost; train nothing.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Take a changed plan under the same name.")] = False,
    track: Annotated[bool, typer.Option(help="Write to MLflow while running; `ditbench sync` does it later.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the table at the end.")] = False,
) -> None:
    """Run every cell of a matrix; run it again to resume where it stopped.

    Example: ditbench run configs/quickstart.yaml train.steps=200 name=short
    """
    from bench.cli.planned import recorded_time
    from bench.config import load as config
    from bench.run import placement
    from bench.run.estimate import summary
    from bench.run.manifest import commit

    notes: list[str] = []
    loaded = config.load(matrix, overrides, note=notes.append)
    loaded = replace(loaded, plugins=[*loaded.plugins, *map(str, plugin or [])])
    store = open_store(root)
    if dry_run:
        planned = _planned(loaded, store, notes, quiet=quiet, hours=True)
        left = [one for one in planned.cells if store.cell(one.row.cell).result() is None]
        every = len(planned.cells)
        say(f"{every - len(left):,} of {every:,} cells are done; {len(left):,} are left to train")
        if text := recorded_time(planned.matrix, left, RECORDS):
            console().print(text, soft_wrap=True)
        if text := summary(planned.cells, loaded.run.price_per_gpu_hour):
            console().print(text, soft_wrap=True)
        return
    with closing(placement.opened(loaded, store)) as place:
        planned = _planned(loaded, store, notes, quiet=quiet)
        if otherwise := place.check(planned):
            console().print(f"warning: {otherwise}", style="bold")
        commit(planned, store, fresh=fresh)
        sync = _sync(store, loaded.name) if track else None
        states = _run_with_display(planned, store, place.executor(planned), sync or (lambda: None), quiet=quiet)
    _finish(loaded.name, store, sync)
    sys.exit(any(state.status != "done" for state in states))


def _planned(loaded: Matrix, store: Store, notes: list[str], *, quiet: bool, hours: bool = False) -> Plan:
    """Plans the cells and prints them with their cost, and notes on what the command line takes the place of."""
    from bench.cli.planned import plan_grid
    from bench.run.plan import plan
    from bench.store import provenance

    with progress_bars(quiet) as progress:
        planned = plan(loaded, store, command=provenance.command(), progress=progress)
    out = console()
    for note in notes:
        out.print(f"note: {note}", style="bold")
    for warning in planned.warnings:
        out.print(f"warning: {warning}", style="bold")
    if not quiet:
        out.print(plan_grid(planned, hours=hours))
    return planned


def _run_with_display(
    planned: Plan, store: Store, executor: Executor[Any], sync: Callable[[], None], *, quiet: bool
) -> list[CellState]:
    """Runs the cells: with a live table on a terminal, with plain lines in a log, silently if `quiet`."""
    from bench.run.loop import run as run_cells

    out = console()
    if quiet:
        return run_cells(planned, store, executor=executor, say=lambda text: None, sync=sync)
    if not out.is_terminal:
        return run_cells(planned, store, executor=executor, say=say, show=_Ticker(), sync=sync)
    from rich.live import Live

    with Live(console=out, refresh_per_second=2, transient=True) as live:
        return run_cells(
            planned,
            store,
            executor=executor,
            say=out.print,
            show=lambda states: live.update(_state_grid(states)),
            sync=sync,
        )


class _Ticker:
    """In a log: a plain line on each running cell, at most every half minute."""

    def __init__(self, every: float = 30.0) -> None:
        self.every, self.last = every, time.monotonic()

    def __call__(self, states: list[CellState]) -> None:
        if time.monotonic() - self.last < self.every:
            return
        self.last = time.monotonic()
        for state in states:
            if state.status == "running":
                say("  " + " ".join([state.label, *_state_columns(state)[2:]]))


def _finish(name: str, store: Store, sync: Beside | None) -> None:
    """Prints the table, writes the report where its extra is installed, and names the ways to see more."""
    from bench.findings.analysis import analyse
    from bench.store.table import collect
    from bench.views import report
    from bench.views.text import terminal

    out = console()
    analysis = analyse(collect(store, name))
    out.print(terminal(analysis))
    try:
        path = near(report.write_files(analysis, store.matrix_folder(name) / "report"))
    except ModuleNotFoundError as error:
        path = missing_extra(error)
    if sync is not None:
        sync.finish(say=warn)
    say(f"report     {path}")
    samples = store.matrix_folder(name) / "report" / "samples.png"
    if samples.is_file():
        say(f"samples    {near(samples)}")
    say(f"dashboard  ditbench dashboard {name}{in_root(store)}")


def _sync(store: Store, name: str) -> Beside:
    """Writes to MLflow beside the run, which never waits for it."""
    from bench.views.beside import Beside

    again = f"ditbench sync {name}{in_root(store)}"
    return Beside(store, name, warn=warn, missing=missing_extra, again=again)


def cell(folder: Annotated[Path, typer.Argument(help="A cell's folder, planned by `ditbench run`.")]) -> None:
    """Run one planned cell to its end (what `run` does for each).

    Example: ditbench cell runs/cells/adaln-zero-1a2b3c4d5e6f
    """
    from bench.run.cell import EXITS
    from bench.run.cell import run as run_cell

    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such cell folder")
    sys.exit(EXITS.get(run_cell(folder), 1))


def status(name: Name = None, root: Root = RUNS, as_json: Json = False) -> None:
    """Show the state of every cell of a matrix.

    Example: ditbench status quickstart --json
    """
    store = open_store(root)
    matrix = chosen_matrix(store, name)
    rows = [(row, *store.cell(row.cell).status()) for row in store.rows(matrix)]
    if as_json:
        content = [
            {"cell": row.cell, "row": row.name, "variant": row.variant, "seed": row.seed}
            | {"status": state, "reason": why}
            for row, state, why in rows
        ]
        print(json.dumps({"matrix": matrix, "cells": content}, indent=2))
        return
    from bench.views.grid import Grid

    shown = [[row.name, str(row.seed), state, row.cell, why] for row, state, why in rows]
    out = console()
    out.print(Grid(["variant", "seed", "status", "cell", "reason"], shown, matrix, frozenset({0, 2, 3, 4})))
    out.print(f"{sum(state == 'done' for _, state, _ in rows)} of {len(rows)} cells done")


# --- tables ---------------------------------------------------------------------------------------------------------


def _state_grid(states: list[CellState]) -> Grid:
    from bench.views.grid import Grid

    headings = ["cell", "status", "step", "loss", "images/s", "time left"]
    more = "A wider terminal shows them"
    return Grid(headings, [_state_columns(one) for one in states], words=frozenset({0, 1}), droppable=True, more=more)


def _state_columns(state: CellState) -> list[str]:
    left = "" if state.left is None else f"{int(state.left // 60)}:{int(state.left % 60):02d}"
    return [
        state.label,
        state.status,
        state.stage or f"{state.step:,}/{state.steps:,}",
        "" if state.loss is None else f"loss {state.loss:.4f}",
        "" if state.rate is None else f"{state.rate:,.0f} images/s",
        left and f"{left} left",
    ]
