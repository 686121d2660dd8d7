"""What can be computed again, kept with its digest: verified when read, computed again when damaged."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.store.files import digest, write_atomic, write_json

Warn = Callable[[str], None]


def save_array(path: Path, array: NDArray[Any], **about: Any) -> None:
    """Writes `path`, a `.npy` file, and beside it as `.json` its SHA-256 with `about`; each whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    content = buffer.getvalue()
    write_atomic(path, content)
    write_json(path.with_suffix(".json"), about | {"sha256": hashlib.sha256(content).hexdigest()})


def load_array(path: Path, warn: Warn = lambda text: None) -> tuple[NDArray[Any], dict[str, Any]] | None:
    """The array and what was written about it; None if it is not there, or damaged, of which `warn` gets a sentence."""
    if not path.exists() and not path.with_suffix(".json").exists():
        return None
    try:
        about = json.loads(path.with_suffix(".json").read_text())
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == about["sha256"]:
            return np.load(io.BytesIO(content), allow_pickle=False), about
    except (ValueError, KeyError, TypeError, OSError, EOFError):
        pass
    warn(f"{path} is damaged or incomplete; it is computed again")
    return None


def save_value(path: Path, value: Any) -> None:
    """Writes plain values as JSON, with their digest."""
    write_json(path, {"value": value, "digest": digest(value)})


def load_value(path: Path, warn: Warn = lambda text: None) -> Any:
    """The values; None if they are not there, or damaged, of which `warn` gets a sentence."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        if digest(content["value"]) == content["digest"]:
            return content["value"]
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        pass
    warn(f"{path} is damaged; it is computed again")
    return None
