"""From a matrix to planned cells: data and prompts prepared, everything checked, each cell under its id.

What cells share is worked out once: data, prompts, a scheme's options and digests, a model's cost, a budget's match.
Nothing here trains, so Lightning is never imported, and torch only once a device is chosen or a model counted.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import architectures
from architectures import nearest
from bench.config.identity import code_digest, identity, plugin_digest
from bench.config.matrix import MatrixCell, Variant, conditionings, expand, options_at, row, variants
from bench.config.schema import ConfigError, Data, Matrix, Prompt
from bench.config.spec import CellConfig, CellSpec
from bench.run.checks import check_cell, check_devices, check_extractor, check_names, check_plugins, doubts, facts_of
from bench.run.machine import on_device, patched, placed
from bench.run.plugins import Plugins, load_plugins, of_plugin
from bench.run.task_plugins import TaskPlugins, is_built_in
from bench.store.files import digest
from bench.store.folders import Row, Store

if TYPE_CHECKING:
    from bench.data.datasets import Dataset
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
    check_plugins(matrix.plugins)
    planner = _Planner(matrix, store, command, progress)
    planner.check_schemes(of_plugins=False)
    try:
        cells = expand(matrix)
        planner.check_tasks(cells)
        check_names(
            matrix,
            (row(cell, "").name for cell in cells),
            {row(cell, "").name: facts_of(matrix, cell.config) for cell in cells if matrix.claim},
        )
    except ValueError:
        planner.check_schemes(of_plugins=True)  # a misspelt scheme is why its row is not there
        raise
    planned: dict[int, PlannedCell] = {}
    for index, cell in sorted(enumerate(cells), key=lambda one: _needs_plugin(one[1].config)):
        planned[index] = planner.planned(cell)
        progress("plan cells", len(planned), len(cells))
    in_order = [planned[index] for index in range(len(cells))]
    _refuse_twins(in_order)
    _refuse_nothing(in_order)
    matrix = replace(matrix, evaluate=replace(matrix.evaluate, extractor=planner.extractor(matrix.evaluate.extractor)))
    return Plan(matrix, in_order, command, list(dict.fromkeys([*planner.plugins.wrong, *planner.warnings])))


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
    """Plans cell by cell; what an earlier cell needed too is taken from there.

    Plugins are imported when the first cell needs one: what they change in this process, cells before it do not see.
    """

    def __init__(self, matrix: Matrix, store: Store, command: str, progress: Progress) -> None:
        self.matrix, self.store, self.command, self.progress = matrix, store, command, progress
        self.warnings: list[str] = []  # of data and prompts
        self.variants = variants(matrix)
        self.code = functools.cache(code_digest)
        self.prompts = functools.cache(self._prompts)
        self.data = functools.cache(placed)
        self.patched = functools.cache(patched)
        self.extractor = functools.cache(self._extractor)
        self.tasks = TaskPlugins(lambda: self.plugins)
        self.checked: set[str] = set()
        self.wrong: dict[str, str] = {}
        self.schemes: dict[str, _SchemeInfo] = {}
        self.costs: dict[str, dict[str, float]] = {}
        self.matches: dict[str, Match] = {}

    @functools.cached_property
    def plugins(self) -> Plugins:
        """The matrix's plugins, imported now if they were not."""
        return load_plugins(self.matrix.plugins, self.store.cache / "plugins", self.progress)

    def check_schemes(self, *, of_plugins: bool) -> None:
        """Finds a misspelt scheme, option or value before what is wrong because of it: a baseline, a claim, a rate.

        Args:
            of_plugins: check those that may be of a plugin file, which is imported for it; else the others.

        Raises:
            ConfigError: naming the variant, and the nearest.
        """
        for variant, options in conditionings(self.matrix):
            outside = bool(self.matrix.plugins) and not architectures.is_built_in(variant.scheme)
            if outside != of_plugins or (outside and self.plugins.wrong):
                continue
            try:
                self._scheme(variant.scheme, options)
            except architectures.PluginError:
                continue  # its cells say so, and the others are run
            except ValueError as error:
                raise ConfigError(f"variant {variant.name!r}: {error}") from error

    def check_tasks(self, cells: Sequence[MatrixCell]) -> None:
        """Finds what is wrong of any task before the data of one is prepared, and plugins' tasks that a claim needs.

        Raises:
            DataError: for an unknown task or knob, a value out of range, images beyond memory.
        """
        for data in dict.fromkeys(cell.config.data for cell in cells if cell.config.data.source == "task"):
            if is_built_in(data) or ((self.matrix.claim or not self.matrix.plugins) and not self.tasks.reason(data)):
                self.data(data)

    def planned(self, cell: MatrixCell) -> PlannedCell:
        """The cell with its id.

        Raises:
            ConfigError: if it cannot be built; the sentence names the variant.
        """
        config = cell.config.changed({"evaluate.extractor": self.extractor(cell.config.evaluate.extractor)})
        if reason := self.tasks.reason(config.data):
            return self._unprepared(config, cell, reason)
        own, train = self.data(config.data), on_device(config.train, self.matrix.run)
        try:
            config = replace(config, backbone=self.patched(config.backbone, own), data=own, train=train)
        except ConfigError as error:
            raise ConfigError(f"{cell.label}: {error}") from error
        data, prompts = self.prompts(config.data, config.prompt)
        built = self._built_or_reason(config, cell, prompts)
        if not built.reason:
            self._check(built.config, data, cell.label)
        self._points(built.config, data)
        run, plugin = self.matrix.run, plugin_digest(built.plugin, self.tasks.named(config.data))
        id = identity(built.config, data=data.digest, code=built.code, plugin=plugin)
        digests = {"data": data.digest, "prompts": prompts.digest, "code": built.code, "plugin": plugin}
        files = list(dict.fromkeys([*self._plugin_of(built.config.scheme), *self.tasks.files(config.data)]))
        devices, sharded = run.devices or 1, run.strategy == "fsdp"
        spec = CellSpec(built.config, digests, files, run.workers, self.command, devices, run.images, sharded)
        named = row(replace(cell, config=built.config, axes=_typed(cell.axes, built.config.options)), id)
        return PlannedCell(named, spec, built.cost, cell.label, built.reason, built.budget)

    def _unprepared(self, config: CellConfig, cell: MatrixCell, reason: str) -> PlannedCell:
        """A cell whose task cannot be run: it has no data, and so no number."""
        digests = dict.fromkeys(("data", "prompts", "code", "plugin"), "")
        spec = CellSpec(config, digests, self.tasks.files(config.data), self.matrix.run.workers, self.command)
        named = row(replace(cell, config=config), identity(config, data="", code="", plugin=""))
        return PlannedCell(named, spec, {}, cell.label, reason)

    def _plugin_of(self, scheme: str) -> list[str]:
        """The plugin file that a scheme comes from, and no other: what a plugin does harms its own cells alone."""
        file = None if architectures.is_built_in(scheme) else self.plugins.files.get(scheme)
        return [file] if file else []

    def _built_or_reason(self, config: CellConfig, cell: MatrixCell, prompts: Prompts) -> _Built:
        """What came of building a cell, whatever a plugin does then; what fails is not tried again for each seed."""
        key = _key(config.scheme, config.options, repr(config.backbone), config.data.image_size, cell.axes)
        if key in self.wrong:
            return _Built(config, reason=self.wrong[key])
        try:
            return self._built(config, cell, prompts)
        except architectures.UnknownScheme as error:
            if not self.plugins.wrong:
                raise ConfigError(f"variant {cell.variant!r}: {error}") from error
            self.wrong[key] = f"scheme {config.scheme!r} is missing: {'; '.join(self.plugins.wrong)}"
        except architectures.PluginError as error:
            self.wrong[key] = str(error)
        except ValueError as error:
            raise ConfigError(f"variant {cell.variant!r}: {error}") from error
        return _Built(config, reason=self.wrong[key])

    def _built(self, config: CellConfig, cell: MatrixCell, prompts: Prompts) -> _Built:
        scheme = self._scheme(config.scheme, config.options)
        config, budget = replace(config, options=scheme.options), ""
        if scheme.reason:
            return _Built(config, scheme.code, scheme.plugin, reason=scheme.reason)
        with of_plugin(config.scheme, passing=(ConfigError,)):
            if self.matrix.budget.match:
                match = self._match(config, cell, prompts)
                config, budget = config.changed(match.changes), match.text
            cost = self._cost(config, prompts)
        return _Built(config, scheme.code, scheme.plugin, cost, budget=budget)

    def _check(self, config: CellConfig, data: Dataset, label: str) -> None:
        """Checks once what cells of other seeds share."""
        shared = repr((data.digest, config.scheme, config.options, config.prompt.arm))
        shared += repr((config.train, config.sample, config.evaluate))
        if shared not in self.checked:
            check_cell(config, data, label)
            check_devices(config, self.matrix.run, label)
            self.warnings += doubts(config)
            self.checked.add(shared)

    def _points(self, config: CellConfig, data: Dataset) -> None:
        """The fixed points of a task, with both optima: made once, here, for all cells."""
        shared = _key("points", data.digest, repr(config.evaluate), config.train.t_mean, config.train.t_std)
        if data.task is not None and shared not in self.checked:
            from bench.measure import points

            self.progress("optimal denoiser", 0, 1)
            points.load(data, config, self.store.cache, self.warnings.append)
            self.progress("optimal denoiser", 1, 1)
            self.checked.add(shared)

    def _extractor(self, name: str) -> str:
        """The extractor's own name, its weights tried."""
        if name == "none":
            return name
        from bench.measure import metrics  # whose libraries take seconds to import

        found = metrics.resolve(name, warn=self.warnings.append).name
        check_extractor(found)
        return found

    def _prompts(self, data: Data, prompt: Prompt) -> tuple[Dataset, Prompts]:
        """The prepared data, and its prompts."""
        from bench.data import datasets, prompts

        folder = datasets.prepare(data, self.store.cache, self.progress, self.warnings.append)
        loaded = datasets.load(folder)
        encoded = prompts.prepare(loaded, prompt, self.store.cache, self.progress, self.warnings.append)
        self.warnings += [note for note in (*loaded.notes, *encoded.notes) if note not in self.warnings]
        return loaded, encoded

    def _scheme(self, name: str, given: dict[str, Any]) -> _SchemeInfo:
        key = _key(name, given)
        if key not in self.schemes:
            if not architectures.is_built_in(name):
                _ = self.plugins  # imported now
            with of_plugin(name, passing=(ValueError,)):  # an option that is none is the user's mistake
                options = architectures.resolve_options(name, given)
            with of_plugin(name):
                digest(options)  # of plain, finite values, or no identity can be made of them
                reason = architectures.first_violation(name, options)
            origin = architectures.origin(name)
            built_in = origin["kind"] == "built-in"
            code = self.code(origin["name"] if built_in else None)
            self.schemes[key] = _SchemeInfo(options, code, "" if built_in else origin.get("sha256", ""), reason)
        return self.schemes[key]

    def _cost(self, config: CellConfig, prompts: Prompts) -> dict[str, float]:
        from bench.measure.cost import count

        sizes = repr((config.backbone, config.data, config.train.process, prompts.kind))
        key = _key(config.scheme, config.options, sizes)
        if key not in self.costs:
            self.costs[key] = count(config, prompts.kind)
        return self.costs[key]

    def _match(self, config: CellConfig, cell: MatrixCell, prompts: Prompts) -> Match:
        """How a cell meets the matrix's budget, worked out once for all its seeds."""
        from bench.run.budget import measured, solve

        target, match = self._target(), self.matrix.budget.match
        assert match is not None
        key = _key(cell.variant, cell.axes)
        if key not in self.matches:
            other = self._scheme(target.scheme, options_at(target, cell.axes))
            theirs = replace(config, scheme=target.scheme, options=other.options)
            if match == "wall_clock":
                ours = self._scheme(config.scheme, cell.config.options)
                code = (ours.code, ours.plugin, other.code, other.plugin)
                made = measured(config, theirs, prompts.kind, code, self.store.cache, self.warnings.append)
            else:
                made = solve(config, theirs, match, prompts.kind)
            self.matches[key] = made
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


def _needs_plugin(config: CellConfig) -> bool:
    return not (architectures.is_built_in(config.scheme) and is_built_in(config.data))


def _key(*parts: Any) -> str:
    return json.dumps(parts, sort_keys=True)


def _typed(axes: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """The values of axes, those of options as the scheme takes them."""
    return {key: options.get(key.removeprefix("options."), value) for key, value in axes.items()}


def _refuse_twins(cells: list[PlannedCell]) -> None:
    """Two variants that are the same cell would be one row counted twice, also under another name of their scheme."""
    labels: dict[str, str] = {}
    for cell in cells:
        id = _id_without_alias(cell)
        if id in labels and not cell.reason:
            raise ConfigError(f"{cell.label!r} and {labels[id]!r} are the same cell: their options are equal")
        labels[id] = cell.label


def _id_without_alias(cell: PlannedCell) -> str:
    config, digests = cell.spec.config, cell.spec.digests
    if config.scheme not in architectures.ALIASES:
        return cell.row.cell
    own = replace(config, scheme=architectures.ALIASES[config.scheme])
    return identity(own, **{name: digests[name] for name in ("data", "code", "plugin")})


def _refuse_nothing(cells: list[PlannedCell]) -> None:
    """A matrix of which no cell can be run is a mistake, not a plan."""
    if all(cell.reason for cell in cells):
        reasons = "; ".join(dict.fromkeys(cell.reason for cell in cells))
        raise ConfigError(f"no cell of this matrix can be run: {reasons}")
