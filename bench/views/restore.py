"""Cells out of a committed record, in a results directory again: a run of their matrix finds them done.

A record keeps results and the curves of its figures, no checkpoint, no log and no samples of single cells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import Timeout

from bench.config.spec import write_spec
from bench.findings.coverage import ENDED
from bench.findings.origins import by_its_id
from bench.store.files import write_atomic
from bench.store.folders import CellFolder, Store
from bench.store.journal import write_restored
from bench.store.result import Result
from bench.store.table import CellRecord, Table
from bench.views.records import DamagedRecord, file_of, load_record

AT_ONCE = 16  # cells: each waits four times for the disk, which takes many waits together
DIGESTS = ("data", "prompts", "code", "plugin")  # of a cell's plan


@dataclass(frozen=True)
class Restored:
    """What came of restoring a record.

    Attributes:
        table: of the record.
        name: that its cells are marked with, `<matrix>/<date>-<hardware>-<commit>`.
        written: number of cells that were restored.
        there: of those whose folder held something already, which stays as it is.
        without: of those that have no result in the record.
    """

    table: Table
    name: str
    written: int
    there: int
    without: int


def restore(folder: Path, store: Store, progress: Callable[[str, int, int], None] = lambda *_: None) -> Restored:
    """Writes the folder of each cell that a record holds as done or diverged, marked as restored from it.

    The whole record is verified before anything is written. A cell of which more than a plan is there is left as it is.

    Raises:
        DamagedRecord: naming the file, if the record or a result in it cannot be believed.
        ValueError: if a name of a cell is no name of a folder.
        DiskError: if a cell cannot be written.
    """
    table = load_record(folder, strict=True)
    for cell in table.done:
        assert cell.result is not None
        if not by_its_id(cell.result):
            raise DamagedRecord(
                f"{file_of(folder)}: config and digests of cell {cell.row.cell} are not those that its id is made of; "
                "`git checkout` restores a committed one"
            )
    place = folder.resolve()
    name = f"{place.parent.name}/{place.name}"
    ended = [(store.cell(cell.row.cell), cell) for cell in table.cells if cell.status in ENDED]
    written = 0
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for k, wrote in enumerate(pool.map(lambda one: _restored(one[0], one[1], name), ended), 1):
            written += wrote
            progress("restore cells", k, len(ended))
    finally:
        pool.shutdown(cancel_futures=True)
    return Restored(table, name, written, len(ended) - written, len(table.cells) - len(ended))


def _restored(folder: CellFolder, cell: CellRecord, name: str) -> bool:
    """Writes a cell's folder; False if a process works in it, or it holds more than a plan."""
    try:
        with folder.locked():
            if any(path.exists() for path in (folder.result_file, folder.state_file, folder.checkpoints)):
                return False
            _write(folder, cell, name)
    except Timeout:
        return False
    return True


def _write(folder: CellFolder, cell: CellRecord, name: str) -> None:
    """The result comes after what it is shown with: without it a cell is as if it were only planned."""
    result = cell.result and _marked(cell.result, name)
    provenance: dict[str, Any] = result.provenance if result else {"restored": name}
    origin, ended = str(provenance["restored"]), float(provenance.get("ended", time.time()))
    write_atomic(folder.log, f"restored from the record {origin}\n", durable=False)
    write_restored(folder.journal, cell.curves, when=ended, text=origin)
    if result:
        digests = {key: provenance["digests"].get(key, "") for key in DIGESTS}
        order = {"digests": digests, "plugins": [], "workers": 0, "command": str(provenance.get("command", ""))}
        write_spec(folder, result.config, order | {"devices": provenance.get("devices", 1), "images": "host"})
        result.write(folder.result_file)
    times = {key: provenance[key] for key in ("started", "ended") if key in provenance}
    attempt = int(provenance.get("attempts", 1))
    folder.write_state(cell.status, cell.reason, attempt=attempt, restored=origin, **times)


def _marked(result: Result, name: str) -> Result:
    """The result with the record that it is from; one that was restored before keeps the first."""
    return replace(result, provenance={"restored": name} | result.provenance)
