"""The validation loss of a cell."""

from __future__ import annotations

import torch

from bench.data.pixels import from_images
from bench.data.prompts import to_device
from bench.measure.rows import sampled
from bench.store.seeds import generator
from bench.training.model import LoadedCell, encoded, places
from bench.training.process import process_of


@torch.inference_mode()
def heldout_loss(subject: LoadedCell, *, batch: int = 256) -> dict[str, float]:
    """The loss on a sample of held-out images: `heldout_loss`, and `heldout_loss_bin0` .. by timestep (0 is data).

    It is the loss that the cell was trained on; of two processes or targets, losses are two quantities.

    Image i has its own fixed noise, a function of (seed, i); the k-th image of the sample has t in bin k mod bins.
    """
    evaluate, train, process = subject.config.evaluate, subject.config.train, process_of(subject.config.train)
    count, bins, seed = min(evaluate.heldout, len(subject.data.heldout)), evaluate.bins, evaluate.seed
    chosen = sampled(subject.data.heldout, count, seed=seed, name="validation")
    place = torch.arange(count) % bins
    t = (place + torch.rand(count, generator=generator(seed, "heldout t"))) / bins
    losses = []
    size = subject.pass_size if train.compile == "on" else batch
    for index, kept in places(count, size, train):
        rows = chosen[index]
        x_0 = from_images(torch.from_numpy(subject.data.heldout.exact[rows]))
        noise = torch.stack([torch.randn(subject.shape, generator=generator(seed, "heldout", int(i))) for i in rows])
        prompt = to_device(subject.prompts.rows("heldout", rows), subject.device)
        x_0, noise, times = (part.to(subject.device) for part in (x_0, noise, t[index]))
        with subject.autocast():
            given = encoded(subject.model, prompt)
            loss = process.loss(subject.model, x_0, noise, times, given)
        losses.append(loss[:kept].cpu())
    loss = torch.cat(losses)
    by_bin = {f"heldout_loss_bin{k}": loss[place == k].mean().item() for k in range(bins) if (place == k).any()}
    return {"heldout_loss": sum(by_bin.values()) / len(by_bin), **by_bin}
