"""The command `ditbench`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The console script. A file of the working directory shadows no module: `random.py`, a folder `architectures/`."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if sys.path and sys.path[0] in ("", os.getcwd()) and not sys.flags.safe_path and os.getcwd() != root:
        del sys.path[0]
    from bench.cli.app import main as command

    command()


__all__ = ["main"]
