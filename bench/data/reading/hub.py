"""Data sets of the Hugging Face hub. The only door to `datasets`; what lies on this machine needs none of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.config.schema import Data
from bench.data.errors import DataError, short
from bench.data.reading.layouts import Layout
from bench.data.reading.piece import Piece, Wanted
from bench.data.reading.rows import Rows
from bench.data.reading.splits import keys
from bench.data.reading.tables import parquet_at


def read_hub(config: Data, cache: Path) -> Layout:
    """The splits of a data set on the hub.

    Args:
        config: its name, subset and revision.
        cache: a folder for what is fetched.

    Raises:
        DataError: if it cannot be fetched.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)  # what goes wrong is reported once, below
    assert config.path is not None
    try:
        sets = datasets.load_dataset(config.path, config.subset, revision=config.revision, cache_dir=str(cache))
    except Exception as error:  # datasets raises many kinds, from many libraries
        raise _absent(config, error) from error
    root = Path(config.path)
    splits = {key: Rows(key, [_piece(root, sets[name])], root) for name, key in keys(list(sets)).items()}
    commit = _commit(sets)
    notes = [] if config.revision else [f"the hub's newest version; data.revision={commit or 'COMMIT'} pins it"]
    return Layout(f"a data set of the hub{f', commit {commit}' if commit else ''}", splits, notes, commit)


def stream_hub(config: Data) -> Layout:
    """The splits of a data set on the hub whose rows are parquet, which are read where they lie, block by block.

    Args:
        config: its name, subset and revision.

    Raises:
        DataError: if it cannot be reached, or is of other files.
    """
    addresses = _addresses(config)
    every = [one for own in addresses.values() for one in own]
    others = [one for one in every if not one.endswith(".parquet")]
    if others:
        raise DataError(
            f"{config.path}: of the hub parquet alone is streamed, and it has {others[0].rpartition('/')[2]}; "
            "data.revision=refs/convert/parquet may have it as parquet, or download it first"
        )
    with ThreadPoolExecutor(8) as pool:  # a footer takes as long as the way there and back
        pieces = dict(zip(every, pool.map(parquet_at, every), strict=True))
    root = Path(str(config.path))
    splits = {
        key: Rows(key, [pieces[one] for one in addresses[name]], root) for name, key in keys(list(addresses)).items()
    }
    commit = _named(every)
    return Layout("parquet of the hub, streamed", splits, [f"images stay on the hub, at commit {commit}"], commit)


def _addresses(config: Data) -> dict[str, list[str]]:
    """Split -> where its files lie, in order."""
    import datasets

    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    assert config.path is not None
    try:
        builder = datasets.load_dataset_builder(config.path, config.subset, revision=config.revision)
    except Exception as error:
        raise _absent(config, error) from error
    return {str(name): [str(one) for one in own] for name, own in (builder.config.data_files or {}).items()}


def _absent(config: Data, error: Exception) -> DataError:
    cause = error.__cause__ or error
    return DataError(
        f"data.path {config.path}: no file or folder of that name here; as a data set of the hub: "
        f"{type(cause).__name__}: {short(cause)}"
    )


def _commit(sets: Any) -> str:
    """The commit that was fetched, as the addresses of its files name it; empty if they do not."""
    return _named(str(address) for rows in sets.values() for address in rows.info.download_checksums or {})


def _named(addresses: Iterable[str]) -> str:
    """The commit that addresses name; empty if they name none."""
    found = re.search(r"@([0-9a-f]{40})\b", " ".join(addresses))
    return found[1] if found else ""


def _piece(root: Path, rows: Any) -> Piece:
    import datasets

    def read(column: str, wanted: Wanted) -> Iterator[Any]:
        chosen = rows if wanted.all() else rows.select(np.flatnonzero(wanted))
        if isinstance(rows.features[column], datasets.Image):
            chosen = chosen.cast_column(column, datasets.Image(decode=False))
        return iter(chosen[column])

    names = {column: list(kind.names) for column, kind in rows.features.items() if getattr(kind, "names", None)}
    types = {column: str(kind) for column, kind in rows.features.items()}
    return Piece(root, len(rows), types, read, names, embedded=lambda column: True)
