"""What the cases of `faults/` and `field/` share: start, wait for a moment, disturb, run again, compare."""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from bench.run import launches, server, warm
from bench.run.executors import Local, Process
from bench.run.processes import MARK, Forked, follow_parent
from bench.store.folders import CellFolder, Store
from bench.store.result import Result

MAIN = "from bench.cli import main; main()"
MEASURED = ("_per_second", "_seconds", "_bytes", "_joules", "mfu", "cpu", "memory")  # times and peaks: no two are equal


def also(*values: Any) -> list[Any]:
    """Further values of a fault that has its test, which CI leaves out and `make faults` tries."""
    return [pytest.param(*(one if isinstance(one, tuple) else (one,)), marks=pytest.mark.also) for one in values]


def first(values: Iterable[Any], *those: Any) -> list[Any]:
    """All values of a fault, of which CI tries those that are named."""
    return [one if one in those else also(one)[0] for one in values]


@contextmanager
def precisions() -> Iterator[set[tuple[str, bool]]]:
    """What modules multiply by that are called meanwhile, in a process that allows TF32: (matrices, convolutions)."""
    import torch

    found: set[tuple[str, bool]] = set()

    def note(*_: object) -> None:
        found.add((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))

    before, hook = torch.get_float32_matmul_precision(), torch.nn.modules.module.register_module_forward_pre_hook(note)
    torch.set_float32_matmul_precision("high")
    try:
        yield found
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
        hook.remove()


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many functions this thread calls meanwhile, Python's and C's, as the one number of a list."""
    made = [0]

    def count(frame: object, event: str, arg: object) -> None:
        made[0] += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        yield made
    finally:
        sys.setprofile(None)


class Launch:
    """A process in a session of its own, as a terminal would start it; what it prints goes to a file.

    Args:
        words: of `ditbench`, such as `"run", "tiny.yaml"`.
        cwd: where it runs.
        command: of another program instead.
        env: variables beside this process's own.
    """

    def __init__(self, *words: str, cwd: Path, command: list[str] | None = None, **env: str) -> None:
        self.output = Path(tempfile.mkstemp(dir=cwd, prefix=".output-")[1])
        with open(self.output, "wb") as file:
            self.child = subprocess.Popen(
                command or [sys.executable, "-c", MAIN, *words],
                cwd=cwd,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | env,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.output.read_text(errors="replace")

    def wait_for(self, moment: Callable[[], Any], seconds: float = 300) -> None:
        """Waits until `moment()` is true; fails if the process ends first, or time does."""
        end = time.monotonic() + seconds
        while not moment():
            assert self.child.poll() is None, f"ended with {self.child.returncode} before the moment:\n{self.text}"
            assert time.monotonic() < end, f"the moment did not come in {seconds:g} s:\n{self.text}"
            time.sleep(0.005)

    def disturb(self, number: int = signal.SIGKILL, *, tree: bool = False) -> None:
        """Sends a signal to the process, or to it and everything below it."""
        for process in [*(self.below() if tree else []), psutil.Process(self.child.pid)]:
            process.send_signal(number)

    def below(self) -> list[psutil.Process]:
        """Its living descendants."""
        try:
            return psutil.Process(self.child.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def ended(self, code: int | None = None, seconds: float = 300) -> str:
        """What it printed, once it has ended; `code` is the exit code that is expected."""
        self.child.wait(seconds)
        assert code is None or self.child.returncode == code, f"exit {self.child.returncode}\n{self.text}"
        return self.text


def cell_launch(folder: CellFolder, **env: str) -> Launch:
    """The process of one cell, as an executor would start it."""
    command = [sys.executable, "-m", "bench.run.cell", str(folder.path)]
    return Launch(cwd=folder.path.parent, command=command, **env)


def numbers(result: Result) -> dict[str, Any]:
    """Every number of a result that chance of the machine does not make, by its place in the file."""
    parts = {name: getattr(result, name) for name in ("quality", "dynamics", "sampling", "probes", "config")}
    parts["cost"] = {key: value for key, value in result.cost.items() if not any(word in key for word in MEASURED)}
    parts["digests"] = result.provenance["digests"]
    parts["artifacts"] = {"grid": result.artifacts["grid"]["sha256"]}
    return dict(_flat(parts))


def _flat(tree: Any, place: str = "") -> Any:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flat(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, tree


def assert_same(disturbed: Result | None, calm: Result | None) -> None:
    """Every number of both is equal bit for bit, and neither lacks a cost that the other has."""
    assert disturbed is not None and calm is not None
    ours, theirs = numbers(disturbed), numbers(calm)
    different = {key: (ours.get(key), theirs.get(key)) for key in ours | theirs if ours.get(key) != theirs.get(key)}
    assert not different, (
        f"{len(different)} of {len(theirs)} numbers differ, such as {dict(list(different.items())[:5])}"
    )
    assert set(disturbed.cost) == set(calm.cost)


# --- cells in processes whose imports are done ----------------------------------------------------------------------


@functools.cache
def _imported() -> Any:
    """A context whose processes have everything imported."""
    if multiprocessing.parent_process() is not None:  # this one is forked from the server itself
        return multiprocessing.get_context("fork")
    context = multiprocessing.get_context("forkserver")
    ours = [*server.PRELOAD, "bench.cli.app", "bench.run.plan", "matplotlib.figure", "pydantic"]
    context.set_forkserver_preload([*ours, "x" * warm.ROOM])  # no module: room in the command, as `Server` makes it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, " " * warm.ROOM)
        forkserver.ensure_running()
    return context


class _Inherited:
    """A file descriptor for a forked process, as `DupFd` is one for another's."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        return os.dup(self.fd)


def _run_cell(path: Path, share: Any = None, variables: dict[str, str] | None = None) -> None:
    from bench.run.cell import EXITS, run
    from bench.run.slots import FILE

    os.environ.update(variables or {})
    if share is not None:
        os.environ[FILE] = str(share.detach())
    with open(path / "log.txt", "ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = EXITS.get(run(path), 1)
    sys.stdout.flush()
    os._exit(code)


def warm_cell(folder: CellFolder, share: Any = None) -> BaseProcess:
    """A started process that runs a cell, forked from one that has imported everything: it starts in no time."""
    process = _imported().Process(target=_run_cell, args=(folder.path, share, launches.variables()))
    process.start()
    return process


class _Child:
    """Such a process with the methods of `subprocess.Popen` that an executor's `Process` calls."""

    stdout = None

    def __init__(self, process: BaseProcess) -> None:
        self.process, self.pid = process, process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        self.process.kill() if number == signal.SIGQUIT else self.process.terminate()


class Warm(Local):
    """An executor whose cells start in no time. They have no guard: what is tested of guards is started as users do."""

    def __init__(self, jobs: int, gpus: Sequence[str] = (), *, devices: int = 1, warm: object = False) -> None:
        super().__init__(jobs, gpus, devices=devices)

    @staticmethod
    def early(name: str, jobs: int, store: Store) -> None:
        """Its cells are forked from the tests' own."""

    def _start(self, folder: CellFolder, share: int, gpu: str) -> Process:
        before = folder.state()
        forked = multiprocessing.parent_process() is not None
        child: Any = _Child(warm_cell(folder, _Inherited(share) if forked else DupFd(share)))
        return Process(folder, child, gpu, before)


class ForkedServer(warm.Server):
    """The process that cells are forked from, which is forked itself from one that has imported everything."""

    mark: Any  # where others read the environment of this process

    def _start(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            given = SimpleNamespace(Popen=self._forked, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
            patch.setattr(warm, "subprocess", given)
            super()._start()

    def _forked(self, words: list[str], *, env: dict[str, str], stdout: Any, **more: Any) -> Forked:
        pid = os.fork()
        if pid:
            return Forked(pid)
        try:
            os.setsid()
            for number in (1, 2):
                os.dup2(stdout.fileno(), number)
            os.environ.clear()
            os.environ.update(env)
            sys.argv = words[3:]
            server._rename(words)
            server._Mark = lambda: self.mark  # type: ignore[misc, assignment]
            follow_parent(watch=False)
            server.main()
        finally:
            os._exit(1)


def _run_command(
    words: tuple[str, ...], cwd: Path, env: dict[str, str], out: Any, err: Any, code: str = "", guarded: bool = False
) -> None:
    from bench.cli import main
    from bench.run import executors, placement

    if guarded:
        os.setsid()
        ForkedServer.mark = server._Mark()
        executors.Server = ForkedServer  # type: ignore[misc]
    else:
        executors.Local = placement.Local = Warm  # type: ignore[misc]
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    os.dup2(out.detach(), 1)
    os.dup2(err.detach(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(k, "wb"), "utf-8", line_buffering=True) for k in (1, 2))
    sys.argv = ["ditbench", *words]
    status = 0
    try:
        if code:
            exec(code, {"__name__": "__main__"})
        else:
            main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


class WarmLaunch(Launch):
    """A `Launch` of `ditbench WORDS` that is forked with the imports done."""

    guarded = False

    def __init__(self, *words: str, cwd: Path, **env: str) -> None:
        self.output = Path(tempfile.mkstemp(dir=cwd, prefix=".output-")[1])
        with open(self.output, "wb") as file:
            streams = DupFd(file.fileno()), DupFd(file.fileno())
            arguments = (words, cwd.resolve(), os.environ | env, *streams, "", self.guarded)
            process = _imported().Process(target=_run_command, args=arguments)
            process.start()
        self.child: Any = _Child(process)


class GuardedLaunch(WarmLaunch):
    """One whose cells have guards and are forked by a server, as a user's are; 15 s of imports are not done again."""

    guarded = True


def warm_command(
    *words: str, cwd: Path, seconds: float, code: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """`ditbench WORDS`, or Python's `code`, in a process that is forked with the imports done.

    Returns:
        Its exit code and what it printed.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams = DupFd(out.fileno()), DupFd(err.fileno())
        arguments = (words, cwd.resolve(), os.environ | env, *streams, code)
        process = _imported().Process(target=_run_command, args=arguments)
        process.start()
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"{code or 'ditbench'} {' '.join(words)}: not done after {seconds:g} s")
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
        return subprocess.CompletedProcess(list(words), process.exitcode, *texts)
