"""The largest differences from diffusers that the parity tests saw, written with where they come from.

python -m pytest tests/test_published*.py -k theirs --parity results/parity.json
"""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.store import provenance

_measured: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"outputs": [], "gradients": []})


def note(system: str, kind: str, ours: Tensor, theirs: Tensor) -> None:
    """Keeps max |ours - theirs| over max(1, max |theirs|), of a published system's `outputs` or `gradients`."""
    scale = max(1.0, float(theirs.detach().abs().max()))
    _measured[system][kind].append(float((ours - theirs).detach().abs().max()) / scale)


def write(file: Path, command: str) -> None:
    """Writes the largest differences by system, with commit, command, hardware and versions."""
    about = provenance.about("cpu")
    content: dict[str, Any] = {
        "what": "max |ours - diffusers| / max(1, max |diffusers|) in float32, of outputs and of all gradients",
        "command": command,
        **about,
        "versions": about["versions"] | {"diffusers": version("diffusers")},
        "systems": {k: {kind: max(values) for kind, values in kinds.items()} for k, kinds in sorted(_measured.items())},
    }
    file.write_text(json.dumps(content, indent=1) + "\n")
