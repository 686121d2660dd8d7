"""What a variant costs: parameters and multiply-adds, counted on `meta`; peaks of GPUs; memory; throughput windows."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import architectures
from architectures import BackboneConfig, DiT, PromptKind

# Dense bf16 tensor-core peaks in FLOP/s, without sparsity, by a part of the device's name; the first that fits counts.
PEAKS = {
    "GB300": 2500e12,
    "GB200": 2500e12,
    "B200": 2250e12,
    "H200": 989e12,
    "H800": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "MI300X": 1300e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
}


def backbone(config: dict[str, Any]) -> BackboneConfig:
    """The backbone of a cell's config.

    Raises:
        ValueError: for an unknown name or sizes that do not fit.
    """
    sizes = {key: value for key, value in config["backbone"].items() if key != "name"}
    return BackboneConfig.named(config["backbone"]["name"], **sizes)


def build(config: dict[str, Any], prompt: PromptKind, *, seed: int = 0) -> DiT:
    """The model of a cell's config.

    Raises:
        ValueError: for an unknown scheme, option or backbone, or sizes that do not fit, in one sentence.
    """
    return architectures.create(
        config["scheme"],
        backbone(config),
        image_size=config["data"]["image_size"],
        in_channels=3,
        prompt=prompt,
        seed=seed,
        **config["options"],
    )


def count(config: dict[str, Any], prompt: PromptKind) -> dict[str, float]:
    """`parameters_*` and `macs_forward`, `flops_train_per_image` of a cell, without making a weight.

    Multiply-adds of matrix products and attention for one picture, prompt encoder included; a training step is three
    forward passes of 2 FLOP a multiply-add, without recomputation (MLPerf's rule for MFU).
    """
    size = config["data"]["image_size"]
    with torch.device("meta"):
        model = build(config, prompt)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, size, size), torch.empty(1), prompt.null(1, "meta"))
    macs = counter.get_total_flops() / 2
    split = {f"parameters_{part}": float(number) for part, number in model.parameter_split().items()}
    return split | {"macs_forward": macs, "flops_train_per_image": 6 * macs}


def peak_flops(device_name: str) -> float | None:
    """The bf16 peak of a GPU by its name, or None where it is not known."""
    return next((peak for part, peak in PEAKS.items() if part in device_name), None)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Bytes at most so far: allocated and reserved on a GPU, resident (the whole process) on a CPU."""
    if device.type == "cuda":
        return {
            "peak_allocated_bytes": float(torch.cuda.max_memory_allocated(device)),
            "peak_reserved_bytes": float(torch.cuda.max_memory_reserved(device)),
        }
    return {"peak_resident_bytes": float(_peak_resident())}


def _peak_resident() -> int:
    """This process's own peak: Linux's `ru_maxrss` would keep that of the process which started this one."""
    try:
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclass
class Stopwatch:
    """Times windows of work without making the device wait: device events on a GPU, the clock on a CPU.

    `start` and `stop` enclose a window; `seconds` waits for the device once and gives the windows since it was last
    asked.
    """

    device: torch.device
    _open: Any = None
    _closed: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self._open is not None

    def start(self) -> None:
        self._open = self._mark()

    def stop(self) -> None:
        if self._open is not None:
            self._closed.append((self._open, self._mark()))
            self._open = None

    def seconds(self) -> list[float]:
        closed, self._closed = self._closed, []
        if self.device.type == "cuda" and closed:
            torch.cuda.synchronize(self.device)
            return [begin.elapsed_time(end) / 1000 for begin, end in closed]
        return [end - begin for begin, end in closed]

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def middle(rates: list[float], name: str) -> dict[str, float]:
    """Median and interquartile range of rates: `name` and `name_iqr`; nothing of nothing."""
    if not rates:
        return {}
    spread = 0.0
    if len(rates) > 1:
        low, _, high = statistics.quantiles(rates, n=4, method="inclusive")
        spread = high - low
    return {name: statistics.median(rates), f"{name}_iqr": spread}
