"""The judge reads what the renderer painted, and scores are what their words say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kit import precisions

from bench.data import scenes
from bench.data.scenes import GLOBAL, LOCAL, Item, Scene
from bench.measure import judge
from bench.measure.judge import network
from bench.measure.judge.score import agreement, corrected

SETTING = {"tone": "warm", "time": "night", "texture": "grainy", "background": "plain"}
TWO = Scene((Item("ring", "red", "small", "top left"), Item("square", "blue", "large", "centre")), **SETTING)


def seen(scene: Scene, **changes: str) -> judge.Seen:
    return judge.Seen(scene.items, **{**{name: getattr(scene, name) for name in GLOBAL}, **changes})


@pytest.fixture(scope="module")
def shipped() -> tuple[network.Judge, dict]:
    return judge.load()


# --- the shipped file -------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(("split", "size"), [("heldout", 32), ("unseen", 32), ("heldout", 64)])
def test_it_reads_every_attribute_of_images_it_never_saw(shipped, split: str, size: int) -> None:
    made = scenes.generate(1200, size, seed=77, split=split)
    found = judge.score(made.scenes, judge.read(shipped[0], made.images))
    for name in judge.ATTRIBUTES:
        assert found.by[name].mean() > 0.985, name  # the card holds 99 % over many more; this is its spread
    assert found.count.mean() > 0.985


def test_its_card_says_99_percent_and_that_it_is_small(shipped) -> None:
    card = shipped[1]
    for name, row in card["accuracy"].items():
        assert all(row[attribute] >= 0.99 for attribute in judge.ATTRIBUTES), (name, row)
    assert judge.JUDGE.stat().st_size < 2_000_000
    assert {"calibration", "confusion", "robustness", "seed", "made"} <= set(card)
    page = judge.JUDGE.with_name("README.md").read_text()
    assert f"{card['accuracy']['heldout, 32 px']['shape']:.2%}" in page


def test_its_answers_do_not_depend_on_the_batch(shipped) -> None:
    made = scenes.generate(30, 32, seed=5, split="heldout")
    assert judge.read(shipped[0], made.images, batch=30) == judge.read(shipped[0], made.images, batch=7)


def test_it_reads_in_single_precision(shipped) -> None:
    """On a GPU its products were TF32's, rounded to ten bits."""
    with precisions() as found:
        judge.read(shipped[0], scenes.generate(2, 32, seed=3, split="heldout").images)
    assert found == {("highest", False)}


def test_another_version_of_the_renderer_is_refused(shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "VERSION", 99)
    with pytest.raises(judge.JudgeError, match="trained on scenes version 1, this renderer is version 99.*make judge"):
        judge.load()


def test_a_damaged_or_missing_or_strange_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(judge.JudgeError, match="is not there; make it with `make judge`"):
        judge.load(tmp_path / "none.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(judge.JUDGE.read_bytes()[:5000])
    with pytest.raises(judge.JudgeError, match="cannot be read"):
        judge.load(cut)
    network.save(network.Judge(width=8), tmp_path / "thin.safetensors", {})
    with pytest.raises(judge.JudgeError, match="of another form"):
        judge.load(tmp_path / "thin.safetensors")


# --- scores -----------------------------------------------------------------------------------------------------------


def test_what_is_as_wanted_scores_one_everywhere() -> None:
    found = judge.score([TWO], [seen(TWO)])
    assert all(value == 1 for value in found.by.values()) and found.right == found.count == 1


def test_order_does_not_count_and_objects_are_matched_by_best_assignment() -> None:
    swapped = replace(TWO, items=TWO.items[::-1])
    assert judge.score([TWO], [seen(swapped)]).right == 1
    # Greedy matching would give the first object its twin and leave the second nothing.
    a, b = Item("ring", "red", "small", "top left"), Item("ring", "red", "large", "centre")
    wanted = Scene((a, b), **SETTING)
    shown = judge.Seen((replace(b, place="bottom"), replace(a, size="large")), **SETTING)
    agree = agreement(wanted, shown).sum(-1)
    best = max(agree[0, 0] + agree[1, 1], agree[0, 1] + agree[1, 0])
    assert sum(judge.score([wanted], [shown]).by[name][0] * 2 for name in LOCAL) == best


def test_a_missing_object_and_one_too_many_count_as_wrong() -> None:
    fewer = judge.score([TWO], [judge.Seen(TWO.items[:1], **SETTING)])
    assert [fewer.by[name][0] for name in LOCAL] == [0.5] * 4 and not fewer.count and not fewer.right
    extra = (*TWO.items, Item("disc", "green", "small", "bottom"))
    more = judge.score([TWO], [judge.Seen(extra, **SETTING)])
    assert [more.by[name][0] for name in LOCAL] == [2 / 3] * 4 and not more.right
    none = judge.score([TWO], [judge.Seen((), **SETTING)])
    assert [none.by[name][0] for name in LOCAL] == [0] * 4 and none.by["tone"] == 1


def test_a_wrong_word_is_wrong_in_its_attribute_alone() -> None:
    off = replace(TWO, items=(replace(TWO.items[0], colour="green"), TWO.items[1]))
    found = judge.score([TWO, TWO], [seen(off), seen(TWO, tone="cool")])
    assert found.by["colour"].tolist() == [0.5, 1] and found.by["shape"].tolist() == [1, 1]
    assert found.by["tone"].tolist() == [1, 0] and found.right.tolist() == [0, 0]


def test_images_of_something_else_are_worth_nothing_after_correction() -> None:
    shown = [scenes.sample_scene(3, "heldout", k) for k in range(600)]
    read = [seen(scene) for scene in shown]
    floor = judge.chance(shown, read)
    assert abs(floor["tone"] - 1 / 6) < 0.02 and floor["shape"] > 1 / 6  # matching helps
    wrong = judge.summary(judge.score(shown[300:] + shown[:300], read), floor)
    right = judge.summary(judge.score(shown, read), floor)
    assert abs(wrong["local"]) < 0.05 and abs(wrong["global"]) < 0.05
    assert right["local"] == right["global"] == right["control"] == right["right"] == 1
    assert right["raw_shape"] == 1 and abs(wrong["raw_tone"] - 1 / 6) < 0.06


def test_intervals_of_few_images_hold_the_mean() -> None:
    shown = [scenes.sample_scene(3, "heldout", k) for k in range(80)]
    found = judge.score(shown, [seen(scene, tone="warm") for scene in shown])
    floor = judge.chance(shown, [seen(scene) for scene in shown])
    mean = corrected(found, floor)["global"].mean()
    low, high = judge.intervals(found, floor)["global"]
    assert low < mean < high and high - low < 0.1
    bounds = judge.intervals(found, floor)
    assert "local" not in bounds, "images all alike say nothing of their chance"
    low, high = bounds["right"]
    assert 0 <= low <= found.right.mean() <= high <= 1 and high > low


def test_unequal_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 scenes requested, 1 images read"):
        judge.score([TWO, TWO], [seen(TWO)])


def test_network_takes_other_sizes() -> None:
    net = network.Judge(width=8).eval()
    for size in (16, 32, 64, 48):
        out = net(torch.zeros(2, 3, size, size))
        assert out["shape"].shape == (2, 9, 7) and out["tone"].shape == (2, 6)
    assert isinstance(judge.read(net, np.zeros((2, 32, 32, 3), np.uint8)), list)
