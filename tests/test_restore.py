"""A matrix that is continued from a record: cells come back as they were, and what they cost stays theirs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cells import DONE, cells_do
from tiny import ditbench, matrix_file, planned

from bench.cli.common import with_root
from bench.config.schema import as_dict
from bench.findings import compare, coverage, origins
from bench.findings.analysis import Analysis, analyse
from bench.run.executors import Local
from bench.run.loop import run
from bench.run.manifest import commit
from bench.run.plan import Plan, PlannedCell
from bench.store.files import write_atomic
from bench.store.folders import CellFolder, Store
from bench.store.journal import Journal, curves, read_journal
from bench.store.result import Result
from bench.store.table import collect
from bench.views import record as recording
from bench.views import report
from bench.views.records import DamagedRecord, load_record
from bench.views.restore import restore

__all__ = ["cells_do"]
HERE, THERE = "AMD EPYC 7B13", "Intel Xeon 8481C"
RATE, MEMORY, KID = "train_images_per_second", "train_peak_resident_bytes", "kid_efficientnet_lite0_400"
SCHEMES = ["adaln-zero", "in-context"]


def measured(store: Store, cell: PlannedCell, *, cpu: str = HERE, commit: str = "a" * 40, ended: float = 1.7e9) -> None:
    """Has a planned cell done, by numbers that depend on its place in the matrix and the rate on the machine too."""
    folder, spec = store.cell(cell.row.cell), cell.spec
    level = 0.2 + 0.01 * cell.row.seed + 0.1 * SCHEMES.index(cell.row.scheme)
    journal = Journal(folder.journal)
    for step in (4, 8, 12):
        journal.metrics(step, {"loss": level + 1 / step, "grad_norm": 1.0, "lr": 1e-3})
    journal.close()
    provenance = {
        "commit": commit,
        "dirty": False,
        "command": "ditbench run tiny.yaml",
        "hardware": {"device": "cpu", "cpu": cpu, "cores": 2, "memory_bytes": 2**34},
        "versions": {"torch": "2.14"},
        "seeds": {"train": cell.row.seed, "evaluate": 0},
        "digests": spec.digests | {"initial_backbone_weights": f"w{cell.row.seed}"},
        "measured": {"extractor": "efficientnet-lite0"},
        "scheme": {"name": cell.row.scheme, "origin": {"kind": "built-in"}},
        "attempts": 1,
        "started": ended - 60,
        "ended": ended,
    }
    cost = {RATE: 100.0 - 10 * (cpu == THERE) - cell.row.seed, MEMORY: 1e9, "parameters_total": 2e6}
    artifacts = {"checkpoint": {"path": "none", "sha256": "0" * 64, "bytes": 0}}
    result = Result(folder.id, {KID: level, "heldout_loss": level}, cost, as_dict(spec.config), provenance, artifacts)
    result.write(folder.result_file)
    folder.log.write_text("done\n")
    folder.write_state("done", attempt=1, started=ended - 60, ended=ended)


@pytest.fixture(scope="module", autouse=True)
def plan_of_four_seeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Planned once: what data and models it needs takes seconds."""
    folder = tmp_path_factory.mktemp("planned")
    WHOLE.append(planned(folder, variants=SCHEMES, seeds=[0, 1, 2, 3])[0])
    yield
    WHOLE.clear()


WHOLE: list[Plan] = []


def matrix(folder: Path, seeds: Sequence[int] = (0, 1)) -> tuple[Plan, Store]:
    """The matrix of these seeds, planned in `folder/runs`; nothing of it is trained."""
    cells = [cell for cell in WHOLE[0].cells if cell.row.seed in seeds]
    plan = replace(WHOLE[0], matrix=replace(WHOLE[0].matrix, seeds=list(seeds)), cells=cells)
    store = Store(folder / "runs")
    commit(plan, store)
    return plan, store


def recorded(plan: Plan, store: Store, results: Path, **how: Any) -> Path:
    return recording.record(store, plan.matrix.name, repository=results.parent, destination=results, **how)


@pytest.fixture
def first(tmp_path: Path) -> tuple[Plan, Store, Path]:
    """A matrix of two schemes and two seeds that was measured whole elsewhere, and its record."""
    plan, store = matrix(tmp_path / "elsewhere")
    for cell in plan.cells:
        measured(store, cell)
    return plan, store, recorded(plan, store, tmp_path / "results")


def numbers(one: Analysis) -> Any:
    """All that a report says in numbers."""
    rows = [(row.name, row.by_seed, row.seeds) for row in one.rows]
    verdicts = {name: [(d.metric, d.gap, d.p, d.verdict) for d in every] for name, every in one.verdicts.items()}
    return rows, verdicts, one.bold, [(s.what, s.verdict) for s in one.fairness]


def test_a_record_that_is_restored_gives_the_report_that_it_was_made_of(
    first: tuple[Plan, Store, Path], tmp_path: Path
) -> None:
    _, before, folder = first
    _, store = matrix(tmp_path / "here")  # planned, but not trained: a plan alone is filled in
    done = restore(folder, store)
    assert (done.written, done.there, done.without) == (4, 0, 0)
    old, new = (analyse(collect(one, "tiny")) for one in (before, store))
    np.testing.assert_equal(numbers(new), numbers(old))
    kept = analyse(load_record(folder))
    assert [cell.curves for cell in new.table.cells] == [cell.curves for cell in kept.table.cells]
    for cell in new.table.cells:
        assert cell.result is not None
        name = f"tiny/{folder.name}"
        assert cell.result.provenance["restored"] == name and cell.result.provenance["hardware"]["cpu"] == HERE
        assert store.cell(cell.row.cell).state()["restored"] == name
        assert next(read_journal(store.cell(cell.row.cell).journal))["event"] == "restored"
    page = report.write_files(new, tmp_path / "report")
    assert not (page.parent / "samples.png").exists()
    assert "No samples of restored cells were kept." in (page.parent / "report.md").read_text()


def test_a_run_trains_only_what_the_record_lacks(
    first: tuple[Plan, Store, Path], tmp_path: Path, cells_do: Callable[[str], None]
) -> None:
    plan, store = matrix(tmp_path / "here", seeds=(0, 1, 2))
    restore(first[2], store)
    before = {cell.row.cell: store.cell(cell.row.cell).result_file.read_bytes() for cell in first[0].cells}
    cells_do(DONE)
    lines: list[str] = []
    states = run(plan, store, executor=Local(2), say=lines.append, poll=0.05)
    assert {state.status for state in states} == {"done"}
    assert "4 of 6 cells are done already" in lines
    started = sorted(line.rpartition("(")[2].rstrip(")") for line in lines if "starts" in line)
    assert started == sorted(cell.row.cell for cell in plan.cells if cell.row.seed == 2)
    assert all(store.cell(id).result_file.read_bytes() == data for id, data in before.items())


def test_what_is_there_is_never_overwritten(first: tuple[Plan, Store, Path], tmp_path: Path) -> None:
    plan, store = matrix(tmp_path / "here")
    own, half, held = plan.cells[:3]
    measured(store, own, cpu=THERE)
    store.cell(half.row.cell).write_state("killed", "stopped", attempt=1)
    mine = store.cell(own.row.cell).result_file.read_bytes()
    with store.cell(held.row.cell).locked():
        done = restore(first[2], store)
    assert (done.written, done.there) == (1, 3)
    assert store.cell(own.row.cell).result_file.read_bytes() == mine
    assert store.cell(half.row.cell).status() == ("killed", "stopped") and not store.cell(held.row.cell).result()
    again = restore(first[2], store)
    assert (again.written, again.there) == (1, 3), "the one that was held"
    assert restore(first[2], store).written == 0


def test_a_restore_that_was_killed_is_taken_up(
    first: tuple[Plan, Store, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "here" / "runs")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as at_once, pytest.raises(KeyboardInterrupt):
        at_once.setattr(Result, "write", killed)
        restore(first[2], store)
    assert {store.cell(cell.row.cell).status()[0] for cell in first[0].cells} == {"planned"}
    assert restore(first[2], store).written == 4


def test_a_cell_that_diverged_comes_back_with_its_reason(tmp_path: Path) -> None:
    plan, store = matrix(tmp_path / "elsewhere")
    for cell in plan.cells[1:]:
        measured(store, cell)
    lost = store.cell(plan.cells[0].row.cell)
    journal = Journal(lost.journal)
    journal.metrics(4, {"loss": 9.0})
    journal.close()
    lost.write_state("diverged", "the loss is nan at step 8")
    there = Store(tmp_path / "here" / "runs")
    assert restore(recorded(plan, store, tmp_path / "results"), there).written == 4
    assert there.cell(lost.id).status() == ("diverged", "the loss is nan at step 8")
    assert curves(there.cell(lost.id).journal) == {"loss": {4: 9.0}}


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((folder / "cells.json").read_text())
    change(content)
    (folder / "cells.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["cells"][3]["result"].pop("quality"), "its result is damaged"),
        (lambda c: c["cells"][3]["result"]["quality"].update({KID: "good"}), "no number"),
        (lambda c: c["cells"][3].update(result=None), "done, and without a result"),
        (lambda c: c["cells"][3].pop("curves"), "no 'curves'"),
        (lambda c: c["cells"][3]["result"]["config"]["train"].update(lr=1.0), "not those that its id is made of"),
        (lambda c: c["cells"][3]["result"]["provenance"].pop("digests"), "not those that its id is made of"),
        (lambda c: c["cells"][3]["row"].update(cell="../../x"), "it is of cell"),
        (lambda c: c.pop("manifest"), "no 'manifest'"),
    ],
)
def test_a_damaged_record_is_one_sentence_and_nothing_is_written(
    first: tuple[Plan, Store, Path], tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    folder, store = first[2], Store(tmp_path / "here" / "runs")
    edited(folder, change)
    with pytest.raises(DamagedRecord, match=said) as error:
        restore(folder, store)
    assert str(folder / "cells.json") in str(error.value) and "\n" not in str(error.value)
    assert not store.root.exists()


def test_a_record_that_is_no_json_is_named(first: tuple[Plan, Store, Path], tmp_path: Path) -> None:
    file = first[2] / "cells.json"
    file.write_text(file.read_text()[:-100])
    with pytest.raises(DamagedRecord, match="cells.json"):
        restore(first[2], Store(tmp_path / "here"))


# --- two machines, two commits ----------------------------------------------------------------------------------------


@pytest.fixture
def continued(first: tuple[Plan, Store, Path], tmp_path: Path) -> tuple[Plan, Store]:
    """Seeds 0 and 1 of a record, seeds 2 and 3 measured here, on another machine, at a later commit."""
    plan, store = matrix(tmp_path / "here", seeds=(0, 1, 2, 3))
    restore(first[2], store)
    for cell in plan.cells:
        if cell.row.seed > 1:
            measured(store, cell, cpu=THERE, commit="b" * 40, ended=1.75e9)
    return plan, store


def test_a_record_of_two_commits_says_both(continued: tuple[Plan, Store], tmp_path: Path) -> None:
    folder = recorded(*continued, tmp_path / "results")
    assert folder.name == "20250615-cpu2-xeon-bbbbbbbb", "of the cell that ended last"
    about = json.loads((folder / "environment.json").read_text())
    assert about["commit"] == "b" * 40 and about["commits"] == ["a" * 40, "b" * 40]
    assert [(one["hardware"]["cpu"], one["cells"]) for one in about["machines"]] == [(HERE, 4), (THERE, 4)]
    assert about["machines"][0]["restored"].startswith("tiny/20231114-cpu2-epyc-aaaaaaaa")
    text = (folder / "report.md").read_text()
    assert f"Measured apart: 4 cells (seeds 0, 1; adaln-zero, in-context) on {HERE}, restored from tiny/" in text
    assert "a" * 40 in text and "b" * 40 in text
    assert restore(folder, Store(tmp_path / "third")).written == 8
    names = {
        one.result.provenance["restored"] for one in load_record(folder).done if "restored" in one.result.provenance
    }  # type: ignore[union-attr]
    assert len(names) == 1, "the first record stays the origin"


def test_a_record_that_would_have_the_name_of_one_it_holds_is_numbered(
    first: tuple[Plan, Store, Path], tmp_path: Path
) -> None:
    plan, store = matrix(tmp_path / "here", seeds=(0, 1, 2))
    restore(first[2], store)
    for cell in plan.cells:
        if cell.row.seed == 2:
            measured(store, cell)
    assert recorded(plan, store, tmp_path / "results").name == f"{first[2].name}-2"


def test_cells_whose_ids_do_not_show_their_code_are_refused(continued: tuple[Plan, Store], tmp_path: Path) -> None:
    plan, store = continued
    folder = store.cell(plan.cells[-1].row.cell)
    result = folder.result()
    assert result is not None
    digests = result.provenance["digests"] | {"code": "0" * 16}
    replace(result, provenance=result.provenance | {"digests": digests}).write(folder.result_file)
    assert not origins.same_code(collect(store, "tiny"))
    with pytest.raises(ValueError, match=r"different commits \(aaaaaaaa, bbbbbbbb\)"):
        recorded(plan, store, tmp_path / "results")


def test_costs_are_compared_where_every_seed_was_measured_in_one_place(continued: tuple[Plan, Store]) -> None:
    plan, store = continued
    paired = {one.metric: one for one in compare.compare(collect(store, "tiny"), "in-context", "adaln-zero")}
    assert paired[RATE].why == "no difference" and paired[MEMORY].why == "no difference"
    assert paired[KID].seeds == (0, 1, 2, 3) and paired[KID].verdict == "worse"
    table = collect(store, "tiny")
    assert origins.origins(table.cells, same=origins.same_code(table)) == [
        "measured at different commits: aaaaaaaa, bbbbbbbb, at which the code that makes numbers is the same",
        f"measured on different machines: {HERE}, {THERE}; costs are compared within one alone",
        "restored from a record in part; rates and times are compared within a run alone",
    ]
    measured(store, next(cell for cell in plan.cells if cell.row.seed == 0), cpu=THERE)  # of one row alone
    apart = {one.metric: one for one in compare.compare(collect(store, "tiny"), "in-context", "adaln-zero")}
    assert apart[RATE].why == compare.APART and apart[MEMORY].why == compare.MACHINES
    assert apart[KID].verdict == "worse", "quality is pooled"


def test_a_rate_of_this_machine_is_not_compared_with_one_of_a_record(
    first: tuple[Plan, Store, Path], tmp_path: Path
) -> None:
    """Also where the machine has the same name and the command is the same."""
    plan, store = matrix(tmp_path / "here")
    for cell in plan.cells:
        if cell.row.scheme == "in-context":
            measured(store, cell)
    assert restore(first[2], store).written == 2
    found = {one.metric: one for one in compare.compare(collect(store, "tiny"), "in-context", "adaln-zero")}
    assert found[RATE].why == compare.APART and not found[MEMORY].why.startswith("measured on")


# --- what is not there ------------------------------------------------------------------------------------------------


def partial(tmp_path: Path) -> tuple[Plan, Store]:
    """Seeds 0 and 1 whole, of seed 2 one cell of two, of seed 3 none."""
    plan, store = matrix(tmp_path / "here", seeds=(0, 1, 2, 3))
    for cell in plan.cells:
        if cell.row.seed < 2 or (cell.row.seed == 2 and cell.row.scheme == "adaln-zero"):
            measured(store, cell)
    return plan, store


def test_a_partial_record_says_first_what_is_missing(tmp_path: Path) -> None:
    plan, store = partial(tmp_path)
    with pytest.raises(ValueError, match="3 of 8 cells of 'tiny' lack a result"):
        recorded(plan, store, tmp_path / "results")
    folder = recorded(plan, store, tmp_path / "results", allow_partial=True)
    said = "5 of 8 cells done: seeds 0, 1 are whole; seed 2 has 1 of 2 cells; 2 cells of seed 3 were not run. Means and"
    assert said in "".join((folder / "report.md").read_text().splitlines()[:4])
    assert restore(folder, Store(tmp_path / "third")).without == 3
    assert coverage.coverage(load_record(folder)) == coverage.coverage(collect(store, "tiny"))


def test_a_record_of_whole_seeds_is_a_matrix_of_those(tmp_path: Path) -> None:
    plan, store = partial(tmp_path)
    folder = recorded(plan, store, tmp_path / "results", whole_seeds=True)
    table = load_record(folder)
    assert {cell.row.seed for cell in table.cells} == {0, 1} and table.manifest["config"]["seeds"] == [0, 1]
    said = "4 of 4 cells done: seeds 2, 3 were planned too and were left out (1 of 4 cells had ended)."
    assert said in (folder / "report.md").read_text()
    assert [row.complete for row in analyse(table).rows] == [True, True]
    for cell in plan.cells[:2]:
        store.cell(cell.row.cell).result_file.unlink()
    with pytest.raises(ValueError, match="no seed of 'tiny' is whole"):
        coverage.whole_seeds(replace(collect(store, "tiny"), cells=collect(store, "tiny").cells[:2]))


def test_the_command_restores_and_says_what_is_next(first: tuple[Plan, Store, Path], tmp_path: Path) -> None:
    done = ditbench("restore", "tiny", "--root", "new", cwd=tmp_path, code=0)
    assert f"restored   4 of 4 cells of tiny/{first[2].name} into new" in done.stdout
    assert "next       test --root new  (" in done.stdout
    done = ditbench("restore", "results/tiny", "--root", "new", cwd=tmp_path, code=0)
    assert "4 were there already" in done.stdout
    file = matrix_file(tmp_path, variants=SCHEMES, seeds=[0, 1, 2])
    done = ditbench("run", str(file), "--dry-run", "--root", "new", cwd=tmp_path, code=0)
    assert "4 of 6 cells are done; 2 are left to train" in done.stdout
    (first[2] / "cells.json").write_text("{")
    done = ditbench("restore", str(first[2]), "--root", "new", cwd=tmp_path, code=2)
    assert "cells.json" in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("root", ["", " --root suite", " --root=suite", " --root '/a b/suite'"])
def test_the_next_command_is_of_the_directory_that_was_restored_into(tmp_path: Path, root: str) -> None:
    """It named the directory of the machine that the record was made on."""
    found = with_root(f"ditbench run tiny.yaml{root} --plugin p.py", Store(tmp_path / "here"))
    assert found == f"ditbench run tiny.yaml --plugin p.py --root {tmp_path / 'here'}"


def test_threads_that_write_files_keep_the_mask_of_the_process(tmp_path: Path) -> None:
    """It can only be read by setting it, and two threads that did left it at 0."""
    before, interval = os.umask(0o022), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            written = pool.map(lambda k: write_atomic(tmp_path / str(k), "x", durable=False), range(2000))
            assert sum(one is None for one in written) == 2000
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}
        assert os.umask(0o022) == 0o022
    finally:
        sys.setswitchinterval(interval)
        os.umask(before)


def test_a_folder_of_a_restored_cell_is_one_of_a_cell(first: tuple[Plan, Store, Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "here" / "runs")
    restore(first[2], store)
    folder: CellFolder = store.cell(first[0].cells[0].row.cell)
    assert folder.outcome()[1] == "" and folder.log.read_text() == f"restored from the record tiny/{first[2].name}\n"
    assert json.loads(folder.config.read_text()) == as_dict(first[0].cells[0].spec.config)
