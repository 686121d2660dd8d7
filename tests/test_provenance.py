"""What a result says of the machine that it was measured on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny import planned

from bench.run import boot
from bench.run.executors import Local
from bench.run.loop import run
from bench.store import provenance
from bench.store.journal import curves


class NVMLError(Exception):
    pass


def driver(**more: object) -> SimpleNamespace:
    """NVML as its Python binding offers it."""

    def refused(gpu: object) -> int:
        raise NVMLError

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlSystemGetDriverVersion=lambda: "580.65.06",
        nvmlDeviceGetPowerManagementLimit=lambda gpu: 700_000,
        nvmlDeviceGetMaxClockInfo=lambda gpu, clock: 1980,
        nvmlDeviceGetCurrentClocksThrottleReasons=refused,
        **more,
    )


def test_a_gpu_is_described_as_nvidia_smi_does_and_what_it_refuses_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    assert provenance._nvml("0") == {
        "driver_version": "580.65.06",
        "power_limit": "700.00 W",
        "clocks_max_sm": "1980 MHz",
    }


def test_a_machine_without_a_driver_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise NVMLError

    fake = driver()
    fake.nvmlInit = absent
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert provenance._nvml("0") == {}


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_below_another_checkout_the_commit_is_unknown(tmp_path: Path) -> None:
    """Installed into a virtual environment within somebody's repository, it named that repository's commit."""
    git(tmp_path, "init", "-q")
    (tmp_path / "theirs.py").write_text("")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "theirs")
    packages = tmp_path / "venv" / "site-packages"
    packages.mkdir(parents=True)
    assert provenance.git_state(packages) == {"commit": "unknown", "dirty": False}
    assert provenance.git_state(tmp_path)["commit"] == git(tmp_path, "rev-parse", "HEAD")


def test_a_tree_of_which_git_says_nothing_is_not_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`git status` that took more than 20 s was a clean tree."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "one", "--allow-empty")
    assert provenance.git_state(tmp_path)["dirty"] is False
    real, commit = provenance._git, git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setattr(provenance, "_git", lambda folder, *words: None if "status" in words else real(folder, *words))
    assert provenance.git_state(tmp_path) == {"commit": commit, "dirty": True, "diff": "unknown"}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A commit of this very code, which processes are started from."""
    folder = tmp_path / "checkout"
    for package in ("bench", "architectures"):
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(boot.ROOT / package, folder / package, ignore=left_out)
    (folder / ".gitignore").write_text("__pycache__\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    monkeypatch.setattr(boot, "__file__", str(folder / "bench" / "run" / "boot.py"))
    return folder


@pytest.mark.parametrize("warm", [True, pytest.param(False, marks=pytest.mark.faults)])
def test_a_result_names_the_commit_that_was_imported_and_no_later_one(
    tmp_path: Path, checkout: Path, warm: bool
) -> None:
    """A cell trains for hours, and the process that it is forked from lives as long as its launch."""
    made, store = planned(tmp_path, train__warmup=1)
    cell, imported = store.cell(made.cells[0].row.cell), git(checkout, "rev-parse", "HEAD")

    def commit(states: object) -> None:
        if curves(cell.journal).get("loss") and git(checkout, "rev-parse", "HEAD") == imported:
            (checkout / "bench" / "notes.md").write_text("later\n")
            git(checkout, "add", "-A")
            git(checkout, "commit", "-qm", "two")
            (checkout / "bench" / "more.md").write_text("later still\n")

    run(made, store, executor=Local(1, warm=warm), say=lambda line: None, show=commit, poll=0.02)
    result = cell.result()
    assert result is not None, cell.status()
    assert git(checkout, "rev-parse", "HEAD") != imported
    assert (result.provenance["commit"], result.provenance["dirty"]) == (imported, False)
