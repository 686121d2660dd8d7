"""FLUX.1: blocks of two streams, then blocks of one, which FLUX.2 and Chroma have too."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import MLP, LayerNorm, SelfAttention, patchify, unpatchify
from architectures.modulation import PerBlock, Placement
from architectures.prompt import FeatureBatch
from architectures.rotary import PrecomputedRoPE
from architectures.streams import JoinedBlock, dual_block, prompt_path
from architectures.sublayer import LINEAR, Condition, SubLayer, mask_and_positions
from architectures.systems.mmdit import BRANCH, combined, dual_moves
from architectures.systems.parts import TimeEmbedding, TwoLinear, check_axes, grid_positions, turns
from architectures.systems.weights import Move, channels_last, cut, linear, rows, swap, two, weight


def blocks(
    two: Placement,
    one: Placement,
    *,
    dual: int,
    single: int,
    heads: int,
    mlp: Callable[[], nn.Module],
    joint_mlp: Callable[[], nn.Module],
) -> nn.ModuleList:
    """Blocks of two streams, then of one, with one output Linear over [attention | MLP].

    That Linear has one bias, if any, which is attention's here.

    Args:
        two: where the maps of a stream of two are.
        one: where those of the joined sequence are.
        dual: how many have two streams.
        single: how many have one.
        heads: of the attention.
        mlp: makes one of a stream.
        joint_mlp: makes one of the joined sequence, without a bias of its output.
    """
    attention = partial(SelfAttention, one.width, heads, qk_norm=True, rope=PrecomputedRoPE())
    made = nn.ModuleList(
        dual_block(
            two,
            LINEAR,
            index=k,
            attention=attention(),
            text_attention=attention(),
            mlp=mlp,
            context=mask_and_positions,
        )
        for k in range(dual)
    )
    made.extend(parallel_block(one, heads, joint_mlp(), index=k) for k in range(single))
    return made


def parallel_block(
    one: Placement, heads: int, mlp: nn.Module, *, index: int | None = None, apart: bool = False
) -> JoinedBlock:
    """A block with attention beside the MLP and one triple for both.

    Args:
        one: where its map is.
        heads: of the attention.
        mlp: beside it.
        index: of the block.
        apart: whether the caption's tokens have a triple of their own.
    """
    return JoinedBlock(
        one.head(index),
        attention=SubLayer(
            op=SelfAttention(one.width, heads, qk_norm=True, rope=PrecomputedRoPE()),
            norm=LayerNorm(one.width),
            modulation=BRANCH.modulation,
            gate=LINEAR,
            context=mask_and_positions,
        ),
        mlp=SubLayer(op=mlp),
        apart=apart,
    )


def image_after(blocks: nn.ModuleList, x: Tensor, y: Tensor, condition: Condition) -> Tensor:
    """The image's tokens x (B, N, D), with a caption's y (B, L, D), through blocks of two streams and then of one."""
    z: tuple[Tensor, Tensor] | Tensor = (x, y)
    for block in blocks:
        z = block(z, condition)
    return z[0] if isinstance(z, tuple) else z[:, : x.shape[1]]


def image_turns(size: tuple[int, int], text: Tensor, axes: tuple[int, ...], theta: float) -> Tensor:
    """Rotary angles (1, N + L, d/2, 2) of an image of `size` tokens and a caption's (B, L, I), which are not turned."""
    places = grid_positions(*(torch.arange(side, device=text.device) for side in size))
    return turns(torch.cat([places, places.new_zeros(text.shape[1], 3)]), axes, theta)[None]


class Flux(nn.Module):
    """FLUX.1: blocks of two streams, then blocks of one with attention beside the MLP; rotary positions.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 4096) and pooled (B, 768), guidance (B,)
    for dev) -> (B, 16, H, W); latents are packed 2 x 2 inside. It has no mask of captions. black-forest-labs/flux.
    """

    system = "flux"
    unused = ()
    default_guidance = 1.0  # a sampler's: dev is guided by what it is conditioned on, the others are distilled

    def __init__(
        self,
        *,
        width: int = 3072,
        heads: int = 24,
        dual: int = 19,
        single: int = 38,
        channels: int = 16,
        patch: int = 2,
        text_width: int = 4096,
        pooled_width: int = 768,
        axes: tuple[int, ...] = (16, 56, 56),
        theta: float = 10000.0,
        guidance: bool = True,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d = self.width = width
        self.patch, self.channels, self.axes, self.theta, self.dual, self.single = (
            patch, channels, axes, theta, dual, single,
        )  # fmt: skip
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(d, factor=1000.0)
        self.guidance = TimeEmbedding(d, factor=1000.0) if guidance else None
        self.pooled = prompt_path(TwoLinear(pooled_width, d))
        self.text = prompt_path(nn.Linear(text_width, d))
        two, one = PerBlock(d, [BRANCH, BRANCH]), PerBlock(d, [BRANCH])
        self.trunk = two.trunk()
        self.blocks = blocks(
            two,
            one,
            dual=dual,
            single=single,
            heads=heads,
            mlp=partial(MLP, d),
            joint_mlp=partial(MLP, d, out_bias=False),
        )
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch, guidance: Tensor | None = None) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        c = self.time(t) + self.pooled(prompt.pooled)
        if self.guidance is not None:
            if guidance is None:
                raise ValueError("FLUX.1 dev is conditioned on a guidance scale; schnell (guidance=False) is not")
            c = c + self.guidance(guidance)
        m = self.trunk(c)
        positions = image_turns((h, w), prompt.tokens, self.axes, self.theta)
        condition = Condition(c, m, m, m, positions=positions)
        out = image_after(self.blocks, self.patches(patchify(x, self.patch)), self.text(prompt.tokens), condition)
        return unpatchify(self.head(self.final(out, c)), self.patch, self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise; dev is conditioned on a guidance of 3.5."""
        return self(x, t, prompt, torch.full_like(t, 3.5))

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        made = outer_moves(layout, self.patch) + block_moves(layout, self.width, self.dual, self.single)
        guided = self.guidance is not None
        if layout == "diffusers":
            made += linear("final.head.affine", "norm_out.linear", swap)
            return made + combined(pooled=True, guidance=guided)
        made += linear("final.head.affine", "final_layer.adaLN_modulation.1")
        for ours, theirs in [("time", "time_in"), ("pooled", "vector_in")] + [("guidance", "guidance_in")] * guided:
            made += two(ours, theirs, "in_layer", "out_layer")
        return made


def outer_moves(layout: str, patch: int) -> list[Move]:
    """What the first block receives, and what the last one's output passes."""
    names = ("img_in", "txt_in", "final_layer.linear")
    if layout == "diffusers":
        names = ("x_embedder", "context_embedder", "proj_out")
    return linear("patches", names[0]) + linear("text", names[1]) + linear("head", names[2], channels_last(patch))


def block_moves(layout: str, d: int, dual: int, single: int) -> list[Move]:
    """Of the blocks of two streams, then of one, of width d."""
    made: list[Move] = []
    if layout == "diffusers":
        for k in range(dual):
            made += dual_moves(k, last=False, qk_norm=True)
        for k in range(single):
            ours, theirs = f"blocks.{dual + k}", f"single_transformer_blocks.{k}"
            made += linear(f"{ours}.head.affine", f"{theirs}.norm.linear")
            made += rows(f"{ours}.attention.op.qkv", [f"{theirs}.attn.to_{u}" for u in "qkv"])
            made += linear(f"{ours}.mlp.op.up", f"{theirs}.proj_mlp") + _fused_out(ours, f"{theirs}.proj_out", d)
            for u in "qk":
                made += weight(f"{ours}.attention.op.{u}_norm", f"{theirs}.attn.norm_{u}")
        return made
    for k in range(dual):
        for own, side in (("", "img"), ("text_", "txt")):
            ours, theirs = f"blocks.{k}.{own}", f"double_blocks.{k}.{side}"
            made += linear(f"{ours}head.affine", f"{theirs}_mod.lin")
            made += linear(f"{ours}attention.op.qkv", f"{theirs}_attn.qkv")
            made += linear(f"{ours}attention.op.out", f"{theirs}_attn.proj")
            made += linear(f"{ours}mlp.op.up", f"{theirs}_mlp.0") + linear(f"{ours}mlp.op.down", f"{theirs}_mlp.2")
            made += _released_norms(f"{ours}attention.op", f"{theirs}_attn")
    for k in range(single):
        ours, theirs = f"blocks.{dual + k}", f"single_blocks.{k}"
        made += linear(f"{ours}.head.affine", f"{theirs}.modulation.lin")
        made += linear(f"{ours}.attention.op.qkv", f"{theirs}.linear1", cut(0, 3 * d))
        made += linear(f"{ours}.mlp.op.up", f"{theirs}.linear1", cut(3 * d, 7 * d))
        made += _fused_out(ours, f"{theirs}.linear2", d) + _released_norms(f"{ours}.attention.op", theirs)
    return made


def _released_norms(target: str, source: str) -> list[Move]:
    """Of queries and keys."""
    names = (("q", "query"), ("k", "key"))
    return [Move(f"{target}.{u}_norm.weight", f"{source}.norm.{name}_norm.scale") for u, name in names]


def _fused_out(ours: str, source: str, d: int) -> list[Move]:
    """One output Linear over [attention | MLP], in two."""
    return [
        Move(f"{ours}.attention.op.out.weight", f"{source}.weight", change=cut(0, d, axis=1)),
        Move(f"{ours}.attention.op.out.bias", f"{source}.bias"),
        Move(f"{ours}.mlp.op.down.weight", f"{source}.weight", change=cut(d, 5 * d, axis=1)),
    ]
