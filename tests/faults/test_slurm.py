"""Cells as jobs of a queue: submitit's own executor of this machine in SLURM's place, and real cells."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from cells import planned as empty
from kit import assert_same
from tiny import planned, run_all

from bench.config.schema import ConfigError
from bench.run.executor import Ended
from bench.run.loop import run
from bench.run.needs import Needs
from bench.store.folders import CellFolder, Store

pytest.importorskip("submitit")
from bench.run.on_slurm import CellJob, OnSlurm, Process, queue

LONG: dict[str, Any] = {"train__steps": 600, "train__checkpoint_every": 10, "sample__grid_every": 600}


def local(store: Store, **more: Any) -> OnSlurm:
    """The queue of this machine."""
    made = queue(store.root / "slurm", Needs(1), None, {"timeout_min": 20, **more}, cluster="local")
    return OnSlurm(made, Needs(1))


class Fake:
    """A job that SLURM reports on."""

    def __init__(self, state: str, result: Any = None, job_id: str = "7_0") -> None:
        self.state, self.given, self.job_id = state, result, job_id

    def done(self) -> bool:
        return self.state not in ("PENDING", "RUNNING")

    def result(self) -> Any:
        if self.given is None:
            raise RuntimeError("no result")
        return self.given

    def stderr(self) -> str:
        return "Traceback\nModuleNotFoundError: No module named 'bench'\n"


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        ("NODE_FAIL", Ended(-9, lost="its job 7_0 ended with NODE_FAIL")),
        ("PREEMPTED", Ended(-9, lost="its job 7_0 ended with PREEMPTED")),
        ("TIMEOUT", Ended(-9, lost="its job 7_0 ended with TIMEOUT")),
        ("CANCELLED by 1000", Ended(-15)),
        ("OUT_OF_MEMORY", Ended(1, "ditbench: SLURM ended job 7_0 for its memory; run.memory reserves more")),
        ("FAILED", Ended(1, "ditbench: job 7_0 ended with FAILED: ModuleNotFoundError: No module named 'bench'")),
    ],
)
def test_how_a_job_ended_says_whether_its_cell_is_tried_again(tmp_path: Path, state: str, ended: Ended) -> None:
    assert Process(CellFolder(tmp_path), Fake(state)).ended() == ended


def test_what_a_guard_reports_is_believed_before_slurm(tmp_path: Path) -> None:
    job = Fake("COMPLETED", {"code": 3, "tail": "x", "lost": ""})
    assert Process(CellFolder(tmp_path), job).ended() == Ended(3, "x")


def test_a_job_waits_in_the_queue_until_its_cell_has_written(tmp_path: Path) -> None:
    folder = CellFolder(tmp_path)
    process = Process(folder, Fake("PENDING"))
    assert process.alive() and process.place
    process.job.state = "RUNNING"
    assert process.alive() and process.place, "its node still starts"
    folder.write_state("running", attempt=1)
    assert process.alive() and not process.place


def test_all_that_is_left_is_one_array(tmp_path: Path) -> None:
    plan, store = empty(tmp_path, 5)
    sent: list[list[str]] = []

    class Queue:
        def map_array(self, job: CellJob, folders: list[str]) -> list[Fake]:
            sent.append(folders)
            for folder in folders:
                CellFolder(Path(folder)).write_state("failed", "of the test")
            return [Fake("COMPLETED", {"code": 1, "tail": "", "lost": ""}) for _ in folders]

    states = run(plan, store, executor=OnSlurm(Queue(), Needs(1)), say=lambda text: None, poll=0.01)
    assert [len(one) for one in sent] == [5] and [one.status for one in states] == ["failed"] * 5


class Sending:
    """A queue whose jobs are as a test says; a folder a job, in the order of their submission."""

    def __init__(self, *states: str) -> None:
        self.states, self.sent = states, []

    def submit(self, job: CellJob, folder: str) -> Fake:
        return self.map_array(job, [folder])[0]

    def map_array(self, job: CellJob, folders: list[str]) -> list[Fake]:
        self.sent += folders
        return [Fake(self.states[k % len(self.states)]) for k in range(len(folders))]


@pytest.mark.parametrize(
    ("state", "status", "reason"),
    [
        ("FAILED", "failed", "job 7_0 ended with FAILED: ModuleNotFoundError: No module named 'bench'"),
        ("CANCELLED by 1000", "killed", "ended by SIGTERM without a message; run again to resume"),
        ("NODE_FAIL", "killed", "its job 7_0 ended with NODE_FAIL, 6 times; run again to resume"),
    ],
)
def test_a_job_that_ends_before_its_cell_has_written_is_a_row_with_the_reason(
    tmp_path: Path, state: str, status: str, reason: str
) -> None:
    """No module on the node, or `scancel` of a job in the queue: it was submitted for ever, and nothing said."""
    plan, store = empty(tmp_path, 2)
    submit = Sending(state)
    sent = threading.Timer(10, os.kill, (os.getpid(), signal.SIGINT))  # of what never ends
    sent.start()
    states = run(plan, store, executor=OnSlurm(submit, Needs(1)), say=lambda text: None, poll=0)
    sent.cancel()
    assert [(one.status, one.reason) for one in states] == [(status, reason)] * 2
    assert len(submit.sent) == (12 if state == "NODE_FAIL" else 2)


def test_a_job_that_is_queued_again_waits_and_is_not_silent(tmp_path: Path) -> None:
    """At its limit of time it goes back into the queue, for hours: it was ended there as a cell that hangs."""
    folder = CellFolder(tmp_path)
    process = Process(folder, Fake("RUNNING"))
    folder.write_state("running", attempt=1)
    assert process.alive() and not process.place
    process.job.state = "PENDING"
    with folder.locked():
        assert process.alive() and not process.place, "what SLURM says is of before"
    folder.write_state("killed", "stopped by SIGUSR2", attempt=1)
    assert process.alive() and process.place
    process.job.state = "RUNNING"
    assert process.alive() and process.place, "its node still starts"
    folder.write_state("running", attempt=2)
    assert process.alive() and not process.place


def test_ctrl_c_asks_a_job_in_the_queue_for_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitit looks 15 s for the file of each: a hundred cells in the queue took half an hour to end."""
    plan, store = empty(tmp_path, 3)
    asked: list[Any] = []
    monkeypatch.setattr(Fake, "result", lambda self: asked.append(self))
    press = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    press.start()
    states = run(plan, store, executor=OnSlurm(Sending("PENDING"), Needs(1)), say=lambda text: None, poll=0.05)
    assert [one.status for one in states] == ["planned"] * 3 and asked == []


def test_no_slurm_and_an_unknown_parameter_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.executor slurm: .*sbatch|run.executor slurm: .*srun"):
        queue(tmp_path, Needs(1), None, {})
    with pytest.raises(ConfigError, match="slurm_partitoin"):
        queue(tmp_path, Needs(1), None, {"slurm_partitoin": "gpu"}, cluster="local")


@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_job_at_its_limit_of_time_is_queued_again_and_costs_no_number(tmp_path: Path) -> None:
    """The signal that SLURM sends before the limit: the cell writes its checkpoint, the job starts again."""
    (tmp_path / "calm").mkdir()
    made, calm = planned(tmp_path / "calm", **LONG)
    run_all(made, calm)
    plan, store = planned(tmp_path, **LONG)
    cell = store.cell(plan.cells[0].row.cell)
    executor, lines = local(store), []
    limit = threading.Thread(target=at_limit, args=(executor, cell), daemon=True)
    limit.start()
    (state,) = run(plan, store, executor=executor, say=lines.append, poll=0.1)
    assert state.status == "done" and cell.state()["attempt"] == 2, (state, lines, cell.log.read_text())
    assert cell.journal.read_text().count('"resumed"') == 1
    assert_same(cell.result(), calm.cell(cell.id).result())
    assert [line for line in lines if "starts" in line] and len(lines) == 2, "for the launch it was one job"


def at_limit(executor: OnSlurm, cell: CellFolder) -> None:
    """The job's limit of time is near, in the middle of its training."""
    while not (cell.is_locked() and list(cell.checkpoints.glob("*.ckpt"))):
        time.sleep(0.05)
    controller = psutil.Process(executor.running[0].job._process.pid)  # itself would end by the signal
    (task,) = controller.children()
    task.send_signal(signal.SIGUSR2)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_ctrl_c_cancels_jobs_whose_cells_write_their_checkpoints(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, **LONG)
    cell = store.cell(plan.cells[0].row.cell)
    executor, lines = local(store), []

    def press() -> None:
        while not (cell.is_locked() and list(cell.checkpoints.glob("*.ckpt"))):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    (state,) = run(plan, store, executor=executor, say=lines.append, poll=0.1)
    assert state.status == "killed" and not cell.is_locked() and lines[-1].startswith("stopped;")
    assert cell.result() is None and max(cell.checkpoints.glob("*.ckpt")).exists()
