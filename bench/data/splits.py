"""Which split a file belongs to, and which class an image of a folder: by the names of folders and files alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.data.errors import DataError, listed

ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
Parts = tuple[str, ...]  # folders between root and file


def canonical(name: str) -> str:
    """`val` -> `validation`; a name of one's own in lower case."""
    return _CANONICAL.get(name.lower(), name.lower())


def by_split(files: Sequence[Path], root: Path, wanted: Iterable[str]) -> dict[str, list[tuple[Path, Parts]]]:
    """Files by split, each with the folders below that of its split.

    A level of folders names splits if all of them do, or if both wanted ones are there; shared folders above are
    passed. Without such a level all files are of the split `train`.
    """
    names = {canonical(name) for name in wanted}
    parts = [file.relative_to(root).parts[:-1] for file in files]
    level = _level(parts, names)
    found: dict[str, list[tuple[Path, Parts]]] = {}
    for file, folders in zip(files, parts, strict=True):
        if level is None:
            found.setdefault("train", []).append((file, folders))
        elif len(folders) > level:
            split, rest = canonical(folders[level]), folders[level + 1 :]
            rest = rest[1:] if rest and canonical(rest[0]) == split else rest  # train.zip that holds a folder train
            found.setdefault(split, []).append((file, rest))
    return found


def _level(parts: Sequence[Parts], wanted: set[str]) -> int | None:
    for level in range(max(map(len, parts), default=0)):
        names = {folders[level] if len(folders) > level else None for folders in parts}
        splits = {canonical(name) for name in names if name is not None}
        if None not in names and splits <= {*ALIASES, *wanted}:
            return level
        if len(wanted) > 1 and wanted <= splits:
            return level
        if len(names) > 1:
            return None
    return None


def by_name(files: Sequence[Path], root: Path, wanted: Iterable[str]) -> dict[str, list[Path]]:
    """Files of rows by split: by a folder above them, or else by a word of their name; others are of `train`.

    Raises:
        DataError: if folders side by side hold the same split.
    """
    known = {*ALIASES, *(canonical(name) for name in wanted)}
    found: dict[str, list[Path]] = {}
    places: dict[str, set[Parts]] = {}
    for file in files:
        folders = file.relative_to(root).parts[:-1]
        bare = [re.split(r"[=]", name)[-1].partition(".")[0] for name in folders]  # train.parquet/, split=train/
        level = next((k for k, name in enumerate(bare) if canonical(name) in known), len(folders))
        words = [*bare[level : level + 1], *re.split(r"[^a-z]+", file.name.lower().partition(".")[0]), file.stem]
        split = next((canonical(word) for word in words if canonical(word) in known), "train")
        found.setdefault(split, []).append(file)
        places.setdefault(split, set()).add(folders[:level])
    for split, folders_above in places.items():
        if len(folders_above) > 1:
            names = sorted("/".join(one) or "." for one in folders_above)
            raise DataError(f"{root}: several folders hold the split {split}: {listed(names)}; choose with data.subset")
    return found


def classes(folders: dict[Path, Parts]) -> dict[Path, str | None]:
    """The class of each image: the folders that it is in, without those above or below that all share."""
    every = [parts for parts in folders.values() if parts]
    lead, trail, shortest = 0, 0, min(map(len, every), default=0)
    while lead + trail < shortest - 1 and len({parts[lead] for parts in every}) == 1:
        lead += 1
    while lead + trail < shortest - 1 and len({parts[-1 - trail] for parts in every}) == 1:
        trail += 1
    return {file: "/".join(parts[lead : len(parts) - trail]) or None for file, parts in folders.items()}
