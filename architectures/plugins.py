"""Importing what others wrote: whatever it does, the caller gets its modules or a sentence that names it.

Imports no torch. A plugin file is imported under a name of its own, so that one called `torch.py` shadows nothing;
modules beside it are found by it, after the standard library and installed packages.
"""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution
from pathlib import Path
from types import FrameType, ModuleType
from typing import TextIO

from architectures import sources

TIMEOUT = "DITBENCH_PLUGIN_TIMEOUT"  # seconds that a plugin may take to be imported, or a scheme of one to be built
USUAL = 60.0
MOST_PRINTED = 10_000  # characters of what a plugin prints


class PluginError(ValueError):
    """A plugin that cannot be imported, or that takes a name already taken."""


class _TooLong(BaseException):
    """Raised where the plugin is; not an `Exception`, which it would be likely to catch."""


def plugin_digest(path: str | Path) -> str:
    """The digest of a plugin file and of the author's modules that it imports.

    Raises:
        PluginError: if it is not there, or one cannot be read.
    """
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise PluginError(f"plugin {path}: {'a folder, not a file' if file.is_dir() else 'no such file'}")
    try:
        return sources.digest(fresh(sources.of_plugin(file)))
    except OSError as error:
        raise PluginError(f"plugin {path}: {error.filename or file} cannot be read ({error.strerror})") from error


def fresh(files: dict[str, Path]) -> dict[str, Path]:
    """The same files, of which Python will import the text that they have now."""
    for file in files.values():
        sources.drop_stale(file)
    return files


def files_of_module(module: str, own: frozenset[str]) -> dict[str, Path]:
    """The files of a module by its name, and of what it imports of its author's.

    Raises:
        ImportError, OSError, ValueError: if it is not found, or is no file.
    """
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None) or getattr(importlib.util.find_spec(module), "origin", None)
    if not file or not Path(file).is_file():
        raise ImportError(f"{module} is no file")
    return sources.of_plugin(Path(file).resolve(), own)


def top_names(distribution: Distribution | None, module: str) -> frozenset[str]:
    """Top-level modules of a distribution, that of `module` among them."""
    files = (distribution.files if distribution else None) or ()
    tops = {file.parts[0].removesuffix(".py") for file in files if file.suffix == ".py"}
    return frozenset({module.partition(".")[0], *tops})


def import_file(file: Path, path: str | Path, digest: str) -> ModuleType:
    """Imports a plugin file under a name made of its digest.

    Raises:
        PluginError: naming `path` and what went wrong.
    """
    name = f"ditbench_plugin_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin {path}: not a Python file")
    _refuse_namesakes(file, path)
    _Beside.add(file.parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    threads, folder = set(threading.enumerate()), os.getcwd()
    try:
        with guarded(f"plugin {path}"):
            spec.loader.exec_module(module)
        left = [one for one in threading.enumerate() if one not in threads and not one.daemon]
        if left:
            raise PluginError(
                f"plugin {path}: it leaves a thread running, {left[0].name}, so that no process would end"
            )
        if plugin_digest(file) != digest:
            raise PluginError(f"plugin {path}: it was changed while it was imported; run again")
    except BaseException:
        sys.modules.pop(name, None)
        raise
    finally:
        os.chdir(folder)
    return module


@contextmanager
def guarded(what: str, *, passing: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """Makes an error of any kind of somebody else's code a sentence, and ends what hangs; Ctrl-C stays itself.

    Args:
        what: how the sentence begins.
        passing: kinds that are passed on as they are.

    Raises:
        PluginError: the sentence.
    """
    seconds = plugin_limit()
    try:
        with _alarm(seconds), _quiet(what):
            yield
    except (PluginError, KeyboardInterrupt):
        raise
    except _TooLong as error:
        raise PluginError(f"{what}: it was not done after {seconds:g} s ({TIMEOUT} sets the limit)") from error
    except SystemExit as error:
        code = "" if error.code is None else repr(error.code)[:300]
        raise PluginError(f"{what}: it called sys.exit({code})") from error
    except BaseException as error:
        if isinstance(error, passing):
            raise
        text = " ".join(_text(error).split())[:300]
        raise PluginError(f"{what}: {type(error).__name__}" + (f": {text}" if text else "")) from error


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an error whose text is an error
        return ""


def plugin_limit() -> float:
    """Seconds that a plugin may take to be imported, or a scheme of one to be built.

    Raises:
        PluginError: if `DITBENCH_PLUGIN_TIMEOUT` is no number above 0.
    """
    try:
        seconds = float(os.environ.get(TIMEOUT) or USUAL)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise PluginError(f"{TIMEOUT} is seconds above 0, got {os.environ.get(TIMEOUT)!r}")
    return seconds


@contextmanager
def _quiet(what: str) -> Iterator[None]:
    """Lets a block print a little, not a gigabyte."""
    few = _Few(what, sys.stderr)
    with redirect_stdout(few), redirect_stderr(few):
        yield


class _Few(io.TextIOBase):
    """Passes on the first characters that are written to it, and a line that says that there were more."""

    def __init__(self, what: str, out: TextIO | None) -> None:
        self.what, self.out, self.left = what, out, MOST_PRINTED

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.out is not None and self.left > 0:
            self.out.write(text[: self.left])
            if len(text) > self.left:
                self.out.write(f"\n{self.what} printed more than {MOST_PRINTED:,} characters; the rest is left out\n")
        self.left -= len(text)
        return len(text)

    def flush(self) -> None:
        if self.out is not None:
            self.out.flush()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Interrupts this block when it takes too long, and each second after that; in the main thread alone."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise _TooLong

    started, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    theirs, every = signal.getitimer(signal.ITIMER_REAL)  # somebody's own alarm, such as a test's
    if before is None or (theirs and theirs <= seconds):
        yield
        return
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if theirs:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, theirs - (time.monotonic() - started)), every)


class _Beside:
    """Finds modules beside plugin files, where the path has another of that name than an installed one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def add(cls, folder: Path) -> None:
        """Has modules of a folder found from now on."""
        if folder not in cls.folders():
            sys.meta_path.insert(0, cls(folder))

    @staticmethod
    def folders() -> list[Path]:
        """Folders of the plugins so far."""
        return [finder.folder for finder in sys.meta_path if isinstance(finder, _Beside)]

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """The module of that name beside the plugin."""
        return sources.beside(name, self.folder) if path is None else None


def _refuse_namesakes(file: Path, path: str | Path) -> None:
    """Refuses a plugin that imports a module beside it, of whose name another plugin's is loaded: it would get that.

    Raises:
        PluginError: naming both modules.
    """
    for name, helper in sources.of_plugin(file).items():
        loaded = sys.modules.get(Path(name).stem) if "/" not in name else None
        other = getattr(loaded, "__file__", None)
        if helper != file and other and Path(other).resolve() != helper and not sources.is_installed(Path(other)):
            raise PluginError(
                f"plugin {path}: it imports {helper}, but {other} is loaded under that name; give one another name"
            )
