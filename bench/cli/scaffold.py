"""The first lines of a stranger's scheme: a file that works, its test, and a package around them. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import architectures
from bench.store.files import slug, write_atomic


def new_scheme(name: str, folder: Path, *, package: bool) -> list[Path]:
    """Writes a scheme that works and its test into `folder`, as files or as an installable package.

    Raises:
        ValueError: if the name is no slug or is taken, or if a file exists already.
    """
    _check_name(name)
    texts = {folder / path: text for path, text in (_package(name) if package else _file(name)).items()}
    for path in texts:
        if path.exists():
            raise ValueError(f"{path} is there already; nothing was written")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    return list(texts)


def _check_name(name: str) -> None:
    slug(name, "scheme")
    if not name.replace("-", "_").isidentifier() or name != name.lower() or "_" in name or "." in name:
        raise ValueError(f"scheme name {name!r}: use lower-case letters, digits and '-', a letter first")
    if name in architectures.schemes() or name in architectures.ALIASES:
        origin = architectures.origin(name)
        raise ValueError(f"scheme {name!r} is there already ({origin['kind']} {origin['name']}); choose another name")


def _file(name: str) -> dict[str, str]:
    module = name.replace("-", "_")
    test = f"test_{module}.py"
    values = {"name": name, "module": module, "test": test, "package": False}
    return {f"{module}.py": _render("scheme.py", values), test: _render("test.py", values)}


def _package(name: str) -> dict[str, str]:
    module = "ditbench_" + name.replace("-", "_")
    test = f"tests/test_{module}.py"
    values = {"name": name, "module": module, "test": test, "package": True, "distribution": f"ditbench-{name}"}
    sources = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{module}.py": "scheme.py",
        test: "test.py",
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
