"""`ditbench encode`: an autoencoder over a data set once, shard by shard, into the folder that `latents.py` reads.

A shard is a function of (data, autoencoder, posterior, seed, its rows), whoever encodes it: several processes take
every n-th (`--part 0/4`), and a shard that is missing or damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.numpy import save

from bench.data import latents, prepared, vae
from bench.data.datasets import write_captions
from bench.data.errors import DataError
from bench.data.images_once import Images
from bench.store.files import digest, file_digest, make_folder, sweep, write_atomic, write_json
from bench.store.seeds import generator

PLAN = "plan.json"
CHECKED = 64  # held-out images that are decoded again, for the identity check
Progress = Callable[[str, int, int], None]
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What to encode, and how.

    Attributes:
        data: images, of prepared arrays or of files.
        vae: the autoencoder.
        out: the folder.
        posterior: `sample` or `mean`.
        seed: of the samples.
        batch: images at once. shard: images of a file.
        part: this process, and how many there are.
    """

    data: Images
    vae: vae.Vae
    out: Path
    posterior: str = "sample"
    seed: int = 0
    batch: int = 16
    shard: int = 1024
    part: tuple[int, int] = (0, 1)

    @property
    def size(self) -> int:
        """Latents a side."""
        return self.data.pixels // self.vae.factor


@dataclass(frozen=True)
class Encoded:
    """What came of it: shards in all and missing, and of a finished folder what is said of the latents."""

    shards: int
    missing: int
    made: int
    about: dict[str, Any]


def encode(request: Request, progress: Progress = lambda *_: None, warn: Warn = lambda text: None) -> Encoded:
    """Encodes what is not there of this process's part, and seals the folder when nothing is missing.

    Raises:
        DataError: if the images do not fit the autoencoder, or the folder holds other latents.
    """
    _check(request)
    make_folder(request.out)
    key = _key(request)
    jobs = list(_jobs(request))
    if about := _sealed(request, key, warn):
        return Encoded(len(jobs), 0, 0, about)
    own = [job for index, job in enumerate(jobs) if index % request.part[1] == request.part[0]]
    made = 0
    for done, job in enumerate(own):
        if not _whole(request.out / job[0], key, warn):
            _encode_shard(request, job, key)
            made += 1
        progress("encode shards", done + 1, len(own))
    with _lock(request.out):
        others = [job for job in jobs if job not in own]
        missing = sum(not _whole(request.out / job[0], key, warn) for job in others)
        about = {} if missing else _sealed(request, key, warn) or _seal(request, key)
    return Encoded(len(jobs), missing, made, about)


def _check(request: Request) -> None:
    size, factor = request.data.pixels, request.vae.factor
    if size % factor:
        raise DataError(f"data.image_size {size}: VAE {request.vae.name!r} takes multiples of {factor} pixels")
    if request.posterior not in ("sample", "mean"):
        raise DataError(f"posterior {request.posterior!r}: sample or mean")
    index, count = request.part
    if not 0 <= index < count:
        raise DataError(f"part {index}/{count}: parts of {count} are 0/{count} to {count - 1}/{count}")


def _key(request: Request) -> str:
    """What every shard is a function of; written down, so that a folder never mixes two.

    Raises:
        DataError: if the folder is of another.
    """
    with _lock(request.out):
        own = {
            "data": request.data.digest,
            "posterior": request.posterior,
            "seed": request.seed,
            "shard": request.shard,
            "vae": _weights(request),
        }
        content = {"content": request.data.content} if request.data.content else {}  # of a stream it is not known
        file = request.out / PLAN
        if not file.exists():
            write_json(file, own | content)
        before = json.loads(file.read_text())
    due = own | {name: value for name, value in content.items() if name in before}
    different = [name for name in due if before.get(name) != due[name]]
    if different:
        raise DataError(f"{request.out}: holds latents of another {', '.join(different)}; choose another --out")
    return digest(own, 24)


def _lock(out: Path) -> FileLock:
    """Beside the folder: whatever is in it is sealed."""
    return FileLock(out.resolve().parent / f".{out.resolve().name}.lock")


def _weights(request: Request) -> str:
    """Digest of the autoencoder at hand, compared with the folder's."""
    state = request.vae.network.state_dict()
    parts = [[name, str(tensor.dtype), _of(tensor)] for name, tensor in sorted(state.items())]
    return digest([request.vae.kind, request.vae.scale, request.vae.shift, parts], 16)


def _of(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()


def _jobs(request: Request) -> Iterator[tuple[str, str, int, int]]:
    """(file, split, first row, behind the last)."""
    for split in latents.SPLITS:
        count = request.data.splits[split].count
        for index, start in enumerate(range(0, count, request.shard)):
            yield latents.shard_name(split, index), split, start, min(start + request.shard, count)


def _whole(file: Path, key: str, warn: Warn) -> bool:
    about = file.with_suffix(".json")
    if not file.exists() or not about.exists():
        return False
    try:
        said = json.loads(about.read_text())
        if said["key"] == key and said["sha256"] == file_digest(file):
            return True
    except (ValueError, KeyError, TypeError, OSError):
        pass
    warn(f"{file.name} is damaged; it is encoded again")
    return False


def _encode_shard(request: Request, job: tuple[str, str, int, int], key: str) -> None:
    name, split, first, last = job
    parts = []
    for rows, images in request.data.splits[split].batches(first, last, request.batch):
        parts.append(request.vae.encode(images, _noise(request, split, rows)))
    found: NDArray[Any] = np.concatenate(parts)
    if not np.isfinite(found).all() or np.abs(found).max() > np.finfo(latents.TYPE).max:
        raise DataError(f"VAE {request.vae.name!r}: latents of {split} images {first} to {last} are not finite")
    stored = np.ascontiguousarray(
        found, latents.TYPE
    )  # safetensors writes memory as it lies, and this has channels last
    content = save({"latents": stored}, {"key": f"{key} {first}"})  # of two entries the order would be by chance
    write_atomic(request.out / name, content)
    write_json((request.out / name).with_suffix(".json"), {"key": key, "sha256": hashlib.sha256(content).hexdigest()})


def _noise(request: Request, split: str, rows: range) -> torch.Tensor | None:
    """Of each image a function of (seed, split, row): not of batch, shard or process."""
    if request.posterior == "mean":
        return None
    shape = (request.vae.channels, request.size, request.size)
    return torch.stack([torch.randn(shape, generator=generator(request.seed, f"posterior {split}", k)) for k in rows])


def _sealed(request: Request, key: str, warn: Warn) -> dict[str, Any]:
    """What a finished folder says of its latents; empty if something of it is missing or damaged."""
    if not (request.out / prepared.META).exists():
        return {}
    try:
        found = prepared.read(request.out)
        return dict(found["latents"]) if found["latents"]["key"] == key else {}
    except (prepared.DamagedError, KeyError) as error:
        warn(f"{request.out}: {error}; it is made again")
        (request.out / prepared.META).unlink()
        return {}


def _seal(request: Request, key: str) -> dict[str, Any]:
    """Writes what belongs to the latents, and the digest of all."""
    out, data = request.out, request.data
    sweep(out, age=3600.0)  # of a process that was killed; other parts may still write
    request.vae.save(out)
    _write_heldout(request)
    for name in latents.SPLITS:
        split = data.splits[name]
        if split.labels is not None:
            np.save(out / f"{name}-labels.npy", split.labels)
        if split.captions is not None:
            write_captions(out / f"{name}-captions.txt", split.captions)
    own = {
        "key": key,
        "vae": Path(request.vae.name).name,
        "weights": _weights(request),
        "channels": request.vae.channels,
        "size": request.size,
        "pixels": data.pixels,
        "counts": {name: data.splits[name].count for name in latents.SPLITS},
        "posterior": request.posterior if request.vae.kind == "AutoencoderKL" else "none",
        "psnr": _identity(request),
        "deviation": _deviation(out),
    }
    prepared.seal(out, {"latents": own, "classes": data.classes, "digest": key, "config": data.config})
    return own


def _write_heldout(request: Request) -> None:
    """The real images, which samples are compared with."""
    own = request.data.splits["heldout"]
    images = prepared.images_file(request.out / "heldout-images.npy", own.count, request.data.pixels)
    for rows, part in own.batches(0, own.count, request.shard):
        images[rows.start : rows.stop] = part
    images.flush()


def _identity(request: Request) -> float:
    """Mean PSNR in dB of held-out images that went through encoder, disk and decoder."""
    _, found = next(latents.shards(request.out, "heldout"))
    again = request.vae.decode(torch.from_numpy(found[:CHECKED])).numpy().astype(np.float64)
    error = ((again - request.data.splits["heldout"].read(0, len(again))) ** 2).mean((1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-9))))


def _deviation(folder: Path) -> float:
    """Standard deviation of the first shard's latents: of order one, or scale and shift are of another autoencoder."""
    _, found = next(latents.shards(folder, "train"))
    return float(found.astype(np.float64).std())
