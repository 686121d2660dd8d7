"""Cells as jobs of a queue: submitit's own executor of this machine in SLURM's place, and real cells."""

from __future__ import annotations

import os
import signal
import sys
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
import submitit
from submitit.core.utils import FailedJobError

from bench.run.on_slurm import CellJob, OnSlurm, Process, queue

LONG: dict[str, Any] = {"train__steps": 600, "train__checkpoint_every": 10, "sample__grid_every": 600}
ON = ("READY", "PENDING", "RUNNING", "UNKNOWN", "REQUEUED", "COMPLETING", "PREEMPTED")  # not done, for submitit
SLURM = f"""#!{sys.executable}
# A cluster of one machine. As proctrack/cgroup has it, SIGKILL reaches all that a job started, another signal only the
# job's own process; `scancel` sends SIGTERM and, after KillWait, SIGKILL.
import os, signal, subprocess, sys, time
from pathlib import Path
import psutil

here, name, words = Path(__file__).parent, Path(__file__).name, sys.argv[1:]
if name == "sbatch":
    quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    variables = os.environ | {{"SLURM_JOB_ID": str(os.getpid())}}
    subprocess.Popen(["bash", words[0]], env=variables, start_new_session=True, **quiet)
    print(f"Submitted batch job {{os.getpid()}}")
elif name == "srun":
    (here / os.environ["SLURM_JOB_ID"]).write_text(str(os.getpid()))
    os.execv(sys.executable, words[words.index(sys.executable):])
elif name == "sacct":
    print("JobID|State|NodeList")
    for job in [one for one in words if one.isdigit()]:
        file = here / job
        print(f"{{job}}|{{'RUNNING' if not file.exists() or psutil.pid_exists(int(file.read_text())) else 'FAILED'}}|")
elif name == "scancel":
    with open(here / "cancelled", "a") as file:
        file.write(" ".join(words) + "\\n")
    process = psutil.Process(int((here / words[-1]).read_text()))
    if words[0] == "--signal=INT":
        process.send_signal(signal.SIGINT)
    else:
        process.terminate()
        if os.fork() == 0:
            time.sleep(2)
            for one in (process, *process.children(recursive=True)):
                one.kill()
"""


def local(store: Store, **more: Any) -> OnSlurm:
    """The queue of this machine."""
    made = queue(store.root / "slurm", Needs(1), None, {"timeout_min": 20, **more}, cluster="local")
    return OnSlurm(made, Needs(1))


class Clock:
    """The time of the executor, which passes only while it waits, ten seconds at a time."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += 10


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("bench.run.on_slurm.time", made)
    return made


class Fake:
    """A job that SLURM reports on."""

    def __init__(self, state: str, result: Any = None, job_id: str = "7_0") -> None:
        self.state, self.given, self.job_id = state, result, job_id
        self.next = ""  # what SLURM says when it is asked before its time
        self.cancelled = 0

    def done(self, force_check: bool = False) -> bool:
        if force_check and self.next:
            self.state = self.next
        return self.given is not None or self.state not in ON

    def cancel(self, check: bool = True) -> None:
        self.cancelled += 1

    def result(self) -> Any:
        assert self.done(), "it would wait"
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


def test_a_cell_at_work_does_not_wait_in_the_queue_whatever_slurm_said(tmp_path: Path) -> None:
    """What SLURM says is up to ten minutes old: Ctrl-C did not wait for such cells, and no limit of time counted."""
    folder = CellFolder(tmp_path)
    process, executor = Process(folder, Fake("PENDING")), OnSlurm(None, Needs(1))
    with folder.locked():
        assert process.alive() and process.place and executor.stops(process), "it has not written yet"
        folder.write_state("running", attempt=1)
        assert executor.stops(process)
        assert process.alive() and not process.place
        assert process.alive() and not process.place and executor.stops(process)
    assert not executor.stops(process)
    assert process.alive() and process.place, "it is in the queue again"


def test_a_job_that_is_preempted_is_over_unless_it_is_queued_again(tmp_path: Path, clock: Clock) -> None:
    """For submitit it is never done: it was silent, then `timeout` at every check, and the launch did not end."""
    folder = CellFolder(tmp_path)
    process = Process(folder, Fake("RUNNING"))
    folder.write_state("running", attempt=1)
    assert process.alive() and not process.place
    process.job.state = "PREEMPTED"
    assert process.alive() and process.place, "it may be queued again, and is not silent"
    clock.now += 3600
    with folder.locked():
        assert process.alive(), "what SLURM says is of before"
    assert process.alive(), "it is counted from here"
    clock.now += 3600
    process.job.next = "PENDING"
    assert process.alive() and process.job.state == "PENDING"
    assert process.alive() and process.place
    process.job.state, process.job.next = "PREEMPTED", ""
    assert process.alive()
    clock.now += 120
    assert process.alive()
    clock.now += 3600
    assert not process.alive() and not process.place
    assert process.ended() == Ended(-9, lost="its job 7_0 ended with PREEMPTED")


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
        ("PREEMPTED", "killed", "its job 7_0 ended with PREEMPTED, 6 times; run again to resume"),
    ],
)
def test_a_job_that_ends_before_its_cell_has_written_is_a_row_with_the_reason(
    tmp_path: Path, state: str, status: str, reason: str, clock: Clock
) -> None:
    """No module on the node, or `scancel` of a job in the queue: it was submitted for ever, and nothing said."""
    plan, store = empty(tmp_path, 2)
    submit = Sending(state)
    sent = threading.Timer(10, os.kill, (os.getpid(), signal.SIGINT))  # of what never ends
    sent.start()
    states = run(plan, store, executor=OnSlurm(submit, Needs(1)), say=lambda text: None, poll=0)
    sent.cancel()
    assert [(one.status, one.reason) for one in states] == [(status, reason)] * 2
    assert len(submit.sent) == (12 if "6 times" in reason else 2)


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


class Refusing(Sending):
    """A queue whose controller does not answer at some submissions; what is submitted after them ends.

    Args:
        clock: of the executor.
        refused: numbers of the submissions that fail.
        states: of the first jobs.
    """

    def __init__(self, clock: Clock, refused: set[int], *states: str) -> None:
        super().__init__(*states)
        self.clock, self.refused, self.asked, self.jobs = clock, refused, [], []

    def map_array(self, job: CellJob, folders: list[str]) -> list[Fake]:
        self.asked.append(self.clock.now)
        if len(self.asked) in self.refused:
            print("sbatch: error: of submitit's own", file=sys.stderr)
            raise FailedJobError("sbatch: error: no\nsbatch: error: Batch job submission failed: Socket timed out")
        jobs = super().map_array(job, folders)
        self.jobs += jobs
        if len(self.asked) > 1:
            for one, folder in zip(self.jobs, self.sent, strict=True):
                CellFolder(Path(folder)).write_state("failed", "of the test")
                one.given = {"code": 1, "tail": "", "lost": ""}
        return jobs


def test_a_submission_that_fails_later_stops_no_other_cell(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """One `sbatch` that timed out, for a cell whose node was lost, cancelled every job that ran."""
    plan, store = empty(tmp_path, 2)
    submit, lines = Refusing(clock, {2, 3}, "NODE_FAIL", "RUNNING"), []
    states = run(plan, store, executor=OnSlurm(submit, Needs(1)), say=lines.append, poll=0.01)
    assert [one.status for one in states] == ["failed"] * 2 and [one.reason for one in states] == ["of the test"] * 2
    _, second, third, fourth = submit.asked
    assert third - second >= 60 and fourth - third >= 60, "it was asked at every check"
    assert [job.cancelled for job in submit.jobs] == [0, 0, 0]
    said = [line for line in lines if "Socket timed out" in line]
    assert len(said) == 1 and "again every 60 s: 1 (" in said[0], lines
    assert not capsys.readouterr().err, "it would be printed into the table, at each try"


def test_a_first_submission_that_fails_is_a_sentence(tmp_path: Path, clock: Clock) -> None:
    plan, store = empty(tmp_path, 2)
    with pytest.raises(ConfigError, match=r"run\.executor slurm: .*Socket timed out \(run\.slurm "):
        run(plan, store, executor=OnSlurm(Refusing(clock, {1}), Needs(1)), say=lambda text: None, poll=0.01)


def test_ctrl_c_asks_a_job_in_the_queue_for_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitit looks 15 s for the file of each: a hundred cells in the queue took half an hour to end."""
    plan, store = empty(tmp_path, 3)
    asked: list[Any] = []
    monkeypatch.setattr(Fake, "result", lambda self: asked.append(self))
    press = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    press.start()
    states = run(plan, store, executor=OnSlurm(Sending("PENDING"), Needs(1)), say=lambda text: None, poll=0.05)
    assert [one.status for one in states] == ["planned"] * 3 and asked == []


@pytest.fixture
def scancel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`scancel`, which notes its words in a file and sends nothing; with a file `refuses` beside it, it fails."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = '#!/bin/sh\necho "$*" >> "$0.txt"\ncase "$1" in --signal=*) test ! -e "${0%/*}/refuses" ;; esac\n'
    (folder / "scancel").write_text(script)
    (folder / "scancel").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "scancel.txt"


def test_only_a_cell_at_work_is_interrupted_and_all_else_cancelled(tmp_path: Path, scancel: Path) -> None:
    """By plain `scancel` SIGTERM reaches submitit alone, which ignores it: ten minutes of training were lost."""
    folder = CellFolder(tmp_path / "cell")
    process = Process(folder, submitit.SlurmJob(tmp_path, "7_0"))
    process.stop()
    with folder.locked():
        process.stop()
        process.kill()
        process.end(seconds=0)
    assert scancel.read_text().splitlines() == ["7_0", "--signal=INT 7_0", "7_0", "7_0"]


def test_a_job_that_cannot_be_interrupted_is_cancelled(tmp_path: Path, scancel: Path) -> None:
    """Another launch runs its cell, and it waits in the queue: SLURM signals no job there."""
    folder = CellFolder(tmp_path / "cell")
    scancel.with_name("refuses").touch()
    with folder.locked():
        Process(folder, submitit.SlurmJob(tmp_path, "7_0")).stop()
    assert scancel.read_text().splitlines() == ["--signal=INT 7_0", "7_0"]


def test_a_cell_that_does_not_end_is_cancelled(tmp_path: Path, scancel: Path) -> None:
    folder, executor = CellFolder(tmp_path / "cell"), OnSlurm(None, Needs(1))
    executor.running = [Process(folder, submitit.SlurmJob(tmp_path, "7_0"))]
    with folder.locked():
        executor.stop_all(hurry=lambda: True)
    assert scancel.read_text().splitlines() == ["--signal=INT 7_0", "7_0"]


def test_a_signal_before_jobs_are_cancelled_gives_none_up(tmp_path: Path) -> None:
    """It came before `ended`, which then gave back all that ran as over: nobody was left to cancel."""
    executor, job = OnSlurm(None, Needs(1)), Fake("RUNNING")
    executor.running = [Process(CellFolder(tmp_path), job)]
    executor.stop()
    assert executor.ended() == [] and len(executor.running) == 1
    executor.stop_all()
    assert job.cancelled == 1 and len(executor.ended()) == 1 and executor.running == []


def test_a_step_has_the_cores_of_its_job(tmp_path: Path, scancel: Path) -> None:
    """From SLURM 22.05 on `srun` does not take them over from `sbatch`: a cell of four cores ran on one."""
    (scancel.parent / "srun").symlink_to("scancel")

    def srun(**more: Any) -> str:
        made = queue(tmp_path, Needs(4), None, more)
        text = made._executor._make_submission_file_text("python -m of_the_test", "id")
        return next(line for line in text.splitlines() if line.startswith("srun "))

    assert " --cpus-per-task=4 python" in srun() and " --cpus-per-task=6 python" in srun(cpus_per_task=6)
    assert " --cpus-per-task=6 --exact python" in srun(slurm_cpus_per_task=6, slurm_srun_args=["--exact"])


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


def at_work(cell: CellFolder) -> None:
    """Waits until a cell is in the middle of its training."""
    while not (cell.is_locked() and list(cell.checkpoints.glob("*.ckpt"))):
        time.sleep(0.05)


def press(cell: CellFolder) -> None:
    """Ctrl-C, once a cell is at work."""
    at_work(cell)
    os.kill(os.getpid(), signal.SIGINT)


def at_limit(executor: OnSlurm, cell: CellFolder) -> None:
    """The job's limit of time is near, in the middle of its training."""
    at_work(cell)
    controller = psutil.Process(executor.running[0].job._process.pid)  # itself would end by the signal
    (task,) = controller.children()
    task.send_signal(signal.SIGUSR2)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_ctrl_c_cancels_jobs_whose_cells_write_their_checkpoints(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, **LONG)
    cell = store.cell(plan.cells[0].row.cell)
    executor, lines = local(store), []
    threading.Thread(target=press, args=(cell,), daemon=True).start()
    (state,) = run(plan, store, executor=executor, say=lines.append, poll=0.1)
    assert state.status == "killed" and not cell.is_locked() and lines[-1].startswith("stopped;")
    assert cell.result() is None and max(cell.checkpoints.glob("*.ckpt")).exists()


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_ctrl_c_reaches_cells_below_a_job_that_ignores_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the commands of a cluster: only the job's own process was signalled, and its cell killed in its training."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel"):
        (folder / name).write_text(SLURM)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    plan, store = planned(tmp_path, **LONG)
    cell = store.cell(plan.cells[0].row.cell)
    (store.root / "slurm").mkdir()
    executor, lines = OnSlurm(queue(store.root / "slurm", Needs(1), None, {"timeout_min": 20}), Needs(1)), []
    threading.Thread(target=press, args=(cell,), daemon=True).start()
    (state,) = run(plan, store, executor=executor, say=lines.append, poll=0.1)
    assert (state.status, cell.state()["status"]) == ("killed", "killed"), (lines, cell.log.read_text())
    assert not cell.is_locked() and lines[-1].startswith("stopped;")
    assert (folder / "cancelled").read_text().splitlines() == [f"--signal=INT {next(folder.glob('[0-9]*')).name}"]
