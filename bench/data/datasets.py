"""Images and what they show, prepared once into memory-mapped arrays: a cell needs neither network nor decoder.

    cache/data/<digest>/   meta.json   train-images.npy  heldout-images.npy      uint8 (n, H, W, 3)
                                       train-labels.npy  heldout-labels.npy      int64 (n,), or
                                       train-captions.txt  heldout-captions.txt  a line an image
                                       and of scenes the same of `unseen`: combinations that training lacks

`meta.json` has the digest of each, and what was understood: rows, conversions, label map, notes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.config.schema import Data, as_dict
from bench.data import latents, prepared, scenes, streamed, task_data
from bench.data.errors import DataError
from bench.data.pixels import to_images
from bench.data.prepared import DamagedError, Warn
from bench.data.reading.files import KINDS
from bench.data.streamed import StreamedImages
from bench.data.subsets import chosen
from bench.data.tasks.contract import Task
from bench.store.files import digest

__all__ = ["DataError", "Dataset", "Progress", "Split", "data_digest", "load", "prepare"]

Progress = Callable[[str, int, int], None]  # what, done, total
SPLITS = ("train", "heldout")


@dataclass(frozen=True)
class Split:
    """One split: images uint8 (n, H, W, 3), memory-mapped or streamed, and one label or caption for each.

    Of latents the training split has no images: n is of x_0.
    """

    images: np.ndarray | StreamedImages
    labels: np.ndarray | None
    captions: list[str] | None
    x_0: np.ndarray | None = None  # of a task: float32 (n, 3, S, S), not clipped; latents: float16 (n, C, S, S)
    z: np.ndarray | None = None  # (n, M)
    words: np.ndarray | None = None  # (n, L)

    def __len__(self) -> int:
        return len(self.exact)

    @property
    def exact(self) -> np.ndarray | StreamedImages:
        """What the flow takes: x_0 of a task and of latents, images of other data."""
        return self.images if self.x_0 is None else self.x_0


@dataclass(frozen=True)
class Dataset:
    """A prepared data set.

    Attributes:
        digest: of all that defines it; named in every result.
        classes: names of the labels, or None for captions.
        unseen: of scenes, combinations that training lacks; None for other data.
        rendered: whether scene k is a function of (seed, k), so that the first n are a sample already.
        about: what was understood when it was prepared, as `meta.json` has it.
    """

    digest: str
    train: Split
    heldout: Split
    classes: list[str] | None
    unseen: Split | None = None
    rendered: bool = False
    about: dict[str, Any] = field(default_factory=dict)
    task: Task | None = None  # that trained images are sampled of
    folder: Path | None = None  # of what is prepared, where the decoder of latents is

    def subset(self, split: str, count: int, seed: int) -> NDArray[np.int64]:
        """Indices of `count` images of a split (all, if there are fewer): a sample by the rule of `subsets`."""
        own = self.splits[split]
        if self.rendered:
            return np.arange(min(count, len(own)))
        return chosen(count, len(own), seed=seed, name=split, labels=own.labels)

    @property
    def in_words(self) -> bool:
        """Whether the prompts of a task are given as text."""
        return bool(self.about.get("config", {}).get("words"))

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.train.images.shape[1]

    @property
    def latents(self) -> dict[str, Any]:
        """What is known of latents; empty for images."""
        return dict(self.about.get("latents", {}))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the model sees."""
        own, size = self.latents, self.image_size
        return (own["channels"], own["size"], own["size"]) if own else (3, size, size)

    def images_of(self, x_0: torch.Tensor) -> torch.Tensor:
        """Images uint8 (B, H, W, 3), on the CPU, of what the model generates (B, C, h, w): latents are decoded."""
        if not self.latents:
            return to_images(x_0).cpu()
        from bench.data import vae

        assert self.folder is not None
        return vae.of_folder(self.folder, x_0.device).decode(x_0)

    @property
    def splits(self) -> dict[str, Split]:
        """Every split by its name."""
        found = {"train": self.train, "heldout": self.heldout}
        return found | ({"unseen": self.unseen} if self.unseen is not None else {})

    @property
    def content(self) -> str:
        """The digest of the prepared files themselves: of a data set of the hub, `digest` is of its name alone."""
        return digest(self.about.get("files", {}), 16)

    @property
    def key(self) -> str:
        """What is computed of its rows is kept under: both digests."""
        return f"{self.digest}-{self.content}"

    @property
    def notes(self) -> list[str]:
        """What a user should know of it, in sentences."""
        return list(self.about.get("notes", []))


def data_digest(config: Data) -> str:
    """The digest of the data that a cell's `data` config names.

    Of the renderer's version, of the bytes of all files that are read, or of the name and revision on the hub.

    Raises:
        DataError: if a path that is written as one is not there, or cannot be read.
    """
    if config.source == "task":
        return task_data.task_digest(config)
    if config.source == "scenes":
        rendering = [config.image_size, config.objects, config.seed]
        return digest(["scenes", scenes.VERSION, *rendering, _counts(config)], 16)
    if config.source == "latents":
        return latents.latents_digest(config)
    from bench.data.reading import convert

    defining = {key: value for key, value in as_dict(config).items() if key not in ("path", "channels", "stream")}
    defining |= {"stream": streamed.VERSION} if config.stream else {}
    path = local_path(config)
    if path is None:
        return digest(["hub", convert.VERSION, config.path, defining], 16)
    return digest(["files", convert.VERSION, convert.content(path, config), defining], 16)


def local_path(config: Data) -> Path | None:
    """Where the data is on this machine; None for a name of the hub.

    Raises:
        DataError: if it is written as a path, and is not there.
    """
    assert config.path is not None
    path = Path(config.path).expanduser()
    if path.exists():
        return path
    known = tuple(ending for endings in KINDS.values() for ending in endings)
    as_path = path.is_absolute() or config.path.startswith((".", "~")) or config.path.lower().endswith(known)
    if as_path or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", config.path):
        link = " (a link that leads nowhere)" if path.is_symlink() else ""
        raise DataError(f"data.path {config.path!r}: no such file or folder{link}")
    return None


def _counts(config: Data) -> list[int]:
    """Scenes to render for each split."""
    return [config.train_count or 50_000, config.heldout_count or 5_000, config.unseen_count or 1_000]


def _nothing(*_: Any) -> None:
    """The default of what is called with news."""


def prepare(config: Data, cache: Path, progress: Progress = _nothing, warn: Warn = _nothing) -> Path:
    """Makes the prepared folder if it is not there or damaged, and returns it. Nothing half-written is left behind.

    Raises:
        DataError: naming the path, split, column or image that is wrong.
    """
    folder = cache / "data" / data_digest(config)

    def fill(temporary: Path) -> dict[str, Any]:
        if config.source == "scenes":
            _render(config, temporary, progress)
            about: dict[str, Any] = {"classes": None}
        elif config.source == "task":
            about = task_data.fill(config, temporary, progress)
        elif config.source == "latents":
            about = latents.fill(config, temporary, progress)
        else:
            from bench.data.reading import convert

            about = convert.fill(config, temporary, cache / "huggingface" / folder.name, progress)
        return about | {"digest": folder.name, "config": _public(config)}

    prepared.make(folder, fill, what="prepared data", warn=warn)
    if config.stream and (path := local_path(config)):
        streamed.place(path, folder)
    return folder


def load(folder: Path) -> Dataset:
    """Opens a prepared folder, every file of which is compared with its digest.

    Raises:
        DataError: if it is damaged; the way out is to run again, which makes it again.
    """
    try:
        about = prepared.read(folder)
        config = Data(**about["config"])
        images = StreamedImages(folder, config) if config.stream else None
        train, heldout = _load_split(folder, "train", images), _load_split(folder, "heldout")
        unseen = _load_split(folder, "unseen") if (folder / "unseen-images.npy").exists() else None
        task = task_data.task_of(config) if config.source == "task" else None
        return Dataset(
            about["digest"], train, heldout, about["classes"], unseen, config.source == "scenes", about, task, folder
        )
    except (DamagedError, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"prepared data {folder.name} is damaged ({error}); `ditbench run` makes it again, "
            f"or delete {folder} and run again"
        ) from error


def _load_split(folder: Path, name: str, images: StreamedImages | None = None) -> Split:
    labels = folder / f"{name}-labels.npy"
    captions = folder / f"{name}-captions.txt"
    more = {one: folder / f"{name}-{one}.npy" for one in ("x0", "z", "words")}
    arrays = {one: np.load(path, mmap_mode="r") if path.exists() else None for one, path in more.items()}
    return Split(
        np.load(folder / f"{name}-images.npy", mmap_mode="r") if images is None else images,
        np.load(labels) if labels.exists() else None,
        captions.read_text(encoding="utf-8").split("\n") if captions.exists() else None,
        arrays["x0"],
        arrays["z"],
        arrays["words"],
    )


def _public(config: Data) -> dict[str, Any]:
    """The config without the place on this machine."""
    return as_dict(config) | {"path": Path(config.path).name if config.path else None}


def write_captions(path: Path, captions: list[str]) -> None:
    """A caption a line."""
    path.write_text("\n".join(" ".join(caption.split()) for caption in captions), encoding="utf-8", newline="")


def _render(config: Data, folder: Path, progress: Progress) -> None:
    for split, count in zip(scenes.SPLITS, _counts(config), strict=True):

        def say(done: int, split: str = split, count: int = count) -> None:
            progress(f"render {split} scenes", done, count)

        made = scenes.generate(
            count, config.image_size, seed=config.seed, split=split, most=config.objects, progress=say
        )
        np.save(folder / f"{split}-images.npy", made.images)
        write_captions(folder / f"{split}-captions.txt", made.captions)
