"""Weights of a published system, from the released file's layout or diffusers', into the parameters of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from architectures.options import few
from architectures.systems.prefixes import Computable, Found, find, quantised, unfit

LAYOUTS = ("original", "diffusers")

# One key by which each system's files are known, to name a file that is of another system.
MARKS = {
    "dit": (
        "blocks.0.adaLN_modulation.1.weight",
        "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",
    ),
    "wan": (
        "head.modulation",
        "condition_embedder.time_proj.weight",
    ),  # three before PixArt, whose key their blocks have
    "krea2": ("txtfusion.projector.weight", "text_fusion.projector.weight"),
    "sana": ("attention_y_norm.weight", "caption_norm.weight"),
    "pixart": ("blocks.0.scale_shift_table", "transformer_blocks.0.scale_shift_table"),
    "flux2": ("single_stream_modulation.lin.weight", "single_stream_modulation.linear.weight"),
    "flux3": ("early_stream_modulations.image.lin.weight", "early_stream_modulations.image.linear.weight"),
    "chroma": ("distilled_guidance_layer.in_proj.weight",),
    "hidream-i1": ("double_stream_blocks.0.block.adaLN_modulation.1.weight",),
    "flux": ("double_blocks.0.img_mod.lin.weight", "single_transformer_blocks.0.proj_mlp.weight"),
    "sd3": ("joint_blocks.0.x_block.attn.qkv.weight", "transformer_blocks.0.norm1_context.linear.weight"),
    "qwen-image": ("transformer_blocks.0.img_mod.1.weight",),
    "qwen-image-2.1": ("txt_in.text_norm.weight",),
    "z-image": ("cap_pad_token",),
    "ernie-image": ("layers.0.adaLN_sa_ln.weight",),
    "hdm": ("shared_adaln_attn.0.weight",),
    "kandinsky5": ("visual_transformer_blocks.0.visual_modulation.out_layer.weight",),
    "glm-image": ("prior_token_embedding.weight",),
    "prx": ("blocks.0.txt_kv_proj.weight", "blocks.0.attention.txt_kv_proj.weight"),
    "lumina2": ("context_refiner.0.attention_norm1.weight", "time_caption_embed.caption_embedder.0.weight"),
}


class WeightsError(ValueError):
    """Weights that do not fit the model; the sentence names what is missing, left over, or of another shape."""


@dataclass(frozen=True)
class Move:
    """One parameter of ours, from one or several of theirs.

    Attributes:
        target: of ours.
        sources: of theirs, joined along `axis`; one name, or a tuple of them.
        axis: along which several are joined.
        change: what is done to it at last, such as swapping halves.
    """

    target: str
    sources: str | tuple[str, ...]
    axis: int = 0
    change: Callable[[Tensor], Tensor] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of theirs."""
        return (self.sources,) if isinstance(self.sources, str) else self.sources

    def __call__(self, state: Mapping[str, Tensor]) -> Tensor:
        """Ours, of their weights."""
        parts = [state[name] for name in self.names]
        tensor = torch.cat(parts, self.axis) if len(parts) > 1 else parts[0]
        return self.change(tensor) if self.change else tensor


def linear(target: str, source: str, change: Callable[[Tensor], Tensor] | None = None) -> list[Move]:
    """A Linear (or a convolution of the same numbers) with bias."""
    return [Move(f"{target}.{part}", f"{source}.{part}", change=change) for part in ("weight", "bias")]


def rows(target: str, sources: Sequence[str], *, bias: bool = True) -> list[Move]:
    """Several Linears, one under another, in one."""
    parts = ("weight", "bias") if bias else ("weight",)
    return [Move(f"{target}.{part}", tuple(f"{source}.{part}" for source in sources)) for part in parts]


def block_parts(
    target: str, source: str, parts: Mapping[str, tuple[str, str]], of: int, *, bias: bool = True
) -> list[Move]:
    """All parts of a block, by a table: our name -> those of each layout; several Linears in one are joined by spaces.

    Args:
        target: our block.
        source: theirs.
        parts: the table.
        of: the layout's index in `LAYOUTS`.
        bias: whether all parts have one.
    """
    made = []
    for ours, names in parts.items():
        made += rows(f"{target}.{ours}", [f"{source}.{name}" for name in names[of].split()], bias=bias)
    return made


def weight(target: str, source: str, change: Callable[[Tensor], Tensor] | None = None) -> list[Move]:
    """A Linear without bias, or a norm."""
    return [Move(f"{target}.weight", f"{source}.weight", change=change)]


def two(target: str, source: str, first: str, second: str) -> list[Move]:
    """Two Linears with an activation between, `up` and `out` here."""
    return linear(f"{target}.up", f"{source}.{first}") + linear(f"{target}.out", f"{source}.{second}")


def released_branches(target: str, source: str) -> list[Move]:
    """Attention and MLP of a block as DiT, PixArt and SD3 released them; `target` ends where the parts' names begin."""
    moves = linear(f"{target}attention.op.qkv", f"{source}.attn.qkv")
    moves += linear(f"{target}attention.op.out", f"{source}.attn.proj")
    return (
        moves + linear(f"{target}mlp.op.up", f"{source}.mlp.fc1") + linear(f"{target}mlp.op.down", f"{source}.mlp.fc2")
    )


def attention(target: str, source: str) -> list[Move]:
    """Self-attention of diffusers with its output."""
    return rows(f"{target}.qkv", [f"{source}.to_{u}" for u in "qkv"]) + linear(f"{target}.out", f"{source}.to_out.0")


def feed_forward(target: str, source: str) -> list[Move]:
    """The MLP of diffusers."""
    return linear(f"{target}.up", f"{source}.net.0.proj") + linear(f"{target}.down", f"{source}.net.2")


def swap(tensor: Tensor) -> Tensor:
    """(scale, shift) -> (shift, scale), and back."""
    return torch.cat(tensor.chunk(2)[::-1])


def cut(begin: int, end: int, axis: int = 0) -> Callable[[Tensor], Tensor]:
    """Rows (or columns) begin .. end."""
    return lambda tensor: tensor.narrow(axis, begin, end - begin)


def channels_first(patch: int) -> Callable[[Tensor], Tensor]:
    """Columns of a patch's Linear from the order (p, p, C) to (C, p, p)."""
    return lambda w: w.reshape(len(w), patch * patch, -1).transpose(1, 2).flatten(1) if w.ndim == 2 else w


def channels_last(patch: int) -> Callable[[Tensor], Tensor]:
    """Rows of the output's Linear from the order (C, p, p) to (p, p, C)."""
    return lambda w: w.reshape(-1, patch * patch, *w.shape[1:]).transpose(0, 1).flatten(0, 1)


def convert(model: Any, state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Ours from theirs, shaped as ours; linear in the weights, so that it carries gradients too."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    converted = {}
    for move in model.moves(layout):
        shape = shapes[move.target]
        try:
            tensor = move(state)
        except (RuntimeError, IndexError):  # a shape that cannot be cut or joined as the layout has it
            tensor = None
        if tensor is None or tensor.numel() != shape.numel() or _misfit(tensor, shape):
            theirs = " + ".join(f"{name} {tuple(state[name].shape)}" for name in move.names)
            raise WeightsError(f"{theirs} does not make the model's {move.target} {tuple(shape)}: another size?")
        converted[move.target] = tensor.reshape(shapes[move.target])
    return converted


def _misfit(tensor: Tensor, shape: torch.Size) -> bool:
    """Whether the first axes differ, so that a reshape would mix rows; tables and convolutions keep theirs."""
    return tensor.ndim >= 2 and len(shape) >= 2 and tensor.shape[0] != shape[0]


def load_published(
    model: nn.Module, state: Mapping[str, Tensor], *, ema: bool = False, say: Callable[[str], None] = lambda text: None
) -> str:
    """Loads weights of the same system, of the released file's layout or of diffusers'.

    Args:
        model: of `published`.
        state: name -> tensor. A prefix that the model's keys share is taken off; what lies beside the model (a VAE,
            text encoders, an optimiser) is passed over.
        ema: whether averaged weights are taken, where a file holds both.
        say: called with a sentence on what was taken off and passed over.

    Returns:
        The layout of the weights: `original` or `diffusers`.

    Raises:
        WeightsError: if it is another system's, of a variant that the system's `refuse` names, quantised or holds NaN,
            or naming the keys that are missing, left over or of another shape.
    """
    system: Any = model
    found, expected = _found(system, state.keys(), ema)
    if hasattr(system, "refuse") and (clause := system.refuse(Computable(state, found.names))):
        raise WeightsError(f"these weights of {system.system} are {clause}")
    if marked := quantised(found.names.values()):
        raise WeightsError(f"these weights of {system.system} are {marked}: they need their library; take whole ones")
    _check_keys(system, found, expected, state.keys())
    if reason := unfit((found.names[name] for name in sorted(expected)), state):
        raise WeightsError(f"weights of {system.system}: {reason}")
    _describe(found, say)
    converted = convert(model, Computable(state, found.names), found.layout)
    own = dict(model.state_dict())
    assert converted.keys() == own.keys(), sorted(converted.keys() ^ own.keys())  # the moves name every parameter
    model.load_state_dict(converted, assign=any(p.is_meta for p in model.parameters()))
    return found.layout


def _found(system: Any, keys: Set[str], ema: bool) -> tuple[Found, Set[str]]:
    """The layout that fits a file's keys best, and all keys of that layout."""
    best: tuple[Found, Set[str]] | None = None
    for layout in LAYOUTS:
        if not (moves := system.moves(layout)):
            continue
        expected = {name for move in moves for name in move.names}
        try:
            found = find(keys, layout, expected, ema=ema)
        except ValueError as error:
            raise WeightsError(f"weights of {system.system} in the {layout} layout: {error}") from error
        if best is None or found.share > best[0].share:
            best = found, expected
    assert best is not None
    return best


def _describe(found: Found, say: Callable[[str], None]) -> None:
    """Says what of a file's keys was taken off and passed over."""
    if found.prefix:
        say(f"the prefix {found.prefix} is taken off the keys")
    if found.beside:
        say(f"passed over, as no part of the model: {len(found.beside)} tensors ({few(found.beside)})")


def _check_keys(model: Any, found: Found, expected: Set[str], keys: Set[str]) -> None:
    """Refuses keys that are another system's, too few or too many.

    Raises:
        WeightsError: naming them.
    """
    system, unused = model.system, [re.compile(pattern) for pattern in model.unused]
    missing = sorted(expected - found.names.keys())
    left = [key for key in found.names.keys() - expected if not any(pattern.fullmatch(key) for pattern in unused)]
    likely = _likely(keys, system)
    if missing and (likely != system or len(missing) > len(expected) / 2):
        hint = f"; they look like {likely}" if likely != system else ""
        holds = f"; the file holds {few(sorted(keys))}" if keys else "; the file holds no tensor"
        raise WeightsError(
            f"these are not weights of {system}: {len(missing)} of {len(expected)} keys are missing{hint}{holds}"
        )
    if missing or left:
        parts = [
            f"{len(names)} {kind} ({few(sorted(names))})"
            for kind, names in (("missing", missing), ("left over", left))
            if names
        ]
        raise WeightsError(f"weights of {system} in the {found.layout} layout: {', '.join(parts)}")


def _likely(keys: Set[str], system: str) -> str:
    """The first system whose marks are among the keys, with whatever prefix; the one that is wanted if none is."""
    marks = {mark: other for other, every in MARKS.items() for mark in every}
    ends = {key[start:] for key in keys for start in (0, *(dot.end() for dot in re.finditer(r"\.", key)))}
    found = [other for mark, other in marks.items() if mark in ends]
    return found[0] if found else system
