"""The option `--parity FILE`: what the parity tests measured, as a file."""

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
