"""`ditbench encode`: latents of a matrix's data, made once."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.common import RUNS, Json, Overrides, Progress, Root, near, open_store, progress_bars, say, warn
from bench.cli.evaluate import device_of

if TYPE_CHECKING:
    from bench.config.schema import Data
    from bench.data.images_once import Images
    from bench.store.folders import Store


def encode(
    matrix: Annotated[Path, typer.Argument(help="A matrix file, whose data is encoded.")],
    overrides: Overrides = None,
    vae: Annotated[str, typer.Option(help="sd, sd-mse, dc-ae, flux, a name on the hub, or a folder.")] = "sd",
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the latents.")] = Path("latents"),
    posterior: Annotated[str, typer.Option(help="sample (of each image one, by the seed) or mean.")] = "sample",
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 16,
    shard: Annotated[int, typer.Option(min=1, help="Images of a file.")] = 1024,
    part: Annotated[str, typer.Option(help="This process of how many, such as 0/4: one a GPU.")] = "0/1",
    stream: Annotated[
        bool, typer.Option("--stream", help="Decode images from their files as they are needed; prepare no arrays.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    root: Root = RUNS,
    as_json: Json = False,
) -> None:
    """Encode a matrix's images with an autoencoder, once; `data.source=latents data.path=FOLDER` trains on them.

    Example: ditbench encode configs/cifar10.yaml data.path=FOLDER --vae sd --out latents/
    """
    from bench.config import load as config
    from bench.data import encode as encoding
    from bench.data import vae as autoencoders

    found = re.fullmatch(r"(\d+)/(\d+)", part)
    if not found:
        raise ValueError(f"--part {part!r}: the number of this process and how many there are, such as 0/4")
    own = config.load(matrix, overrides).data
    store, chosen = open_store(root), device_of(device)
    network = autoencoders.load(vae, chosen)
    with progress_bars(as_json) as progress:
        which = int(found[1]), int(found[2])
        with _images(own, store, stream, progress) as images:
            request = encoding.Request(images, network, out, posterior, seed, batch, shard, which)
            done = encoding.encode(request, progress, warn)
    if as_json:
        print(json.dumps({"shards": done.shards, "missing": done.missing, "made": done.made, "latents": done.about}))
        return
    say(f"{done.made} shards encoded, {done.shards - done.missing} of {done.shards} are in {near(out)}")
    if done.missing:
        say("next   the other parts; the last one seals the folder")
        return
    about = done.about
    say(
        f"latents {about['channels']} x {about['size']} x {about['size']} of {about['pixels']} px images, "
        f"deviation {about['deviation']:.3f}, weights {about['weights']}"
    )
    say(f"identity  {about['psnr']:.2f} dB PSNR of held-out images decoded again")
    latents = f"data.source=latents data.path={near(out)} data.image_size={about['size']}"
    say(f"next   ditbench run {near(matrix)} {latents} backbone.name=..., with a patch for {about['size']} a side")


@contextmanager
def _images(own: Data, store: Store, stream: bool, progress: Progress) -> Iterator[Images]:
    from bench.data import datasets, images_once

    if not stream:
        yield images_once.of_arrays(datasets.load(datasets.prepare(own, store.cache, progress, warn)))
        return
    store.cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=store.cache))
    scratch.rmdir()  # it is made where there are archives, and removed
    with images_once.of_files(own, scratch) as images:
        for note in images.notes:
            warn(note)
        yield images
