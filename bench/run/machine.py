"""What a config leaves to its data and the machine it is planned on: patches, device, arithmetic, where data lies."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.config.schema import Backbone, ConfigError, Data, Run, Train


def placed(data: Data) -> Data:
    """The data with its path made absolute, where it is on this machine; a task's and latents' with their size."""
    if data.source == "task":
        from bench.data.task_data import resolved

        return resolved(data)
    if data.path is None:
        return data
    path = Path(data.path).expanduser()
    data = replace(data, path=str(path.resolve())) if path.exists() else data
    if data.source == "latents":
        from bench.data import latents

        return latents.resolved(data)
    return data


def patched(backbone: Backbone, data: Data) -> Backbone:
    """The same with its task's patch, where it names none; tasks of one matrix may have tokens of different sizes.

    Raises:
        ConfigError: for a patch that is not the task's.
    """
    if data.source != "task":
        return backbone
    from bench.data.task_data import task_of

    name, slash, named = backbone.name.partition("/")
    given, wanted = backbone.patch or (named if slash else None), task_of(data).patch
    if given is not None and str(given) != str(wanted):
        raise ConfigError(
            f"backbone.patch {given}: task {data.task} has tokens of {wanted} pixels a side; name the backbone without "
            f"a patch ({name}), and it is the task's"
        )
    return replace(backbone, patch=wanted) if given is None else backbone


def on_device(train: Train, run: Run | None = None) -> Train:
    """The same with no `auto` left.

    Args:
        train: as it was written.
        run: where it will run; a cluster is asked for its GPUs before a cell starts.

    Raises:
        ConfigError: for a device that is not here, or a low stream in high arithmetic.
    """
    device, here = train.device, run is None or run.executor == "local"
    if device == "auto":
        device = "cuda" if (_gpu() if here or run is None or run.gpus is None else run.gpus) else "cpu"
    if device == "cuda" and here and not _gpu():
        raise ConfigError("train.device cuda: no CUDA device is available here; choose cpu or auto")
    precision, compiled = ("bf16", "on") if device == "cuda" else ("32", "off")
    changes: dict[str, Any] = {"device": device}
    changes |= {"precision": precision} if train.precision == "auto" else {}
    changes |= {"compile": compiled} if train.compile == "auto" else {}
    resolved = replace(train, **changes)
    if resolved.residual == "bf16" and resolved.precision != "bf16":
        raise ConfigError("train.residual bf16: the arithmetic is 32; choose train.precision=bf16 or residual fp32")
    return resolved


@functools.cache
def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()
