"""From a matrix to its cells: which there are, what defines each, and what each is called."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from architectures import nearest
from bench.config.check import checked
from bench.config.schema import ConfigError, Matrix, as_dict
from bench.config.spec import GROUPS, CellConfig
from bench.config.tuned import entry
from bench.store.files import slug
from bench.store.folders import Row
from bench.store.inert import one_line


@dataclass(frozen=True)
class Variant:
    """A row of the table: a scheme with options, under a name."""

    name: str
    scheme: str
    options: dict[str, Any]
    keys: dict[str, Any] = field(default_factory=dict)  # dotted, of a cell


@dataclass(frozen=True)
class MatrixCell:
    """One training run, before it has an id: what the matrix calls it, and all that defines it."""

    variant: str
    axes: dict[str, Any]
    config: CellConfig

    @property
    def label(self) -> str:
        """What distinguishes this cell from the others of its matrix."""
        return f"{_name(self.variant, self.axes)} seed={self.config.seed}"


def _name(variant: str, axes: dict[str, Any]) -> str:
    return " ".join([variant, *(f"{key.rpartition('.')[2]}={value}" for key, value in axes.items())])


def variants(matrix: Matrix) -> list[Variant]:
    """The matrix's variants.

    Raises:
        ConfigError: if there are none, two have the same name, or an entry is neither a scheme's name nor a mapping
            with `scheme` (and, as wished, `name` and options).
    """
    if not matrix.variants:
        raise ConfigError(f"matrix {matrix.name!r} has no variants; name schemes under `variants:`")
    known = [_variant(entry) for entry in matrix.variants]
    names: set[str] = set()
    for variant in known:
        if variant.name in names:
            raise ConfigError(
                f"variant {variant.name!r} is there twice in matrix {matrix.name!r}; give one another `name`"
            )
        names.add(variant.name)
    return known


def _variant(entry: Any) -> Variant:
    if isinstance(entry, str):
        entry = {"scheme": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("scheme"), str):
        raise ConfigError(
            f"variant {entry!r}: write a scheme's name, or a mapping with `scheme`, `name` and its options"
        )
    name = entry.get("name", entry["scheme"])
    if isinstance(name, bool) or not isinstance(name, str | int | float):
        raise ConfigError(f"variant {entry!r}: name must be text, got {name!r}; write it in quotes")
    rest = {str(key): value for key, value in entry.items() if key not in ("name", "scheme")}
    keys = {key: value for key, value in rest.items() if "." in key}
    options = {key: value for key, value in rest.items() if key not in keys}
    try:
        return Variant(slug(str(name), "variant"), entry["scheme"], options, keys)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def expand(matrix: Matrix) -> list[MatrixCell]:
    """All cells, seed by seed, so that a drift of the machine is spread over the variants.

    Raises:
        ConfigError: for an empty matrix, doubled names or seeds, or an axis that no cell has.
    """
    if not matrix.seeds:
        raise ConfigError(f"matrix {matrix.name!r} has no seeds")
    if len(set(matrix.seeds)) < len(matrix.seeds):
        raise ConfigError(f"matrix {matrix.name!r} names a seed twice: {matrix.seeds}")
    return [_cell(matrix, variant, point, seed) for seed in matrix.seeds for variant, point in _points(matrix)]


def _points(matrix: Matrix) -> list[tuple[Variant, dict[str, Any]]]:
    """Each variant at each point of the axes, in the order of the table."""
    rows, axes = variants(matrix), typed_axes(matrix)
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return [(variant, point) for point, variant in itertools.product(points, rows)]


def row_names(matrix: Matrix) -> list[str]:
    """The rows of the matrix's table.

    Raises:
        ConfigError: for variants or axes that are none.
    """
    return [one_line(_name(variant.name, point)) for variant, point in _points(matrix)]


def baselines(matrix: Matrix, rows: Iterable[str]) -> set[str]:
    """What a baseline may name: one of the rows of the table, or a variant, which is compared with at each point."""
    return {*rows, *(variant.name for variant in variants(matrix))}


def conditionings(matrix: Matrix) -> Iterator[tuple[Variant, dict[str, Any]]]:
    """Each variant with the options that it has at some point of the axes, as they are written.

    Raises:
        ConfigError: for variants or axes that are none.
    """
    for variant, point in _points(matrix):
        yield variant, options_at(variant, point)


def options_at(variant: Variant, point: dict[str, Any]) -> dict[str, Any]:
    """The options that a variant has at a point of the axes, as they are written, dotted or not."""
    given = variant.keys | point
    own = {key.removeprefix("options."): value for key, value in given.items() if key.startswith("options.")}
    return variant.options | own


def _cell(matrix: Matrix, variant: Variant, axes: dict[str, Any], seed: int) -> MatrixCell:
    groups = {group: getattr(matrix, group) for group in GROUPS}
    config = CellConfig(variant.scheme, dict(variant.options), **groups, seed=seed)
    keys = {key: typed_key(matrix, key, value, f"variant {variant.name!r}") for key, value in variant.keys.items()}
    own = {*keys, *(f"options.{name}" for name in variant.options)}
    if twice := sorted(own & axes.keys()):
        raise ConfigError(f"variant {variant.name!r}: {twice[0]} is an axis of this matrix, so no variant can set it")
    row = _name(variant.name, axes)
    tuned = {
        key: typed_key(matrix, key, value, f"tuned {variant.name!r}")
        for key, value in entry(matrix.tuned, row, variant.name, variant.scheme, own=keys.keys() | axes.keys()).items()
    }
    return MatrixCell(variant.name, axes, config.changed(tuned | keys | axes))


def typed_key(matrix: Matrix, key: str, value: Any, where: str) -> Any:
    """A value of a dotted key of a cell, as the key itself would take it.

    Raises:
        ConfigError: for a key that no cell has, with the nearest, or a value that it does not take.
    """
    known = [f"{group}.{one.name}" for group, kind in GROUPS.items() for one in fields(kind)]
    if key.startswith(("data.knobs.", "options.")):
        return value
    if key not in known:
        raise ConfigError(f"{where}: unknown key {key!r}{nearest(key, known)}")
    group, _, name = key.partition(".")
    plain = as_dict(getattr(matrix, group)) | {name: value}
    return getattr(checked(GROUPS[group], plain, lambda place: where, group=group), name)


def typed_axes(matrix: Matrix) -> dict[str, list[Any]]:
    """The axes with their values as the keys themselves would take them."""
    return {key: _typed_axis(matrix, key, values) for key, values in matrix.axes.items()}


def _typed_axis(matrix: Matrix, key: str, values: list[Any]) -> list[Any]:
    where = f"axis {key!r} of matrix {matrix.name!r}"
    known = [f"{group}.{one.name}" for group, kind in GROUPS.items() for one in fields(kind)]
    if key not in known and not key.startswith(("options.", "data.knobs.")):
        raise ConfigError(f"unknown {where}{nearest(key, [*known, 'options.<an option of the schemes>'])}")
    if not values:
        raise ConfigError(f"{where} has no values")
    group, _, name = key.partition(".")
    if group == "options" or name.startswith("knobs."):
        return values  # a scheme declares the types of its options, a task those of its knobs
    rest = as_dict(getattr(matrix, group))
    given = [rest | {name: value} for value in values]
    typed = [getattr(checked(GROUPS[group], one, lambda place: where, group=group), name) for one in given]
    refuse_doubles(values, typed, where)
    return typed


def refuse_doubles(written: Sequence[Any], typed: Sequence[Any], where: str) -> None:
    """Refuses two values of an axis that are one once they are typed, such as 1 and 1.0, or `on` and true.

    Raises:
        ConfigError: naming both as they were written.
    """
    for k, value in enumerate(typed):
        first = typed.index(value)
        if first < k and type(typed[first]) is type(value):
            raise ConfigError(f"{where}: {written[first]!r} and {written[k]!r} are the same value, {value!r}")


def row(cell: MatrixCell, id: str) -> Row:
    """How the matrix's manifest names a cell."""
    config = cell.config
    data = config.data.source if config.data.path is None else Path(config.data.path).name
    return Row(
        cell=id,
        variant=cell.variant,
        scheme=config.scheme,
        seed=config.seed,
        options=config.options,
        axes=cell.axes,
        backbone=config.backbone.name,
        data=config.data.task or ("scenes" if config.data.source == "scenes" else data),
    )
