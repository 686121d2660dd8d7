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
        provenance: commit, command, launch, hardware, versions, seeds, digests of data, code and weights, attempts.
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
        content = read_json(path, DamagedResult)
        checksum = content.pop("checksum", None)
        try:
            result = cls(**content)
            matches = checksum == digest(content)
        except (TypeError, ValueError, RecursionError) as error:  # keys of another version, numbers that are none
            raise DamagedResult(f"{path}: not a result ({error})") from error
        if not matches:
            raise DamagedResult(f"{path}: does not match its own checksum")
        if wrong := result.misshapen():
            raise DamagedResult(f"{path}: not a result ({wrong})")
        if result.schema != SCHEMA:
            raise DamagedResult(f"{path}: schema {result.schema}, this ditbench reads {SCHEMA}")
        if cell is not None and result.cell != cell:
            raise DamagedResult(f"{path}: result of cell {result.cell}, expected {cell}")
        return result

    def misshapen(self) -> str:
        """What is not of the type that it should be, in words; empty if all is.

        The annotations are not enforced when a file or a record is read, and its checksum may be right all the same.
        """
        for name in ("quality", "cost", "dynamics", "sampling", "config", "provenance", "artifacts", "probes"):
            if not isinstance(getattr(self, name), dict):
                return f"{name} is no mapping"
        for name in ("quality", "cost", "dynamics"):
            for key, value in getattr(self, name).items():
                if not is_number(value):
                    return f"{name} {key} is {value!r:.60}, no number"
        for key, ends in self.sampling.items():
            if not (isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends))):
                return f"sampling {key} is {ends!r:.60}, no interval"
        if not isinstance(self.cell, str) or type(self.schema) is not int:
            return "cell or schema"
        return _misshapen_provenance(self.provenance)


PROVENANCE = {"digests": dict, "seeds": dict, "measured": dict, "hardware": dict, "versions": dict, "scheme": dict}


def _misshapen_provenance(provenance: dict[str, Any]) -> str:
    """What of a provenance views could not read."""
    for key, kind in PROVENANCE.items():
        if not isinstance(provenance.get(key, {}), kind):
            return f"provenance {key} is no mapping"
    for key in ("started", "ended", "attempts"):
        if not is_number(provenance.get(key, 0)):
            return f"provenance {key} is no number"
    for name, hashed in provenance.get("digests", {}).items():
        if not isinstance(hashed, str):
            return f"provenance digest of {name} is no text"
    return ""


def is_number(value: Any) -> bool:
    """Whether it is a finite number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def read_json(path: Path, error: type[ValueError]) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        FileNotFoundError: if there is no file.
        error: of the given type, if it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise
    except OSError as refusal:
        raise error(f"{path}: cannot be read ({refusal.strerror or refusal})") from refusal
    except (ValueError, RecursionError) as cause:
        what = "nested too deeply" if isinstance(cause, RecursionError) else cause
        raise error(f"{path}: damaged, not JSON ({what})") from cause
    if not isinstance(content, dict):
        raise error(f"{path}: damaged, it holds no object but {str(content)[:40]!r}")
    return content
