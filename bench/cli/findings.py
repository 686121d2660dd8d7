"""Commands that read results: `report`, `compare`, `claims`, `record`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import (
    RUNS,
    Json,
    Name,
    NameOrRecord,
    Open,
    Records,
    Root,
    chosen_matrix,
    chosen_table,
    console,
    is_record,
    near,
    open_store,
    say,
    warn,
)

if TYPE_CHECKING:
    from bench.findings.claims import ClaimVerdict
    from bench.store.table import Table
    from bench.views.grid import Grid


def report(
    name: NameOrRecord = None,
    root: Root = RUNS,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Of a record: the folder to write into.")] = None,
    open_page: Open = False,
) -> None:
    """Write a matrix's report, one page that holds everything, or that of a committed record.

    Example: ditbench report quickstart --open
    """
    from bench.findings.analysis import analyse
    from bench.views import report as reports
    from bench.views.text import terminal

    if name and is_record(name):
        analysis = analyse(chosen_table(root, name))
        folder = out or RUNS / "records" / Path(name).resolve().parent.name
        path = reports.write_files(analysis, folder, kept=Path(name)).resolve()
    else:
        store = open_store(root)
        matrix = chosen_matrix(store, name)
        analysis = analyse(chosen_table(root, matrix))
        path = reports.write_files(analysis, store.matrix_folder(matrix) / "report")
    console().print(terminal(analysis))
    say(f"report     {near(path)}")
    if open_page:
        typer.launch(path.as_uri())


def compare(
    a: Annotated[str, typer.Argument(help="A row of the table: a variant, with its axes where there are any.")],
    b: Annotated[str, typer.Argument(help="The row it is compared with.")],
    name: NameOrRecord = None,
    root: Root = RUNS,
    metric: Annotated[list[str] | None, typer.Option(help="Only these, such as fid; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Decide whether variant A is better than B, metric by metric: better, worse or undecided, and how sure.

    Example: ditbench compare adaln-zero adaln quickstart
    """
    from bench.findings import compare as comparing
    from bench.store.metrics import find

    table = chosen_table(root, name)
    every = comparing.comparable(table, a, b)
    results = comparing.compare(table, a, b, [find(every, one) for one in metric] if metric else every)
    caveats = comparing.caveats(table, a, b)
    if as_json:
        print(json.dumps({"a": a, "b": b, "metrics": [asdict(one) for one in results], "caveats": caveats}, indent=2))
        return
    from bench.views.grid import Grid

    headings = [heading.format(a=a, b=b) for heading in comparing.HEADINGS]
    rows = [list(row) for row in comparing.lines(results)]
    screen = console()
    screen.print(Grid(headings, rows, f"{a} against {b}: {table.name}", frozenset({0, 7})))
    screen.print("Paired by seed; 95 %; Holm's correction over all that is shown.")
    for note in caveats:
        screen.print(f"- {note}")


def claims(
    names: Annotated[
        list[str] | None, typer.Argument(help="Matrices or records' folders; every committed record if left out.")
    ] = None,
    root: Root = RUNS,
    records: Records = Path("results"),
    as_json: Json = False,
) -> None:
    """Print the verdict on each claim: supported, contradicted or undecided, with the numbers it rests on.

    Example: ditbench claims
    """
    from bench.findings import claims as claiming
    from bench.views.records import newest_records

    tables = [chosen_table(root, name) for name in names] if names else _whole(newest_records(records).values())
    decided = [claiming.decide(table) for table in tables]
    verdicts = [verdict for verdict in decided if verdict is not None]
    if as_json:
        print(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
        return
    if not verdicts:
        where = ", ".join(names) if names else near(records.resolve())
        raise ValueError(f"no claim in {where}; run one: configs/claims/")
    console().print(_claims_grid(verdicts))


def _whole(folders: Iterable[Path]) -> list[Table]:
    """The tables of records; one that is damaged is named, and hides no other."""
    from bench.views.records import DamagedRecord, load_record

    tables = []
    for folder in folders:
        try:
            tables.append(load_record(folder))
        except DamagedRecord as error:
            warn(f"left out: {error}")
    return tables


def _claims_grid(verdicts: list[ClaimVerdict]) -> Grid:
    from bench.views.grid import Grid

    rows: list[list[str]] = []
    styles: dict[tuple[int, int], str] = {}
    for one in verdicts:
        styles |= {(len(rows), k): "bold" for k in range(3)}
        rows.append([f"{one.says} ({one.name})", one.verdict, "\n".join(one.caveats)])
        rows += [[f"  {test.text}", test.verdict, test.evidence] for test in one.tests]
    return Grid(["claim and its tests", "verdict", "evidence"], rows, "Claims", frozenset(range(3)), styles=styles)


def record(
    name: Name = None,
    root: Root = RUNS,
    destination: Records = Path("results"),
    allow_dirty: Annotated[bool, typer.Option("--allow-dirty", help="Record although files are uncommitted.")] = False,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Record although cells lack a result.")
    ] = False,
) -> None:
    """Write a matrix's committable record: table, cells, environment, figures.

    Example: ditbench record cifar10
    """
    from bench.views import record as records
    from bench.views.readme import update_readme

    store = open_store(root)
    path = records.record(
        store,
        chosen_matrix(store, name),
        repository=Path.cwd(),
        destination=destination,
        allow_dirty=allow_dirty,
        allow_partial=allow_partial,
    )
    say(f"record     {near(path)}")
    if update_readme(Path("README.md"), destination):
        say("README.md  shows it, beside results/CLAIMS.md; commit all")
