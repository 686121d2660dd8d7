"""Names of tasks, their knobs, and where each comes from: built in, a package's entry point, a plugin file."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import architectures
from architectures import Option, nearest
from bench.data.tasks.contract import LEVELS, Task
from bench.store import seeds
from bench.store.metrics import Measurement

GROUP = "ditbench.tasks"
TAKEN = ("local", "global", "right", "control", "score", "excess_error", "mastered")  # what else is measured
MOST_BYTES = 2**30  # of a task's images in float32
NAMES = ("scene", "bind", "labels", "grain", "tone", "place", "count", "clock", "facts")
BUILT_IN = {name: f"bench.data.tasks.{name}" for name in NAMES}


class TaskError(ValueError):
    """A task, level or knob that is not there, or a value out of range; the message has the choices."""


@dataclass(frozen=True)
class Knob(Option):
    """A knob: an option of a task with the range of its number."""

    least: float | None = None
    most: float | None = None

    @property
    def range(self) -> str:
        """What it may be, in short."""
        return self.allowed if self.least is None else f"{self.least} to {self.most}"

    def check(self, name: str, value: Any) -> Any:
        """The value, of the right type and within its range."""
        found = super().check(name, value)
        if self.least is not None and self.most is not None and not self.least <= found <= self.most:
            raise ValueError(f"{name} {found!r}: must be {self.least} to {self.most}")
        return found


_added: dict[str, type[Task]] = {}


def register(name: str) -> Callable[[type[Task]], type[Task]]:
    """A class decorator that gives a plugin's task its name; a plugin file that is imported twice replaces its own.

    Raises:
        TaskError: if the name is taken or no slug, or if the class is no task.
    """
    if isinstance(name, type):
        raise TaskError(f"@register needs the task's name: @register({name.__name__.lower()!r})")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
        raise TaskError(f"task name {name!r}: use lower-case letters, digits and '-'")
    if name in BUILT_IN:
        raise TaskError(f"task {name!r} is the name of a built-in task")

    def add(task: type[Task]) -> type[Task]:
        _check_class(name, task)
        other = _added.get(name)
        if other is not None and _file(other) != _file(task):
            raise TaskError(f"task {name!r} is given by {_file(other)} and by {_file(task)}")
        task.name = name
        _added[name] = task
        return task

    return add


def _check_class(name: str, task: Any) -> None:
    """Refuses a class that is no task, or lacks what is read of it before it is made."""
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise TaskError(f"task {name!r} is no subclass of bench.data.tasks.contract.Task, but {task!r}")
    if not isinstance(getattr(task, "says", None), str):
        raise TaskError(f"task {name!r} has no `says`, a sentence on what it isolates")
    levels = getattr(task, "levels", None)
    missing = [one for one in LEVELS if not isinstance(levels, Mapping) or not isinstance(levels.get(one), Mapping)]
    if missing:
        raise TaskError(f"task {name!r}: `levels` has no {', '.join(missing)}, each a mapping of knobs")


def _file(task: type[Task]) -> str:
    return str(getattr(sys.modules.get(task.__module__), "__file__", task.__module__))


def _entries() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in BUILT_IN}


def of_package(name: str) -> bool:
    """Whether a task comes from a package's entry point, and not from a plugin file."""
    return name in _entries() and name not in _added


def tasks() -> list[str]:
    """Names of all tasks: built in in their order, then of packages and plugin files."""
    return [*BUILT_IN, *sorted({*_entries(), *_added})]


def task_class(name: str) -> type[Task]:
    """The class of a task, imported now if it was not.

    Raises:
        TaskError: if there is none, with the nearest; if what a package offers is no task.
        PluginError: if the package that offers it cannot be imported.
    """
    if name in BUILT_IN:
        module = importlib.import_module(BUILT_IN[name])
        return next(
            one for one in vars(module).values() if isinstance(one, type) and getattr(one, "name", None) == name
        )
    if name in _added:
        _check_class(name, _added[name])
        return _added[name]
    if name in _entries():
        with architectures.guarded(f"task {name!r}"):
            found: type[Task] = _entries()[name].load()
        _check_class(name, found)
        return found
    raise _unknown(name)


def _unknown(name: str) -> TaskError:
    return TaskError(f"unknown task {name!r} (tasks: {', '.join(tasks())}){nearest(name, tasks())}")


def knobs(name: str) -> dict[str, Option]:
    """The knobs of a task, with meaning, default and range."""
    cls = task_class(name)
    return {} if cls.__init__ is object.__init__ else architectures.options_of(cls)


def make(name: str, level: str = "medium", values: Mapping[str, Any] | None = None) -> Task:
    """A task at a level, with single knobs over it.

    Raises:
        TaskError: for a task, level or knob that is not there, a value out of range, or images beyond memory.
    """
    cls = task_class(name)
    if level not in LEVELS:
        raise TaskError(f"task {name!r}: unknown level {level!r} (levels: {', '.join(LEVELS)}){nearest(level, LEVELS)}")
    known, chosen = knobs(name), {**cls.levels[level], **(values or {})}
    for key in chosen:
        if key not in known:
            raise TaskError(
                f"task {name!r}: unknown knob {key!r} (knobs: {', '.join(known) or 'none'}){nearest(key, known)}"
            )
    try:
        task = cls(**{key: known[key].check(f"task {name!r}: {key}", value) for key, value in chosen.items()})
    except ValueError as error:
        raise TaskError(str(error)) from error
    if task.size % task.patch:
        raise TaskError(f"task {name!r}: size {task.size} is no multiple of patch {task.patch}, a token's side")
    _check_attributes(task, name)
    _check_memory(task, name, known)
    return task


def _check_attributes(task: Task, name: str) -> None:
    """Refuses names of attributes that are no key of a metric, or another's, and directions that tables do not read."""
    own = [one.name for one in task.attributes]
    for one in own:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", one) or one in TAKEN or own.count(one) > 1 or not _is_read(one):
            raise TaskError(
                f"task {name!r}: attribute {one!r}: use a name of its own of lower-case letters, digits and '_', other "
                f"than {', '.join(TAKEN)}"
            )
    for attribute in task.attributes:  # its key says nothing of a direction
        better = Measurement.parse(f"{attribute.name}_template_256").better
        if attribute.lower != (better == "lower"):
            way = "leave `lower` out, and count what is right" if attribute.lower else "give it another name"
            raise TaskError(f"task {name!r}: tables read {attribute.name!r} as better where it is {better}; {way}")


def _is_read(attribute: str) -> bool:
    """Whether a metric of this name is an attribute that a template reads, and no `kid`, `recall` or `unseen_x`."""
    found = Measurement.parse(f"{attribute}_template_256")
    return found.metric.made_by == "judge" and not found.subset and found.metric.kind == attribute


def _check_memory(task: Task, name: str, known: Mapping[str, Option]) -> None:
    """Refuses images that cannot be listed in memory, before any is painted."""
    try:
        needed = 12 * task.images * task.size**2
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        raise TaskError(
            f"task {name!r}: the latents of its images do not fit in memory; lower a knob ({', '.join(known)}), or "
            "define `images` and give `denoise` in closed form"
        ) from error
    if task.enumerable and needed > MOST_BYTES:
        raise TaskError(
            f"task {name!r}: its {task.images:,} images need {needed / 2**30:.1f} GiB and the exact denoiser may take "
            f"{MOST_BYTES / 2**30:.0f}; lower a knob ({', '.join(known)})"
        )


def sample_batch(task: Task, split: str, seed: int, k: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Batch k of a seed: x_0 (batch, 3, S, S), words (batch, L), z (batch, M); a function of these numbers alone."""
    generator = seeds.generator("task", task.name, split, seed, k)
    z = task.sample(batch, split, generator)
    x_0, grain = task.paint(z), task.grain(z)
    if grain.any():
        x_0 = x_0 + grain[:, None, None, None] * torch.randn(x_0.shape, generator=generator)
    return x_0, task.words(z), z


# --- where a task comes from ------------------------------------------------------------------------------------------


def load_plugin(path: str | Path) -> list[str]:
    """Imports a plugin file, whose `@register` lines add tasks and schemes; the names of its tasks.

    Raises:
        PluginError: naming the file, and its own error of whatever kind; then none of its tasks is there.
    """
    try:
        architectures.load_plugin(path)
    finally:
        forget_failed()
    file = str(Path(path).expanduser().resolve())
    return [name for name in _added if _file(_added[name]) == file]


def forget_failed() -> None:
    """Forgets the tasks of plugin files whose import failed after it had registered them."""
    for name in [name for name, task in _added.items() if task.__module__ not in sys.modules]:
        del _added[name]


def plugin_files(name: str) -> dict[str, Path]:
    """The files that a plugin's task is made of, by their names; none for a built-in task."""
    if name in BUILT_IN:
        return {}
    entry = None if name in _added else _entries().get(name)
    module = entry.module if entry else task_class(name).__module__
    return architectures.files_of_module(module, architectures.top_names(entry.dist, module) if entry else frozenset())


def origin(name: str) -> dict[str, str]:
    """Where a task comes from: kind (`built-in`, `package`, `file`), its name and version."""
    if name in BUILT_IN:
        return {"kind": "built-in", "name": BUILT_IN[name]}
    if name in _added:
        return {"kind": "file", "name": Path(_file(_added[name])).name}
    if name not in _entries():
        raise _unknown(name)
    dist = _entries()[name].dist
    return {"kind": "package", "name": dist.name, "version": dist.version}


def plugin_file(name: str) -> str | None:
    """The plugin file that a task was registered by; None of a built-in one, and of a package's."""
    return _file(_added[name]) if name in _added else None


def of_task(name: str, passing: tuple[type[BaseException], ...] = ()) -> AbstractContextManager[None]:
    """Around a task's own code: of a plugin, an error of any kind becomes a `PluginError` that names it."""
    return nullcontext() if name in BUILT_IN else architectures.guarded(f"task {name!r}", passing=passing)


def digest(name: str) -> str:
    """The digest of the files of a plugin's task and of what they import; empty for a built-in one."""
    return "" if name in BUILT_IN else architectures.digest(plugin_files(name))
