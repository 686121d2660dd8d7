"""Drawing pictures for what a user types, from any trained cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from bench import data as datasets
from bench import prompts as told
from bench.cell import Order
from bench.cost import build
from bench.diffusion import starting_noise
from bench.evaluate import Subject, draw, png, tile
from bench.files import write_atomic
from bench.store import CellFolder
from bench.train import load_checkpoint, newest_checkpoint


def load_subject(folder: CellFolder, cache: Path, device: str | None = None) -> Subject:
    """A cell's model with its averaged weights, from its newest whole checkpoint.

    Raises:
        ValueError: if the cell has no checkpoint yet.
    """
    import architectures

    order = Order.read(folder)
    for plugin in order.plugins:
        architectures.load_plugin(plugin)
    path = newest_checkpoint(folder.checkpoints)
    if path is None:
        raise ValueError(f"cell {folder.id} has no checkpoint yet; run its matrix first")
    config = order.config
    config["train"]["compile"] = "off"  # a handful of pictures do not repay it
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cpu":
        config["train"]["precision"] = "32"
    data = datasets.load(cache / "data" / order.digests["data"])
    prompts = told.load(cache / "prompts" / order.digests["prompts"])
    model = build(config, prompts.kind)
    model.load_state_dict(load_checkpoint(path)["ema"])
    return Subject(model.to(where).eval(), data, prompts, config, where)


def draw_prompts(
    folder: CellFolder,
    texts: list[str],
    *,
    out: Path,
    count: int,
    seed: int,
    steps: int | None,
    guidance: float | None,
    progress: Callable[[str, int, int], None],
    warn: Callable[[str], None],
) -> Path:
    """Writes a PNG with a row of `count` pictures for each prompt, the same noise in every row.

    Raises:
        ValueError: for a prompt that the cell cannot take, or a cell without a checkpoint.
    """
    subject = load_subject(folder, folder.path.parent.parent / "cache")
    settings = subject.config["sample"]
    settings |= {
        "steps": steps or settings["steps"],
        "guidance": settings["guidance"] if guidance is None else guidance,
    }
    prompt, unknown = subject.prompts.encode([text for text in texts for _ in range(count)])
    if unknown:
        warn(f"this cell never saw the words {', '.join(unknown)}")
    noise = starting_noise(seed, range(count), subject.shape).repeat(len(texts), 1, 1, 1)
    pictures = draw(
        subject,
        prompt,
        noise,
        batch=settings["batch"],
        told=lambda done: progress("draw", done, len(noise)),
    )
    write_atomic(out, png(tile(pictures, columns=count)))
    return out
