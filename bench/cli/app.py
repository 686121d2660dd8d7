"""The command `ditbench`: its commands by group. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from bench.cli import config, data, encode, errors, evaluate, findings, records, run, sample, schemes, serve, tasks
from bench.cli.screen import say

app = typer.Typer(
    name="ditbench",
    help="Fair measurements of conditioning schemes of diffusion transformers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Run": (run.run, data.data, encode.encode, run.status, config.config, run.cell),
    "Read results": (findings.report, findings.compare, findings.claims, findings.choices),
    "Records": (records.record, records.restore),
    "Schemes": (schemes.schemes, schemes.describe, schemes.check, schemes.new_scheme),
    "Tasks": (tasks.tasks, tasks.describe_task, tasks.check_task, tasks.new_task),
    "Generate and measure images": (sample.sample, sample.sample_published, evaluate.evaluate),
    "Dashboard and machine": (serve.dashboard, serve.sync, serve.doctor),
}
CLASSES = {sample.sample: sample.SampleCommand}
for _panel, _functions in COMMANDS.items():
    for _function in _functions:
        app.command(rich_help_panel=_panel, cls=CLASSES.get(_function))(_function)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        say(f"ditbench {version('ditbench')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Fair measurements of conditioning schemes of diffusion transformers."""


def main() -> None:
    """The console script: any error is a sentence and an exit code, never a traceback (`bench/cli/errors.py`)."""
    errors.guarded(app)
