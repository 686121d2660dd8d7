"""What a measured cell leaves: its result, with costs, provenance and the digests of its files."""

from __future__ import annotations

import itertools
import time
from typing import Any

import torch

from architectures import Observation
from bench.config.schema import as_dict
from bench.measure import curves as curves_of_task
from bench.measure.cost import count, gemm_flops, utilisation
from bench.measure.evaluate import Measured
from bench.run.work import CellAtWork
from bench.store import provenance
from bench.store.files import digest, file_digest
from bench.store.folders import CellFolder
from bench.store.journal import curves, read_journal
from bench.store.journal import digests as input_digests
from bench.store.result import Result
from bench.training import dynamics
from bench.training.arithmetic import arithmetic
from bench.training.checkpoints import digest_file, newest_checkpoint
from bench.training.model import backbone as build_backbone
from bench.training.stopwatch import Throughput, median_iqr

LAST = ("train_steady_allocated_bytes", "train_allocation_retries")  # of which the last value counts
RATES = ("train_images_per_second", "sample_images_per_second")
PEAKS = ("train_peak_", "warm_up_peak_")  # of memory, as the journal names them
History = dict[str, dict[int, float]]  # name -> step -> value, as the journal holds it


def result(cell: CellAtWork, measured: Measured, observed: Observation) -> Result:
    """Everything that was measured, with where it came from; observed is the model as it was trained."""
    history = curves(cell.folder.journal)
    origin = _provenance(cell, measured)
    reached = curves_of_task.reached(history, cell.train.batch, cell.train.steps)
    probes = {"dynamics": dynamics.heat_maps(history)}
    probes["times"] = dynamics.by_time(observed)
    return Result(
        cell.folder.id,
        measured.quality | reached,
        _cost(cell, history, measured.cost, origin["hardware"].get("gpu", "")),
        as_dict(cell.spec.config),
        origin,
        _artifacts(cell.folder),
        dynamics=dynamics.summary(history, cell.train.steps),
        sampling=measured.sampling,
        probes=measured.probes | probes,
    )


def _cost(cell: CellAtWork, history: History, sampling: dict[str, float], gpu: str) -> dict[str, float]:
    """Counted on the model, and measured while it trained and sampled."""
    cost, steps = count(cell.spec.config, cell.loaded.prompts.kind), cell.train.steps
    seconds = history["train_seconds"][steps]
    history, trained_on = _on_these_devices(history, steps)
    whole = {steps: steps * cell.train.batch / seconds}  # of so short a training there are no windows
    cost |= median_iqr(list(history.get(RATES[0], whole).values()), RATES[0])
    cost |= sampling | {"train_seconds": seconds}
    last = history.get("evaluate_seconds", {}).get(steps, 0.0)
    cost["evaluate_seconds"] = last + sum(history.get("curve_seconds", {}).values())
    cost |= _peaks(history)
    cost |= {name: list(history[name].values())[-1] for name in LAST if name in history}
    devices = dict(zip(RATES, (trained_on, cell.loaded.ranks.count), strict=True))
    cost |= {f"{name}_per_device": cost[name] / n for name, n in devices.items() if n > 1 and name in cost}
    if gpu and cell.train.precision == "bf16" and RATES[0] in cost:  # the peaks are those of bf16
        flops = cost["flops_train_per_image"] * cost[RATES[0]] / trained_on
        cost |= utilisation(flops, gpu, gemm_flops(cell.loaded.device))
    return cost


def _peaks(history: History) -> dict[str, float]:
    """The most memory of all attempts; of so short a training that no step was warm, that of its warm-up."""
    most = {name: max(points.values()) for name, points in history.items() if name.startswith(PEAKS)}
    warm = {name: value for name, value in most.items() if name.startswith(PEAKS[0])}
    return warm or {name.replace(PEAKS[1], PEAKS[0], 1): value for name, value in most.items()}


def _on_these_devices(history: History, steps: int) -> tuple[History, int]:
    """Rates and peaks of memory of the devices that trained last, beside all else, and how many they are.

    An attempt that begins after the last step trains nothing. Where they trained too little for a window after a move,
    there is an empty entry of the training rate: it is that of neither number of devices.
    """
    cut = history.get("sharded", {})
    named = [(step, (count, cut.get(step, 0.0))) for step, count in history.get("devices", {}).items() if step < steps]
    numbers = [(0, (1.0, 0.0)), *named]  # while it is one, the journal names none
    since = max((step for (_, before), (step, now) in itertools.pairwise(numbers) if before != now), default=0)
    devices = int(numbers[-1][1][0])
    peaks = {name: points for name, points in history.items() if name.startswith(PEAKS)}
    others = {name: points for name, points in history.items() if name not in peaks}
    if devices == 1:
        peaks = {name: points for name, points in peaks.items() if not name.endswith("_total")}
    if since:
        peaks = {name: kept for name, points in peaks.items() if (kept := _after(since, points))}
        warm = since + Throughput.WARM_UP  # a rate up to there is of an attempt before, which came further
        others[RATES[0]] = _after(warm, history.get(RATES[0], {}))
    return others | peaks, devices


def _after(step: int, points: dict[int, float]) -> dict[int, float]:
    return {at: value for at, value in points.items() if at > step}


def _provenance(cell: CellAtWork, measured: Measured) -> dict[str, Any]:
    config = cell.spec.config
    inputs = {name: digest(points, 16) for name, points in input_digests(cell.folder.journal).items()}
    about: dict[str, Any] = provenance.about(config.train.device)
    about |= {"sharded": True} if cell.module.whole else {}
    return about | {
        "command": cell.spec.command,
        "launch": " + ".join(_said(cell.folder, "launch")),
        "threads": torch.get_num_threads(),
        "devices": cell.loaded.ranks.count,
        "seeds": {"train": config.seed, "evaluate": config.evaluate.seed, "data": config.data.seed},
        "digests": cell.spec.digests | {"data_content": cell.loaded.data.content} | cell.initial | inputs,
        "scheme": {"name": config.scheme, "origin": cell.origin},
        "measured": measured.about,
        "arithmetic": arithmetic(
            cell.loaded.device, build_backbone(config.backbone), low=config.train.precision == "bf16"
        ),
        "attempts": cell.attempt,
        "trained_on": sorted(_said(cell.folder, "started", "resumed")),
        "started": cell.folder.state()["started"],
        "ended": time.time(),
    }


def _said(folder: CellFolder, *events: str) -> list[str]:
    """What the journal says of these events, over all attempts in order, each text once."""
    entries = (entry for entry in read_journal(folder.journal) if entry.get("event") in events)
    return list(dict.fromkeys(entry["text"] for entry in entries if entry.get("text")))


def _artifacts(folder: CellFolder) -> dict[str, dict[str, Any]]:
    """The files that a result names, with their digests and sizes."""
    checkpoint = newest_checkpoint(folder.checkpoints)
    assert checkpoint is not None
    grid = folder.samples / "grid.png"
    digests = {"checkpoint": digest_file(checkpoint).read_text().strip(), "grid": file_digest(grid)}
    files = {"checkpoint": checkpoint, "grid": grid}
    return {
        name: {"path": str(file.relative_to(folder.path)), "sha256": digests[name], "bytes": file.stat().st_size}
        for name, file in files.items()
    }
