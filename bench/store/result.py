"""What one cell measured: its quality, its cost and where the numbers came from. Needs no torch."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.store.files import digest, write_json

SCHEMA = 1


class DamagedResult(ValueError):
    """A result file that does not parse, belongs to another cell, or does not match its own checksum."""


@dataclass(frozen=True)
class Result:
    """A finished cell.

    Attributes:
        cell: the cell's id, the hash of what defines it.
        quality: metric name -> value; the name holds extractor and sample count (`fid_efficientnet_lite0_400`).
        cost: `train_images_per_second`, `sample_images_per_second`, `train_peak_*_bytes`, `parameters_*`,
            `macs_forward`, `flops_train_per_image`, `mfu`, `train_seconds`, ...
        config: the cell's resolved config, as plain values.
        provenance: commit, command, hardware, versions, seeds, digests of data, code and weights, attempts.
        artifacts: name -> {path relative to the cell's folder, sha256, bytes}.
        dynamics: how it learned: spikes of the loss, the order in which blocks open, ...
        sampling: metric -> [low, high], a 95 % interval for the finite number of samples it is computed from.
        probes: what figures show beside numbers: where a swapped word lands, gates over depth and step.
    """

    cell: str
    quality: dict[str, float]
    cost: dict[str, float]
    config: dict[str, Any]
    provenance: dict[str, Any]
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    schema: int = SCHEMA
    dynamics: dict[str, float] = field(default_factory=dict)
    sampling: dict[str, list[float]] = field(default_factory=dict)
    probes: dict[str, Any] = field(default_factory=dict)

    @property
    def sample_ci(self) -> dict[str, list[float]]:
        """`sampling` by its better name; the files keep theirs."""
        return self.sampling

    def write(self, path: Path) -> None:
        """Writes the result with a checksum over its content, atomically.

        Raises:
            ValueError: if a number is not finite; such a cell is `diverged`, not `done`.
        """
        for name, value in {**self.quality, **self.cost, **self.dynamics}.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}")
        content = asdict(self)
        write_json(path, content | {"checksum": digest(content)})

    @classmethod
    def read(cls, path: Path, cell: str | None = None) -> Result:
        """Reads a result, and believes it only if it matches its checksum (and `cell`, when given).

        Raises:
            FileNotFoundError: if there is none.
            DamagedResult: if it cannot be believed.
        """
        try:
            content = json.loads(path.read_text())
            checksum = content.pop("checksum")
            result = cls(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedResult(f"{path}: not a result ({error})") from error
        if checksum != digest(content):
            raise DamagedResult(f"{path}: does not match its own checksum")
        if result.schema != SCHEMA:
            raise DamagedResult(f"{path}: schema {result.schema}, this ditbench reads {SCHEMA}")
        if cell is not None and result.cell != cell:
            raise DamagedResult(f"{path}: result of cell {result.cell}, expected {cell}")
        return result
