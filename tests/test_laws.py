"""Each law must be able to fail: a scheme that breaks it, and it alone is to be named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import architectures
from architectures import laws, register, registry
from architectures.conditioning.adaln_zero import AdaLNZero
from architectures.conditioning.cross_attention import CrossAttentionScheme

pytestmark = pytest.mark.usefixtures("forgotten")


def broken(law: str, scheme: type, **options: Any) -> str:
    """What is said of a scheme that breaks a law."""
    register("wrong")(scheme)
    with pytest.raises(laws.LawViolation) as caught:
        next(one for one in laws.LAWS if one.name == law).assert_holds("wrong", **options)
    return str(caught.value)


class Signature(AdaLNZero):
    """x <- x"""

    def __init__(self, width):
        super().__init__(width, 16)


class NoFacts(AdaLNZero):
    """x <- x"""

    facts = None  # type: ignore[assignment]


class NoEquations(AdaLNZero):
    __doc__ = None


class TooLong(AdaLNZero):
    """x <- [x ; c]"""

    def leave(self, h, c):
        return torch.cat([super().leave(h, c), c.vector[:, None]], dim=1)


class NotANumber(AdaLNZero):
    """x <- x / 0"""

    def leave(self, h, c):
        return super().leave(h, c) + (h.sum() * 0).log() * 0


class NoTime(AdaLNZero):
    """c = prompt"""

    def embed(self, e_t, prompt):
        return super().embed(e_t * 0, prompt)


class NotFree(AdaLNZero):
    """c = e_t + prompt"""

    facts = replace(AdaLNZero.facts, time="none")


class NoPrompt(AdaLNZero):
    """c = e_t"""

    def embed(self, e_t, prompt):
        return super().embed(e_t, prompt._replace(pooled=prompt.pooled * 0))


class Unmasked(CrossAttentionScheme):
    """x <- x + CA(x, all tokens)"""

    def embed(self, e_t, prompt):
        return super().embed(e_t, prompt._replace(mask=None))


class BatchNorm(AdaLNZero):
    """x <- x - mean over the batch"""

    def enter(self, x, c):
        return x - x.mean(0, keepdim=True)


class Silent(AdaLNZero):
    """x <- x"""

    def __init__(self, backbone, image_size):
        super().__init__(backbone, image_size)
        self.unused = nn.Linear(3, 3)


class NotIdentity(AdaLNZero):
    """x <- x + c"""

    def __init__(self, backbone, image_size):
        super().__init__(backbone, image_size, gate="one")


class OtherVector(AdaLNZero):
    """c = e_t"""

    facts = replace(AdaLNZero.facts, vector="timestep")


class OtherReads(AdaLNZero):
    """c = e_t"""

    facts = replace(AdaLNZero.facts, reads=frozenset({"pooled", "tokens"}))


class OtherFormula(AdaLNZero):
    """c = e_t"""

    facts = replace(AdaLNZero.facts, modulation_parameters="n*6*d*d")


class Excited(AdaLNZero):
    """c <- c sigmoid(W silu(V c))"""

    def __init__(self, backbone, image_size):
        super().__init__(backbone, image_size)
        d = backbone.width
        self.excite = nn.Sequential(nn.Linear(d, d // 4), nn.SiLU(), nn.Linear(d // 4, d))

    def embed(self, e_t, prompt):
        c = e_t + prompt.pooled
        c = c * self.excite(c).sigmoid()
        return super().embed(c, prompt._replace(pooled=c * 0))


class MoreBackbone(Excited):
    """c <- c sigmoid(MLP(c))"""

    def __init__(self, backbone, image_size):
        super().__init__(backbone, image_size)
        self.excite = self.mlp()


class Renamed(AdaLNZero):
    """x <- x"""

    def block(self, index):
        made = super().block(index)
        made.order = ("attend", "mlp")
        made.attend = made.attention
        del made.attention
        return made


class Global(AdaLNZero):
    """x <- x r"""

    def __init__(self, backbone, image_size):
        super().__init__(backbone, image_size)
        self.register_buffer("r", torch.randn(backbone.width))


class BadChoice(AdaLNZero):
    """x <- x"""

    def __init__(self, backbone, image_size, *, norm="layer"):
        super().__init__(backbone, image_size, norm=norm)

    @classmethod
    def options(cls):
        return {"norm": architectures.Option("the norm", ("layer", "instance"), default="layer")}


class Rounds(AdaLNZero):
    """x <- round(x)"""

    def enter(self, x, c):
        return x + 1e4 * (c.vector[:, None] * 1e3).sin()


class Forgets(CrossAttentionScheme):
    """x <- x of the tokens before, where the prompt is kept"""

    prompt_alone = True

    def enter(self, x, c):
        return x if c.kept is None else x.roll(1, 1)

    def block(self, index):
        made = super().block(index)
        made.keep = lambda y, c: (y, (y, y))
        return made


class Breaks(AdaLNZero):
    """x <- x if x > 0"""

    def enter(self, x, c):
        return x + 1 if x.device.type != "meta" and x.sum().item() > 1e9 else x


class Unsaved(AdaLNZero):
    """x <- x r"""

    made = 0

    def __init__(self, backbone, image_size):
        super().__init__(backbone, image_size)
        type(self).made += 1
        self.number = type(self).made

    def enter(self, x, c):
        return x * self.number


class Remembers(AdaLNZero):
    """x <- x + calls"""

    def __init__(self, backbone, image_size):
        super().__init__(backbone, image_size)
        self.calls = 0

    def enter(self, x, c):
        self.calls += 1
        return x + self.calls


class Dropout(AdaLNZero):
    """x <- dropout(x)"""

    def enter(self, x, c):
        return nn.functional.dropout(x, 0.5)


class LowStream(AdaLNZero):
    """x <- bf16(x)"""

    def block(self, index):
        made = super().block(index)
        made.register_forward_hook(lambda block, args, out: out.bfloat16())
        return made


class LowVectors(AdaLNZero):
    """s = bf16(s)"""

    def block(self, index):
        made = super().block(index)
        made.head.affine = nn.Linear(self.backbone.width, 6 * self.backbone.width)
        return made


CASES: list[tuple[str, type, str]] = [
    ("builds", Signature, "Error"),
    ("builds", NoFacts, "no `facts"),
    ("builds", NoEquations, "no equations"),
    ("shapes", TooLong, "leave gives .4, 17, 32. where .B, N, D. is .4, 16, 32."),
    ("numbers", NotANumber, "NaN or Inf"),
    ("image and time", NoTime, "another t gives the same"),
    ("image and time", NotFree, "facts.time is none, but another t moves"),
    ("prompt", NoPrompt, "another prompt .* the same"),
    ("padding", Unmasked, "pass c.mask"),
    ("batch", BatchNorm, "order of the batch|alone"),
    ("gradients", Silent, "scheme.unused.weight"),
    ("beginning", NotIdentity, "3 of 3 blocks move x"),
    ("what feeds c", OtherVector, "depends on: timestep . pooled prompt"),
    ("what it reads", OtherReads, "names tokens"),
    ("modulation parameters", OtherFormula, "18,432 at d=32, n=3, but 21,120"),
    ("roles", MoreBackbone, "scheme.excite.up.weight.* would count as the backbone's"),
    ("fair beginning", Renamed, "attention.* is not there"),
    ("fair beginning", Global, "scheme.r depends on torch's global seed"),
    ("options", BadChoice, "offers 'instance'"),
    ("low precision", Rounds, "bf16 differs"),
    ("precision of the stream", LowStream, "residual fp32 and positions sincos a stream is torch.bfloat16"),
    ("precision of the stream", LowVectors, "a head gives torch.bfloat16"),
    ("encoded prompt", Forgets, "what DiT.encode keeps of the prompt moves the output"),
    ("compiles", Breaks, "."),
    ("saves and loads", Unsaved, "computes something else"),
    ("no memory", Remembers, "after another call"),
    ("deterministic", Dropout, "two things"),
]


@pytest.mark.parametrize(("law", "scheme", "said"), CASES, ids=[f"{case[0]}-{case[1].__name__}" for case in CASES])
def test_a_scheme_that_breaks_a_law_is_reported(law: str, scheme: type, said: str) -> None:
    import re

    assert re.search(said, broken(law, scheme))


def test_every_law_is_broken_by_some_scheme() -> None:
    assert {case[0] for case in CASES} == {law.name for law in laws.LAWS}


def test_an_error_names_the_line_of_the_scheme_s_own_file() -> None:
    assert broken("shapes", Raises).startswith("test_laws.py, line ")


class Raises(AdaLNZero):
    """x <- 1 / 0"""

    def enter(self, x, c):
        return 1 / 0


def test_laws_that_depend_on_a_broken_one_are_not_tried() -> None:
    register("wrong")(Raises)
    outcomes = {verdict.law: verdict.outcome for verdict in laws.check("wrong")}
    assert outcomes["builds"] == "holds"
    assert outcomes["shapes"] == "broken"
    assert outcomes["numbers"] == "not tried"


@pytest.mark.parametrize("text", ["__import__('os')", "d.real", "d/2", "d[0]", "x", "lambda: 0", "2.5", "("])
def test_a_formula_is_arithmetic_and_no_program(text: str) -> None:
    with pytest.raises(ValueError, match="formula"):
        laws.formula(text, d=3, n=2)
    assert laws.formula("n*(6*d*d + 6*d) - d//2 + 2**n", d=3, n=2) == 2 * (54 + 18) - 1 + 4


def test_a_scheme_may_replace_a_part_of_the_backbone_and_say_so() -> None:
    class Own(Renamed):
        """x <- x"""

        facts = replace(AdaLNZero.facts, replaces=frozenset({"attention"}))

    register("own")(Own)
    assert next(law for law in laws.LAWS if law.name == "fair beginning").assert_holds("own")


def split(scheme: type) -> dict[str, int]:
    """Parameters by role of a small model."""
    register("excited")(scheme)
    return laws.SchemeUnderTest("excited").build().parameter_split()


def test_what_a_scheme_adds_without_a_role_counts_as_the_scheme_s() -> None:
    """A small MLP of its own on c: neither the backbone nor, unless declared, the modulation grows by it."""
    d, plain = laws.CONFIG.width, laws.SchemeUnderTest("adaln-zero").build().parameter_split()
    added = 2 * d * (d // 4) + d // 4 + d
    assert split(Excited) == plain | {"scheme": added, "total": plain["total"] + added}
    assert next(law for law in laws.LAWS if law.name == "roles").assert_holds("excited")


@pytest.mark.parametrize("role", ["modulation", "prompt"])
def test_a_declared_role_decides(role: str) -> None:
    class Declared(Excited):
        """c <- c sigmoid(W silu(V c))"""

        def __init__(self, backbone, image_size):
            super().__init__(backbone, image_size)
            self.excite.role = role

    plain, mine = laws.SchemeUnderTest("adaln-zero").build().parameter_split(), split(Declared)
    assert mine["scheme"] == 0
    assert mine[role] > plain[role]
    assert mine["backbone"] == plain["backbone"]


def test_a_role_of_another_name_is_refused() -> None:
    class Odd(Excited):
        """c <- c sigmoid(W silu(V c))"""

        def __init__(self, backbone, image_size):
            super().__init__(backbone, image_size)
            self.excite.role = "modulations"

    with pytest.raises(ValueError, match="Sequential.role 'modulations': choose backbone, modulation, prompt, scheme"):
        split(Odd)


@pytest.mark.parametrize("scheme", sorted(registry.BUILT_IN))
def test_of_a_built_in_scheme_every_parameter_has_a_role(scheme: str) -> None:
    own = {"registers": 8 * 32}  # its blank tokens, which serve neither prompt nor modulation
    assert laws.SchemeUnderTest(scheme).build().parameter_split()["scheme"] == own.get(scheme, 0)


@pytest.mark.parametrize("head", ["shared", "shared+table"])
def test_vectors_that_blocks_hand_on_are_no_stream(head: str) -> None:
    """DDT's decoder hands on a map of another width, or several vectors: the law failed by an error of its own."""
    (found,) = laws.check("ddt", {"head": head}, only=("precision of the stream",))
    assert found.outcome == "holds", found.observed
