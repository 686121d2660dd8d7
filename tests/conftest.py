"""The option `--parity FILE`, what the parity tests measured, as a file; and the mark of what `make faults` runs."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", type=Path, help="write the largest differences from diffusers into this file")


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = session.config.getoption("--parity")
    if file is not None:
        import parity_log

        words = " ".join(str(word) for word in session.config.invocation_params.args)
        parity_log.write(file, f"python -m pytest {words}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever is in `faults/` and `field/` is a case, also what is quick."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent in (here / "faults", here / "field") or item.get_closest_marker("faults"):
            item.add_marker("case")
