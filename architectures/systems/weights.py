"""Weights of a published system, from the released file's layout or diffusers', into the parameters of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LAYOUTS = ("original", "diffusers")

# One key by which each system's files are known, to say what a file is when it is not what was asked for.
MARKS = {
    "dit": (
        "blocks.0.adaLN_modulation.1.weight",
        "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",
    ),
    "pixart": ("blocks.0.scale_shift_table", "transformer_blocks.0.scale_shift_table"),
    "flux": ("double_blocks.0.img_mod.lin.weight", "single_transformer_blocks.0.proj_mlp.weight"),
    "sd3": ("joint_blocks.0.x_block.attn.qkv.weight", "transformer_blocks.0.norm1_context.linear.weight"),
    "qwen-image": ("transformer_blocks.0.img_mod.1.weight",),
    "z-image": ("cap_pad_token",),
    "lumina2": ("context_refiner.0.attention_norm1.weight", "time_caption_embed.caption_embedder.0.weight"),
}


class WeightsError(ValueError):
    """Weights that do not fit the model; the sentence names what is missing, left over, or of another shape."""


@dataclass(frozen=True)
class Move:
    """One parameter of ours, from one or several of theirs.

    Attributes:
        target: of ours. sources: of theirs, joined along `axis`; one name, or a tuple of them.
        change: what is done to it at last, such as swapping halves.
    """

    target: str
    sources: str | tuple[str, ...]
    axis: int = 0
    change: Callable[[Tensor], Tensor] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.sources,) if isinstance(self.sources, str) else self.sources

    def __call__(self, state: Mapping[str, Tensor]) -> Tensor:
        made = (
            torch.cat([state[name] for name in self.names], self.axis) if len(self.names) > 1 else state[self.names[0]]
        )
        return self.change(made) if self.change else made


def linear(target: str, source: str, change: Callable[[Tensor], Tensor] | None = None) -> list[Move]:
    """A Linear (or a convolution of the same numbers) with bias."""
    return [Move(f"{target}.{part}", f"{source}.{part}", change=change) for part in ("weight", "bias")]


def rows(target: str, sources: Sequence[str], *, bias: bool = True) -> list[Move]:
    """Several Linears, one under another, in one."""
    parts = ("weight", "bias") if bias else ("weight",)
    return [Move(f"{target}.{part}", tuple(f"{source}.{part}" for source in sources)) for part in parts]


def weight(target: str, source: str, change: Callable[[Tensor], Tensor] | None = None) -> list[Move]:
    """A Linear without bias, or a norm."""
    return [Move(f"{target}.weight", f"{source}.weight", change=change)]


def two(target: str, source: str, first: str, second: str) -> list[Move]:
    """Two Linears with an activation between, `up` and `out` here."""
    return linear(f"{target}.up", f"{source}.{first}") + linear(f"{target}.out", f"{source}.{second}")


def released_branches(target: str, source: str) -> list[Move]:
    """Attention and MLP of a block as DiT, PixArt and SD3 released them; `target` ends where the parts' names begin."""
    made = linear(f"{target}attention.op.qkv", f"{source}.attn.qkv")
    made += linear(f"{target}attention.op.out", f"{source}.attn.proj")
    return (
        made + linear(f"{target}mlp.op.up", f"{source}.mlp.fc1") + linear(f"{target}mlp.op.down", f"{source}.mlp.fc2")
    )


def attention(target: str, source: str) -> list[Move]:
    """diffusers' self-attention with its output."""
    return rows(f"{target}.qkv", [f"{source}.to_{u}" for u in "qkv"]) + linear(f"{target}.out", f"{source}.to_out.0")


def feed_forward(target: str, source: str) -> list[Move]:
    """diffusers' MLP."""
    return linear(f"{target}.up", f"{source}.net.0.proj") + linear(f"{target}.down", f"{source}.net.2")


def swap(tensor: Tensor) -> Tensor:
    """(scale, shift) -> (shift, scale), and back."""
    return torch.cat(tensor.chunk(2)[::-1])


def cut(begin: int, end: int, axis: int = 0) -> Callable[[Tensor], Tensor]:
    """Rows (or columns) begin .. end."""
    return lambda tensor: tensor.narrow(axis, begin, end - begin)


def channels_first(patch: int) -> Callable[[Tensor], Tensor]:
    """Columns of a patch's Linear from the order (p, p, C) to (C, p, p)."""
    return lambda w: w.unflatten(1, (patch * patch, -1)).transpose(1, 2).flatten(1) if w.ndim == 2 else w


def channels_last(patch: int) -> Callable[[Tensor], Tensor]:
    """Rows of the output's Linear from the order (C, p, p) to (p, p, C)."""
    return lambda w: w.unflatten(0, (-1, patch * patch)).transpose(0, 1).flatten(0, 1)


def convert(model: Any, state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Ours from theirs, shaped as ours; linear in the weights, so that it carries gradients too."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    made = {}
    for move in model.moves(layout):
        shape = shapes[move.target]
        try:
            tensor = move(state)
        except (RuntimeError, IndexError):  # a shape that cannot be cut or joined as the layout has it
            tensor = None
        if tensor is None or tensor.numel() != shape.numel() or _misfit(tensor, shape):
            theirs = " + ".join(f"{name} {tuple(state[name].shape)}" for name in move.names)
            raise WeightsError(f"{theirs} does not make the model's {move.target} {tuple(shape)}: another size?")
        made[move.target] = tensor.reshape(shapes[move.target])
    return made


def _misfit(tensor: Tensor, shape: torch.Size) -> bool:
    """Whether the first axes differ, so that a reshape would mix rows; tables and convolutions keep theirs."""
    return tensor.ndim >= 2 and len(shape) >= 2 and tensor.shape[0] != shape[0]


def load_published(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Loads weights of the same system, of the released file's layout or of diffusers'.

    Args:
        model: of `published`. state: name -> tensor; a common prefix `model.diffusion_model.` is taken off.

    Returns:
        The layout found: `original` or `diffusers`.

    Raises:
        WeightsError: if it is another system's, or naming the keys that are missing, left over or of another shape.
    """
    prefix = "model.diffusion_model."
    state = {key.removeprefix(prefix): value for key, value in state.items() if torch.is_tensor(value)}
    system: str = model.system  # type: ignore[assignment]
    wanted = {}
    for layout in LAYOUTS:
        if moves := model.moves(layout):  # type: ignore[operator]
            wanted[layout] = {name for move in moves for name in move.names}
    if not wanted:
        raise WeightsError(f"{system}: no layout of its weights is known")
    layout = max(wanted, key=lambda one: len(wanted[one] & state.keys()) / len(wanted[one]))
    names = wanted[layout]
    unused = [re.compile(pattern) for pattern in model.unused]  # type: ignore[union-attr]
    missing = sorted(names - state.keys())
    left = sorted(key for key in state.keys() - names if not any(pattern.fullmatch(key) for pattern in unused))
    looks = next((other for other, marks in MARKS.items() if any(mark in state for mark in marks)), system)
    if missing and (looks != system or len(missing) > len(names) / 2):
        hint = f"; they look like {looks}" if looks != system else ""
        raise WeightsError(f"these are not weights of {system}: {len(missing)} of {len(names)} keys are missing{hint}")
    if missing or left:
        parts = [
            f"{len(keys)} {word} ({_few(keys)})" for word, keys in (("missing", missing), ("left over", left)) if keys
        ]
        raise WeightsError(f"weights of {system} in the {layout} layout: {', '.join(parts)}")
    made = convert(model, state, layout)
    own = dict(model.state_dict())
    assert made.keys() == own.keys(), sorted(made.keys() ^ own.keys())  # the moves name every parameter
    model.load_state_dict(made, assign=any(p.is_meta for p in model.parameters()))
    return layout


def _few(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
