"""MLflow's own command line, as a process that ends with the one that started it."""

from __future__ import annotations

from mlflow.cli import cli


def main() -> None:
    """`boot.py bench.views.mlflow.command server ...`: `mlflow server ...`."""
    cli()
