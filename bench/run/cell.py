"""One cell, from its folder to its result: `python -m bench.run.cell DIR`. It resumes, and it tells how it ended.

Needs torch, lightning, omegaconf and torch-fidelity alone: no MLflow, no Hugging Face, no command-line library.
"""

from __future__ import annotations

import math
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from filelock import Timeout

import architectures
from bench.config.schema import as_dict
from bench.config.spec import CellSpec
from bench.data import datasets, prompts
from bench.measure import control, evaluate
from bench.measure.cost import count, peak_flops
from bench.measure.sampling import write_sample_grid
from bench.store import provenance
from bench.store.files import digest, file_digest
from bench.store.folders import CellFolder, Status
from bench.store.journal import Journal, curves
from bench.store.journal import digests as given_digests
from bench.store.result import Result
from bench.training import dynamics
from bench.training.batches import Batches
from bench.training.callback import CellCallback, Diverged, Stopped
from bench.training.checkpoints import digest_file, load_checkpoint, newest_checkpoint
from bench.training.digests import weights_digest
from bench.training.fit import fit
from bench.training.model import LoadedCell, build
from bench.training.module import CellModule
from bench.training.stopwatch import median_iqr, peak_memory

COMMON = re.compile(r"(patches|time|head)\.|blocks\.\d+\.(attention|mlp)\.op\.")  # what every scheme has
EXITS: dict[Status, int] = {"done": 0, "failed": 1, "oom": 1, "diverged": 1, "killed": 130}


def run(path: Path) -> Status:
    """Runs a cell to its end, whatever that is, and returns how it ended; the reason stands in its `status.json`."""
    folder = CellFolder(path.resolve())
    try:
        with folder.locked():
            return _run_locked(folder)
    except Timeout:
        print(f"cell {folder.id} is being run by another process")
        return "running"


def _run_locked(folder: CellFolder) -> Status:
    if folder.result() is not None:
        return "done"
    attempt = int(folder.state().get("attempt", 0)) + 1
    folder.write_state("running", attempt=attempt, started=time.time())
    journal = Journal(folder.journal, attempt)
    status, reason = _classified(lambda: _work(folder, journal, attempt))
    journal.event(0, status, reason)
    journal.close()
    folder.write_state(status, reason, attempt=attempt, ended=time.time())
    return status


def _classified(work: Callable[[], None]) -> tuple[Status, str]:
    """How `work` ended, in a word and a sentence."""
    try:
        work()
        return "done", ""
    except Stopped as error:
        return "killed", str(error)
    except KeyboardInterrupt:
        return "killed", "interrupted; run again to go on"
    except Diverged as error:
        return "diverged", str(error)
    except torch.OutOfMemoryError as error:
        return "oom", " ".join(str(error).split())[:300]
    except Exception as error:
        traceback.print_exc()
        return "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _work(folder: CellFolder, journal: Journal, attempt: int) -> None:
    spec = CellSpec.read(folder)
    cache = folder.path.parent.parent / "cache"
    for plugin in spec.plugins:
        with suppress(architectures.PluginError):  # the scheme's own absence is what counts, and is said below
            architectures.load_plugin(plugin)
    subject, module = _prepare(spec, cache)
    begin = {
        "initial_weights": weights_digest(module.model),
        "initial_backbone_weights": weights_digest(module.model, names=COMMON.match),
    }
    _train(spec, folder, journal, subject, module)
    last = spec.config.train.steps
    journal.event(last, "stage", "evaluate")
    with module.ema.swapped():
        journal.image(last, "samples", write_sample_grid(subject, folder.path, "grid"))
        measured = evaluate.measure(subject, folder.path, cache, say=_say, warn=lambda text: _warn(journal, text))
        measured |= control.measure(subject, folder.path, cache, _say)
    bad = [name for name, value in measured.quality.items() if not math.isfinite(value)]
    if bad:
        raise Diverged(f"{', '.join(bad)}: not a number")
    _result(spec, folder, subject, measured, attempt, begin).write(folder.result_file)


def _say(text: str) -> None:
    print(text, flush=True)


def _warn(journal: Journal, text: str) -> None:
    journal.event(0, "warning", text)
    _say(f"warning: {text}")


def _prepare(spec: CellSpec, cache: Path) -> tuple[LoadedCell, CellModule]:
    """The data, and the model with its first weights."""
    train = spec.config.train
    device = torch.device(train.device)
    torch.backends.cudnn.benchmark = not train.exact
    fast = device.type == "cuda" and not train.exact
    torch.set_float32_matmul_precision("high" if fast else "highest")
    torch.manual_seed(spec.config.seed)
    data = datasets.load(cache / "data" / spec.digests["data"])
    told = prompts.load(cache / "prompts" / spec.digests["prompts"])
    model = build(spec.config, told.kind, seed=spec.config.seed).to(device)
    if train.compile == "on":
        model.compile(dynamic=False)
    return LoadedCell(model, data, told, spec.config, device), CellModule(model, train, spec.config.seed)


def _train(spec: CellSpec, folder: CellFolder, journal: Journal, subject: LoadedCell, module: CellModule) -> None:
    """Brings the module to its last step, from the newest whole checkpoint where there is one."""
    train, last = spec.config.train, spec.config.train.steps
    resume = newest_checkpoint(folder.checkpoints, warn=lambda text: _warn(journal, text))
    step = int(resume.stem.removeprefix("step-")) if resume else 0
    journal.event(step, "resumed" if resume else "started")
    if resume and step >= last:
        checkpoint = load_checkpoint(resume)
        module.load_state_dict(checkpoint["state_dict"])
        module.on_load_checkpoint(checkpoint)
        return

    def grid(at: int) -> None:
        journal.image(at, "samples", write_sample_grid(subject, folder.path, f"step-{at:09d}"))

    probe = dynamics.Probe(subject)
    keeper = CellCallback(
        train,
        journal,
        folder.checkpoints,
        grid_every=spec.config.sample.grid_every,
        draw_grid=grid,
        look=lambda: dynamics.numbers(probe.look()),
    )
    batches = Batches(
        subject.data,
        subject.prompts,
        batch=train.batch,
        steps=last,
        seed=spec.config.seed,
        workers=spec.workers,
    )
    fit(module, batches, keeper, resume=resume)
    module.to(subject.device)
    memory = {f"train_{name}": value for name, value in peak_memory(subject.device).items()}
    journal.metrics(last, memory | {"train_seconds": module.seconds})


def _result(
    spec: CellSpec,
    folder: CellFolder,
    subject: LoadedCell,
    measured: evaluate.Measured,
    attempt: int,
    digests: dict[str, str],
) -> Result:
    note, config = folder.state(), spec.config
    steps = config.train.steps
    told = curves(folder.journal)
    given = {name: digest(points, 16) for name, points in given_digests(folder.journal).items()}
    probes = measured.probes | {"dynamics": dynamics.heat(told)}
    probes["times"] = dynamics.by_time(dynamics.Probe(subject).look())
    cost = count(config, subject.prompts.kind)
    cost |= median_iqr(list(told.get("train_images_per_second", {}).values()), "train_images_per_second")
    cost |= measured.cost
    cost |= {name: points[steps] for name, points in told.items() if name.startswith(("train_peak_", "train_seconds"))}
    about = provenance.about(config.train.device)
    peak = peak_flops(about["hardware"].get("gpu", ""))
    if peak and "train_images_per_second" in cost:
        cost["mfu"] = cost["flops_train_per_image"] * cost["train_images_per_second"] / peak
    checkpoint = newest_checkpoint(folder.checkpoints)
    assert checkpoint is not None
    about |= {
        "command": spec.command,
        "threads": torch.get_num_threads(),
        "seeds": {"train": config.seed, "evaluate": config.evaluate.seed, "data": config.data.seed},
        "digests": spec.digests | digests | given,
        "scheme": {"name": config.scheme, "origin": architectures.origin(config.scheme)},
        "measured": measured.about,
        "attempts": attempt,
        "started": note["started"],
        "ended": time.time(),
    }
    kept = {
        "path": str(checkpoint.relative_to(folder.path)),
        "sha256": digest_file(checkpoint).read_text().strip(),
        "bytes": checkpoint.stat().st_size,
    }
    grid = folder.samples / "grid.png"
    artifacts = {
        "checkpoint": kept,
        "grid": {"path": "samples/grid.png", "sha256": file_digest(grid), "bytes": grid.stat().st_size},
    }
    return Result(
        folder.id,
        measured.quality,
        cost,
        as_dict(config),
        about,
        artifacts,
        dynamics=dynamics.summary(told, steps),
        sampling=measured.sampling,
        probes=probes,
    )


def main() -> None:
    """`python -m bench.run.cell DIR`."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if len(sys.argv) != 2:
        print("usage: python -m bench.run.cell DIR", file=sys.stderr)
        sys.exit(2)
    sys.exit(EXITS.get(run(Path(sys.argv[1])), 1))


if __name__ == "__main__":
    main()
