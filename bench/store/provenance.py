"""Where a number comes from: code, command, machine, versions. Names no user and no folder of the disk."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "ditbench",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "torch-fidelity",
    "omegaconf",
    "mlflow",
    "numpy",
    "scipy",
)


def git_state(folder: Path | None = None) -> dict[str, Any]:
    """`commit` and `dirty` of the checkout that this code runs from; commit `unknown` outside one.

    Records, and the README that shows them, change no number and so make no checkout dirty.
    """
    folder = folder or Path(__file__).resolve().parents[2]
    commit, _, top = (_git(folder, "rev-parse", "HEAD", "--show-toplevel") or "").partition("\n")
    if not top or Path(top).resolve() != folder.resolve():  # none, or installed below another project's checkout
        return {"commit": "unknown", "dirty": False}
    where = ("--", ".", ":(exclude)results", ":(exclude)README.md")
    changes = _git(folder, "status", "--porcelain", *where)
    if changes == "":
        return {"commit": commit, "dirty": False, "diff": ""}
    diff = _git(folder, "diff", "HEAD", *where)
    if changes is None or diff is None:  # a slow disk: nobody knows that nothing changed
        return {"commit": commit, "dirty": True, "diff": "unknown"}
    return {"commit": commit, "dirty": True, "diff": hashlib.sha256((diff + changes).encode()).hexdigest()[:16]}


def _git(folder: Path, *words: str) -> str | None:
    """What git prints; None if it fails, or does not answer."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Of Python and the packages that can change a number."""
    result = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            result[package] = version(package)
        except PackageNotFoundError:
            continue
    return result


def hardware(device: str) -> dict[str, Any]:
    """The machine: device, processor, cores, memory; of a GPU its name, memory, CUDA, driver and power limit."""
    machine: dict[str, Any] = {
        "device": device,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(0)
        machine |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
        machine |= _nvml(str(properties.uuid))
    return machine


_started = psutil.Process().create_time()


def started() -> float:
    """When this process was started, in seconds since 1970, to a second; of a forked one, the one that imported."""
    return _started


SLACK = 1.0  # seconds; the start of a process is known to a second


def changed_since_start(file: Path) -> bool:
    """Whether a file may have had another text when this process, or the one it was forked from, imported it.

    By its time of change, which no tool sets back.

    Raises:
        OSError: if it is gone.
    """
    return file.stat().st_ctime > started() + SLACK


@functools.cache
def _process(pid: int) -> psutil.Process:
    return psutil.Process(pid)


def usage(device: str) -> dict[str, float]:
    """Load of the machine by this process now, by MLflow's names for it; the CPU's share is since the last call."""
    process = _process(os.getpid())  # not the one that was imported in: a cell is forked from it
    load = {
        "system/cpu_utilization_percentage": process.cpu_percent(),
        "system/system_memory_usage_megabytes": process.memory_info().rss / 1e6,
    }
    if device == "cuda":
        import torch

        load["system/gpu_0_memory_usage_megabytes"] = torch.cuda.memory_reserved() / 1e6
        with suppress(Exception):  # the driver does not report it
            load["system/gpu_0_utilization_percentage"] = float(torch.cuda.utilization())
    return load


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _nvml(uuid: str) -> dict[str, str]:
    """Driver, power limit, highest clock and reasons to throttle of a GPU, written as `nvidia-smi` does.

    What the driver does not report is left out.
    """
    import pynvml as nvml

    read: dict[str, Callable[[Any], str]] = {
        "driver_version": lambda gpu: str(nvml.nvmlSystemGetDriverVersion()),
        "power_limit": lambda gpu: f"{nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1000:.2f} W",
        "clocks_max_sm": lambda gpu: f"{nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)} MHz",
        "clocks_throttle_reasons_active": lambda gpu: f"0x{nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu):016X}",
    }
    values: dict[str, str] = {}
    with suppress(nvml.NVMLError):
        nvml.nvmlInit()
        gpu = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        for key, value in read.items():
            with suppress(nvml.NVMLError):
                values[key] = value(gpu)
        nvml.nvmlShutdown()
    return values


@functools.cache
def imported() -> dict[str, Any]:
    """`git_state` and `versions` of what this process imports; call it before it does.

    They are read once: a commit, or a package that is installed, later is not what runs. A process that is forked has
    those of the one that imported.
    """
    return {**git_state(), "versions": versions()}


def about(device: str) -> dict[str, Any]:
    """All that no command line shows: the state of the code and the versions as they were imported, the machine."""
    return {**imported(), "hardware": hardware(device)}


def command() -> str:
    """What was typed, without the folders of this machine."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    words = [f"python -m {module.name.removesuffix('.__main__')}" if module else Path(sys.argv[0]).name, *sys.argv[1:]]
    return " ".join(_without_folder(word) for word in words)


def _without_folder(word: str) -> str:
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if Path(value).is_absolute() else word
