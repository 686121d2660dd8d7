"""Costs: counted where they can be, measured where they must, and each process answering for itself."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from architectures import BackboneConfig
from bench.config.schema import Train
from bench.measure.cost import PEAKS, gemm_flops, peak_flops, utilisation
from bench.run.outcome import _peaks
from bench.store.journal import Journal, curves
from bench.training.arithmetic import arithmetic, pin
from bench.training.callback import CellCallback
from bench.training.ranks import ALONE
from bench.training.stopwatch import StepMemory, Stopwatch, Throughput, median_iqr, peak_memory

ROOT = Path(__file__).parent.parent
PEAK = (
    "import torch; from bench.training.stopwatch import peak_memory; "
    "print(peak_memory(torch.device('cpu'))['peak_resident_bytes'])"
)


@pytest.mark.thorough
def test_peak_memory_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    """Linux hands `ru_maxrss` down to whatever a process starts; a cell must not inherit its parent's peak."""

    def peak() -> float:
        return float(subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout)

    ballast = bytearray(3 * 2**30)
    ballast[::4096] = b"1" * len(ballast[::4096])
    assert peak_memory(torch.device("cpu"))["peak_resident_bytes"] > 3 * 2**30
    assert 2**26 < peak() < 3 * 2**29, "torch alone is a few hundred MiB"
    del ballast


def test_median_and_spread() -> None:
    assert median_iqr([], "rate") == {} and median_iqr([3.0], "rate") == {"rate": 3.0}, "one window has no spread"
    assert median_iqr([1.0, 2.0, 3.0, 4.0, 5.0], "rate") == {"rate": 3.0, "rate_iqr": 2.0}


def test_windows_are_timed_one_by_one() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(3):
        watch.start()
        assert watch.running
        watch.stop()
    assert len(watch.seconds()) == 3 and watch.seconds() == [] and not watch.running


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H200 NVL", 835e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA GB200", 2500e12),
        ("NVIDIA B300 SXM6 AC", 2250e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA RTX 6000 Ada Generation", 364e12),
        ("NVIDIA GeForce RTX 5090", 209.5e12),
        ("NVIDIA A10", 125e12),
        ("AMD Instinct MI300X", 1307e12),
        ("TPU", None),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA RTX A3000 Laptop GPU", None),
        ("NVIDIA GeForce RTX 5090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
    ],
)
def test_peaks_are_dense_ones(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_no_name_of_a_peak_hides_a_longer_one_behind_it() -> None:
    names = list(PEAKS)
    assert not [(a, b) for k, a in enumerate(names) for b in names[k + 1 :] if a in b]


def test_utilisation_is_of_the_peak_on_paper_and_of_a_product_measured_here() -> None:
    rate = gemm_flops(torch.device("cpu"), side=64, rounds=3)
    assert 1e6 < rate < 1e14
    assert utilisation(100e12, "NVIDIA H100 80GB HBM3", 500e12) == {"mfu": 100 / 989, "mfu_of_gemm": 0.2}
    assert utilisation(100e12, "TPU", 500e12) == {"mfu_of_gemm": 0.2}


def test_peaks_are_of_warm_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU: compilation and what is done between steps need memory that no step needs."""
    top = [0]
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: top[0])
    monkeypatch.setattr("torch.cuda.max_memory_reserved", lambda device: 2 * top[0])
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: top.__setitem__(0, 0))
    memory = StepMemory(torch.device("cuda"))

    def window(bytes: int, *, warm: bool) -> float:
        top[0] = max(top[0], bytes)
        memory.keep(warm=warm)
        top[0] = 999  # a sample grid
        memory.restart()
        return memory.peaks["peak_allocated_bytes"]

    assert window(80, warm=False) == 80
    assert window(50, warm=True) == 50 and window(60, warm=True) == 60 and window(40, warm=True) == 60
    assert memory.peaks["peak_reserved_bytes"] == 120


@pytest.mark.parametrize(("steps", "peak"), [(8, 50.0), (5, 999.0)])
def test_a_checkpoint_in_the_warm_up_leaves_no_peak_of_compilation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, peak: float
) -> None:
    """On a GPU; a result takes the most of all attempts. Only of a training without a warm step there is no other."""
    monkeypatch.setattr("bench.training.stopwatch.peak_memory", lambda device: {"peak_allocated_bytes": top[0]})
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: top.__setitem__(0, 0.0))
    train, top = Train(steps=steps, log_every=2, probe_every=100, checkpoint_every=5), [0.0]
    callback = CellCallback(train, Journal(tmp_path / "j"), tmp_path, grid_every=99, write_grid=lambda step: None)
    callback.memory = StepMemory(torch.device("cuda"))
    monkeypatch.setattr(callback.memory, "steady", dict)
    monkeypatch.setattr(callback, "_digest", lambda *given: None)
    loss = torch.ones(())
    module: Any = SimpleNamespace(seconds=0.0, ranks=ALONE, gradient_norm=loss, level=None, device=torch.device("cpu"))
    module.block_gradients, module.agreed, module.as_trained = None, bool, nullcontext
    for step in range(1, steps + 1):
        module.losses, top[0] = [loss], 999.0 if step <= Throughput.WARM_UP else 50.0
        trainer: Any = SimpleNamespace(global_step=step, save_checkpoint=lambda path: None)
        callback.on_train_batch_end(trainer, module, None, (loss, None), 0)
    assert _peaks(curves(tmp_path / "j")) == {"train_peak_allocated_bytes": peak}


def test_retries_and_what_stays_allocated_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 7)
    monkeypatch.setattr("torch.cuda.memory_stats", lambda device: {"num_alloc_retries": 3})
    found = StepMemory(torch.device("cuda")).steady()
    assert found == {"train_steady_allocated_bytes": 7.0, "train_allocation_retries": 3.0}
    assert StepMemory(torch.device("cpu")).steady() == {}


def test_a_result_says_which_kernel_attends_and_how_products_are_summed() -> None:
    pin(torch.device("cpu"), exact=False)
    found = arithmetic(torch.device("cpu"), BackboneConfig(), low=False)
    assert found["float32_matmul"] == "highest" and found["bf16_reduced_reduction"] == "false"
    assert found["attention"] == found["attention_masked"] == "flash_attention"
    with sdpa_kernel(SDPBackend.MATH):
        assert arithmetic(torch.device("cpu"), BackboneConfig(), low=False)["attention"] == "math"


def test_warm_up_counts_in_seconds_and_not_in_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell that is killed often has warm-up often: its rate is of the warm steps, its seconds of all."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock, total = Throughput(torch.device("cpu"), batch=8), 0.0
    for step in range(1, 13):
        clock.resume()
        now[0] += 10.0 if step <= Throughput.WARM_UP else 1.0
        clock.count()
        if step in (2, 7, 12):  # a checkpoint and two lines of the journal
            total += clock.pause()
            now[0] += 100.0  # what is done between steps is not training
        if step in (7, 12):
            assert clock.window() == 8.0
    assert total == 5 * 10.0 + 7 * 1.0


def test_the_overhead_of_a_matrix_is_its_wall_time_over_its_training_and_its_parts_add_up() -> None:
    from bench.studies.matrix import Launch, summary

    cell = {"load": 1.0, "train": 10.0, "beside": 1.0, "evaluate": 2.0}
    found = summary([cell] * 4, Launch(begun=100.0, first=101.0, last=130.0, report=132.0, ended=140.0), jobs=2)
    assert found["factor"] == 2.0 and found["factor_to_report"] == 1.6
    assert sum(found["shares"].values()) == pytest.approx(1, abs=0.003)
    assert {name: round(80 * found["shares"][name]) for name in ("train", "plan", "between", "report", "mlflow")} == {
        "train": 40,
        "plan": 2,
        "between": 2,
        "report": 4,
        "mlflow": 16,
    }


@pytest.mark.thorough
@pytest.mark.parametrize("matrix", ["systems", "quickstart"])
def test_the_overhead_study_times_a_long_cell_and_a_short_one(matrix: str) -> None:
    """It knew no images that are sampled as they are needed, and ended at the first step of either size."""
    from bench.studies import overhead

    found = overhead.measured(overhead.cell_of(ROOT / "configs" / f"{matrix}.yaml"), windows=3)
    assert found["windows"] == 3 and found["ratio_median"] > 0 and found["probe_share"] > 0
