"""The validation loss of a cell."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.data.pixels import from_images
from bench.data.prompts import to_device
from bench.measure.rows import sampled
from bench.store.seeds import generator
from bench.training.model import LoadedCell, encoded, places
from bench.training.process import process_of

BATCH = 256  # images at once, but for a compiled model


@torch.inference_mode()
def heldout_loss(subject: LoadedCell) -> dict[str, float]:
    """The loss on a sample of held-out images: `heldout_loss`, and `heldout_loss_bin0` .. by timestep (0 is data).

    It is the loss that the cell was trained on; of two processes or targets, losses are two quantities.

    Image i has its own fixed noise, a function of (seed, i); the k-th image of the sample has t in bin k mod bins.
    """
    evaluate, train = subject.config.evaluate, subject.config.train
    count, bins, seed = min(evaluate.heldout, len(subject.data.heldout)), evaluate.bins, evaluate.seed
    chosen = sampled(subject.data.heldout, count, seed=seed, name="validation")
    place = torch.arange(count) % bins
    t = (place + torch.rand(count, generator=generator(seed, "heldout t"))) / bins
    size = subject.pass_size if train.compile == "on" else BATCH
    parts = ((chosen[index], t[index], kept) for index, kept in places(count, size, train))
    loss = torch.cat(list(subject.ranks.shared(_losses, subject, parts)))
    by_bin = {f"heldout_loss_bin{k}": loss[place == k].mean().item() for k in range(bins) if (place == k).any()}
    return {"heldout_loss": sum(by_bin.values()) / len(by_bin), **by_bin}


@torch.inference_mode()
def _losses(subject: LoadedCell, part: tuple[NDArray[np.int64], Tensor, int]) -> Tensor:
    """Losses of the first `kept` of a batch: rows of the held-out images, and their t."""
    rows, t, kept = part
    x_0 = from_images(torch.from_numpy(subject.data.heldout.exact[rows]))
    seed = subject.config.evaluate.seed
    noise = torch.stack([torch.randn(subject.shape, generator=generator(seed, "heldout", int(i))) for i in rows])
    prompt = to_device(subject.prompts.rows("heldout", rows), subject.device)
    x_0, noise, t = (one.to(subject.device) for one in (x_0, noise, t))
    with subject.autocast():
        given = encoded(subject.model, prompt)
        loss = process_of(subject.config.train).loss(subject.model, x_0, noise, t, given)
    return loss[:kept].cpu()
