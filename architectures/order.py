"""What the MLP of a block reads and is added to, where that is not the stream as the attention left it.

x <- x + SA(x),  x <- x + MLP(x)          after the attention
x <- x + SA(x) + MLP(x)                   parallel: it reads the block's input
x <- x + MLP(x + SA(x))                   through: it alone is added to the block's input
"""

from __future__ import annotations

from torch import nn

from architectures.sublayer import Equations, SubLayer, carry_modulated


def mlps(block: nn.Module) -> list[SubLayer]:
    """A block's MLPs, one a stream, that are sub-layers."""
    parts = dict(block.named_children())
    return [one for name in ("mlp", "text_mlp") if isinstance(one := parts.get(name), SubLayer)]


def make_parallel(block: nn.Module) -> None:
    """Has the MLP of a block read the block's input, in each of its streams (the backbone's `parallel`).

    Raises:
        ValueError: for a block that is none of `architectures.parts`, carries what it modulates, or is `through`.
    """
    own = mlps(block)
    if not isinstance(block, Equations) or not own:
        raise ValueError(f"backbone parallel: no MLP of a {type(block).__name__} is one of `architectures.parts`")
    if any(part.carry is carry_modulated for part in block.children() if isinstance(part, SubLayer)):
        raise ValueError(
            "backbone parallel: blocks that carry what they modulate add each branch to another stream; leave it out"
        )
    if any(one.through for one in own):
        raise ValueError(
            "backbone parallel: with option parallel 'through' the MLP reads what the attention gave; leave one out"
        )
    for one in own:
        one.parallel = True


def make_through(block: nn.Module) -> None:
    """Has the MLPs of a block alone added to their streams: the attention enters by what they read (AuraFlow)."""
    for one in mlps(block):
        one.through = True
