"""Every key of a matrix file, typed, with its default and meaning; `ditbench config` prints this page.

Types carry the ranges, and the text below a key is its meaning: `bench.config.check` holds values to the first, and
`bench.config.keys` lists both. A cell's process needs these classes alone and no pydantic.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, Le, Len

from bench.config.kinds import SWITCH, Numeric, Truth
from bench.store.files import slug


class ConfigError(ValueError):
    """What the user wrote cannot be run; the message names the key, the file and the choices."""


Whole = Annotated[int, Numeric]
Number = Annotated[float, Numeric]
LARGEST = 2**31 - 1  # of a whole number; what is above it overflows somewhere, long after the start
Count = Annotated[Whole, Gt(0), Le(LARGEST)]
Length = Annotated[Whole, Ge(0), Le(LARGEST)]
Blocks = Annotated[Whole, Interval(ge=1, le=1000)]
Seed = Annotated[Whole, Ge(0), Le(LARGEST)]
Flag = Annotated[bool, Truth]
Positive = Annotated[Number, Gt(0)]
Share = Annotated[Number, Interval(ge=0, lt=1)]

# How pydantic reads these classes; a plain mapping, so that nothing is imported for it here.
STRICT: Any = dict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, coerce_numbers_to_str=True)


@dataclass(frozen=True)
class Backbone:
    """The fixed transformer. Sizes left null take the named size's value."""

    __pydantic_config__ = STRICT

    name: str = "DiT-S/2"
    """Named size, DiT-XS to DiT-XL, and patch size; DiT-XS alone takes the patch of its task."""
    width: Count | None = None
    """Channels of a token."""
    depth: Blocks | None = None
    """Blocks."""
    heads: Count | None = None
    """Attention heads."""
    patch: Count | None = None
    """Pixels of a patch's side."""
    mlp: Literal["gelu", "swiglu", "geglu"] = "gelu"
    """Kind of MLP."""
    mlp_ratio: Positive = 4.0
    """Hidden width of the MLP over the width."""
    qk_norm: Flag = False
    """Whether queries and keys are normalised."""
    positions: str = "sincos"
    """Position encoding: sincos (DiT's), sincos(BASE), random (a fixed table), learned, or rope."""
    bias: Flag = True
    """Whether the maps of attention and MLP have biases."""
    kv_heads: Count | None = None
    """Heads of keys and values in self-attention, a divisor of the heads; null is as many."""
    attention_gate: Flag = False
    """Whether what is attended to is multiplied by a sigmoid gate of the tokens."""
    parallel: Flag = False
    """Whether the MLP of a block reads what its attention reads, where it comes after it."""


@dataclass(frozen=True)
class Data:
    """Images and what they are conditioned on.

    `scenes` is rendered here, and so is a `task`, whose optimal denoiser is exact; a key of a task that is none of
    these is a knob of it. `huggingface` reads `path`: a dataset's name, or a folder or file of parquet, arrow,
    images, webdataset, archives or tables of text, with the given columns and splits. Where both splits are the same,
    a tenth (or `heldout_count`) is held out of it.
    """

    __pydantic_config__ = STRICT

    source: Literal["scenes", "huggingface", "task", "latents"] = "scenes"
    """Rendered scenes with captions, a Hugging Face dataset, a task, or what `ditbench encode` wrote."""
    task: str | None = None
    """task: its name, as `ditbench tasks` lists them."""
    level: Literal["easy", "medium", "hard"] = "medium"
    """task: values of its knobs."""
    knobs: dict[str, Any] = field(default_factory=dict, hash=False)
    """task: single knobs, over those of the level."""
    words: Flag = False
    """task: the prompt as text, for a caption encoder or a frozen encoder."""
    path: str | None = None
    """huggingface: name on the hub, folder or file. latents: the folder."""
    subset: str | None = None
    """huggingface: configuration of the dataset."""
    revision: str | None = None
    """huggingface: branch, tag or commit."""
    image_size: Count = 32
    """Pixels of an image's side; of latents, which know it, latents a side."""
    channels: Count | None = None
    """latents: their channels, which they know; null: 3 of images."""
    train_split: str = "train"
    """huggingface: split that is trained on."""
    heldout_split: str = "test"
    """huggingface: split that validation loss, reference and prompts come from."""
    image_column: str = "image"
    """huggingface: column of the images."""
    label_column: str | None = None
    """huggingface: column of the class labels."""
    caption_column: str | None = None
    """huggingface: column of the captions."""
    missing: Annotated[Literal["refuse", "drop", "null"], SWITCH] = "refuse"
    """huggingface: a row without image, label or caption is refused, left out, or (a caption) the null prompt."""
    stream: Flag = False
    """huggingface: decode training images from their files as batches need them: their array would outgrow the disk."""
    train_count: Count | None = None
    """Training images at most, a seeded sample with the labels' shares of the whole; null: all (scenes: 50,000)."""
    heldout_count: Count | None = None
    """Held-out images at most, a seeded sample likewise; null: all (scenes: 5,000)."""
    unseen_count: Count | None = None
    """scenes: images of combinations that training lacks; null: 1,000."""
    objects: Annotated[Whole, Interval(ge=1, le=3)] = 3
    """scenes: objects in an image at most."""
    seed: Seed = 0
    """Seed of the rendering of scenes, and of every sample of other data."""

    def __post_init__(self) -> None:
        if self.source == "huggingface" and not self.path:
            raise ValueError("data.path is needed: a dataset's name, folder or file (data.path=...)")
        if self.source == "latents" and not self.path:
            raise ValueError("data.path is needed: the folder that `ditbench encode` wrote (data.path=...)")
        if self.channels is not None and self.source != "latents":
            raise ValueError(f"data.channels {self.channels} is of latents alone (data.source=latents)")
        if self.stream and self.source != "huggingface":
            raise ValueError(f"data.stream is of image files (data.source=huggingface); data.source is {self.source}")
        if self.source == "task" and not self.task:
            raise ValueError("data.task is needed: the name of a task (data.task=...)")
        if self.source != "task" and (self.task or self.knobs or self.words):
            what = next(name for name in ("task", "knobs", "words") if getattr(self, name))
            raise ValueError(f"data.{what} is of tasks alone, and data.source is {self.source} (data.source=task)")

    @property
    def in_channels(self) -> int:
        """Of what the model sees."""
        return self.channels or 3


@dataclass(frozen=True)
class Prompt:
    """How prompts reach the model."""

    __pydantic_config__ = STRICT

    kind: Literal["auto", "labels", "captions", "features", "slots"] = "auto"
    """A table of labels, a caption encoder trained along, frozen features, a task's slots; auto: what the data has."""
    arm: Literal["none", "blind", "oracle"] = "none"
    """task: blind is the null prompt always, oracle the prompt as a map over the image's tokens."""
    length: Count = 64
    """Tokens at most."""
    depth: Annotated[Whole, Interval(ge=0, le=1000)] = 2
    """captions: blocks of the encoder."""
    encoder: str | None = None
    """features: Hugging Face name or local folder of the frozen encoder."""
    layers: Count = 1
    """features: layers of the encoder that are kept, evenly spread to the last, for schemes whose blocks read them."""
    template: str = "a photo of a {}"
    """features: caption of a class label, whose name takes the place of {}."""

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise ValueError(f"prompt.template {self.template!r} has no {{}}, the place of the class's name")


@dataclass(frozen=True)
class Train:
    """The objective, rectified flow by default; everything here is equal in all cells unless an axis names it."""

    __pydantic_config__ = STRICT

    steps: Count = 10_000
    """Optimiser steps."""
    batch: Count = 256
    """Global batch size."""
    microbatch: Count | None = None
    """Images of one pass forwards and backwards, which divides the batch; null: all at once."""
    recompute: Flag = False
    """Blocks are computed again in the backward pass and keep no activations: less memory, more time."""
    lr: Positive = 1e-4
    """Learning rate of AdamW after the warm-up."""
    betas: Annotated[list[Share], Len(2, 2)] = field(default_factory=lambda: [0.9, 0.99])
    """Decay rates of AdamW's moments."""
    weight_decay: Annotated[Number, Ge(0)] = 0.0
    """Decoupled weight decay."""
    warmup: Length = 500
    """Steps over which the learning rate rises linearly."""
    cooldown: Length = 0
    """Last steps, over which the learning rate falls linearly to zero."""
    clip: Positive = 1.0
    """Norm that gradients are clipped to."""
    ema: Share = 0.999
    """Decay a step of the averaged weights, which has a warm-up of its own."""
    drop: Share = 0.1
    """Share of prompts replaced by the null prompt, for classifier-free guidance."""
    process: Literal["flow", "ddpm"] = "flow"
    """Rectified flow, or DDPM with predicted noise and variance, as DiT was trained; the keys from target to t_std are
    of the flow."""
    target: Literal["velocity", "data"] = "velocity"
    """What the network's output is: the velocity, or the image without noise."""
    clamp: Annotated[Number, Interval(gt=0, le=1)] = 0.3
    """data: smallest t that the error is divided by, squared."""
    t_mean: Number = 0.0
    """Timesteps are sigmoid(normal(t_mean, t_std))."""
    t_std: Annotated[Number, Ge(0)] = 1.0
    """Their spread."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a cell trains; auto: a GPU if there is one."""
    precision: Annotated[Literal["auto", "32", "bf16"], SWITCH] = "auto"
    """Arithmetic; auto: bf16 on a GPU, 32 on a CPU, where bf16 leaves attention in float32."""
    residual: Literal["fp32", "bf16"] = "fp32"
    """bf16: dtype of the streams between blocks, the same for every scheme; bf16 halves what norms read and write."""
    compile: Annotated[Literal["auto", "on", "off"], SWITCH] = "auto"
    """torch.compile; auto: on on a GPU."""
    exact: Flag = False
    """Deterministic algorithms: slow, never for throughput."""
    log_every: Count = 50
    """Steps between lines of the journal."""
    probe_every: Count = 100
    """Steps between observations of gates, blocks and gradients."""
    checkpoint_every: Count | None = None
    """Steps between checkpoints; null: checkpoint_minutes counts."""
    checkpoint_minutes: Positive = 10.0
    """Minutes of a cell's time between checkpoints."""


@dataclass(frozen=True)
class Sample:
    """How images are sampled, in training and at its end: averaged weights, fixed noise and prompts."""

    __pydantic_config__ = STRICT

    sampler: Literal["euler", "heun", "ddpm", "ddim"] = "heun"
    """Solver of the flow's ODE: euler or heun; of DDPM: ddpm, with fresh noise at every step, or ddim, without."""
    steps: Count = 25
    """Steps of the sampler."""
    guidance: Number = 2.0
    """Scale of classifier-free guidance; 1: none."""
    modulation_guidance: Number = 0.0
    """Scale w of modulation guidance: c has p + w (p - null) for the pooled prompt p; 0: none."""
    batch: Count = 64
    """Images sampled at once."""
    grid: Count = 12
    """Images of a sample grid."""
    grid_every: Count = 1000
    """Training steps between sample grids."""


@dataclass(frozen=True)
class Evaluate:
    """What is measured at the end of a cell."""

    __pydantic_config__ = STRICT

    samples: Count = 5000
    """Generated images that quality is measured on."""
    reference: Count = 5000
    """Held-out images they are compared with, at most."""
    labels: Literal["heldout", "uniform"] = "heldout"
    """Labels of the samples and of these images: shared out as in the held-out images, or every class alike."""
    extractor: str = "auto"
    """Feature extractor; auto: inception if available, else efficientnet-lite0; none: no FID."""
    heldout: Count = 2000
    """Held-out images of the validation loss."""
    bins: Count = 10
    """Bins of timesteps that the validation loss is split into."""
    seed: Seed = 1234
    """Seed of noise and prompts, equal in all cells."""
    points: Count = 1024
    """task: fixed points (x_t, t, prompt) of the excess error."""
    curve_every: Length = 0
    """task, scenes: steps between points of the capability curves; 0: none."""
    curve_samples: Count = 128
    """task, scenes: samples of each point of these curves."""
    unseen: Count = 200
    """scenes: samples of combinations that training lacks."""
    sweep: list[Number] = field(default_factory=list)
    """scenes: further guidance scales at which prompt adherence is measured."""
    sweep_samples: Count = 100
    """scenes: samples at each of them."""
    swaps: Count = 12
    """scenes: captions of which one word after the other is changed."""


@dataclass(frozen=True)
class Budget:
    """What is equal between variants besides the keys: nothing more, or a cost, met by size or number of steps."""

    __pydantic_config__ = STRICT

    match: Literal["params", "macs", "train_flops", "wall_clock"] | None = None
    """The cost that is equal; params and macs are met by width and depth, the others by steps."""
    to: str | None = None
    """The variant whose cost the others meet; null: the first."""


@dataclass(frozen=True)
class Run:
    """Where and how cells are run; nothing here changes a number, so nothing here is part of a cell's identity."""

    __pydantic_config__ = STRICT

    executor: Literal["local", "ray", "slurm"] = "local"
    """Where cells run: on this machine, on a Ray cluster, or as jobs of SLURM."""
    jobs: Count | None = None
    """Cells at a time; null: one, or as many as there are GPUs for; ray, slurm: as many as there is room for."""
    address: str | None = None
    """ray: HOST:PORT of the cluster; null: the variable RAY_ADDRESS, else a cluster of this machine alone."""
    cpus: Count | None = None
    """ray, slurm: cores of a cell; null: one for each device, and one for each data-loading process."""
    gpus: Length | None = None
    """ray, slurm: GPUs of a cell; null: run.devices or one, if train.device is cuda; 1 makes auto cuda."""
    memory: Positive | None = None
    """ray, slurm: memory of a cell in GB, which is reserved for it; null: none is."""
    slurm: dict[str, Any] = field(default_factory=dict)
    """slurm: what else a job is given, by submitit's names: timeout_min, slurm_partition, slurm_account."""
    devices: Count | None = None
    """Devices of a cell, each with its part of the batch: GPUs, or processes where it trains on a CPU; null: one."""
    strategy: Literal["ddp", "fsdp"] | None = None
    """How they share the training; null: ddp, each with all weights; fsdp: each with a part of them."""
    timeout: Positive | None = None
    """Seconds a cell may take; null: no limit."""
    silence: Positive | None = 1800.0
    """Seconds without a sign of life (a step, a batch of samples, a log line) that end a cell; null: no limit."""
    workers: Length = 0
    """Data-loading processes of a cell, for each device."""
    images: Literal["host", "device"] = "host"
    """Where prepared training images are: mapped from disk, or all in the memory of each device."""
    price_per_gpu_hour: Positive | None = None
    """Money an hour of a GPU costs, in any currency, for the estimate of `--dry-run`."""

    def __post_init__(self) -> None:
        if self.strategy is not None and self.devices is None:
            raise ValueError(f"run.strategy {self.strategy} is of several devices; say how many (run.devices=...)")
        if self.images == "device" and self.workers:
            raise ValueError(f"run.images device: no process loads them, run.workers is {self.workers}; leave it out")
        if self.gpus and self.devices is not None and self.gpus < self.devices:
            raise ValueError(f"run.gpus {self.gpus} is fewer than run.devices {self.devices}; leave run.gpus out")


@dataclass(frozen=True)
class Matrix:
    """A benchmark: what varies (`variants`, `seeds`, `axes`) and, once, everything held fixed."""

    __pydantic_config__ = STRICT

    name: str
    """Name of the matrix, and of its folder."""
    variants: list[Any] = field(default_factory=list)
    """Schemes: names, or mappings with `scheme`, its options and as wished a `name`."""
    seeds: list[Seed] = field(default_factory=lambda: [0])
    """A cell of each variant for each."""
    axes: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted key of a cell, such as train.lr or options.gate: its values."""
    plugins: list[str] = field(default_factory=list)
    """Python files that register schemes or tasks, relative to the folder of this file."""
    backbone: Backbone = field(default_factory=Backbone)
    data: Data = field(default_factory=Data)
    prompt: Prompt = field(default_factory=Prompt)
    train: Train = field(default_factory=Train)
    sample: Sample = field(default_factory=Sample)
    evaluate: Evaluate = field(default_factory=Evaluate)
    run: Run = field(default_factory=Run)
    budget: Budget = field(default_factory=Budget)
    choose: str | None = None
    """An axis, such as train.lr, whose value is chosen for each variant, by `choose_by`."""
    choose_by: str | None = None
    """The metric that values are chosen by, as a claim would name it; null: validation loss, of tasks excess_error."""
    tuned: dict[str, Any] | None = None
    """A file or files that `ditbench choices --write` wrote, relative to this: values by row, variant or scheme."""
    baseline: str | None = None
    """The row that others are compared with; of a variant each row's own at its values of the axes; null: the first."""
    claim: dict[str, Any] | None = None
    """A hypothesis and the tests that decide it."""

    def __post_init__(self) -> None:
        slug(self.name, "name")
        if self.choose is None:
            return
        if self.choose not in self.axes:
            known = ", ".join(self.axes) or "none"
            raise ValueError(f"choose {self.choose!r} is no axis of this matrix (axes: {known})")
        if any(isinstance(value, list | dict) for value in self.axes[self.choose]):
            raise ValueError(f"choose {self.choose!r}: its values are lists; numbers, words and switches can be chosen")


def as_dict(config: Any) -> dict[str, Any]:
    """Plain values of a typed config."""
    return dataclasses.asdict(config)
