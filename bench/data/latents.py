"""Latents that `ditbench encode` wrote, as data: `data.source: latents`, `data.path` its folder.

FOLDER/    meta.json                     what was encoded by what, and the digest of every file
           train-00000.safetensors ...   `latents` float16 (n, C, h, w), in the order of the split
           heldout-00000.safetensors ...
           heldout-images.npy            the real images, uint8 (n, H, W, 3): what samples are compared with
           train-labels.npy ...          or -captions.txt, as in prepared data
           config.json, diffusion_pytorch_model.safetensors   the autoencoder, which decodes samples
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.config.schema import Data
from bench.data import prepared
from bench.data.errors import DataError, short
from bench.data.subsets import chosen
from bench.store.files import digest

VERSION = 1
TYPE = np.float16  # of what is stored: latents are of order one
DECODER = ("config.json", "diffusion_pytorch_model.safetensors")
SPLITS = ("train", "heldout")
COPIED = 256  # images at once: 50 MB at 256 px


def about(config: Data) -> dict[str, Any]:
    """What `meta.json` of the folder says.

    Raises:
        DataError: if it is no folder of latents, or is not finished.
    """
    folder = _folder(config)
    if not folder.is_dir():
        raise DataError(f"data.path {config.path!r}: no such folder; `ditbench encode CONFIG --out FOLDER` writes one")
    try:
        content: dict[str, Any] = json.loads((folder / prepared.META).read_text(encoding="utf-8"))
        content["latents"], content["seal"]  # a KeyError is of a folder of something else
        return content
    except FileNotFoundError:
        done = len(list(folder.glob("*.safetensors")))
        said = f"is not finished ({done} shards)" if done else "holds no latents"
        raise DataError(f"data.path {config.path!r} {said}; run `ditbench encode` on it") from None
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"data.path {config.path!r}: {prepared.META} is of no latents ({short(error)})") from error


def _folder(config: Data) -> Path:
    return Path(str(config.path)).expanduser()


def resolved(config: Data) -> Data:
    """The config with the latents' size and channels.

    Raises:
        DataError: for a size or channels that are not theirs.
    """
    own = about(config)["latents"]
    if config.image_size not in (Data.image_size, own["size"]):
        raise DataError(
            f"data.image_size {config.image_size}: the latents of {config.path} have {own['size']} a side; "
            f"leave it out, or give data.image_size={own['size']}"
        )
    if config.channels not in (None, own["channels"]):
        raise DataError(
            f"data.channels {config.channels}: the latents of {config.path} have {own['channels']}; leave it out, "
            f"or give data.channels={own['channels']}"
        )
    return replace(config, image_size=own["size"], channels=own["channels"])


def latents_digest(config: Data) -> str:
    """The digest of the latents that a config names: of what `meta.json` seals, and the subset."""
    return digest(
        ["latents", VERSION, about(config)["seal"], config.train_count, config.heldout_count, config.seed], 16
    )


def fill(config: Data, folder: Path, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Writes the prepared arrays: one of latents a split, which training maps into memory.

    Raises:
        DataError: if a shard is missing or damaged.
    """
    source = _folder(config)
    try:
        found = prepared.read(source)
    except prepared.DamagedError as error:
        raise DataError(f"latents {config.path}: {error}; `ditbench encode` on it makes what is missing") from error
    own, splits = found["latents"], {}
    for split, limit in zip(SPLITS, (config.train_count, config.heldout_count), strict=True):
        count = int(own["counts"][split])
        labels = np.load(source / f"{split}-labels.npy") if (source / f"{split}-labels.npy").exists() else None
        rows = chosen(limit, count, seed=config.seed, name=split, labels=labels)
        _write(source, folder, split, rows, own, progress)
        splits[split] = {"split": split, "rows": count, "used": len(rows)}
    for name in DECODER:
        shutil.copyfile(source / name, folder / name)
    rule = f"latents of {own['vae']} ({own['channels']} x {own['size']} x {own['size']})"
    return {"classes": found["classes"], "rule": rule, "latents": own, "splits": splits}


def _write(
    source: Path,
    folder: Path,
    split: str,
    rows: NDArray[np.int64],
    own: dict[str, Any],
    progress: Callable[[str, int, int], None],
) -> None:
    shape = (len(rows), own["channels"], own["size"], own["size"])
    out, done = prepared.array_file(folder / f"{split}-x0.npy", shape, TYPE, "prepared latents"), 0
    for start, part in shards(source, split):
        wanted = rows[(rows >= start) & (rows < start + len(part))] - start
        out[done : done + len(wanted)] = part[wanted]
        done += len(wanted)
        progress(f"read {split} latents", done, len(rows))
    out.flush()
    if done != len(rows):
        raise DataError(f"latents {source}: {done} of {len(rows)} {split} latents; a shard is missing")
    labels, captions = source / f"{split}-labels.npy", source / f"{split}-captions.txt"
    if labels.exists():
        np.save(folder / labels.name, np.load(labels)[rows])
    if captions.exists():
        texts = captions.read_text(encoding="utf-8").split("\n")
        (folder / captions.name).write_text("\n".join(texts[row] for row in rows), encoding="utf-8", newline="")
    _write_images(source, folder, split, rows if split == "heldout" else rows[:0])  # training has no need


def _write_images(source: Path, folder: Path, split: str, rows: NDArray[np.int64]) -> None:
    """The real images of held-out rows, a few at a time: all of them may outgrow the memory."""
    images = np.load(source / "heldout-images.npy", mmap_mode="r")
    out = prepared.images_file(folder / f"{split}-images.npy", len(rows), images.shape[1])
    for start in range(0, len(rows), COPIED):
        out[start : start + COPIED] = images[rows[start : start + COPIED]]
    out.flush()


def shard_name(split: str, index: int) -> str:
    """The file of the index-th shard of a split."""
    return f"{split}-{index:05d}.safetensors"


def ordered(names: Iterable[str], split: str) -> list[str]:
    """Those of the names that are shards of a split, by their number: as text, 100000 comes before 10001."""
    numbers = {name: re.fullmatch(rf"{split}-(\d+)\.safetensors", name) for name in names}
    found = {name: int(number[1]) for name, number in numbers.items() if number}
    return sorted(found, key=found.__getitem__)


def shards(folder: Path, split: str) -> Iterator[tuple[int, NDArray[Any]]]:
    """The first row of each shard of a split, and its latents (n, C, h, w)."""
    from safetensors.numpy import load_file

    start = 0
    for name in ordered(os.listdir(folder), split):
        part = load_file(folder / name)["latents"]
        yield start, part
        start += len(part)
