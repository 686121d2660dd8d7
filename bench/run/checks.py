"""What can be known before anything is trained: values that do not fit the data or each other, what is not here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from architectures import PluginError, nearest, scheme_class
from bench.config.claim import RowFacts
from bench.config.claim import check as check_claim
from bench.config.matrix import baselines, variants
from bench.config.schema import ConfigError, Evaluate, Matrix, Run, Train
from bench.config.spec import CellConfig
from bench.store import metrics

if TYPE_CHECKING:
    from bench.data.datasets import Dataset

FEWEST = 5  # images a side that the metrics need
COMPILERS = ("g++", "clang++", "c++")
BUDGETED = {  # budget.match -> what it sets, so that no axis can
    "params": ("backbone.width", "backbone.depth"),
    "macs": ("backbone.width", "backbone.depth"),
    "train_flops": ("train.steps",),
    "wall_clock": ("train.steps",),
}

# What the time of a step depends on besides; a budget's target is timed with those of the cell that is brought to it.
TIMES = tuple(
    f"train.{name}" for name in ("precision", "residual", "recompute", "device", "compile", "exact", "microbatch")
)


def check_names(matrix: Matrix, rows: Iterable[str], facts: Mapping[str, RowFacts] | None = None) -> None:
    """Checks what names rows of the table: the claim and the baseline; and that no axis is set by the budget.

    Args:
        matrix: the matrix.
        rows: of its table.
        facts: what is known of them, for the claim.

    Raises:
        ConfigError, ClaimError: naming what is not there, and the nearest.
    """
    names = list(dict.fromkeys(rows))
    check_claim(matrix.claim, names, matrix.seeds, facts)
    if matrix.baseline is not None and matrix.baseline not in baselines(matrix, names):
        hint = nearest(matrix.baseline, names, f" (rows: {', '.join(names)})")
        raise ConfigError(f"baseline {matrix.baseline!r} is no row of this matrix{hint}")
    if matrix.budget.to is not None and matrix.budget.match is None:
        raise ConfigError(f"budget.to {matrix.budget.to!r} needs budget.match, the cost that is met")
    for axis in BUDGETED.get(matrix.budget.match or "", ()):
        if axis in matrix.axes:
            raise ConfigError(f"budget.match {matrix.budget.match} sets {axis}, so it cannot be an axis too")
    _check_variants(matrix)


def _check_variants(matrix: Matrix) -> None:
    """Refuses what a variant sets itself of that which the budget sets, or counts as the same for its target."""
    match = matrix.budget.match
    steps = ("train.steps", "train.batch") if match in ("train_flops", "wall_clock") else ()
    counted = ("backbone.", "data.", "prompt.", "train.process", *steps, *(TIMES if match == "wall_clock" else ()))
    for variant in variants(matrix) if match else ():
        if own := [key for key in variant.keys if key.startswith(counted)]:
            raise ConfigError(
                f"variant {variant.name!r} sets {own[0]}: with budget.match {match} variants differ in scheme and "
                "options, and the budget sets the rest; give the whole matrix that value"
            )


def check_plugins(files: Iterable[str]) -> None:
    """Refuses a plugin file that is not there: no cell can need it, and the name is a slip.

    Raises:
        ConfigError: naming it, and the nearest Python file beside it.
    """
    for name in files:
        file = Path(name).expanduser()
        if file.is_file():
            continue
        beside = [str(Path(name).with_name(one.name)) for one in sorted(file.parent.glob("*.py"))]
        what = "a folder, not a file" if file.is_dir() else "no such file"
        raise ConfigError(f"plugin {name}: {what}{nearest(name, beside)}")


def facts_of(matrix: Matrix, config: CellConfig) -> RowFacts:
    """What a claim must know of a row before it is run; what a budget sets is equal on purpose, and no fact."""
    budget: dict[str, float] = {
        "train.steps": float(config.train.steps * config.train.batch),
        "backbone.width": float(config.backbone.width or 0),
        "backbone.depth": float(config.backbone.depth or 0),
    }
    budget = {key: value for key, value in budget.items() if key not in BUDGETED.get(matrix.budget.match or "", ())}
    if config.data.source != "task" or config.data.task is None:
        return RowFacts(budget=budget)
    from bench.data.tasks import registry

    name = config.data.task
    try:
        with registry.of_task(name, passing=(registry.TaskError,)):
            task = registry.make(name, config.data.level, config.data.knobs)
            return RowFacts(name, tuple(one.name for one in task.attributes), budget)
    except (registry.TaskError, PluginError):
        return RowFacts(budget=budget)  # its cells say what is wrong


def check_extractor(name: str) -> None:
    """Computes the features of one image, so that weights that are missing or damaged are found out now.

    Raises:
        MetricError: with the way to get them.
    """
    import numpy as np

    from bench.measure import metrics

    metrics.resolve(name).features(np.zeros((1, 32, 32, 3), np.uint8))


def check_cell(config: CellConfig, data: Dataset, label: str) -> None:
    """Checks that the values of a cell fit its data and each other.

    Raises:
        ConfigError: beginning with the cell's label, naming key and value.
    """
    for problem in _problems(config, data):
        raise ConfigError(f"{label}: {problem}")


def check_step(train: Train) -> None:
    """Checks what a budget times a step with: it does so before its cell is checked.

    Raises:
        ConfigError: naming key and value.
    """
    for problem in _of_step(train):
        raise ConfigError(problem)


def check_devices(config: CellConfig, run: Run, label: str) -> None:
    """Checks that a cell's batch can be shared out over its devices, and its images can lie on them.

    Raises:
        ConfigError: beginning with the cell's label.
    """
    train, devices = config.train, run.devices or 1
    part = f" in parts of train.microbatch {train.microbatch}" if train.microbatch else ""
    if train.batch % (devices * (train.microbatch or 1)):
        raise ConfigError(f"{label}: train.batch {train.batch} does not divide over run.devices {devices}{part}")
    if run.images == "device" and (config.data.source == "task" or config.data.stream):
        made = "sampled" if config.data.source == "task" else "decoded (data.stream)"
        raise ConfigError(f"{label}: run.images device: its images are {made} as batches need them; choose host")


def _problems(config: CellConfig, data: Dataset) -> Iterator[str]:
    train, evaluate, heldout = config.train, config.evaluate, len(data.heldout)
    for name, length in (("warmup", train.warmup), ("cooldown", train.cooldown)):
        if length > train.steps:
            yield f"train.{name} {length} is longer than train.steps {train.steps}"
    yield from _of_step(train)
    yield from _of_process(config, data)
    yield from _unmodulated(config)
    if evaluate.samples < FEWEST:
        yield f"evaluate.samples {evaluate.samples}: the metrics need at least {FEWEST} samples"
    if min(evaluate.reference, heldout) < FEWEST:
        short = (
            f"evaluate.reference {evaluate.reference}" if evaluate.reference < FEWEST else f"{heldout} held-out images"
        )
        yield f"{short}: the metrics need at least {FEWEST} real images"
    if min(evaluate.heldout, heldout) < evaluate.bins:
        yield (
            f"evaluate.bins {evaluate.bins}: each bin of timesteps needs a held-out image, and there are "
            f"{min(evaluate.heldout, heldout)} (evaluate.heldout {evaluate.heldout}, {heldout} in the data)"
        )
    if evaluate.labels == "uniform":
        yield from _unequal(data, evaluate)
    yield from _unlike_images(data, evaluate) if data.task is None else _unlike_task(config, data)
    scales = [f"{scale:g}" for scale in evaluate.sweep]
    if odd := [scale for scale in scales if not metrics.known(f"guidance{scale}_local")]:
        yield f"evaluate.sweep {', '.join(odd)}: a scale of guidance is at least 0 and below a million"
    if len(set(scales)) < len(scales):
        yield f"evaluate.sweep names a guidance scale twice: {', '.join(scales)}"


def _of_step(train: Train) -> Iterator[str]:
    """Parts that are no whole number, a compiler that is not there."""
    if train.microbatch is not None and train.batch % train.microbatch:
        yield f"train.microbatch {train.microbatch} does not divide train.batch {train.batch}"
    if train.compile == "on" and train.device == "cpu" and not _compiler():
        yield f"train.compile on needs a C++ compiler ({', '.join(COMPILERS)}), and there is none; choose off"


def _unmodulated(config: CellConfig) -> Iterator[str]:
    """Modulation guidance of what the pooled prompt does not modulate."""
    scale, signals = config.sample.modulation_guidance, config.options.get("signals")
    if not scale:
        return
    pooled = "pooled" in (scheme_class(config.scheme).facts.reads if signals is None else signals)
    if not pooled:
        way = "leave it at 0" + (", or choose signals with pooled" if signals else "")
        yield f"sample.modulation_guidance {scale:g}: c of scheme {config.scheme!r} has no pooled prompt here; {way}"


def _of_process(config: CellConfig, data: Dataset) -> Iterator[str]:
    """What is of another process than the one that is trained."""
    from bench.measure.sampling import SAMPLERS
    from bench.training.ddpm import unfit

    train, sample, known = config.train, config.sample, SAMPLERS[config.train.process]
    if sample.sampler not in known:
        yield f"sample.sampler {sample.sampler}: of train.process {train.process} choose {' or '.join(known)}"
    if train.process != "ddpm":
        return
    if train.target != "velocity":
        yield f"train.target {train.target} is of the flow alone, and train.process is ddpm, which predicts noise"
    if why := unfit(sample.steps):
        yield f"sample.steps {sample.steps}: {why}"
    if data.task is not None:
        yield "train.process ddpm: the optimal denoisers of tasks are of the flow; choose flow"


def _unlike_images(data: Dataset, evaluate: Evaluate) -> Iterator[str]:
    """What images that are no task's do not have."""
    if evaluate.extractor == "none":
        yield "evaluate.extractor none is for tasks, which have other metrics (data.source=task)"
    if evaluate.curve_every and data.unseen is None:
        yield f"evaluate.curve_every {evaluate.curve_every}: only tasks and scenes are read for control; set it to 0"


def _unlike_task(config: CellConfig, data: Dataset) -> Iterator[str]:
    """What contradicts a task."""
    if data.unseen is not None and len(data.unseen) == 1:
        yield "data.unseen_count 1: control is read against chance, which takes two prompts or more"
    mapped = scheme_class(config.scheme).facts.length == "tokens"
    if mapped != (config.prompt.arm == "oracle"):
        yield f"prompt.arm {config.prompt.arm}: scheme {config.scheme!r} " + (
            "takes the prompt as a map; choose prompt.arm=oracle"
            if mapped
            else "takes no map; arm oracle is for `oracle`"
        )


def _unequal(data: Dataset, evaluate: Evaluate) -> Iterator[str]:
    """Why classes cannot be alike on both sides, if they cannot."""
    from bench.measure.rows import sides

    try:
        sides(data, evaluate)
    except ValueError as error:
        yield str(error)


def _compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX") or COMPILERS[0], *COMPILERS))


def doubts(config: CellConfig) -> Iterator[str]:
    """Sentences on what can be run and is hardly meant."""
    for key, without in (("guidance", 1.0), ("modulation_guidance", 0.0)):
        value = getattr(config.sample, key)
        if config.train.drop == 0 and value != without:
            yield (
                f"train.drop 0: the null prompt is never trained, and sample.{key} {value:g} "
                f"needs it; sample.{key}={without:g} is without guidance"
            )
    if config.train.log_every > config.train.steps:
        yield f"train.log_every {config.train.log_every} is more than train.steps {config.train.steps}: no curve"
