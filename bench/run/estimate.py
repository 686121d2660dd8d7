"""GPU hours of cells before they are run, from the utilisation that was measured on a card (results/gpu)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bench.measure.cost import PEAKS
from bench.run.plan import PlannedCell

CARD = "H200"  # of results/gpu/20261126-h200-eb2f6d91.json: bf16, compiled, batch 256, 256 tokens
MEASURED = {  # width: MFU of three schemes, of two; least, mean, most
    384: (0.1975, 0.2222, 0.2372),
    768: (0.3926, 0.3935, 0.3944),
}
EVALUATIONS = {"euler": 1, "heun": 2, "ddpm": 1, "ddim": 1}  # of the model, a step of the sampler


@dataclass(frozen=True)
class Hours:
    """GPU hours of a cell.

    Attributes:
        mean: by the mean MFU measured at the nearest width. low, high: by the most and the least.
        extrapolated: whether that width is a third away, or more.
    """

    mean: float
    low: float
    high: float
    extrapolated: bool

    def __str__(self) -> str:
        return f"{'~' if self.extrapolated else ''}{self.mean:.3g}"


def hours(cell: PlannedCell) -> Hours | None:
    """Hours on one card, training and sampling; None where nothing of its kind was measured.

    Sampling is counted at the utilisation of training; decoding of latents and features of metrics are not in it.
    """
    if cell.reason or not cell.cost:
        return None
    config, width = cell.spec.config, _width(cell)
    if width < min(MEASURED) * 3 / 4:
        return None  # a small model waits for its launches: no share of a peak
    nearest = min(MEASURED, key=lambda one: abs(math.log(one / width)))
    train, sample = config.train, config.sample
    work = cell.cost["flops_train_per_image"] * train.batch * train.steps
    passes = EVALUATIONS[sample.sampler] * sample.steps * (1 if sample.guidance == 1 else 2)
    work += 2 * cell.cost["macs_forward"] * passes * config.evaluate.samples
    low, mean, high = (work / (mfu * PEAKS[CARD]) / 3600 for mfu in reversed(MEASURED[nearest]))
    return Hours(mean, low, high, not 3 / 4 <= width / nearest < 4 / 3)


def _width(cell: PlannedCell) -> int:
    from bench.training.model import backbone

    return backbone(cell.spec.config.backbone).width


def summary(cells: Iterable[PlannedCell], price: float | None) -> str:
    """The sum in a sentence, with what it is made of; empty where nothing was measured."""
    found = [one for one in map(hours, cells) if one is not None]
    if not found:
        return ""
    mean, low, high = (sum(getattr(one, name) for one in found) for name in ("mean", "low", "high"))
    money = f", {mean * price:,.0f} at {price:g} an hour" if price is not None else ""
    shares = "; ".join(f"width {width}: {one[0]:.0%} to {one[2]:.0%}" for width, one in MEASURED.items())
    far = " ~ is of another width than was measured." if any(one.extrapolated for one in found) else ""
    return (
        f"estimate: {mean:,.4g} {CARD} hours ({low:,.4g} to {high:,.4g}){money}, from MFU measured on one {CARD} "
        f"({shares}; results/gpu). Without decoding and features.{far}"
    )
