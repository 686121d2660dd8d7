"""Networks that turn images into features, each under a name that every metric computed with it bears.

`inception` is torch-fidelity's own, its weights a download; `efficientnet-lite0` comes with its ImageNet weights from
the package registry, so that it works offline; `dinov2` and `clip` are those of `vision.py`. Any other extractor
registered with torch-fidelity can be named too. Features are float32 throughout, without TF32: a GPU's are a CPU's.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torch_fidelity.utils import create_feature_extractor

from architectures import nearest
from bench.data.precision import single_precision
from bench.measure.metrics.networks import SPATIAL, efficientnet_weights
from bench.measure.metrics.vision import VISION, VisionNetwork, folder_of, vision_digest
from bench.store.files import file_digest
from bench.training.signals import beat

INCEPTION_WEIGHTS = "DITBENCH_INCEPTION_WEIGHTS"  # a local file, in torch-fidelity's format
INCEPTION = "inception-v3-compat"  # torch-fidelity's name for it
Warn = Callable[[str], None]


class MetricError(ValueError):
    """An extractor that is not there, or whose weights are not available; the message says how to get it."""


@dataclass(frozen=True)
class Outputs:
    """What an extractor makes of n images, float32.

    Attributes:
        features: (n, d), which distances compare.
        logits: (n, classes) of the Inception score, or None where it has no classes.
        spatial: (n, s), which sFID compares, or None.
    """

    features: np.ndarray
    logits: np.ndarray | None = None
    spatial: np.ndarray | None = None


@dataclass(frozen=True)
class Extractor:
    """A feature extractor of torch-fidelity under this project's name.

    Attributes:
        name: as written in a config. slug: as written in a metric's name.
        registered: torch-fidelity's name. layer: which of its features.
        weights: the file they come from, or None.
        digest: of the weights and the transform.
        logits: the layer of class scores; empty without classes.
        spatial: torch-fidelity's name of the network that gives spatial features too; empty without.
    """

    name: str
    slug: str
    registered: str
    layer: str
    weights: Path | None
    digest: str
    logits: str = ""
    spatial: str = ""

    @property
    def dim(self) -> int:
        """The number of features: a layer is named by it, or the features of one blank image are counted.

        Raises:
            MetricError: if they must be counted, and the weights cannot be loaded.
        """
        return int(self.layer) if self.layer.isdigit() else self.features(np.zeros((1, 32, 32, 3), np.uint8)).shape[1]

    def features(
        self,
        images: np.ndarray,
        *,
        device: str = "cpu",
        batch: int = 0,
    ) -> np.ndarray:
        """Features float32 (n, dim) of images uint8 (n, H, W, 3), whatever their layout in memory.

        Args:
            images: of any size.
            device: `cpu` or `cuda`.
            batch: images at a time; 0 is 256, and 16 on a CPU, whose caches they fit: 2.9 for 4.9 s for 256 images.

        Raises:
            MetricError: if there are none, they are of another shape or type, or the weights cannot be loaded.
        """
        return self._run(images, (self.layer,), self.registered, device, batch)[0]

    def outputs(self, images: np.ndarray, *, device: str = "cpu") -> Outputs:
        """All that the extractor has of images uint8 (n, H, W, 3), in one pass.

        Raises:
            MetricError: as `features`.
        """
        layers = (self.layer, self.logits) if self.logits else (self.layer,)
        found = self._run(images, layers, self.spatial or self.registered, device)
        return Outputs(found[0], found[1] if self.logits else None, found[-1] if self.spatial else None)

    def _run(
        self,
        images: np.ndarray,
        layers: tuple[str, ...],
        registered: str,
        device: str,
        batch: int = 0,
    ) -> list[np.ndarray]:
        """What the network gives, each (n, ...), a batch at a time."""
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
            raise MetricError(
                f"features are computed from uint8 images (n, H, W, 3), got {images.dtype} {images.shape}"
            )
        network = _network(registered, layers, str(self.weights or ""), device)
        batch, parts = batch or (16 if device == "cpu" else 256), []
        with torch.inference_mode(), single_precision():
            for start in range(0, len(images), batch):
                part = torch.from_numpy(np.array(images[start : start + batch], order="C")).permute(0, 3, 1, 2)
                parts.append([one.float().cpu().numpy() for one in network(part.to(device))])
                beat()  # 50,000 images take a CPU an hour and more
        return [np.concatenate(one) for one in zip(*parts, strict=True)]


@lru_cache(maxsize=2)
def _network(registered: str, layers: tuple[str, ...], weights: str, device: str) -> Any:
    more = {"feature_extractor_weights_path": weights} if weights else {}
    try:
        if registered in VISION:
            return VisionNetwork(registered, Path(weights), device)
        if weights:
            torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity would run what a pickle holds
        return create_feature_extractor(registered, list(layers), cuda=device == "cuda", verbose=False, **more)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        said = " ".join(str(error).split())[:200]
        raise MetricError(f"extractor {registered}: its weights cannot be loaded: {said}") from error


def resolve(name: str, *, warn: Warn = lambda text: None) -> Extractor:
    """The extractor of a name: `auto`, `inception`, `efficientnet-lite0`, `dinov2`, `clip`, or torch-fidelity's.

    `auto` is Inception if its weights are here or can be downloaded, else EfficientNet-Lite0, with a warning.

    Raises:
        MetricError: for an unknown name, with the choices and the nearest, or weights that are not available.
    """
    if name == "auto":
        try:
            return _inception()
        except MetricError as error:
            warn(f"metrics use efficientnet-lite0, not inception ({error})")
            name = "efficientnet-lite0"
    if name in ("inception", INCEPTION):
        try:
            return _inception()
        except MetricError as error:
            raise MetricError(f"extractor inception: {error}; efficientnet-lite0 works offline") from error
    if name == "efficientnet-lite0":
        weights = efficientnet_weights()
        digest = hashlib.sha256(f"{file_digest(weights)} 128 bilinear 127 128".encode()).hexdigest()[:16]
        return Extractor(name, "efficientnet_lite0", name, "1280", None, digest, "logits")
    if name in VISION:
        return _vision(name)
    if name not in FEATURE_EXTRACTORS_REGISTRY:
        others = sorted(set(FEATURE_EXTRACTORS_REGISTRY) - {INCEPTION, SPATIAL})
        known = ["auto", "inception", *VISION, *others]
        raise MetricError(f"unknown extractor {name!r} (extractors: {', '.join(known)}){nearest(name, known)}")
    layer = FEATURE_EXTRACTORS_REGISTRY[name].get_default_feature_layer_for_metric("fid")
    slug = name.lower().replace("-", "_")
    return Extractor(name, slug, name, layer, None, hashlib.sha256(name.encode()).hexdigest()[:16])


def _inception() -> Extractor:
    weights = inception_weights()
    digest = hashlib.sha256(f"{file_digest(weights)} tf1 bilinear 299".encode()).hexdigest()[:16]
    return Extractor("inception", "inception", INCEPTION, "2048", weights, digest, "logits_unbiased", SPATIAL)


def _vision(name: str) -> Extractor:
    try:
        folder = folder_of(name)
    except ImportError as error:
        raise MetricError(f"extractor {name} needs the `text` extra: pip install 'ditbench[text]'") from error
    except FileNotFoundError as error:
        raise MetricError(f"extractor {name}: {error}") from error
    return Extractor(name, name, name, "token", folder, vision_digest(name, folder))


def inception_here() -> Path | None:
    """The Inception weights on this machine; None if they would have to be downloaded.

    A file named by DITBENCH_INCEPTION_WEIGHTS, or of torch's cache.

    Raises:
        MetricError: if the file that was named is not there, or the cached one is damaged.
    """
    given = os.environ.get(INCEPTION_WEIGHTS)
    if given:
        if not Path(given).is_file():
            raise MetricError(f"{INCEPTION_WEIGHTS}={given}: no such file")
        return Path(given)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(URL_INCEPTION_V3).path).name
    if not cached.is_file():
        return None
    if not file_digest(cached).startswith(cached.stem.rpartition("-")[2]):
        raise MetricError(
            f"the Inception weights {cached.name} in torch's cache are damaged; delete them and run again"
        )
    return cached


def inception_weights() -> Path:
    """The Inception weights, downloaded into torch's cache if they are not here.

    Raises:
        MetricError: if they are not available, with the way to get them.
    """
    here = inception_here()
    if here is None:
        _download(Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(URL_INCEPTION_V3).path).name)
        here = inception_here()
    assert here is not None
    return here


def _download(target: Path) -> None:
    """torch-fidelity's Inception weights into torch's cache, checked against the digest in their name."""
    host = urlparse(URL_INCEPTION_V3).hostname or ""
    advice = (
        f"put the file {target.name} of torch-fidelity's releases on this machine and name it in {INCEPTION_WEIGHTS}"
    )
    try:
        socket.create_connection((host, 443), timeout=3).close()
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            URL_INCEPTION_V3, str(target), hash_prefix=target.stem.rpartition("-")[2], progress=False
        )
    except (OSError, RuntimeError) as error:
        raise MetricError(f"its weights are not here and cannot be downloaded; {advice}") from error
