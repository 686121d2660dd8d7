"""How the command ends: whoever erred, it is one sentence and an exit code; DITBENCH_DEBUG shows the traceback.

2 is a mistake of the user, a file or a plugin, 70 one of ditbench itself, 130 an interruption.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType

import architectures
from bench.cli.screen import prepare, warn
from bench.store.disk import explained

THEIRS, OURS, INTERRUPTED = 2, 70, 130
GROUPS = ("ditbench.schemes", "ditbench.tasks")  # of entry points
OUR_FOLDERS = tuple(f"{Path(file).parent}{os.sep}" for file in (architectures.__file__, Path(__file__).parent))
EXTRAS = {
    "mlflow": "track",
    "matplotlib": "report",
    "tabulate": "report",
    "transformers": "text",
    "diffusers": "latents",
    "ray": "ray",
    "submitit": "slurm",
    "psycopg": "postgres",
}  # module -> extra
INPUT = ("yaml", "omegaconf", "antlr4", "safetensors", "PIL", "pyarrow", "datasets", "zipfile", "tarfile", "zlib")
LONGEST = 2000  # characters of a message: a plugin's may be a gigabyte


def guarded(command: Callable[[], object]) -> None:
    """Runs the whole command; whatever it raises becomes a sentence and an exit code."""
    prepare()
    try:
        command()
    except SystemExit as error:
        _end(*_of_exit(error))
    except BrokenPipeError:
        _quiet()
        sys.exit(1)
    except BaseException as error:
        if os.environ.get("DITBENCH_DEBUG") and not isinstance(error, KeyboardInterrupt):
            raise
        _end(*explain(error))
    _end("", 0)


def _end(text: str, code: object) -> None:
    if text:
        warn(text)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _quiet()
    except OSError as error:
        _quiet()
        warn(f"what was printed could not be written: {error.strerror}")
        code = code or THEIRS
    sys.exit(code)  # type: ignore[arg-type]  # what sys.exit was called with


def _quiet() -> None:
    """Nobody reads on: what is left is thrown away, and Python's own flush at the end finds no pipe to complain of."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (until the process ends)


def _of_exit(error: SystemExit) -> tuple[str, object]:
    """Of `sys.exit`: ours is meant so; a plugin may not end the command without a message."""
    if where := _author(error.__traceback__):
        return f"{where} called sys.exit({error.code!r})", THEIRS
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, KeyboardInterrupt):
            return "interrupted", INTERRUPTED
        seen = seen.__cause__ or seen.__context__
    return "", error.code if error.code is not None else 0


def explain(error: BaseException) -> tuple[str, int]:
    """A sentence on an error of any type, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    text, kind = _text(error), type(error).__name__
    if where := _author(error.__traceback__):
        named = where.partition(",")[0].removeprefix("plugin ")
        return (text if named in text and isinstance(error, ValueError) else f"{where}: {kind}: {text}"), THEIRS
    if isinstance(error, ModuleNotFoundError):
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra:
            return f"{error.name} is not installed: pip install 'ditbench[{extra}]'", THEIRS
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError":
        return f"not enough memory ({text or kind}); use a smaller size, batch or count", THEIRS
    if isinstance(error, OSError):
        return _of_system(error, text), THEIRS
    if isinstance(error, ValueError) or type(error).__module__.partition(".")[0] in INPUT:
        return text or kind, THEIRS
    return (
        f"ditbench met an error of its own: {kind}: {' '.join(text.split())[:300]} ({_place(error)}). "
        "DITBENCH_DEBUG=1 shows the traceback; please report it",
        OURS,
    )


def _text(error: BaseException) -> str:
    """Its message, which its own `__str__` may fail to give."""
    try:
        text = str(error)
    except Exception:
        return "(its message cannot be read)"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _of_system(error: OSError, text: str) -> str:
    """What the system refused, with the path."""
    if type(error).__module__ == "bench.store.disk" or not error.strerror:
        return text or type(error).__name__
    if error.filename is None:
        try:
            return explained(error, Path.cwd()) or error.strerror
        except FileNotFoundError:
            return "the working directory was deleted; what is finished is kept in the results directory"
    return f"{os.fsdecode(error.filename)}: {error.strerror}"


@contextmanager
def of_scheme(name: str) -> Iterator[None]:
    """While a scheme is asked for something: what a plugin's breaks in our code is the plugin's error.

    Raises:
        ValueError: naming scheme and plugin.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        origin = architectures.origin(name)
        if origin["kind"] == "built-in" or isinstance(error, ValueError):
            raise
        where = f"scheme {name!r} of {origin['kind']} {origin['name']}"
        raise ValueError(f"{where}: {type(error).__name__}: {_text(error)}") from error


# --- whose code it was ------------------------------------------------------------------------------------------------


def _author(trace: TracebackType | None) -> str:
    """`plugin FILE, line N` of the innermost code that is neither ours nor a library's; empty without any."""
    for frame, line in reversed(list(traceback.walk_tb(trace))):
        file = frame.f_code.co_filename
        if os.path.isabs(file) and not file.startswith(OUR_FOLDERS) and not _of_library(Path(file)):
            return f"plugin {file}, line {line}"
    return ""


def _of_library(file: Path) -> bool:
    """Whether it is Python's or an installed package's; one that offers schemes or tasks is a plugin."""
    places = {Path(path) for path in sysconfig.get_paths().values() if path} | {Path(os.__file__).parent}
    for place in (*places, *(path.resolve() for path in places)):
        if file.is_relative_to(place):
            return Path(file.relative_to(place).parts[0]).stem not in _offering()
    return any(part in ("site-packages", "dist-packages") for part in file.parts)


def _offering() -> set[str]:
    modules = (entry.module.partition(".")[0] for group in GROUPS for entry in entry_points(group=group))
    return {module for module in modules if module not in ("architectures", "bench")}


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(OUR_FOLDERS)] or list(frames)
    return f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else "unknown place"
