"""A disk that is full, read-only, forbidden or in the way: one sentence with path, need and way out."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from kit import GuardedLaunch
from tiny import matrix_file

from bench.cli import main
from bench.cli.common import near
from bench.cli.errors import explain
from bench.store.disk import DiskError, explained
from bench.store.files import atomic_file, make_folder, sweep, whole_folder, write_atomic, write_json
from bench.store.folders import CellFolder, Store
from bench.training.checkpoints import AtomicCheckpoints


@contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[Path]:
    """A file system of its own; skips where none can be mounted."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """No file may become larger: what a full disk does, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        write_atomic(disk / "result.json", "old")
        with pytest.raises(
            DiskError, match=r"result.json of 3.0 MB: no space left for .*/disk/result.json \(.* free\)"
        ):
            write_atomic(disk / "result.json", b"x" * 3_000_000)
        assert (disk / "result.json").read_text() == "old" and len(list(disk.iterdir())) == 1


def test_a_checkpoint_on_a_full_disk_names_the_disk_not_unexpected_pos(tmp_path: Path) -> None:
    """torch.save says "unexpected pos 64 vs 0"; the disk's own reason must come out."""
    with small_disk(tmp_path / "disk") as disk:
        with pytest.raises(DiskError) as caught:
            AtomicCheckpoints().save_checkpoint({"state": {"w": torch.zeros(750_000)}}, disk / "step-1.ckpt")
        said = str(caught.value)
        assert said.startswith("the checkpoint of 3.0 MB: no space left for ") and "/disk/step-1.ckpt (" in said
        assert list(disk.iterdir()) == []


def test_a_limit_on_file_sizes_is_named(tmp_path: Path) -> None:
    with files_at_most(100_000), pytest.raises(DiskError, match="ulimit -f.*step-1.ckpt"):
        AtomicCheckpoints().save_checkpoint({"w": torch.zeros(750_000)}, tmp_path / "step-1.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_no_inode_left_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m,nr_inodes=3") as disk:
        write_json(disk / "a.json", 1)
        write_json(disk / "b.json", 1)
        with pytest.raises(DiskError, match="no inode free"):
            write_json(disk / "c.json", 1)


def test_a_read_only_disk_is_a_sentence(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for make in (lambda: write_atomic(disk / "x", "1"), lambda: make_folder(disk / "cells" / "a")):
            with pytest.raises(DiskError, match="the file system is read-only: .*--root"):
                make()


def test_a_file_for_a_folder_and_a_folder_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "cells").write_text("a file")
    with pytest.raises(DiskError, match="a file is where a folder must be.*cells"):
        write_atomic(tmp_path / "cells" / "a" / "status.json", "{}")
    with pytest.raises(DiskError, match="a file is where a folder must be.*cells"):
        make_folder(tmp_path / "cells")
    (tmp_path / "result.json").mkdir()
    with pytest.raises(DiskError, match=r"a folder is where a file must be: .*result.json"):
        write_atomic(tmp_path / "result.json", "{}")


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENFILE, errno.EIO]
)
def test_every_refusal_names_path_and_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("bench.store.files.os.fsync", refuse)
    with pytest.raises(DiskError) as caught:
        write_atomic(tmp_path / "status.json", "{}")
    assert str(tmp_path / "status.json") in str(caught.value) and "; " in str(caught.value)
    assert caught.value.errno == number and list(tmp_path.iterdir()) == []


def test_what_libraries_say_of_a_full_disk_is_understood(tmp_path: Path) -> None:
    for error in (
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 400704 vs 598"),
        OSError("3000 requested and 296 written"),
        RuntimeError("No space left on device"),
    ):
        assert "no space left for" in (explained(error, tmp_path) or "")
    assert str(tmp_path) in (explained(OSError(errno.ENOSPC, "No space left on device", 3), tmp_path) or "")
    assert explained(ValueError("unexpected pos 3 vs 4"), tmp_path) is None
    assert explained(FileNotFoundError(errno.ENOENT, "No such file"), tmp_path) is None


def test_a_users_file_that_cannot_be_read_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    """Meanwhile a folder of the cache is made: its path has nothing to do with the image's rights."""
    with pytest.raises(PermissionError) as caught, whole_folder(tmp_path / "cache"):
        raise PermissionError(errno.EACCES, "Permission denied", "/home/somebody/image.png")
    assert not isinstance(caught.value, DiskError) and list(tmp_path.iterdir()) == []


def test_temporaries_are_swept_and_nothing_else(tmp_path: Path) -> None:
    """kill -9 leaves what was half-written; a user's hidden files are not ours."""
    cell = CellFolder(tmp_path / "cell-1")
    part = cell.samples / "sample-4"
    kept = [cell.path / ".hidden", cell.path / ".result.json.abcdefgh", part / "part-0.npy"]
    for file in kept:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    for place in (cell.path / "result.json", cell.checkpoints / "step-1.ckpt", part / "part-1.npy"):
        with atomic_file(place) as file:
            left = Path(file.name)
            os.link(left, left.with_name(left.name.replace(left.name.split(".")[-2], "killed_1")))
    folder = cell.path / ".judge.abcd1234.ditbench-tmp"
    folder.mkdir()
    (folder / "half").write_text("")
    cell.sweep()
    assert not list(cell.path.rglob("*.ditbench-tmp")) and all(file.exists() for file in kept)
    assert (cell.checkpoints / "step-1.ckpt").exists()


def test_only_the_temporaries_of_one_name_are_swept_where_others_work(tmp_path: Path) -> None:
    for name in (".a.12345678.ditbench-tmp", ".b.12345678.ditbench-tmp"):
        (tmp_path / name).mkdir()
    assert sweep(tmp_path, "a") == 1 and [path.name[:3] for path in tmp_path.iterdir()] == [".b."]
    assert sweep(tmp_path / "nowhere") == 0
    assert sweep(tmp_path, age=60) == 0 and sweep(tmp_path, age=1e-9) == 1


FULL = r"the checkpoint of \d\.\d MB: no space left for .*\.ckpt \([\d.]+ [kM]B free\); make room and run again"


def test_a_working_directory_that_was_deleted_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SystemExit, match="the working directory was deleted: change to one that exists"):
        main()  # at the start
    assert near(tmp_path / "runs") == str(tmp_path / "runs")  # in the course of a command
    sentence, _ = explain(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))  # as os.getcwd() raises it
    assert sentence == "the working directory was deleted; what is finished is kept in the results directory"


@pytest.mark.faults
def test_cells_on_a_full_disk_are_rows_and_resume_once_there_is_room(tmp_path: Path) -> None:
    """The disk fills up with the first checkpoint: that ended the launch with a traceback, the next cell untried."""
    changes = {"train__steps": 4, "train__warmup": 1, "variants": ["adaln", "adaln-zero"]}
    backbone = {"name": "DiT-XS/4", "width": 64, "depth": 4, "heads": 2}
    path = str(matrix_file(tmp_path, backbone=backbone, **changes))
    with small_disk(tmp_path / "runs", "3m") as disk:
        text = GuardedLaunch("run", path, "--no-track", cwd=tmp_path, OMP_NUM_THREADS="1").ended(1, seconds=250)
        store = Store(disk)
        folders = [store.cell(row.cell) for row in store.rows("tiny")]
        for status, reason in (folder.status() for folder in folders):
            assert status == "failed" and re.fullmatch(FULL, reason)
        assert "Traceback" not in text and not list(disk.rglob("*.ditbench-tmp"))
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        GuardedLaunch("run", path, "--no-track", cwd=tmp_path, OMP_NUM_THREADS="1").ended(0, seconds=250)
        assert [folder.status()[0] for folder in folders] == ["done", "done"]
