"""Starts a module of this very package, isolated from the working directory: `python -P boot.py MODULE ARGS`.

With `-P` no folder of the user's is searched for modules, so a local `random.py` or `architectures/` shadows nothing;
what `PYTHONPATH` names is searched as ever. `bench` and `architectures` are those beside this file: the parent's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FORKS = "bench.run.server"  # the module whose process forks: it has one thread
IMPORT = ("bench.run.cell", FORKS)  # modules whose process imports the code that makes numbers


class Ours:
    """Finds `bench` and `architectures` beside this file, whatever is installed or on the path."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As `importlib` asks."""
        if name not in ("bench", "architectures"):
            return None
        places = [str(ROOT / name)]
        return importlib.util.spec_from_file_location(
            name, ROOT / name / "__init__.py", submodule_search_locations=places
        )


def command(module: str, *words: str) -> list[str]:
    """The command that starts a module of this package."""
    return [sys.executable, "-P", str(Path(__file__).resolve()), module, *words]


def environment(**more: str) -> dict[str, str]:
    """This process's variables, and more. An empty part of `PYTHONPATH` means the working directory: it is left out."""
    variables = os.environ | more
    path = [part for part in variables.pop("PYTHONPATH", "").split(os.pathsep) if part]
    return variables | ({"PYTHONPATH": os.pathsep.join(path)} if path else {})


def main() -> None:
    """Runs `MODULE.main()` with the words after it."""
    from bench.run.processes import follow_parent

    sys.argv = sys.argv[1:]
    follow_parent(watch=sys.argv[0] != FORKS)
    if sys.argv[0] in IMPORT:
        from bench.store.provenance import imported

        imported()  # of which commit, before any of it is read
    importlib.import_module(sys.argv[0]).main()


if __name__ in ("__main__", "__mp_main__"):  # the second in a process that a data loader spawns
    sys.path.append(str(ROOT))
    sys.meta_path.insert(0, Ours())
if __name__ == "__main__":
    main()
