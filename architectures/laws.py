"""The laws that every scheme obeys, built in or a stranger's: `ditbench check NAME` runs them, and so does pytest.

    @pytest.mark.parametrize("law", laws.LAWS, ids=str)
    def test_law(law):
        law.hold("my-gate")          # raises laws.Broken with a sentence

A law takes a `Subject`, small models of one scheme made as it asks, and returns in words what it saw. All but those of
the first state draw every parameter anew: weights that begin at zero would hide what is wrong.
"""

from __future__ import annotations

import ast
import copy
import io
import operator
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from architectures.backbone import DiT, create
from architectures.prompt import Captions, FeatureBatch, Features, Labels, PromptKind, index_prompt
from architectures.registry import origin, scheme_class
from architectures.scheme import BackboneConfig, Facts, Scheme

CONFIG = BackboneConfig(width=32, depth=3, heads=2, patch=4)
LABELS, CAPTIONS, FEATURES = Labels(5), Captions(20, 7, depth=1), Features(12, 10, 6)
PROMPTS: dict[str, PromptKind] = {"labels": LABELS, "captions": CAPTIONS, "features": FEATURES}
SEEN = 1e-4  # an output that moved less than this did not see what was changed
COMMON = ("patches.", "time.", "head.")  # parameters outside the blocks that every scheme has


class Broken(AssertionError):
    """A law that a scheme breaks; the message says what was seen."""


@dataclass
class Subject:
    """A scheme under test: makes its models, the same ones for the same words."""

    scheme: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def published(self) -> bool:
        """Whether its options are its defaults, of which its facts speak."""
        return scheme_class(self.scheme).resolve(self.options) == scheme_class(self.scheme).resolve({})

    def build(self, kind: PromptKind = LABELS, *, size: int = 16, seed: int = 0, **more: Any) -> DiT:
        """Its model with its first weights. `more`: config, in_channels, out_channels, or options."""
        made: dict[str, Any] = {"config": CONFIG, "in_channels": 3, "out_channels": None} | more
        config = made.pop("config")
        return create(self.scheme, config, image_size=size, prompt=kind, seed=seed, **{**self.options, **made})

    def random(self, kind: PromptKind = LABELS, scale: float = 0.2, **more: Any) -> DiT:
        """Its model with every parameter drawn anew."""
        return randomised(self.build(kind, **more), scale=scale)

    def facts(self) -> Facts:
        return self.build().scheme.facts


def randomised(model: DiT, seed: int = 0, scale: float = 0.2) -> DiT:
    """Every parameter N(0, scale^2), weights of norms around 1."""
    draw = torch.Generator().manual_seed(seed)
    norms = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=scale, generator=draw)
            if id(parameter) in norms:
                parameter.add_(1)
    return model


def inputs(kind: PromptKind = LABELS, batch: int = 4, size: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Any]:
    """x (B, 3, size, size), t (B,), and prompts of which some are padded."""
    draw = torch.Generator().manual_seed(seed)
    x, t = torch.randn(batch, 3, size, size, generator=draw), torch.rand(batch, generator=draw)
    if isinstance(kind, Labels):
        return x, t, torch.arange(batch) % kind.classes
    if isinstance(kind, Captions):
        ids = torch.randint(1, kind.vocabulary, (batch, kind.length), generator=draw)
        ids[1:, -3:] = 0
        return x, t, ids
    mask = torch.ones(batch, kind.length, dtype=torch.bool)
    mask[1:, -2:] = False
    tokens = torch.randn(batch, kind.length, kind.width, generator=draw)
    return x, t, FeatureBatch(tokens, mask, torch.randn(batch, kind.pooled_width, generator=draw))


# --- what a law is ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """How a scheme stands to one law.

    Attributes:
        outcome: `holds`, `broken`, or `not tried` where an earlier law it stands on is broken.
        words: what was seen.
    """

    law: str
    says: str
    outcome: Literal["holds", "broken", "not tried"]
    words: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Law:
    """One law: its name, what it says in a sentence, and the function that looks."""

    name: str
    says: str
    look: Callable[[Subject], str]

    def hold(self, scheme: str, **options: Any) -> str:
        """What was seen.

        Raises:
            Broken: if the scheme breaks the law, by what it does or by an error of its own.
        """
        subject = Subject(scheme, options)
        with torch.random.fork_rng(devices=[]):
            try:
                return self.look(subject)
            except Broken:
                raise
            except Exception as error:
                raise Broken(_said(error, scheme)) from error

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


LAWS: list[Law] = []
FIRST = ("builds", "shapes")  # without these no other law can be looked at
QUICK = ("builds", "shapes", "numbers")  # tried of a plugin before a matrix trains it


def law(name: str, says: str) -> Callable[[Callable[[Subject], str]], Callable[[Subject], str]]:
    """Adds a law."""

    def add(look: Callable[[Subject], str]) -> Callable[[Subject], str]:
        LAWS.append(Law(name, says, look))
        return look

    return add


def check(scheme: str, options: dict[str, Any] | None = None, *, only: tuple[str, ...] = ()) -> Iterator[Verdict]:
    """Looks at every law in turn (or at those named), and yields how the scheme stands to it.

    Raises:
        ValueError: if there is no such scheme or option, or its plugin cannot be imported.
    """
    scheme_class(scheme).resolve(options or {})
    missing = ""
    for one in LAWS:
        if only and one.name not in only:
            continue
        if missing:
            yield Verdict(one.name, one.says, "not tried", f"stands on {missing!r}")
            continue
        begin = time.perf_counter()
        try:
            outcome, words = "holds", one.hold(scheme, **(options or {}))
        except Broken as error:
            outcome, words = "broken", str(error)
            missing = one.name if one.name in FIRST else ""
        yield Verdict(one.name, one.says, outcome, words, time.perf_counter() - begin)  # type: ignore[arg-type]


def _said(error: Exception, scheme: str) -> str:
    """An error in a sentence, with the line of the scheme's own file that it came through."""
    words = " ".join(str(error).split())[:300]
    file = getattr(sys.modules.get(scheme_class(scheme).__module__), "__file__", None) or ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f"{Path(file).name}, line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {words}"


def _need(holds: Any, words: str) -> None:
    if not holds:
        raise Broken(words)


def _far(a: Tensor, b: Tensor) -> Tensor:
    """The largest difference of each picture, (B,)."""
    return (a - b).flatten(1).abs().amax(1)


def _rows(prompt: Any, order: list[int]) -> Any:
    return index_prompt(prompt, torch.tensor(order))


# --- it can be made and run -------------------------------------------------------------------------------------------


@law("builds", "made from (backbone, image_size) and its options, with facts and equations, on `meta` too")
def builds(s: Subject) -> str:
    made = scheme_class(s.scheme)
    _need(isinstance(made, type) and issubclass(made, Scheme), f"{made!r} is no subclass of architectures.Scheme")
    facts = getattr(made, "facts", None)
    _need(isinstance(facts, Facts), "it has no `facts = Facts(...)`")
    assert isinstance(facts, Facts)
    _need((made.__doc__ or "").strip() and made.__doc__ != Scheme.__doc__, "its docstring holds no equations")
    _need(facts.source.strip(), "facts.source names neither a paper nor `none`")
    _need(facts.reads <= {"tokens", "pooled"}, f"facts.reads {set(facts.reads)}: choose of tokens, pooled")
    formula(facts.modulation_parameters, d=8, n=2)
    model = s.build()
    with torch.device("meta"):
        s.build()
    return f"{sum(p.numel() for p in model.parameters()):,} parameters at width {CONFIG.width}, depth {CONFIG.depth}"


@law("shapes", "(B, C, H, W) in, (B, C_out, H, W) out, at three sizes and for each kind of prompt")
def shapes(s: Subject) -> str:
    for size, patch, kind in ((16, 4, LABELS), (8, 2, CAPTIONS), (24, 8, FEATURES)):
        config = CONFIG.with_changes(patch=patch)
        x, t, prompt = inputs(kind, size=size)
        model = s.build(kind, size=size, config=config, out_channels=6)
        c = model.scheme.embed(model.time(t), model.prompt(prompt))
        h = model.scheme.enter(torch.zeros(4, (size // patch) ** 2, config.width), c)
        for block in model.blocks:
            h = block(h, c)
        left, due = model.scheme.leave(h, c), (4, (size // patch) ** 2, config.width)
        _need(left.shape == due, f"leave gives {tuple(left.shape)} where (B, N, D) is {due}")
        out, expected = model(x, t, prompt), (4, 6, size, size)
        _need(out.shape == expected, f"{tuple(out.shape)} where {expected} is due ({size} px, patch {patch})")
        _need(out.dtype == torch.float32, f"{out.dtype} where float32 went in")
    with torch.device("meta"):  # where a plan counts what it costs
        s.build()(torch.empty(2, 3, 16, 16), torch.empty(2), LABELS.null(2, "meta"))
    return "16, 8 and 24 px; labels, captions, features"


@law("numbers", "finite outputs and gradients at t = 0, t = 1 and between, for the null prompt too")
def numbers(s: Subject) -> str:
    for model in (s.build(), s.random()):
        x, _, prompt = inputs()
        for p in (prompt, LABELS.null(4)):
            out = model(x, torch.tensor([0.0, 0.3, 0.7, 1.0]), p)
            _need(out.isfinite().all(), f"{int((~out.isfinite()).sum())} of {out.numel()} outputs are NaN or Inf")
        out.square().mean().backward()
        bad = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        _need(not bad, f"the gradient of {_few(bad)} is NaN or Inf")
    return "all finite"


# --- what it sees -----------------------------------------------------------------------------------------------------


@law("image and time", "every picture's output depends on its x and on its t")
def depends_on_time(s: Subject) -> str:
    model, (x, t, prompt) = s.random(), inputs()
    out = model(x, t, prompt)
    image, moment = _far(model(x + 0.1, t, prompt), out).min(), _far(model(x, t * 0.5, prompt), out).min()
    _need(image > SEEN, "another x gives the same output")
    _need(moment > SEEN, f"another t gives the same output (it moved by {moment.item():.1e})")
    return f"another t moves it by {moment:.2g}"


@law("prompt", "every picture's output depends on its prompt, of each kind, and null is another prompt")
def depends_on_prompt(s: Subject) -> str:
    least = float("inf")
    for name, kind in PROMPTS.items():
        model, (x, t, prompt) = s.random(kind), inputs(kind)
        out = model(x, t, prompt)
        moved = _far(model(x, t, _rows(prompt, [1, 2, 3, 0])), out).min()
        _need(moved > SEEN, f"another prompt ({name}) gives the same output (it moved by {moved:.1e})")
        null = model(x, t, kind.null(4))
        _need(_far(null, out).min() > SEEN, f"the null prompt ({name}) gives the output of a prompt")
        dropped = model(x, t, kind.drop(prompt, torch.tensor([True, False, True, False])))
        whole = torch.stack([null[0], out[1], null[2], out[3]])
        _need(_far(dropped, whole).max() < 1e-4, f"a dropped prompt ({name}) is not the null prompt")
        least = min(least, moved.item())
    return f"labels, captions, features; another prompt moves it by {least:.2g} or more"


@law("padding", "tokens that the mask hides are not seen")
def padding(s: Subject) -> str:
    model, (x, t, prompt) = s.random(FEATURES), inputs(FEATURES)
    other = prompt._replace(tokens=torch.where(prompt.mask[..., None], prompt.tokens, 9.0))
    moved = _far(model(x, t, other), model(x, t, prompt)).max()
    _need(moved < 1e-5, f"padding moves the output by {moved:.1e}; pass c.mask to whatever reads the tokens")
    return "hidden tokens change nothing"


@law("batch", "pictures of a batch do not see one another: permuting it permutes the output")
def batch(s: Subject) -> str:
    model, (x, t, prompt) = s.random(CAPTIONS).eval(), inputs(CAPTIONS)
    out, order = model(x, t, prompt), [2, 0, 3, 1]
    size = out.abs().max().clamp(min=1)
    moved = _far(model(x[order], t[order], _rows(prompt, order)), out[order]).max() / size
    _need(moved < 1e-4, f"the order of the batch moves a picture's output by {moved:.1e}")
    alone = _far(model(x[:1], t[:1], _rows(prompt, [0])), out[:1]).max() / size
    _need(alone < 1e-4, f"a picture alone differs from the same in a batch by {alone:.1e}")
    return f"differences up to {max(moved.item(), alone.item()):.0e}"


@law("gradients", "every parameter learns, once weights have left their first values")
def gradients(s: Subject) -> str:
    for kind in PROMPTS.values():
        model, (x, t, prompt) = s.random(kind), inputs(kind)
        prompt = kind.drop(prompt, torch.tensor([False, False, False, True]))
        model(x, t, prompt).square().mean().backward()
        asked = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        silent = [n for n, p in asked if p.grad is None or not p.grad.abs().sum() > 0]
        _need(not silent, f"no gradient reaches {_few(silent)}")
    return f"{len(asked)} tensors"


# --- what it says of itself -------------------------------------------------------------------------------------------


@law("beginning", "the output begins at zero; blocks begin as x <- x exactly if the facts say so")
def beginning(s: Subject) -> str:
    model, (x, t, prompt) = s.build(), inputs()
    _need(model(x, t, prompt).abs().max() == 0, "the output Linear begins at zero, so the output must")
    c = model.scheme.embed(model.time(t), model.prompt(prompt))
    h = model.scheme.enter(torch.randn(4, 16, CONFIG.width, generator=torch.Generator().manual_seed(1)), c)
    still = []
    for block in model.blocks:
        before, h = h, block(h, c)
        if torch.is_tensor(h) and not torch.is_tensor(before):
            before = torch.cat(before, dim=1)  # this block joins the streams
        still.append(_same(h, before))
    if not s.published:
        return f"{sum(still)} of {len(still)} blocks begin as the identity (facts speak of the default options)"
    if model.scheme.facts.identity_at_init:
        _need(all(still), f"identity_at_init is declared, but {still.count(False)} of {len(still)} blocks move x")
        return "every block begins as x <- x, as declared"
    _need(not any(still), "identity_at_init is not declared, but a block begins as x <- x")
    return "no block begins as x <- x, as declared"


@law("what feeds c", "c sums what facts.vector says: timestep, pooled prompt, both or none")
def feeds(s: Subject) -> str:
    model, (_, t, prompt) = s.random(), inputs()
    said = {word for word in model.scheme.facts.vector.split(" + ") if word != "none"}
    known = {"timestep", "pooled prompt"}
    _need(
        said <= known, f"facts.vector {model.scheme.facts.vector!r}: join of {', '.join(sorted(known))}, or write none"
    )
    e_t, told = model.time(t), model.prompt(prompt)
    vector = getattr(model.scheme.embed(e_t, told), "vector", None)
    found: set[str] = set()
    if vector is not None:
        other: Any = model.scheme.embed(model.time(t * 0.5), told).vector
        found |= {"timestep"} if not torch.allclose(vector, other, atol=1e-6) else set()
        other = model.scheme.embed(e_t, told._replace(pooled=told.pooled.roll(1, 0))).vector
        found |= {"pooled prompt"} if not torch.allclose(vector, other, atol=1e-6) else set()
    words = " + ".join(sorted(found, reverse=True)) or "none"
    _need(found == said, f"facts.vector is {model.scheme.facts.vector!r}, but c.vector depends on: {words}")
    return words


@law("what it reads", "of tokens and pooled prompt it reads what facts.reads says, and nothing else")
def reads(s: Subject) -> str:
    model, (x, t, prompt) = s.random(FEATURES), inputs(FEATURES)
    out, declared = model(x, t, prompt), model.scheme.facts.reads
    changed = {
        "tokens": prompt._replace(tokens=prompt.tokens + prompt.tokens.roll(1)),
        "pooled": prompt._replace(pooled=prompt.pooled.roll(1, 0)),
    }
    for part, other in changed.items():
        moved = bool(_far(model(x, t, other), out).max() > SEEN)
        _need(moved or part not in declared, f"facts.reads names {part}, but they change nothing")
        _need(not moved or part in declared, f"it reads {part}, which facts.reads does not name")
    return " and ".join(sorted(declared))


@law("modulation parameters", "their number is the declared formula in d (width) and n (depth)")
def modulation_parameters(s: Subject) -> str:
    if not s.published:
        return "the formula speaks of the default options"
    for d, n in ((32, 3), (48, 5)):
        model = s.build(config=CONFIG.with_changes(width=d, depth=n))
        said, counted = model.scheme.facts.modulation_parameters, model.parameter_split()["modulation"]
        due = formula(said, d=d, n=n)
        _need(due == counted, f"{said} is {due:,} at d={d}, n={n}, but {counted:,} have the role `modulation`")
    return said


@law("fair beginning", "what all schemes have begins with the same weights, whatever torch's own seed is")
def fair_beginning(s: Subject) -> str:
    mine = dict(s.build().named_parameters())
    theirs = dict(create("adaln-zero", CONFIG, image_size=16, in_channels=3, prompt=LABELS, seed=0).named_parameters())
    shared = [part for part in ("attention", "mlp") if part not in s.facts().replaces]
    names = [n for n in theirs if n.startswith(COMMON) or any(f".{part}.op." in n for part in shared)]
    missing = [n for n in names if n not in mine]
    _need(not missing, f"{_few(missing)} is not there; name sub-layers attention and mlp, or say facts.replaces")
    other = [n for n in names if not torch.equal(mine[n], theirs[n])]
    _need(not other, f"{_few(other)} begins otherwise than in other schemes")
    torch.manual_seed(123)
    again = s.build().state_dict()
    drawn = [n for n, value in s.build().state_dict().items() if not torch.equal(value, again[n])]
    _need(not drawn, f"{_few(drawn)} depends on torch's global seed; declare how it begins with `starts`")
    _need(not torch.equal(mine["patches.weight"], s.build(seed=1).patches.weight), "another seed begins alike")
    return f"{len(names)} tensors equal those of adaln-zero"


@law("options", "every choice of every option builds and runs; any other is refused")
def options(s: Subject) -> str:
    made, (x, t, prompt) = scheme_class(s.scheme), inputs()
    tried = 0
    for name, option in made.options().items():
        for choice in option.choices:
            try:
                model = Subject(s.scheme, {name: choice}).random()
            except ValueError as error:
                raise Broken(f"its option {name} offers {choice!r}, but: {error}") from error
            _need(model(x, t, prompt).isfinite().all(), f"{name}={choice} gives NaN or Inf")
            tried += 1
        if option.choices:
            try:
                Subject(s.scheme, {name: "nonsense"}).build()
            except ValueError:
                continue
            raise Broken(f"its option {name} takes 'nonsense'")
    return f"{tried} choices" if tried else "none that list their choices"


# --- how it runs ------------------------------------------------------------------------------------------------------


@law("low precision", "bf16 agrees with fp32 to a few per cent")
def low_precision(s: Subject) -> str:
    model, (x, t, prompt) = s.random(scale=0.1), inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(x, t, prompt).float()
    high = model(x, t, prompt)
    error = ((low - high).norm() / high.norm()).item()
    _need(error < 0.05, f"bf16 differs from fp32 by {error:.1%}")
    return f"they differ by {error:.1%}"


@law("compiles", "torch.compile takes it whole, without a graph break")
def compiles(s: Subject) -> str:
    model, (x, t, prompt) = s.random(CAPTIONS), inputs(CAPTIONS)
    torch._dynamo.reset()
    try:
        out = torch.compile(model, backend="eager", fullgraph=True)(x, t, prompt)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise Broken(" ".join(lines[:4])[:300]) from error
    _need(_far(out, model(x, t, prompt)).max() < 1e-4, "compiled it computes something else")
    return "one graph"


@law("saves and loads", "its state_dict holds all of it")
def saves(s: Subject) -> str:
    model, again = s.random(), s.build(seed=5)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    _need(torch.equal(again(*inputs()), model(*inputs())), "saved and loaded it computes something else")
    return f"{file.getbuffer().nbytes / 1e3:.0f} kB"


@law("no memory", "a call leaves nothing behind for the next")
def no_memory(s: Subject) -> str:
    model, (x, t, prompt) = s.random(), inputs()
    first, before = model(x, t, prompt), copy.deepcopy(model.state_dict())
    model(x * 2, t.flip(0), prompt)
    model(x[:2], t[:2], prompt[:2])
    _need(torch.equal(model(x, t, prompt), first), "the same call gives something else after another call")
    kept = [n for n, value in model.state_dict().items() if not torch.equal(value, before[n])]
    _need(not kept, f"a call changes {_few(kept)}")
    return "the same before and after other calls"


@law("deterministic", "the same seed and the same inputs give the same output and gradients")
def deterministic(s: Subject) -> str:
    told = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = s.random()
        out = model(*inputs())
        out.square().mean().backward()
        told.append([out, *(p.grad for p in model.parameters() if p.grad is not None)])
    _need(all(torch.equal(a, b) for a, b in zip(*told, strict=True)), "made twice it computes two things")
    return "bit by bit"


# --- small things -----------------------------------------------------------------------------------------------------


def _same(a: Any, b: Any) -> bool:
    """Equality of what blocks pass on: tokens, or a pair of streams."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))


def _few(names: list[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


def formula(text: str, **values: int) -> int:
    """A formula of whole numbers and names, with + - * // and **.

    Raises:
        ValueError: for anything else.
    """

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            return ARITHMETIC[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Name) and node.id in values:
            return values[node.id]
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        raise ValueError(f"formula {text!r}: write it with + - * // ** in {' and '.join(values)}")

    try:
        return value(ast.parse(text, mode="eval").body)
    except SyntaxError as error:
        raise ValueError(f"formula {text!r}: {error.msg}") from error


def sound(scheme: str, options: dict[str, Any]) -> str:
    """Which of the quick laws a scheme breaks, in a sentence; empty if none. A built-in scheme is not asked, another
    once for the same options: a matrix asks for every seed."""
    if origin(scheme)["kind"] == "built-in":
        return ""
    key = (scheme_class(scheme), repr(sorted(options.items())))
    if key not in _asked:
        broken = [verdict for verdict in check(scheme, options, only=QUICK) if verdict.outcome == "broken"]
        _asked[key] = "".join(
            f"scheme {scheme!r} breaks the law {one.law!r} ({one.says}): {one.words}" for one in broken[:1]
        )
    return _asked[key]


_asked: dict[tuple[type, str], str] = {}
