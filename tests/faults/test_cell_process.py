"""A cell's process: its imports are its package's own, and what a plugin does in it harms its own cells alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit import GuardedLaunch, Launch, first
from tiny import PLUGIN, matrix_file

from bench.run.boot import ROOT, command, environment
from bench.run.processes import marked
from bench.store.folders import Store

SHADOWS = ("random.py", "torch.py", "types.py", "json.py", "sitecustomize.py", "numpy/__init__.py")
SHADOWS += ("bench/__init__.py", "architectures/__init__.py", "filelock.py", "tests/__init__.py")


def shadowed(folder: Path) -> None:
    """A working directory with files that are named like modules."""
    for name in SHADOWS:
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"raise SystemExit('the {name} of the working directory was imported')\n")


def test_no_file_of_the_working_directory_is_imported(tmp_path: Path) -> None:
    """A local architectures/ or random.py: the cell was `killed without a message`."""
    shadowed(tmp_path)
    words = command("bench.run.guard", str(tmp_path / "cell"))
    assert words[:2] == [sys.executable, "-P"]
    code = "import random, types, json, filelock, bench, architectures; print(bench.__file__, architectures.__file__)"
    probe = f"import runpy, sys; sys.argv = ['x']; runpy.run_path({words[2]!r}, run_name='__mp_main__'); {code}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", probe], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in ("bench", "architectures")], done.stderr


def test_the_parents_package_is_used_whatever_is_installed_or_on_the_path(tmp_path: Path) -> None:
    """An old ditbench in PYTHONPATH, or an editable install of another checkout."""
    for name in ("bench", "architectures"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('another version was imported')\n")
    (tmp_path / "helper.py").write_text("VALUE = 3\n")
    boot = command("bench.run.guard")[2]
    code = (
        f"import runpy; runpy.run_path({boot!r}, run_name='__mp_main__'); import bench, helper; print(bench.__file__)"
    )
    env = environment(PYTHONPATH=str(tmp_path))
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd="/", env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(ROOT / "bench" / "__init__.py"), done.stderr


@pytest.mark.parametrize(
    ("before", "after"), [(":/a", "/a"), ("/a::/b:", "/a:/b"), (":", None), ("/a", "/a"), (".", ".")]
)
def test_an_empty_part_of_the_path_is_not_the_working_directory(before: str, after: str | None) -> None:
    """`export PYTHONPATH=$PYTHONPATH:/a` starts with an empty part, which Python takes for the working directory."""
    assert environment(PYTHONPATH=before).get("PYTHONPATH") == after


IN_A_CELL = "\nimport sys\nif sys.argv[0].endswith('bench.run.cell'):\n"
DEEDS = {
    "exits": ("import os; os._exit(0)", "scheme 'added' of plugin added.py: its process ended with exit code 0"),
    "crashes": (
        "import ctypes; ctypes.string_at(0)",
        "scheme 'added' of plugin added.py: its process crashed (SIGSEGV)",
    ),
    "hangs": ("while True: pass", "added.py"),
    "deletes its folder": ("import shutil; shutil.rmtree(sys.argv[1])", "was deleted while the cell ran"),
    "raises no Exception": ("raise BaseException('boo')", "added.py: BaseException: boo"),
    "kills its guard": ("import os, time; os.kill(os.getppid(), 9); time.sleep(60)", "SIG"),
}


@pytest.mark.faults
@pytest.mark.parametrize("deed", first(DEEDS, "crashes", "hangs", "deletes its folder", "kills its guard"))
def test_a_plugin_harms_its_own_cell_alone(tmp_path: Path, deed: str) -> None:
    """It does so at import in its cell; the other cell is of a built-in scheme, and is done."""
    code, said = DEEDS[deed]
    (tmp_path / "added.py").write_text(PLUGIN + IN_A_CELL + f"    {code}\n")
    path = matrix_file(
        tmp_path,
        variants=["added", "adaln"],
        plugins=["added.py"],
        train__steps=2,
        train__warmup=1,
        run__silence=20.0 if deed == "hangs" else 1800.0,
    )
    launch = GuardedLaunch("run", str(path), "--no-track", cwd=tmp_path, OMP_NUM_THREADS="1")
    text = launch.ended(1, seconds=280)
    store = Store(tmp_path / "runs")
    (bad, why), (good, _) = (store.cell(row.cell).status() for row in store.rows("tiny"))
    assert good == "done" and bad != "done" and said in why and said in text and "Traceback" not in text


@pytest.mark.faults
def test_a_loud_plugin_in_a_shadowed_folder_leaves_a_small_log_and_no_process(tmp_path: Path) -> None:
    """It prints 300 MB, takes all signals, changes folder and leaves a process; its numbers count."""
    shadowed(tmp_path)
    code = """
    import os, signal, subprocess
    for k in range(30):
        print("x" * 9_999_999, k)
    for number in (1, 2, 3, 15):
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    subprocess.Popen(["sleep", "500"], start_new_session=True)
"""
    (tmp_path / "added.py").write_text(PLUGIN + IN_A_CELL + code)
    path = matrix_file(tmp_path, variants=["added"], plugins=["added.py"], train__steps=2, train__warmup=1)
    start = [sys.executable, "-P", "-c", "from bench.cli import main; main()", "run", str(path), "--no-track"]
    launch = Launch(cwd=tmp_path, command=start, OMP_NUM_THREADS="1")
    launch.ended(0, seconds=280)
    store = Store(tmp_path / "runs")
    cell = store.cell(store.rows("tiny")[0].cell)
    assert cell.status()[0] == "done" and marked(cell.path) == []
    assert sum(os.stat(file).st_size for file in cell.path.glob("log*")) < 51_000_000
