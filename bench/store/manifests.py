"""A matrix's manifest: what was planned under its name. Verified when read, since every view believes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.store.files import digest, slug, write_json
from bench.store.result import is_number, read_json


class DamagedManifest(ValueError):
    """A manifest that does not parse, is not what was written, or lacks what a matrix consists of."""


ROW: dict[str, Any] = {"cell": str, "variant": str, "scheme": str, "seed": int, "options": dict, "axes": dict}
ROW |= {"backbone": str, "data": str}
MANIFEST: dict[str, Any] = {"config": dict, "command": str, "cells": list}
CONFIG: dict[str, Any] = {"backbone": dict, "data": dict, "train": dict, "sample": dict}
GROUPS: dict[str, dict[str, Any]] = {  # what views read of the config, and its types
    "backbone": {"name": str},
    "data": {"image_size": int},
    "train": {"steps": int, "batch": int, "lr": float, "ema": float},
    "sample": {"sampler": str, "steps": int, "guidance": float},
}
OPTIONAL: dict[str, Any] = {"baseline": str, "choose": str, "claim": dict, "axes": dict}
WAY_OUT = "run the matrix file again (`ditbench run FILE`) to plan it again; its cells stay"


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes a manifest with a checksum over it."""
    plain = json.loads(json.dumps(content))  # keys are text on disk, and sorted as such
    write_json(path, plain | {"checksum": digest(plain)})


def read(path: Path) -> dict[str, Any]:
    """What was planned.

    Raises:
        FileNotFoundError: if there is none.
        DamagedManifest: if it cannot be believed, with the way out.
    """
    try:
        content = read_json(path, DamagedManifest)
        checksum = content.pop("checksum", None)  # of older versions there is none
        if checksum is not None and checksum != digest(content):
            raise DamagedManifest(f"{path}: damaged or changed, it does not match its own checksum")
        check(content)
    except (ValueError, RecursionError) as error:
        text = str(error) if isinstance(error, DamagedManifest) else f"{path}: damaged ({error})"
        raise DamagedManifest(f"{text}; {WAY_OUT}") from error
    return content


def check(content: dict[str, Any]) -> None:
    """Refuses a manifest that lacks what views read of it.

    Raises:
        ValueError: naming the key.
    """
    _check_keys(content, MANIFEST, "its")
    config = content["config"]
    _check_keys(config, CONFIG, "its config's")
    for group, keys in GROUPS.items():
        _check_keys(config[group], keys, f"its config's {group}.")
    _check_keys(config, {key: kind for key, kind in OPTIONAL.items() if config.get(key) is not None}, "its config's")
    _check_keys(config.get("axes") or {}, dict.fromkeys(config.get("axes") or {}, list), "its axis")
    if not content["cells"]:
        raise ValueError("it lists no cell")
    for k, row in enumerate(content["cells"]):
        if not isinstance(row, dict) or set(row) != set(ROW):
            raise ValueError(f"cell {k} is not what a matrix lists")
        _check_keys(row, ROW, f"of cell {k} the")
        slug(row["cell"], "cell")


def _check_keys(content: dict[str, Any], kinds: dict[str, Any], where: str) -> None:
    for key, kind in kinds.items():
        value = content.get(key)
        right = is_number(value) if kind is float else isinstance(value, kind) and not isinstance(value, bool)
        if not right:
            raise ValueError(f"{where} {key} is {value!r:.40}")
