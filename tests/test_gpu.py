"""What only a GPU shows: bf16, compilation, device events, peak memory, MFU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import planned, run_all

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_compiled_cell_in_bf16_measures_its_cost(tmp_path: Path) -> None:
    made, store = planned(
        tmp_path, train__device="cuda", train__steps=200, train__log_every=20, sample__grid_every=1000
    )
    train = made.cells[0].spec.config.train
    assert (train.precision, train.compile) == ("bf16", "on")
    assert run_all(made, store)[0].status == "done", store.cell(made.cells[0].row.cell).log.read_text()
    result = store.cell(made.cells[0].row.cell).result()
    assert result is not None
    assert {"train_peak_allocated_bytes", "train_peak_reserved_bytes", "train_images_per_second"} <= set(result.cost)
    assert "gpu" in result.provenance["hardware"]


def test_out_of_memory_is_a_row_and_not_a_crash(tmp_path: Path) -> None:
    made, store = planned(tmp_path, train__device="cuda", train__batch=2_000_000, train__compile="off")
    assert run_all(made, store)[0].status == "oom"


def test_exact_mode_repeats_bit_by_bit(tmp_path: Path) -> None:
    weights = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made, store = planned(tmp_path / name, train__device="cuda", train__exact=True, train__compile="off")
        assert run_all(made, store)[0].status == "done"
        path = store.cell(made.cells[0].row.cell).checkpoints / "step-000000012.ckpt"
        weights.append(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
