"""Every key of a matrix file, typed, with its default and meaning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal


class ConfigError(ValueError):
    """What the user wrote cannot be run; the message names the key, the file and the choices."""


@dataclass(frozen=True)
class Backbone:
    """The fixed transformer. Fields left null take the named size's value."""

    name: str = "DiT-S/2"
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    patch: int | None = None
    mlp: Literal["gelu", "swiglu", "geglu"] = "gelu"
    mlp_ratio: float = 4.0
    qk_norm: bool = False
    positions: Literal["sincos", "rope"] = "sincos"


@dataclass(frozen=True)
class Data:
    """What is drawn.

    `scenes` is rendered here. `huggingface` reads `path`: a dataset's name, or a folder or file of parquet, images or
    webdataset, with the given columns and splits.
    """

    source: Literal["scenes", "huggingface"] = "scenes"
    path: str | None = None
    subset: str | None = None  # of a Hugging Face dataset
    revision: str | None = None
    image_size: int = 32
    train_split: str = "train"
    heldout_split: str = "test"
    image_column: str = "image"
    label_column: str | None = None
    caption_column: str | None = None
    train_count: int | None = None  # null: all (scenes: 50,000)
    heldout_count: int | None = None  # null: all (scenes: 5,000)
    unseen_count: int | None = None  # scenes with combinations that training lacks; null: 1,000
    objects: int = 3  # scenes: at most in a picture, 1 to 3
    seed: int = 0  # of the rendering


@dataclass(frozen=True)
class Prompt:
    """How prompts reach the model: a label table, a caption encoder learned along, or a frozen encoder's features."""

    kind: Literal["auto", "labels", "captions", "features"] = "auto"
    length: int = 64  # tokens at most
    depth: int = 2  # blocks of the learned caption encoder
    encoder: str | None = None  # features: a Hugging Face name or local path
    template: str = "a photo of a {}"  # features of a label


@dataclass(frozen=True)
class Train:
    """The objective is rectified flow; everything here is equal in all cells unless an axis names it."""

    steps: int = 10_000
    batch: int = 256  # global
    lr: float = 1e-4
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    weight_decay: float = 0.0
    warmup: int = 500  # steps of linear warm-up
    cooldown: int = 0  # last steps, over which the learning rate falls linearly to zero
    clip: float = 1.0  # gradient norm
    ema: float = 0.999  # decay a step, with a warm-up of its own
    drop: float = 0.1  # prompts replaced by the null prompt
    t_mean: float = 0.0  # t = sigmoid(normal(mean, std))
    t_std: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32", "bf16"] = "auto"  # bf16 on a GPU, 32 on a CPU
    compile: Literal["auto", "on", "off"] = "auto"  # on on a GPU
    exact: bool = False  # deterministic algorithms: slow, never for throughput
    log_every: int = 50
    probe_every: int = 100  # steps between looks at gates, blocks and gradients
    checkpoint_every: int = 500


@dataclass(frozen=True)
class Sample:
    """How pictures are drawn, in training and at its end: EMA weights, fixed noise and prompts."""

    sampler: Literal["euler", "heun"] = "heun"
    steps: int = 25
    guidance: float = 2.0
    batch: int = 64
    grid: int = 12  # pictures in a sample grid
    grid_every: int = 1000  # steps of training


@dataclass(frozen=True)
class Evaluate:
    """What is measured at the end of a cell."""

    samples: int = 5000
    reference: int = 5000  # held-out pictures at most
    extractor: str = "auto"  # inception if to be had, else efficientnet-lite0
    heldout: int = 2000  # pictures for the held-out loss
    bins: int = 10  # of timesteps
    seed: int = 1234  # of noise and prompts
    unseen: int = 200  # scenes: pictures of combinations that training lacks
    sweep: list[float] = field(default_factory=list)  # scenes: further guidance scales at which control is measured
    sweep_samples: int = 100  # pictures at each
    swaps: int = 12  # scenes: captions of which one word after the other is changed


@dataclass(frozen=True)
class Budget:
    """What is equal between variants besides what is written: nothing more, or a cost, met by size or steps."""

    match: Literal["params", "macs", "train_flops", "wall_clock"] | None = None
    to: str | None = None  # the variant whose cost the others meet; null: the first


@dataclass(frozen=True)
class Run:
    """Where and how cells are run; nothing here changes a number, so nothing here is part of a cell's identity."""

    executor: Literal["local"] = "local"
    jobs: int = 1  # cells at a time
    timeout: float | None = None  # seconds a cell
    workers: int = 0  # data-loading processes a cell


@dataclass
class Matrix:
    """A benchmark: what varies (`variants`, `seeds`, `axes`) and, once, everything held fixed."""

    name: str = "???"
    variants: list[Any] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    axes: dict[str, list[Any]] = field(default_factory=dict)  # dotted key of a cell -> values
    plugins: list[str] = field(default_factory=list)  # Python files that register schemes
    backbone: Backbone = field(default_factory=Backbone)
    data: Data = field(default_factory=Data)
    prompt: Prompt = field(default_factory=Prompt)
    train: Train = field(default_factory=Train)
    sample: Sample = field(default_factory=Sample)
    evaluate: Evaluate = field(default_factory=Evaluate)
    run: Run = field(default_factory=Run)
    budget: Budget = field(default_factory=Budget)
    choose: str | None = None  # an axis, such as train.lr: its value is chosen for each variant by held-out loss
    baseline: str | None = None  # the row that others are compared with; null: the first
    claim: dict[str, Any] | None = None  # a hypothesis and its tests, see bench/claims.py


@dataclass(frozen=True)
class CellConfig:
    """All that defines the numbers of one cell, resolved: every option written out, no `auto` left to the machine.

    A dict only where it touches the disk: `as_dict` gives what is hashed and written, `from_dict` reads it back.
    """

    scheme: str
    options: dict[str, Any] = field(default_factory=dict)
    backbone: Backbone = field(default_factory=Backbone)
    data: Data = field(default_factory=Data)
    prompt: Prompt = field(default_factory=Prompt)
    train: Train = field(default_factory=Train)
    sample: Sample = field(default_factory=Sample)
    evaluate: Evaluate = field(default_factory=Evaluate)
    seed: int = 0

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> CellConfig:
        """The config whose plain values these are; keys that are lacking take their defaults.

        Raises:
            TypeError: for a key that no config has.
        """
        groups = {name: kind(**plain[name]) for name, kind in GROUPS.items() if name in plain}
        return cls(**plain | groups)

    def changed(self, changes: Mapping[str, Any]) -> CellConfig:
        """A copy with other values of dotted keys, such as {"train.steps": 5} or {"options.gate": "one"}."""
        groups: dict[str, Any] = {}
        for key, value in changes.items():
            group, _, name = key.partition(".")
            old = groups.get(group, getattr(self, group))
            groups[group] = old | {name: value} if isinstance(old, dict) else replace(old, **{name: value})
        return replace(self, **groups)


# The groups of keys that a cell's config consists of, beside scheme, options and seed.
GROUPS: dict[str, Any] = {
    "backbone": Backbone,
    "data": Data,
    "prompt": Prompt,
    "train": Train,
    "sample": Sample,
    "evaluate": Evaluate,
}


def as_dict(config: Any) -> dict[str, Any]:
    """Plain values of a typed config."""
    return dataclasses.asdict(config)
