"""Measuring a trained cell: held-out loss, pictures drawn from fixed noise and prompts, and what they are worth."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from architectures import index_prompt
from bench import metrics
from bench.cost import Stopwatch, middle
from bench.data import Dataset
from bench.diffusion import flow_loss, from_pictures, generator, sample, starting_noise
from bench.files import write_atomic, write_json
from bench.prompts import Prompts, to_device

Say = Callable[[str], None]
MOST_RESAMPLED = 1000  # pictures


@dataclass(frozen=True)
class Subject:
    """A cell's model in evaluation, with what it is measured on.

    Attributes:
        model: with the averaged weights in place.
        config: the cell's resolved config.
        device: where the model is.
    """

    model: Any
    data: Dataset
    prompts: Prompts
    config: dict[str, Any]
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int]:
        return (3, self.data.image_size, self.data.image_size)

    def autocast(self) -> Any:
        low = self.config["train"]["precision"] == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low)


# --- prompts to draw ------------------------------------------------------------------------------------------------


def chosen(data: Dataset, count: int) -> np.ndarray:
    """Held-out pictures whose prompts are drawn, (count,): one class after the other, or as they come."""
    labels = data.heldout.labels
    if labels is None:
        return np.arange(count) % len(data.heldout)
    by_class = [np.flatnonzero(labels == index) for index in np.unique(labels)]
    turns = [(by_class[k % len(by_class)], k // len(by_class)) for k in range(count)]
    return np.array([members[turn % len(members)] for members, turn in turns])


def texts(data: Dataset, indices: np.ndarray, split: str = "heldout") -> list[str]:
    """What the prompts of a split's pictures say."""
    own = data.splits[split]
    if own.captions is not None:
        return [own.captions[index] for index in indices]
    assert data.classes is not None and own.labels is not None
    return [data.classes[own.labels[index]] for index in indices]


# --- drawing --------------------------------------------------------------------------------------------------------


def draw(
    subject: Subject, prompt: Any, noise: Tensor, *, batch: int, told: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Pictures uint8 (n, H, W, 3), each from its own prompt and noise (n, C, H, W); `told` hears how many are done."""
    parts: list[np.ndarray] = []
    for pictures, _ in _drawn(subject, prompt, noise, batch):
        parts.append(pictures)
        told(sum(map(len, parts)))
    return np.concatenate(parts)


def _drawn(
    subject: Subject, prompt: Any, noise: Tensor, batch: int, guidance: float | None = None
) -> Iterator[tuple[np.ndarray, tuple[int, float]]]:
    """Yields (pictures, (drawn, seconds)) a batch; a compiled model sees one shape: the last batch is filled up."""
    settings = {key: subject.config["sample"][key] for key in ("sampler", "steps", "guidance")}
    settings |= {"guidance": guidance} if guidance is not None else {}
    compiled = subject.config["train"]["compile"] == "on"
    for start in range(0, len(noise), batch):
        wanted = min(batch, len(noise) - start)
        rows = np.minimum(np.arange(start, start + (batch if compiled else wanted)), len(noise) - 1)
        part = to_device(index_prompt(prompt, torch.from_numpy(rows)), subject.device)
        watch = Stopwatch(subject.device)
        watch.start()
        with subject.autocast():
            drawn = sample(subject.model, subject.prompts.kind, part, noise[rows].to(subject.device), **settings)
        pictures = drawn[:wanted].cpu()
        watch.stop()
        yield pictures.numpy(), (len(rows), watch.seconds()[0])


def draw_grid(subject: Subject, folder: Path, name: str) -> str:
    """Draws the sample grid as `samples/<name>.png`, its pictures as `.npy`, its prompts as `.json`; returns the PNG's
    path relative to the cell's folder."""
    config = subject.config
    indices = chosen(subject.data, config["sample"]["grid"])
    prompt = subject.prompts.rows("heldout", indices)
    noise = starting_noise(config["evaluate"]["seed"], range(len(indices)), subject.shape)
    pictures = draw(subject, prompt, noise, batch=config["sample"]["batch"])
    save_grid(folder / "samples" / f"{name}.png", pictures, texts(subject.data, indices), config)
    return f"samples/{name}.png"


def save_grid(path: Path, pictures: np.ndarray, prompts: list[str], config: dict[str, Any]) -> None:
    """A grid as PNG, its pictures (n, H, W, 3) beside it and what they show."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, png(tile(pictures)))
    np.save(path.with_suffix(".npy"), pictures)
    about = {"prompts": prompts, "guidance": config["sample"]["guidance"], "seed": config["evaluate"]["seed"]}
    write_json(path.with_suffix(".json"), about)


def tile(pictures: np.ndarray, columns: int | None = None, scale: int | None = None) -> np.ndarray:
    """Pictures (n, H, W, 3) side by side, enlarged to be seen, with a white line between."""
    n, height, width, _ = pictures.shape
    columns = columns or min(n, 6)
    scale = scale or max(1, 96 // height)
    big = pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    rows = -(-n // columns)
    cell_h, cell_w = height * scale + 2, width * scale + 2
    canvas = np.full((rows * cell_h, columns * cell_w, 3), 255, dtype=np.uint8)
    for k, picture in enumerate(big):
        y, x = (k // columns) * cell_h, (k % columns) * cell_w
        canvas[y : y + height * scale, x : x + width * scale] = picture
    return canvas


def png(picture: np.ndarray) -> bytes:
    """An RGB picture (H, W, 3) as PNG."""
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


# --- measuring ------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def heldout_loss(subject: Subject, *, batch: int = 256) -> dict[str, float]:
    """The flow-matching loss on held-out pictures: `heldout_loss`, and `heldout_loss_bin0` .. by timestep (0 is data).

    Picture i has its own fixed noise, and t in bin i mod bins: functions of (seed, i), equal for every cell.
    """
    evaluate = subject.config["evaluate"]
    count, bins, seed = min(evaluate["heldout"], len(subject.data.heldout)), evaluate["bins"], evaluate["seed"]
    place = torch.arange(count) % bins
    t = (place + torch.rand(count, generator=generator(seed, "heldout t"))) / bins
    losses = []
    for start in range(0, count, batch):
        rows = np.arange(start, min(start + batch, count))
        x_0 = from_pictures(torch.from_numpy(subject.data.heldout.images[rows]))
        noise = torch.stack([torch.randn(subject.shape, generator=generator(seed, "heldout", int(i))) for i in rows])
        prompt = to_device(subject.prompts.rows("heldout", rows), subject.device)
        x_0, noise, times = (part.to(subject.device) for part in (x_0, noise, t[rows]))
        with subject.autocast():
            losses.append(flow_loss(subject.model, x_0, noise, times, prompt).cpu())
    loss = torch.cat(losses)
    by_bin = {f"heldout_loss_bin{k}": loss[place == k].mean().item() for k in range(bins) if (place == k).any()}
    return {"heldout_loss": sum(by_bin.values()) / len(by_bin), **by_bin}


@dataclass(frozen=True)
class Wanted:
    """A set of pictures to draw: picture k from noise k and the prompt of picture `indices[k]` of a split.

    Attributes:
        name: of the set, and of its folder. guidance: None is the cell's own.
    """

    name: str
    split: str
    indices: np.ndarray
    guidance: float | None = None


def heldout_set(subject: Subject) -> Wanted:
    """The pictures that quality is made of."""
    return Wanted("heldout", "heldout", chosen(subject.data, subject.config["evaluate"]["samples"]))


def draw_set(subject: Subject, wanted: Wanted, folder: Path, say: Say) -> tuple[np.ndarray, list[float]]:
    """The pictures of a set, uint8 (n, H, W, 3), and images/s of each window after the first.

    Kept in parts as they are finished, so that a cell that dies here goes on.
    """
    config, count = subject.config, len(wanted.indices)
    batch, where = config["sample"]["batch"], folder / "generated" / wanted.name
    parts, rates = [], []
    for start in range(0, count, batch):
        rows = np.arange(start, min(start + batch, count))
        kept, timed = where / f"part-{start:06d}.npy", where / f"part-{start:06d}.json"
        if not timed.exists():
            noise = starting_noise(config["evaluate"]["seed"], rows.tolist(), subject.shape)
            prompt = subject.prompts.rows(wanted.split, wanted.indices[rows])
            ((pictures, (drawn, seconds)),) = _drawn(subject, prompt, noise, batch, wanted.guidance)
            kept.parent.mkdir(parents=True, exist_ok=True)
            np.save(kept, pictures)
            write_json(timed, {"drawn": drawn, "seconds": seconds})
        parts.append(np.load(kept))
        about = json.loads(timed.read_text())
        if start > 0:
            rates.append(about["drawn"] / about["seconds"])
        say(f"drawing {wanted.name} {min(start + batch, count)} of {count}")
    return np.concatenate(parts), rates


@dataclass(frozen=True)
class Measured:
    """quality, cost, sampling and probes as in a `Result`; `about` says with what they were measured."""

    quality: dict[str, float]
    cost: dict[str, float] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, list[float]] = field(default_factory=dict)
    probes: dict[str, Any] = field(default_factory=dict)

    def __or__(self, other: Measured) -> Measured:
        return Measured(**{name: getattr(self, name) | getattr(other, name) for name in self.__dataclass_fields__})


def measure(subject: Subject, folder: Path, cache: Path, say: Say, warn: Say) -> Measured:
    """Quality, cost of sampling, and what the metrics were made with, of a cell whose averaged weights are in place."""
    evaluate = subject.config["evaluate"]
    say("held-out loss")
    quality = heldout_loss(subject)
    generated, rates = draw_set(subject, heldout_set(subject), folder, say)
    extractor = metrics.resolve(evaluate["extractor"], warn=warn)
    reference = min(evaluate["reference"], len(subject.data.heldout))
    say(f"features of {extractor.name}")
    real = metrics.reference_features(
        extractor,
        lambda: np.asarray(subject.data.heldout.images[:reference]),
        data_digest=f"{subject.data.digest}-heldout",
        count=reference,
        cache=cache / "features",
        device=subject.device.type,
        warn=warn,
    )
    features = extractor.features(generated, device=subject.device.type)
    quality |= metrics.set_metrics(features, real, slug=extractor.slug)
    cost = middle(rates, "sample_images_per_second")
    about: dict[str, Any] = {"extractor": extractor.name, "extractor_digest": extractor.digest}
    about |= {"samples": len(generated), "reference": reference}
    return Measured(quality, cost, about, _sampling(features, real, extractor.slug))


def _sampling(features: np.ndarray, real: np.ndarray, slug: str) -> dict[str, list[float]]:
    """How much the distances owe to these pictures; not asked of more than are quickly resampled."""
    if len(features) > MOST_RESAMPLED:
        return {}
    name = f"{slug}_{metrics.count_name(len(features))}"
    return {
        f"fid_{name}": list(metrics.frechet_interval(features, metrics.moments(real))),
        f"kid_{name}": list(metrics.kid_interval(features, real)),
    }
