"""Measurements of the harness itself."""

DITBENCH = ("-c", "from bench.cli import main; main()")  # of Python: this very tree, whatever is installed
