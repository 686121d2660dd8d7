"""Importing a matrix's plugins in the planner, where one that ends the process would end every cell's plan.

Each is imported in a process of its own first; one that comes back from there is imported here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import architectures

Progress = Callable[[str, int, int], None]  # what, done, total
IMPORTS = 60.0  # seconds that the process may take besides the plugin's own limit: torch, on a busy machine
PROBE = """
import os, sys
sys.path[0] = sys.argv[1]
import architectures
sys.path.pop(0)
text = ""
try:
    architectures.load_plugin(sys.argv[2])
except architectures.PluginError as error:
    text = str(error)
with open(sys.argv[3], "w", encoding="utf-8") as file:
    file.write(text)
    file.write("\\n")
    file.flush()
    os._exit(0)
"""


@dataclass
class Plugins:
    """What came of a matrix's plugins.

    Attributes:
        files: scheme -> the file that it comes from.
        tasks: task -> the file that it comes from.
        wrong: why others cannot be imported, a sentence each.
    """

    files: dict[str, str] = field(default_factory=dict)
    tasks: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def load_plugins(files: Sequence[str], known: Path, progress: Progress) -> Plugins:
    """Imports plugin files; what they change of the environment is taken back, for cells inherit it.

    Args:
        files: of a matrix.
        known: a folder of marks of the plugins that came back from a process of their own before.
        progress: called with the number of plugins done.
    """
    found, environment = Plugins(), dict(os.environ)
    for done, file in enumerate(files):
        progress("load plugins", done, len(files))
        try:
            if not _known(file, known):
                _probe(file)
                _mark(file, known)
            path = str(Path(file).expanduser().resolve())
            found.files |= dict.fromkeys(architectures.load_plugin(file), path)
            found.tasks |= dict.fromkeys(_tasks_of(path), path)
        except architectures.PluginError as error:
            found.wrong.append(str(error))
            _forget_failed()
    if files:
        progress("load plugins", len(files), len(files))
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    return found


def of_plugin(scheme: str, passing: tuple[type[BaseException], ...] = ()) -> AbstractContextManager[None]:
    """Around a scheme's own code: of a plugin, an error of any kind becomes a `PluginError`."""
    if architectures.is_built_in(scheme):
        return nullcontext()
    return architectures.guarded(f"scheme {scheme!r}", passing=passing)


def _task_registry() -> ModuleType | None:
    """It is there only if something imported it: it imports torch."""
    return sys.modules.get("bench.data.tasks.registry")


def _tasks_of(path: str) -> list[str]:
    """The tasks that a file registered."""
    registry = _task_registry()
    return [name for name in registry.tasks() if registry.plugin_file(name) == path] if registry else []


def _forget_failed() -> None:
    if registry := _task_registry():
        registry.forget_failed()


def _mark_of(file: str, known: Path) -> Path:
    return known / architectures.plugin_digest(file)


def _known(file: str, known: Path) -> bool:
    return _mark_of(file, known).exists()


def _mark(file: str, known: Path) -> None:
    with suppress(OSError):  # a full disk: it is probed again
        known.mkdir(parents=True, exist_ok=True)
        _mark_of(file, known).touch()


def _probe(file: str) -> None:
    """Imports a plugin in a process of its own.

    Raises:
        PluginError: with its error, or how it ended the process.
    """
    limit = architectures.plugin_limit() + IMPORTS
    with tempfile.TemporaryDirectory(prefix="ditbench-plugin-") as folder:
        answer, root = Path(folder) / "answer", str(Path(architectures.__file__).parents[1])
        child = subprocess.Popen(
            [sys.executable, "-c", PROBE, root, str(Path(file).expanduser().resolve()), str(answer)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"},
        )
        try:
            code: int | None = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with suppress(ProcessLookupError, PermissionError):  # also what it started
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said = answer.read_text(encoding="utf-8") if answer.exists() else ""
    if said.endswith("\n"):
        if said.strip():
            raise architectures.PluginError(said.strip())
        return
    raise architectures.PluginError(f"plugin {file}: {_end(code, limit)} while it was imported")


def _end(code: int | None, limit: float) -> str:
    if code is None:
        return f"it did not answer for {limit:g} s"
    if code < 0:
        return f"it ended the process by {signal.Signals(-code).name}"
    return f"it ended the process with exit code {code}"
