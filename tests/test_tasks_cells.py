"""A cell on a task: what it learned is measured against the exact denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from kit import assert_same
from tiny import matrix_file, planned
from torch import Tensor

from bench.config import load as config
from bench.config.matrix import expand
from bench.config.schema import ConfigError, Data, Evaluate, Train
from bench.data import datasets, prompts, task_data
from bench.data.tasks import registry
from bench.data.tasks.contract import Attribute, Slot, Task
from bench.measure import curves, points, task
from bench.measure.sampling import sample_exact
from bench.run import cell
from bench.run.checks import check_cell
from bench.store import journal
from bench.training.checkpoints import load_checkpoint
from bench.training.ranks import ALONE

SIZES = (3, 9, 4)  # tone, place, brightness (which the prompt does not name)


class Blob(Task):
    """A tone for the whole image, and a white cell in one of nine places."""

    name = "blob"
    says = "the whole image against one token"
    levels: ClassVar[Mapping[str, Mapping[str, Any]]] = {"easy": {}, "medium": {}, "hard": {}}

    @property
    def slots(self) -> tuple[Slot, ...]:
        return Slot("tone", ("red", "green", "blue")), Slot("place", tuple("abcdefghi"))

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        return Attribute("tone", "global", (0,), 1 / 3), Attribute("place", "local", (1,), 1 / 9)

    def sample(self, count: int, split: str, generator: torch.Generator) -> Tensor:
        return torch.stack([torch.randint(size, (count,), generator=generator) for size in SIZES], 1)

    def words(self, z: Tensor) -> Tensor:
        return z[..., :2]

    def paint(self, z: Tensor) -> Tensor:
        tone = torch.nn.functional.one_hot(z[..., 0], 3) - 0.5
        cells = torch.nn.functional.one_hot(z[..., 1], 9).view(*z.shape[:-1], 3, 3).float()
        cells = cells.repeat_interleave(4, -1).repeat_interleave(4, -2)[..., None, :, :]
        light = 0.4 + 0.2 * z[..., 2, None, None, None]
        return tone[..., None, None] * (1 - cells) + light * cells

    def modes(self, words: Tensor) -> Tensor:
        return torch.cat(
            [words[:, None].expand(-1, 4, -1), torch.arange(4)[None, :, None].expand(len(words), -1, -1)], 2
        )

    def world(self) -> Tensor:
        return torch.cartesian_prod(*map(torch.arange, SIZES))

    def object(self, z: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(z[:, 1], 9).bool()

    def layout(self, words: Tensor) -> Tensor:
        return self.ids(words)[:, None].expand(-1, self.tokens, -1)


@pytest.fixture(autouse=True)
def blob(monkeypatch: pytest.MonkeyPatch) -> Blob:
    made = Blob()
    monkeypatch.setattr(task_data, "task_of", lambda config: made)
    monkeypatch.setitem(registry._added, "blob", Blob)
    return made


@pytest.fixture
def subject(tmp_path: Any) -> Any:
    """A cell without its model: prepared data, prompts, config."""
    data = Data(source="task", task="blob", image_size=12, heldout_count=64)
    loaded = datasets.load(datasets.prepare(data, tmp_path))
    prompted = prompts.prepare(loaded, config_prompt(), tmp_path)
    settings = SimpleNamespace(evaluate=Evaluate(points=200, extractor="none"), train=Train(), data=data)
    return SimpleNamespace(
        data=loaded,
        prompts=prompted,
        config=settings,
        device=torch.device("cpu"),
        ranks=ALONE,
        autocast=lambda: torch.autocast("cpu", enabled=False),
        fixed=points.load(loaded, settings, tmp_path),  # type: ignore[arg-type]
        cache=tmp_path,
    )


def config_prompt() -> Any:
    from bench.config.schema import Prompt

    return Prompt()


def words_of(task: Task, ids: Tensor) -> Tensor:
    starts = task.ids(torch.zeros(1, len(task.slots), dtype=torch.long))
    return ids - starts


def test_the_exact_denoiser_has_no_excess_error_and_all_control(subject: Any, blob: Blob) -> None:
    def velocity(x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        return (x - blob.denoise(x, t, words_of(blob, prompt))) / t[:, None, None, None]

    subject.model = velocity
    found, _ = task.excess(subject, subject.fixed)
    assert found["excess_error"] < 1e-9 and found["score"] == pytest.approx(1, abs=1e-6)
    rows = np.arange(64)
    prompt = subject.prompts.rows("heldout", rows)
    noise = torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    how = config_sample()
    samples = sample_exact(velocity, subject.prompts.kind, prompt, noise, how)
    z = torch.from_numpy(np.array(subject.data.heldout.z))
    control = task.control(blob, samples, z[rows], task.guesses(blob, z))
    assert set(control) == {"tone", "place", "local", "global", "right"}
    assert all(value == 1 for value, _, _ in control.values())


def test_no_prompt_is_its_own_neighbour_when_chance_is_measured() -> None:
    """Of eight prompts two of sixteen turns came round to themselves, and chance was .125 too high or more."""
    blob = Blob()
    z = torch.tensor([[k % 3, k, 0] for k in range(8)])  # places differ, so that no guess at `local` is right
    assert task.guesses(blob, z)["local"] == 0 and task.guesses(blob, z[:2])["right"] == 0


def config_sample() -> Any:
    from bench.config.schema import Sample

    return Sample(sampler="euler", steps=8, guidance=1.0)


def test_the_blind_optimum_scores_nothing(subject: Any, blob: Blob) -> None:
    subject.model = lambda x, t, prompt: (x - blob.denoise_blind(x, t)) / t[:, None, None, None]
    found, intervals = task.excess(subject, subject.fixed)
    assert found["excess_error"] == pytest.approx(subject.fixed.gap, rel=1e-4)
    assert found["score"] == pytest.approx(0, abs=1e-4)
    assert intervals["score"][0] < 0 < intervals["score"][1]
    assert found["excess_error_object"] > found["excess_error_rest"]


def test_points_are_the_same_from_the_cache_and_made_again_when_damaged(subject: Any) -> None:
    again = points.load(subject.data, subject.config, subject.cache)
    assert torch.equal(again.conditional, subject.fixed.conditional) and torch.equal(again.x_t, subject.fixed.x_t)
    (file,) = (subject.cache / "points").glob("*.npy")
    file.write_bytes(b"x")
    warned: list[str] = []
    made = points.load(subject.data, subject.config, subject.cache, warned.append)
    assert warned and torch.equal(made.blind, subject.fixed.blind)
    later = replace(subject.config.evaluate, seed=1)
    other = SimpleNamespace(evaluate=later, train=Train(), data=subject.config.data)
    assert not torch.equal(points.load(subject.data, other, subject.cache).x_t, subject.fixed.x_t)  # type: ignore[arg-type]


def test_t_of_points_is_stratified_over_the_distribution_of_training(subject: Any) -> None:
    normal = torch.logit(subject.fixed.t)
    assert abs(float(normal.mean())) < 0.02 and float(normal.std()) == pytest.approx(1, abs=0.03)


def test_the_blind_arm_gets_the_null_prompt_alone(subject: Any, blob: Blob, tmp_path: Any) -> None:
    from bench.config.schema import Prompt

    blind = prompts.prepare(subject.data, Prompt(arm="blind"), tmp_path)
    assert blind.digest != subject.prompts.digest
    assert not blind.rows("heldout", np.arange(5)).any()
    assert not blind.of_words(blob, torch.ones(5, 2, dtype=torch.long)).any()


def test_images_to_90_are_read_off_the_journal() -> None:
    assert curves.reached({"right": {10: 0.2, 20: 0.91, 30: 0.95}}, 64, 30) == {"images_to_90": 1280.0, "mastered": 1.0}
    assert curves.reached({"right": {10: 0.2, 20: 0.3}}, 64, 30) == {"images_to_90": 1920.0, "mastered": 0.0}
    assert curves.reached({}, 64, 30) == {}


def test_a_key_of_data_that_is_no_field_is_a_knob_of_the_task(tmp_path: Any) -> None:
    file = matrix_file(tmp_path, data={"source": "task", "task": "labels", "labels": 512})
    assert config.load(file).data.knobs == {"labels": 512}
    assert config.load(file, ["data.labels=64"]).data.knobs == {"labels": 64}


def test_a_variant_sets_dotted_keys_of_its_cells(tmp_path: Any) -> None:
    slow = {"scheme": "adaln-zero", "name": "slow", "train.lr": 5.0e-4}
    cells = expand(config.load(matrix_file(tmp_path, variants=["adaln-zero", slow])))
    assert [cell.config.train.lr for cell in cells] == [1.0e-3, 5.0e-4]
    assert not cells[1].config.options


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": {"source": "task"}}, "data.task is needed"),
        ({"data": {"knobs": {"labels": 3}}}, "data.knobs is of tasks alone"),
        ({"variants": [{"scheme": "adaln-zero", "train.rl": 1}]}, "unknown key 'train.rl'; did you mean 'train.lr'"),
        ({"variants": [{"scheme": "adaln-zero", "train.lr": "x"}]}, "train.lr must be a number above 0"),
        ({"variants": [{"scheme": "adaln-zero", "train.lr": 1}], "axes": {"train.lr": [1, 2]}}, "is an axis"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Any, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        expand(config.load(matrix_file(tmp_path, **changes)))


@pytest.mark.thorough
def test_a_cell_that_died_between_checkpoints_gives_the_same_numbers(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for name, dies in (("calm", False), ("disturbed", True)):
        (tmp_path / name).mkdir()
        changes = {"source": "task", "task": "blob", "heldout_count": 64}
        plan, store = planned(
            tmp_path / name, data=changes, evaluate__extractor="none", evaluate__curve_every=3, evaluate__points=64
        )
        folder = store.cell(plan.cells[0].row.cell)
        if dies:
            with monkeypatch.context() as patch:
                patch.setattr(curves, "curve", _dying(curves.curve))
                assert cell.run(folder.path) == "failed"
        assert cell.run(folder.path) == "done", folder.state()
        results.append(folder.result())
    calm, disturbed = results
    assert calm is not None
    assert_same(disturbed, calm)
    assert calm.quality["images_to_90"] == 96 and calm.quality["mastered"] == 0
    assert {"right_template_20", "tone_template_20", "excess_error", "score"} <= set(calm.quality)
    assert calm.cost["evaluate_seconds"] > 0
    (last,) = (load_checkpoint(path) for path in folder.checkpoints.glob("*.ckpt"))  # what is done trains no more
    assert "optimizer_states" not in last and "ema" in last


def test_curves_of_scenes_end_where_the_judge_reads_the_same_samples_at_the_end(tmp_path: Any) -> None:
    plan, store = planned(tmp_path, evaluate__curve_every=5, evaluate__curve_samples=20)
    folder = store.cell(plan.cells[0].row.cell)
    assert cell.run(folder.path) == "done", folder.state()
    result, points = folder.result(), journal.curves(folder.journal)
    assert result is not None and list(points["local"]) == [5, 10, 12]
    for kind in ("right", "local", "global"):
        assert points[kind][12] == pytest.approx(result.quality[f"{kind}_judge1_20"]), kind
    assert {"images_to_90", "mastered"} <= set(result.quality)


def test_curves_are_refused_where_nothing_reads_control(tmp_path: Any) -> None:
    made = expand(config.load(matrix_file(tmp_path, evaluate__curve_every=5)))[0].config
    scenes = datasets.load(datasets.prepare(made.data, tmp_path))
    check_cell(made, scenes, "a cell")
    with pytest.raises(ConfigError, match="a cell: evaluate.curve_every 5: only tasks and scenes are read for control"):
        check_cell(made, replace(scenes, unseen=None), "a cell")


def test_a_microbatch_that_does_not_divide_the_batch_is_refused(tmp_path: Any) -> None:
    made = expand(config.load(matrix_file(tmp_path)))[0].config
    scenes = datasets.load(datasets.prepare(made.data, tmp_path))
    check_cell(made.changed({"train.microbatch": 4}), scenes, "a cell")
    with pytest.raises(ConfigError, match="a cell: train.microbatch 3 does not divide train.batch 8"):
        check_cell(made.changed({"train.microbatch": 3}), scenes, "a cell")


def _dying(real: Any) -> Any:
    """Curves whose third point is never measured."""

    def curve(*arguments: Any) -> Any:
        now, calls = real(*arguments), []

        def once() -> dict[str, float]:
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("the cell dies here")
            found: dict[str, float] = now()
            return found

        return once

    return curve


def test_what_other_code_of_a_task_prepared_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task whose size had changed met the images of before: a plugin's code was in the digest, its was not."""
    before = task_data.task_digest(Data(source="task", task="count"))
    assert task_data.task_digest(Data(source="task", task="count")) == before
    monkeypatch.setattr(task_data, "shared_code", lambda: "other")
    assert task_data.task_digest(Data(source="task", task="count")) != before
