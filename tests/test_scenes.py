"""`scenes`: what an image, its caption and its split promise."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import scenes
from bench.data.scenes import GLOBAL, LOCAL, Item, Scene, caption, generate, image_seed, parse, render, sample_scene

RING = Item("ring", "red", "small", "top left")
SCENE = Scene((RING, Item("square", "blue", "large", "centre")), "warm", "night", "grainy", "plain")


def _words(attributes: dict[str, tuple[str, ...]]) -> dict[str, st.SearchStrategy[str]]:
    return {name: st.sampled_from(words) for name, words in attributes.items()}


ITEMS = st.lists(st.builds(Item, **_words(LOCAL)), min_size=1, max_size=3, unique_by=lambda item: item.place)
SCENES = st.builds(Scene, items=ITEMS.map(tuple), **_words(GLOBAL))


def _mean(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, 3).mean(0)


# -------------------------------------------------------------------------------------------------------- captions


def test_caption_reads_as_promised() -> None:
    assert caption(SCENE) == (
        "a small red ring at the top left and a large blue square in the centre; "
        "warm tone, night, grainy, plain background"
    )


@settings(max_examples=200, deadline=None)
@given(SCENES)
def test_parse_inverts_caption(scene: Scene) -> None:
    assert parse(caption(scene)) == scene
    assert parse(f"  {caption(scene).upper().replace(' ', '  ')}\n") == scene


PHRASES = [phrase for words in (LOCAL | GLOBAL).values() for phrase in words]
VOCABULARY = {"a", "and", "in", "at", "the", "tone", "background", ",", ";", *" ".join(PHRASES).split()}


@settings(max_examples=50, deadline=None)
@given(SCENES)
def test_captions_use_only_the_vocabulary(scene: Scene) -> None:
    tokens = caption(scene).replace(",", " ,").replace(";", " ;").split()
    assert set(tokens) <= VOCABULARY
    assert all(word in tokens for item in scene.items for word in (item.shape, item.colour, item.size))


def test_vocabulary_is_small_and_no_word_means_two_attributes() -> None:
    assert len(VOCABULARY) < 100
    words = [word for choices in (LOCAL | GLOBAL).values() for word in choices]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "';"),
        ("a small red ring at the top left", "; "),
        ("a small red ring at the top left; night", "'night'"),
        ("a small pink ring at the top left; warm tone, night, grainy, plain background", "pink"),
        ("a small red ring in the top left; warm tone, night, grainy, plain background", "at the top left"),
        (caption(SCENE).replace("in the centre", "at the top left"), "two objects share a place"),
        ("a small red ring at the left, a large red disc at the top; warm tone, dusk, smooth, plain background", "and"),
        ("a small red ring at the left; warm tone, night, grainy, plain background; and more", "and more"),
    ],
)
def test_parse_says_what_is_wrong(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)) as error:
        parse(text)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_training_distribution_holds_no_withheld_combination(split: str) -> None:
    assert not any(scenes.withheld(sample_scene(5, split, index)) for index in range(2000))


def test_every_unseen_scene_holds_one_of_either_kind() -> None:
    found = [scenes.withheld(sample_scene(5, "unseen", index)) for index in range(2000)]
    assert all(len(kinds) == 1 for kinds in found)
    assert 800 < sum("local" in kinds for kinds in found) < 1200


def test_every_value_is_in_exactly_one_withheld_pair() -> None:
    for pairs, first, second in (
        (scenes.WITHHELD_LOCAL, LOCAL["shape"], LOCAL["colour"]),
        (scenes.WITHHELD_GLOBAL, GLOBAL["tone"], GLOBAL["background"]),
    ):
        assert sorted(pair[0] for pair in pairs) == sorted(first)
        assert sorted(pair[1] for pair in pairs) == sorted(second)


def test_streams_of_seeds_and_splits_differ() -> None:
    streams = [
        [sample_scene(seed, split, index) for index in range(20)] for seed in (0, 1, -1) for split in scenes.SPLITS
    ]
    assert all(a != b for a, b in combinations(streams, 2))
    assert len({image_seed(0, split, index) for split in scenes.SPLITS for index in range(100)}) == 300


# -------------------------------------------------------------------------------------------------------- images


def test_generation_does_not_depend_on_workers_or_chunks() -> None:
    whole = generate(300, 33, seed=3, split="train", workers=1)
    pieces = ((0, 7), (7, 200), (207, 93))
    parts = [generate(count, 33, seed=3, split="train", start=start, workers=3) for start, count in pieces]
    assert np.array_equal(whole.images, np.concatenate([part.images for part in parts]))
    assert whole.captions == [text for part in parts for text in part.captions]
    assert whole.scenes == [scene for part in parts for scene in part.scenes]


def test_generated_image_is_the_render_of_its_scene() -> None:
    made = generate(12, 32, seed=9, split="unseen", start=40)
    assert (len(made), made.images.shape, made.images.dtype) == (12, (12, 32, 32, 3), np.uint8)
    for offset, (image, text, scene) in enumerate(zip(made.images, made.captions, made.scenes, strict=True)):
        assert scene == sample_scene(9, "unseen", 40 + offset) == parse(text)
        assert np.array_equal(image, render(scene, 32, image_seed(9, "unseen", 40 + offset)))


def test_a_new_process_makes_the_same_bytes() -> None:
    """And nothing but numpy is imported for it."""
    code = (
        "import sys, hashlib; from bench.data.scenes import generate; made = generate(20, 32, seed=1, split='train');"
        "assert not {'torch', 'PIL', 'scipy'} & set(sys.modules);"
        "print(hashlib.sha256(made.images.tobytes()).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert runs[0].stdout == runs[1].stdout


def test_seed_changes_the_image_but_little() -> None:
    scene = replace(SCENE, texture="smooth", background="horizon")
    a, b = render(scene, 32, 0).astype(int), render(scene, 32, 1).astype(int)
    assert (a != b).any() and abs(a - b).mean() < 12


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize("name", [*LOCAL, *GLOBAL])
def test_no_two_values_look_alike(name: str, size: int) -> None:
    """Wherever jitter and phase fall: the nearest two images of different values differ more than rounding does."""
    scene = replace(SCENE, items=(RING,), time="noon")
    if name in LOCAL:
        variants = [replace(scene, items=(replace(RING, **{name: word}),)) for word in LOCAL[name]]
    else:
        variants = [replace(scene, **{name: word}) for word in GLOBAL[name]]
    images = [[render(scene, size, seed).astype(int) for seed in range(3)] for scene in variants]
    for one, other in combinations(images, 2):
        assert min(abs(a - b).max() for a in one for b in other) > 8


def test_objects_stay_in_their_cell_and_the_rest_is_untouched() -> None:
    setting = replace(SCENE, time="noon", texture="smooth", background="plain")
    image = render(replace(setting, items=(replace(RING, size="large"),)), 48)
    backdrop = image[-1, -1]
    cell, rest = image[:16, :16], image.copy()
    rest[:17, :17] = backdrop
    assert (cell != backdrop).any() and (rest == backdrop).all()


def test_edges_are_antialiased() -> None:
    """On the way from the backdrop to the square, a row passes through a colour between."""
    square = Item("square", "blue", "large", "centre")
    image = render(Scene((square,), "neutral", "noon", "smooth", "plain"), 32).astype(int)
    outside, inside = image[0, 0], image[16, 16]
    share = (image[16, :, 0] - outside[0]) / (inside[0] - outside[0])
    assert ((share > 0.05) & (share < 0.95)).any() and ((share == 0) | (share == 1)).sum() > 25


def test_area_does_not_depend_on_resolution() -> None:
    """The share of the image that an object covers is the same at 24 and at 96 pixels."""

    def share(size: int) -> float:
        scene = Scene((Item("cross", "green", "medium", "bottom"),), "neutral", "noon", "smooth", "plain")
        image = render(scene, size).astype(float)[..., 0]
        return float(((image[0, 0] - image) / (image[0, 0] - image.min())).mean())

    assert share(24) == pytest.approx(share(96), rel=0.05)


def test_setting_casts_its_light_on_the_whole_image() -> None:
    brightness = {time: _mean(render(replace(SCENE, time=time), 32)).mean() for time in GLOBAL["time"]}
    assert brightness["night"] < brightness["dusk"] < brightness["morning"] < brightness["noon"]
    red, _, blue = _mean(render(replace(SCENE, tone="warm", time="noon"), 32))
    assert red > blue + 30
    red, _, blue = _mean(render(replace(SCENE, tone="cool", time="noon"), 32))
    assert blue > red + 30


# --------------------------------------------------------------------------------------------------------- entropy


def test_local_and_global_attributes_hold_comparable_entropy() -> None:
    bits = scenes.entropies()
    assert all(1.5 <= bits[name] <= 3.2 for name in LOCAL | GLOBAL)
    assert abs(bits["local"] - bits["global"]) < 0.25
    assert bits["local"] < sum(bits[name] for name in LOCAL) and bits["global"] < sum(bits[name] for name in GLOBAL)


def test_stated_entropy_is_the_samples() -> None:
    made = [sample_scene(0, "train", index) for index in range(4000)]
    for name in LOCAL | GLOBAL:
        values = [getattr(thing, name) for scene in made for thing in (scene.items if name in LOCAL else [scene])]
        p = np.unique(values, return_counts=True)[1] / len(values)
        assert -(p * np.log2(p)).sum() == pytest.approx(scenes.entropies()[name], abs=0.01)


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: generate(2, 15, seed=0, split="train"), "16 pixels or more, not 15"),
        (lambda: render(SCENE, 0), "not 0"),
        (lambda: generate(-1, 32, seed=0, split="train"), "not -1"),
        (lambda: generate(1, 32, seed=0, split="train", start=-2), "not -2"),
        (lambda: generate(1, 32, seed=0, split="train", workers=0), "not 0"),
        (lambda: generate(1, 32, seed=0, split="test"), "'test': choose from train, heldout, unseen"),
        (lambda: sample_scene(0, "val", 0), "'val': choose from train"),
        (lambda: replace(RING, colour="pink"), "unknown colour 'pink': choose from red"),
        (lambda: replace(SCENE, time="tea"), "unknown time 'tea': choose from morning"),
        (lambda: replace(SCENE, items=()), "not 0"),
        (lambda: replace(SCENE, items=(RING, RING)), "share a place: top left"),
    ],
)
def test_nonsense_is_refused_with_the_choices(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_no_images_is_no_error() -> None:
    assert generate(0, 32, seed=0, split="train").images.shape == (0, 32, 32, 3)


def test_progress_counts_up_to_all() -> None:
    seen: list[int] = []
    generate(200, 32, seed=0, split="train", workers=2, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 200 and len(seen) > 1
