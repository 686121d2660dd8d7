"""Weights of a published system, from the released file's layout or diffusers', into the parameters of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LAYOUTS = ("original", "diffusers")

# One key by which each system's files are known, to name a file that is of another system.
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
    "hdm": ("shared_adaln_attn.0.weight",),
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


def load_published(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Loads weights of the same system, of the released file's layout or of diffusers'.

    Args:
        model: of `published`.
        state: name -> tensor; a common prefix `model.diffusion_model.` is taken off.

    Returns:
        The layout of the weights: `original` or `diffusers`.

    Raises:
        WeightsError: if it is another system's, or naming the keys that are missing, left over or of another shape.
    """
    prefix = "model.diffusion_model."
    state = {key.removeprefix(prefix): value for key, value in state.items() if torch.is_tensor(value)}
    system: Any = model
    expected = {}
    for layout in LAYOUTS:
        if moves := system.moves(layout):
            expected[layout] = {name for move in moves for name in move.names}
    layout = max(expected, key=lambda one: len(expected[one] & state.keys()) / len(expected[one]))
    _check_keys(system, layout, expected[layout], state.keys())
    converted = convert(model, state, layout)
    own = dict(model.state_dict())
    assert converted.keys() == own.keys(), sorted(converted.keys() ^ own.keys())  # the moves name every parameter
    model.load_state_dict(converted, assign=any(p.is_meta for p in model.parameters()))
    return layout


def _check_keys(model: Any, layout: str, expected: Set[str], given: Set[str]) -> None:
    """Refuses keys that are another system's, too few or too many.

    Raises:
        WeightsError: naming them.
    """
    system, unused = model.system, [re.compile(pattern) for pattern in model.unused]
    missing = sorted(expected - given)
    left = sorted(key for key in given - expected if not any(pattern.fullmatch(key) for pattern in unused))
    likely = next((other for other, marks in MARKS.items() if any(mark in given for mark in marks)), system)
    if missing and (likely != system or len(missing) > len(expected) / 2):
        hint = f"; they look like {likely}" if likely != system else ""
        raise WeightsError(
            f"these are not weights of {system}: {len(missing)} of {len(expected)} keys are missing{hint}"
        )
    if missing or left:
        parts = [
            f"{len(keys)} {kind} ({_few(keys)})" for kind, keys in (("missing", missing), ("left over", left)) if keys
        ]
        raise WeightsError(f"weights of {system} in the {layout} layout: {', '.join(parts)}")


def _few(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
