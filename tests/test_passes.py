"""How fast samples are made: many windows a pass, so that no single moment decides a rate."""

from __future__ import annotations

import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from architectures import Labels
from bench.config.schema import Sample
from bench.measure import sets
from bench.measure.passes import WINDOWS, Pass, rates
from bench.measure.sampling import SAMPLERS, Batch, sample_exact
from bench.training.ddpm import Ddpm
from bench.training.flow import Flow
from bench.training.ranks import ALONE
from bench.training.stopwatch import Stopwatch


@given(st.integers(1, 300), st.integers(1, 4), st.floats(1e-4, 10), st.floats(0, 10))
def test_a_pass_of_even_speed_has_the_rate_of_all_its_samples_in_all_its_seconds(
    evaluations: int, passes: int, each: float, once: float
) -> None:
    even = Pass.of(64, [once / 2, *[each] * evaluations, once / 2])
    found = rates([even] * passes)
    assert found == pytest.approx([64 / (once + evaluations * each)] * len(found))
    assert len(found) >= passes * min(WINDOWS, evaluations)


def test_a_pass_that_stalled_once_keeps_its_rate() -> None:
    """One stop of 7 s in a pass of a fifth of a second was the rate of its cell: 18 images/s instead of 700."""
    seconds = [0.02, 0.021, 7.0, 0.02, 0.019, 0.02, 0.02, 0.02]
    assert statistics.median(rates([Pass(128, 0.001, seconds)])) == pytest.approx(128 / 0.161)


def test_smaller_batches_than_the_largest_are_left_out_and_nothing_has_no_rate() -> None:
    full, rest = Pass(128, 0.0, [1.0] * 5), Pass(3, 0.0, [0.5] * 5)
    assert rates([full, rest]) == rates([full]) and rates([]) == []


@pytest.mark.parametrize(
    ("process", "sampler", "evaluations"),
    [("flow", "euler", 6), ("flow", "heun", 12), ("ddpm", "ddpm", 6), ("ddpm", "ddim", 6)],
)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_each_evaluation_of_a_sampler_is_a_window_and_timing_changes_no_bit(
    process: str, sampler: str, evaluations: int, guidance: float
) -> None:
    assert sampler in SAMPLERS[process]

    def model(x: torch.Tensor, t: torch.Tensor, prompt: Any) -> torch.Tensor:
        found = 0.7 * x + 0.1 * (t + prompt)[:, None, None, None]
        return found if process == "flow" else torch.cat([found, torch.tanh(x)], dim=1)

    how = Sample(sampler=sampler, steps=6, guidance=guidance)
    noise = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    given = Labels(10), torch.tensor([1, 2, 3]), noise, how, Flow() if process == "flow" else Ddpm()
    watch = Stopwatch(torch.device("cpu"))
    watch.start()
    found = sample_exact(model, *given, watch)
    watch.stop()
    assert torch.equal(found, sample_exact(model, *given))
    assert len(Pass.of(3, watch.seconds()).evaluations) == evaluations


def subject(count: int) -> Any:
    """A cell with prompts and a model that nothing calls."""
    sample, train = SimpleNamespace(batch=4, steps=8), SimpleNamespace(compile="off")
    config = SimpleNamespace(sample=sample, train=train, evaluate=SimpleNamespace(seed=0))
    prompts = SimpleNamespace(rows=lambda split, indices: torch.from_numpy(indices))
    data = SimpleNamespace(task=None)
    return SimpleNamespace(
        model=torch.nn.Linear(2, 2), config=config, prompts=prompts, data=data, shape=(3, 4, 4), ranks=ALONE
    )


def test_a_set_of_one_batch_has_a_rate_of_warm_windows_also_where_it_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One short batch warms up; what was kept is not made again, nor warmed up for."""
    made: list[int | None] = []

    def sampled(subject: Any, batch: Batch) -> tuple[Any, Pass]:
        made.append(batch.steps)
        seconds = [9.0] if batch.steps else [0.01] * 8
        return np.zeros((batch.count, 4, 4, 3), np.uint8), Pass(len(batch.noise), 0.0, seconds)

    monkeypatch.setattr(sets, "sampled_batch", sampled)
    for count, due in ((4, [sets.WARM_UP, None]), (4, []), (8, [sets.WARM_UP, None])):
        request, one = sets.SampleSet("heldout", "heldout", np.arange(count)), subject(count)
        with torch.no_grad():
            one.model.weight.fill_(1.0), one.model.bias.zero_()
        samples, passes = sets.generate_set(one, request, tmp_path, say=lambda text: None)
        assert (len(samples), made) == (count, due)
        found = sets.sampling_rate(one, passes)
        assert found["sample_images_per_second"] == pytest.approx(4 / 0.08)
        assert "sample_images_per_second_iqr" in found and len(rates(passes)) >= 5
        made.clear()
