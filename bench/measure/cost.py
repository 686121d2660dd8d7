"""What a variant costs: parameters and multiply-adds, counted on `meta`; peaks of GPUs."""

from __future__ import annotations

import re
import statistics

import torch

from architectures import DiT, PromptKind, multiply_adds
from bench.config.spec import CellConfig
from bench.training.model import build
from bench.training.stopwatch import Stopwatch

# Dense bf16 tensor-core peaks in FLOP/s, without sparsity and summed in fp32, by words of the device's name; the first
# that fits counts, so that a longer name comes before the shorter one in it.
PEAKS = {
    "GB300": 2500e12,
    "B300": 2250e12,
    "GB200": 2500e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H800": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
    "MI325X": 1307e12,
    "MI300X": 1307e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 6000 Ada": 364e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}
OTHERS = "Ti|D|SUPER|Laptop|Max-Q"  # behind a name: another card


def count(config: CellConfig, prompt: PromptKind) -> dict[str, float]:
    """`parameters_*` and `macs_forward`, `flops_train_per_image` of a cell, without allocating a weight.

    Multiply-adds of matrix products and attention for one image, prompt encoder included; a training step is three
    forward passes of 2 FLOP a multiply-add, without recomputation (MLPerf's rule for MFU).
    """
    with torch.device("meta"):
        model = build(config, prompt)
    macs = multiply_adds(model, config.data.in_channels, config.data.image_size, prompt)
    return _parameters(model) | {"macs_forward": macs, "flops_train_per_image": 6 * macs}


def count_parameters(config: CellConfig, prompt: PromptKind) -> dict[str, float]:
    """The `parameters_*` of `count` alone, without a forward pass."""
    with torch.device("meta"):
        return _parameters(build(config, prompt))


def _parameters(model: DiT) -> dict[str, float]:
    return {f"parameters_{part}": float(number) for part, number in model.parameter_split().items()}


def gemm_flops(device: torch.device, side: int = 8192, rounds: int = 10) -> float:
    """FLOP/s of a bf16 product of two random matrices on a device, now: the median after three rounds of warm-up."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    watch = Stopwatch(device)
    for _ in range(rounds + 3):
        watch.start()
        torch.mm(a, b)
        watch.stop()
    return 2 * side**3 / statistics.median(watch.seconds()[3:])


def utilisation(flops_per_second: float, device_name: str, gemm: float) -> dict[str, float]:
    """`mfu` of the peak on paper where it is known, and `mfu_of_gemm` of the rate that `gemm_flops` measured."""
    peak = peak_flops(device_name)
    return ({"mfu": flops_per_second / peak} if peak else {}) | {"mfu_of_gemm": flops_per_second / gemm}


def peak_flops(device_name: str) -> float | None:
    """The bf16 peak of a GPU by its name, or None where it is not known, as of a part of a GPU (MIG) or a `Ti`."""
    found = (peak for words, peak in PEAKS.items() if re.search(rf"\b{words}\b(?! ({OTHERS}))", device_name))
    return None if "MIG" in device_name else next(found, None)
