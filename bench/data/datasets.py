"""Images and what they show, prepared once into memory-mapped arrays: a cell needs neither network nor decoder.

    cache/data/<digest>/   meta.json   train-images.npy  heldout-images.npy      uint8 (n, H, W, 3)
                                       train-labels.npy  heldout-labels.npy      int64 (n,), or
                                       train-captions.txt  heldout-captions.txt  a line an image
                                       and of scenes the same of `unseen`: combinations that training lacks

The only door to Hugging Face `datasets`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from bench.config.schema import Data, as_dict
from bench.data import scenes
from bench.data.subsets import chosen
from bench.store.files import digest, file_digest, whole_folder, write_json

Progress = Callable[[str, int, int], None]  # what, done, total
SPLITS = ("train", "heldout")
VERSION = 2  # of the rules by which files become arrays; whoever changes one raises it, and all is prepared again


class DataError(ValueError):
    """Data that is missing, damaged or not as the config says; the message names it."""


@dataclass(frozen=True)
class Split:
    """One split: images uint8 (n, H, W, 3), memory-mapped, and one label or caption for each."""

    images: np.ndarray
    labels: np.ndarray | None
    captions: list[str] | None

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A prepared data set.

    Attributes:
        digest: of all that defines it; named in every result.
        classes: names of the labels, or None for captions.
        unseen: of scenes, combinations that training lacks; None for other data.
        rendered: whether scene k is a function of (seed, k), so that the first n are a sample already.
    """

    digest: str
    train: Split
    heldout: Split
    classes: list[str] | None
    unseen: Split | None = None
    rendered: bool = False

    def subset(self, split: str, count: int, seed: int) -> NDArray[np.int64]:
        """Indices of `count` images of a split (all, if there are fewer): a sample by the rule of `subsets`."""
        own = self.splits[split]
        if self.rendered:
            return np.arange(min(count, len(own)))
        return chosen(count, len(own), seed=seed, name=split, labels=own.labels)

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return self.train.images.shape[1]

    @property
    def splits(self) -> dict[str, Split]:
        """Every split by its name."""
        found = {"train": self.train, "heldout": self.heldout}
        return found | ({"unseen": self.unseen} if self.unseen is not None else {})


def data_digest(config: Data) -> str:
    """The digest of the data that a cell's `data` config names.

    Of the renderer's version, of the files' bytes, or of the name and revision on the hub.

    Raises:
        DataError: if a path that is written as one is not there.
    """
    defining = {key: value for key, value in as_dict(config).items() if key != "path"}
    if config.source == "scenes":
        rendering = [config.image_size, config.objects, config.seed]
        return digest(["scenes", scenes.VERSION, *rendering, _counts(config)], 16)
    assert config.path is not None
    path = Path(config.path)
    if path.exists():
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        content = [[str(p.relative_to(path)) if path.is_dir() else p.name, file_digest(p)] for p in files]
        return digest(["files", VERSION, content, defining], 16)
    if path.is_absolute() or str(path).startswith((".", "~")) or path.suffix or str(path).count("/") > 1:
        raise DataError(f"data.path {config.path!r}: no such file or folder")
    return digest(["hub", VERSION, config.path, defining], 16)


def _counts(config: Data) -> list[int]:
    """Scenes to render for each split."""
    return [config.train_count or 50_000, config.heldout_count or 5_000, config.unseen_count or 1_000]


def prepare(config: Data, cache: Path, progress: Progress = lambda what, done, total: None) -> Path:
    """Makes the prepared folder if it is not there, and returns it. Nothing half-written is left behind.

    Raises:
        DataError: naming the path, split, column or image that is wrong.
    """
    folder = cache / "data" / data_digest(config)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / "meta.json").exists():
            with whole_folder(folder) as temporary:
                classes = (_render if config.source == "scenes" else _convert)(config, temporary, progress)
                write_json(
                    temporary / "meta.json", {"digest": folder.name, "classes": classes, "config": _public(config)}
                )
    return folder


def load(folder: Path) -> Dataset:
    """Opens a prepared folder.

    Raises:
        DataError: if it is incomplete; the way out is to delete it.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text())
        train, heldout = (_load_split(folder, name) for name in SPLITS)
        unseen = _load_split(folder, "unseen") if (folder / "unseen-images.npy").exists() else None
        rendered = meta["config"]["source"] == "scenes"
        return Dataset(meta["digest"], train, heldout, meta["classes"], unseen, rendered)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"prepared data {folder.name} is damaged ({error}); delete {folder} and run again") from error


def _load_split(folder: Path, name: str) -> Split:
    images = np.load(folder / f"{name}-images.npy", mmap_mode="r")
    labels = folder / f"{name}-labels.npy"
    captions = folder / f"{name}-captions.txt"
    return Split(
        images,
        np.load(labels) if labels.exists() else None,
        captions.read_text(encoding="utf-8").split("\n") if captions.exists() else None,
    )


def _public(config: Data) -> dict[str, Any]:
    """The config without the place on this machine."""
    return as_dict(config) | {"path": Path(config.path).name if config.path else None}


def _write_captions(path: Path, captions: list[str]) -> None:
    path.write_text("\n".join(" ".join(caption.split()) for caption in captions), encoding="utf-8")


# --- scenes ---------------------------------------------------------------------------------------------------------


def _render(config: Data, folder: Path, progress: Progress) -> None:
    for split, count in zip(scenes.SPLITS, _counts(config), strict=True):

        def say(done: int, split: str = split, count: int = count) -> None:
            progress(f"render {split} scenes", done, count)

        made = scenes.generate(
            count, config.image_size, seed=config.seed, split=split, most=config.objects, progress=say
        )
        np.save(folder / f"{split}-images.npy", made.images)
        _write_captions(folder / f"{split}-captions.txt", made.captions)


# --- Hugging Face datasets ------------------------------------------------------------------------------------------


def _convert(config: Data, folder: Path, progress: Progress) -> list[str] | None:
    sets = _open_hugging_face(config, folder.parent.parent / "huggingface")
    classes: list[str] | None = None
    for split, key in zip(SPLITS, ("train", "heldout"), strict=True):
        rows = _split(sets, getattr(config, f"{key}_split"), config)
        limit: int | None = getattr(config, f"{key}_count")
        if limit is not None and limit < len(rows):
            labels = None if config.caption_column else rows[config.label_column]
            rows = rows.select(chosen(limit, len(rows), seed=config.seed, name=split, labels=labels))
        _convert_images(rows, config, split, folder, progress)
        if config.caption_column:
            _write_captions(folder / f"{split}-captions.txt", [str(text) for text in rows[config.caption_column]])
        else:
            labels = np.asarray(rows[config.label_column], dtype=np.int64)
            classes = _classes(rows, config, labels) if classes is None else classes
            if labels.min() < 0 or labels.max() >= len(classes):
                raise DataError(f"{config.path}: {split} labels lie outside 0 to {len(classes) - 1}")
            np.save(folder / f"{split}-labels.npy", labels)
    return classes


def _open_hugging_face(config: Data, cache: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)  # what goes wrong is reported once, below
    assert config.path is not None
    path = Path(config.path)
    _check_parquet(path)
    common: dict[str, Any] = {"cache_dir": str(cache)}
    try:
        if path.is_file():
            kind = {".parquet": "parquet", ".tar": "webdataset"}.get(path.suffix)
            if kind is None:
                raise DataError(f"data.path {path}: a file must be .parquet or .tar")
            return datasets.load_dataset(kind, data_files={config.train_split: str(path)}, **common)
        return datasets.load_dataset(str(path), config.subset, revision=config.revision, **common)
    except DataError:
        raise
    except Exception as error:  # datasets raises many kinds, from many libraries
        cause = error.__cause__ or error
        raise DataError(f"data.path {config.path}: {type(cause).__name__}: {_short(cause)}") from error


def _check_parquet(path: Path) -> None:
    """Names a damaged parquet file, which `datasets` would not."""
    for file in sorted(path.rglob("*.parquet")) if path.is_dir() else [path]:
        if file.suffix == ".parquet" and file.is_file():
            with open(file, "rb") as stream:
                begins = stream.read(4)
                stream.seek(max(0, file.stat().st_size - 4))
                ends = stream.read(4)
            if (begins, ends) != (b"PAR1", b"PAR1"):
                raise DataError(f"{file}: damaged, or no parquet file")


def _split(sets: Any, name: str, config: Data) -> Any:
    if name not in sets:
        raise DataError(f"{config.path}: no split {name!r} (splits: {', '.join(sets)})")
    rows = sets[name]
    target = config.caption_column or config.label_column
    if target is None:
        raise DataError(f"{config.path}: name data.label_column or data.caption_column (columns: {_columns(rows)})")
    for column in (config.image_column, target):
        if column not in rows.column_names:
            raise DataError(f"{config.path}: split {name!r} has no column {column!r} (columns: {_columns(rows)})")
    if len(rows) == 0:
        raise DataError(f"{config.path}: split {name!r} is empty")
    return rows


def _columns(rows: Any) -> str:
    return ", ".join(rows.column_names)


def _classes(rows: Any, config: Data, labels: np.ndarray) -> list[str]:
    names = getattr(rows.features[config.label_column], "names", None)
    return list(names) if names else [str(index) for index in range(int(labels.max()) + 1)]


def _convert_images(rows: Any, config: Data, split: str, folder: Path, progress: Progress) -> None:
    import datasets

    size = config.image_size
    stored_images = rows.cast_column(config.image_column, datasets.Image(decode=False))
    out = np.lib.format.open_memmap(
        folder / f"{split}-images.npy", mode="w+", dtype=np.uint8, shape=(len(rows), size, size, 3)
    )
    for index, stored in enumerate(stored_images[config.image_column]):
        try:
            out[index] = _decode(stored, size)
        except Exception as error:  # Pillow raises many kinds for a damaged file
            name = f" ({stored['path']})" if isinstance(stored, dict) and stored.get("path") else ""
            raise DataError(f"{config.path}: image {index} of split {split!r}{name}: {_short(error)}") from error
        if index % 500 == 0 or index == len(rows) - 1:
            progress(f"decode {split} images", index + 1, len(rows))
    out.flush()


def _decode(stored: dict[str, Any], size: int) -> np.ndarray:
    """A stored image as RGB, its centre square brought to (size, size)."""
    from io import BytesIO

    from PIL import Image, ImageOps

    with Image.open(BytesIO(stored["bytes"]) if stored.get("bytes") else stored["path"]) as opened:
        rgb = opened.convert("RGB")
    if rgb.size != (size, size):
        rgb = ImageOps.fit(rgb, (size, size), Image.Resampling.LANCZOS)
    return np.asarray(rgb)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
