"""`ditbench data`: what is understood of a matrix's data and prompts, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import (
    RUNS,
    Json,
    Overrides,
    Plugins,
    Root,
    console,
    load_plugins,
    near,
    open_store,
    progress_bars,
    warn,
)

if TYPE_CHECKING:
    from bench.config.schema import Data, Matrix, Prompt
    from bench.data.datasets import Dataset


def data(
    matrix: Annotated[Path, typer.Argument(help="A matrix file, such as configs/quickstart.yaml.")],
    overrides: Overrides = None,
    root: Root = RUNS,
    sheet: Annotated[Path | None, typer.Option(help="The PNG of images; in the results directory if left out.")] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Show what is understood of a matrix's data, and write a sheet of images with their prompts; nothing is trained.

    Example: ditbench data configs/cifar10.yaml data.path=FOLDER --sheet sheet.png
    """
    from bench.config import load as config
    from bench.data import datasets, prompts
    from bench.views.understood import lines, understood

    store, loaded = open_store(root), config.load(matrix, overrides)
    load_plugins([*map(Path, loaded.plugins), *(plugin or [])])
    wanted = _wanted(loaded)
    shown = []
    for index, (own, how) in enumerate(wanted):
        with progress_bars(as_json) as progress:
            found = datasets.load(datasets.prepare(own, store.cache, progress, warn))
            encoded = prompts.prepare(found, how, store.cache, progress, warn)
        default = store.cache / "sheets" / f"{found.digest}.png"
        path = default if sheet is None else sheet.with_stem(f"{sheet.stem}-{index + 1}" if index else sheet.stem)
        _write_sheet(found, path, own.seed)
        shown.append(understood(found, encoded) | {"sheet": near(path)})
    if as_json:
        print(json.dumps(shown, indent=2))
        return
    out = console()
    for one in shown:
        for line in (*lines(one), f"sheet: {one['sheet']} (its prompts in {Path(one['sheet']).with_suffix('.txt')})"):
            out.print(line, soft_wrap=True)


def _wanted(matrix: Matrix) -> list[tuple[Data, Prompt]]:
    """The kinds of data and prompts of a matrix: one, unless an axis varies them."""
    from bench.config.matrix import expand

    if not matrix.variants:
        return [(matrix.data, matrix.prompt)]
    return list(dict.fromkeys((cell.config.data, cell.config.prompt) for cell in expand(matrix)))


def _write_sheet(found: Dataset, path: Path, seed: int) -> None:
    """The sheet as PNG, and its prompts whole as text: a font knows some scripts only."""
    from io import BytesIO

    from bench.store.files import write_atomic
    from bench.views.understood import printable, sheet, tiles

    rows = tiles(found, seed=seed)
    buffer = BytesIO()
    sheet(rows).save(buffer, "PNG", optimize=True)
    write_atomic(path, buffer.getvalue())
    texts = [
        line
        for heading, own in rows
        for line in (heading, *(f"  {k + 1}: {printable(text)}" for k, (_, text) in enumerate(own)))
    ]
    write_atomic(path.with_suffix(".txt"), "\n".join(texts) + "\n")
