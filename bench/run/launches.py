"""The id of a launch of `ditbench run`: rates of its cells may be compared, with those of another they may not."""

from __future__ import annotations

import functools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLE = "DITBENCH_LAUNCH"  # of the environment of its cells


@contextmanager
def launched() -> Iterator[None]:
    """A launch: what is started meanwhile has its id in the environment, also where it was launched from a cell."""
    before = os.environ.pop(VARIABLE, None)
    os.environ[VARIABLE] = secrets.token_hex(8)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        os.environ.update({VARIABLE: before} if before else {})


def variables() -> dict[str, str]:
    """What a cell on another machine must have in its environment; nothing outside a launch."""
    return {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}


def launch() -> str:
    """The id of the launch that started this process; of a cell that is run by hand an id of its own."""
    return os.environ.get(VARIABLE) or _own()


@functools.cache
def _own() -> str:
    return secrets.token_hex(8)
