"""Rows of files or of the hub become prepared arrays: splits chosen, labels mapped, captions read, images decoded."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.config.schema import Data
from bench.data import streamed
from bench.data.datasets import Progress, local_path, write_captions
from bench.data.errors import DataError, listed
from bench.data.reading import captions, labels
from bench.data.reading.archives import archives, check, unpack
from bench.data.reading.decoding import examine, name_of, write_images
from bench.data.reading.layouts import Layout, beside, read_layout
from bench.data.reading.parts import Part, duplicates, notes_of
from bench.data.reading.rows import Rows
from bench.data.reading.splits import key_of
from bench.data.subsets import chosen
from bench.store.files import file_digest

VERSION = 4  # of the rules by which files become arrays; whoever changes one raises it, and all is prepared again
HELD_OUT = 0.1  # share that is held out of a split that is both


def content(path: Path, config: Data) -> list[list[str]]:
    """Name and digest of every file that is read for the two splits, in order.

    Raises:
        DataError: if the path cannot be read.
    """
    packed = archives(path)
    if packed:
        check(path, packed, (config.train_split, config.heldout_split))
        return [
            [file.relative_to(path).as_posix() if path.is_dir() else file.name, file_digest(file)] for file in packed
        ]
    layout = read_layout(path, config)
    names = dict.fromkeys(key_of(layout.splits, name) for name in (config.train_split, config.heldout_split))
    found = []
    for name in names:
        for shown, file in split_of(layout, name, config).files(config.image_column):
            found.append([name, shown if path.is_dir() else file.name, file_digest(file)])
    return found


def fill(config: Data, folder: Path, hub_cache: Path, progress: Progress) -> dict[str, Any]:
    """Writes the arrays of both splits, and returns what was understood.

    Args:
        config: of the data.
        folder: to write into.
        hub_cache: where the hub's files are kept until then.
        progress: called with what is decoded.

    Raises:
        DataError: naming the path, split, column or image that is wrong.
    """
    path = local_path(config)
    if config.stream and path is not None:
        _check_stream(path)
    scratch = folder / "unpacked"
    try:
        layout = layout_of(config, path, scratch, hub_cache)
        if config.stream and path is None:
            streamed.pin(config, layout.commit, folder)
        return _fill(config, layout, folder, progress)
    except DataError as error:
        said = str(error).replace(str(scratch), str(path))
        raise DataError(said if str(config.path) in said else f"{config.path}: {said}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(hub_cache, ignore_errors=True)  # never read again: the arrays are what was read


def _check_stream(path: Path) -> None:
    packed = archives(path)
    if packed:
        raise DataError(f"data.stream: {packed[0]} is an archive, in which no image can be read alone; unpack it first")


def training_rows(config: Data, path: Path | None) -> Rows:
    """The rows of the training split, of files that are read as they lie; without a path those of the hub.

    Raises:
        DataError: if they cannot be.
    """
    if path is None:
        from bench.data.reading.hub import stream_hub

        layout = stream_hub(config)
    else:
        layout = read_layout(path, config)
    return split_of(layout, key_of(layout.splits, config.train_split), config)


def layout_of(config: Data, path: Path | None, scratch: Path, hub_cache: Path) -> Layout:
    """What the path, or the hub, holds; archives are unpacked into `scratch`, which is made."""
    if path is None:
        from bench.data.reading.hub import read_hub, stream_hub

        return stream_hub(config) if config.stream else read_hub(config, hub_cache)
    packed = archives(path)
    if packed:
        scratch.mkdir()
        wanted = (config.train_split, config.heldout_split)
        layout = read_layout(unpack(path, packed, scratch, wanted), config)
        return replace(layout, notes=[*layout.notes, *beside(path, packed)])
    return read_layout(path, config)


def split_of(layout: Layout, name: str, config: Data) -> Rows:
    """A split with the columns that the config names.

    Raises:
        DataError: naming what is there instead.
    """
    rows = layout.splits.get(name)
    if rows is None:
        other = layout.names[0]
        unread = f"; {'; '.join(layout.notes)}" if layout.notes else ""
        way = (
            f"; data.train_split and data.heldout_split choose, and the same for both, such as "
            f"data.heldout_split={other} data.train_split={other}, holds out {HELD_OUT:.0%} of it by data.seed"
        )
        raise DataError(f"{config.path}: no split {name!r} (splits: {', '.join(layout.names)}){unread}{way}")
    target = config.caption_column or config.label_column
    if target is None:
        raise DataError(
            f"{config.path}: name data.label_column or data.caption_column (columns: {', '.join(rows.columns)})"
        )
    for column in (config.image_column, target):
        if column not in rows.columns:
            beside = f"; {'; '.join(layout.notes)}" if layout.notes else ""
            raise DataError(
                f"{config.path}: split {name!r} has no column {column!r} (columns: {', '.join(rows.columns)}){beside}; "
                "data.image_column, data.label_column and data.caption_column choose"
            )
    if len(rows) == 0:
        raise DataError(f"{config.path}: split {name!r} is empty")
    return rows


def _fill(config: Data, layout: Layout, folder: Path, progress: Progress) -> dict[str, Any]:
    parts, names = used(config, layout, progress)
    seen: dict[str, Counter[bytes]] = {}
    for part in parts:
        if part.name == "train" and config.stream:
            streamed.write(part, folder, config.image_column)
            seen[part.name] = Counter()
            examine(part, config, progress)
        else:
            seen[part.name] = write_images(part, config, folder, progress)
        _write_target(part, folder)
        part.about |= {"split": part.rows.split, "rows": len(part.rows), "used": len(part.kept)}
    about = {"rule": layout.rule, "classes": names, "splits": {part.name: part.about for part in parts}}
    notes = [*layout.notes, *notes_of(config, parts, names, seen)]
    if config.stream:
        sorted_files = streamed.note(parts[0])
        notes += [sorted_files] if sorted_files else []
    return about | {"notes": notes, "duplicates": duplicates(seen)}


def used(config: Data, layout: Layout, progress: Progress = lambda *_: None) -> tuple[list[Part], list[str] | None]:
    """Both parts with the rows that are used, and the names of classes; no image is decoded.

    Raises:
        DataError: naming split, column or row that is wrong.
    """
    parts, names = _parts(config, layout)
    _drop_missing(config, parts, progress)
    _hold_out(config, parts)
    for part in parts:
        limit = config.train_count if part.name == "train" else config.heldout_count
        own = None if part.labels is None else part.labels[part.kept]
        part.kept = part.kept[chosen(limit, len(part.kept), seed=config.seed, name=part.name, labels=own)]
    return parts, names


def _parts(config: Data, layout: Layout) -> tuple[list[Part], list[str] | None]:
    """Both parts with their labels or captions, and the names of classes."""
    parts = []
    for name, key in (("train", config.train_split), ("heldout", config.heldout_split)):
        rows = split_of(layout, key_of(layout.splits, key), config)
        parts.append(Part(name, rows, np.arange(len(rows))))
    if config.caption_column:
        for part in parts:
            place = _place(part, config.caption_column)
            found = captions.read(
                part.rows.values(config.caption_column), place, seed=config.seed, split=part.rows.split
            )
            part.texts, part.about["captions"] = found.texts, found.counts
        return parts, None
    assert config.label_column is not None
    column = config.label_column
    values = [labels.plain(part.rows.values(column), _place(part, column)) for part in parts]
    names, others = (part.rows.names(column) for part in parts)
    if names and others and names != others:
        raise DataError(
            f"{config.path}: splits {parts[0].rows.split!r} and {parts[1].rows.split!r} name the classes of column "
            f"{column!r} differently: {listed(names, 5)}, and {listed(others, 5)}"
        )
    mapped = labels.fit(values[0][0], names, _place(parts[0], column))
    for part, (own, unwrapped) in zip(parts, values, strict=True):
        part.labels = mapped.ids(own, _place(part, column))
        part.about["lists of one label"] = unwrapped
    return parts, mapped.names


def _place(part: Part, column: str) -> Callable[[int], str]:
    return lambda row: f"{part.rows.place(row)}, column {column!r}"


def _drop_missing(config: Data, parts: list[Part], progress: Progress) -> None:
    """Rows without image, label or caption: refused, dropped, or with the null prompt."""
    for part in parts:
        column = config.caption_column or config.label_column or ""
        if part.labels is not None:
            absent = part.labels < 0
        else:
            absent = np.array([text is None for text in part.texts or []])
        if config.missing == "null" and part.texts is not None:
            part.about["missing, null prompt"] = int(absent.sum())
            part.texts = [text or "" for text in part.texts]
            absent[:] = False
        if absent.any() and config.missing != "drop":
            _refuse_missing(config, part, int(np.flatnonzero(absent)[0]), int(absent.sum()), column)
        if config.missing == "drop":
            lost = _without_image(config, part, progress)
            part.about["dropped"] = int((absent | lost).sum())
            absent = absent | lost
        part.kept = part.kept[~absent]
        if not len(part.kept):
            raise DataError(f"{config.path}: every row of split {part.rows.split!r} lacks its {column!r}")


def _without_image(config: Data, part: Part, progress: Progress) -> NDArray[np.bool_]:
    """Of each row whether it has no image; what the files themselves say of whole blocks is not read."""
    lost, unsure = np.zeros(len(part.rows), bool), part.rows.unsure(config.image_column)
    for done, image in enumerate(part.rows.images(config.image_column, unsure)):
        lost[unsure[done]] = image is None
        if done % 500 == 0 or done == len(unsure) - 1:
            progress(f"look for {part.name} images", done + 1, len(unsure))
    return lost


def _refuse_missing(config: Data, part: Part, row: int, count: int, column: str) -> None:
    value = next(part.rows.values(column, np.array([row])))
    nothing = value is None or value != value  # None or NaN
    shown = "nothing" if nothing else f"{str(value)[:60]!r}, which has no letter, digit or symbol"
    image = next(part.rows.images(config.image_column, np.array([row])))
    null = ", data.missing=null trains them with the null prompt" if part.texts is not None else ""
    raise DataError(
        f"{config.path}: {part.rows.place(row)}{name_of(image)}, column {column!r}: {shown} "
        f"({count} such of {len(part.rows)}); data.missing=drop leaves such rows out{null}"
    )


def _hold_out(config: Data, parts: list[Part]) -> None:
    """Makes the parts disjoint where both are of one split: a seeded share is held out, the rest is trained on."""
    train, heldout = parts
    if train.rows.split != heldout.rows.split:
        return
    count = config.heldout_count or max(1, round(HELD_OUT * len(train.kept)))
    if count >= len(train.kept):
        raise DataError(
            f"{config.path}: data.heldout_count {count} leaves nothing to train on of the {len(train.kept)} rows of "
            f"split {train.rows.split!r}, which is held out of itself"
        )
    own = None if train.labels is None else train.labels[train.kept]
    picked = chosen(count, len(train.kept), seed=config.seed, name="held out", labels=own)
    heldout.kept = train.kept[picked]
    train.kept = np.delete(train.kept, picked)


def _write_target(part: Part, folder: Path) -> None:
    if part.labels is not None:
        np.save(folder / f"{part.name}-labels.npy", part.labels[part.kept])
    if part.texts is not None:
        write_captions(folder / f"{part.name}-captions.txt", [part.texts[row] or "" for row in part.kept])
