"""Prompt adherence on `scenes`: attributes read back by the judge, and where samples change when one word does.

Names of metrics: `local_judge1_400` is the mean of four local attributes, corrected for chance, over 400 held-out
prompts; `unseen_...` the same on combinations that training lacks, `guidance4_...` at guidance 4, `real_...` of real
held-out images, the ceiling; `locality_shape_swap_12` the share of a change of the word for shape, over 12 captions,
that falls inside the object's cell: 1 all of it, 0 no more than anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from architectures import Features
from bench.data import scenes
from bench.data.scenes import GLOBAL, LOCAL, Scene
from bench.measure import judge as judges
from bench.measure.evaluate import Measured
from bench.measure.passes import Pass
from bench.measure.rows import sampled
from bench.measure.sampling import Say, generate, initial_noise, prompt_texts
from bench.measure.sets import SampleSet, generate_set, heldout_set, sampling_rate
from bench.store.files import digest, sources
from bench.store.kept import load_value, save_value
from bench.store.metrics import METRICS, Measurement
from bench.store.seeds import derive
from bench.training.model import LoadedCell

MAIN = tuple(metric.kind for metric in METRICS if metric.every_set)
IN_CURVE = ("right", "local", "global")
MOST_REAL = 2000  # real images that ceiling and floor are read from
GRID = 9  # squares a side of a heat map, three for each place


def measure(subject: LoadedCell, folder: Path, cache: Path, say: Say, warn: Say) -> Measured:
    """Adherence of every attribute, over held-out and unseen prompts and along the guidance sweep.

    Nothing on data without scenes.
    """
    if not judged(subject):
        return Measured({})
    judge, card = judges.load()
    judge = judge.to(subject.device)
    ceiling, floor = _real(subject, judge, card["digest"], cache, say, warn)
    real = {replace(Measurement.parse(key), subset="real"): value for key, value in ceiling.items()}
    quality: dict[str, float] = {one.key: value for one, value in real.items()}
    sampling, passes = dict[str, list[float]](), list[Pass]()
    evaluate, slug = subject.config.evaluate, judges.slug()
    for request in _sets(subject):
        samples, took = generate_set(subject, request, folder, say, warn)
        passes += took if request.guidance is None else []
        texts = prompt_texts(subject.data, request.indices, request.split)
        scores = judges.score([scenes.parse(text) for text in texts], judges.read(judge, samples))
        kept = judges.summary(scores, floor)
        measured_on = slug, len(samples), "" if request.name == "heldout" else request.name
        chosen = kept if request.name == "heldout" else {name: kept[name] for name in MAIN}
        quality |= {Measurement.of(name, *measured_on).key: value for name, value in chosen.items()}
        intervals = judges.intervals(scores, floor)
        sampling |= {Measurement.of(name, *measured_on).key: ci for name, ci in intervals.items()}
    swapped = swaps(subject, evaluate.swaps, say)
    about = {"judge": slug, "judge_digest": card["digest"], "chance": floor}
    return Measured(quality | swapped.quality, sampling_rate(subject, passes), about, sampling, swapped.probes)


def judged(subject: LoadedCell) -> bool:
    """Whether the judge reads its samples: those of scenes."""
    return subject.data.unseen is not None and subject.data.task is None


def curve(subject: LoadedCell, cache: Path) -> Callable[[], dict[str, float]]:
    """What measures a point of the curves: adherence on a fixed small set of held-out prompts."""
    judge, card = judges.load()
    judge, evaluate = judge.to(subject.device), subject.config.evaluate
    _, floor = _real(subject, judge, card["digest"], cache, say=lambda text: None, warn=lambda text: None)
    rows = heldout_set(subject).indices[: evaluate.curve_samples]
    requested = [scenes.parse(text) for text in prompt_texts(subject.data, rows)]
    noise = initial_noise(evaluate.seed, range(len(rows)), subject.shape)
    prompt, batch = subject.prompts.rows("heldout", rows), subject.config.sample.batch

    def now() -> dict[str, float]:
        samples = generate(subject, prompt, noise, batch=batch)
        found = judges.summary(judges.score(requested, judges.read(judge, samples)), floor)
        return {name: found[name] for name in IN_CURVE}

    return now


def _sets(subject: LoadedCell) -> list[SampleSet]:
    """What is sampled: held-out prompts, unseen ones, and some of the held-out ones at every further guidance scale."""
    evaluate = subject.config.evaluate
    main = heldout_set(subject)
    assert subject.data.unseen is not None
    unseen = sampled(subject.data.unseen, evaluate.unseen, seed=evaluate.seed, name="unseen")
    few = main.indices[: evaluate.sweep_samples]  # in seeded order, so that the first ones are a sample
    sweep = [SampleSet(f"guidance{w:g}", "heldout", few, w) for w in evaluate.sweep]
    return [main, SampleSet("unseen", "unseen", unseen), *sweep]


def _real(
    subject: LoadedCell, judge: Any, weights: str, cache: Path, say: Say, warn: Say
) -> tuple[dict[str, float], dict[str, float]]:
    """Ceiling and floor: scores of real held-out images, and of chance; computed once for a data set and a judge."""
    heldout, seed = subject.data.heldout, subject.config.evaluate.seed
    rows = sampled(heldout, min(MOST_REAL, len(heldout)), seed=seed, name="real")
    named = digest([subject.data.key, weights, rows.tolist(), sources(Path(judges.__file__).parent)], 16)
    file = cache / "features" / f"{judges.slug()}-{named}.json"
    content = load_value(file, warn)
    if content is None:
        say("attributes of real images")
        prompted = [scenes.parse(text) for text in prompt_texts(subject.data, rows)]
        read = judges.read(judge, heldout.images[rows])
        floor = judges.chance(prompted, read)
        scores = judges.summary(judges.score(prompted, read), floor)
        ceiling = {Measurement.of(kind, judges.slug(), len(rows)).key: value for kind, value in scores.items()}
        content = {"ceiling": ceiling, "floor": floor}
        save_value(file, content)
    return content["ceiling"], content["floor"]


def changed(scene: Scene, attribute: str, seed: int) -> Scene:
    """The scene with one word changed: of its first object, or of its setting; to a free place, for a place."""
    choices = [word for word in (LOCAL | GLOBAL)[attribute] if word != _word(scene, attribute)]
    if attribute == "place":
        choices = [word for word in choices if word not in {item.place for item in scene.items}]
    word = choices[derive(seed, "swap", attribute, scenes.caption(scene)) % len(choices)]
    if attribute in GLOBAL:
        return replace(scene, **{attribute: word})  # type: ignore[arg-type]
    first, *rest = scene.items
    return replace(scene, items=(replace(first, **{attribute: word}), *rest))


def _word(scene: Scene, attribute: str) -> str:
    word: str = getattr(scene if attribute in GLOBAL else scene.items[0], attribute)
    return word


def swaps(subject: LoadedCell, count: int, say: Say) -> Measured:
    """Samples `count` captions with and without each change from the same noise, and measures where the change lands.

    Quality: for each attribute `locality_<attribute>_swap_<count>` and `change_...`, the mean change of a pixel as a
    share of the whole range. The probe `swap` holds heat maps, of this model and of real images.
    """
    if isinstance(subject.prompts.kind, Features):  # a cell has no encoder at hand
        return Measured({})
    seed = subject.config.evaluate.seed
    texts = prompt_texts(subject.data, sampled(subject.data.heldout, count, seed=seed, name="swaps"))
    originals = [scenes.parse(text) for text in texts]
    variants = {name: [changed(scene, name, seed) for scene in originals] for name in judges.ATTRIBUTES}
    captions = [scenes.caption(scene) for part in (originals, *variants.values()) for scene in part]
    prompt, _ = subject.prompts.encode(captions)
    noise = initial_noise(seed, range(count), subject.shape).repeat(1 + len(variants), 1, 1, 1)
    say(f"{len(variants)} words changed in {count} captions")
    samples = generate(subject, prompt, noise, batch=subject.config.sample.batch)
    real = np.stack([scenes.render(scenes.parse(text), subject.data.image_size, seed=seed) for text in captions])
    quality: dict[str, float] = {}
    probe: dict[str, Any] = {}
    for subset, images in (("", samples), ("real", real)):
        base, *others = np.split(images, 1 + len(variants))
        for (name, swapped), part in zip(variants.items(), others, strict=True):
            change = np.abs(part.astype(float) - base).mean(-1) / 255  # (n, S, S)
            pairs = zip(change, originals, swapped, strict=True)
            shares = [_locality(one, _cells(a, b, name)) for one, a, b in pairs]
            known = [value for value in shares if value is not None]
            if known:
                quality[Measurement.of(f"locality_{name}", "swap", count, subset).key] = float(np.mean(known))
            quality[Measurement.of(f"change_{name}", "swap", count, subset).key] = float(change.mean())
            probe.setdefault("real_swap" if subset else "swap", {})[name] = heat(change, originals, name)
    return Measured(quality, probes=probe)


def _cells(before: Scene, after: Scene, attribute: str) -> list[tuple[int, int]]:
    """(row, column) of the cells that the word refers to: the first object's, both for a place."""
    places = {scene.items[0].place for scene in (before, after)}
    return [divmod(LOCAL["place"].index(place), 3) for place in sorted(places)]


def _locality(change: NDArray[Any], cells: list[tuple[int, int]]) -> float | None:
    """(share inside the cells - their area) / (1 - their area) of a change (S, S); None where nothing changed."""
    if not change.any():
        return None
    coarse = _squares(change)
    inside = sum(coarse[3 * row : 3 * row + 3, 3 * column : 3 * column + 3].sum() for row, column in cells)
    area = len(cells) / 9
    return float((inside / coarse.sum() - area) / (1 - area))


def heat(change: NDArray[Any], before: list[Scene], attribute: str) -> list[list[float]]:
    """Mean change by square: (9, 9) of a global attribute, (15, 15) around the object's cell of a local one."""
    coarse = np.stack([_squares(one) for one in change])
    if attribute in GLOBAL:
        return _rounded(coarse.mean(0))
    total, count = np.zeros((15, 15)), np.zeros((15, 15))
    for one, scene in zip(coarse, before, strict=True):
        row, column = divmod(LOCAL["place"].index(scene.items[0].place), 3)
        y, x = 3 * (2 - row), 3 * (2 - column)
        total[y : y + GRID, x : x + GRID] += one
        count[y : y + GRID, x : x + GRID] += 1
    return _rounded(total / np.maximum(count, 1))


def _rounded(table: NDArray[Any]) -> list[list[float]]:
    rows: list[list[float]] = table.round(4).tolist()
    return rows


def _squares(change: NDArray[Any]) -> NDArray[Any]:
    """(S, S) -> (9, 9), means, each pixel shared between the squares that it lies in."""
    size = change.shape[-1]
    fine = F.interpolate(torch.from_numpy(change)[None, None], size=size * GRID, mode="nearest")
    return F.avg_pool2d(fine, size)[0, 0].numpy()
