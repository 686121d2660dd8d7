"""The command `ditbench`."""

from bench.cli.app import main

__all__ = ["main"]
