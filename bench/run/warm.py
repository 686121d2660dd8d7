"""Cells that start at once: `run`'s side of the process that they are forked from (`bench.run.server`)."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.run.boot import FORKS, command, environment
from bench.run.processes import MARK, PARENT, Child, Forked, adopt_orphans

ROOM = 4096  # bytes for the name of a cell's folder: as long as any path may be
STARTS = 120.0  # seconds that the imports may take on a busy machine
ANSWERS = 20.0  # seconds that a fork may take


class Stale(OSError):
    """The code was changed since the server imported it: it is started again."""


class Server:
    """The process that cells are forked from. Where there can be none, or it ended, cells start cold.

    Args:
        variables: of the environment of all cells, such as their number of threads: libraries read them once.

    Attributes:
        trouble: why there is none, or empty.
    """

    def __init__(self, variables: dict[str, str]) -> None:
        self.variables = variables
        self.trouble = ""
        self._ready = False
        if not sys.platform.startswith("linux"):
            self.trouble = "only Linux forks a process with these libraries safely"
        elif not adopt_orphans():
            self.trouble = "the system does not let this process adopt others"
        else:
            self._start()

    def _start(self) -> None:
        self._ready, self._begun = False, time.monotonic()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the server
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._child = subprocess.Popen(
                command(FORKS, str(theirs.fileno()), " " * ROOM),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[theirs.fileno()],
                env=environment(**self.variables, **{PARENT: str(os.getpid()), MARK: " " * ROOM}),
            )

    @property
    def usable(self) -> bool:
        """Whether it is there, or is starting."""
        return not self.trouble

    def awaited(self) -> list[int]:
        """The file, if any, on which it says that its imports are done."""
        return [] if self.trouble or self._ready else [self._socket.fileno()]

    def starting(self) -> bool:
        """Whether it still imports; does not wait for it."""
        if self.trouble or self._ready:
            return False
        if select.select([self._socket], [], [], 0)[0]:
            self._ready = bool(self._read())
            if not self._ready:
                self._fail("it ended while it imported")
        elif time.monotonic() - self._begun > STARTS:
            self._fail(f"it did not import everything in {STARTS:g} s")
        return not (self.trouble or self._ready)

    def fork(self, folder: Path, share: int, variables: dict[str, str]) -> Child | None:
        """A cell's guard, forked with the imports done; None if there is no server any more.

        Args:
            folder: the cell's.
            share: the open file that holds its share of the machine.
            variables: its environment.

        Raises:
            Stale: if the code was changed; it starts again, and so may the cell a little later.
            OSError: if no process can be started.
        """
        reader, writer = os.pipe()
        go, let_go = os.pipe()
        try:
            answer = self._ask(folder, [writer, share, go], variables)
            if "pid" in answer:
                os.write(let_go, b"!")
                return Forked(answer["pid"], os.fdopen(os.dup(reader), "rb"))
        finally:
            for file in (reader, writer, go, let_go):
                os.close(file)
        if "stale" in answer:
            self.close()
            self._start()
            raise Stale("the code was changed since it was imported")
        if "error" in answer:
            raise OSError(answer["error"])
        self._fail("it ended")
        return None

    def _ask(self, folder: Path, files: list[int], variables: dict[str, str]) -> dict[str, Any]:
        umask = os.umask(0o77)
        os.umask(umask)
        request = {"folder": str(folder), "cwd": os.getcwd(), "umask": umask, "environment": variables}
        with suppress(OSError, ValueError):
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
            if select.select([self._socket], [], [], ANSWERS)[0]:
                answer: dict[str, Any] = json.loads(self._read() or b"{}")
                return answer
        return {}

    def _read(self) -> bytes:
        with suppress(OSError):
            return self._socket.recv(1 << 16)
        return b""

    def _fail(self, why: str) -> None:
        self._output.seek(0)
        lines = [line for line in self._output.read().decode(errors="replace").splitlines() if line.strip()]
        self.trouble = f"the process that cells are forked from: {why}" + (f": {lines[-1][:200]}" if lines else "")
        self.close()

    def close(self) -> None:
        """Ends it; cells that were forked from it live on."""
        if not hasattr(self, "_child") or self._output.closed:
            return
        with suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGKILL)
        self._child.wait()
        self._socket.close()
        self._output.close()
