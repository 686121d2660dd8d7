"""Equal budgets: for each variant the width, depth or number of steps at which it costs what another one costs.

    budget: {match: params, to: adaln-zero}        # or macs, train_flops, wall_clock

`params` and `macs` are met by width and depth, the depth kept where it can be; `train_flops` and `wall_clock` by the
number of steps. A variant that cannot be brought within 1 % is refused.
"""

from __future__ import annotations

import functools
import gc
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from architectures import BackboneConfig, PromptKind, index_prompt
from bench.config.schema import ConfigError, Train, as_dict
from bench.config.spec import CellConfig
from bench.measure.cost import count, count_parameters
from bench.run.checks import check_step
from bench.store.files import digest, make_folder
from bench.store.kept import Warn, load_value, save_value
from bench.store.provenance import hardware
from bench.training.arithmetic import pinned
from bench.training.bare import bare_step
from bench.training.compiling import compile_whole
from bench.training.model import backbone, build
from bench.training.process import process_of
from bench.training.stopwatch import Stopwatch, Throughput

NEAR = 0.01  # how far off a budget may be met, as a share
TIMED = ("scheme", "options", "backbone", "data", "train")  # what the time of a step depends on
TIMING = 2  # how it is timed; 1 was eager, whole batches, in torch's own arithmetic: what was kept of it is not taken
COUNTED: dict[str, tuple[str, Callable[[CellConfig, PromptKind], float]]] = {
    "params": ("parameters", lambda config, prompt: count_parameters(config, prompt)["parameters_total"]),
    "macs": ("multiply-adds", lambda config, prompt: count(config, prompt)["macs_forward"]),
}


@dataclass(frozen=True)
class Match:
    """How a variant meets the budget: what changes in its config, and how far off it is (as a share)."""

    changes: dict[str, Any]
    residual: float

    @property
    def text(self) -> str:
        """The changes and the distance, such as `width 96 (+0.31%)`."""
        changes = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in self.changes.items())
        return f"{changes or 'as it is'} ({self.residual:+.2%})"


def solve(config: CellConfig, target: CellConfig, match: str, prompt: PromptKind) -> Match:
    """What to change of `config` so that it costs what `target` costs.

    Raises:
        ConfigError: if nothing lies within 1 %, or a step cannot be timed.
    """
    if match in COUNTED:
        what, counted = COUNTED[match]
        return _sized(config, counted(target, prompt), what, lambda sized: counted(sized, prompt))
    if match == "train_flops":

        def cost(c: CellConfig) -> float:
            return count(c, prompt)["flops_train_per_image"] * c.train.batch

        return _stepped(config, target.train.steps * cost(target), cost(config))
    if config.scheme == target.scheme and config.options == target.options:
        return Match({}, 0.0)
    check_step(config.train)
    theirs, ours = _seconds_a_step(target, config, prompt)
    if config.train.device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # cells train there next
    return _stepped(config, target.train.steps * theirs, ours)


def measured(
    config: CellConfig, target: CellConfig, prompt: PromptKind, code: Sequence[str], cache: Path, warn: Warn
) -> Match:
    """`solve` for `wall_clock`, measured once a machine: by another number of steps a matrix would not resume.

    Args:
        config: of the cell.
        target: whose time it is to take.
        prompt: of both.
        code: digests of the code of both.
        cache: where the match is kept.
        warn: gets a sentence on a damaged file.

    Raises:
        ConfigError: if nothing lies within 1 %, or a step cannot be timed.
    """
    sides = [{key: as_dict(one)[key] for key in TIMED} for one in (config, target)]
    machine = {key: value for key, value in hardware(config.train.device).items() if key in ("cpu", "cores", "gpu")}
    path = cache / "budgets" / f"{digest([TIMING, sides, repr(prompt), list(code), machine], 16)}.json"
    make_folder(path.parent)
    with FileLock(path.with_suffix(".lock")):  # two first launches would measure beside one another, and disagree
        if known := load_value(path, warn):
            return Match(**known)
        match = solve(config, target, "wall_clock", prompt)
        save_value(path, as_dict(match))
    return match


def _stepped(config: CellConfig, budget: float, each: float) -> Match:
    """A number of steps, and warm-up and cool-down in proportion."""
    train = config.train
    steps = max(1, round(budget / each))
    residual = steps * each / budget - 1
    if abs(residual) > NEAR:
        raise ConfigError(
            f"no number of steps comes within {NEAR:.0%} of the budget; the nearest, {steps}, is {residual:+.1%} off"
        )
    scale = steps / train.steps
    changes = {"train.steps": steps} if steps != train.steps else {}
    for name in ("warmup", "cooldown"):
        length: int = getattr(train, name)
        if length and changes:
            changes[f"train.{name}"] = min(steps, round(length * scale))
    return Match(changes, residual)


def _sized(config: CellConfig, budget: float, what: str, cost_of: Callable[[CellConfig], float]) -> Match:
    """Width and depth: the depth nearest to the given one at which some width comes within the limit."""
    own = backbone(config.backbone)
    nearest = Match({}, math.inf)

    @functools.cache
    def cost(width: int, depth: int) -> float:
        return cost_of(config.changed({"backbone.width": width, "backbone.depth": depth}))

    for depth in sorted(range(max(1, own.depth // 2), 2 * own.depth + 1), key=lambda d: (abs(d - own.depth), d)):
        for width in _widths(own, budget, functools.partial(cost, depth=depth)):
            changes = {f"backbone.{n}": v for n, v in (("width", width), ("depth", depth)) if v != getattr(own, n)}
            residual = cost(width, depth=depth) / budget - 1
            if abs(residual) < abs(nearest.residual):
                nearest = Match(changes, residual)
        if abs(nearest.residual) <= NEAR:
            return nearest
    raise ConfigError(
        f"no width and depth bring its {what} within {NEAR:.0%} of {budget:,.0f}; the nearest is {nearest.text}"
    )


def _widths(own: BackboneConfig, budget: float, cost: Callable[[int], float]) -> list[int]:
    """The two allowed widths on either side of the budget; cost grows with width."""
    step = 4 * own.heads if own.positions == "rope" else math.lcm(4, own.heads)
    allowed = range(step, max(2, 4 * own.width // step) * step + 1, step)
    above = _first_above(allowed, budget, cost, own.width)
    return list(allowed[above - 1 : above + 1]) if 0 < above < len(allowed) else []


def _first_above(allowed: range, budget: float, cost: Callable[[int], float], width: int) -> int:
    """The place of the first width that costs more than the budget, as `bisect` finds it, with 40 % fewer counts.

    A count takes a pass of the model. Most of a cost is quadratic in the width, so each says where the next belongs.
    """
    low, high, tries = 0, len(allowed), 0
    while low < high:
        k = (width - allowed.start) // allowed.step if tries < 4 else (low + high) // 2
        k = min(max(k, low), high - 1)
        spent = cost(allowed[k])
        low, high, tries = (low, k, tries + 1) if spent > budget else (k + 1, high, tries + 1)
        width = int(allowed[k] * math.sqrt(budget / spent))
    return low


def _seconds_a_step(target: CellConfig, config: CellConfig, prompt: PromptKind) -> tuple[float, float]:
    """Seconds of a training step of both, measured in turns on this machine; medians."""
    device = torch.device(config.train.device)
    with _as_in_a_cell(config.train, device):
        timed = [_noise_step(one, prompt) for one in (target, config)]
        for step in timed:
            _seconds(step, Throughput.WARM_UP, device)
        rounds = [[_seconds(step, 3, device) for step in timed] for _ in range(7)]
    return statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds)


@contextmanager
def _as_in_a_cell(train: Train, device: torch.device) -> Iterator[None]:
    """The arithmetic of cells meanwhile; no graph is left behind."""
    with pinned(device, exact=train.exact):
        try:
            yield
        finally:
            if train.compile == "on":
                from torch import _dynamo

                _dynamo.reset()  # its limit of graphs is that of all models of a process


def _noise_step(config: CellConfig, prompt: PromptKind) -> Callable[[], None]:
    """A training step of a variant on images of noise, as its cell makes it: compiled, and in parts."""
    train, size, channels = config.train, config.data.image_size, config.data.in_channels
    device, batch, each = torch.device(train.device), train.batch, train.microbatch or train.batch
    model = build(config, prompt).to(device)
    if train.compile == "on":
        compile_whole(model)
    x, noise = (torch.randn(batch, channels, size, size, device=device) for _ in range(2))
    t, null = torch.rand(batch, device=device), prompt.null(batch, device)
    low, process = train.precision == "bf16", process_of(train)
    *before, last = (slice(start, start + each) for start in range(0, batch, each))

    def share(part: slice) -> Tensor:
        return process.loss(model, x[part], noise[part], t[part], index_prompt(null, part)).sum() / batch

    def loss() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=low):
            for part in before:
                one = share(part)
                with torch.autocast(device.type, enabled=False):
                    torch.autograd.backward(one)
            return share(last)

    return bare_step(model, loss, train)


def _seconds(step: Callable[[], None], count: int, device: torch.device) -> float:
    """Seconds a step, over `count` of them."""
    watch = Stopwatch(device)
    watch.start()
    for _ in range(count):
        step()
    watch.stop()
    return watch.seconds()[0] / count
