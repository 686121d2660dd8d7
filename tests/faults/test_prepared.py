"""Prepared data and cached prompts that are damaged: the planner makes them again and says so, a cell names them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_sets import captioned, labelled
from tiny import planned

from bench.config.schema import Data, Prompt
from bench.data import datasets, prepared, prompts
from bench.data.errors import DataError
from bench.data.prompts import PromptError
from bench.store.disk import DiskError


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def remove(file: Path) -> None:
    file.unlink()


HARMS = [cut, flip, empty, remove]


def data_of(tmp_path: Path, kind: str) -> Data:
    if kind == "scenes":
        return Data(image_size=16, train_count=6, heldout_count=4, unseen_count=2)
    make, column = (labelled, "label_column") if kind == "labels" else (captioned, "caption_column")
    values = ["a cat", "two dogs", "a cat"]
    path = make(tmp_path / "set", values) if not (tmp_path / "set").exists() else tmp_path / "set"
    name = {"label_column": "label", "caption_column": "text"}[column]
    return Data(source="huggingface", path=str(path), image_size=8, **{column: name})  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("kind", ["scenes", "labels", "captions"])
def test_damaged_data_is_named_in_a_cell_and_made_again_by_the_planner(tmp_path: Path, kind: str, harm: Any) -> None:
    """A truncated array made the cell fail at every rerun, a flipped bit trained on other images."""
    config = data_of(tmp_path, kind)
    folder = datasets.prepare(config, tmp_path / "cache")
    whole = contents(folder)
    for name in whole:
        harm(folder / name)
        with pytest.raises(DataError, match=f"{name}.* makes it again, or delete"):
            datasets.load(folder)
        said: list[str] = []
        assert datasets.prepare(config, tmp_path / "cache", warn=said.append) == folder
        assert len(said) == 1 and name in said[0] and "is made again" in said[0]
        assert contents(folder) == whole
        said.clear()
        datasets.prepare(config, tmp_path / "cache", warn=said.append)
        assert not said


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("kind", ["labels", "captions"])
def test_damaged_prompts_likewise(tmp_path: Path, kind: str, harm: Any) -> None:
    """A truncated train.npy of cached prompts ended the cell at every rerun, naming no file."""
    loaded = datasets.load(datasets.prepare(data_of(tmp_path, kind), tmp_path / "cache"))
    folder = prompts.prepare(loaded, Prompt(), tmp_path / "cache").folder
    whole = contents(folder)
    for name in whole:
        harm(folder / name)
        with pytest.raises(PromptError, match=f"{name}.* makes them again, or delete"):
            prompts.load(folder)
        said: list[str] = []
        prompts.prepare(loaded, Prompt(), tmp_path / "cache", warn=said.append)
        assert len(said) == 1 and name in said[0] and contents(folder) == whole


def test_the_plan_says_what_it_made_again(tmp_path: Path) -> None:
    made, store = planned(tmp_path)
    cut(store.cache / "data" / made.cells[0].spec.digests["data"] / "train-images.npy")
    flip(store.cache / "prompts" / made.cells[0].spec.digests["prompts"] / "heldout.npy")
    again, _ = planned(tmp_path)
    assert [cell.row.cell for cell in again.cells] == [cell.row.cell for cell in made.cells]
    assert sum("is made again" in warning or "it is made again" in warning for warning in again.warnings) == 2
    assert not planned(tmp_path)[0].warnings


def test_what_a_kill_left_half_made_is_swept(tmp_path: Path) -> None:
    """Half-rendered data stayed for ever beside the whole."""
    config = data_of(tmp_path, "scenes")
    folder = datasets.prepare(config, tmp_path / "cache")
    for left in (f".{folder.name}.x1y2", ".0123456789abcdef.zz9"):
        (folder.parent / left).mkdir()
        np.save(folder.parent / left / "train-images.npy", np.zeros(3))
    datasets.prepare(Data(image_size=16, train_count=5, heldout_count=4, unseen_count=2), tmp_path / "cache")
    assert not [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_what_another_process_is_making_is_left_alone(tmp_path: Path) -> None:
    from filelock import FileLock

    other = tmp_path / "cache/data/0123456789abcdef"
    (other.parent / f".{other.name}.zz9").mkdir(parents=True)
    with FileLock(other.with_suffix(".lock")):
        datasets.prepare(data_of(tmp_path, "scenes"), tmp_path / "cache")
        assert (other.parent / f".{other.name}.zz9").is_dir()


def test_an_older_version_is_made_again(tmp_path: Path) -> None:
    import json

    config = data_of(tmp_path, "scenes")
    folder = datasets.prepare(config, tmp_path / "cache")
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({key: meta[key] for key in ("digest", "classes", "config")}))
    said: list[str] = []
    datasets.prepare(config, tmp_path / "cache", warn=said.append)
    assert "an older version prepared it" in said[0]


def test_a_disk_that_is_too_small_is_a_sentence(tmp_path: Path) -> None:
    """Images are written through a mapped file: a disk that filled ended the planner by SIGBUS."""
    disk = tmp_path / "cache"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        config = replace(data_of(tmp_path, "labels"), image_size=512)
        with pytest.raises(DiskError, match=r"no space left for .*train-images.npy .* free\); make room"):
            datasets.prepare(config, disk)
        assert [path for path in (disk / "data").iterdir() if path.is_dir()] == []
        datasets.load(datasets.prepare(replace(config, image_size=8), disk))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_nothing_of_the_preparation_is_left(tmp_path: Path) -> None:
    """Also when it fails: no half-made folder, no unpacked archive."""
    config = data_of(tmp_path, "labels")
    (Path(config.path or "") / "train.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError):
        datasets.prepare(config, tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_dir() and path.name != "data"] == []


def test_a_folder_is_hashed_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unchanged files are not read twice; changed ones are, whatever process changed them."""
    folder = datasets.prepare(data_of(tmp_path, "scenes"), tmp_path / "cache")
    datasets.load(folder)
    compared: list[str] = []
    compare: Callable[[Path, dict[str, Any]], None] = prepared._compare
    monkeypatch.setattr(prepared, "_compare", lambda path, one: (compared.append(path.name), compare(path, one))[1])
    datasets.load(folder)
    assert compared == []
    flip(folder / "heldout-images.npy")
    with pytest.raises(DataError, match="heldout-images.npy has other bytes"):
        datasets.load(folder)
