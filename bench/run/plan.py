"""From a matrix to planned cells: data and prompts prepared, everything checked, each cell under its id.

What cells share is worked out once: data, prompts, a scheme's options and digests, a model's cost, a budget's match.
Nothing here trains, so Lightning is never imported, and torch only once a device is chosen or a model counted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import architectures
from architectures import nearest
from bench.config.claim import check
from bench.config.identity import code_digest, identity
from bench.config.matrix import MatrixCell, Variant, expand, row, variants
from bench.config.schema import ConfigError, Data, Matrix, Prompt
from bench.config.spec import CellConfig, CellSpec
from bench.store.folders import Row, Store

if TYPE_CHECKING:
    from bench.data.prompts import Prompts
    from bench.run.budget import Match

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True)
class PlannedCell:
    """A cell with its id, or with the reason why it cannot be run.

    Attributes:
        row: what the matrix calls it.
        spec: what its folder will hold.
        cost: `parameters_*`, `macs_forward`, `flops_train_per_image`; empty if it cannot be built.
        label: what distinguishes it from the others of its matrix.
        reason: why it cannot be run (a plugin that fails to import), or empty.
        budget: how it meets the budget, as a sentence shows it, or empty.
    """

    row: Row
    spec: CellSpec
    cost: dict[str, float]
    label: str
    reason: str = ""
    budget: str = ""


@dataclass(frozen=True)
class Plan:
    """All cells of a matrix, and what was typed to plan them."""

    matrix: Matrix
    cells: list[PlannedCell]
    command: str
    warnings: list[str] = field(default_factory=list)


def plan(matrix: Matrix, store: Store, *, command: str, progress: Progress) -> Plan:
    """Prepares data and prompts, resolves what is `auto`, and checks that every cell can be built.

    Raises:
        ConfigError, DataError, PromptError, ValueError: for what the user has to change, before anything is trained.
    """
    from bench.measure import metrics

    cells = expand(matrix)
    warnings = _load_plugins(matrix.plugins)
    broken = bool(warnings)
    extractor = metrics.resolve(matrix.evaluate.extractor, warn=warnings.append).name
    matrix = replace(matrix, evaluate=replace(matrix.evaluate, extractor=extractor))
    check(matrix.claim, dict.fromkeys(row(cell, "").name for cell in cells), matrix.seeds)
    planner = _Planner(matrix, store, command, progress, broken)
    planned = []
    for cell in cells:
        config = cell.config.changed({"evaluate.extractor": extractor})
        planned.append(planner.planned(replace(cell, config=config)))
        progress("plan cells", len(planned), len(cells))
    _refuse_twins(planned)
    return Plan(matrix, planned, command, warnings + planner.warnings)


def _load_plugins(files: list[str]) -> list[str]:
    """What is wrong with plugin files, in sentences."""
    warnings = []
    for file in files:
        try:
            architectures.load_plugin(file)
        except architectures.PluginError as error:
            warnings.append(str(error))
    return warnings


@dataclass(frozen=True)
class _SchemeInfo:
    """A scheme with options, looked up.

    Attributes:
        options: all of them, defaults filled in.
        code: digest of the code that makes its numbers.
        plugin: digest of the plugin that it comes from, or empty.
        reason: a law that it breaks, or empty.
    """

    options: dict[str, Any]
    code: str
    plugin: str
    reason: str


@dataclass(frozen=True)
class _Built:
    """What came of building a cell's model."""

    config: CellConfig
    code: str = ""
    plugin: str = ""
    cost: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    budget: str = ""


class _Planner:
    """Plans cell by cell; what an earlier cell needed too is taken from there."""

    def __init__(self, matrix: Matrix, store: Store, command: str, progress: Progress, broken: bool) -> None:
        self.matrix, self.store, self.command, self.progress = matrix, store, command, progress
        self.broken = broken  # whether a plugin could not be imported
        self.warnings: list[str] = []  # of data and prompts
        self.variants = variants(matrix)
        self.plugins = [str(Path(file).resolve()) for file in matrix.plugins]
        self.code = functools.cache(code_digest)
        self.prompts = functools.cache(self._prompts)
        self.data = functools.cache(_placed)
        self.schemes: dict[str, _SchemeInfo] = {}
        self.costs: dict[str, dict[str, float]] = {}
        self.matches: dict[str, Match] = {}

    def planned(self, cell: MatrixCell) -> PlannedCell:
        """The cell with its id.

        Raises:
            ConfigError: if it cannot be built; the sentence names the variant.
        """
        config = _on_device(replace(cell.config, data=self.data(cell.config.data)))
        data, prompts = self.prompts(config.data, config.prompt)
        built = self._built_or_reason(config, cell, prompts)
        _check_schedule(built.config, cell.label)
        id = identity(built.config, data=data, code=built.code, plugin=built.plugin)
        digests = {"data": data, "prompts": prompts.digest, "code": built.code, "plugin": built.plugin}
        spec = CellSpec(built.config, digests, self.plugins, self.matrix.run.workers, self.command)
        named = row(replace(cell, config=built.config), id)
        return PlannedCell(named, spec, built.cost, cell.label, built.reason, built.budget)

    def _built_or_reason(self, config: CellConfig, cell: MatrixCell, prompts: Prompts) -> _Built:
        try:
            return self._built(config, cell, prompts)
        except architectures.UnknownScheme:
            if not self.broken:
                raise
            return _Built(config, reason=f"scheme {config.scheme!r} is missing: a plugin could not be imported")
        except architectures.PluginError as error:
            return _Built(config, reason=str(error))
        except ValueError as error:
            raise ConfigError(f"variant {cell.variant!r}: {error}") from error

    def _built(self, config: CellConfig, cell: MatrixCell, prompts: Prompts) -> _Built:
        scheme = self._scheme(config.scheme, config.options)
        config, budget = replace(config, options=scheme.options), ""
        if scheme.reason:
            return _Built(config, scheme.code, scheme.plugin, reason=scheme.reason)
        if self.matrix.budget.match:
            match = self._match(config, cell, prompts)
            config, budget = config.changed(match.changes), match.text
        return _Built(config, scheme.code, scheme.plugin, self._cost(config, prompts), budget=budget)

    def _prompts(self, data: Data, prompt: Prompt) -> tuple[str, Prompts]:
        """The digest of the prepared data, and its prompts."""
        from bench.data import datasets, prompts

        folder = datasets.prepare(data, self.store.cache, self.progress, self.warnings.append)
        loaded = datasets.load(folder)
        encoded = prompts.prepare(loaded, prompt, self.store.cache, self.progress, self.warnings.append)
        self.warnings += [note for note in (*loaded.notes, *encoded.notes) if note not in self.warnings]
        return folder.name, encoded

    def _scheme(self, name: str, given: dict[str, Any]) -> _SchemeInfo:
        key = _key(name, given)
        if key not in self.schemes:
            options = architectures.resolve_options(name, given)
            origin = architectures.origin(name)
            built_in = origin["kind"] == "built-in"
            code = self.code(origin["name"] if built_in else None)
            plugin = "" if built_in else origin.get("sha256", "")
            self.schemes[key] = _SchemeInfo(options, code, plugin, architectures.first_violation(name, options))
        return self.schemes[key]

    def _cost(self, config: CellConfig, prompts: Prompts) -> dict[str, float]:
        from bench.measure.cost import count

        key = _key(config.scheme, config.options, repr(config.backbone), config.data.image_size, repr(prompts.kind))
        if key not in self.costs:
            self.costs[key] = count(config, prompts.kind)
        return self.costs[key]

    def _match(self, config: CellConfig, cell: MatrixCell, prompts: Prompts) -> Match:
        """How a cell meets the matrix's budget, worked out once for all its seeds."""
        from bench.run.budget import solve

        target, match = self._target(), self.matrix.budget.match
        assert match is not None
        key = _key(cell.variant, cell.axes)
        if key not in self.matches:
            options = architectures.resolve_options(target.scheme, target.options)
            theirs = replace(config, scheme=target.scheme, options=options)
            self.matches[key] = solve(config, theirs, match, prompts.kind)
        return self.matches[key]

    def _target(self) -> Variant:
        """The variant whose cost the others meet."""
        name = self.matrix.budget.to or self.variants[0].name
        target = next((variant for variant in self.variants if variant.name == name), None)
        if target is None:
            known = [variant.name for variant in self.variants]
            hint = nearest(name, known, f" (variants: {', '.join(known)})")
            raise ConfigError(f"budget.to {name!r} is no variant of this matrix{hint}")
        return target


def _key(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True)


def _placed(data: Data) -> Data:
    """The data with its path made absolute, where it is on this machine."""
    if data.path is None:
        return data
    path = Path(data.path).expanduser()
    return replace(data, path=str(path.resolve())) if path.exists() else data


def _on_device(config: CellConfig) -> CellConfig:
    """The config with no `auto` left that depends on the machine."""
    train = config.train
    device = train.device
    if device == "auto":
        device = "cuda" if _gpu() else "cpu"
    if device == "cuda" and not _gpu():
        raise ConfigError("train.device cuda: no CUDA device is available here; choose cpu or auto")
    precision, compiled = ("bf16", "on") if device == "cuda" else ("32", "off")
    changes: dict[str, Any] = {"train.device": device}
    changes |= {"train.precision": precision} if train.precision == "auto" else {}
    changes |= {"train.compile": compiled} if train.compile == "auto" else {}
    return config.changed(changes)


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _check_schedule(config: CellConfig, label: str) -> None:
    train = config.train
    for name, length in (("warmup", train.warmup), ("cooldown", train.cooldown)):
        if length > train.steps:
            raise ConfigError(f"{label}: train.{name} {length} is longer than train.steps {train.steps}")


def _refuse_twins(cells: list[PlannedCell]) -> None:
    """Two variants that are the same cell would be one row counted twice."""
    labels: dict[str, str] = {}
    for cell in cells:
        if cell.row.cell in labels and not cell.reason:
            raise ConfigError(
                f"{cell.label!r} and {labels[cell.row.cell]!r} are the same cell: their options are equal"
            )
        labels[cell.row.cell] = cell.label
