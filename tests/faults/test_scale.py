"""Many finished cells: `status` and `report` read each result once, and their work grows as the cells do."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from kit import counted
from many import many_cells

from bench.cli import run, screen
from bench.findings.analysis import analyse
from bench.store.folders import Store
from bench.store.result import Result
from bench.store.table import collect
from bench.views import report
from bench.views.figures import catalogue
from bench.views.text import terminal


def reads(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that results are read from, from now on."""
    paths: list[Path] = []
    read = Result.read.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(
        Result, "read", classmethod(lambda cls, path, cell=None: (paths.append(path), read(cls, path, cell))[1])
    )
    return paths


def test_each_result_is_read_once_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table read and hashed every result twice."""
    store = many_cells(tmp_path, 20)
    paths = reads(store, monkeypatch)
    collect(store, "many")
    assert len(paths) == len(set(paths)) == 20
    run.status("many", tmp_path)
    assert len(paths) == 40


@pytest.mark.faults
def test_figures_of_many_rows_show_the_first_and_say_so(tmp_path: Path) -> None:
    """Hundreds of lines cannot be read, and took minutes; the baseline is always among them."""
    analysis = analyse(collect(many_cells(tmp_path, 60, seeds=1), "many"))
    notes: list[str] = []
    figures = catalogue.plot_all(analysis, note=notes.append)
    assert notes == [
        f"Figures show the first {catalogue.MOST_ROWS - 1} of 60 rows, the baseline among them; tables show all."
    ]
    assert max(len({row["variant"] for row in one.data if "variant" in row}) for one in figures) < catalogue.MOST_ROWS


@pytest.mark.faults
@pytest.mark.parametrize("view", ["status", "report"])
def test_a_view_s_work_grows_as_the_cells_do(view: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are counted, of 100 and of 400 cells, for a time says how busy a machine is: fourfold, and a fifth more."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))

    def seen(cells: int) -> int:
        root = tmp_path / str(cells)
        store = many_cells(root, cells)

        with counted() as made:
            if view == "status":
                run.status("many", root)
            else:
                analysis = analyse(collect(store, "many"))
                report.write_files(analysis, root / "report")
                screen.console().print(terminal(analysis))
        return made[0]

    seen(20)  # what is imported and cached is there
    few, many = seen(100), seen(400)
    assert few > 0 and many < 4.8 * few
