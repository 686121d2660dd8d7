"""Which split a file belongs to, and which class an image of a folder: by the names of folders and files alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from bench.data.errors import DataError, listed

ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_CANONICAL = {alias: name for name, aliases in ALIASES.items() for alias in aliases}
T = TypeVar("T")
Parts = tuple[str, ...]  # folders between root and file


def canonical(name: str) -> str:
    """`val` -> `validation`; a name of one's own in lower case."""
    return _CANONICAL.get(name.lower(), name.lower())


def keys(names: Iterable[str]) -> dict[str, str]:
    """The split that each name is: canonical, but of two that would be one (`dev` and `val`) each its own."""
    lower = dict.fromkeys(name.lower() for name in names)
    several = Counter(canonical(name) for name in lower)
    return {name: canonical(name) if several[canonical(name)] == 1 else name.lower() for name in names}


def key_of(splits: Container[str], name: str) -> str:
    """The key of the split that a config names."""
    return name.lower() if name.lower() in splits else canonical(name)


def merged(groups: dict[str, list[T]]) -> dict[str, list[T]]:
    """Groups under the keys of their names."""
    found: dict[str, list[T]] = {}
    for name, key in keys(list(groups)).items():
        found.setdefault(key, []).extend(groups[name])
    return found


def split_in(name: str, wanted: Iterable[str]) -> str | None:
    """The split that a name with dots names: by its last part (`set.train`), or else by its first (`train.v1`)."""
    known = {*ALIASES, *(canonical(one) for one in wanted)}
    parts = name.split(".")
    return next((part for part in (parts[-1], parts[0]) if canonical(part) in known), None)


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
            found.setdefault(folders[level], []).append((file, folders[level + 1 :]))
    return merged({split: _without_twin(split, own) for split, own in found.items()})


def _without_twin(split: str, files: list[tuple[Path, Parts]]) -> list[tuple[Path, Parts]]:
    """Without a folder of the split's own name that all of it is in, as in a train.zip that holds a folder train."""
    twin = all(len(parts) > 1 and canonical(parts[0]) == canonical(split) for _, parts in files)
    return [(file, parts[1:]) for file, parts in files] if twin else files


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
    """Files of rows by split: by a folder above them, or else by a word of their name.

    Others are of `train`, if none is named so; else their split is empty text.

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
        split = next((word.lower() for word in words if canonical(word) in known), "")
        found.setdefault(split, []).append(file)
        places.setdefault(split, set()).add(folders[:level] if split else ())
    for split, folders_above in places.items():
        if len(folders_above) > 1:
            names = sorted("/".join(one) or "." for one in folders_above)
            raise DataError(f"{root}: several folders hold the split {split}: {listed(names)}; choose with data.subset")
    if not any(canonical(split) == "train" for split in found) and "" in found:
        found["train"] = found.pop("")
    return merged(found)


def classes(folders: dict[Path, Parts]) -> dict[Path, str | None]:
    """The class of each image: the folders that it is in, without those above or below that all share."""
    every = [parts for parts in folders.values() if parts]
    lead, trail, shortest = 0, 0, min(map(len, every), default=0)
    while lead + trail < shortest - 1 and len({parts[lead] for parts in every}) == 1:
        lead += 1
    while lead + trail < shortest - 1 and len({parts[-1 - trail] for parts in every}) == 1:
        trail += 1
    return {file: "/".join(parts[lead : len(parts) - trail]) or None for file, parts in folders.items()}
