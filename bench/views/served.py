"""The process above MLflow's server: the server and all that it starts end with it, and it ends with `dashboard`."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from types import FrameType

from bench.run.boot import command, environment
from bench.run.processes import PARENT, adopt_orphans, end_below

PATIENCE = 5.0  # seconds the server has to end by itself


def main() -> None:
    """`boot.py bench.views.served WORDS`: runs `mlflow WORDS` until that ends, or standard input is closed."""
    adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    child = subprocess.Popen(
        command("bench.views.mlflow.command", *sys.argv[1:]),
        stdin=subprocess.DEVNULL,
        env=environment(**{PARENT: str(os.getpid())}),
    )
    while child.poll() is None:
        if select.select([sys.stdin], [], [], 0.5)[0] and not os.read(0, 1):
            _end(signal.SIGTERM, None)
    end_below(PATIENCE)
    os._exit(child.returncode if child.returncode >= 0 else 128 - child.returncode)


def _end(number: int, frame: FrameType | None) -> None:
    end_below(PATIENCE)
    os._exit(128 + number)
