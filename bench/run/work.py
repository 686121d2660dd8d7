"""A cell at work: its model, data and prompts, and its training up to the last step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

import architectures
from bench.config.identity import check_code
from bench.config.schema import Train
from bench.config.spec import CellSpec
from bench.data import datasets, prompts
from bench.measure import curves
from bench.measure.sampling import write_sample_grid
from bench.run.launches import launch
from bench.store import provenance
from bench.store.folders import CellFolder
from bench.store.journal import Journal
from bench.store.journal import curves as curves_of
from bench.training import dynamics
from bench.training.arithmetic import pin
from bench.training.batches import Batches
from bench.training.callback import CellCallback, RankCallback
from bench.training.checkpoints import load_checkpoint, newest_checkpoint, remove_newer
from bench.training.compiling import compile_whole
from bench.training.digests import weights_digest
from bench.training.fit import fit
from bench.training.model import LoadedCell, build
from bench.training.module import CellModule
from bench.training.ranks import ALONE, Ranks
from bench.training.signals import STOP

COMMON = re.compile(r"(patches|time|head)\.|blocks\.\d+\.(attention|mlp)\.op\.")  # what every scheme has


@dataclass(frozen=True)
class CellAtWork:
    """A cell at work.

    Attributes:
        folder: where everything is written.
        spec: what was planned.
        journal: of this attempt.
        attempt: from 1.
        loaded: model, data and prompts.
        module: what trains the model.
        initial: digests of the weights before the first step.
        origin: of the scheme, as it was checked to be what was planned.
        cache: of what cells share.
    """

    folder: CellFolder
    spec: CellSpec
    journal: Journal
    attempt: int
    loaded: LoadedCell
    module: CellModule
    initial: dict[str, str]
    origin: dict[str, str]
    cache: Path

    @property
    def train(self) -> Train:
        """How it is trained."""
        return self.spec.config.train

    def warn(self, text: str) -> None:
        """A warning for the journal and the log."""
        self.journal.event(0, "warning", text)
        say(f"warning: {text}")


def say(text: str) -> None:
    """A line of the log."""
    print(text, flush=True)


def prepared(folder: CellFolder, journal: Journal, attempt: int, cache: Path, ranks: Ranks = ALONE) -> CellAtWork:
    """The cell with its data, and its model initialised: the same on each rank."""
    spec = CellSpec.read(folder)
    _load_plugins(spec)
    config, train = spec.config, spec.config.train
    device = _device(train, ranks)
    torch.manual_seed(config.seed)
    data = datasets.load(cache / "data" / spec.digests["data"])
    prompted = prompts.load(cache / "prompts" / spec.digests["prompts"])
    sharded = spec.sharded and ranks.count > 1
    model = build(config, prompted.kind, seed=config.seed).to("cpu" if sharded else device)
    check_code(spec.digests, config.scheme, cache / "code" / f"{spec.digests['code']}.json")
    origin = architectures.origin(config.scheme)  # now: its package may be replaced while the cell trains
    if train.compile == "on":
        compile_whole(model, cache / "inductor")
    initial = {
        "initial_weights": weights_digest(model),
        "initial_backbone_weights": weights_digest(model, names=COMMON.match),
    }
    module = CellModule(model, train, config.seed, ranks, sharded=sharded)
    loaded = LoadedCell(model, data, prompted, config, device, ranks)
    return CellAtWork(folder, spec, journal, attempt, loaded, module, initial, origin, cache)


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


def _device(train: Train, ranks: Ranks) -> torch.device:
    """The device of a rank, with torch set to the cell's arithmetic."""
    device = ranks.device(train.device)
    pin(device, exact=train.exact)
    return device


def train(cell: CellAtWork) -> None:
    """Brings the module to its last step, from the newest whole checkpoint where there is one."""
    ranks, last = cell.loaded.ranks, cell.train.steps
    resume = ranks.broadcast(_begun(cell) if ranks.leads else None)
    if resume and _step(resume) >= last:
        checkpoint = load_checkpoint(resume)
        cell.module.load_state_dict(checkpoint["state_dict"])
        cell.module.on_load_checkpoint(checkpoint)
        return
    loaded, seed, part = cell.loaded, cell.spec.config.seed, ranks.part(cell.train.batch)
    batches = Batches(
        loaded.data,
        loaded.prompts,
        batch=cell.train.batch,
        steps=last,
        seed=seed,
        device=loaded.device,
        workers=cell.spec.workers,
        part=part,
        images_on=loaded.device if cell.spec.images == "device" else None,
    )
    if ranks.leads:
        fit(cell.module, batches, _callback(cell), resume=resume)
        STOP.end()
    else:
        fit(cell.module, batches, RankCallback(loaded, _curve_every(cell)), resume=resume)
    cell.module.to(loaded.device)


def _begun(cell: CellAtWork) -> Path | None:
    """The checkpoint that the cell resumes from, if any, noted in the journal."""
    resume = newest_checkpoint(cell.folder.checkpoints, warn=cell.warn)
    remove_newer(cell.folder.checkpoints, than=resume)
    step, devices, sharded = _step(resume) if resume else 0, cell.loaded.ranks.count, cell.module.whole is not None
    cell.journal.event(step, "launch", launch())
    cell.journal.event(step, "resumed" if resume else "started", _environment(cell.loaded, sharded=sharded))
    if devices > 1 or "devices" in curves_of(cell.folder.journal):
        cell.journal.metrics(step, {"devices": float(devices), "sharded": float(sharded)})
    return resume


def _step(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step-"))


def _environment(loaded: LoadedCell, *, sharded: bool) -> str:
    """What a number depends on besides code and config: an attempt elsewhere need not continue bit for bit."""
    machine, count = provenance.hardware(loaded.device.type), loaded.ranks.count
    devices = (f"{count} x " if count > 1 else "") + str(machine.get("gpu") or machine["cpu"])
    devices += " (fsdp)" if sharded else ""
    return f"{torch.get_num_threads()} threads, torch {torch.__version__}, {devices}"


def _curve_every(cell: CellAtWork) -> int:
    return cell.spec.config.evaluate.curve_every if curves.measured(cell.loaded) else 0


def _callback(cell: CellAtWork) -> CellCallback:
    def write_grid(step: int) -> None:
        path = write_sample_grid(cell.loaded, cell.folder.path, f"step-{step:09d}")
        cell.journal.image(step, "samples", path)

    probe = dynamics.Probe(cell.loaded)
    curve_every = _curve_every(cell)
    curve = curves.curve(cell.loaded, cell.cache) if curve_every else None
    return CellCallback(
        cell.train,
        cell.journal,
        cell.folder.checkpoints,
        grid_every=cell.spec.config.sample.grid_every,
        write_grid=write_grid,
        observe=lambda: dynamics.curves_of(probe.observe()),
        curve_every=curve_every,
        curve=curve or dict,
    )
