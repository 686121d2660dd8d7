"""Costs: counted where they can be, measured where they must, and each process answering for itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from bench.measure.cost import peak_flops
from bench.training.stopwatch import Stopwatch, Throughput, median_iqr, peak_memory

PEAK = (
    "import torch; from bench.training.stopwatch import peak_memory; "
    "print(peak_memory(torch.device('cpu'))['peak_resident_bytes'])"
)


def test_peak_memory_is_of_this_process_and_not_of_the_one_that_started_it() -> None:
    """Linux hands `ru_maxrss` down to whatever a process starts; a cell must not inherit its parent's peak."""

    def peak() -> float:
        return float(subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True).stdout)

    alone = peak()
    ballast = bytearray(3 * 2**30)
    ballast[::4096] = b"1" * len(ballast[::4096])
    assert peak_memory(torch.device("cpu"))["peak_resident_bytes"] > 3 * 2**30
    assert peak() < alone + 2**29
    del ballast


def test_median_and_spread() -> None:
    assert median_iqr([], "rate") == {} and median_iqr([3.0], "rate") == {"rate": 3.0, "rate_iqr": 0.0}
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
    [("NVIDIA H200", 989e12), ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA GB200", 2500e12), ("TPU", None)],
)
def test_peaks_are_dense_ones(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


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
    from bench.studies.matrix import summary

    cell = {"load": 1.0, "train": 10.0, "beside": 1.0, "evaluate": 2.0}
    found = summary([cell] * 4, wall=30.0, jobs=2)
    assert found["factor"] == 1.5 and sum(found["shares"].values()) == pytest.approx(1, abs=0.003)
    assert found["shares"]["train"] == 0.667 and found["shares"]["outside"] == 0.067
