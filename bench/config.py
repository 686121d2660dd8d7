"""YAML and `key=value` become typed, complete values, or are refused with a sentence. The only door to OmegaConf."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from architectures import nearest
from bench.files import slug

LARGEST_FILE = 1_000_000  # bytes: a matrix is written by hand
ENVIRONMENT = "DITBENCH_"  # only such variables may be read from a config: its values are logged


class ConfigError(ValueError):
    """What the user wrote cannot be run; the message names the key, the file and the choices."""


@dataclass
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


@dataclass
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


@dataclass
class Prompt:
    """How prompts reach the model: a label table, a caption encoder learned along, or a frozen encoder's features."""

    kind: Literal["auto", "labels", "captions", "features"] = "auto"
    length: int = 64  # tokens at most
    depth: int = 2  # blocks of the learned caption encoder
    encoder: str | None = None  # features: a Hugging Face name or local path
    template: str = "a photo of a {}"  # features of a label


@dataclass
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


@dataclass
class Sample:
    """How pictures are drawn, in training and at its end: EMA weights, fixed noise and prompts."""

    sampler: Literal["euler", "heun"] = "heun"
    steps: int = 25
    guidance: float = 2.0
    batch: int = 64
    grid: int = 12  # pictures in a sample grid
    grid_every: int = 1000  # steps of training


@dataclass
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


@dataclass
class Budget:
    """What is equal between variants besides what is written: nothing more, or a cost, met by size or steps."""

    match: Literal["params", "macs", "train_flops", "wall_clock"] | None = None
    to: str | None = None  # the variant whose cost the others meet; null: the first


@dataclass
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


def load(path: Path | str, overrides: list[str] | None = None) -> Matrix:
    """Reads a matrix: defaults < the file that its `base` names < the file < `key=value`.

    Raises:
        ConfigError: for a file that is missing, too large or no YAML of plain values, a base of itself, an unknown key
            (with the nearest known one), a value of the wrong type or outside its range, in one sentence that names key
            and origin.
    """
    path = Path(path)
    tree = OmegaConf.structured(Matrix)
    for where, given in _layers(path):
        tree = _merge(tree, given, where)
    for override in overrides or []:
        tree = _merge(tree, _parse_override(override), f"{override!r} on the command line")
    try:
        plain = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {_first_line(error)}") from error
    assert isinstance(plain, Matrix)
    _check(plain, path)
    return plain


def as_dict(config: Any) -> dict[str, Any]:
    """Plain values of a typed config."""
    return dataclasses.asdict(config)


def to_yaml(config: dict[str, Any]) -> str:
    """Plain values as YAML, keys in their order."""
    return yaml.safe_dump(config, sort_keys=False, width=100)


def _layers(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[str, Any]]:
    """A file and what it stands on, the lowest first. A `base` is seen from the folder of the file that names it."""
    if path.resolve() in above:
        raise ConfigError(f"{path} is a base of itself")
    given = _read(path)
    base = given.pop("base", None)
    if base is None:
        return [(str(path), given)]
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base names one file, got {base!r}")
    try:
        below = _layers(path.parent / base, (*above, path.resolve()))
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from error
    return [*below, (str(path), given)]


def _read(path: Path) -> Any:
    if not path.is_file():
        beside = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such file{nearest(path, beside)}")
    if path.stat().st_size > LARGEST_FILE:
        raise ConfigError(f"{path}: {path.stat().st_size:,} bytes; a matrix has at most {LARGEST_FILE:,}")
    try:
        text = path.read_text(encoding="utf-8")
        return _load_yaml(text, str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file ({error.reason})") from error


def _load_yaml(text: str, where: str) -> Any:
    for name in re.findall(r"\$\{\s*oc\.env\s*:\s*([A-Za-z0-9_]*)", text):
        if not name.startswith(ENVIRONMENT):
            raise ConfigError(
                f"{where}: ${{oc.env:{name}}} would be logged; only variables named {ENVIRONMENT}... are read"
            )
    if re.search(r"\$\{\s*oc\.(?!env)", text):
        raise ConfigError(f"{where}: of OmegaConf's resolvers only oc.env is allowed")
    try:
        tree = OmegaConf.load(io.StringIO(text))
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not YAML of plain values: {_first_line(error)}") from error
    if not OmegaConf.is_dict(tree):
        raise ConfigError(f"{where}: a matrix is a mapping of keys to values")
    return tree


def _parse_override(override: str) -> Any:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{override!r}: write key=value, such as train.steps=100")
    _load_yaml(f"key: {value}" if "oc." in value else "key: 0", repr(override))
    try:
        return OmegaConf.from_dotlist([override])
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"{override!r}: {_first_line(error)}") from error


def pairs(words: list[str]) -> dict[str, Any]:
    """`gate=one` and the like as a mapping, values as YAML reads them.

    Raises:
        ConfigError: for a word without `=`.
    """
    found: dict[str, Any] = {}
    for word in words:
        plain: Any = OmegaConf.to_container(_parse_override(word))
        found |= plain
    return found


def _merge(tree: Any, given: Any, where: str) -> Any:
    for key, choices in _unknown_keys(OmegaConf.to_container(given), Matrix, ""):
        hint = nearest(key.rpartition(".")[2], choices, f" (keys: {', '.join(choices)})")
        raise ConfigError(f"{where}: unknown key {key!r}{hint}")
    try:
        return OmegaConf.merge(tree, given)
    except (OmegaConfBaseException, TypeError) as error:
        key = getattr(error, "full_key", None) or "a value"
        raise ConfigError(f"{where}: {key}: {_first_line(error)}") from error


def _unknown_keys(given: Any, kind: type, prefix: str) -> Iterator[tuple[str, list[str]]]:
    """Keys that `kind` lacks, with the keys it has."""
    if not isinstance(given, dict):
        return
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key, value in given.items():
        if key not in fields:
            yield f"{prefix}{key}", list(fields)
            continue
        inner = fields[key].default_factory
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            yield from _unknown_keys(value, inner, f"{prefix}{key}.")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _check(matrix: Matrix, path: Path) -> None:
    """Ranges, which types do not say."""
    try:
        slug(matrix.name, "name")
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    positive = {
        "data": ("image_size", "train_count", "heldout_count", "unseen_count"),
        "prompt": ("length",),
        "train": ("steps", "batch", "lr", "log_every", "probe_every", "checkpoint_every", "clip"),
        "sample": ("steps", "batch", "grid", "grid_every"),
        "evaluate": ("samples", "reference", "heldout", "bins", "unseen", "sweep_samples", "swaps"),
        "run": ("jobs", "timeout"),
    }
    for group, keys in positive.items():
        for key in keys:
            value = getattr(getattr(matrix, group), key)
            if value is not None and not value > 0:
                raise ConfigError(f"{path}: {group}.{key} must be above 0, got {value}")
    for group, key in (("train", "drop"), ("train", "ema")):
        value = getattr(getattr(matrix, group), key)
        if not 0 <= value < 1:
            raise ConfigError(f"{path}: {group}.{key} must lie in [0, 1), got {value}")
    if len(matrix.train.betas) != 2 or not all(0 <= beta < 1 for beta in matrix.train.betas):
        raise ConfigError(f"{path}: train.betas must be two numbers in [0, 1), got {matrix.train.betas}")
    if not 1 <= matrix.data.objects <= 3:
        raise ConfigError(f"{path}: data.objects must lie in 1 to 3, got {matrix.data.objects}")
    if matrix.choose is not None and matrix.choose not in matrix.axes:
        known = ", ".join(matrix.axes) or "none"
        raise ConfigError(f"{path}: choose {matrix.choose!r} is no axis of this matrix (axes: {known})")
    if matrix.data.source == "huggingface" and not matrix.data.path:
        raise ConfigError(f"{path}: data.path is needed: a dataset's name, folder or file (data.path=...)")
