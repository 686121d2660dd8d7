"""What the harness costs: its training step against a bare PyTorch loop of the same model, optimiser and EMA.

    python -m bench.studies.overhead [--rounds 6] [--steps 40] [--small]

Both run in this process in turn (A B A B ...), on the same weights, batches and noise, at the size of
`configs/quickstart.yaml`; each round gives one ratio of seconds a step. `--small` is the size of short cells, where
Python weighs most: width 48, depth 3, patch 4, batch 64 and images of 12 px, the corners of scenes. Also what an
observation of the dynamics costs (blocks, gates, gradients, hashes), as a share of the steps between two, and the
Frechet distance at 2048 dimensions.
A benchmark, not a test: read the ratios, these machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.config.load import load
from bench.config.matrix import expand
from bench.config.spec import CellConfig
from bench.data import datasets, prompts
from bench.data.datasets import Dataset
from bench.data.pixels import from_images
from bench.data.prompts import Prompts
from bench.measure import metrics
from bench.store import provenance
from bench.store.journal import Journal, curves
from bench.training import dynamics
from bench.training.bare import bare_step
from bench.training.batches import Batches, TrainImages
from bench.training.callback import CellCallback
from bench.training.digests import tensors_digest
from bench.training.ema import Ema
from bench.training.fit import fit
from bench.training.model import LoadedCell, build
from bench.training.module import CellModule
from bench.training.process import process_of

SMALL = (
    "backbone={name: DiT-XS/4, width: 48, depth: 3, heads: 3}",
    "data.image_size=16",
    "train.batch=64",
    "train.drop=0",
    "prompt.length=5",
    "prompt.depth=0",
)
CORNER = 12  # pixels a side of `--small`; scenes have more
WINDOW = 10  # steps; the first window of a round is warm-up in both


def cropped(data: Dataset, size: int) -> Dataset:
    """The data with the upper left corners of its images, `size` pixels a side."""
    train, heldout = (
        replace(split, images=np.ascontiguousarray(split.images[:, :size, :size]))
        for split in (data.train, data.heldout)
    )
    return replace(data, train=train, heldout=heldout)


def harness_step(config: CellConfig, data: Dataset, prompted: Prompts, steps: int, folder: Path) -> float:
    """Median seconds a step of the harness, over windows after the first."""
    train = replace(config.train, steps=steps, log_every=WINDOW, checkpoint_every=steps)
    module = CellModule(build(config, prompted.kind), train, seed=0)
    journal = Journal(folder / f"{time.monotonic_ns()}.jsonl")
    checkpoints = folder / "checkpoints"
    callback = CellCallback(train, journal, checkpoints, grid_every=steps + 1, write_grid=lambda step: None)
    fit(module, Batches(data, prompted, batch=train.batch, steps=steps, seed=0), callback, resume=None)
    rates = curves(journal.path)["train_images_per_second"].values()
    journal.close()
    return train.batch / statistics.median(rates)


def bare_seconds(config: CellConfig, data: Dataset, prompted: Prompts, steps: int) -> float:
    """Median seconds a step of the plainest loop that does the same work."""
    train, process = config.train, process_of(config.train)
    model = build(config, prompted.kind)
    ema, images = Ema(model, train.ema), TrainImages(data, prompted)
    order = enumerate(Batches(data, prompted, batch=train.batch, steps=steps, seed=0).sampler)

    def loss() -> Tensor:
        step, indices = next(order)
        batch, prompt = images.__getitems__(indices)
        x_0 = from_images(batch)
        chance = process.chance(0, step, x_0.shape, drop=train.drop, device="cpu")
        prompt = prompted.kind.drop(prompt, chance.dropped)
        return process.loss(model, x_0, chance.noise, chance.t, prompt).mean()

    take = bare_step(model, loss, train)
    seconds, begin = [], time.perf_counter()
    for step in range(1, steps + 1):
        take()
        ema.update(step)
        if step % WINDOW == 0:
            seconds.append((time.perf_counter() - begin) / WINDOW)
            begin = time.perf_counter()
    return statistics.median(seconds[1:])


def probe_share(config: CellConfig, data: Dataset, prompted: Prompts, step: float, count: int = 9) -> float:
    """What an observation costs, the median of `count`, over `train.probe_every` steps of `step` seconds."""
    subject = LoadedCell(build(config, prompted.kind), data, prompted, config, torch.device("cpu"))
    probe, images = dynamics.Probe(subject), TrainImages(data, prompted)
    batch, prompt = images.__getitems__(list(range(config.train.batch)))
    x = from_images(batch)
    loss = process_of(config.train).loss(subject.model, x, torch.randn_like(x), torch.rand(len(x)), prompt).mean()
    torch.autograd.backward(loss)
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        dynamics.curves_of(probe.observe()) | dynamics.gradient_curves(dynamics.gradient_norms(subject.model))
        tensors_digest(batch, prompt)
        tensors_digest(x)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds) / (config.train.probe_every * step)


def frechet_seconds(width: int = 2048, count: int = 5000) -> float:
    """Seconds for one Frechet distance between two sets of random features."""
    rng = np.random.default_rng(0)
    a, b = (metrics.moments(rng.standard_normal((count, width)).astype(np.float32)) for _ in range(2))
    begin = time.perf_counter()
    metrics.frechet_distance(a, b)
    return time.perf_counter() - begin


def main() -> None:
    """`python -m bench.studies.overhead`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    parser.add_argument("--small", action="store_true", help="the size of short cells")
    given = parser.parse_args()
    provenance.imported()  # now: it may take hours
    changes = ["variants=[adaln-zero]", "data.train_count=2000", "data.heldout_count=100"]
    changes += ["train.device=cpu", "train.precision='32'", "train.compile='off'"]
    changes += SMALL if given.small else ()
    config = expand(load(given.config, changes))[0].config
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = datasets.load(datasets.prepare(config.data, folder))
        prompted = prompts.prepare(data, config.prompt, folder)
        if given.small:
            data, config = cropped(data, CORNER), config.changed({"data.image_size": CORNER})
        ratios, steps = [], []
        for turn in range(given.rounds):
            pair: list[Callable[[], float]] = [
                lambda: harness_step(config, data, prompted, given.steps, folder),
                lambda: bare_seconds(config, data, prompted, given.steps),
            ]
            times = [run() for run in (pair if turn % 2 == 0 else pair[::-1])]
            harness, bare = times if turn % 2 == 0 else times[::-1]
            ratios.append(harness / bare)
            steps.append(harness)
            print(
                f"round {turn + 1}: harness {harness * 1e3:.1f} ms, bare {bare * 1e3:.1f} ms, ratio {ratios[-1]:.3f}",
                flush=True,
            )
        share = probe_share(config, data, prompted, statistics.median(steps))
    summary = {
        "ratio_median": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "probe_share": round(share, 5),
        "frechet_2048_seconds": round(frechet_seconds(), 3),
        "threads": torch.get_num_threads(),
        **provenance.about("cpu"),
    }
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
