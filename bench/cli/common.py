"""What the commands share: types of their arguments, what a name on the command line means, and where text goes."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.errors import EXTRAS
from bench.cli.screen import Screen, console, say, warn

if TYPE_CHECKING:
    from rich.progress import TaskID

    from bench.store.folders import CellFolder, Store
    from bench.store.table import Table
    from bench.views.grid import Grid

__all__ = ["console", "say", "warn"]  # and all that is below
RUNS = Path("runs")
RECORDS = Path("results")
STYLES = {"holds": "green", "broken": "bold red", "not tried": "dim"}  # of what came of a law
Progress = Callable[[str, int, int], None]  # what, done, total


# --- completion in the shell ----------------------------------------------------------------------------------------


def complete_scheme(incomplete: str) -> list[str]:
    """Names of schemes with this beginning."""
    from architectures import schemes

    return [name for name in schemes() if name.startswith(incomplete)]


def complete_matrix(context: typer.Context, incomplete: str) -> list[str]:
    """Matrices, and after a slash their variants."""
    store = open_store(Path(context.params.get("root") or RUNS))
    names = store.matrices()
    matrix, slash, _ = incomplete.partition("/")
    if slash and matrix in names:
        names = [
            f"{matrix}/{variant}"
            for variant in dict.fromkeys(one for row in store.rows(matrix) for one in (row.variant, row.name))
        ]
    return [name for name in names if name.startswith(incomplete)]


# --- arguments ------------------------------------------------------------------------------------------------------

Root = Annotated[Path, typer.Option(envvar="DITBENCH_ROOT", help="The results directory.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes as key=value, such as train.steps=100.")]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", envvar="DITBENCH_PLUGINS", help="A Python file of schemes and tasks; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in a browser.")]
Records = Annotated[Path, typer.Option(help="Where records are kept.")]
Name = Annotated[
    str | None,
    typer.Argument(help="A matrix, by its name; the last one run if left out.", autocompletion=complete_matrix),
]
NameOrRecord = Annotated[
    str | None,
    typer.Argument(
        help="A matrix, by its name (the last one run if left out), or a record, by its folder or name.",
        autocompletion=complete_matrix,
    ),
]
Scheme = Annotated[str, typer.Argument(help="A scheme, see `ditbench schemes`.", autocompletion=complete_scheme)]


# --- names ----------------------------------------------------------------------------------------------------------


def open_store(root: Path) -> Store:
    """The results directory."""
    from bench.store.folders import Store

    return Store(root.resolve())


def load_plugins(paths: list[Path] | None) -> None:
    """Registers the schemes of Python files."""
    import architectures

    for path in paths or []:
        architectures.load_plugin(path)


def chosen_matrix(store: Store, name: str | None) -> str:
    """The matrix meant: by its name, or by its file's; the last one run if none is named.

    Raises:
        ValueError: if there is none, or none of that name, with the nearest.
    """
    known = store.matrices()
    if not known:
        raise ValueError(f"no matrix was run in {near(store.root)}; start with: ditbench run configs/quickstart.yaml")
    if name is None:
        return known[0]
    requested = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    if requested not in known:
        from architectures import nearest

        hint = nearest(requested, known)
        raise ValueError(f"no matrix {name!r} in {near(store.root)} (matrices: {', '.join(known)}){hint}")
    return requested


def is_record(name: str | None) -> bool:
    """Whether a name is the folder of a committed record."""
    from bench.views import records

    return name is not None and records.is_record(Path(name))


def record_folder(place: Path, records: Path = RECORDS, there: Sequence[str] = (), said: str = "") -> Path:
    """The folder of a record: itself, or the newest below a matrix's folder of records, as `results/quickstart`.

    Args:
        place: a record's folder, a matrix's folder of records, or the name of one below `records`.
        records: where records are kept.
        there: other names that were possible.
        said: what is missing, before the records that are there; that there is no such record, if left out.

    Raises:
        ValueError: if there is none, with the choices and the nearest.
    """
    from architectures import nearest
    from bench.views.records import newest_records

    if is_record(str(place)):
        return place
    where = place if place.is_dir() else records / place
    newest = newest_records(where.parent).get(where.name)
    if newest is None:
        names = list(newest_records(records))
        listed = f" (records in {records}: {', '.join(names) or 'none'})"
        hint = nearest(place, [*there, *(str(records / name) for name in names), *names], listed)
        raise ValueError(f"{said or f'no record {str(place)!r}'}{hint}")
    return newest


def chosen_record(store: Store, name: str | None, records: Path = RECORDS) -> Path | None:
    """The record meant; None if it is a matrix that was run. Of one name, what was run is meant.

    Raises:
        ValueError: if a name is neither, with the choices and the nearest.
    """
    if name is None or is_record(name):
        return Path(name) if name else None
    known = store.matrices()
    if (Path(name).stem if name.endswith((".yaml", ".yml")) else name) in known:
        return None
    matrices = f"no matrix {name!r} in {near(store.root)} (matrices: {', '.join(known) or 'none'})"
    found = record_folder(Path(name), records, known, f"{matrices}, and no record of that name")
    if "/" not in name:
        warn(f"no matrix {name!r} was run in {near(store.root)}; its record is read: {near(found)}")
    return found


def chosen_table(root: Path, name: str | None, records: Path = RECORDS) -> Table:
    """A matrix's cells from the results directory, or from a record."""
    store = open_store(root)
    if (folder := chosen_record(store, name, records)) is not None:
        from bench.views.records import load_record

        return load_record(folder)
    from bench.store.table import collect

    return collect(store, chosen_matrix(store, name))


def chosen_cell(store: Store, text: str) -> CellFolder:
    """The cell meant: a folder, MATRIX/VARIANT or MATRIX/ROW, or the beginning of an id.

    Raises:
        ValueError: if there is none or more than one, with the choices.
    """
    from architectures import nearest
    from bench.store.folders import CellFolder

    if (Path(text) / "config.json").is_file():
        return CellFolder(Path(text).resolve())
    matrix, slash, variant = text.partition("/")
    if slash and matrix in store.matrices():
        rows = store.rows(matrix)
        found = next((row for row in rows if variant in (row.name, row.variant)), None)
        if found is not None:
            return store.cell(found.cell)
        names = list(dict.fromkeys(row.name for row in rows))
        raise ValueError(
            f"matrix {matrix!r} has no row {variant!r} (rows: {', '.join(names)}){nearest(variant, names)}"
        )
    ids = sorted(path.parent.name for path in (store.root / "cells").glob("*/config.json"))
    matching = [id for id in ids if id.startswith(text)]
    if len(matching) == 1:
        return store.cell(matching[0])
    which = f"several cells match: {', '.join(matching)}" if matching else f"cells: {', '.join(ids) or 'none'}"
    raise ValueError(f"no cell {text!r} in {near(store.root)}; {which}")


def near(path: Path) -> str:
    """A path as short as it can be written from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):  # not below it, or the working directory was deleted meanwhile
        return str(path)


def in_root(store: Store) -> str:
    """The option of a command that names a results directory; none for the usual one."""
    return "" if store.root == RUNS.resolve() else f" --root {shlex.quote(near(store.root))}"


def with_root(command: str, store: Store) -> str:
    """A command as it was typed, with this results directory in the place of its own."""
    return re.sub(r"\s--root[= ]\s*('[^']*'|\S+)", "", command) + in_root(store)


# --- output ---------------------------------------------------------------------------------------------------------


def law_grid(title: str, rows: Iterable[tuple[str, str, str, str]]) -> Grid:
    """Laws as a table: law, what came of it (`holds`, `broken`, `not tried`), what it says, what was observed."""
    from bench.views.grid import Grid

    listed = [list(one) for one in rows]
    styles = {(k, 1): STYLES[one[1]] for k, one in enumerate(listed)}
    return Grid(["law", "", "what it checks", "observed"], listed, title, frozenset(range(4)), styles=styles)


def wrote(files: Iterable[Path], check: str, folder: Path | None) -> None:
    """What was written, and what to type next.

    Args:
        files: that were written.
        check: the command that checks what they define.
        folder: of an installable package; None of files here.
    """
    for path in files:
        say(f"wrote  {near(path)}")
    say(f"next   pip install -e {folder} && {check}" if folder is not None else f"next   {check}")


def missing_extra(error: ModuleNotFoundError) -> str:
    """Which extra of ditbench brings the module that is missing.

    Raises:
        ModuleNotFoundError: the same, if none does: a mistake of ours, not of the user.
    """
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        raise error
    return f"{module} is not installed: pip install 'ditbench[{EXTRAS[module]}]'"


@contextmanager
def progress_bars(quiet: bool = False) -> Iterator[Progress]:
    """A bar for each piece of work that is announced; on a terminal alone."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.progress import Progress as Bars

    with Bars(console=Screen(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield update


def open_in_browser(url: str) -> None:
    """Opens an address that was printed; where there is no browser, says so."""
    import webbrowser

    try:
        opened = webbrowser.open(url)
    except Exception:  # whatever the desktop raises
        opened = False
    if not opened:
        warn("no browser could be opened here; open the address yourself")
