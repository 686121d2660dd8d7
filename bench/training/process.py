"""The process from data to noise that a cell learns to reverse, as its config names it."""

from __future__ import annotations

from bench.config.schema import Train
from bench.training.ddpm import Ddpm
from bench.training.flow import Flow

Process = Flow | Ddpm


def process_of(train: Train) -> Process:
    """The process of a cell: what chance decides at a step, x_t, the loss, and how many channels a network puts out."""
    if train.process == "ddpm":
        return Ddpm()
    return Flow(train.target, train.clamp, train.t_mean, train.t_std)
