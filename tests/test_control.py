"""Where a changed word lands, and what of a prompt a cell obeys."""

from __future__ import annotations

import numpy as np
import pytest

from bench.data import scenes
from bench.data.scenes import GLOBAL, LOCAL
from bench.measure import control, judge

SCENES = [scenes.sample_scene(1, "heldout", k) for k in range(40)]


@pytest.mark.parametrize("attribute", judge.ATTRIBUTES)
def test_one_word_is_changed_and_no_other(attribute: str) -> None:
    for scene in SCENES:
        other = control.changed(scene, attribute, seed=3)
        before, after = scenes.caption(scene), scenes.caption(other)
        assert before != after and other == control.changed(scene, attribute, seed=3)
        kept = [name for name in GLOBAL if getattr(scene, name) == getattr(other, name)]
        kept += [name for name in LOCAL if getattr(scene.items[0], name) == getattr(other.items[0], name)]
        assert len(kept) == 7 and attribute not in kept and scene.items[1:] == other.items[1:]


def test_a_change_inside_the_cell_is_local_and_one_everywhere_is_not() -> None:
    inside, everywhere = np.zeros((36, 36)), np.ones((36, 36))
    inside[0:12, 12:24] = 1
    assert control._locality(inside, [(0, 1)]) == pytest.approx(1)
    assert control._locality(everywhere, [(0, 1)]) == pytest.approx(0)
    assert control._locality(inside, [(2, 2)]) == pytest.approx(-1 / 8)
    assert control._locality(np.zeros((36, 36)), [(0, 0)]) is None
    assert control._locality(inside, [(0, 0), (0, 1)]) == pytest.approx(1)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_squares_keep_the_mean(size: int) -> None:
    change = np.random.default_rng(0).random((size, size))
    assert control._squares(change).shape == (9, 9)
    assert control._squares(change).mean() == pytest.approx(change.mean())


def test_real_images_change_where_their_prompts_say() -> None:
    for name in judge.ATTRIBUTES:
        values = []
        for k, scene in enumerate(SCENES[:12]):
            after = control.changed(scene, name, seed=0)
            a, b = (scenes.render(one, 32, seed=k).astype(float) for one in (scene, after))
            values.append(control._locality(np.abs(a - b).mean(-1), control._cells(scene, after, name)))
        mean = np.mean([value for value in values if value is not None])
        assert mean > 0.95 if name in LOCAL else abs(mean) < 0.3, (name, mean)


def test_heat_maps_put_the_object_at_the_centre() -> None:
    change = np.zeros((len(SCENES), 27, 27))
    for one, scene in zip(change, SCENES, strict=True):
        row, column = divmod(LOCAL["place"].index(scene.items[0].place), 3)
        one[9 * row : 9 * row + 9, 9 * column : 9 * column + 9] = 1
    made = np.array(control.heat(change, SCENES, "shape"))
    assert made.shape == (15, 15) and (made[6:9, 6:9] == 1).all() and made.sum() == 9
    assert np.array(control.heat(change, SCENES, "tone")).shape == (9, 9)
