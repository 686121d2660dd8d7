"""Damaged files of results, manifests, states, grids and records: named, a row, and never the end of a command."""

from __future__ import annotations

import copy
import gzip
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from many import many_cells
from tiny import ditbench

from bench.findings.analysis import analyse
from bench.store.files import digest
from bench.store.folders import CellFolder, Store
from bench.store.manifests import DamagedManifest
from bench.store.result import DamagedResult, Result
from bench.store.table import collect
from bench.views import records, report
from bench.views.figures import adherence, catalogue
from bench.views.text import terminal

DEEP = "[" * 100_000 + "]" * 100_000
GARBAGE = {
    "empty": b"",
    "cut": b'{"cell": "x", "quality": {"fid',
    "zeros": bytes(4096),
    "no UTF-8": b"\xff\xfe{}",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "deep": DEEP.encode(),
    "huge integer": b'{"schema": ' + b"9" * 5000 + b"}",
    "NaN": b'{"quality": {"fid": NaN}, "checksum": ""}',
    "infinity": b'{"quality": {"fid": 1e999}, "checksum": ""}',
    "HTML": b"<!doctype html>",
}


@pytest.fixture(autouse=True)
def _few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that read files or probes; the others take seconds."""
    kept = [one for one in catalogue.FIGURES if one.file in ("samples.png", "training.png", adherence.SWAP.file)]
    monkeypatch.setattr(catalogue, "FIGURES", kept)


def rewritten(folder: CellFolder, **changes: Any) -> None:
    """The result with other content under a checksum that is right, as another version would write it."""
    content = json.loads(folder.result_file.read_text()) | changes
    content.pop("checksum")
    content = {key: value for key, value in content.items() if value is not ...}
    folder.result_file.write_text(json.dumps(content | {"checksum": digest(content)}))


def views(store: Store) -> str:
    """What status, report and table say of a matrix."""
    table = collect(store, "many")
    analysis = analyse(table)
    terminal(analysis)
    page = report.write_files(analysis, store.matrix_folder("many") / "report")
    return page.read_text() + (page.parent / "report.md").read_text()


@pytest.mark.parametrize("name", GARBAGE)
def test_a_damaged_result_is_a_row_that_names_its_file(tmp_path: Path, name: str) -> None:
    """A NaN in one `result.json` ended status, run, report and sync of the whole matrix, with no file name."""
    store = many_cells(tmp_path, 4, seeds=2)
    folder = store.cell(store.rows("many")[0].cell)
    folder.result_file.write_bytes(GARBAGE[name])
    status, reason = folder.status()
    assert status == "damaged" and str(folder.result_file) in reason and "run the matrix again" in reason
    table = collect(store, "many")
    assert [cell.status for cell in table.cells] == ["damaged", "done", "done", "done"]
    assert analyse(table).rows[0].seeds == "1/2 (1 damaged)"


def test_a_folder_or_a_link_to_nothing_in_the_place_of_a_result_is_a_row(tmp_path: Path) -> None:
    """`IsADirectoryError` and its like passed as tracebacks."""
    store = many_cells(tmp_path, 4, seeds=2)
    first, second = (store.cell(row.cell) for row in store.rows("many")[:2])
    first.result_file.unlink()
    first.result_file.mkdir()
    second.result_file.unlink()
    second.result_file.symlink_to(second.result_file)
    assert first.status()[0] == second.status()[0] == "damaged"
    assert "1/2" not in views(store) and "0/2 (2 damaged)" in views(store)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"schema": "1"},
        {"new_key": 1},
        {"quality": ...},
        {"quality": {"fid_efficientnet_lite0_400": "12"}},
        {"quality": {"fid_efficientnet_lite0_400": True}},
        {"quality": {"fid_efficientnet_lite0_400": 10**400}},
        {"cost": [1, 2]},
        {"sampling": {"fid_efficientnet_lite0_400": [1]}},
        {"provenance": "none"},
        {"provenance": {"digests": []}},
        {"provenance": {"hardware": "a GPU"}},
        {"provenance": {"started": "now"}},
        {"probes": 3},
        {"cell": "another"},
    ],
)
def test_a_result_of_another_version_is_refused_by_name(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Its checksum is right, and its content nothing that a view could read."""
    store = many_cells(tmp_path, 1)
    folder = store.cell(store.rows("many")[0].cell)
    rewritten(folder, **changes)
    with pytest.raises(DamagedResult, match=str(folder.result_file)):
        Result.read(folder.result_file, cell=folder.id)


@pytest.mark.parametrize("provenance", [{}, {"hardware": {}}, {"digests": {}, "seeds": {}}, {"scheme": {"origin": 3}}])
def test_a_report_does_without_what_a_provenance_lacks(tmp_path: Path, provenance: dict[str, Any]) -> None:
    """Keys that an older version did not write are `not recorded`, never a KeyError."""
    store = many_cells(tmp_path, 2, seeds=1)
    rewritten(store.cell(store.rows("many")[0].cell), provenance=provenance)
    assert collect(store, "many").cells[0].status == "done"
    assert "not recorded" in views(store)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every part of a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a tree with another part."""
    if not path:
        return value
    tree = copy.copy(tree)
    tree[path[0]] = replaced(tree[path[0]], path[1:], value)
    return tree


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), value=JSON, signed=st.booleans())
def test_a_result_with_any_part_replaced_is_damaged_and_nothing_else(
    tmp_path: Path, place: int, value: Any, signed: bool
) -> None:
    """Whatever JSON is anywhere in a result, with its old checksum or a new one: a result or `DamagedResult`."""
    store = Store(tmp_path) if (tmp_path / "cells").exists() else many_cells(tmp_path, 2, seeds=1)
    folder = store.cell("variant-0000-000000000000")
    whole = many_cells(tmp_path / "whole", 1).cell(folder.id).result_file
    content = json.loads(whole.read_text())
    changed = replaced(content, places(content)[place % len(places(content))], value)
    if isinstance(changed, dict) and signed:
        body = {key: value for key, value in changed.items() if key != "checksum"}
        with suppress(ValueError):  # not a number: no checksum was ever made of it
            changed = body | {"checksum": digest(body)}
    folder.result_file.write_text(json.dumps(changed))
    with suppress(DamagedResult):
        Result.read(folder.result_file, cell=folder.id)
    table = collect(store, "many")
    report.text(analyse(table), [])


# --- manifests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GARBAGE)
def test_a_damaged_manifest_is_named_with_the_way_out_and_other_matrices_work(tmp_path: Path, name: str) -> None:
    """A manifest cut short ended every command of every matrix with a JSON error."""
    store = many_cells(tmp_path, 2, name="whole")
    path = many_cells(tmp_path, 2, name="many").matrix_folder("many") / "manifest.json"
    path.write_bytes(GARBAGE[name])
    assert set(store.matrices()) == {"many", "whole"} and len(store.rows("whole")) == 2
    with pytest.raises(DamagedManifest, match=r"manifest\.json.*run the matrix file again"):
        store.rows("many")


def test_a_manifest_that_was_edited_is_named(tmp_path: Path) -> None:
    """One that `run` wrote carries a checksum; a number changed in it changes the table."""
    store = many_cells(tmp_path, 2)
    store.write_manifest("many", store.manifest("many"))
    path = store.matrix_folder("many") / "manifest.json"
    path.write_text(path.read_text().replace('"batch": 64', '"batch": 65'))
    with pytest.raises(DamagedManifest, match="its own checksum"):
        collect(store, "many")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10**6), value=JSON)
def test_a_manifest_with_any_part_replaced_is_read_or_named(tmp_path: Path, place: int, value: Any) -> None:
    """Manifests of older versions carry no checksum: what views read of them is checked by its type."""
    store = Store(tmp_path) if (tmp_path / "cells").exists() else many_cells(tmp_path, 2, seeds=1)
    path = store.matrix_folder("many") / "manifest.json"
    whole = path.with_name("whole.json")
    if not whole.exists():
        shutil.copy(path, whole)
    content = json.loads(whole.read_text())
    path.write_text(json.dumps(replaced(content, places(content)[place % len(places(content))], value)))
    try:
        table = collect(store, "many")
    except DamagedManifest:
        return
    report.text(analyse(table), [])


# --- states, configs, grids, records ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GARBAGE)
def test_a_damaged_state_is_no_state(tmp_path: Path, name: str) -> None:
    """`status.json` is what a process last said of itself; without it the cell is planned, with a result it is done."""
    store = many_cells(tmp_path, 2, seeds=1)
    first, second = (store.cell(row.cell) for row in store.rows("many"))
    first.state_file.write_bytes(GARBAGE[name])
    second.state_file.write_bytes(GARBAGE[name])
    second.result_file.unlink()
    assert first.status() == ("done", "") and second.status() == ("planned", "")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00v\x00{'descr'", b"nothing of numpy", None])
def test_a_cut_grid_is_left_out_with_a_note(tmp_path: Path, content: bytes | None) -> None:
    """A sample grid that was cut ended `run` and `report` each time."""
    store = many_cells(tmp_path, 4, seeds=2)
    for row in store.rows("many"):
        samples = store.cell(row.cell).samples
        samples.mkdir()
        for name in ("grid", "step-000000100", "step-000000200", "step-x"):
            np.save(samples / f"{name}.npy", np.zeros((4, 8, 8, 3), np.uint8))
        (samples / "grid.json").write_text('{"prompts": ["a ring"]}')
    whole = views(store)
    assert "samples.png" in whole and "damaged" not in whole
    first = store.cell(store.rows("many")[0].cell).samples
    for name in ("grid", "step-000000100"):
        full = (first / f"{name}.npy").read_bytes()
        (first / f"{name}.npy").write_bytes(full[: len(full) // 2] if content is None else content)
    (first / "grid.json").write_bytes(b"{")
    cut = views(store)
    assert "samples.png" in cut and f"{first.parent.name}/samples/grid.npy is damaged" in cut


def test_a_figure_that_cannot_be_plotted_is_a_note(tmp_path: Path) -> None:
    """Probes of another version would have ended the report."""
    store = many_cells(tmp_path, 2, seeds=1)
    for row in store.rows("many"):
        rewritten(store.cell(row.cell), probes={"swap": 3, "real_swap": "x", "depth": {"gate": [1]}})
    assert "Figure left out: " in views(store)


def record_of(tmp_path: Path) -> Path:
    """A committed record's folder."""
    from bench.views.record import _write

    folder = tmp_path / "results/many/20260101-cpu2-epyc-aaaa"
    folder.mkdir(parents=True)
    _write(collect(many_cells(tmp_path, 2, seeds=1), "many"), folder)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_record_is_named_and_hides_no_other(tmp_path: Path, packed: bool) -> None:
    """Cut anywhere, or with a part replaced: one sentence with the file, in place of whatever its reader met."""
    folder = record_of(tmp_path)
    other = shutil.copytree(folder, folder.with_name("20260102-cpu2-epyc-bbbb"))
    data = (folder / "cells.json").read_bytes()
    if packed:
        (folder / "cells.json").unlink()
        data = gzip.compress(data)
    file = folder / ("cells.json.gz" if packed else "cells.json")
    file.write_bytes(data)
    assert len(records.load_record(folder).done) == 2
    for cut in [*range(0, len(data), max(1, len(data) // 25)), len(data) - 3]:
        file.write_bytes(data[:cut])
        with pytest.raises(records.DamagedRecord, match=file.name):
            records.load_record(folder)
    assert records.newest_records(tmp_path / "results") == {"many": other}


def test_a_cell_of_a_record_with_a_number_that_is_none_is_a_row(tmp_path: Path) -> None:
    """One line of a record edited by hand hides none of the others."""
    folder = record_of(tmp_path)
    text = (folder / "cells.json").read_text()
    (folder / "cells.json").write_text(text.replace('"heldout_loss":0.', '"heldout_loss":NaN,"x":0.', 1))
    assert [cell.status for cell in records.load_record(folder).cells] == ["damaged", "done"]


@pytest.mark.faults
def test_sync_sends_what_is_whole_and_names_the_rest(tmp_path: Path) -> None:
    """A damaged manifest, config and result, each of another cell or matrix: all others are sent."""
    store = many_cells(tmp_path / "runs", 2, seeds=1, name="good")
    (many_cells(tmp_path / "runs", 2, seeds=1, name="bad").matrix_folder("bad") / "manifest.json").write_text("{")
    first, second = (store.cell(row.cell) for row in store.rows("good"))
    first.config.write_text("{")
    second.result_file.write_text("NaN")
    done = ditbench("sync", cwd=tmp_path, code=2, MLFLOW_TRACKING_URI="")
    assert "bad: " in done.stderr and "run the matrix file again" in done.stderr and "good: 2 runs" in done.stdout
