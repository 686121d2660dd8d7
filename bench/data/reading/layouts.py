"""What a folder or file of data holds: rows of splits, found by one order of rules.

In a folder the first of these that is there is read, and what is passed over is said: a data set that `datasets`
saved, parquet, arrow, tar files of webdataset, archives (zip, tar) of a folder, tables of text that name images
(`metadata.csv` or .jsonl, or any with the image column), images in folders, other tables of text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.config.schema import Data
from bench.data.errors import DataError, listed, short
from bench.data.reading.files import UNREAD, damaged, files_below, kind_of, what_it_is
from bench.data.reading.piece import Piece, of_columns
from bench.data.reading.rows import Rows
from bench.data.reading.splits import ALIASES, by_name, by_split, canonical, classes, key_of, keys, merged
from bench.data.reading.tables import open_piece


@dataclass(frozen=True)
class Layout:
    """What was understood of a path; train, validation and test come first.

    Attributes:
        rule: in words.
        splits: rows of each.
        notes: what was passed over.
        commit: of a data set of the hub, as far as it is known.
    """

    rule: str
    splits: dict[str, Rows]
    notes: list[str] = field(default_factory=list)
    commit: str = ""

    @property
    def names(self) -> list[str]:
        """Names of the splits."""
        return sorted(self.splits, key=lambda name: (list(ALIASES).index(name) if name in ALIASES else 9, name))


def read_layout(path: Path, config: Data) -> Layout:
    """What a file or folder holds.

    Raises:
        DataError: if there is nothing that can be read; the message says what there is.
    """
    return _of_file(path, config) if path.is_file() else _of_folder(path, config)


def _of_file(path: Path, config: Data) -> Layout:
    kind, split = kind_of(path), canonical(config.train_split)
    if kind in ("parquet", "arrow", "table", "tar"):
        rows = {split: Rows(split, _pieces(kind, [path], config), path.parent)}
        return Layout(f"one {kind} file", _by_column(rows) if kind == "table" else rows)
    if kind == "image":
        raise DataError(f"data.path {path}: one image is no data set; name the folder of images")
    with open(path, "rb") as file:
        what = what_it_is(file.read(64))
    raise DataError(
        f"data.path {path}: {what or 'not a kind of file that is read'}; a file must be parquet, arrow, tar, zip, csv, "
        "tsv, jsonl or json"
    )


def _of_folder(root: Path, config: Data) -> Layout:
    files = files_below(root)
    if config.subset is not None:
        within = [file for file in files if config.subset in file.relative_to(root).parts[:-1]]
        if not within:
            folders = sorted({part for file in files for part in file.relative_to(root).parts[:-1]})
            raise DataError(f"data.subset {config.subset!r}: no such folder in {root} (folders: {listed(folders)})")
        files = within
    kinds: dict[str, list[Path]] = {}
    for file in files:
        kinds.setdefault(kind_of(file) or "", []).append(file)
    saved = _saved(root, [file for file in files if file.name == "state.json"])
    wanted = (config.train_split, config.heldout_split)
    for kind in ("parquet", "arrow", "tar"):
        if kinds.get(kind):
            splits = saved if kind == "arrow" and saved else by_name(kinds[kind], root, wanted)
            rows, notes = _rows(kind, splits, root, config)
            return Layout(f"{kind} files", rows, notes + _passed_over(kinds, kind))
    if "image" in kinds:
        return _of_images(root, kinds, config)
    if "table" in kinds:
        rows, notes = _rows("table", by_name(_tables(kinds["table"], config), root, wanted), root, config)
        return Layout("tables of text", _by_column(rows), notes + _passed_over(kinds, "table"))
    raise DataError(_nothing(root, files))


def _rows(kind: str, splits: dict[str, list[Path]], root: Path, config: Data) -> tuple[dict[str, Rows], list[str]]:
    """Rows of each split, and what is not read because it names none."""
    others = [file.name for file in splits.pop("", [])]
    rows = {name: Rows(name, _pieces(kind, own, config), root) for name, own in splits.items()}
    return rows, [f"not read, naming no split: {listed(others, 3)}"] if others else []


def _nothing(root: Path, files: list[Path]) -> str:
    endings = sorted({file.suffix.lower() or file.name for file in files})
    found = f"{len(files)} files ({listed(endings)})" if files else "no files but hidden ones"
    return f"data.path {root}: no parquet, arrow, tar, zip, images or tables of text; it holds {found}"


def _pieces(kind: str, files: list[Path], config: Data) -> list[Piece]:
    return [_with_image(open_piece(kind, file), config) for file in files]


def _with_image(piece: Piece, config: Data) -> Piece:
    """A table's `file_name` is its image, where it has no column of that name."""
    name = config.image_column
    if name in piece.columns or "file_name" not in piece.columns:
        return piece
    columns = {name: piece.columns["file_name"], **piece.columns}
    return replace(
        piece, columns=columns, read=lambda column, rows: piece.read("file_name" if column == name else column, rows)
    )


def beside(path: Path, packed: list[Path]) -> list[str]:
    """What lies beside archives, and is not read."""
    kinds: dict[str, list[Path]] = {"archive": packed}
    for file in files_below(path) if path.is_dir() else []:
        if file not in packed:
            kinds.setdefault(kind_of(file) or "", []).append(file)
    return _passed_over(kinds, "archive")


def _passed_over(kinds: dict[str, list[Path]], *read: str) -> list[str]:
    """What of a folder is not read, though it may be data."""
    others = {kind: [file.name for file in files] for kind, files in kinds.items() if kind not in ("", *read)}
    others["table"] = [name for name in others.get("table", []) if not name.lower().endswith(".json")]  # of settings
    notes = [f"not read beside the {read[0]} files: {listed(names, 3)}" for names in others.values() if names]
    unread = [file.name for file in kinds.get("", []) if file.suffix.lower() in UNREAD]
    return notes + ([f"not read, being of other kinds: {listed(unread, 3)}"] if unread else [])


def _saved(root: Path, states: list[Path]) -> dict[str, list[Path]]:
    """Files of a data set saved by `datasets` (save_to_disk): those that its `state.json` names, by folder."""
    splits: dict[str, list[Path]] = {}
    for state in states:
        try:
            about = json.loads(state.read_text(encoding="utf-8"))
            files = [state.parent / one["filename"] for one in about["_data_files"]]
            split = str(about.get("_split") or "train") if state.parent == root else state.parent.name
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if not list(state.parent.glob("*.arrow")):
                continue  # of something else
            raise damaged(state, "the state of a saved data set", short(error)) from error
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise DataError(f"{state}: names {listed(missing)}, which is not there")
        splits[split] = files
    return merged(splits)


# --- images ---------------------------------------------------------------------------------------------------------


def _tables(files: list[Path], config: Data) -> list[Path]:
    """Tables that name images: `metadata.*`, or those with the image column; of no such table all csv and jsonl."""
    plain = [file for file in files if file.suffix.lower() != ".json"]
    named = [file for file in plain if file.stem.lower() == "metadata"]
    if named:
        return named
    with_column = [file for file in plain if _names_images(file, config)]
    return with_column or plain or files


def _names_images(file: Path, config: Data) -> bool:
    with open(file, encoding="utf-8-sig", errors="replace") as stream:
        line = stream.readline(100_000)
    return any(
        f'"{name}"' in line or name in line.strip().replace(";", ",").replace("\t", ",").split(",")
        for name in ("file_name", config.image_column)
    )


def _of_images(root: Path, kinds: dict[str, list[Path]], config: Data) -> Layout:
    wanted = (config.train_split, config.heldout_split)
    naming = [
        file
        for file in _tables(kinds.get("table", []), config)
        if file.stem.lower() == "metadata" or _names_images(file, config)
    ]
    if naming:
        rows, notes = _rows("table", by_name(naming, root, wanted), root, config)
        if len(naming) == 1 and naming[0].parent == root:
            rows = _by_image_folder(next(iter(rows.values())), config, wanted)
        rows = _by_column(rows)
        unnamed = len(kinds["image"]) - sum(len(one) for one in rows.values())
        notes += [f"not read: {unnamed} images that no table names"] if unnamed > 0 else []
        names = list(dict.fromkeys(file.name for file in naming))
        return Layout(f"images named by {listed(names)}", rows, notes + _passed_over(kinds, "image", "table"))
    splits_of_images = by_split(kinds["image"], root, wanted)
    read = {key_of(splits_of_images, name) for name in wanted}
    folders = {file: parts for name, own in splits_of_images.items() if name in read for file, parts in own}
    label = classes(folders)
    texts = {file for file in kinds.get("", []) if file.suffix == ".txt"}
    rows = {
        name: Rows(name, [_piece_of_images(root, [file for file, _ in own], label, texts)], root)
        for name, own in splits_of_images.items()
    }
    placed = {file for own in splits_of_images.values() for file, _ in own}
    stray = [file.name for file in kinds["image"] if file not in placed]
    tables = [file.name for file in kinds.get("table", [])]
    notes = [f"not read: {listed(tables, 3)} (data.image_column names a table's column of paths)"] if tables else []
    notes += [f"not read, in the folder of no split: {listed(stray, 3)}"] if stray else []
    return Layout("images in folders", rows, notes + _passed_over(kinds, "image", "table"))


def _by_image_folder(rows: Rows, config: Data, wanted: tuple[str, str]) -> dict[str, Rows]:
    """Rows of one table at the root by the folders that its images are in, where these name splits."""
    piece = rows.pieces[0]
    paths = [rows.root / str(name) for name in piece.read(config.image_column, np.ones(piece.count, bool))]
    inside = [
        path if path.is_relative_to(rows.root) and ".." not in path.parts else rows.root / path.name for path in paths
    ]
    found = by_split(sorted(set(inside)), rows.root, wanted)
    split = {file: name for name, own in found.items() for file, _ in own}
    return _divided(rows, [split.get(path, "") for path in inside]) if len(found) > 1 else {rows.split: rows}


def _by_column(splits: dict[str, Rows]) -> dict[str, Rows]:
    """Rows of one table by its column `split`, where no file or folder names splits."""
    rows = next(iter(splits.values()))
    if len(splits) > 1 or len(rows.pieces) > 1 or "split" not in rows.columns:
        return splits
    names = [str(value or "") for value in rows.values("split")]
    key = keys(list(dict.fromkeys(names)))
    return _divided(rows, [key[name] for name in names])


def _divided(rows: Rows, names: list[str]) -> dict[str, Rows]:
    """Rows of one piece by the split of each; without one they are not read."""
    (piece,) = rows.pieces
    parts: dict[str, Rows] = {}
    for name in dict.fromkeys(name for name in names if name):
        mask = np.array([one == name for one in names])
        columns = {column: list(piece.read(column, mask)) for column in piece.columns}
        parts[name] = Rows(name, [of_columns(piece.file, columns, piece.files)], rows.root)
    return parts


def _piece_of_images(root: Path, files: list[Path], label: dict[Path, str | None], texts: set[Path]) -> Piece:
    """Columns `image`, `label` where images are in class folders, and `text` where one of `texts` is beside each."""
    columns: dict[str, list[Any]] = {"image": [str(file.relative_to(root)) for file in files]}
    labels = [label.get(file) for file in files]
    if any(labels):
        columns["label"] = labels
    beside = [text if texts and (text := file.with_suffix(".txt")) in texts else None for file in files]
    found = tuple(text for text in beside if text is not None)
    if found:
        columns["text"] = [None if text is None else _text_of(text) for text in beside]
    return of_columns(root / "images", columns, found)


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise damaged(file, "a text in UTF-8", f"byte {error.start} is not") from error
