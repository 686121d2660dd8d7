"""The files that a plugin's code is made of: its own, and the modules of its author's that they import.

Imports are read from the source, not from what this process has loaded, so that every process finds the same files:
one that plans ten schemes, and one that trains one of them. Not the author's are the standard library, this project,
and installed packages other than the plugin's own.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import marshal
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import MAGIC_NUMBER, cache_from_source, find_spec
from pathlib import Path

OURS = ("architectures", "bench")
DYNAMIC = {"importlib", "__import__", "exec", "runpy", "pkgutil", "execfile"}  # imports that no source names
MODULES = (".py", ".so", ".pyd")
LONGEST = 200  # characters of a text that may name a file


def of_plugin(file: Path, own: frozenset[str] = frozenset()) -> dict[str, Path]:
    """The files of a plugin by their names, from its first file on.

    Args:
        file: where the plugin begins.
        own: top-level names of the plugin's own distribution, if it is an installed package.
    """
    root = _package_root(file)
    found: dict[Path, None] = {file: None}
    for one in found_later(found):
        for other in _imported(one, root, own):
            found.setdefault(other)
    return {_name(one, root): one for one in found}


def digest(files: dict[str, Path]) -> str:
    """The SHA-256 of a file, or of the names and contents of several, in hex.

    Raises:
        OSError: for a file that cannot be read.
    """
    if len(files) == 1:
        return hashlib.sha256(next(iter(files.values())).read_bytes()).hexdigest()
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(name.encode() + b"\0" + hashlib.sha256(files[name].read_bytes()).digest())
    return total.hexdigest()


def found_later(queue: dict[Path, None]) -> Iterator[Path]:
    """The keys of a growing dictionary, those added meanwhile too."""
    done = 0
    while done < len(queue):
        yield list(queue)[done]
        done += 1


def locate(name: str, folder: Path) -> tuple[list[Path], Path | None]:
    """Where a top-level module is found by a plugin of a folder: folders that hold its parts, and its own file.

    What is beside the plugin comes before what else is on the path, but not before the standard library and installed
    packages: a file named `json.py` or `torch.py` shadows nothing.
    """
    if name in sys.stdlib_module_names or name in OURS:
        return [], None
    try:
        spec = beside(name, folder) or find_spec(name)
    except (ImportError, ValueError):  # a module that was made by hand
        return [], None
    if spec is None:
        return [], None
    file = Path(spec.origin) if spec.has_location and spec.origin else None
    return [Path(part) for part in spec.submodule_search_locations or ()], file


def beside(name: str, folder: Path) -> ModuleSpec | None:
    """The module of this name in a plugin's folder, or a folder there with modules in it; None if it is shadowed."""
    spec = PathFinder.find_spec(name, [str(folder)])
    if spec is None or shadowed(name) or (spec.loader is None and not any((folder / name).glob("*.py"))):
        return None
    return spec


def shadowed(name: str) -> bool:
    """Whether a module of this name beside a plugin is not taken: the standard library or a package has it."""
    return name in sys.stdlib_module_names or name in OURS or PathFinder.find_spec(name, _installed()) is not None


def is_installed(file: Path) -> bool:
    """Whether a file is in one of the folders that installers fill."""
    return any(file.is_relative_to(folder) for folder in _installed())


@functools.cache
def _installed() -> list[str]:
    paths = sysconfig.get_paths()
    folders = {paths["purelib"], paths["platlib"], *site.getsitepackages()}
    return sorted(folders | ({site.getusersitepackages()} if site.ENABLE_USER_SITE else set()))


def _package_root(file: Path) -> Path:
    """The folder that the outermost package of a file lies in; the file's own where it is in none."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else f"{file.parent.name}/{file.name}"


def _imported(file: Path, root: Path, own: frozenset[str]) -> Iterator[Path]:
    """The author's files that a file names."""
    if file.suffix != ".py":
        return
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError):
        return
    package = file.parent.relative_to(root).parts if file.is_relative_to(root) else ()
    for name in _names(nodes, package):
        yield from _files(name, root, own)
    used = {node.id for node in nodes if isinstance(node, ast.Name)} | {
        name.split(".")[0] for name in _names(nodes, ())
    }
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    yield from _named_files(texts, file.parent)
    if used & DYNAMIC and not (is_installed(file) and file.parent == root):
        yield from sorted(one for one in file.parent.glob("*") if one.suffix in MODULES)


def _names(nodes: Iterable[ast.AST], package: tuple[str, ...]) -> Iterator[str]:
    """Dotted names of all modules that may be imported."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{start}.{alias.name}" if start else alias.name for alias in node.names)


def _files(name: str, root: Path, own: frozenset[str]) -> Iterator[Path]:
    """The files of a dotted name: packages on the way, the module, and what may be a module or a name in one."""
    top, *parts = name.split(".")
    folders, file = locate(top, root)
    if file is not None and is_installed(file) and top not in own:
        return
    if file is not None:
        yield file.resolve()
    for part in parts:
        inner = [folder / part for folder in folders]
        yield from (file for folder in inner for file in _modules(folder))
        folders = [folder for folder in inner if folder.is_dir()]


def _modules(place: Path) -> Iterator[Path]:
    """The module, or the package's first file, at `place` without its suffix."""
    for candidate in (place.with_suffix(".py"), place / "__init__.py", *place.parent.glob(f"{place.name}.*.so")):
        if candidate.is_file():
            yield candidate.resolve()


def _named_files(texts: Iterable[str], folder: Path) -> Iterator[Path]:
    """Files beside a module whose names are written in it, such as a table that it reads."""
    for text in texts:
        if 0 < len(text) < LONGEST and "\n" not in text and "\0" not in text and not Path(text).is_absolute():
            try:
                candidate = folder / text
                if candidate.is_file() and candidate.resolve().is_relative_to(folder):
                    yield candidate.resolve()
            except OSError:
                continue


# --- compiled code ----------------------------------------------------------------------------------------------------


def drop_stale(file: Path) -> bool:
    """Removes compiled code that Python would take for a file's though it is of another text; whether there was any.

    Python compares size and second of the last change alone, which a restored or copied file, or one that is edited
    twice in a second, may have in common with the one before.
    """
    if file.suffix != ".py":
        return False
    try:
        compiled = Path(cache_from_source(str(file)))
        now = file.stat()
        if now.st_ctime < compiled.stat().st_mtime:
            return False  # compiled after the last change
        content, source = compiled.read_bytes(), file.read_bytes()
        if content[:4] != MAGIC_NUMBER or content[4:16] != _stamp(now):
            return False  # not taken for this file's
        if marshal.loads(content[16:]) == compile(source, str(file), "exec", dont_inherit=True):
            return False
        compiled.unlink()
    except (OSError, NotImplementedError, SyntaxError, ValueError, EOFError, TypeError):
        return False
    return True


def _stamp(now: os.stat_result) -> bytes:
    parts = (0, int(now.st_mtime) & 0xFFFFFFFF, now.st_size & 0xFFFFFFFF)
    return b"".join(part.to_bytes(4, "little") for part in parts)
