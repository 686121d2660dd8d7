"""Images that stay in their files, or lie on the device: the same batches as of prepared arrays, or a sentence."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from kit import assert_same
from odd_sets import labelled, parquet, png, read
from PIL import Image
from tiny import planned, run_all
from torch.utils.data import DataLoader

from bench.config.schema import ConfigError, Data, Prompt, as_dict
from bench.data import datasets, prompts, streamed
from bench.data.datasets import DataError
from bench.data.reading import convert, hub
from bench.data.reading.layouts import read_layout
from bench.data.reading.rows import Rows
from bench.training.batches import Batches, StepSampler

CPU = torch.device("cpu")


def folder(root: Path) -> Path:
    """Class folders of images in greys 0 to 39, ten held out."""
    for k in range(40):
        file = root / ("train" if k < 30 else "test") / f"class {k % 3}" / f"{k:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(k))
    return root


def tars(root: Path) -> Path:
    """The same as two shards of webdataset and one that is held out."""
    root.mkdir()
    for name, rows in (("train-0", range(17)), ("train-1", range(17, 30)), ("test-0", range(30, 40))):
        with tarfile.open(root / f"{name}.tar", "w") as opened:
            for k in rows:
                for ending, content in (("png", png(k)), ("cls", str(k % 3).encode())):
                    member = tarfile.TarInfo(f"{k:04d}.{ending}")
                    member.size = len(content)
                    opened.addfile(member, io.BytesIO(content))
    return root


def parquets(root: Path, rows: int = 30, group: int = 4) -> Path:
    """The same as parquet, in row groups of a few."""
    labelled(root, [k % 3 for k in range(rows)], [0, 1, 2])
    table = pyarrow.parquet.read_table(root / "train.parquet")
    pyarrow.parquet.write_table(table, root / "train.parquet", row_group_size=group)
    return root


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "folder": (folder, {}),
    "webdataset": (tars, {"image_column": "image", "label_column": "label"}),
    "parquet": (parquets, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_what_the_array_has(tmp_path: Path, kind: str) -> None:
    """By number, slice and numbers in any order, each also after it was sent to another process."""
    make, keys = KINDS[kind]
    path = make(tmp_path / "set")
    arrays, files = (read(path, tmp_path / "cache", stream=stream, **keys) for stream in (False, True))
    assert files.digest != arrays.digest and not (files.folder / "train-images.npy").exists()  # type: ignore[operator]
    assert isinstance(files.train.images, streamed.StreamedImages) and isinstance(files.heldout.images, np.ndarray)
    assert files.train.images.shape == arrays.train.images.shape and files.image_size == 8
    order = np.random.default_rng(0).permutation(len(arrays.train))[:11].repeat(2)
    for images in (files.train.images, pickle.loads(pickle.dumps(files.train.images))):
        assert np.array_equal(images[:], arrays.train.images)
        for index in (0, 29, -1, slice(3, 7), slice(5, 5), order, np.arange(0)):
            assert np.array_equal(images[index], arrays.train.images[index])
    assert np.array_equal(files.train.labels, arrays.train.labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_sees_the_same_batches(tmp_path: Path, kind: str, workers: int) -> None:
    """Where rows are read alone they are those of arrays, in their order; in blocks the same images in another."""
    make, keys = KINDS[kind]
    path = make(tmp_path / "set")
    found = []
    for stream in (False, True):
        data = read(path, tmp_path / "cache", stream=stream, **keys)
        prompted = prompts.prepare(data, Prompt(), tmp_path / "cache")
        loader = Batches(data, prompted, batch=6, steps=5, seed=1, device=CPU, workers=workers).train_dataloader()
        found.append([(images[:, 0, 0, 0].tolist(), labels.tolist()) for images, labels in loader])
    assert (found[0] == found[1]) == (kind != "parquet")
    for images, labels in found[1]:
        assert labels == [grey % 3 for grey in images]
    assert sorted(grey for images, _ in found[1] for grey in images) == list(range(30))


def test_an_epoch_permutes_blocks_and_rows_within_windows() -> None:
    blocks = np.repeat(np.arange(50), 20)
    order = streamed.permuted(np.random.default_rng(0), blocks, window=100)
    assert sorted(order) == list(range(1000)) and list(order[:20]) != sorted(order[:20])
    windows = [set(blocks[order[start : start + 100]]) for start in range(0, 1000, 100)]
    assert all(len(one) == 5 for one in windows) and windows[0] != set(range(5))
    again, other = (streamed.permuted(np.random.default_rng(seed), blocks, window=100) for seed in (0, 1))
    assert np.array_equal(order, again) and not np.array_equal(order, other)
    assert np.array_equal(
        np.sort(streamed.permuted(np.random.default_rng(0), np.arange(9), window=100)), np.arange(9)
    )  # of one window


def test_batches_are_of_seed_and_step_wherever_one_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "WINDOW", 8)
    images = read(parquets(tmp_path / "set"), tmp_path / "cache", stream=True).train.images
    assert isinstance(images, streamed.StreamedImages)
    samplers = [StepSampler(30, 4, 20, seed, images.permutation) for seed in (3, 3, 4)]
    batches = [[one.indices(k).tolist() for k in range(20)] for one in samplers]
    samplers[1].start = 13
    assert list(samplers[1]) == batches[0][13:] and batches[0] != batches[2]
    assert sorted(k for batch in batches[0][:15] for k in batch) == sorted([*range(30)] * 2)


def test_blocks_are_read_once_a_window_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "WINDOW", 8)
    images = read(parquets(tmp_path / "set"), tmp_path / "cache", stream=True).train.images
    assert isinstance(images, streamed.StreamedImages)
    opened: list[int] = []
    kept = []
    rows = images._opened().rows
    monkeypatch.setattr(type(rows), "images", _counting(type(rows).images, opened))
    sampler = StepSampler(30, 3, 10, 0, images.permutation)
    for batch in sampler:
        assert images[np.asarray(batch)][:, 0, 0, 0].tolist() == batch
        kept.append(sum(map(len, images._stored.values())))
    assert max(kept) <= 16 and len(opened) <= 12  # of 8 blocks, some of which two windows share


@pytest.mark.parametrize("group", [3, 5, 6, 7, 10, 25, 59])
def test_a_block_is_read_once_in_each_window_that_touches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    """Where a window's blocks had more rows than two windows, they gave way to each other at every batch."""
    monkeypatch.setattr(streamed, "WINDOW", 8)
    images = read(parquets(tmp_path / "set", 59, group), tmp_path / "cache", stream=True).train.images
    assert isinstance(images, streamed.StreamedImages) and images.blocks is not None
    rows, opened, held = images._opened().rows, Counter[int](), [0]
    method = type(rows).images

    def counted(self: Any, column: str, wanted: Any) -> Any:
        opened[int(wanted[0]) // group] += 1
        held.append(len(wanted) + sum(map(len, images._stored.values())))
        return method(self, column, wanted)

    monkeypatch.setattr(type(rows), "images", counted)
    for epoch in range(3):
        order = images.permutation(np.random.default_rng(epoch))
        windows = np.split(images.blocks[order], range(8, 59, 8))
        opened.clear()
        for start in range(0, 59, 2):  # no batch is of two windows
            assert images[order[start : start + 2]][:, 0, 0, 0].tolist() == order[start : start + 2].tolist()
        touched = Counter(int(block) for window in windows for block in np.unique(window))
        assert opened <= touched and max(held) <= max(16, 8 + 2 * group)


def _counting(method: Any, seen: list[int]) -> Any:
    def counted(self: Any, column: str, rows: Any) -> Any:
        seen.append(len(rows))
        return method(self, column, rows)

    return counted


def test_sorted_files_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of them has few classes; of mixed rows, or rows that are read alone, nothing is said."""
    monkeypatch.setattr(streamed, "WINDOW", 8)
    path = labelled(tmp_path / "sorted", [k // 4 for k in range(40)])
    pyarrow.parquet.write_table(
        pyarrow.parquet.read_table(path / "train.parquet"), path / "train.parquet", row_group_size=4
    )
    assert "show about 2 of" in "".join(read(path, tmp_path / "cache", stream=True).notes)
    assert "sorted" not in "".join(read(parquets(tmp_path / "mixed"), tmp_path / "cache", stream=True).notes)
    assert "sorted" not in "".join(read(folder(tmp_path / "alone"), tmp_path / "cache", stream=True).notes)


def test_a_sample_is_examined_before(tmp_path: Path) -> None:
    path = folder(tmp_path / "set")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path / "train/class 0/00.png")
    found = read(path, tmp_path / "cache", stream=True)
    assert found.about["splits"]["train"]["examined"] == 30 and found.about["splits"]["train"]["sizes"]["4 x 4"] == 1
    assert "train: 1 of 30 images examined are smaller" in "".join(found.notes)


class Hub:
    """A file system with address, in the hub's stead: files by commit, and how many bytes were read of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.contents: dict[str, bytes] = {}
        self.newest, self.fetched = "", 0
        self.files: dict[str, dict[str, list[str]]] = {}
        monkeypatch.setattr(hub, "_addresses", lambda config: self.files[config.revision or self.newest])
        monkeypatch.setattr("fsspec.open", self._open)

    def push(self, commit: str, folder: Path) -> None:
        names = {split: f"datasets/someone/photos@{commit}/{split}.parquet" for split in ("train", "test")}
        for split, name in names.items():
            self.contents[f"hf://{name}"] = (folder / f"{split}.parquet").read_bytes()
        self.files[commit] = {split: [f"hf://{name}"] for split, name in names.items()}
        self.newest = commit

    def _open(self, address: str, mode: str) -> Any:
        there, hub = io.BytesIO(self.contents[address]), self

        class Opened(io.RawIOBase):
            def read(self, size: int = -1) -> bytes:
                hub.fetched += len(found := there.read(size))
                return found

            def seek(self, place: int, whence: int = 0) -> int:
                return there.seek(place, whence)

            def readable(self) -> bool:
                return True

            seekable = readable

        return SimpleNamespace(open=Opened)


def test_parquet_of_the_hub_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block, of the commit that was prepared; the batches are those of the same files here."""
    there, path, noise = Hub(monkeypatch), tmp_path / "set", np.random.default_rng(0)
    images = [encoded(noise.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(40)]
    path.mkdir()
    for split, rows in (("train", range(32)), ("test", range(32, 40))):
        columns = {"image": [{"bytes": images[k], "path": None} for k in rows], "label": [k % 3 for k in rows]}
        pyarrow.parquet.write_table(pyarrow.table(columns), path / f"{split}.parquet", row_group_size=4)
    there.push("a" * 40, path)
    ours = read("someone/photos", tmp_path / "hub", stream=True, image_size=64)
    theirs = read(path, tmp_path / "files", stream=True, image_size=64)
    assert np.array_equal(ours.train.images[:], theirs.train.images[:])
    assert np.array_equal(ours.heldout.images, theirs.heldout.images)
    assert ours.train.labels is not None and np.array_equal(ours.train.labels, theirs.train.labels)
    orders = [one.train.images.permutation(np.random.default_rng(1)) for one in (ours, theirs)]
    assert np.array_equal(*orders)
    again = pickle.loads(pickle.dumps(ours.train.images))  # as a loading process has it
    there.fetched = 0
    assert np.array_equal(again[:2], theirs.train.images[:2])
    whole = (path / "train.parquet").stat().st_size
    assert there.fetched < whole / 2 and whole > 300_000, "its footer and a block"
    there.push("b" * 40, parquets(tmp_path / "other"))
    later = read("someone/photos", tmp_path / "hub", stream=True, image_size=64)
    assert np.array_equal(later.train.images[5:7], theirs.train.images[5:7])
    assert any("images stay on the hub, at commit aaaa" in note for note in ours.notes)


STORED = "struct", "bytes", "arrow", "no statistics"


def with_gaps(root: Path, kind: str) -> Path:
    """32 rows in blocks of 4, of which 9, 22 and 30 have no image; that of 14 is a file, but for kind `bytes`."""
    images: list[Any] = [{"bytes": png(k), "path": None} for k in range(32)]
    images[9], images[22], images[30] = None, {"bytes": None, "path": None}, {"bytes": None, "path": " "}
    images[14] = {"bytes": None, "path": "14.png"}
    root.mkdir()
    (root / "14.png").write_bytes(png(14))
    if kind == "bytes":
        images = [one and one["bytes"] for one in images]
        images[14] = png(14)
    for split, own in (("train", images), ("test", [png(k) for k in range(8)] if kind == "bytes" else images[:8])):
        table = pyarrow.table({"image": own, "label": [k % 3 for k in range(len(own))]})
        if kind == "arrow":
            with pyarrow.ipc.new_file(root / f"{split}.arrow", table.schema) as file:
                file.write_table(table, max_chunksize=4)
        else:
            more = {"row_group_size": 4, "write_statistics": kind != "no statistics"}
            pyarrow.parquet.write_table(table, root / f"{split}.parquet", **more)
    return root


@pytest.mark.parametrize("kind", STORED)
def test_rows_without_image_are_found_where_the_files_do_not_say_that_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Every image of the set was read before the first step, only to see whether it is there."""
    read_rows: dict[str, list[int]] = {}
    method, said = Rows.images, []

    def counted(self: Rows, column: str, wanted: Any = None) -> Any:
        read_rows[self.split] = list(range(len(self)) if wanted is None else wanted)
        return method(self, column, wanted)

    monkeypatch.setattr(Rows, "images", counted)
    path = with_gaps(tmp_path / "set", kind)
    config = Data("huggingface", path=str(path), image_size=8, label_column="label", missing="drop", stream=True)
    parts, _ = convert.used(config, read_layout(path, config), lambda *words: said.append(words))
    assert parts[0].kept.tolist() == [k for k in range(32) if k not in (9, 22, 30)]
    assert [part.about["dropped"] for part in parts] == [3, 0] and len(parts[1].kept) == 8
    blocks = {"bytes": (2, 5, 7), "no statistics": range(8)}.get(kind, (2, 3, 5, 7))
    assert read_rows["train"] == [k for k in range(32) if k // 4 in blocks]
    assert read_rows["test"] == (list(range(8)) if kind == "no statistics" else [])
    assert ("look for train images", len(read_rows["train"]), len(read_rows["train"])) in said
    found = read(path, tmp_path / "cache", stream=True, missing="drop").train
    assert found.images[:][:, 0, 0, 0].tolist() == parts[0].kept.tolist()


def test_of_the_hub_only_row_groups_that_may_lack_an_image_are_fetched_to_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, path, noise = Hub(monkeypatch), tmp_path / "set", np.random.default_rng(0)
    images: list[Any] = [encoded(noise.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(32)]
    images[7] = None
    path.mkdir()
    for split in ("train", "test"):
        columns = {"image": [{"bytes": one, "path": None} for one in images], "label": [k % 3 for k in range(32)]}
        pyarrow.parquet.write_table(pyarrow.table(columns), path / f"{split}.parquet", row_group_size=4)
    there.push("a" * 40, path)
    config = Data("huggingface", path="someone/photos", label_column="label", missing="drop", stream=True)
    layout = convert.layout_of(config, None, tmp_path, tmp_path)
    there.fetched = 0
    parts, _ = convert.used(config, layout)
    assert [len(part.kept) for part in parts] == [31, 31]
    whole = sum((path / f"{split}.parquet").stat().st_size for split in ("train", "test"))
    assert 0 < there.fetched < whole / 4


def test_other_files_of_the_hub_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Hub(monkeypatch)
    there.files[""] = {"train": ["hf://datasets/someone/photos/train-0.tar"]}
    with pytest.raises(DataError, match=r"of the hub parquet alone is streamed, and it has train-0.tar; .*download it"):
        read("someone/photos", tmp_path / "cache", stream=True)


def test_what_cannot_be_streamed_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data.stream is of image files"):
        Data(source="scenes", stream=True)
    packed = tmp_path / "set.tar"
    with tarfile.open(packed, "w") as opened:
        opened.add(folder(tmp_path / "set"), "set")
    with pytest.raises(DataError, match=r"set.tar is an archive, in which no image can be read alone; unpack it first"):
        read(packed, tmp_path / "cache", stream=True)


def test_files_that_are_gone_or_damaged_are_named_when_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(tmp_path / "set")
    monkeypatch.setattr("bench.data.reading.decoding.EXAMINED", 1)
    (path / "train/class 2/05.png").write_bytes(png()[:40])
    images = read(path, tmp_path / "cache", stream=True).train.images
    with pytest.raises(DataError, match=r"image \d+ of split 'train' \(.*05.png\)"):
        images[:]
    path.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"set: is not there; its images are streamed"):
        read_again(images)[0]
    found = datasets.load(
        datasets.prepare(Data(**as_dict(images.config) | {"path": str(tmp_path / "moved")}), tmp_path / "cache")
    )
    assert found.train.images[0][0, 0, 0] == 0
    for file in (tmp_path / "moved/train/class 0").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"not those that were prepared, in that order, and a row \(20 now\)"):
        read_again(found.train.images)[0]


@pytest.mark.parametrize("change", ["another image", "another name", "a table's rows", "another shard"])
def test_rows_that_moved_since_they_were_prepared_are_refused(tmp_path: Path, change: str) -> None:
    """They had each other's labels; only that there were not fewer was checked."""
    path = tmp_path / "set"
    if change == "another shard":
        found = read(parquets(path), tmp_path / "cache", stream=True).train.images
        (path / "train.parquet").rename(path / "train-1.parquet")
        parquet(path / "train-0.parquet", label=[0])
    elif change == "a table's rows":
        path.mkdir()
        rows = [f"{k}.png,{k % 3}\n" for k in range(6)]
        for name in ("train", "test"):
            (path / f"{name}.csv").write_text("".join(["image,label\n", *rows]))
        for k in range(6):
            (path / f"{k}.png").write_bytes(png(k))
        found = read(path, tmp_path / "cache", stream=True).train.images
        (path / "train.csv").write_text("".join(["image,label\n", *rows[::-1]]))
    else:
        found = read(folder(path), tmp_path / "cache", stream=True).train.images
        old, new = path / "train/class 0/00.png", path / "train/class 0/01.png"
        new.write_bytes(png(77)) if change == "another image" else old.rename(path / "train/class 0/29.png")
    assert len(read_again(found)) == len(found)
    with pytest.raises(DataError, match="its files are not those that were prepared"):
        read_again(found)[0]


def read_again(images: Any) -> Any:
    """As another process has it."""
    return pickle.loads(pickle.dumps(images))


# --- images on the device ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [slice(None), slice(3, 6)])
def test_batches_that_are_taken_on_the_device_are_the_same(tmp_path: Path, part: slice) -> None:
    data = read(folder(tmp_path / "set"), tmp_path / "cache")
    prompted = prompts.prepare(data, Prompt(), tmp_path / "cache")
    found = []
    for place in (None, CPU):
        batches = Batches(data, prompted, batch=6, steps=7, seed=1, device=CPU, part=part, images_on=place)
        batches.load_state_dict({"next_step": 2})
        loader = batches.train_dataloader()
        assert len(loader) == 7
        found.append([(images.tolist(), labels.tolist()) for images, labels in loader])
    assert found[0] == found[1] and len(found[0]) == 5


@pytest.mark.parametrize("source", ["images", "task"])
def test_batches_are_pinned_for_the_device_of_the_cell_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """A cell on the CPU of a machine with a GPU pinned its batches, and opened a context of CUDA on that GPU."""
    if source == "task":
        task = Data(source="task", task="grain", level="easy", heldout_count=8)
        data = datasets.load(datasets.prepare(task, tmp_path / "cache"))
    else:
        data = read(folder(tmp_path / "set"), tmp_path / "cache")
    prompted = prompts.prepare(data, Prompt(), tmp_path / "cache")

    def loader(device: str, workers: int = 0) -> Any:
        given = {"batch": 6, "steps": 2, "seed": 1, "device": torch.device(device), "workers": workers}
        return Batches(data, prompted, **given).train_dataloader()

    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert not isinstance(loader("cpu"), DataLoader) and loader("cuda").pin_memory
        assert not loader("cpu", workers=2).pin_memory


@pytest.mark.thorough
def test_a_cell_with_images_on_its_device_is_the_same_cell(tmp_path: Path) -> None:
    results = []
    for place in ("host", "device"):
        (tmp_path / place).mkdir()
        made, store = planned(tmp_path / place, run__images=place)
        assert made.cells[0].spec.images == place
        assert run_all(made, store)[0].status == "done"
        results.append(store.cell(made.cells[0].row.cell).result())
    assert_same(*results)


def test_images_that_are_made_as_they_are_needed_lie_on_no_device(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run.images device: no process loads them, run.workers is 2"):
        planned(tmp_path, run__images="device", run__workers=2)
    keys = {f"data__{name}": value for name, value in {"source": "huggingface", "label_column": "label"}.items()}
    keys |= {"data__path": str(folder(tmp_path / "set")), "data__image_size": 8, "data__stream": True}
    keys |= {"data__train_count": None, "data__heldout_count": 20, "data__heldout_split": "train"}
    keys |= {"run__images": "device"}
    with pytest.raises(ConfigError, match=r"run.images device: its images are decoded \(data.stream\) as batches need"):
        planned(tmp_path, **keys)
