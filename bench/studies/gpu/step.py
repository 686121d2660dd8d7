"""One cell's step on a GPU: rate, memory and waits of the harness, beside a bare loop and the card's own ceilings."""

from __future__ import annotations

import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.measure import metrics
from bench.measure.cost import count, gemm_flops, peak_flops
from bench.measure.sampling import generate
from bench.studies.loops import WINDOW, Report, bare, harness, plain
from bench.studies.overhead import frechet_seconds
from bench.training.model import LoadedCell
from bench.training.stopwatch import Stopwatch


def ceilings(device: torch.device, side: int = 8192, rounds: int = 10) -> Report:
    """Of the card, now: FLOP/s of a bf16 product of random matrices, bytes/s of a copy (read and written)."""
    source = torch.empty(side * side * 8, device=device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    copy = _seconds(device, lambda: target.copy_(source), rounds)
    return {"gemm_flops": gemm_flops(device, side, rounds), "copy_bytes_per_second": 4 * source.numel() / copy}


def _seconds(device: torch.device, work: Callable[[], Any], rounds: int) -> float:
    """Median seconds of some work, after three rounds of warm-up."""
    watch = Stopwatch(device)
    for _ in range(rounds + 3):
        watch.start()
        work()
        watch.stop()
    return statistics.median(watch.seconds()[3:])


def sampling(subject: LoadedCell, steps: int = 3, rounds: int = 3) -> Report:
    """Samples/s with guidance, of half as many at a time as a training step has images: a pass is as large as its.

    The cell's sampler takes `config.sample.steps` steps; what is timed is `steps` of them, and the rate is that of all.
    """
    config = subject.config
    few = replace(config, sample=replace(config.sample, steps=steps, batch=max(1, config.train.batch // 2)))
    half, indices = replace(subject, config=few), np.arange(few.sample.batch)
    prompt, seconds = subject.prompts.rows("heldout", indices), []
    noise = torch.randn(len(indices), *subject.shape, generator=torch.Generator().manual_seed(0))
    subject.model.eval()
    for _ in range(rounds + 1):  # the first compiles, or is warm-up
        begin = time.perf_counter()
        generate(half, prompt, noise, batch=len(indices))  # which hands images to the host, and so waits
        seconds.append(time.perf_counter() - begin)
    share = steps / config.sample.steps
    return {
        "samples_per_second": share * len(indices) / statistics.median(seconds[1:]),
        "sample_batch": len(indices),
        "sampler": f"{config.sample.sampler}, {config.sample.steps} steps, guidance {config.sample.guidance:g}",
    }


def metric_rates(device: torch.device, count: int = 4096, side: int = 32) -> Report:
    """Images/s of the feature extractors whose weights are here, and seconds of a Frechet distance of 2,048 numbers."""
    rng, found = np.random.default_rng(0), {}
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    for name in ("efficientnet-lite0", *(["inception"] if metrics.inception_here() else [])):
        extractor = metrics.resolve(name)
        extractor.features(images[:128], device=device.type)  # reads the file
        begin = time.perf_counter()
        extractor.features(images, device=device.type)
        found[name] = count / (time.perf_counter() - begin)
    return {"features_images_per_second": found, "frechet_2048_seconds": frechet_seconds()}


@contextmanager
def waits_listed(found: list[str]) -> Iterator[dict[str, Callable[[], None]]]:
    """Appends where the host waited for the GPU between a call of `["on"]` and one of `["off"]`."""

    def note(message: Any, *unused: Any, **also_unused: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            frames = traceback.extract_stack()[:-1]
            ours = [
                f"{Path(one.filename).name}:{one.lineno} {one.name}" for one in frames if "warnings" not in one.filename
            ]
            found.append(" < ".join(reversed(ours[-6:])))

    with warnings.catch_warnings():
        warnings.showwarning = note
        modes = {"on": lambda: _watch_waits(True), "off": lambda: _watch_waits(False)}
        try:
            yield modes
        finally:
            _watch_waits(False)


def _watch_waits(on: bool) -> None:
    if on:
        warnings.simplefilter("always")
    torch.cuda.set_sync_debug_mode("warn" if on else "default")


def waits(subject: LoadedCell, folder: Path) -> list[str]:
    """Where the host waits for the device in the 15 steps after the 16th: no line of the journal is due there."""
    found: list[str] = []
    with waits_listed(found) as modes:
        harness(subject, 40, folder, {16: modes["on"], 31: modes["off"]}, window=40)
    return found


def kernels(subject: LoadedCell, top: int = 14, steps: int = 5) -> Report:
    """The kernels that most time goes into, each with its share, and the share of the time that any is running."""
    step = plain(subject, resident=True)
    for _ in range(WINDOW):
        step()
    torch.cuda.synchronize(subject.device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        torch.cuda.synchronize(subject.device)
        seconds = time.perf_counter() - begin
    events = sorted(profile.key_averages(), key=lambda one: -one.self_device_time_total)
    total = sum(one.self_device_time_total for one in events)
    share = {one.key[:110]: round(one.self_device_time_total / total, 4) for one in events[:top]}
    return {
        "busy": round(total / 1e6 / seconds, 3),
        "kernels_a_step": sum(e.count for e in events) / steps,
        "share": share,
    }


def measured(subject: LoadedCell, steps: int, folder: Path, gemm: float, *, window: int = WINDOW) -> Report:
    """Rate and memory of a cell's training step in the harness."""
    report, _ = harness(subject, steps, folder, window=window)
    flops = count(subject.config, subject.prompts.kind)["flops_train_per_image"]
    rate = subject.config.train.batch / report["step_seconds"]
    peak = peak_flops(torch.cuda.get_device_name(subject.device)) if subject.device.type == "cuda" else None
    report |= {"images_per_second": rate, "flops_train_per_image": flops}
    if subject.device.type == "cuda":  # a product of bf16 is no ceiling of a CPU's float32
        report["mfu_of_gemm"] = flops * rate / gemm
    return report | ({"mfu": flops * rate / peak} if peak else {})


def beside(subject: LoadedCell, seconds: float, steps: int, *, window: int = WINDOW) -> Report:
    """Seconds a step of the plain loop, and of one whose batch is on the device already: what data costs is between.

    Args:
        subject: the model with its data.
        seconds: a step of the harness takes.
        steps: of each loop.
        window: steps of each that are timed at once.
    """
    plain_seconds = bare(subject, steps, window=window)
    resident = bare(subject, steps, resident=True, window=window)
    return {
        "bare_seconds": plain_seconds,
        "over_bare": seconds / plain_seconds,
        "data_resident_seconds": resident,
    }
