"""What a scheme's blocks consist of, observed on a tiny model of it: which sub-layers, and what conditions each.

Nothing here knows a scheme. One pass through the model shows which vectors a own head returns and which operations
receive tokens of the prompt, so that a plugin's scheme is read as a built-in one is. A block that is not made of
sub-layers (modules with `op`, `norm`, `post` and `gate`) is one opaque part.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

import architectures

TINY = architectures.BackboneConfig(width=48, depth=6, heads=4, patch=4)  # 48: no rank of a placement
SIZE, CLASSES = 16, 4
NORMS = {"LayerNorm": "LayerNorm", "RMSNorm": "RMSNorm", "Identity": ""}
OPERATIONS = {"SelfAttention": "Self-attention", "CrossAttention": "Cross-attention", "GatedMLP": "MLP"}


@dataclass(frozen=True)
class Part:
    """One sub-layer.

    Attributes:
        op: what its branch computes. norm, post: the norms before and after it, empty if there are none.
        slots: which of shift, scale, angle and gate its own head gives it.
        gate: how the gate acts (`gate`, `tanh gate`, `1 + gate`), empty if there is none.
        tokens: whether the op reads the prompt's tokens beside its own sequence.
        vector: whether the op itself receives c.
        carries_modulated: the residual leaves after the modulation, not before the norm.
    """

    op: str
    norm: str = ""
    post: str = ""
    slots: tuple[str, ...] = ()
    gate: str = ""
    tokens: bool = False
    vector: bool = False
    carries_modulated: bool = False


@dataclass(frozen=True)
class BlockAnatomy:
    """One kind of block.

    Attributes:
        streams: the parts of the image's stream and, where there are two, of the prompt's.
        parallel: the parts share one norm and one gate and are beside each other.
        sequence: what the image's stream consists of: `image`, and `timestep` or `prompt` where they are in it.
        once: the part of the head computed once a pass, empty if there is none. own: the part of each block's own.
        where: which of the blocks are of this kind.
        joint: whether the two streams attend to one another. heads: how many it has.
        by_token: whether each token has vectors of its own.
    """

    streams: tuple[tuple[Part, ...], ...]
    sequence: tuple[str, ...] = ("image",)
    parallel: bool = False
    once: str = ""
    own: str = ""
    where: str = "every block"
    joint: bool = True
    heads: int = 0
    by_token: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of all streams."""
        return tuple(part for stream in self.streams for part in stream)


@dataclass(frozen=True)
class SchemeAnatomy:
    """A scheme's kinds of blocks, and what conditions them.

    Attributes:
        signals: what c is the sum of; empty if there is no c. tokens: what the condition's tokens are.
    """

    name: str
    source: str
    prompt: str
    signals: tuple[str, ...]
    tokens: tuple[str, ...]
    blocks: tuple[BlockAnatomy, ...]


def read_anatomy(scheme: str, **options: Any) -> SchemeAnatomy:
    """Builds a tiny model of the scheme, runs it once and reads its blocks.

    Raises:
        ValueError: for an unknown scheme or option.
    """
    prompt = architectures.fitting(scheme, architectures.Labels(CLASSES), TINY.grid(SIZE) ** 2)
    model = architectures.create(scheme, TINY, image_size=SIZE, in_channels=3, prompt=prompt, seed=0, **options)
    passes, condition = _run(model)
    facts = model.scheme.facts
    signals = () if facts.vector == "none" else tuple(facts.vector.split(" + "))
    tokens: tuple[str, ...] = ()
    if condition is not None and condition.tokens is not None:  # one more than the prompt has is the timestep's
        more = condition.tokens.shape[1] > getattr(prompt, "length", 1)  # a label is one token
        tokens = ("timestep", "prompt") if more else ("prompt",)
    kinds = [_block(block, observed, signals, tokens) for block, observed in zip(model.blocks, passes, strict=True)]
    named = architectures.NAMED.get(scheme)
    source = (named or facts).source.partition(";")[0]
    return SchemeAnatomy(scheme, source, facts.prompt, signals, tokens, _kinds(kinds))


# --- the pass -------------------------------------------------------------------------------------------------------


@dataclass
class _Pass:
    """What went through one block: its input, its output, and by module what heads returned and ops received."""

    received: Any
    returned: Any
    by_module: dict[nn.Module, Any]


def _run(model: architectures.DiT) -> tuple[list[_Pass], Any]:
    """One pass: a `_Pass` a block, and the condition that the blocks received."""
    outputs: dict[nn.Module, Any] = {}
    inputs: dict[nn.Module, Any] = {}

    def record(module: nn.Module, args: Any, output: Any) -> None:
        inputs[module], outputs[module] = args, output

    hooks = [module.register_forward_hook(record) for module in model.modules()]
    with torch.no_grad():
        model(torch.zeros(1, 3, SIZE, SIZE), torch.zeros(1), model.prompt_kind.null(1))
    for hook in hooks:
        hook.remove()
    passes = []
    for block in model.blocks:
        heads = {child: outputs[child] for child in block.children() if child in outputs}
        ops = {module: inputs[module] for module in block.modules() if module in inputs}
        passes.append(_Pass(inputs[block][0], outputs[block], {**ops, **heads}))
    last = list(model.blocks)[-1]
    return passes, inputs[last][1] if len(inputs[last]) > 1 else None


def _vectors(block: nn.Module, observed: _Pass) -> list[list[tuple[str, ...]]]:
    """For each head of a block, in order, the slots it gives each sub-layer."""
    return [
        [tuple(slot for slot, v in one._asdict().items() if v is not None) for one in output]
        for child in block.children()
        if (output := _returned(observed, child))
    ]


def _returned(observed: _Pass, child: nn.Module) -> list[Any]:
    """The vectors of each sub-layer that a head returned; none of another module."""
    output = observed.by_module.get(child)
    return output if isinstance(output, list) and all(hasattr(one, "_asdict") for one in output) else []


# --- one block ------------------------------------------------------------------------------------------------------


def _block(block: nn.Module, observed: _Pass, signals: tuple[str, ...], tokens: tuple[str, ...]) -> BlockAnatomy:
    sublayers = [child for child in block.children() if hasattr(child, "op") and hasattr(child, "norm")]
    heads = _vectors(block, observed)
    once, own = _placement(block) if heads else ("", "")
    several = isinstance(observed.returned, tuple)
    two = several and any(getattr(child, "role", None) == "prompt" for child in sublayers)
    after = observed.returned[0] if several else observed.returned
    sequence = ("image", *tokens) if not two and _longer(after) else ("image",)
    if not sublayers:
        opaque = Part(_words(type(block).__name__), tokens=bool(tokens) and len(sequence) == 1, vector=bool(signals))
        return BlockAnatomy(((opaque,),), sequence)
    texts = [child for child in sublayers if two and getattr(child, "role", None) == "prompt"]
    images = [child for child in sublayers if child not in texts]
    parallel = bool(heads) and len(heads[0]) < len(images)
    streams = [_stream(images, heads[0] if heads else [], observed)]
    if two:
        streams.append(_stream(texts, heads[1] if len(heads) > 1 else [], observed))
    given = [v for child in block.children() for one in _returned(observed, child) for v in one if v is not None]
    by_token = any(v.ndim == 3 for v in given)
    joint = getattr(block, "joint", True)
    return BlockAnatomy(tuple(streams), sequence, parallel, once, own, joint=joint, heads=len(heads), by_token=by_token)


def _longer(tokens: Any) -> bool:
    return isinstance(tokens, Tensor) and tokens.shape[1] > (SIZE // TINY.patch) ** 2


def _stream(sublayers: list[nn.Module], slots: list[tuple[str, ...]], observed: _Pass) -> tuple[Part, ...]:
    slots = slots + [()] * (len(sublayers) - len(slots))
    return tuple(_part(sublayer, given, observed) for sublayer, given in zip(sublayers, slots, strict=True))


def _part(sublayer: Any, slots: tuple[str, ...], observed: _Pass) -> Part:
    """The one place that reads a sub-layer's attributes."""
    extra = [v for v in observed.by_module.get(sublayer.op, ())[1:] if isinstance(v, Tensor) and v.is_floating_point()]
    x, u = torch.zeros(1), torch.ones(1)
    return Part(
        op=OPERATIONS.get(type(sublayer.op).__name__) or _words(type(sublayer.op).__name__),
        norm=_norm(sublayer.norm),
        post=_norm(sublayer.post),
        slots=slots,
        gate=_gate(sublayer.gate.function) if "gate" in slots else "",
        tokens=any(v.ndim == 3 for v in extra),
        vector=any(v.ndim == 2 for v in extra),
        carries_modulated=sublayer.carry(x, u) is u,
    )


def _norm(module: nn.Module) -> str:
    name = type(module).__name__
    return NORMS.get(name, _words(name))


def _gate(function: Any) -> str:
    """How a gate acts, from its value at 2."""
    value = float(function(torch.tensor(2.0)))
    known = {2.0: "gate", 3.0: "1 + gate", float(torch.tanh(torch.tensor(2.0))): "tanh gate"}
    return known.get(value, f"{getattr(function, '__name__', 'f')} gate")


def _words(name: str) -> str:
    """`SqueezeExcite` -> `Squeeze excite`."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+", name)
    return " ".join([parts[0], *(p if p.isupper() else p.lower() for p in parts[1:])]) if parts else name


def _placement(block: nn.Module) -> tuple[str, str]:
    """What of the head is computed once a pass and what is each block's own, from the parameters that a block has."""
    head = next(child for child in block.children() if getattr(child, "role", None) == "modulation" or _bare(child))
    shapes = [tuple(parameter.shape) for parameter in head.parameters()]
    matrices = [shape for shape in shapes if len(shape) == 2]
    if not shapes:
        return "shared head", ""
    if not matrices:
        return "shared head", "+ own table"
    if len(matrices) == 2 and matrices[0][0] == matrices[1][1] and len(shapes) == 2:
        return "shared head", "+ own low rank"
    if len(matrices) == 1 and matrices[0][1] != TINY.width:
        return "bottleneck", "own head"
    return "", "own head"


def _bare(child: nn.Module) -> bool:
    """A head without parameters: it only splits what is computed once a pass."""
    return not hasattr(child, "op") and next(child.parameters(), None) is None


def _kinds(blocks: list[BlockAnatomy]) -> tuple[BlockAnatomy, ...]:
    """The distinct kinds in order; a last block that alone differs is named and not shown."""
    from dataclasses import replace

    runs = [(kind, len(list(same))) for kind, same in groupby(blocks)]
    if len(runs) == 1:
        return (runs[0][0],)
    if len(runs) == 2 and runs[1][1] == 1:
        return (replace(runs[0][0], where="every block but the last"),)
    named = [replace(kind, where=f"first {Fraction(count, len(blocks))} of the blocks") for kind, count in runs[:-1]]
    return (*named, replace(runs[-1][0], where="the other blocks"))
