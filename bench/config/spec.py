"""The config of one cell, and what its folder holds before it is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from bench.config.schema import Backbone, Data, Evaluate, Prompt, Sample, Train, as_dict
from bench.store.files import digest, write_json
from bench.store.folders import CellFolder


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
            outer, _, inner = name.partition(".")
            if inner:  # data.knobs.labels
                name, value = outer, getattr(old, outer) | {inner: value}
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


@dataclass(frozen=True)
class CellSpec:
    """What a cell's folder holds before it is run (`config.json`, `order.json`).

    Attributes:
        config: all that defines the numbers.
        digests: of data, prompts, code, plugin; the folders of data and prompts in the cache are named by theirs.
        plugins: files that register schemes.
        workers: data-loading processes.
        command: what was typed to plan this cell.
        devices: that it runs on, each with a process of its own.
        images: where those of training are, `host` or `device`.
        sharded: whether each of several devices has a part of the model (fsdp).
    """

    config: CellConfig
    digests: dict[str, str]
    plugins: list[str]
    workers: int
    command: str
    devices: int = 1
    images: str = "host"
    sharded: bool = False

    def write(self, folder: CellFolder) -> None:
        """Writes `config.json` and `order.json` into the cell's folder, unless they say the same already.

        `read` verifies them and planning again writes them again, so that no cut of power is waited for: of 2,000 cells
        that took most of the time to plan them.
        """
        with suppress(ValueError):
            if CellSpec.read(folder) == self:
                return
        order = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "config"}
        write_spec(folder, as_dict(self.config), order)

    @classmethod
    def read(cls, folder: CellFolder) -> CellSpec:
        """What was planned for a cell.

        Raises:
            ValueError: if the folder holds no plan, or one that was changed since: it would not give the folder's id.
        """
        try:
            plain = json.loads(folder.config.read_text())
            more = json.loads((folder.path / "order.json").read_text())
            planned = more.pop("sha256", None)
            spec = cls(config=CellConfig.from_dict(plain), **more)
            id, digests = cell_id(plain, spec.digests), digest(spec.digests)
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ValueError(f"{folder.path.name} is no planned cell ({error}); plan it with `ditbench run`") from error
        if id != folder.id:
            raise ValueError(
                f"{folder.config} was changed after it was planned: it is the config of {id}, not of {folder.id}; "
                "run the matrix again to write it again"
            )
        if planned not in (None, digests):
            raise ValueError(
                f"{folder.path / 'order.json'} was changed after it was planned: its digests are not those of the "
                "plan; run the matrix again to write it again"
            )
        return spec


def write_spec(folder: CellFolder, config: Mapping[str, Any], order: Mapping[str, Any]) -> None:
    """Writes `config.json` and `order.json`, as plain values: the config may be one of another version.

    Raises:
        DiskError: if they cannot be written.
    """
    write_json(folder.config, dict(config), durable=False)
    write_json(folder.path / "order.json", {**order, "sha256": digest(order["digests"])}, durable=False)


def subject(config: CellConfig) -> str:
    """Whose code a cell runs: its scheme, and its task where it has one."""
    return f"scheme {config.scheme!r}" + (f", task {config.data.task!r}," if config.data.task else "")


PLACEMENT = {"data": ("path",)}  # keys that say where, not what


def cell_id(config: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """The id of a cell: its scheme's name and the hash of what defines it.

    Args:
        config: plain values, as `config.json` has them.
        digests: of data, code, plugin.
    """
    defining = {key: dict(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    for group, keys in PLACEMENT.items():
        for key in keys:
            defining[group].pop(key, None)
    parts = [defining, *(digests[name] for name in ("data", "code", "plugin"))]
    return f"{config['scheme']}-{digest(parts, 12)}"
