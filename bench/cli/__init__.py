"""The command `ditbench`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The console script. A file of the working directory shadows no module: `random.py`, a folder `architectures/`."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        here = os.getcwd()
    except FileNotFoundError:
        sys.exit("ditbench: the working directory was deleted: change to one that exists")
    if sys.path and sys.path[0] in ("", here) and not sys.flags.safe_path and here != root:
        del sys.path[0]
    from bench.cli.app import main as command

    command()


__all__ = ["main"]
