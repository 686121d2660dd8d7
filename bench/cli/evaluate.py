"""`ditbench evaluate`: the papers' numbers of images on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import RUNS, Json, Root, near, open_store, progress_bars, say, warn

if TYPE_CHECKING:
    from bench.measure.protocol import Evaluated


def evaluate(
    images: Annotated[
        Path,
        typer.Argument(help="A folder of images (or of .npy arrays), or a .npz file with arr_0, as ADM writes it."),
    ],
    reference: Annotated[
        Path | None, typer.Option(help="Real images likewise, or a .npz file of statistics (mu, sigma; ADM's, EDM's).")
    ] = None,
    extractor: Annotated[str, typer.Option(help="inception, efficientnet-lite0, dinov2 or clip.")] = "inception",
    device: Annotated[str, typer.Option(help="Where features are computed: auto, cpu or cuda.")] = "auto",
    statistics: Annotated[
        Path | None, typer.Option(help="Write the images' own statistics here, as a reference for later.")
    ] = None,
    root: Root = RUNS,
    as_json: Json = False,
) -> None:
    """Measure images on disk by the protocol of the papers: FID, sFID, Inception score, KID, precision, recall.

    Features are kept under the results directory, so that an interrupted run resumes.

    Example: ditbench evaluate samples/ --reference VIRTUAL_imagenet256_labeled.npz
    """
    if (reference is None) == (statistics is None):
        raise ValueError("give one: --reference FILE|FOLDER to compare with, or --statistics FILE to write")
    from bench.measure import metrics, protocol

    chosen = device_of(device)
    with progress_bars(as_json) as progress:
        how = protocol.Features(metrics.resolve(extractor, warn=warn), open_store(root).cache, chosen, progress, warn)
        if statistics is not None:
            about = protocol.write_reference(images, statistics, how).about
            say(json.dumps(about, indent=2) if as_json else f"wrote  {near(statistics)}, of {about['images']:,} images")
            return
        assert reference is not None
        found = protocol.evaluate(images, reference, how)
    _show(found, as_json)


def device_of(name: str) -> str:
    """`cpu` or `cuda` of what was written.

    Raises:
        ValueError: for another word, or a GPU that is not here.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device {name!r}: auto, cpu or cuda")
    here = torch.cuda.is_available()
    if name == "cuda" and not here:
        raise ValueError("--device cuda: torch finds no GPU here; --device cpu computes the same features, slower")
    return "cuda" if here and name != "cpu" else "cpu"


def _show(found: Evaluated, as_json: bool) -> None:
    from bench.store.metrics import measurements

    if as_json:
        print(json.dumps({"values": found.values, "about": found.about, "notes": found.notes}, indent=2))
        return
    own = measurements(found.values)
    width = max(len(one.heading) for one in own)
    for one in own:
        say(f"{one.heading:<{width}}  {found.values[one.key]:.6g}")
    about, real = found.about, found.about["reference"]
    kinds = [name for name in ("statistics", "images") if name in real]
    say(f"extractor {about['extractor']}, weights and transform {about['extractor_digest']}, float32 without TF32")
    say(
        f"{about['samples']:,} samples of {about['pixels'][1]} x {about['pixels'][0]} pixels against {real['name']}"
        f" ({', '.join(f'{name} {real[name]}' for name in kinds)})"
    )
    for note in found.notes:
        say(f"note: {note}")
