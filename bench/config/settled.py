"""What the command line takes the place of: tuned values, and a claim or a baseline whose rows are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from bench.config.claim import RIVALS, off_the_ladder
from bench.config.matrix import baselines, row_names
from bench.config.schema import ConfigError, Matrix
from bench.config.tuned import keys_of

Layer = tuple[str, dict[str, Any]]  # where something is written, and what
Note = Callable[[str], None]


def holds(node: Any, place: Sequence[str | int]) -> bool:
    """Whether a layer has a value at a place, such as ("train", "lr")."""
    for part in place:
        if isinstance(node, dict):
            if part not in node:
                return False
            node = node[part]
    return bool(place)


def without_written(plain: Any, layers: Sequence[Layer], note: Note) -> Any:
    """The plain matrix, its `tuned` without the keys that a higher layer writes: those hold for every variant.

    Args:
        plain: the layers as one.
        layers: the lowest first.
        note: called with a sentence for each key that is written.
    """
    tuned = plain.get("tuned") if isinstance(plain, dict) else None
    if not isinstance(tuned, dict) or not all(isinstance(one, dict) for one in tuned.values()):
        return plain  # none, or what the schema refuses
    named = max(index for index, (_, given) in enumerate(layers) if given.get("tuned") is not None)
    written = {}
    for key in sorted(keys_of(tuned)):
        above = [where for where, given in layers[named + 1 :] if holds(given, key.split("."))]
        if above:
            written[key] = above[-1]
            note(f"{above[-1]} is taken instead of tuned values; a variant's own {key} is over both")
    left = {name: {key: value for key, value in one.items() if key not in written} for name, one in tuned.items()}
    return plain | {"tuned": left if any(left.values()) or not written else None}


def without_absent(matrix: Matrix, files: Sequence[Layer], typed: Sequence[Layer], note: Note) -> Matrix:
    """The matrix without a claim and a baseline of its file whose rows the command line took out.

    A claim is left out as a whole: on the rows that are left it would be another claim. What was typed is never left
    out, and without other variants or axes nothing is: it is wrong, and planning says so.

    Args:
        matrix: of all layers.
        files: the layers of files.
        typed: those of the command line.
        note: called with a sentence for what is left out.
    """
    if not any(key in given for _, given in typed for key in ("variants", "axes")):
        return matrix
    try:
        names = row_names(matrix)
    except ConfigError:
        return matrix  # planning says what is wrong with its variants
    typed_keys = {key for _, given in typed for key in given}
    where = files[-1][0]
    if "claim" not in typed_keys and (gone := _absent(_rows(matrix.claim), names)):
        note(f"the claim of {where} is left out, since {_listed(gone)}")
        matrix = replace(matrix, claim=None)
    named = matrix.baseline
    if "baseline" not in typed_keys and named is not None and named not in baselines(matrix, names):
        note(f"the baseline is {names[0]!r}, the first row, since {_listed([named])}, which {where} names")
        matrix = replace(matrix, baseline=None)
    return matrix


def _rows(claim: dict[str, Any] | None) -> Iterator[str]:
    """The rows that a claim names, as far as it is one."""
    tests = (claim or {}).get("tests")
    for test in tests if isinstance(tests, list) else []:
        if isinstance(test, dict):
            named, several = [test.get(key) for key in ("variant", *RIVALS)], test.get("all_equivalent")
            named += several if isinstance(several, list) else []
            yield from (str(one) for one in named if one is not None)


def _absent(rows: Iterator[str], names: list[str]) -> list[str]:
    there = {*names, *off_the_ladder(names)}
    return [row for row in dict.fromkeys(rows) if row not in there]


def _listed(rows: list[str]) -> str:
    more = f" and {len(rows) - 1} more rows" if len(rows) > 1 else ""
    return f"there is no row {rows[0]!r}{more}"
