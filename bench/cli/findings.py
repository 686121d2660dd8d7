"""Commands that read results: `report`, `compare`, `claims`, `record`."""

from __future__ import annotations

import json
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
)

if TYPE_CHECKING:
    from rich.table import Table

    from bench.findings.claims import ClaimVerdict


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
    screen = console()
    screen.print(terminal(analysis))
    screen.print(f"report     {near(path)}", markup=False, highlight=False)
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
    from rich.table import Table

    shown = Table(title=f"{a} against {b}: {table.name}", title_justify="left")
    for k, column in enumerate(comparing.HEADINGS):
        shown.add_column(column.format(a=a, b=b), justify="left" if k in (0, 7) else "right", overflow="fold")
    for row in comparing.lines(results):
        shown.add_row(*row)
    screen = console()
    screen.print(shown)
    screen.print("Paired by seed; 95 %; Holm's correction over all that is shown.", highlight=False)
    for note in caveats:
        screen.print(f"- {note}", markup=False, highlight=False)


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

    requested = names or [str(folder) for folder in newest_records(records).values()]
    decided = [claiming.decide(chosen_table(root, name)) for name in requested]
    verdicts = [verdict for verdict in decided if verdict is not None]
    if as_json:
        print(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
        return
    if not verdicts:
        where = ", ".join(names) if names else near(records.resolve())
        raise ValueError(f"no claim in {where}; run one: configs/claims/")
    console().print(_claims_table(verdicts))


def _claims_table(verdicts: list[ClaimVerdict]) -> Table:
    from rich.table import Table

    shown = Table("claim and its tests", "verdict", "evidence", title="Claims", title_justify="left")
    for one in verdicts:
        shown.add_row(f"{one.says} ({one.name})", one.verdict, "\n".join(one.caveats), style="bold")
        for test in one.tests:
            shown.add_row(f"  {test.text}", test.verdict, test.evidence)
        shown.add_section()
    return shown


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
    print(f"record     {near(path)}")
    if update_readme(Path("README.md"), destination):
        print("README.md  shows it, beside results/CLAIMS.md; commit all")
