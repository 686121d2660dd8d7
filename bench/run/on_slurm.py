"""Cells as jobs of a SLURM cluster, through submitit: `pip install ditbench[slurm]`, `run.executor: slurm`.

All cells that are left are one array of jobs; each has a seat (`bench.run.seat`) on its node. All else is as on one
machine: guard, log, journal and checkpoints are files of the results directory, which every node must share. A job that
comes near its limit of time has its cell write a checkpoint and goes back into the queue.
"""

from __future__ import annotations

import io
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import Checkpointable, DelayedSubmission

from bench.config.schema import ConfigError
from bench.run import executor, launches
from bench.run.executor import Ended, last_lines, open_log
from bench.run.needs import Needs
from bench.run.processes import GRACE
from bench.run.seat import PAUSE, Seat
from bench.store.folders import CellFolder

ARRAY = 1000  # jobs of an array, at most: SLURM's own default
REQUEUES = 1000  # times that a job may reach its limit of time
BACK = 300.0  # seconds in which a job that was preempted is in the queue again, if it ever is
AGAIN = 60.0  # seconds from a submission that failed to the next
ANSWERS = 30.0  # seconds that SLURM has to signal a job
QUEUED = "waits in the queue"
NODE = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT")  # ends that are no doing of the cell
WAITS = ("PENDING", "REQUEUED", "PREEMPTED")
RUNS = ("RUNNING", "COMPLETING", "COMPLETED", "FAILED", "FINISHED")


class CellJob(Checkpointable):
    """What a job does: one cell. Near its limit of time, or when its node is taken back, it is queued again.

    Args:
        cores: that the cell has.
        variables: of its environment.
    """

    def __init__(self, cores: int, variables: dict[str, str]) -> None:
        self.cores, self.variables = cores, variables

    def __call__(self, folder: str) -> dict[str, str | int]:
        """Runs a cell, and returns how it ended."""
        self.seat = Seat(self.cores, self.variables)
        self.seat.start(folder)
        try:
            self._wait()
        except KeyboardInterrupt:
            self._stop()
        return self.seat.report()

    def checkpoint(self, folder: str) -> DelayedSubmission:
        """Called by submitit at a signal: the cell writes its checkpoint, and the same job is queued again."""
        self._stop()
        return DelayedSubmission(CellJob(self.cores, self.variables), folder)

    def _wait(self) -> None:
        while self.seat.alive():
            time.sleep(PAUSE)

    def _stop(self) -> None:
        self.seat.send(signal.SIGTERM)  # its guard ends it within GRACE
        self._wait()


@dataclass
class Process(executor.Process):
    """A cell whose job is in the queue, or runs.

    Attributes:
        folder: the cell's.
        job: submitit's; None until the array is submitted.
    """

    folder: CellFolder
    job: Any = None
    before: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    place: str = QUEUED
    preempted: float | None = None  # since when SLURM says so

    def alive(self) -> bool:
        """Whether its job has not ended."""
        if self.job is None:
            return True
        self._look()
        over = bool(self.job.done()) or self._gone()
        if over:  # it ran, or could not: it waits for nothing
            self.place = ""
        return not over

    def paused(self) -> bool:
        """Not known from here."""
        return False

    def stop(self) -> None:
        """Interrupts the job, so that its cell writes its checkpoint; one whose cell is not at work is cancelled."""
        if self.job is not None and self.folder.is_locked():
            with suppress(Exception):
                interrupt(self.job)
        else:
            self.kill()

    def kill(self) -> None:
        """Cancels the job: SLURM kills what does not end."""
        if self.job is not None:
            with suppress(Exception):
                self.job.cancel(check=False)

    def end(self, seconds: float = 10.0) -> None:
        """Cancels the job and waits until nobody holds the cell."""
        self.kill()
        end = time.monotonic() + seconds
        while self.folder.is_locked() and time.monotonic() < end:
            time.sleep(PAUSE)

    def ended(self) -> Ended:
        """How the cell ended: as its guard reports, or as SLURM says of its job."""
        report = self._result()
        if report is not None:
            return report
        state = "CANCELLED" if self.job is None else str(self.job.state).split(" ")[0]
        if state in NODE:
            return Ended(-signal.SIGKILL, lost=f"its job {self.job.job_id} ended with {state}")
        if state == "OUT_OF_MEMORY":
            return Ended(1, f"ditbench: SLURM ended job {self.job.job_id} for its memory; run.memory reserves more")
        if state.startswith("CANCELLED") or state == "INTERRUPTED" or not self.job.done():  # stopped a moment ago
            return Ended(-signal.SIGTERM)
        with suppress(Exception):
            said = last_lines(self.job.stderr() or "")
            return Ended(1, f"ditbench: job {self.job.job_id} ended with {state}: {said or 'it wrote nothing'}")
        return Ended(1, f"ditbench: its job ended with {state}")

    def _look(self) -> None:
        """Notes that its cell has begun, or that its job is in the queue again; what SLURM says may be of before."""
        if self.place and self.folder.state() != self.before and (self.job.state in RUNS or self.folder.is_locked()):
            self.place, self.started = "", time.monotonic()
        elif not self.place and self.job.state in WAITS and not self.folder.is_locked():
            self.place, self.before = QUEUED, self.folder.state()

    def _gone(self) -> bool:
        """Whether its job was preempted and not queued again: submitit takes it for one that will be."""
        if self.job.state != "PREEMPTED" or self.folder.is_locked():
            self.preempted = None
            return False
        self.preempted = self.preempted or time.monotonic()
        if time.monotonic() - self.preempted < BACK:
            return False
        return bool(self.job.done(force_check=True)) or self.job.state == "PREEMPTED"

    def _result(self) -> Ended | None:
        with suppress(Exception):
            if self.job.done():  # it would wait for the job
                return Ended(**self.job.result())
        return None


class OnSlurm(executor.Elsewhere[Process]):
    """A cluster's queue.

    Args:
        submit: submitit's executor, with the parameters of a job.
        needs: of a cell.
    """

    def __init__(self, submit: submitit.Executor, needs: Needs) -> None:
        self.submit, self.needs = submit, needs
        self.running: list[Process] = []
        self._submitted = self._stopped = False
        self._refused, self._trouble, self._later = False, "", 0.0

    @property
    def free(self) -> int:
        """The queue takes an array at a time."""
        return ARRAY - sum(process.job is None for process in self.running)

    def start(self, folder: CellFolder) -> Process:
        """Notes a cell for the array that `wait` submits.

        Raises:
            DiskError: if its folder cannot be written.
        """
        open_log(folder)
        process = Process(folder, before=folder.state())
        self.running.append(process)
        return process

    def wait(self, seconds: float) -> None:
        """Submits what was noted as one array, and waits. What is refused while others run is submitted again later.

        Raises:
            ConfigError: if the first array is refused.
        """
        noted = [process for process in self.running if process.job is None]
        if noted and not self.stopping and time.monotonic() >= self._later:
            try:
                self._submit(noted)
            except (RuntimeError, OSError) as error:
                self._postpone(noted, error)
        time.sleep(seconds)

    def _submit(self, noted: Sequence[Process]) -> None:
        job = CellJob(self.needs.cores, launches.variables())
        folders = [str(process.folder.path) for process in noted]
        with redirect_stderr(io.StringIO()):  # submitit prints there what it raises
            jobs = [self.submit.submit(job, folders[0])] if len(folders) == 1 else self.submit.map_array(job, folders)
        for process, one in zip(noted, jobs, strict=True):
            process.job = one
        self._submitted, self._refused = True, False

    def _postpone(self, noted: Sequence[Process], error: Exception) -> None:
        """Has what was refused wait, and says so the first time."""
        said = " ".join(str(error).split())[:300] or type(error).__name__
        if not self._submitted:
            raise ConfigError(f"run.executor slurm: {said} (run.slurm has what a job asks for)") from error
        if not self._refused:
            self._trouble = f"jobs that SLURM refused, asked for again every {AGAIN:.0f} s: {len(noted)} ({said})"
        self._refused, self._later = True, time.monotonic() + AGAIN

    def trouble(self) -> str:
        """That jobs were refused, once."""
        said, self._trouble = self._trouble, ""
        return said

    def stop_all(self, grace: float = GRACE, hurry: Callable[[], bool] = lambda: False) -> None:
        """Stops every cell and waits; cancels what has not ended after `grace` seconds, or once `hurry()`."""
        super().stop_all(grace, hurry)
        self._stopped = True
        for process in self.running:
            if self.stops(process):
                process.kill()

    def stops(self, process: Process) -> bool:
        """Whether its cell is held by somebody still: what SLURM says of its job may be older."""
        return process.folder.is_locked()

    def ended(self) -> list[Process]:
        """What ended since the last call; once cells were stopped, all."""
        if not self._stopped:
            return super().ended()
        over, self.running = self.running, []
        return over


def queue(folder: Path, needs: Needs, jobs: int | None, more: dict[str, Any], cluster: str = "slurm") -> Any:
    """Submitit's executor for cells with these needs.

    Args:
        folder: for its scripts and pickles, on shared storage.
        needs: of a cell.
        jobs: cells at a time, or None.
        more: parameters of a job, as submitit's `AutoExecutor` names them.
        cluster: `local` has jobs run on this machine, for tests.

    Raises:
        ConfigError: if there is no SLURM here, or a parameter is unknown.
    """
    try:
        limit = {} if cluster == "local" else {"slurm_max_num_timeout": REQUEUES}
        made = submitit.AutoExecutor(folder, cluster=cluster, **limit)
        how: dict[str, Any] = {
            "name": "ditbench",
            "cpus_per_task": needs.cores,
            "slurm_signal_delay_s": int(GRACE) + 30,
        }
        how |= {"gpus_per_node": needs.gpus} if needs.gpus else {}
        how |= {"mem_gb": needs.memory / 1e9} if needs.memory else {}
        how |= {"slurm_array_parallelism": jobs or ARRAY} | more
        if cores := how.get("slurm_cpus_per_task", how["cpus_per_task"]):  # `srun` does not ask `sbatch` for it
            how["slurm_srun_args"] = [f"--cpus-per-task={cores}", *(how.get("slurm_srun_args") or ())]
        made.update_parameters(**how)
    except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"run.executor slurm: {first} (run.slurm takes what submitit's AutoExecutor does)") from error
    return made


def interrupt(job: submitit.Job[Any]) -> None:
    """Sends SIGINT to the process of a job that runs. A job that cannot be signalled (it is in the queue) is cancelled.

    Plain `scancel` sends SIGTERM, which submitit ignores, and which reaches nothing below it under proctrack/cgroup.
    """
    if isinstance(job, submitit.SlurmJob):
        with suppress(OSError, subprocess.SubprocessError):
            command = ["scancel", "--signal=INT", job.job_id]
            subprocess.run(command, check=True, capture_output=True, timeout=ANSWERS)
            return
    job.cancel(check=False)  # for a job of this machine submitit sends SIGINT
