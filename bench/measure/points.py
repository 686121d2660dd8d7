"""The fixed points (x_t, t, prompt) of the excess error, with both optimal denoisers: made once for all cells."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from bench.config.spec import CellConfig
from bench.data.datasets import Dataset
from bench.data.tasks.contract import Task
from bench.measure.rows import sampled
from bench.store.files import digest, make_folder
from bench.store.kept import Warn, load_array, save_array
from bench.store.seeds import generator
from bench.training.flow import interpolate

BATCH = 256


@dataclass(frozen=True)
class Points:
    """n points and what is optimal there.

    Attributes:
        rows: (n,) of the held-out images.
        t: (n,). x_t: (n, 3, S, S).
        conditional: E[x_0 | x_t, prompt]. blind: E[x_0 | x_t]; both (n, 3, S, S).
    """

    rows: np.ndarray
    t: Tensor
    x_t: Tensor
    conditional: Tensor
    blind: Tensor

    @property
    def gap(self) -> float:
        """E|x*_blind - x*_conditional|^2, a mean over pixels: the excess error of a model that ignores its prompt."""
        return float((self.blind - self.conditional).square().mean())


def times(count: int, config: CellConfig, limits: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """t (n,), one of each of n equal shares of the distribution that t has in training, in seeded order.

    Of a task with a range `limits` of its own, of that distribution within it.
    """
    chance, train = generator(config.evaluate.seed, "points t"), config.train
    shares = (torch.arange(count) + torch.rand(count, generator=chance)) / count
    if train.t_std > 0:
        ends = (torch.tensor(limits, dtype=torch.float64).logit() - train.t_mean) / train.t_std
        low, high = torch.special.ndtr(ends).tolist()
        shares = low + (high - low) * shares
    normal = torch.special.ndtri(shares.double().clamp(1e-6, 1 - 1e-6)).float()
    return torch.sigmoid(train.t_mean + train.t_std * normal)[torch.randperm(count, generator=chance)]


def load(data: Dataset, config: CellConfig, cache: Path, warn: Warn = lambda text: None) -> Points:
    """The points of a cell's data and settings, from the cache or made now."""
    assert data.task is not None
    evaluate = config.evaluate
    rows = sampled(data.heldout, evaluate.points, seed=evaluate.seed, name="points")
    limits = data.task.times
    t, x_0 = times(len(rows), config, limits), torch.from_numpy(data.heldout.exact[rows])
    noise = torch.randn(x_0.shape, generator=generator(evaluate.seed, "points noise"))
    assert data.heldout.words is not None
    x_t, words = interpolate(x_0, noise, t), torch.from_numpy(data.heldout.words[rows])
    named = digest([data.digest, *(hashlib.sha256(one.numpy().tobytes()).hexdigest() for one in (x_t, t, words))], 16)
    file = cache / "points" / f"{named}.npy"  # the code of its optima is in data.digest
    make_folder(file.parent)
    with FileLock(file.with_suffix(".lock")):
        kept = load_array(file, warn)
        if kept is None:
            kept = _optima(data.task, x_t, t, words), {}
            save_array(file, kept[0])
    conditional, blind = torch.from_numpy(kept[0])
    return Points(rows, t, x_t, conditional, blind)


@torch.inference_mode()
def _optima(task: Task, x_t: Tensor, t: Tensor, words: Tensor) -> np.ndarray:
    """Both optima (2, n, 3, S, S)."""
    both: np.ndarray = torch.stack([task.denoise(x_t, t, words), task.denoise_blind(x_t, t)]).numpy()
    return both
