"""A cell on its task: the whole measurement at the end, and a small one again and again over its training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from bench.data.prompts import to_device
from bench.measure import control, points, task
from bench.measure.evaluate import Measured
from bench.measure.passes import Pass
from bench.measure.rows import sampled
from bench.measure.sampling import Say, initial_noise, sample_exact
from bench.measure.sets import SampleSet, generate_set, heldout_set, sampling_rate
from bench.training.model import LoadedCell
from bench.training.process import process_of

MASTERED = 0.9  # of `right`
POINTS = 256  # of the excess error in a curve


def measure(subject: LoadedCell, folder: Path, cache: Path, say: Say, warn: Say) -> Measured:
    """Excess error, score and control, over held-out and unseen prompts, and the rate of sampling both."""
    say("excess error")
    data, evaluate = subject.data, subject.config.evaluate
    requests = [heldout_set(subject)]
    if data.unseen is not None:
        rows = sampled(data.unseen, evaluate.samples, seed=evaluate.seed, name="unseen")
        requests.append(SampleSet("unseen", "unseen", rows))
    samples, passes = {}, list[Pass]()
    for one in requests:
        made, took = generate_set(subject, one, folder, say, warn)
        samples[one.split], passes = (torch.from_numpy(made), one.indices), passes + took
    found = task.measure(subject, points.load(data, subject.config, cache, warn), samples)
    return found | Measured({}, sampling_rate(subject, passes))


def measured(subject: LoadedCell) -> bool:
    """Whether a cell's data have capability curves: a task's and scenes."""
    return subject.data.task is not None or control.judged(subject)


def curve(subject: LoadedCell, cache: Path) -> Callable[[], dict[str, float]] | None:
    """What measures a point of the curves of a cell on a task or on scenes, and its seconds; None on other data."""
    if not measured(subject):
        return None
    point = _of_task(subject, cache) if subject.data.task is not None else control.curve(subject, cache)

    def now() -> dict[str, float]:
        start = time.perf_counter()
        return point() | {"curve_seconds": time.perf_counter() - start}

    return now


def _of_task(subject: LoadedCell, cache: Path) -> Callable[[], dict[str, float]]:
    """What measures a point of the curves: excess error, score and control on fixed small sets."""
    data, config = subject.data, subject.config
    assert data.task is not None and data.heldout.z is not None
    fixed, count = points.load(data, config, cache), config.evaluate.curve_samples
    rows = heldout_set(subject).indices[:count]
    every = torch.from_numpy(np.array(data.heldout.z))
    z, guesses = every[rows], task.guesses(data.task, every)
    noise = initial_noise(config.evaluate.seed, range(len(rows)), subject.shape).to(subject.device)
    prompt = to_device(subject.prompts.rows("heldout", rows), subject.device)
    few = (fixed.blind[:POINTS] - fixed.conditional[:POINTS]).square().mean().item()

    def now() -> dict[str, float]:
        own = data.task
        assert own is not None
        excess = task.errors(subject, fixed, POINTS).mean().item()
        with subject.autocast():
            samples = sample_exact(
                subject.model, subject.prompts.kind, prompt, noise, config.sample, process_of(config.train)
            )
        right = task.control(own, samples.float().cpu(), z, guesses)
        found = {"excess_error": excess} | {name: right[name][0] for name in control.IN_CURVE if name in right}
        return found | ({"score": 1 - excess / few} if few > 0 else {})

    return now


def reached(history: Mapping[str, Mapping[int, float]], batch: int, steps: int) -> dict[str, float]:
    """`images_to_90`, the budget where that is never reached, and `mastered`, 0 there; nothing without curves."""
    right = history.get("right", {})
    if not right:
        return {}
    first = min((step for step, value in right.items() if value >= MASTERED), default=None)
    return {"images_to_90": float(batch * (first or steps)), "mastered": float(first is not None)}
