"""All that a GPU can show about ditbench, in ten minutes: `make gpu`, or `python -m bench.studies.gpu.everything`.

    python -m bench.studies.gpu.everything [--out runs/gpu] [--minutes 10] [--only PART ...]

    tests   what is marked `gpu`, with how far two arithmetics lie apart
    steps   `python -m bench.studies.gpu`: every scheme at three sizes
    peers   `python -m bench.studies.peers` on the GPU, where diffusers is installed
    tasks   `ditbench run configs/tasks-gpu.yaml`: tasks at the widths of DiT-S and B, in the time that is left

Each part is a process with a share of the time and a log of its own. What ended is not done again by the same command,
and what was cut off resumes. The folder is small enough to carry away.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.run.boot import ROOT, environment
from bench.store.files import write_atomic
from bench.studies import DITBENCH


@dataclass(frozen=True)
class Part:
    """One process.

    Attributes:
        share: of the time that is left, at most.
        words: of its command, for a folder and minutes.
        needs: a package that it needs.
    """

    share: float
    words: Callable[[Path, float], list[str]]
    needs: str = "torch"


def _tests(out: Path, minutes: float) -> list[str]:
    chosen = "not memory"  # which fills the card, and so runs alone: `pytest -m gpu -k memory`
    files = ["tests/test_gpu.py", "tests/test_devices.py"]
    return ["-m", "pytest", "-m", "gpu", "-k", chosen, "-q", "-n", "6", f"--junitxml={out / 'tests.xml'}", *files]


def _steps(out: Path, minutes: float) -> list[str]:
    return ["-m", "bench.studies.gpu", "--out", str(out / "steps.json"), "--minutes", f"{minutes:.2f}"]


def _peers(out: Path, minutes: float) -> list[str]:
    sizes = ["--width", "1024", "--heads", "16", "--depth", "12", "--batch", "32", "--side", "32", "--tokens", "77"]
    return ["-m", "bench.studies.peers", "--device", "cuda", *sizes, "--out", str(out / "peers.json")]


def _tasks(out: Path, minutes: float) -> list[str]:
    return [*DITBENCH, "run", "configs/tasks-gpu.yaml", "--root", str(out / "runs"), "--no-track"]


PARTS = {
    "tests": Part(0.35, _tests),
    "steps": Part(0.75, _steps),
    "peers": Part(0.5, _peers, "diffusers"),
    "tasks": Part(1.0, _tasks),
}


def run(name: str, out: Path, seconds: float) -> str:
    """Runs a part for so many seconds at most, and says how it ended."""
    part, ended = PARTS[name], out / f"{name}.ended"
    if ended.exists():
        return "was done"
    if importlib.util.find_spec(part.needs) is None:
        return f"left out: {part.needs} is not installed"
    with open(out / f"{name}.log", "ab") as log:
        command = [sys.executable, *part.words(out, max(0.1, seconds / 60 - 0.2))]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment(PYTHONPATH=_path()))
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # cells write their checkpoints
            return _cut_off(process)
    if code == 0:
        write_atomic(ended, "")
    return f"ended with exit code {code}; {name}.log has what it said"


def _path() -> str:
    """`PYTHONPATH` with this tree in it: a GPU machine may have nothing installed of ditbench."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def _cut_off(process: subprocess.Popen[bytes]) -> str:
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return "cut off by the time; the same command resumes it"


def main() -> None:
    """`python -m bench.studies.gpu.everything`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * given.minutes - 20
    for name in given.only:
        begin = time.monotonic()
        how = run(name, given.out, max(1.0, PARTS[name].share * (until - begin)))
        print(f"{name}: {how} ({time.monotonic() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
