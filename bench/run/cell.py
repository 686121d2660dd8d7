"""One cell, from its folder to its result: `python -m bench.run.cell DIR`. It resumes, and records how it ended.

Needs torch, lightning and torch-fidelity alone: no MLflow, no Hugging Face, no pydantic, no command-line library.
"""

from __future__ import annotations

import faulthandler
import math
import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

import architectures
from bench.config.identity import check_code
from bench.config.schema import Train, as_dict
from bench.config.spec import CellSpec
from bench.data import datasets, prompts
from bench.measure import control, evaluate
from bench.measure.cost import count, peak_flops
from bench.measure.sampling import write_sample_grid
from bench.run.endings import classified
from bench.run.processes import end_strays
from bench.run.slots import machine_share
from bench.store import provenance
from bench.store.disk import DiskError, explained
from bench.store.files import digest, file_digest
from bench.store.folders import CellFolder, Status
from bench.store.journal import Journal, curves, read_journal
from bench.store.journal import digests as input_digests
from bench.store.result import Result
from bench.training import dynamics
from bench.training.batches import Batches
from bench.training.callback import CellCallback, Diverged
from bench.training.checkpoints import digest_file, load_checkpoint, newest_checkpoint, remove_newer
from bench.training.digests import weights_digest
from bench.training.fit import fit
from bench.training.model import LoadedCell, build
from bench.training.module import CellModule
from bench.training.signals import STOP, stopping
from bench.training.stopwatch import median_iqr

COMMON = re.compile(r"(patches|time|head)\.|blocks\.\d+\.(attention|mlp)\.op\.")  # what every scheme has
EXITS: dict[Status, int] = {"done": 0, "failed": 1, "oom": 1, "diverged": 1, "killed": 130}
History = dict[str, dict[int, float]]  # name -> step -> value, as the journal holds it


def run(path: Path) -> Status:
    """Runs a cell to its end, whatever that is, and returns how it ended; the reason is in its `status.json`.

    Raises:
        DiskError: if not even that can be written.
    """
    folder = CellFolder(path.resolve())
    try:
        with folder.locked(), machine_share(folder):
            return _run_locked(folder)
    except Timeout:
        print(f"cell {folder.id} is being run by another process")
        return "running"


def _run_locked(folder: CellFolder) -> Status:
    if folder.result() is not None:
        return "done"
    folder.sweep()
    end_strays(folder.path)
    attempt = int(folder.state().get("attempt", 0)) + 1
    folder.write_state("running", attempt=attempt, started=time.time())
    with stopping(folder.state_file) as stop:
        journal = Journal(folder.journal, attempt)
        status, reason = classified(lambda: _work(folder, journal, attempt), folder)
        stop.hold()
        with suppress(DiskError):
            journal.event(0, status, reason)
        journal.close()
        folder.write_state(status, reason, attempt=attempt, ended=time.time())
    return status


@dataclass(frozen=True)
class _Cell:
    """A cell at work.

    Attributes:
        folder: where everything is written.
        spec: what was planned.
        journal: of this attempt.
        attempt: from 1.
        loaded: model, data and prompts.
        module: what trains the model.
        initial: digests of the weights before the first step.
    """

    folder: CellFolder
    spec: CellSpec
    journal: Journal
    attempt: int
    loaded: LoadedCell
    module: CellModule
    initial: dict[str, str]

    @property
    def train(self) -> Train:
        return self.spec.config.train

    def warn(self, text: str) -> None:
        """A warning for the journal and the log."""
        self.journal.event(0, "warning", text)
        _say(f"warning: {text}")


def _say(text: str) -> None:
    print(text, flush=True)


def _work(folder: CellFolder, journal: Journal, attempt: int) -> None:
    cache = folder.path.parent.parent / "cache"
    cell = _prepared(folder, journal, attempt, cache)
    _train(cell)
    journal.event(cell.train.steps, "stage", "evaluate")
    with cell.module.ema.swapped():
        journal.image(cell.train.steps, "samples", write_sample_grid(cell.loaded, folder.path, "grid"))
        measured = evaluate.measure(cell.loaded, folder.path, cache, say=_say, warn=cell.warn)
        measured |= control.measure(cell.loaded, folder.path, cache, _say, cell.warn)
    bad = [name for name, value in measured.quality.items() if not math.isfinite(value)]
    if bad:
        raise Diverged(f"{', '.join(bad)}: not a number")
    _result(cell, measured).write(folder.result_file)


def _prepared(folder: CellFolder, journal: Journal, attempt: int, cache: Path) -> _Cell:
    """The cell with its data, and its model initialised."""
    spec = CellSpec.read(folder)
    _load_plugins(spec)
    config, train = spec.config, spec.config.train
    device = _device(train)
    torch.manual_seed(config.seed)
    data = datasets.load(cache / "data" / spec.digests["data"])
    prompted = prompts.load(cache / "prompts" / spec.digests["prompts"])
    model = build(config, prompted.kind, seed=config.seed).to(device)
    check_code(spec.digests, config.scheme, cache / "code" / f"{spec.digests['code']}.json")
    if train.compile == "on":
        model.compile(dynamic=False)
    module = CellModule(model, train, config.seed)
    initial = {
        "initial_weights": weights_digest(model),
        "initial_backbone_weights": weights_digest(model, names=COMMON.match),
    }
    return _Cell(folder, spec, journal, attempt, LoadedCell(model, data, prompted, config, device), module, initial)


def _load_plugins(spec: CellSpec) -> None:
    """Imports the plugins; one that fails matters only if the cell's scheme is its."""
    wrong = []
    for plugin in spec.plugins:
        try:
            architectures.load_plugin(plugin)
        except architectures.PluginError as error:
            wrong.append(str(error))
    if wrong and spec.config.scheme not in architectures.schemes():
        raise architectures.PluginError("; ".join(wrong))


def _device(train: Train) -> torch.device:
    """The cell's device, with torch set to its arithmetic."""
    device = torch.device(train.device)
    torch.backends.cudnn.benchmark = not train.exact
    fast = device.type == "cuda" and not train.exact
    torch.set_float32_matmul_precision("high" if fast else "highest")
    return device


# --- training ---------------------------------------------------------------------------------------------------------


def _train(cell: _Cell) -> None:
    """Brings the module to its last step, from the newest whole checkpoint where there is one."""
    resume, last = newest_checkpoint(cell.folder.checkpoints, warn=cell.warn), cell.train.steps
    remove_newer(cell.folder.checkpoints, than=resume)
    step = int(resume.stem.removeprefix("step-")) if resume else 0
    cell.journal.event(step, "resumed" if resume else "started", _environment(cell.loaded.device))
    if resume and step >= last:
        checkpoint = load_checkpoint(resume)
        cell.module.load_state_dict(checkpoint["state_dict"])
        cell.module.on_load_checkpoint(checkpoint)
        return
    loaded, seed = cell.loaded, cell.spec.config.seed
    batches = Batches(
        loaded.data, loaded.prompts, batch=cell.train.batch, steps=last, seed=seed, workers=cell.spec.workers
    )
    fit(cell.module, batches, _callback(cell), resume=resume)
    STOP.end()
    cell.module.to(loaded.device)


def _environment(device: torch.device) -> str:
    """What a number depends on besides code and config: an attempt elsewhere need not continue bit for bit."""
    machine = provenance.hardware(device.type)
    return f"{torch.get_num_threads()} threads, torch {torch.__version__}, {machine.get('gpu') or machine['cpu']}"


def _callback(cell: _Cell) -> CellCallback:
    def write_grid(step: int) -> None:
        path = write_sample_grid(cell.loaded, cell.folder.path, f"step-{step:09d}")
        cell.journal.image(step, "samples", path)

    probe = dynamics.Probe(cell.loaded)
    return CellCallback(
        cell.train,
        cell.journal,
        cell.folder.checkpoints,
        grid_every=cell.spec.config.sample.grid_every,
        write_grid=write_grid,
        observe=lambda: dynamics.curves_of(probe.observe()),
    )


# --- the result -------------------------------------------------------------------------------------------------------


def _result(cell: _Cell, measured: evaluate.Measured) -> Result:
    """Everything that was measured, with where it came from."""
    history = curves(cell.folder.journal)
    origin = _provenance(cell, measured)
    probes = {"dynamics": dynamics.heat_maps(history)}
    probes["times"] = dynamics.by_time(dynamics.Probe(cell.loaded).observe())
    return Result(
        cell.folder.id,
        measured.quality,
        _cost(cell, history, measured.cost, origin["hardware"].get("gpu", "")),
        as_dict(cell.spec.config),
        origin,
        _artifacts(cell.folder),
        dynamics=dynamics.summary(history, cell.train.steps),
        sampling=measured.sampling,
        probes=measured.probes | probes,
    )


def _cost(cell: _Cell, history: History, sampling: dict[str, float], gpu: str) -> dict[str, float]:
    """Counted on the model, and measured while it trained and sampled."""
    cost = count(cell.spec.config, cell.loaded.prompts.kind)
    seconds = history["train_seconds"][cell.train.steps]
    whole = cell.train.steps * cell.train.batch / seconds  # of so short a training there are no windows
    rates = list(history.get("train_images_per_second", {}).values())
    cost |= median_iqr(rates or [whole], "train_images_per_second")
    cost |= sampling | {"train_seconds": seconds}
    cost |= {name: max(points.values()) for name, points in history.items() if name.startswith("train_peak_")}
    peak = peak_flops(gpu)
    if peak and "train_images_per_second" in cost:
        cost["mfu"] = cost["flops_train_per_image"] * cost["train_images_per_second"] / peak
    return cost


def _provenance(cell: _Cell, measured: evaluate.Measured) -> dict[str, Any]:
    config = cell.spec.config
    inputs = {name: digest(points, 16) for name, points in input_digests(cell.folder.journal).items()}
    return provenance.about(config.train.device) | {
        "command": cell.spec.command,
        "threads": torch.get_num_threads(),
        "seeds": {"train": config.seed, "evaluate": config.evaluate.seed, "data": config.data.seed},
        "digests": cell.spec.digests | cell.initial | inputs,
        "scheme": {"name": config.scheme, "origin": architectures.origin(config.scheme)},
        "measured": measured.about,
        "attempts": cell.attempt,
        "trained_on": _trained_on(cell.folder),
        "started": cell.folder.state()["started"],
        "ended": time.time(),
    }


def _trained_on(folder: CellFolder) -> list[str]:
    """The environments of all attempts, each once."""
    entries = (entry for entry in read_journal(folder.journal) if entry.get("event") in ("started", "resumed"))
    return sorted({entry["text"] for entry in entries if entry.get("text")})


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


def main() -> None:
    """`python -m bench.run.cell DIR`."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    faulthandler.enable()
    if len(sys.argv) != 2:
        print("usage: python -m bench.run.cell DIR", file=sys.stderr)
        sys.exit(2)
    code = 1
    try:
        code = EXITS.get(run(Path(sys.argv[1])), 1)
    except Exception as error:
        sentence = explained(error, Path(sys.argv[1])) or f"{type(error).__name__}: {error}"
        print(f"ditbench: {sentence}", flush=True)
    finally:
        with suppress(Exception):
            sys.stdout.flush()
        os._exit(code)  # threads that a plugin left do not hold the process


if __name__ == "__main__":
    main()
