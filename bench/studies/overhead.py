"""What the harness costs: its training step against a bare PyTorch loop of the same model, optimiser and EMA.

    python -m bench.studies.overhead [--rounds 6] [--steps 40]

Both run in this process in turn (A B A B ...), on the same weights, batches and noise, at the size of
`configs/quickstart.yaml`; each round gives one ratio of seconds a step. Also a look at the dynamics (blocks, gates,
gradients, hashes) as a share of the steps between two looks, and the Frechet distance at 2048 dimensions.
A benchmark, not a test: read the ratios, these machines are noisy.
"""

from __future__ import annotations

import argparse
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
from bench.data import datasets, prompts
from bench.measure import metrics
from bench.store import provenance
from bench.store.journal import Journal, curves
from bench.training import dynamics
from bench.training.batches import Batches, TrainImages
from bench.training.callback import CellCallback
from bench.training.digests import tensors_digest
from bench.training.ema import Ema
from bench.training.fit import fit
from bench.training.flow import flow_loss, from_images, sample_noise
from bench.training.model import LoadedCell, build
from bench.training.module import CellModule

WINDOW = 10  # steps; the first window of a round is warm-up in both


def harness_step(config: CellConfig, data: Any, told: Any, steps: int, folder: Path) -> float:
    """Median seconds a step of the harness, over windows after the first."""
    train = replace(config.train, steps=steps, log_every=WINDOW, checkpoint_every=steps)
    module = CellModule(build(config, told.kind), train, seed=0)
    journal = Journal(folder / f"{time.monotonic_ns()}.jsonl")
    keeper = CellCallback(train, journal, folder / "checkpoints", grid_every=steps + 1, draw_grid=lambda step: None)
    fit(module, Batches(data, told, batch=train.batch, steps=steps, seed=0), keeper, resume=None)
    rates = curves(journal.path)["train_images_per_second"].values()
    journal.close()
    return train.batch / statistics.median(rates)


def bare_step(config: CellConfig, data: Any, told: Any, steps: int) -> float:
    """Median seconds a step of the plainest loop that does the same work."""
    train = config.train
    model = build(config, told.kind)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=train.lr, betas=(train.betas[0], train.betas[1]), weight_decay=0.0
    )
    ema, pictures = Ema(model, train.ema), TrainImages(data, told)
    order = Batches(data, told, batch=train.batch, steps=steps, seed=0).sampler
    seconds, begin = [], time.perf_counter()
    for step in range(steps):
        batch, prompt = pictures.__getitems__(order.indices(step).tolist())
        x_0 = from_images(batch)
        chance = sample_noise(0, step, x_0.shape, t_mean=0.0, t_std=1.0, drop=train.drop, device="cpu")
        loss = flow_loss(model, x_0, chance.noise, chance.t, told.kind.drop(prompt, chance.dropped)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip)
        optimizer.step()
        ema.update(step + 1)
        if (step + 1) % WINDOW == 0:
            seconds.append((time.perf_counter() - begin) / WINDOW)
            begin = time.perf_counter()
    return statistics.median(seconds[1:])


def look_share(config: CellConfig, data: Any, told: Any, step: float, looks: int = 9) -> float:
    """What a look costs, the median of `looks`, over `train.probe_every` steps of `step` seconds."""
    subject = LoadedCell(build(config, told.kind), data, told, config, torch.device("cpu"))
    probe, pictures = dynamics.Probe(subject), TrainImages(data, told)
    batch, prompt = pictures.__getitems__(list(range(config.train.batch)))
    x = from_images(batch)
    flow_loss(subject.model, x, torch.randn_like(x), torch.rand(len(x)), prompt).mean().backward()
    seconds = []
    for _ in range(looks):
        begin = time.perf_counter()
        dynamics.numbers(probe.look()) | dynamics.named(dynamics.gradients(subject.model))
        tensors_digest(batch, prompt)
        tensors_digest(x)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds) / (config.train.probe_every * step)


def frechet_seconds(width: int = 2048, count: int = 5000) -> float:
    """Seconds for one Frechet distance between two sets of random features."""
    draws = np.random.default_rng(0)
    a, b = (metrics.moments(draws.standard_normal((count, width)).astype(np.float32)) for _ in range(2))
    begin = time.perf_counter()
    metrics.frechet_distance(a, b)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--config", type=Path, default=Path("configs/quickstart.yaml"))
    given = parser.parse_args()
    changes = ["variants=[adaln-zero]", "data.train_count=2000", "data.heldout_count=100"]
    changes += ["train.device=cpu", "train.precision='32'", "train.compile='off'"]
    config = expand(load(given.config, changes))[0].config
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = datasets.load(datasets.prepare(config.data, folder))
        told = prompts.prepare(data, config.prompt, folder)
        ratios, steps = [], []
        for turn in range(given.rounds):
            pair = [
                lambda: harness_step(config, data, told, given.steps, folder),
                lambda: bare_step(config, data, told, given.steps),
            ]
            times = [run() for run in (pair if turn % 2 == 0 else pair[::-1])]
            harness, bare = times if turn % 2 == 0 else times[::-1]
            ratios.append(harness / bare)
            steps.append(harness)
            print(
                f"round {turn + 1}: harness {harness * 1e3:.1f} ms, bare {bare * 1e3:.1f} ms, ratio {ratios[-1]:.3f}",
                flush=True,
            )
        look = look_share(config, data, told, statistics.median(steps))
    summary = {
        "ratio_median": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "look_share": round(look, 5),
        "frechet_2048_seconds": round(frechet_seconds(), 3),
        "threads": torch.get_num_threads(),
        **provenance.about("cpu"),
    }
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
