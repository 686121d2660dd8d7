"""What the harness costs: its training step against a bare PyTorch loop of the same model, optimiser and EMA.

    python -m bench.studies.overhead [CONFIG] [--windows 40]

Both run in this process in turn, ten steps of the one and ten of the other, on the same weights, batches and noise,
with the first cell of CONFIG on the CPU in float32; each pair gives one ratio of seconds a step. `configs/systems.yaml`
(the default) is a cell of minutes; `configs/quickstart.yaml` is a short one, where Python weighs most. Also what an
observation of the dynamics costs (blocks, gates, gradients, hashes), as a share of the steps between two, and seconds
of one Frechet distance.
A benchmark, not a test: read the ratios, these machines are noisy.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.config.load import load
from bench.config.matrix import expand
from bench.config.spec import CellConfig
from bench.data.pixels import from_images
from bench.measure import metrics
from bench.store import provenance
from bench.studies.loops import WINDOW, first_batches, harness, plain, spread, subject_of, window_seconds
from bench.training import dynamics
from bench.training.digests import tensors_digest
from bench.training.model import LoadedCell
from bench.training.process import process_of

CHANGES = ["variants=[adaln-zero]", "claim=null", "train.device=cpu", "train.precision='32'", "train.compile='off'"]
FEW = {"data.train_count": 2000, "data.heldout_count": 100}  # of scenes: they need not all be painted


def cell_of(matrix: Path) -> CellConfig:
    """The first cell of a matrix as it is timed here."""
    config = expand(load(matrix, CHANGES))[0].config
    return config.changed(FEW) if config.data.source == "scenes" else config


def pairs(subject: LoadedCell, windows: int, folder: Path) -> list[tuple[float, float]]:
    """Seconds a step of the harness and of the bare loop, in turn: after each window of the one comes one of the other.

    Both start from the same weights, batches and noise; the first pair is warm-up.
    """
    steps, bare = WINDOW * (windows + 1), list[float]()
    longer = subject.config.changed({"train.steps": steps + 1})  # the bare loop takes a batch beforehand
    step = plain(replace(subject, model=copy.deepcopy(subject.model), config=longer))

    def window() -> None:
        bare.append(window_seconds(step))

    _, seconds = harness(subject, steps, folder, dict.fromkeys(range(WINDOW, steps + 1, WINDOW), window))
    return list(zip(seconds, bare, strict=True))[1:]


def probe_share(subject: LoadedCell, step: float, count: int = 9) -> float:
    """What an observation costs, the median of `count`, over `train.probe_every` steps of `step` seconds."""
    train, probe = subject.config.train, dynamics.Probe(subject)
    batch, prompt = next(first_batches(subject, 1))
    x = from_images(batch)
    loss = process_of(train).loss(subject.model, x, torch.randn_like(x), torch.rand(len(x)), prompt).mean()
    torch.autograd.backward(loss)
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        dynamics.curves_of(probe.observe()) | dynamics.gradient_curves(dynamics.gradient_norms(subject.model))
        tensors_digest(batch, prompt)
        tensors_digest(x)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds) / (train.probe_every * step)


def frechet_seconds(width: int = 2048, count: int = 5000) -> float:
    """Seconds for one Frechet distance between two sets of random features."""
    rng = np.random.default_rng(0)
    a, b = (metrics.moments(rng.standard_normal((count, width)).astype(np.float32)) for _ in range(2))
    begin = time.perf_counter()
    metrics.frechet_distance(a, b)
    return time.perf_counter() - begin


def measured(config: CellConfig, windows: int) -> dict[str, Any]:
    """All that is printed, without the machine."""
    with tempfile.TemporaryDirectory() as name:
        subject = subject_of(config, Path(name))
        found = pairs(subject, windows, Path(name))
        step = statistics.median(harness for harness, _ in found)
        share = probe_share(subject, step)
    return spread(found) | {
        "windows": windows,
        "harness_step_seconds": round(step, 5),
        "probe_share": round(share, 5),
    }


def main() -> None:
    """`python -m bench.studies.overhead`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", type=Path, default=Path("configs/systems.yaml"))
    parser.add_argument("--windows", type=int, default=40, help=f"of {WINDOW} steps of each loop")
    given = parser.parse_args()
    provenance.imported()  # now: it may take hours
    summary = measured(cell_of(given.config), given.windows)
    summary |= {"frechet_2048_seconds": round(frechet_seconds(), 3), "threads": torch.get_num_threads()}
    print(json.dumps(summary | {"command": provenance.command(), **provenance.about("cpu")}, indent=2))


if __name__ == "__main__":
    main()
