"""Samplers of the flow's ODE, classifier-free guidance, and batches of samples.

The samplers are written out: five lines each, with the same steps for every scheme and no state of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from architectures import FeatureBatch, PromptKind, index_prompt
from bench.config.schema import Sample
from bench.data.datasets import Dataset
from bench.data.pixels import to_images
from bench.data.prompts import to_device
from bench.measure import rows
from bench.measure.ancestral import ancestral, ddim
from bench.measure.images import Images, save_grid
from bench.measure.passes import Pass, timed
from bench.store.kept import save_array
from bench.store.seeds import generator
from bench.training.flow import Flow, Velocity
from bench.training.model import LoadedCell, encoded, places
from bench.training.process import Process, process_of
from bench.training.signals import beat
from bench.training.stopwatch import Stopwatch


def guided(model: Velocity, guidance: float) -> Velocity:
    """v_null + w (v - v_null), both in one pass of `with_null` prompts (Ho and Salimans, arXiv 2207.12598).

    w = 1 needs no second half. Of channels beyond those of x, DDPM's variance, it keeps what the prompt gives.
    """
    if guidance == 1.0:
        return model

    def velocity(x: Tensor, t: Tensor, both: Any) -> Tensor:
        v, v_null = model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        own = slice(x.shape[1])
        mean = v_null[:, own] + guidance * (v[:, own] - v_null[:, own])
        return mean if v.shape[1] == x.shape[1] else torch.cat([mean, v[:, x.shape[1] :]], dim=1)

    return velocity


def with_null(kind: PromptKind, prompt: Any, noise: Tensor, guidance: float) -> Any:
    """What `guided` gives a model: [prompt ; null], or the prompt alone where w = 1."""
    return prompt if guidance == 1.0 else _join(prompt, kind.null(len(noise), noise.device))


def exact(model: Velocity) -> Velocity:
    """The model with its output in the dtype of x: guidance and solver do not compute in bf16."""
    return lambda x, t, prompt: model(x, t, prompt).to(x.dtype)


def _join(a: Any, b: Any) -> Any:
    if isinstance(a, FeatureBatch):
        return FeatureBatch(*(torch.cat([p, q.to(p.dtype)]) for p, q in zip(a, b, strict=True)))
    return torch.cat([a, b])


def euler(velocity: Velocity, x: Tensor, prompt: Any, steps: int) -> Tensor:
    """One evaluation a step: x <- x + (t' - t) v(x, t), from t = 1 to 0."""
    for t, t_next in _times(steps):
        x = x + (t_next - t) * velocity(x, _full(x, t), prompt)
    return x


def heun(velocity: Velocity, x: Tensor, prompt: Any, steps: int, *, onto_data: bool = False) -> Tensor:
    """Two evaluations a step: the mean slope of both ends, from t = 1 to 0.

    Args:
        velocity: v(x, t, prompt).
        x: noise.
        prompt: of the samples.
        steps: of the solver.
        onto_data: makes the last step Euler's, onto the predicted image, since (x - x^) / t has no value at t = 0; as
            EDM (arXiv 2206.00364, algorithm 1) and JiT (arXiv 2511.13720) end.
    """
    for t, t_next in _times(steps):
        v = velocity(x, _full(x, t), prompt)
        if onto_data and t_next == 0:
            return x + (t_next - t) * v
        v_next = velocity(x + (t_next - t) * v, _full(x, t_next), prompt)
        x = x + (t_next - t) * (v + v_next) / 2
    return x


VELOCITY = Flow()
Say = Callable[[str], None]
Solver = Callable[[Velocity, Tensor, Any, int], Tensor]
SAMPLERS: dict[str, dict[str, Solver]] = {  # of a process, by name
    "flow": {"euler": euler, "heun": heun},
    "ddpm": {"ddpm": ancestral, "ddim": ddim},
}


def solver(name: str, process: Process) -> Solver:
    """The sampler of that name, for a model of that process."""
    if isinstance(process, Flow) and (name, process.target) == ("heun", "data"):
        return partial(heun, onto_data=True)
    return SAMPLERS[process.name][name]


def _times(steps: int) -> Iterator[tuple[float, float]]:
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
    for pair in itertools.pairwise(times):
        beat()  # a solver's step is the longest that sampling takes without a sign of life
        yield pair


def _full(x: Tensor, t: float) -> Tensor:
    return torch.full((len(x),), t, device=x.device)


def initial_noise(seed: int, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Noise (n, C, H, W) of the samples `indices`, each a function of (seed, index): not of batch size or scheme."""
    return torch.stack([torch.randn(*shape, generator=generator(seed, "sample", index)) for index in indices])


@torch.inference_mode()
def sample(
    model: Velocity, kind: PromptKind, prompt: Any, noise: Tensor, how: Sample, process: Process = VELOCITY
) -> Tensor:
    """Samples uint8 (B, H, W, C) for prompts and noise (B, C, H, W), of a model of that process."""
    return to_images(sample_exact(model, kind, prompt, noise, how, process))


@torch.inference_mode()
def sample_exact(
    model: Velocity,
    kind: PromptKind,
    prompt: Any,
    noise: Tensor,
    how: Sample,
    process: Process = VELOCITY,
    watch: Stopwatch | None = None,
) -> Tensor:
    """Samples x_0 (B, C, H, W), not clipped, of a model of that process; a watch that runs times each evaluation."""
    prompts = with_null(kind, prompt, noise, how.guidance)
    given = encoded(model, prompts, how.modulation_guidance)  # once: it is the same at every step
    field = guided(process.field(exact(model)), how.guidance)  # guidance acts on the velocity, or the noise
    field = field if watch is None else timed(field, watch)
    return solver(how.sampler, process)(field, noise.clone(), given, how.steps)  # made here: one graph for all steps


def prompt_texts(data: Dataset, indices: NDArray[np.int64], split: str = "heldout") -> list[str]:
    """The prompts of a split's images as text."""
    own = data.splits[split]
    if own.captions is not None:
        return [own.captions[index] for index in indices]
    assert data.classes is not None and own.labels is not None
    return [data.classes[own.labels[index]] for index in indices]


def generate(
    subject: LoadedCell, prompt: Any, noise: Tensor, *, batch: int, progress: Callable[[int], None] = lambda done: None
) -> Images:
    """Samples uint8 (n, H, W, 3), each from its own prompt and noise (n, C, H, W).

    Args:
        subject: the trained cell.
        prompt: n prompts of the cell's kind.
        noise: (n, C, H, W).
        batch: samples at once.
        progress: called with the number of samples done.
    """
    parts: list[Images] = []
    given = (
        Batch(index_prompt(prompt, torch.from_numpy(members)), noise[members], count)
        for members, count in places(len(noise), batch, subject.config.train)
    )
    for samples, _ in subject.ranks.shared(sampled_batch, subject, given):
        parts.append(samples)
        progress(sum(map(len, parts)))
    return np.concatenate(parts)


@dataclass(frozen=True)
class Batch:
    """What is sampled at once.

    Attributes:
        prompt: B prompts of the cell's kind.
        noise: (B, C, H, W).
        count: of the first samples, which are kept.
        guidance: None is the cell's own.
        steps: of the solver; None is the cell's own.
        exact: whether samples are x_0 (B, C, H, W) and no images.
    """

    prompt: Any
    noise: Tensor
    count: int
    guidance: float | None = None
    steps: int | None = None
    exact: bool = False


def sampled_batch(subject: LoadedCell, batch: Batch) -> tuple[Images, Pass]:
    """The samples of a batch, and how long its pass took."""
    settings = subject.config.sample
    if batch.guidance is not None:
        settings = replace(settings, guidance=batch.guidance)
    if batch.steps is not None:
        settings = replace(settings, steps=batch.steps)
    prompt = to_device(batch.prompt, subject.device)
    watch = Stopwatch(subject.device)
    watch.start()
    with subject.autocast():
        noise, process = batch.noise.to(subject.device), process_of(subject.config.train)
        samples = sample_exact(subject.model, subject.prompts.kind, prompt, noise, settings, process, watch)
        samples = samples if batch.exact or subject.data.latents else to_images(samples)
    kept = samples[: batch.count].cpu()
    watch.stop()  # a decoder is no part of the model's rate
    if subject.data.latents and not batch.exact:
        kept = subject.data.images_of(samples[: batch.count])
    return np.ascontiguousarray(kept.numpy()), Pass.of(len(batch.noise), watch.seconds())


def write_sample_grid(subject: LoadedCell, folder: Path, name: str) -> str:
    """Writes `samples/<name>.png` with `.npy` and `.json`; returns the PNG's path relative to the cell's folder."""
    config = subject.config
    indices = rows.grid(subject.data, config.sample.grid)
    prompt = subject.prompts.rows("heldout", indices)
    noise = initial_noise(config.evaluate.seed, range(len(indices)), subject.shape)
    samples = generate(subject, prompt, noise, batch=config.sample.batch)
    path, texts = f"samples/{name}.png", prompt_texts(subject.data, indices)
    how: dict[str, Any] = {"guidance": config.sample.guidance, "seed": config.evaluate.seed}
    save_grid(folder / path, samples, texts, **how)
    if (
        name == "grid" and str(config.data.source) == "task"
    ):  # what the prompts' images really are, for the sheet of samples
        save_array(folder / "samples/true.npy", subject.data.heldout.images[indices], prompts=texts, **how)
    return path
