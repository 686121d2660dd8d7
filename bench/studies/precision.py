"""What `train.precision: bf16` saves on a CPU: bare training steps of one cell in both arithmetics, in turn.

    python -m bench.studies.precision [CONFIG] [--windows 20]

The first cell of CONFIG, each from the same weights, batches and noise; a pair of windows of ten steps gives one ratio
of seconds a step, bf16 over float32. Under bf16 Linear layers multiply in bf16; attention is in float32 on a CPU (see
`architectures.layers.attend`).
A benchmark, not a test: read the ratios, these machines are noisy.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from bench.store import provenance
from bench.studies.loops import WINDOW, plain, spread, subject_of, window_seconds
from bench.studies.overhead import cell_of
from bench.training.model import LoadedCell


def pairs(subject: LoadedCell, windows: int) -> list[tuple[float, float]]:
    """Seconds a step in bf16 and in float32, window by window; the first pair is warm-up."""
    changes = {"train.steps": WINDOW * (windows + 1) + 1}  # a bare loop takes a batch beforehand
    half, whole = (
        plain(replace(subject, model=copy.deepcopy(subject.model), config=subject.config.changed(changes | one)))
        for one in ({"train.precision": "bf16"}, {"train.precision": "32"})
    )
    return [(window_seconds(half), window_seconds(whole)) for _ in range(windows + 1)][1:]


def main() -> None:
    """`python -m bench.studies.precision`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", type=Path, default=Path("configs/systems.yaml"))
    parser.add_argument("--windows", type=int, default=20, help=f"of {WINDOW} steps in each arithmetic")
    given = parser.parse_args()
    provenance.imported()  # now: it takes minutes
    with tempfile.TemporaryDirectory() as name:
        found = pairs(subject_of(cell_of(given.config), Path(name)), given.windows)
    half, whole = zip(*found, strict=True)
    summary = spread(found) | {
        "windows": given.windows,
        "step_seconds_32": round(statistics.median(whole), 5),
        "step_seconds_bf16": round(statistics.median(half), 5),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(summary | {"command": provenance.command(), **provenance.about("cpu")}, indent=2))


if __name__ == "__main__":
    main()
