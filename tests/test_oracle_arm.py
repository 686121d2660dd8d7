"""The oracle's arm of a task: the prompt as a map, one position an image token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import planned

from architectures import Slots, laws
from architectures.prompt import Encoded
from bench.config.schema import ConfigError, Data, Prompt
from bench.data import datasets, prompts
from bench.run import cell

ORACLE: dict[str, Any] = {
    "data": {"source": "task", "task": "scene", "heldout_count": 64},
    "evaluate__extractor": "none",
    "evaluate__points": 64,
}


def test_the_oracle_arm_gives_each_token_its_part_of_the_prompt(tmp_path: Any) -> None:
    data = Data(source="task", task="scene", image_size=12, heldout_count=64)
    loaded = datasets.load(datasets.prepare(data, tmp_path))
    arm, plain = (prompts.prepare(loaded, Prompt(arm=one), tmp_path) for one in ("oracle", "none"))
    task = loaded.task
    assert task is not None
    shown = task.layout(torch.from_numpy(np.array(loaded.heldout.words[:5])))
    assert arm.digest != plain.digest
    assert arm.kind == Slots(task.layout_words, task.tokens, shown.shape[2])
    assert torch.equal(arm.rows("heldout", np.arange(5)).view(shown.shape), shown)
    words = torch.from_numpy(np.array(loaded.heldout.words[:5]))
    assert torch.equal(arm.of_words(task, words).view(shown.shape), shown)


def test_each_token_is_modulated_by_its_own_part_and_the_time() -> None:
    """An oracle that only added the prompt was no bound: on `grain` modulated schemes did better than it."""
    model = laws.SchemeUnderTest("oracle").random(Slots(7, 16)).scheme
    d = model.backbone.width
    e_t, tokens = torch.randn(2, d), torch.randn(2, model.grid**2, d)
    other = tokens.index_add(1, torch.tensor([3]), torch.ones(2, 1, d))
    ours, theirs = (model.embed(e_t, Encoded(one, None, one.mean(1))).modulation for one in (tokens, other))
    apart = (ours - theirs).abs().sum(-1)
    assert (apart[:, 3] > 0).all() and (apart.sum(1) == apart[:, 3]).all()
    assert not torch.equal(ours, model.embed(e_t + 1, Encoded(tokens, None, tokens.mean(1))).modulation)


def test_a_cell_of_the_oracle_is_trained_and_measured(tmp_path: Any) -> None:
    plan, store = planned(tmp_path, variants=["oracle"], prompt={"arm": "oracle"}, **ORACLE)
    folder = store.cell(plan.cells[0].row.cell)
    assert cell.run(folder.path) == "done", folder.state()
    result = folder.result()
    assert result is not None and {"excess_error", "score", "right_template_20"} <= set(result.quality)


@pytest.mark.parametrize(
    ("scheme", "arm", "says"),
    [
        ("adaln-zero", "oracle", "scheme 'adaln-zero' takes no map"),
        ("oracle", "none", "a prompt token for each of the image's 9"),
    ],
)
def test_the_oracle_and_its_arm_go_together(tmp_path: Any, scheme: str, arm: str, says: str) -> None:
    with pytest.raises(Exception, match=says):
        planned(tmp_path, variants=[scheme], prompt={"arm": arm}, **ORACLE)


def test_an_arm_of_the_oracle_is_refused_in_any_row(tmp_path: Any) -> None:
    """Only the first row was asked whether its scheme takes a map."""
    mixed = ["adaln-zero", {"scheme": "adaln-zero", "name": "mapped", "prompt.arm": "oracle"}]
    for variants in (mixed, mixed[::-1]):
        with pytest.raises(ConfigError, match=r"mapped seed=0: prompt.arm oracle: scheme 'adaln-zero' takes no map"):
            planned(tmp_path, variants=variants, prompt={"arm": "none"}, **ORACLE)
