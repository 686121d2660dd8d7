"""Commands that read results: `report`, `compare`, `claims`, `choices`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import (
    RECORDS,
    RUNS,
    Json,
    NameOrRecord,
    Open,
    Records,
    Root,
    chosen_matrix,
    chosen_record,
    chosen_table,
    console,
    near,
    open_in_browser,
    open_store,
    record_folder,
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
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder to write into.")] = None,
    open_page: Open = False,
) -> None:
    """Write a matrix's report, one page that holds everything, or that of a committed record.

    Example: ditbench report quickstart --open
    """
    from bench.findings.analysis import analyse
    from bench.views import report as reports
    from bench.views.text import terminal

    store = open_store(root)
    if (kept := chosen_record(store, name)) is not None:
        analysis = analyse(chosen_table(root, str(kept)))
        folder = out or store.root / "records" / kept.resolve().parent.name
        path = reports.write_files(analysis, folder, kept=kept).resolve()
    else:
        matrix = chosen_matrix(store, name)
        analysis = analyse(chosen_table(root, matrix))
        path = reports.write_files(analysis, out or store.matrix_folder(matrix) / "report").resolve()
    console().print(terminal(analysis))
    say(f"report     {near(path)}")
    if open_page:
        open_in_browser(path.as_uri())


def compare(
    a: Annotated[
        str | None, typer.Argument(help="A row of the table: a variant, with its axes where there are any.")
    ] = None,
    b: Annotated[str | None, typer.Argument(help="The row it is compared with.")] = None,
    name: NameOrRecord = None,
    root: Root = RUNS,
    metric: Annotated[list[str] | None, typer.Option(help="Only these, such as fid; may be repeated.")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="A record: are your numbers its numbers? Instead of two rows.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Decide whether variant A is better than B, metric by metric; or whether your numbers are a record's (--to).

    Example: ditbench compare 'adaln task=bind' 'adaln-zero task=bind' quickstart

    Example: ditbench compare --to results/quickstart quickstart
    """
    if to is not None:
        if b is not None:
            raise ValueError(f"--to compares a whole matrix: name it alone, not {a!r} and {b!r}")
        _compare_to(root, a, to, metric, as_json)
        return
    if a is None or b is None:
        raise ValueError("compare needs two rows of the table, or --to and a record: ditbench compare A B [MATRIX]")
    from bench.findings import compare as comparing
    from bench.store.metrics import find

    table = chosen_table(root, name)
    every = comparing.comparable(table, a, b)
    results = comparing.compare(table, a, b, [find(every, one) for one in metric] if metric else every)
    caveats = comparing.caveats(table, a, b)
    if as_json:
        metrics = [asdict(one) | {"more": one.more} for one in results]
        print(json.dumps({"a": a, "b": b, "metrics": metrics, "caveats": caveats}, indent=2))
        return
    from bench.views.grid import Grid

    headings = [heading.format(a=a, b=b) for heading in comparing.HEADINGS]
    rows = [list(row) for row in comparing.lines(results)]
    screen = console()
    screen.print(Grid(headings, rows, f"{a} against {b}: {table.name}", frozenset({0, 7})))
    how = comparing.how(table)
    screen.print(f"{how[0].upper()}{how[1:]}; 95 %; Holm's correction over all that is shown.")
    for note in caveats:
        screen.print(f"- {note}")


def _compare_to(root: Path, name: str | None, to: Path, metrics: list[str] | None, as_json: bool) -> None:
    """Prints whether the numbers of a matrix lie inside the bands of a record."""
    from bench.findings import bands
    from bench.store.metrics import find
    from bench.views.grid import Grid
    from bench.views.records import load_record

    yours, record = chosen_table(root, name), load_record(record_folder(to))
    known = [key for cell in yours.done if cell.result for key in cell.result.quality | cell.result.cost]
    found = bands.bands(yours, record, [find(known, one) for one in metrics] if metrics else None)
    differing = bands.differing(yours, record)
    if as_json:
        lines = [asdict(one) | {"inside": one.inside} for one in found]
        print(json.dumps({"bands": lines, "differing": differing}, indent=2))
        return
    screen = console()
    title = f"{yours.name} against the record {near(record_folder(to).resolve())}"
    screen.print(Grid(list(bands.HEADINGS), bands.lines(found), title, frozenset({0, 1, 5}), least=12))
    screen.print("All bands together hold at 95 %. Costs are left out: they are a machine's.")
    screen.print(bands.closing(found, differing))


def claims(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Matrices or records, by name or folder; every committed record if left out."),
    ] = None,
    root: Root = RUNS,
    records: Records = RECORDS,
    as_json: Json = False,
) -> None:
    """Print the verdict on each claim: supported, contradicted, equivalent or undecided, with the numbers it rests on.

    Example: ditbench claims
    """
    from bench.findings import claims as claiming
    from bench.views.records import newest_records

    tables = (
        [chosen_table(root, name, records) for name in names] if names else _whole(newest_records(records).values())
    )
    decided = [claiming.decide(table) for table in tables]
    verdicts = [verdict for verdict in decided if verdict is not None]
    if as_json:
        print(json.dumps([asdict(verdict) for verdict in verdicts], indent=2))
        return
    if not verdicts:
        where = ", ".join(names) if names else near(records.resolve())
        raise ValueError(f"no claim in {where}; run one: configs/claims/")
    console().print(_claims_grid(verdicts))


def choices(
    name: NameOrRecord = None,
    root: Root = RUNS,
    write: Annotated[
        Path | None, typer.Option("--write", "-w", help="Write the values to this file, for `tuned:` of a matrix.")
    ] = None,
    one_each: Annotated[
        bool, typer.Option("--one-each", help="One value a variant, the best over all points of the other axes.")
    ] = False,
) -> None:
    """Print the value that each variant chose on the axis a matrix names under `choose`, beside the untuned one.

    Example: ditbench choices rates --one-each --write configs/tuned/rates.yaml
    """
    from bench.findings import ladder
    from bench.findings.tuned import tuned_file
    from bench.findings.words import number
    from bench.views.grid import Grid

    table = chosen_table(root, name)
    words = (["--one-each"] if one_each else []) + ([f"--write {write}"] if write else [])
    text, warnings = tuned_file(table, " ".join(["ditbench choices", table.name, *words]), one_each=one_each)
    rows = [
        [one.name, str(one.value), number(one.means[one.value], 4), str(one.own),
         number(one.means[one.own], 4) if one.own in one.means else "not tried"]
        for one in ladder.choices(table)
    ]  # fmt: skip
    metric = ladder.chosen_by(table).heading
    headings = ["variant", "chosen", metric, "untuned", metric]
    console().print(Grid(headings, rows, f"{table.manifest['config']['choose']}: {table.name}", frozenset({0})))
    for warning in warnings:
        warn(warning)
    if write is not None:
        from bench.store.files import write_atomic

        write.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(write, text)
        say(f"tuned      {near(write.resolve())}")


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
