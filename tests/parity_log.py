"""The largest differences from diffusers that the parity tests saw, written with where they come from.

python -m pytest tests/test_published.py --parity results/parity.json
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.store import provenance

SYSTEMS = (  # as the tests' names begin
    "dit", "pixart", "sd3", "flux", "flux2", "chroma", "qwen_image", "lumina2", "z_image",
)  # fmt: skip
_measured: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"outputs": [], "gradients": []})


def note(kind: str, ours: Tensor, theirs: Tensor) -> None:
    """Keeps max |ours - theirs| over max(1, max |theirs|) for the test that is running."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].removeprefix("test_")
    system = next((name for name in SYSTEMS if test.startswith(f"{name}_is_theirs")), None)
    if system is not None:
        scale = max(1.0, float(theirs.abs().max()))
        _measured[system.replace("_", "-")][kind].append(float((ours - theirs).abs().max()) / scale)


def write(file: Path, command: str) -> None:
    """Writes the largest differences by system, with commit, command, hardware and versions."""
    about = provenance.about("cpu")
    content: dict[str, Any] = {
        "what": "max |ours - diffusers| / max(1, max |diffusers|) in float32, of outputs and of all gradients",
        "command": command,
        **about,
        "versions": about["versions"] | {"diffusers": version("diffusers")},
        "systems": {name: {kind: max(values) for kind, values in kinds.items()} for name, kinds in _measured.items()},
    }
    file.write_text(json.dumps(content, indent=1) + "\n")
