"""A cell on several devices: the numbers of one device to rounding, whatever their number, and no rank that is left."""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import psutil
import pytest
import torch
from kit import GuardedLaunch, numbers, warm_cell
from test_microbatch import BATCH, batch
from tiny import matrix_file, planned, run_all
from torch._C._distributed_c10d import TCPStore
from torch.utils.data import DataLoader

import architectures
from architectures import index_prompt, laws
from bench.config.schema import ConfigError, Run, Train
from bench.findings.origins import origins
from bench.findings.words import machine
from bench.run import outcome
from bench.run.endings import RankLost
from bench.run.needs import needs
from bench.run.outcome import RATES, _cost, _on_these_devices
from bench.run.processes import marked
from bench.run.ranks import together
from bench.run.work import _begun
from bench.store.folders import CellFolder, Store
from bench.store.journal import Journal, curves, digests, read_journal
from bench.training.checkpoints import load_checkpoint
from bench.training.compiling import compile_whole
from bench.training.fit import fit
from bench.training.module import CellModule
from bench.training.ranks import PATIENCE, Ranks
from bench.training.sharded import gathered

STEPS = 40
MATRIX: dict[str, Any] = {
    "train__steps": STEPS,
    "train__checkpoint_every": 8,
    "train__clip": 0.5,
    "sample__grid_every": 16,
    "evaluate__curve_every": 20,
    "evaluate__curve_samples": 8,
    "data__heldout_count": 300,
    "evaluate__heldout": 300,  # two batches
}


# --- a step -----------------------------------------------------------------------------------------------------------


def trained(
    count: int, scheme: str, kind: Any, change: Callable[[], None] = lambda: None, sharded: bool = False, **train: Any
) -> Any:
    """Losses, norm of the gradients and gradients of three steps of Lightning's loop on `count` ranks."""

    def work(ranks: Ranks) -> list[torch.Tensor]:
        change()
        given = Train(batch=BATCH, steps=3, warmup=0, lr=1e-4, drop=0.3, ema=0.5, device="cpu", precision="32", **train)
        module = CellModule(laws.SchemeUnderTest(scheme).random(kind), given, 0, ranks, sharded=sharded)
        if train.get("compile") == "on" and not sharded:
            compile_whole(module.model, backend="aot_eager")
        images, prompt = batch(scheme, kind)
        part = ranks.part(BATCH)
        ours = DataLoader([(images[part], index_prompt(prompt, part))] * 3, batch_size=None, collate_fn=lambda one: one)
        batches: Any = lightning.LightningDataModule()
        batches.train_dataloader = lambda: ours
        fit(module, batches, lightning.Callback(), resume=None)  # type: ignore[arg-type]
        grads = [gathered(p.grad) for p in module.parameters() if p.grad is not None]
        return [torch.stack(module.losses), module.gradient_norm, *grads]

    def follow(ranks: Ranks) -> None:
        work(ranks)

    def lead(out: Any) -> None:
        with together(SimpleNamespace(path=Path()), count, "cpu", follow, hung) as ranks:  # type: ignore[arg-type]
            out.put([one.numpy() for one in work(ranks)])

    return forked(lead)


def hung(status: str, reason: str) -> Any:
    os._exit(3)


def forked(lead: Callable[[Any], None]) -> Any:
    """What a process puts into its queue: the group of ranks is made and ends in it."""
    context = multiprocessing.get_context("fork")
    out = context.SimpleQueue()

    def run() -> None:
        try:
            lead(out)
        except BaseException as error:
            out.put(error)
        os._exit(0)

    process = context.Process(target=run)
    process.start()
    found = out.get()
    process.join(60)
    if isinstance(found, BaseException):
        raise found
    return found


def assert_close(ours: Any, theirs: Any) -> None:
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
    least = 0.01 * max(np.linalg.norm(grad) for grad in theirs[2:])
    for mine, other in zip(ours[2:], theirs[2:], strict=True):
        assert np.linalg.norm(mine - other) <= 1e-4 * max(np.linalg.norm(other), least)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("count", "train"),
    [(2, {}), (2, {"microbatch": 2}), (2, {"compile": "on", "recompute": True}), (4, {"microbatch": 1})],
)
def test_steps_are_those_of_one_device_to_rounding(count: int, train: dict[str, Any]) -> None:
    """Losses and gradients, also of a batch in parts and of a compiled model."""
    ours, theirs = trained(count, "adaln-zero", laws.CAPTIONS, **train), trained(1, "adaln-zero", laws.CAPTIONS)
    assert_close(ours, theirs)


@pytest.mark.parametrize("scheme", ["sd3", "flux", "hdm"])
def test_they_are_of_other_schemes(scheme: str) -> None:
    assert_close(trained(2, scheme, laws.FEATURES), trained(1, scheme, laws.FEATURES))


@pytest.mark.parametrize(
    ("scheme", "count", "train"),
    [
        ("adaln-zero", 2, {}),
        ("flux", 4, {"microbatch": 1, "recompute": True}),
        ("sd3", 2, {"compile": "on"}),
        ("shared-modulation", 2, {}),
        *(pytest.param(scheme, 2, {}, marks=pytest.mark.slow) for scheme in ("hdm", "lumina2", "ddt")),
    ],
)
def test_steps_of_a_model_in_parts_are_those_of_a_whole_one(
    scheme: str, count: int, train: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where weights do not divide over the ranks, where blocks are computed again, and where they are compiled."""
    compile_block = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr("bench.training.sharded.torch.compile", compile_block)
    ours = trained(count, scheme, laws.FEATURES, sharded=True, **train)
    assert_close(ours, trained(1, scheme, laws.FEATURES))


def test_ranks_with_the_same_noise_have_other_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison sees it: here every rank takes the first part of what chance decides."""
    theirs = trained(1, "adaln-zero", laws.CAPTIONS)
    own = CellModule.step_noise

    def alike() -> None:
        def first(self: CellModule, step: int, shape: Any) -> Any:
            ranks, self.ranks = self.ranks, Ranks(0, self.ranks.count)
            try:
                return own(self, step, shape)
            finally:
                self.ranks = ranks

        CellModule.step_noise = first  # type: ignore[method-assign]

    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_close(trained(2, "adaln-zero", laws.CAPTIONS, alike), theirs)


@pytest.mark.parametrize("scheme", [s for s in architectures.schemes() if architectures.is_built_in(s)])
def test_every_parameter_of_a_built_in_scheme_has_a_gradient(scheme: str) -> None:
    """So that gradients are averaged while the backward pass runs, without a search for unused ones."""
    for kind in (laws.CAPTIONS, laws.FEATURES):
        module = CellModule(laws.SchemeUnderTest(scheme).random(kind), Train(batch=BATCH, steps=3, drop=0.0), 0)
        torch.autograd.backward(module.training_step(batch(scheme, kind), 0))
        assert not [name for name, p in module.named_parameters() if p.grad is None]


def test_parts_of_the_ranks_are_the_batch() -> None:
    every = np.arange(12)
    assert np.array_equal(np.concatenate([every[Ranks(k, 4).part(12)] for k in range(4)]), every)


def test_a_rank_whose_code_fails_says_so() -> None:
    def follow(ranks: Ranks) -> None:
        raise ValueError(f"this is rank {ranks.rank}")

    def lead(out: Any) -> None:
        with together(SimpleNamespace(path=Path()), 3, "cpu", follow, hung) as ranks:  # type: ignore[arg-type]
            ranks.mean(torch.zeros(()))

    with pytest.raises(RankLost, match="rank [12] of 3: ValueError: this is rank [12]"):
        forked(lead)


def test_ranks_wait_for_each_other_as_long_as_in_a_collective(monkeypatch: pytest.MonkeyPatch) -> None:
    """They waited 300 s, torch's own limit, at the first collective of a GPU, which meets through the store."""
    made: list[Any] = []

    def store(*given: Any, **named: Any) -> Any:
        made.append(TCPStore(*given, **named))
        return made[-1]

    monkeypatch.setattr("bench.run.ranks.TCPStore", store)

    def work(ranks: Ranks) -> list[Any]:
        return ranks.gather(made[-1].timeout)

    def lead(out: Any) -> None:
        with together(SimpleNamespace(path=Path()), 2, "cpu", work, hung) as ranks:  # type: ignore[arg-type]
            out.put(work(ranks))

    assert forked(lead) == [PATIENCE, PATIENCE]


def test_a_cell_that_waits_without_an_error_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with NCCL: the thread that watches the ranks says how one died, and ends the process."""
    monkeypatch.setattr("bench.run.ranks.HUNG", 0.5)

    def follow(ranks: Ranks) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def lead(out: Any) -> None:
        def said(status: str, reason: str) -> Any:
            out.put((status, reason))
            os._exit(0)

        with together(SimpleNamespace(path=Path()), 2, "cpu", follow, said):  # type: ignore[arg-type]
            time.sleep(60)

    status, reason = forked(lead)
    assert status == "failed" and reason == "rank 1 of 2: its process crashed (SIGSEGV); the log shows where"


# --- a cell -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[int, CellFolder]:
    """The cell on one device and on two."""
    return {count: finished(tmp_path_factory.mktemp(f"on{count}"), count) for count in (1, 2)}


def finished(folder: Path, count: int, **changes: Any) -> CellFolder:
    """A cell that is done; `kept` beside its checkpoints has those that it removed."""
    made, store = planned(folder, run__devices=count, **MATRIX | changes)
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(store.cell(made.cells[0].row.cell), over))
    keeper.start()
    try:
        (state,) = run_all(made, store)
    finally:
        over.set()
        keeper.join()
    cell = store.cell(state.id)
    assert state.status == "done", f"{state.reason}\n{cell.log.read_text()[-3000:]}"
    return cell


def _keep(cell: CellFolder, over: threading.Event) -> None:
    """Links each checkpoint that is whole, until the cell has ended."""
    kept = cell.path / "kept"
    kept.mkdir(parents=True, exist_ok=True)
    while not over.wait(0.02):
        for digest in cell.checkpoints.glob("step-*.sha256"):
            for file in (digest.with_suffix(".ckpt"), digest):
                with suppress(FileExistsError, FileNotFoundError):
                    (kept / file.name).hardlink_to(file)


def resumed(cell: CellFolder, folder: Path, count: int, step: int = 32, **changes: Any) -> CellFolder:
    """A copy of a finished cell that resumes after a step, on so many devices."""
    shutil.copytree(cell.path.parents[1], folder / "runs")
    copy = Store(folder / "runs").cell(cell.id)
    copy.result_file.unlink()
    shutil.rmtree(copy.path / "generated")
    shutil.rmtree(copy.checkpoints)
    (copy.path / "kept").rename(copy.checkpoints)
    for file in copy.checkpoints.glob("step-*"):
        if int(file.stem.removeprefix("step-")) > step:
            file.unlink()
    return finished(folder, count, **changes)


def assert_same_to_rounding(ours: CellFolder, theirs: CellFolder) -> None:
    """Losses of every line of the journal, hashes of what steps were given, quality, samples."""
    assert ours.id == theirs.id
    mine, other = curves(ours.journal), curves(theirs.journal)
    for name in ("loss", "grad_norm", "right", "dynamics/gate/block01.mlp", "dynamics/gradient/block01"):
        assert mine[name].keys() == other[name].keys()
        assert np.allclose(list(mine[name].values()), list(other[name].values()), rtol=2e-4, atol=1e-6), name
    assert digests(ours.journal) == digests(theirs.journal)
    left, right = ours.result(), theirs.result()
    assert left is not None and right is not None
    assert left.provenance["digests"] == right.provenance["digests"]
    assert left.quality.keys() == right.quality.keys()
    for name in ("heldout_loss", "heldout_loss_bin0"):
        assert left.quality[name] == pytest.approx(right.quality[name], rel=1e-4)
    observed, known = (one.probes["times"]["gate"]["values"] for one in (left, right))
    assert np.allclose(observed, known, rtol=2e-3)
    for file in sorted(theirs.path.glob("generated/*/*.npy")):
        assert_same_samples(ours.path / file.relative_to(theirs.path), file)
    for name in ("grid", "step-000000016"):
        assert_same_samples(ours.samples / f"{name}.npy", theirs.samples / f"{name}.npy")


def assert_same_samples(ours: Path, theirs: Path) -> None:
    left, right = (np.load(file).astype(float) for file in (ours, theirs))
    assert left.shape == right.shape and np.abs(left - right).max() <= 1, ours  # of 255


@pytest.mark.thorough
def test_a_cell_on_two_devices_is_the_cell_on_one(cells: dict[int, CellFolder]) -> None:
    assert_same_to_rounding(cells[2], cells[1])


def test_the_journal_is_written_once(cells: dict[int, CellFolder]) -> None:
    kinds = ("metrics", "digests", "event", "image")
    for cell in cells.values():
        lines = list(read_journal(cell.journal))
        once = Counter((line["step"], *(str(line.get(k)) for k in kinds)) for line in lines)
        assert max(once.values()) == 1
        assert [line["step"] for line in lines if "digests" in line] == [1, 2, 4, 8, 16, 32]
        assert sum("loss" in line.get("metrics", {}) for line in lines) == STEPS / 2
    count = [sum(1 for _ in read_journal(cell.journal)) for cell in cells.values()]
    assert count[1] == count[0] + 1  # which says how many devices there are


def test_costs_are_a_device_and_in_total(cells: dict[int, CellFolder]) -> None:
    one, two = (cells[count].result() for count in (1, 2))
    assert one is not None and two is not None
    assert (one.provenance["devices"], two.provenance["devices"]) == (1, 2)
    assert not [name for name in one.cost if name.endswith(("_bytes_total", "_per_device"))]
    for made in ("train", "sample"):
        assert two.cost[f"{made}_images_per_second"] == 2 * two.cost[f"{made}_images_per_second_per_device"]
    most, total = (two.cost[f"train_peak_resident_bytes{end}"] for end in ("", "_total"))
    assert most < total <= 2 * most
    assert two.provenance["trained_on"][0].split(", ")[-1].startswith("2 x ")


def test_rows_of_other_numbers_of_devices_are_said_to_be_of_other_machines() -> None:
    found = [{"hardware": {"gpu": "H200"}, "devices": count} for count in (1, 2)]
    cells: Any = [SimpleNamespace(result=SimpleNamespace(provenance=one)) for one in found]
    assert origins(cells) == ["measured on different machines: 2 x H200, H200; costs are compared within one alone"]
    assert not origins(cells[:1])


@pytest.mark.parametrize(
    ("devices", "kept"), [({}, [400, 600]), ({0: 8.0}, [400, 600]), ({500: 8.0}, [600]), ({0: 8.0, 500: 1.0}, [600])]
)
def test_rates_and_peaks_are_of_the_last_number_of_devices(devices: dict[int, float], kept: list[int]) -> None:
    """A journal names no number while it is one: from one to eight, rates of one counted, and its larger peak."""
    points = {400: 10.0, 600: 70.0}
    history = {"devices": devices, RATES[0]: points, "train_peak_resident_bytes": points, "loss": points}
    of_last, number = _on_these_devices({name: one for name, one in history.items() if one}, 600)
    assert number == list({0: 1.0, **devices}.values())[-1]
    assert [list(of_last[name]) for name in (RATES[0], "train_peak_resident_bytes")] == [kept, kept]
    assert of_last["loss"] == points


GB = 1e9
PEAKS = [f"{kind}_peak_allocated_bytes{end}" for kind in ("train", "warm_up") for end in ("", "_total")]
OF_EIGHT = {name: {900: 2 * GB} for name in PEAKS}


def cost(monkeypatch: pytest.MonkeyPatch, now: int, **history: dict[int, float]) -> dict[str, float]:
    """What 1,000 steps in bf16 cost, of a journal and a cell that is measured on `now` devices."""
    monkeypatch.setattr(outcome, "count", lambda *given: {"flops_train_per_image": 1e12})
    monkeypatch.setattr(outcome, "gemm_flops", lambda device: 1e15)
    loaded = SimpleNamespace(prompts=SimpleNamespace(kind=None), ranks=SimpleNamespace(count=now), device=None)
    train = Train(steps=1000, batch=8, precision="bf16")
    cell: Any = SimpleNamespace(spec=SimpleNamespace(config=None), train=train, loaded=loaded)
    sampling = {"sample_images_per_second": 80.0}
    return _cost(cell, history | {"train_seconds": {1000: 40.0}}, sampling, "a GPU of no known peak")


@pytest.mark.parametrize(("before", "now", "mfu"), [({0: 8.0, 1000: 1.0}, 1, 0.1), ({1000: 8.0}, 8, 0.8)])
def test_what_is_measured_elsewhere_has_the_rate_of_the_devices_that_trained(
    monkeypatch: pytest.MonkeyPatch, before: dict[int, float], now: int, mfu: float
) -> None:
    """It was killed after its last step: the rate of eight devices was divided by one, and MFU 8 times too high."""
    alone = now != 1  # it was trained on one device
    peaks = {name: points for name, points in OF_EIGHT.items() if not (alone and name.endswith("_total"))}
    found = cost(monkeypatch, now, devices=before, train_images_per_second={500: 790.0, 1000: 810.0}, **peaks)
    assert found["train_images_per_second"] == 800 and found["mfu_of_gemm"] == pytest.approx(mfu)
    assert found.get("train_images_per_second_per_device") == (None if alone else 100)
    assert found.get("sample_images_per_second_per_device") == (10 if alone else None)
    assert found["train_peak_allocated_bytes"] == 2 * GB
    assert ("train_peak_allocated_bytes_total" in found) != alone


@pytest.mark.parametrize("devices", [{0: 8.0, 992: 1.0}, {992: 8.0}, {0: 8.0, 992: 1.0, 1000: 8.0}])
def test_after_a_move_without_a_window_there_is_no_rate(
    monkeypatch: pytest.MonkeyPatch, devices: dict[int, float]
) -> None:
    """Eight steps were left: the rate was that of the other number of devices, and so was the peak of memory.

    At step 996 the attempt before was journaled, which came further than its last checkpoint.
    """
    now, rates = int(list(devices.values())[-1]), {500: 790.0, 996: 810.0}
    peaks = OF_EIGHT | {"warm_up_peak_allocated_bytes": {900: 2 * GB, 1000: GB}}
    found = cost(monkeypatch, now, devices=devices, train_images_per_second=rates, **peaks)
    assert not [name for name in found if name.startswith(("train_images", "mfu"))]
    assert {name: value for name, value in found.items() if "_peak_" in name} == {"train_peak_allocated_bytes": GB}
    later = cost(monkeypatch, now, devices=devices, train_images_per_second=rates | {1000: 100.0})
    assert later["train_images_per_second"] == 100


@pytest.mark.parametrize(("devices", "number"), [({}, 1), ({0: 8.0}, 8), ({0: 1.0}, 1)])
def test_a_training_without_a_window_has_the_rate_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, devices: dict[int, float], number: int
) -> None:
    """Of one device no sum over devices is left, of an attempt on eight that had no checkpoint yet."""
    found = cost(monkeypatch, number, devices=devices, **OF_EIGHT)
    assert found["train_images_per_second"] == 200 and found["mfu_of_gemm"] == pytest.approx(0.2 / number)
    assert ("train_peak_allocated_bytes_total" in found) == (number > 1)


def test_a_cell_that_begins_again_on_one_device_says_so(tmp_path: Path) -> None:
    """It died on eight before its first checkpoint, and its rates on one counted as those of eight."""
    folder = CellFolder(tmp_path)
    for attempt, count in ((1, 8), (2, 1)):
        journal = Journal(folder.journal, attempt)
        loaded = SimpleNamespace(ranks=SimpleNamespace(count=count), device=torch.device("cpu"))
        module = SimpleNamespace(whole=None)
        cell: Any = SimpleNamespace(folder=folder, journal=journal, warn=print, loaded=loaded, module=module)
        assert _begun(cell) is None
        journal.close()
    assert curves(folder.journal)["devices"] == {0: 1.0}


@pytest.mark.thorough
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_cell_resumes_on_another_number_of_devices(
    cells: dict[int, CellFolder], tmp_path: Path, before: int, after: int
) -> None:
    cell = resumed(cells[before], tmp_path, after)
    assert [line["step"] for line in read_journal(cell.journal) if line.get("event") == "resumed"] == [32]
    assert_same_to_rounding(cell, cells[1])
    result = cell.result()
    assert result is not None and result.provenance["devices"] == after
    assert len(result.provenance["trained_on"]) == 2
    devices = curves(cell.journal)["devices"]
    assert list(devices.values()) == [float(after)] if before == 1 else [2.0, 1.0]


def test_the_same_weights_are_measured_to_the_same_bits(cells: dict[int, CellFolder], tmp_path: Path) -> None:
    """Of a cell that was trained on one device two generate the samples, and share out the validation loss."""
    cell = resumed(cells[1], tmp_path, 2, STEPS)
    ours, theirs = cell.result(), cells[1].result()
    assert ours is not None and theirs is not None and numbers(ours) == numbers(theirs)
    for file in cells[1].path.glob("generated/*/*.npy"):
        assert np.array_equal(np.load(file), np.load(cell.path / file.relative_to(cells[1].path)))


def test_a_cell_in_parts_is_the_cell_on_one_and_resumes_on_it_and_back(
    cells: dict[int, CellFolder], tmp_path: Path
) -> None:
    """Its checkpoints are whole, those of any number of devices; rates and peaks are of the last way that it went."""
    places = [tmp_path / name for name in ("parts", "whole", "again")]
    for place in places:
        place.mkdir()
    parts = finished(places[0], 2, run__strategy="fsdp")
    assert_same_to_rounding(parts, cells[1])
    result = parts.result()
    assert result is not None and result.provenance["sharded"] and result.provenance["trained_on"][0].endswith("(fsdp)")
    assert machine(result.provenance).startswith("2 x ") and machine(result.provenance).endswith(" (fsdp)")
    for file in parts.checkpoints.glob("*.ckpt"):
        ours, theirs = (load_checkpoint(one.checkpoints / file.name) for one in (parts, cells[1]))
        assert ours.keys() == theirs.keys() and ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert_same_to_rounding(resumed(parts, places[1], 1), cells[1])
    again = resumed(cells[2], places[2], 2, run__strategy="fsdp")
    assert_same_to_rounding(again, cells[1])
    assert curves(again.journal)["sharded"] == {0: 0.0, 32: 1.0}


@pytest.mark.slow
def test_a_cell_on_four_devices_is_the_cell_on_one(cells: dict[int, CellFolder], tmp_path: Path) -> None:
    assert_same_to_rounding(finished(tmp_path, 4), cells[1])


def test_a_task_on_two_devices_has_the_errors_of_one(tmp_path: Path) -> None:
    """Images are sampled as they are needed, and the points of the excess error are shared out."""
    given = {
        "data": {"source": "task", "task": "grain", "level": "easy"},
        "backbone": {"name": "DiT-XS", "width": 32, "depth": 2, "heads": 2},
        "evaluate__extractor": "none",
        "evaluate__points": 300,
        "evaluate__curve_every": 0,
        "train__steps": 8,
    }
    found = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        cell = finished(folder, count, **given)
        result = cell.result()
        assert result is not None
        found.append((digests(cell.journal), curves(cell.journal)["loss"], result.quality["excess_error"]))
    (given_1, losses_1, error_1), (given_2, losses_2, error_2) = found
    assert given_1 == given_2 and error_1 == pytest.approx(error_2, rel=1e-4)
    assert list(losses_1.values()) == pytest.approx(list(losses_2.values()), rel=1e-4)


# --- its end ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[CellFolder, Any, list[psutil.Process]]]:
    """A cell on two devices after its first checkpoint, its process, and the other rank's."""
    shared = {"run__devices": 2, "run__strategy": getattr(request, "param", None)}
    made, store = planned(tmp_path, **MATRIX | {"train__steps": 160} | shared)
    folder = store.cell(made.cells[0].row.cell)
    process = warm_cell(folder)
    end = time.monotonic() + 120
    while not list(folder.checkpoints.glob("step-*.ckpt")):
        assert process.is_alive() and time.monotonic() < end, folder.log.read_text()
        time.sleep(0.01)
    others = psutil.Process(process.pid).children()
    yield folder, process, others
    process.kill()
    assert not psutil.wait_procs(others, timeout=60)[1], "a rank is left"


@pytest.mark.thorough
def test_a_rank_that_is_killed_ends_the_cell_which_resumes(running: Any, cells: dict[int, CellFolder]) -> None:
    folder, process, (other,) = running
    other.kill()
    process.join(120)
    assert process.exitcode == 130
    reason = "rank 1 of 2: ended by SIGKILL (perhaps out of memory) without a message; run again to resume"
    assert folder.status() == ("killed", reason)
    again = warm_cell(folder)
    again.join(240)
    assert folder.result() is not None
    losses = list(curves(folder.journal)["loss"].values())
    theirs = list(curves(cells[1].journal)["loss"].values())
    assert np.allclose(losses[: len(theirs)], theirs, rtol=2e-4)
    assert any(line.get("event") == "resumed" for line in read_journal(folder.journal))


@pytest.mark.parametrize("running", ["ddp", "fsdp"], indirect=True)
def test_a_stopped_cell_writes_its_checkpoint_and_leaves_no_rank(running: Any) -> None:
    folder, process, others = running
    for one in (*others, psutil.Process(process.pid)):  # as a terminal would
        one.send_signal(signal.SIGINT)
    process.join(120)
    status, reason = folder.status()
    assert status == "killed" and reason.startswith("stopped by SIGINT after step")
    step = int(reason.split("step ")[1].split(";")[0])
    assert (folder.checkpoints / f"step-{step:09d}.ckpt").is_file()


def test_a_cell_that_is_killed_takes_its_ranks_along(running: Any) -> None:
    _, process, others = running
    process.kill()
    assert not psutil.wait_procs(others, timeout=60)[1]


def test_ctrl_c_of_a_launch_leaves_no_process(tmp_path: Path) -> None:
    matrix_file(tmp_path, run__devices=2, **MATRIX | {"train__steps": 2000})
    launch = GuardedLaunch("run", "tiny.yaml", "--no-track", cwd=tmp_path)
    cells = tmp_path / "runs" / "cells"
    launch.wait_for(lambda: list(cells.glob("*/checkpoints/*.ckpt")), 240)
    launch.disturb(signal.SIGINT)
    text = launch.ended(seconds=120)
    assert "stopped by SIGINT" in text or "stopped by SIGTERM" in text
    (cell,) = cells.iterdir()
    assert not marked(cell) and not launch.below()


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"run__strategy": "ddp"}, "run.strategy ddp is of several devices; say how many"),
        ({"run__strategy": "fsdp"}, "run.strategy fsdp is of several devices; say how many"),
        ({"run__devices": 4, "run__gpus": 2}, "run.gpus 2 is fewer than run.devices 4"),
        ({"run__devices": 3}, "train.batch 8 does not divide over run.devices 3"),
        (
            {"run__devices": 2, "train__microbatch": 8},
            "train.batch 8 does not divide over run.devices 2 in parts of train.microbatch 8",
        ),
    ],
)
def test_what_cannot_be_shared_out_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        planned(tmp_path, **changes)
    assert not list((tmp_path / "runs").glob("cells/*"))


def test_a_cell_needs_a_gpu_for_each_device() -> None:
    assert needs(Run(devices=4), "cuda").text == "4 cores, 4 GPUs"
    assert needs(Run(devices=2, workers=3), "cpu").text == "8 cores"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_gpus_train_as_one(tmp_path: Path, strategy: str) -> None:
    """Through NCCL; the tiny model in 32, so that losses are equal to rounding."""
    found = []
    for count in (1, 2):
        folder = tmp_path / str(count)
        folder.mkdir()
        how = {"train__device": "cuda", "train__precision": "32", "run__strategy": strategy}
        cell = finished(folder, count, **how)
        found.append(list(curves(cell.journal)["loss"].values()))
    assert np.allclose(*found, rtol=1e-3)
