"""What a cell's folder holds before it is run."""

from __future__ import annotations

import json
from dataclasses import dataclass

from bench.config.schema import CellConfig, as_dict
from bench.store.files import write_json
from bench.store.folders import CellFolder


@dataclass(frozen=True)
class CellSpec:
    """What a cell's folder holds before it is run (`config.json`, `order.json`).

    Attributes:
        config: all that defines the numbers.
        digests: of data, prompts, code, plugin; the folders of data and prompts in the cache are named by theirs.
        plugins: files that register schemes.
        workers: data-loading processes.
        command: what was typed to plan this cell.
    """

    config: CellConfig
    digests: dict[str, str]
    plugins: list[str]
    workers: int
    command: str

    def write(self, folder: CellFolder) -> None:
        """Writes `config.json` and `order.json` into the cell's folder."""
        write_json(folder.config, as_dict(self.config))
        more = {key: getattr(self, key) for key in ("digests", "plugins", "workers", "command")}
        write_json(folder.path / "order.json", more)

    @classmethod
    def read(cls, folder: CellFolder) -> CellSpec:
        """What was planned for a cell.

        Raises:
            ValueError: if the folder holds no plan.
        """
        try:
            more = json.loads((folder.path / "order.json").read_text())
            return cls(config=CellConfig.from_dict(json.loads(folder.config.read_text())), **more)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder.path.name} is no planned cell ({error}); plan it with `ditbench run`") from error
