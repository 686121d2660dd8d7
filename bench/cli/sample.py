"""Commands that generate images: `sample` from trained cells, `sample-published` from released weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from bench.cli.common import (
    RUNS,
    Plugins,
    Root,
    chosen_cell,
    chosen_matrix,
    complete_matrix,
    load_plugins,
    open_store,
    progress_bars,
    say,
    warn,
)

if TYPE_CHECKING:
    from bench.store.folders import CellFolder, Store

Out = Annotated[Path, typer.Option("--out", "-o", help="The PNG to write.")]
Count = Annotated[int, typer.Option(min=1, max=1000, help="Images of each prompt.")]
Seed = Annotated[int, typer.Option(help="Of the noise.")]


class SampleCommand(TyperCommand):
    """`sample`, which names the new command to who still types `sample --published`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses arguments.

        Raises:
            ValueError: for `--published`.
        """
        if any(word.split("=")[0] == "--published" for word in args):
            raise ValueError(
                "sample --published is a command of its own: ditbench sample-published dit 207 360 --weights FILE"
            )
        return super().parse_args(ctx, args)


def sample(
    cell: Annotated[
        str,
        typer.Argument(
            help="A cell: its folder, its id, or MATRIX/ROW; with --all a matrix.", autocompletion=complete_matrix
        ),
    ],
    prompts: Annotated[
        list[str],
        typer.Argument(help="Captions, class names or numbers, or of a task words: 'tone=ice, place=1, ...'."),
    ],
    root: Root = RUNS,
    out: Out = Path("sample.png"),
    everything: Annotated[bool, typer.Option("--all", help="Every variant of a matrix, a row each.")] = False,
    count: Count = 4,
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the sampler; the cell's own if left out.")] = None,
    guidance: Annotated[float | None, typer.Option(help="The cell's own if left out.")] = None,
    plugin: Plugins = None,
) -> None:
    """Generate images from a trained cell, or with --all from every variant of a matrix, with the same noise.

    Example: ditbench sample quickstart "label=42" --all
    """
    from bench.store.files import write_atomic
    from bench.views.sample.cells import SampleSettings, sample_prompts, sample_variants

    load_plugins(plugin)
    store = open_store(root)
    if everything and len(prompts) > 1:
        raise ValueError("--all takes one prompt, a row a variant; give one")
    with progress_bars() as progress:
        settings = SampleSettings(count, seed, steps, guidance, progress, warn)
        if everything:
            image = sample_variants(_first_seeds(store, chosen_matrix(store, cell)), prompts[0], settings)
        else:
            image = sample_prompts(chosen_cell(store, cell), prompts, settings)
    write_atomic(out, image)
    say(out)


def _first_seeds(store: Store, matrix: str) -> dict[str, CellFolder]:
    """The first cell of each row of a matrix's table."""
    cells: dict[str, CellFolder] = {}
    for row in store.rows(matrix):
        cells.setdefault(row.name, store.cell(row.cell))
    return cells


def sample_published(
    system: Annotated[str, typer.Argument(help="A published system, such as dit.")],
    labels: Annotated[list[str] | None, typer.Argument(help="Class numbers, where it is conditioned on them.")] = None,
    weights: Annotated[Path, typer.Option(help="Its weights: a safetensors file, a folder, or an index.")] = ...,  # type: ignore[assignment]
    features: Annotated[Path | None, typer.Option(help="Its encoded prompts, a safetensors file.")] = None,
    vae: Annotated[Path | None, typer.Option(help="A local AutoencoderKL; without it, latents are saved.")] = None,
    out: Out = Path("sample.png"),
    latent: Annotated[int, typer.Option(min=1, help="Latents a side.")] = 32,
    size: Annotated[list[str] | None, typer.Option("--size", help="A size of the system as key=value.")] = None,
    count: Count = 4,
    seed: Seed = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Of the sampler; 50 if left out.")] = None,
    guidance: Annotated[float | None, typer.Option(help="The system's own if left out.")] = None,
    ema: Annotated[bool, typer.Option("--ema", help="Take averaged weights, where the file holds both.")] = False,
) -> None:
    """Generate images with a published system's weights (safetensors).

    Example: ditbench sample-published dit 207 360 --weights DiT-XL-2-256.safetensors
    """
    from bench.config.load import pairs
    from bench.views.sample.cells import SampleSettings
    from bench.views.sample.published import PublishedRequest
    from bench.views.sample.published import sample_published as generate

    request = PublishedRequest(labels or [], features, (latent, latent), vae, ema)
    settings = SampleSettings(count, seed, steps, guidance, warn=warn)
    say(generate(system, weights, pairs(size or []), request, settings, out))
