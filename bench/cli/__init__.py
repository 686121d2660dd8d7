"""The command `ditbench`."""

from bench.cli import config
from bench.cli.app import main

__all__ = ["config", "main"]
