"""Laws that every task obeys: its exact denoiser is exact, and its prompt carries what is claimed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from architectures import Slots, initialise
from bench.data import task_prompts
from bench.data.tasks import exact
from bench.data.tasks.contract import Task
from bench.data.tasks.registry import TaskError, make, of_task, sample_batch
from bench.data.words import words as split_words
from bench.store import seeds

SAMPLES, ENOUGH = 2048, 50  # of a Monte Carlo mean; samples that must have weight
NEAR, VARIANTS = 4, 4096  # prompts that are varied slot by slot; words of a slot that are tried at most
POOLED, WIDTH = 64, 48  # words of a slot of which the pooled prompt is made; of the table that makes it


@dataclass(frozen=True)
class Verdict:
    """What came of a law: `observed` is a short sentence with the number."""

    law: str
    holds: bool
    observed: str

    @property
    def summary(self) -> str:
        """What the law says, in a sentence or two."""
        return " ".join((LAWS[self.law].__doc__ or "").split())


def noised(task: Task, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x_0, x_t, t and words of a batch; t over the range of `times`, not below .02."""
    x_0, words, _ = sample_batch(task, "heldout", seed, 0, count)
    generator = seeds.generator("task laws", task.name, seed)
    low, high = task.times
    t = max(low, 0.02) + (high - max(low, 0.02)) * torch.rand(count, generator=generator)
    at = t[:, None, None, None]
    return x_0, (1 - at) * x_0 + at * torch.randn(x_0.shape, generator=generator), t, words


def reads_back(task: Task, count: int) -> tuple[bool, str]:
    """The exact denoiser, sampled, reads back at .999 of every attribute."""
    splits = ["heldout", *(["unseen"] if task.has_unseen else [])]
    worst, name = 1.0, "every attribute"
    for split in splits:
        _, words, z = sample_batch(task, split, 0, 1, count)
        found = task.read(exact.sample_exact(task, words, seeds.generator("task laws", "sampled", split)))
        for one in task.attributes:
            share = float(task.right(found, z)[one.name].mean())
            share = 1 - share if one.lower else share
            if share < worst:
                worst, name = share, f"{one.name} ({split})"
    return worst >= 0.999, f"{worst:.4f} of {name}"


def is_the_mean(task: Task, count: int) -> tuple[bool, str]:
    """The residual x_0 - E[x_0 | x_t, prompt] is orthogonal to the estimate, to x_t and to 1, as a posterior mean's is.

    Both optima are held to it: means of products over a batch, in standard errors of the batch.
    """
    x_0, x_t, t, words = noised(task, count)
    worst, where = 0.0, ""
    for name, mean in (("given the prompt", task.denoise(x_t, t, words)), ("blind", task.denoise_blind(x_t, t))):
        for other, factor in (("itself", mean), ("x_t", x_t), ("1", torch.ones_like(x_t))):
            products = ((x_0 - mean).double() * factor).flatten(1).sum(1)
            error = float(products.std()) / math.sqrt(count)
            off = abs(float(products.mean())) / (error + 1e-4 * math.sqrt(x_0[0].numel()))
            if off >= worst:
                worst, where = off, f"{name}, against {other}"
    return worst < 4.5, f"{worst:.1f} standard errors {where}"


def matches_samples(task: Task, count: int) -> tuple[bool, str]:
    """Both optima match a Monte Carlo mean: samples weighted by how likely x_t is of each, no formula of the mixture.

    The squared distance is compared with its own Monte Carlo variance, at points where enough samples have weight.
    """
    points, ratios = max(8, count // 8), []
    x_0, words, _ = sample_batch(task, "heldout", 2, 0, points)
    generator = seeds.generator("task laws", task.name, "samples")
    t = 0.6 + 0.39 * torch.rand(points, generator=generator)
    at = t[:, None, None, None]
    x_t = (1 - at) * x_0 + at * torch.randn(x_0.shape, generator=generator)
    given, blind = task.denoise(x_t, t, words), task.denoise_blind(x_t, t)
    for k in range(points):
        samples, asked, _ = sample_batch(task, "train", 2, k, SAMPLES)
        own = _of_prompt(task, words[k : k + 1], samples, asked, generator)
        for mean, among in ((given[k], own), (blind[k], samples)):
            ratios += _distance(mean, x_t[k], t[k], among)
    if len(ratios) < 4:
        return False, f"{len(ratios)} of {2 * points} points have samples enough"
    found = sorted(ratios)[len(ratios) // 2]  # a sample that is rare and weighs much is no error of the task
    return found < 2.5, f"{found:.2f} of the variance, median of {len(ratios)} Monte Carlo means"


def _of_prompt(task: Task, words: Tensor, samples: Tensor, asked: Tensor, generator: torch.Generator) -> Tensor:
    """Images (n, 3, S, S) of a prompt (1, L): of its modes at random, or of samples that have it."""
    if not task.enumerable:
        return samples[(asked == words).all(1)]
    modes = task.modes(words)[0]
    z = modes[torch.randint(len(modes), (SAMPLES // 4,), generator=generator)]
    x_0 = task.paint(z)
    return x_0 + task.grain(z)[:, None, None, None] * torch.randn(x_0.shape, generator=generator)


def _distance(mean: Tensor, x_t: Tensor, t: Tensor, among: Tensor) -> list[float]:
    """|weighted mean of samples - mean|^2 over its variance; nothing where too few samples have weight."""
    x_0 = among.flatten(1).double()
    weights = (-(x_t.flatten().double() - (1 - t) * x_0).square().sum(1) / (2 * t.double() ** 2)).softmax(0)
    if 1 / float(weights.square().sum()) < ENOUGH:
        return []
    found = weights @ x_0
    variance = (weights.square() @ (x_0 - found).square()).sum()
    return [float((found - mean.flatten()).square().sum() / (variance + 1e-8 * len(found)))]


def is_ordered(task: Task, count: int) -> tuple[bool, str]:
    """The prompt helps: E|x_0 - x*_b|^2 - E|x_0 - x*_c|^2 = E|x*_b - x*_c|^2 > 0."""
    x_0, x_t, t, words = noised(task, count, 1)
    given, blind = task.denoise(x_t, t, words), task.denoise_blind(x_t, t)
    apart = (blind - given).square().flatten(1).mean(1)
    gained = (x_0 - blind).square().flatten(1).mean(1) - (x_0 - given).square().flatten(1).mean(1)
    difference = gained - apart
    off = abs(float(difference.mean())) / (float(difference.std()) / math.sqrt(count) + 1e-6)
    return float(apart.mean()) > 1e-4 and off < 4.5, f"E|x*_b - x*_c|^2 = {float(apart.mean()):.4f} a number"


def is_deterministic(task: Task, count: int) -> tuple[bool, str]:
    """A batch is a function of (seed, index); another index or seed is another batch."""
    one, again, other, seed = (sample_batch(task, "train", s, k, 16)[0] for s, k in ((0, 3), (0, 3), (0, 4), (1, 3)))
    holds = bool((one == again).all()) and not torch.equal(one, other) and not torch.equal(one, seed)
    finite = bool(one.isfinite().all()) and one.shape[1:] == (3, task.size, task.size) and one.dtype == torch.float32
    if not finite:
        return False, f"x_0 of shape {tuple(one.shape)} and {one.dtype}, or not finite; size is {task.size}"
    return holds, "the same twice" if holds else "not a function of seed and index"


def prompt_is_honest(task: Task, count: int) -> tuple[bool, str]:
    """z is one of modes(words(z)); these share the prompt, are sampled as often, and look different but for grain."""
    _, words, z = sample_batch(task, "train", 0, 0, count)
    sizes = torch.tensor([len(slot.words) for slot in task.slots])
    if words.shape != (count, len(sizes)) or bool((words < 0).any() or (words >= sizes).any()):
        return False, "words out of their slots"
    if not task.enumerable:
        return True, "modes are not listed"
    modes = task.modes(words)
    hits = (modes == z[:, None]).all(2)
    if not bool((hits.sum(1) == 1).all()) or not bool((task.words(modes) == words[:, None]).all()):
        return False, "a sample is not one of the modes of its prompt, or a mode has another prompt"
    few = modes[:NEAR][task.grain(modes[:NEAR]).amax(1) == 0]
    for images in task.paint(few).flatten(2):
        if len(images.unique(dim=0)) < len(images):
            return (
                False,
                "two modes of a prompt are one image: a column of z is not visible in it, and its bits are counted",
            )
    expected = count / modes.shape[1]
    chi = float(((hits.sum(0) - expected) ** 2 / expected).sum())
    degrees = modes.shape[1] - 1
    return chi < degrees + 5 * math.sqrt(2 * degrees) + 1e-9, f"{modes.shape[1]} modes, chi^2 {chi:.1f}"


def pooled_distinguishes(task: Task, count: int) -> tuple[bool, str]:
    """Schemes that get one vector get the mean of the prompt's tokens: of a fresh table it distinguishes prompts.

    The nearest two prompts are at least a tenth of the usual distance apart; of a task that says `pooled = False`, as
    where a word is the same in every slot, they are not.
    """
    rows = sample_batch(task, "train", 0, 0, count)[1].tolist()
    near = [row for one in rows[:NEAR] for own in task_prompts.variants(task, one, POOLED) for row in own]
    prompts = torch.tensor([*rows, *near]).unique(dim=0)
    if len(prompts) < 2:
        return True, "one prompt"
    encoder = initialise(Slots(task.vocabulary, prompts.shape[1]).encoder(WIDTH, frozenset({"pooled"})), 0)
    with torch.no_grad():
        apart = torch.pdist(encoder(task.ids(prompts)).pooled)
    share = float(apart.min() / apart.median())
    return (share >= 0.1) == task.pooled, f"nearest two of {len(prompts)} at {share:.2f} of the usual distance"


def reads_paint(task: Task, count: int) -> tuple[bool, str]:
    """read(paint(z)) shows the image of z, of training and of withheld pairs."""
    shares = []
    for split in ("train", *(["unseen"] if task.has_unseen else [])):
        _, _, z = sample_batch(task, split, 2, 0, count)
        if task.grain(z).any():
            x = sample_batch(task, split, 2, 0, count)[0]
            found = task.read(x)
            shares += [float(right.mean()) for right in task.right(found, z).values()]
        else:
            shares.append(float(task.same(task.read(task.paint(z)), z).float().mean()))
    return min(shares) >= 0.999, f"{min(shares):.4f}"


def withholds(task: Task, count: int) -> tuple[bool, str]:
    """No prompt of `unseen` is one of training's, and each slot's word varies there while all others stay.

    Where it does not, it follows from the others in all that is trained on: nothing teaches what `unseen` asks.
    """
    if not task.has_unseen:
        return True, "nothing is withheld"
    unseen = {tuple(row) for row in sample_batch(task, "unseen", 0, 0, count)[1].tolist()}
    seen = {tuple(row) for row in task.words(task.world()).tolist()}
    if unseen & seen:
        return False, f"{len(unseen & seen)} of {len(unseen)} prompts"
    fixed = [
        slot.name for k, slot in enumerate(task.slots) if len({row[:k] + row[k + 1 :] for row in seen}) == len(seen)
    ]
    return not fixed, f"slot {fixed[0]} follows from the others" if fixed else f"0 of {len(unseen)} prompts"


def layout_says_as_much(task: Task, count: int) -> tuple[bool, str]:
    """Prompts of the same layout have the same images, so that the oracle lacks nothing; ids are in range."""
    _, words, _ = sample_batch(task, "train", 0, 0, count)
    layout = task.layout(words)
    if layout.shape[:2] != (count, task.tokens) or bool((layout < 0).any() or (layout >= task.layout_words).any()):
        return False, f"layout of shape {tuple(layout.shape)}, or ids not below {task.layout_words}"
    if not task.enumerable:
        return True, "ids in range"
    means = task.paint(task.modes(words)).mean(1).flatten(1)
    _, groups = layout.flatten(1).unique(dim=0, return_inverse=True)
    first = torch.zeros(int(groups.max()) + 1, dtype=torch.long).scatter(0, groups, torch.arange(count))
    off = float((means - means[first[groups]]).abs().max())
    return off < 1e-5, f"images of one layout differ by {off:.1e}"


def text_says_as_much(task: Task, count: int) -> tuple[bool, str]:
    """Different prompts are different as text, word by word, and all words are known: what `data.words` trains on."""
    rows, fresh = (sample_batch(task, "train", 0, k, count)[1].tolist() for k in (0, 1))
    near = [row for one in rows[:NEAR] for own in task_prompts.variants(task, one, VARIANTS) for row in own]
    prompts, known = {tuple(row) for row in [*rows, *fresh, *near]}, set(task_prompts.vocabulary(task, rows)[0])
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for prompt in sorted(prompts):
        text = task.text(prompt)
        own = tuple(split_words(text))
        if text != task.text(prompt) or not own:
            return False, f"text {text!r} of words {prompt}: empty, or another one the second time"
        if (other := found.setdefault(own, prompt)) != prompt:
            return False, f"words {other} and {prompt} are both {text!r}, but for signs"
        if unknown := [word for word in own if word not in known]:
            return False, f"{unknown[0]!r} in {text!r} is in none of {count} prompts, nor in one that differs by a word"
    return True, f"{len(prompts)} prompts, of {max(map(len, found))} words at most"


LAWS: dict[str, Callable[[Task, int], tuple[bool, str]]] = {
    "reads back": reads_back,
    "is the mean": is_the_mean,
    "matches samples": matches_samples,
    "is ordered": is_ordered,
    "is deterministic": is_deterministic,
    "prompt is honest": prompt_is_honest,
    "pooled distinguishes": pooled_distinguishes,
    "reads paint": reads_paint,
    "withholds": withholds,
    "layout says as much": layout_says_as_much,
    "text says as much": text_says_as_much,
}


def check(task: Task, count: int = 256) -> Iterator[Verdict]:
    """Each law's verdict; an error of the task's own is a law that is broken."""
    for name, law in LAWS.items():
        try:
            yield Verdict(name, *law(task, count))
        except (Exception, SystemExit) as error:  # of whatever kind: the code is a stranger's
            yield Verdict(name, False, f"{type(error).__name__}: {error}"[:200])


def check_named(name: str, level: str, values: Mapping[str, Any], count: int = 256) -> Iterator[Verdict]:
    """Each law's verdict on a task by its name, at a level, with single knobs over it.

    Raises:
        TaskError: for a name, level or knob that is not there.
        PluginError: if a plugin's task cannot be made, naming it and its error.
    """
    with of_task(name, passing=(TaskError,)):
        task = make(name, level, values)
    yield from check(task, count)
