"""Commands about this machine and its dashboard: `sync`, `dashboard`, `doctor`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import (
    RUNS,
    Json,
    Name,
    Open,
    Root,
    chosen_matrix,
    console,
    open_in_browser,
    open_store,
    say,
    warn,
)

if TYPE_CHECKING:
    from bench.cli.doctor import Finding
    from bench.views.grid import Grid


def sync(
    name: Name = None,
    root: Root = RUNS,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Delete our runs in MLflow and write them again.")] = False,
) -> None:
    """Write the results directory to MLflow (all matrices if none is named).

    Example: ditbench sync quickstart --rebuild
    """
    from bench.views.address import TrackingError
    from bench.views.beside import following, wait

    store, failed = open_store(root), []
    with following(store) as follower:
        for matrix in [chosen_matrix(store, name)] if name else store.matrices():
            try:
                follower.ask("sync", name=matrix, rebuild=rebuild)
                answer = wait(follower, say=warn)
            except TrackingError as error:  # the other matrices may be well
                failed.append(matrix)
                warn(f"{matrix}: {error}")
            else:
                assert answer is not None  # there is no limit but that of silence
                for note in answer.notes:
                    warn(f"{matrix}: {note}")
                say(f"{matrix}: {answer.text}")
    if failed:
        sys.exit(2)


def dashboard(
    name: Name = None,
    root: Root = RUNS,
    host: Annotated[
        str, typer.Option(help="Other than loopback exposes everything logged to that network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    open_page: Open = False,
) -> None:
    """Serve MLflow on this machine and print the address of the experiment.

    Example: ditbench dashboard quickstart --open
    """
    from bench.views import dashboard as dashboards

    store = open_store(root)
    show = open_in_browser if open_page else lambda url: None
    dashboards.run(store, chosen_matrix(store, name), host=host, port=port, show=show)


def doctor(root: Root = RUNS, as_json: Json = False) -> None:
    """Check whether this machine can run a benchmark: Python, torch, GPU, extractor, store, disk, clock, plugins.

    Example: ditbench doctor
    """
    from bench.cli.doctor import examine

    findings = list(examine(open_store(root)))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        console().print(_doctor_grid(findings))
    sys.exit(any(finding.state == "bad" for finding in findings))


def _doctor_grid(findings: list[Finding]) -> Grid:
    from bench.views.grid import Grid

    styles = {"ok": "green", "note": "yellow", "bad": "bold red"}
    rows = [[one.item, one.state, one.text, one.remedy] for one in findings]
    coloured = {(k, 1): styles[one.state] for k, one in enumerate(findings)}
    return Grid(["item", "", "observed", "what to do"], rows, words=frozenset(range(4)), styles=coloured)
