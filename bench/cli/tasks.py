"""Commands about tasks: `tasks`, `describe-task`, `check-task`, `new-task`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.common import Json, Plugins, console, law_grid, near, progress_bars, say, warn, wrote

if TYPE_CHECKING:
    from bench.data.tasks.contract import Task
    from bench.data.tasks.laws import Verdict
    from bench.views.grid import Grid

WORDS = 6  # of a slot that are shown


def complete_task(incomplete: str) -> list[str]:
    """Names of tasks with this beginning."""
    from bench.data.tasks import registry

    return [name for name in registry.tasks() if name.startswith(incomplete)]


Name = Annotated[str, typer.Argument(help="A task, see `ditbench tasks`.", autocompletion=complete_task)]
Knobs = Annotated[list[str] | None, typer.Argument(help="Its knobs as key=value, such as labels=512.")]


def _load(plugins: list[Path] | None) -> None:
    from bench.data.tasks import registry

    for path in plugins or []:
        registry.load_plugin(path)


def tasks(plugin: Plugins = None, as_json: Json = False) -> None:
    """List the tasks, plugins included: what each isolates, and what is predicted of schemes.

    Example: ditbench tasks --plugin my_task.py
    """
    from bench.data.tasks import registry
    from bench.views.grid import Grid

    _load(plugin)
    classes = {name: registry.task_class(name) for name in registry.tasks()}
    origins = {name: registry.origin(name) for name in classes}
    if as_json:
        about = {name: {"says": cls.says, "predicts": cls.predicts} for name, cls in classes.items()}
        print(json.dumps({name: about[name] | {"origin": origins[name]} for name in classes}, indent=2))
        return
    rows = []
    for name, cls in classes.items():
        origin = origins[name]
        whose = "" if origin["kind"] == "built-in" else f" ({origin['kind']} {origin['name']})"
        rows.append([name + whose, cls.says, cls.predicts or "-"])
    console().print(Grid(["task", "isolates", "predicted"], rows, "Tasks", frozenset(range(3))))


# --- describe-task --------------------------------------------------------------------------------------------------


def describe_task(
    name: Name,
    knobs: Knobs = None,
    level: Annotated[str, typer.Option(help="easy, medium or hard.")] = "medium",
    out: Annotated[Path | None, typer.Option(help="Write a sheet of its images with their prompts, a PNG.")] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Print a task's knobs, its prompt, its entropy in bits and what it measures; with --out, a sheet of its data.

    Example: ditbench describe-task bind --level hard --out bind.png
    """
    from bench.config.load import pairs
    from bench.data.tasks import registry

    _load(plugin)
    chosen = pairs(knobs or [])
    with registry.of_task(name, passing=(registry.TaskError,)):
        task = registry.make(name, level, chosen)
        about = _about(task, name, level, chosen)
    if as_json:
        print(json.dumps(about, indent=2))
    else:
        _print_about(task, about)
    if out is not None:
        with registry.of_task(name, passing=(registry.TaskError, OSError)):
            _write_sheet(task, f"{name}, {_setting(level, chosen)}", out)


def _setting(level: str, chosen: dict[str, Any]) -> str:
    return ", ".join([level, *(f"{key}={value}" for key, value in chosen.items())])


def _about(task: Task, name: str, level: str, chosen: dict[str, Any]) -> dict[str, Any]:
    from bench.data.tasks import registry

    known, values = registry.knobs(name), {**task.levels[level], **chosen}
    prompt, hidden = task.bits
    words = registry.sample_batch(task, "train", 0, 0, 1)[1]
    return {
        "task": name,
        "origin": registry.origin(name),
        "level": level,
        "isolates": task.says,
        "predicted": task.predicts,
        "image": {"size": task.size, "patch": task.patch, "tokens": task.tokens},
        "images": task.images,
        "modes": task.modes(words).shape[1] if task.enumerable else None,
        "bits": {"image": prompt + hidden, "prompt": prompt, "hidden": hidden},
        "times": list(task.times),
        "unseen": task.has_unseen,
        "knobs": {
            key: {
                "value": values.get(key, one.default),
                "default": one.default,
                "levels": {step: preset.get(key, one.default) for step, preset in task.levels.items()},
                "range": getattr(one, "range", one.allowed),
                "meaning": one.help,
            }
            for key, one in known.items()
        },
        "slots": {slot.name: list(slot.words) for slot in task.slots},
        "attributes": {
            one.name: {"reach": one.reach, "chance": one.chance, "lower is better": one.lower}
            for one in task.attributes
        },
    }


def _print_about(task: Task, about: dict[str, Any]) -> None:
    def line(label: str, text: Any) -> None:
        out.print(f"{label:12} {text}", highlight=False)

    out = console()
    out.print(f"{about['task']} ({about['level']})\n", style="bold")
    line("isolates", about["isolates"])
    line("predicted", about["predicted"] or "nothing")
    line("image", f"{task.size} x {task.size} px, {task.tokens} tokens of {task.patch} x {task.patch} px")
    bits = about["bits"]
    parts = f"{bits['prompt']:.2f} that the prompt gives, {bits['hidden']:.2f} that it leaves open"
    line("entropy", f"{bits['image']:.2f} bits ({about['images']:,} images): {parts}; white grain not counted")
    modes = about["modes"]
    exact = f"a softmax over K = {modes} images of a prompt" if modes else "a sum over all images, in closed form"
    line("E[x_0]", f"exact: {exact}")
    low, high = task.times
    line("errors", f"over t from {low:g} to {high:g}")
    line("withheld", "pairs of words, `unseen`" if task.has_unseen else "nothing")
    line("origin", " ".join(about["origin"].values()))
    out.print()
    for grid in _grids(about):
        out.print(grid)


def _grids(about: dict[str, Any]) -> Iterator[Any]:
    from bench.views.grid import Grid

    rows = [
        [key, str(one["value"]), *(str(value) for value in one["levels"].values()), one["range"], one["meaning"]]
        for key, one in about["knobs"].items()
    ]
    yield Grid(["knob", "here", "easy", "medium", "hard", "range", "meaning"], rows, "Knobs", frozenset((0, 5, 6)))
    rows = [[name, str(len(words)), _some(words)] for name, words in about["slots"].items()]
    yield Grid(["slot", "words", "such as"], rows, "Prompt: a position a slot", frozenset((0, 2)))
    rows = [
        [name, one["reach"], f"{one['chance']:.3g}", "lower" if one["lower is better"] else "higher"]
        for name, one in about["attributes"].items()
    ]
    yield Grid(["attribute", "reach", "chance", "better"], rows, "Control is read of", frozenset((0, 1, 3)))


def _some(words: list[str]) -> str:
    return ", ".join(words[:WORDS]) + (", ..." if len(words) > WORDS else "")


def _write_sheet(task: Task, title: str, file: Path) -> None:
    import numpy as np

    from bench.measure.images import png
    from bench.store.files import write_atomic
    from bench.views.task_sheet import rows
    from bench.views.understood import sheet

    write_atomic(file, png(np.asarray(sheet(rows(task, title)))))
    say(f"wrote  {near(file)}")


# --- check-task -----------------------------------------------------------------------------------------------------


def check_task(
    task: Annotated[
        str, typer.Argument(help="A task by name, or a Python file of tasks.", autocompletion=complete_task)
    ],
    knobs: Knobs = None,
    level: Annotated[str | None, typer.Option(help="One of its levels; all if left out.")] = None,
    count: Annotated[int, typer.Option(min=32, help="Samples that each law is held to.")] = 256,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Hold a task to the laws that every task obeys, level by level; exit code 1 if it breaks one.

    Example: ditbench check-task my_task.py
    """
    from bench.config.load import pairs
    from bench.data.tasks import laws, registry
    from bench.data.tasks.contract import LEVELS

    _load(plugin)
    names = [task] if not task.endswith(".py") else registry.load_plugin(Path(task))
    if not names:
        raise registry.TaskError(f"{task} registers no task: put @register('NAME') above its class")
    chosen, found = pairs(knobs or []), {}
    for name in names:
        for step in [level] if level else LEVELS:
            with progress_bars(as_json) as progress:
                verdicts: list[Verdict] = []
                for verdict in laws.check_named(name, step, chosen, count):
                    verdicts.append(verdict)
                    progress(f"check {name} ({step})", len(verdicts), len(laws.LAWS))
            found[f"{name} ({_setting(step, chosen)})"] = verdicts
            if not as_json:
                console().print(_check_grid(f"{name} ({step}) against the laws", verdicts))
    if as_json:
        print(json.dumps({key: [asdict(one) for one in verdicts] for key, verdicts in found.items()}, indent=2))
    broken = [(key, one) for key, verdicts in found.items() for one in verdicts if not one.holds]
    for key, one in broken:
        warn(f"{key} breaks the law {one.law!r}: {one.summary} Observed: {one.observed}")
    if not as_json and not broken:
        say(f"{len(laws.LAWS)} of {len(laws.LAWS)} laws hold at every level that was tried")
    sys.exit(bool(broken))


def _check_grid(title: str, verdicts: list[Verdict]) -> Grid:
    rows = ((one.law, "holds" if one.holds else "broken", one.summary, one.observed) for one in verdicts)
    return law_grid(title, rows)


# --- new-task -------------------------------------------------------------------------------------------------------


def new_task(
    name: Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and '-'.")],
    package: Annotated[
        Path | None, typer.Option("--package", help="Write an installable package into this folder.")
    ] = None,
) -> None:
    """Write a new task that works, with its test: a file here, or a package.

    Example: ditbench new-task my-task
    """
    from bench.cli import scaffold

    files = scaffold.new_task(name, package or Path(), package=package is not None)
    subject = name if package is not None else f"{name.replace('-', '_')}.py"
    wrote(files, f"ditbench check-task {subject}", package)
