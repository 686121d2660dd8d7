"""What a variant costs: parameters and multiply-adds, counted on `meta`; peaks of GPUs."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from architectures import PromptKind
from bench.config.spec import CellConfig
from bench.training.model import build

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


def count(config: CellConfig, prompt: PromptKind) -> dict[str, float]:
    """`parameters_*` and `macs_forward`, `flops_train_per_image` of a cell, without allocating a weight.

    Multiply-adds of matrix products and attention for one image, prompt encoder included; a training step is three
    forward passes of 2 FLOP a multiply-add, without recomputation (MLPerf's rule for MFU).
    """
    size = config.data.image_size
    with torch.device("meta"):
        model = build(config, prompt)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, config.data.in_channels, size, size), torch.empty(1), prompt.null(1, "meta"))
    macs = counter.get_total_flops() / 2
    split = {f"parameters_{part}": float(number) for part, number in model.parameter_split().items()}
    return split | {"macs_forward": macs, "flops_train_per_image": 6 * macs}


def peak_flops(device_name: str) -> float | None:
    """The bf16 peak of a GPU by its name, or None where it is not known."""
    return next((peak for part, peak in PEAKS.items() if part in device_name), None)
