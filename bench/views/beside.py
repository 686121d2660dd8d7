"""MLflow beside the work: it is written by a process of its own, which a run never waits for. Imports no MLflow.

Whoever asks for a sync gets an answer, or a sentence after a minute in which that process showed no sign of life.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from bench.run.boot import command, environment
from bench.run.processes import PARENT, cpu_seconds
from bench.store.folders import Store
from bench.views.address import TrackingError, redacted, tracking_uri
from bench.views.follower import BESIDE

EVERY = 60.0  # seconds between two syncs of a run, at least
SILENCE = 60.0  # seconds without a sign of life, after which MLflow hangs
BUSY = 1 / 300  # of a processor: one who waits for an answer uses less, one whom other work starves uses more
LAST = 300.0  # seconds that a run waits for its last sync, while that makes progress
IMPATIENT = 20.0  # seconds instead, where MLflow has hung before
REMIND = 15.0  # seconds between two lines about a wait


@dataclass(frozen=True)
class Answer:
    """What a request came to: what was sent, what a user must know, the experiment's id."""

    text: str
    notes: list[str] = field(default_factory=list)
    experiment: str = ""


class Follower:
    """The process that writes to MLflow, from the asker's side.

    Args:
        store: the results directory.
        beside: whether a run is timed on this machine meanwhile.
        silence: seconds without a message and without work after which it is ended.
    """

    def __init__(self, store: Store, *, beside: bool = False, silence: float = SILENCE) -> None:
        self.store, self.beside, self.silence = store, beside, silence
        self.child: subprocess.Popen[bytes] | None = None
        self.busy = False
        self.at = ""  # how far it is
        self._unread, self._alive, self._used = b"", 0.0, 0.0

    def ask(self, do: str, **more: Any) -> None:
        """Asks; `answer` has what it came to.

        Raises:
            ModuleNotFoundError: if MLflow is not installed.
            TrackingError: if the process cannot be started.
        """
        if find_spec("mlflow") is None:
            raise ModuleNotFoundError("mlflow is not installed", name="mlflow")
        line = json.dumps({"do": do, "root": str(self.store.root), **more}) + "\n"
        try:
            if self.child is None or self.child.poll() is not None:
                self._start()
            assert self.child is not None and self.child.stdin is not None
            self.child.stdin.write(line.encode())
            self.child.stdin.flush()
        except OSError as error:
            self.end()
            raise TrackingError(f"the process that writes to MLflow cannot be started: {error}") from error
        self.busy, self.at, self._alive = True, "", time.monotonic()

    def _start(self) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)
        self._unread, self._used = b"", 0.0
        self.child = subprocess.Popen(
            command("bench.views.follower", *([BESIDE] if self.beside else [])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("DITBENCH_DEBUG") else self._errors,
            start_new_session=True,
            env=environment(**{PARENT: str(os.getpid()), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
        )
        assert self.child.stdout is not None
        os.set_blocking(self.child.stdout.fileno(), False)

    def answer(self, seconds: float = 0.0) -> Answer | None:
        """What the last request came to, or None if it is not known within some seconds.

        Raises:
            TrackingError: if it failed, or there was no sign of life for too long.
            ModuleNotFoundError: if a module is missing.
        """
        end = time.monotonic() + seconds
        while self.busy:
            content = self._line(max(0.0, min(end, self._alive + self.silence) - time.monotonic()))
            if content is None:
                if time.monotonic() - self._alive >= self.silence:
                    if self._works():
                        self._alive = time.monotonic()
                        continue
                    self.end()
                    raise TrackingError(_hangs(self.store, self.silence))
                if time.monotonic() >= end:
                    return None
            elif "at" in content:
                self.at = content["at"]
            else:
                self.busy = False
                return _answer(content)
        return None

    def _works(self) -> bool:
        """Whether it used its processor since this was last asked: to import MLflow takes minutes beside other work."""
        assert self.child is not None
        before, self._used = self._used, cpu_seconds(self.child.pid)
        return self._used - before > BUSY * self.silence

    def _line(self, seconds: float) -> dict[str, Any] | None:
        """The next line of the process, or None if there is none in time."""
        assert self.child is not None and self.child.stdout is not None
        while b"\n" not in self._unread:
            if not select.select([self.child.stdout], [], [], seconds)[0]:
                return None
            new = os.read(self.child.stdout.fileno(), 65536)
            if not new:
                raise TrackingError(self._why_it_ended())
            self._unread, self._alive = self._unread + new, time.monotonic()
        line, _, self._unread = self._unread.partition(b"\n")
        content = json.loads(line)
        assert isinstance(content, dict)
        return content

    def _why_it_ended(self) -> str:
        assert self.child is not None
        code = self.child.wait()
        self._errors.seek(0)
        lines = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        self.end()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return redacted(f"the process that writes to MLflow ended by {how}" + (f": {lines[-1]}" if lines else ""))

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        child, self.child, self.busy = self.child, None, False
        if child is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for stream in (child.stdin, child.stdout, self._errors):
            with suppress(OSError):  # what was not sent yet has no reader
                if stream is not None:
                    stream.close()


def _answer(content: dict[str, Any]) -> Answer:
    if "missing" in content:
        raise ModuleNotFoundError(f"{content['missing']} is not installed", name=content["missing"])
    if "failed" in content:
        raise TrackingError(content["failed"])
    return Answer(content["done"], content.get("notes", []), content.get("experiment", ""))


def _hangs(store: Store, seconds: float) -> str:
    return (
        f"MLflow at {redacted(tracking_uri(store))} gave no sign of life for {seconds:.0f} s; see that it answers, or "
        "unset MLFLOW_TRACKING_URI"
    )


@contextmanager
def following(store: Store, **more: Any) -> Iterator[Follower]:
    """A follower that is ended at the end."""
    follower = Follower(store, **more)
    try:
        yield follower
    finally:
        follower.end()


def wait(follower: Follower, say: Callable[[str], None], seconds: float = float("inf")) -> Answer | None:
    """Waits for an answer, and says so now and then.

    Args:
        follower: that was asked.
        say: prints a line.
        seconds: at most; None is returned then.

    Raises:
        TrackingError: if it failed, or hangs.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and follower.busy:
        answer = follower.answer(min(left, REMIND))
        if answer is not None:
            return answer
        say(f"MLflow is being written ({follower.at or 'waiting for it to answer'}) ...")
    return None


class Beside:
    """A run's dashboard: each call has it brought up to date soon, and returns at once.

    Args:
        store: the results directory.
        name: of the matrix.
        warn: prints a warning; each cause is given once.
        missing: the sentence for a module that is not installed.
        again: the command that brings the dashboard up to date later.
    """

    def __init__(
        self, store: Store, name: str, *, warn: Callable[[str], None],
        missing: Callable[[ModuleNotFoundError], str] = str, again: str = "ditbench sync",
    ) -> None:  # fmt: skip
        self.follower = Follower(store, beside=True)
        self.name, self._warn, self._missing, self.again = name, warn, missing, again
        self._said: set[str] = set()
        self._causes: set[str] = set()
        self._last, self._failures = float("-inf"), 0

    def __call__(self) -> None:
        """Reads what the last sync came to, and asks for the next one if it is due."""
        cause = self._try(self._next)
        if cause and cause not in self._causes:
            self._causes.add(cause)
            self._once(f"the dashboard was not updated ({cause}); the run continues, and `{self.again}` does it later")

    def _next(self) -> None:
        self._take(self.follower.answer())
        due = time.monotonic() - self._last >= EVERY * 2 ** min(self._failures, 6)
        if due and not self.follower.busy:
            self._last = time.monotonic()
            self.follower.ask("sync", name=self.name)

    def finish(self, say: Callable[[str], None]) -> None:
        """One last sync, waited for within bounds; then the process ends."""
        try:
            cause = self._try(lambda: self._finish(say))
        except KeyboardInterrupt:
            cause = "interrupted"
        finally:
            self.follower.end()
        if cause:
            why = "" if cause in self._causes else f" ({cause})"
            self._once(f"the dashboard is behind{why}; `{self.again}` brings it up to date")

    def _finish(self, say: Callable[[str], None]) -> None:
        end = time.monotonic() + (IMPATIENT if self._failures else LAST)
        with suppress(TrackingError):  # of a sync that is not the last
            self._take(wait(self.follower, say, end - time.monotonic()))
        if not self.follower.busy:
            self.follower.ask("sync", name=self.name)
        answer = wait(self.follower, say, end - time.monotonic())
        if answer is None:
            raise TrackingError(f"MLflow did not take everything in time (at {self.follower.at or 'its beginning'})")
        self._take(answer)

    def _take(self, answer: Answer | None) -> None:
        if answer is not None:
            self._failures = 0
            for note in answer.notes:
                self._once(note)

    def _try(self, act: Callable[[], None]) -> str:
        """Why it failed, or nothing."""
        try:
            act()
        except Exception as error:  # whatever it is: the results are on disk
            self._failures += 1
            return redacted(self._missing(error) if isinstance(error, ModuleNotFoundError) else str(error))
        return ""

    def _once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._warn(text)
