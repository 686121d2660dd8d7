"""Where a number comes from: code, command, machine, versions. Says nothing of who or where on the disk."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
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
    """`commit` and `dirty` of the checkout that this code runs from; commit `unknown` outside one. Records, and the
    README that shows them, change no number and so make no checkout dirty."""
    folder = folder or Path(__file__).resolve().parents[2]
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {"commit": "unknown", "dirty": False}
    where = ("--", ".", ":(exclude)results", ":(exclude)README.md")
    changes = _git(folder, "status", "--porcelain", *where)
    diff = hashlib.sha256((_git(folder, "diff", "HEAD", *where) + changes).encode()).hexdigest()[:16] if changes else ""
    return {"commit": commit, "dirty": bool(changes), "diff": diff}


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def versions() -> dict[str, str]:
    """Of Python and the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: str) -> dict[str, Any]:
    """The machine: device, processor, cores, memory; of a GPU its name, memory, CUDA, driver and power limit."""
    found: dict[str, Any] = {
        "device": device,
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device == "cuda":
        import torch

        properties = torch.cuda.get_device_properties(0)
        found |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory, "cuda": torch.version.cuda}
        found |= _nvidia_smi()
    return found


_process = psutil.Process()


def usage(device: str) -> dict[str, float]:
    """What this process takes of the machine now, by MLflow's names for it; the CPU's share is since the last call."""
    found = {
        "system/cpu_utilization_percentage": _process.cpu_percent(),
        "system/system_memory_usage_megabytes": _process.memory_info().rss / 1e6,
    }
    if device == "cuda":
        import torch

        found["system/gpu_0_memory_usage_megabytes"] = torch.cuda.memory_reserved() / 1e6
        with suppress(Exception):  # NVML's Python binding is not there, or the driver will not tell
            found["system/gpu_0_utilization_percentage"] = float(torch.cuda.utilization())
    return found


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _nvidia_smi() -> dict[str, str]:
    fields = ("driver_version", "power.limit", "clocks.max.sm", "clocks_throttle_reasons.active")
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = done.stdout.splitlines()[0].split(", ") if done.returncode == 0 and done.stdout.strip() else []
    return dict(zip((field.replace(".", "_") for field in fields), values, strict=False))


def about(device: str) -> dict[str, Any]:
    """All of it that no command line says: the state of the code, the machine, the versions."""
    return {**git_state(), "hardware": hardware(device), "versions": versions()}


def command() -> str:
    """What was typed, without the folders of this machine."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return " ".join(_without_folder(word) for word in words)


def _without_folder(word: str) -> str:
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if Path(value).is_absolute() else word
