"""The first lines of a stranger's scheme or task: a file that works, its test, a package around them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import architectures
from bench.store.files import slug, write_atomic

TESTS = {"scheme": "test.py", "task": "test_task.py"}


def new_scheme(name: str, folder: Path, *, package: bool) -> list[Path]:
    """Writes a scheme that works and its test into `folder`, as files or as an installable package.

    Raises:
        ValueError: if the name is no slug or is taken, or if a file exists already.
    """
    _check_name(name)
    return _write(folder, _package(name) if package else _file(name))


def new_task(name: str, folder: Path, *, package: bool) -> list[Path]:
    """Writes a task that works and its test into `folder`, as files or as an installable package.

    Raises:
        ValueError: if the name is no slug or is taken, or if a file exists already.
    """
    _check_slug(name, "task")
    from bench.data.tasks import registry

    if name in registry.tasks():
        raise ValueError(f"task {name!r} is there already; choose another name")
    return _write(folder, _package(name, "task") if package else _file(name, "task"))


def _write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    texts = {folder / path: text for path, text in files.items()}
    for path in texts:
        if path.exists():
            raise ValueError(f"{path} is there already; nothing was written")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    return list(texts)


def _check_slug(name: str, what: str) -> None:
    slug(name, what)
    if not name.replace("-", "_").isidentifier() or name != name.lower() or "_" in name or "." in name:
        raise ValueError(f"{what} name {name!r}: use lower-case letters, digits and '-', a letter first")


def _check_name(name: str) -> None:
    _check_slug(name, "scheme")
    if name in architectures.schemes() or name in architectures.ALIASES:
        origin = architectures.origin(name)
        raise ValueError(f"scheme {name!r} is there already ({origin['kind']} {origin['name']}); choose another name")


def _file(name: str, what: str = "scheme") -> dict[str, str]:
    module = name.replace("-", "_")
    test = f"test_{module}.py"
    values = {"name": name, "module": module, "test": test, "package": False}
    return {f"{module}.py": _render(f"{what}.py", values), test: _render(TESTS[what], values)}


def _package(name: str, what: str = "scheme") -> dict[str, str]:
    module = "ditbench_" + name.replace("-", "_")
    test = f"tests/test_{module}.py"
    values: dict[str, object] = {
        "name": name,
        "module": module,
        "test": test,
        "package": True,
        "distribution": f"ditbench-{name}",
    }
    values["what"], values["check"] = ("conditioning scheme", "check") if what == "scheme" else ("task", "check-task")
    sources = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}.py": f"{what}.py",
        test: TESTS[what],
    }
    return {path: _render(template, values) for path, template in sources.items()}


def _render(template: str, values: Mapping[str, object]) -> str:
    from jinja2 import Environment, StrictUndefined

    text = files("bench.cli").joinpath(f"templates/{template}.jinja").read_text(encoding="utf-8")
    environment = Environment(  # Python and Markdown, no HTML: nothing to escape
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    cls = "".join(part.capitalize() for part in str(values["name"]).split("-"))
    return environment.from_string(text).render(values, cls=cls)
