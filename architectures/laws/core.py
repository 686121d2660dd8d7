"""What a law is, what it holds a scheme to, and how a scheme is checked against all of them."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from architectures.backbone import DiT, create, fitting, resolve_options
from architectures.prompt import Captions, FeatureBatch, Features, Labels, PromptKind, Slots, index_prompt
from architectures.registry import origin, scheme_class
from architectures.scheme import BackboneConfig, Facts

CONFIG = BackboneConfig(width=32, depth=3, heads=2, patch=4)
LABELS, CAPTIONS, SLOTS, FEATURES = Labels(5), Captions(20, 7, depth=1), Slots(9, 5), Features(12, 10, 6)
PROMPTS: dict[str, PromptKind] = {"labels": LABELS, "captions": CAPTIONS, "slots": SLOTS, "features": FEATURES}
MOVED = 1e-4  # an output that moved less than this does not depend on what was changed


class LawViolation(AssertionError):
    """A law that a scheme breaks; the message says what was observed."""


@dataclass
class SchemeUnderTest:
    """One scheme with its options, which builds the small models that laws need: the same for the same arguments."""

    scheme: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def published(self) -> bool:
        """Whether its options are its defaults, which its facts describe."""
        return resolve_options(self.scheme, self.options) == scheme_class(self.scheme).resolve({})

    def build(self, kind: PromptKind = LABELS, *, size: int = 16, seed: int = 0, **more: Any) -> DiT:
        """Its model with its initial weights. `more`: config, in_channels, out_channels, or options."""
        given: dict[str, Any] = {"config": CONFIG, "in_channels": 3, "out_channels": None} | more
        config: BackboneConfig = given.pop("config")
        kind = self.kind(kind, size, config.patch)
        return create(self.scheme, config, image_size=size, prompt=kind, seed=seed, **{**self.options, **given})

    def random(self, kind: PromptKind = LABELS, scale: float = 0.2, **more: Any) -> DiT:
        """Its model with every parameter random, so that no zero hides what is wrong."""
        return randomised(self.build(kind, **more), scale=scale)

    def kind(self, kind: PromptKind = LABELS, size: int = 16, patch: int = CONFIG.patch) -> PromptKind:
        """The kind of prompt as it is tried with: of N tokens where `facts.length` is `tokens`, otherwise as it is."""
        return fitting(self.scheme, kind, (size // patch) ** 2)

    def inputs(
        self, kind: PromptKind = LABELS, batch: int = 4, *, size: int = 16, patch: int = CONFIG.patch
    ) -> tuple[Tensor, Tensor, Any]:
        """Inputs of its models, see `inputs`."""
        return inputs(self.kind(kind, size, patch), batch, size)

    def facts(self) -> Facts:
        """What it declares with these options: with its defaults, what its class does."""
        return scheme_class(self.scheme).facts if self.published else self.build().scheme.facts


def randomised(model: DiT, seed: int = 0, scale: float = 0.2) -> DiT:
    """Every parameter N(0, scale^2), weights of norms around 1."""
    noise = torch.Generator().manual_seed(seed)
    norms = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=scale, generator=noise)
            if id(parameter) in norms:
                parameter.add_(1)
    return model


def inputs(kind: PromptKind = LABELS, batch: int = 4, size: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Any]:
    """Inputs of a model: x (B, 3, size, size), t (B,), and prompts of which some are padded."""
    noise = torch.Generator().manual_seed(seed)
    x, t = torch.randn(batch, 3, size, size, generator=noise), torch.rand(batch, generator=noise)
    if isinstance(kind, Labels):
        return x, t, torch.arange(batch) % kind.classes
    if isinstance(kind, Captions):
        ids = torch.randint(1, kind.vocabulary, (batch, kind.length), generator=noise)
        ids[1:, -3:] = 0
        return x, t, ids
    if isinstance(kind, Slots):
        return x, t, torch.randint(1, kind.vocabulary, kind.null(batch).shape, generator=noise)
    mask = torch.ones(batch, kind.length, dtype=torch.bool)
    mask[1:, -2:] = False
    tokens = torch.randn(batch, kind.length, kind.width, generator=noise)
    return x, t, FeatureBatch(tokens, mask, torch.randn(batch, kind.pooled_width, generator=noise))


# --- a law ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Whether a scheme obeys one law.

    Attributes:
        law: its name.
        summary: what it demands, in a sentence.
        outcome: `holds`, `broken`, or `not tried` where an earlier law that it needs is broken.
        observed: what the check observed.
        seconds: that the check took.
    """

    law: str
    summary: str
    outcome: Literal["holds", "broken", "not tried"]
    observed: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Law:
    """One law.

    Attributes:
        name: of the law.
        summary: what it demands, in a sentence.
        check: observes a scheme and describes it; raises `LawViolation`.
    """

    name: str
    summary: str
    check: Callable[[SchemeUnderTest], str]

    def assert_holds(self, scheme: str, **options: Any) -> str:
        """What was observed.

        Raises:
            LawViolation: if the scheme breaks the law, by what it does or by an error of its own.
        """
        subject = SchemeUnderTest(scheme, options)
        with torch.random.fork_rng(devices=[]):
            try:
                return self.check(subject)
            except LawViolation:
                raise
            except Exception as error:
                raise LawViolation(_described(error, scheme)) from error

    def __str__(self) -> str:
        """The name in one word, as pytest shows it."""
        return self.name.replace(" ", "-")


LAWS: list[Law] = []  # in the order in which they are checked; the package fills it
FIRST = ("builds", "shapes")  # without these no other law can be checked
QUICK = ("builds", "shapes", "numbers")  # checked of a plugin before a matrix trains it


def law(name: str) -> Callable[[Callable[[SchemeUnderTest], str]], Law]:
    """A decorator that makes a law of a check, whose docstring is what the law demands."""
    return lambda check: Law(name, (check.__doc__ or "").strip().rstrip("."), check)


def check(scheme: str, options: dict[str, Any] | None = None, *, only: tuple[str, ...] = ()) -> Iterator[Verdict]:
    """Checks every law in turn (or those named), and yields whether the scheme obeys it.

    Raises:
        ValueError: if there is no such scheme or option, or its plugin cannot be imported.
    """
    resolve_options(scheme, options or {})
    missing = ""
    for one in LAWS:
        if only and one.name not in only:
            continue
        if missing:
            yield Verdict(one.name, one.summary, "not tried", f"needs {missing!r}")
            continue
        verdict = _verdict(one, scheme, options or {})
        missing = one.name if verdict.outcome == "broken" and one.name in FIRST else ""
        yield verdict


def _verdict(law: Law, scheme: str, options: dict[str, Any]) -> Verdict:
    outcome: Literal["holds", "broken"] = "holds"
    start = time.perf_counter()
    try:
        observed = law.assert_holds(scheme, **options)
    except LawViolation as error:
        outcome, observed = "broken", str(error)
    return Verdict(law.name, law.summary, outcome, observed, time.perf_counter() - start)


_violations: dict[tuple[type, str], str] = {}


def first_violation(scheme: str, options: dict[str, Any]) -> str:
    """The first of the quick laws that a scheme breaks, in a sentence; empty if none.

    A built-in scheme is not checked, any other once for the same options: a matrix asks for every seed.
    """
    if origin(scheme)["kind"] == "built-in":
        return ""
    key = (scheme_class(scheme), repr(sorted(options.items())))
    if key not in _violations:
        broken = [verdict for verdict in check(scheme, options, only=QUICK) if verdict.outcome == "broken"]
        _violations[key] = "".join(
            f"scheme {scheme!r} breaks the law {one.law!r} ({one.summary}): {one.observed}" for one in broken[:1]
        )
    return _violations[key]


# --- helpers of the checks --------------------------------------------------------------------------------------------


def _described(error: Exception, scheme: str) -> str:
    """An error in a sentence, with the line of the scheme's own file that it came through."""
    message = " ".join(str(error).split())[:300]
    file = getattr(sys.modules.get(scheme_class(scheme).__module__), "__file__", None) or ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f"{Path(file).name}, line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {message}"


def require(holds: object, otherwise: str) -> None:
    """Demands that something holds.

    Raises:
        LawViolation: with the sentence `otherwise`, if it does not.
    """
    if not holds:
        raise LawViolation(otherwise)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """The largest difference of each image, (B,)."""
    return (a - b).flatten(1).abs().amax(1)


def rows(prompt: Any, order: list[int]) -> Any:
    """The prompts of a batch in another order, of any kind."""
    return index_prompt(prompt, torch.tensor(order))
