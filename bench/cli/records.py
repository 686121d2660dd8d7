"""Commands on committed records: `record` and its inverse, `restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.common import (
    RUNS,
    Name,
    Records,
    Root,
    chosen_matrix,
    near,
    open_store,
    progress_bars,
    record_folder,
    say,
    with_root,
)


def record(
    name: Name = None,
    root: Root = RUNS,
    destination: Records = Path("results"),
    allow_dirty: Annotated[bool, typer.Option("--allow-dirty", help="Record although files are uncommitted.")] = False,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Record although cells lack a result.")
    ] = False,
    whole_seeds: Annotated[
        bool,
        typer.Option("--whole-seeds", help="Record the seeds of which every cell ended, and leave out the others."),
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
        whole_seeds=whole_seeds,
    )
    say(f"record     {near(path)}")
    if update_readme(Path("README.md"), destination):
        say("README.md  shows it, beside results/CLAIMS.md; commit all")


def restore(
    record: Annotated[Path, typer.Argument(help="A record's folder, or a matrix of which the newest is taken.")],
    root: Root = RUNS,
) -> None:
    """Put the cells of a record into the results directory, so that a run trains only the others.

    Example: ditbench restore results/tasks
    """
    from bench.views.restore import restore as restore_cells

    folder, store = record_folder(record), open_store(root)
    with progress_bars() as progress:
        found = restore_cells(folder, store, progress)
    say(f"restored   {found.written:,} of {len(found.table.cells):,} cells of {found.name} into {near(store.root)}")
    if found.there:
        say(f"           {found.there:,} were there already and are left as they are")
    if found.without:
        say(f"           {found.without:,} have no result in the record")
    command = with_root(found.table.manifest["command"], store)
    say(f"next       {command}  (--dry-run shows how many of its cells are left)")
