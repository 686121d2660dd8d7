"""Stable Diffusion 3 and Qwen-Image: two streams with one attention."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import MLP, LayerNorm, SelfAttention, patchify, sincos_at, unpatchify
from architectures.modulation import PerBlock
from architectures.prompt import FeatureBatch, with_image
from architectures.rotary import PrecomputedRoPE
from architectures.streams import dual_block, prompt_path
from architectures.sublayer import LINEAR, Adaptive, Condition, mask_and_positions
from architectures.systems.parts import (
    NormedLinear,
    TimeEmbedding,
    TwoLinear,
    check_axes,
    grid_positions,
    too_long,
    turns,
)
from architectures.systems.weights import (
    Move,
    attention,
    channels_last,
    feed_forward,
    linear,
    released_branches,
    rows,
    swap,
    two,
    weight,
)

BRANCH = Adaptive("scale+shift", LINEAR)


class SD3(nn.Module):
    """Stable Diffusion 3's MM-DiT: d = 64 n, h = n; positions are the middle of a large sin-cos grid.

    forward(x (B, 16, H, W), t (B,) = 1000 sigma, prompt of tokens (B, L, 4096) and pooled (B, 2048)) -> (B, 16, H, W);
    it has no mask of captions. Esser et al. 2024 (arXiv 2403.03206).
    """

    system = "sd3"
    unused = ()

    def __init__(
        self,
        *,
        depth: int = 24,
        width: int | None = None,
        heads: int | None = None,
        patch: int = 2,
        channels: int = 16,
        text_width: int = 4096,
        pooled_width: int = 2048,
        max_grid: int = 192,
        base_grid: int = 64,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        d, h = width or 64 * depth, heads or depth
        self.patch, self.channels, self.max_grid, self.depth, self.qk_norm = patch, channels, max_grid, depth, qk_norm
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(d)
        self.pooled = prompt_path(TwoLinear(pooled_width, d))
        self.text = prompt_path(nn.Linear(text_width, d))
        two = PerBlock(d, [BRANCH, BRANCH])
        self.trunk = two.trunk()
        self.blocks = nn.ModuleList(
            dual_block(
                two,
                LINEAR,
                attention=SelfAttention(d, h, qk_norm=qk_norm),
                text_attention=SelfAttention(d, h, qk_norm=qk_norm, read_only=k == depth - 1),
                mlp=partial(MLP, d),
            )
            for k in range(depth)
        )
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)
        self.head = nn.Linear(d, patch**2 * channels)
        place = torch.arange(max_grid) / (max_grid / base_grid)
        self.positions: Tensor
        self.register_buffer("positions", sincos_at(d, place, place))

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        too_long("tokens a side", max(h, w), self.max_grid)
        top, left = (self.max_grid - h) // 2, (self.max_grid - w) // 2
        middle = self.positions.unflatten(0, (self.max_grid, -1))[top : top + h, left : left + w].flatten(0, 1)
        x = self.patches(patchify(x, self.patch)) + middle
        c = self.time(t) + self.pooled(prompt.pooled)
        m = self.trunk(c)
        z = (x, self.text(prompt.tokens))
        for block in self.blocks:
            z = block(z, Condition(c, m, m))
        return unpatchify(self.head(self.final(z[0], c)), self.patch, self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise."""
        return self(x, 1000 * t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        norms = [("q_norm", "q"), ("k_norm", "k")] if self.qk_norm else []
        if layout == "original":
            made = [*linear("patches", "x_embedder.proj"), Move("positions", "pos_embed", change=lambda p: p[0])]
            made += two("time", "t_embedder", "mlp.0", "mlp.2")
            made += two("pooled", "y_embedder", "mlp.0", "mlp.2")
            made += linear("text", "context_embedder") + linear("head", "final_layer.linear")
            made += linear("final.head.affine", "final_layer.adaLN_modulation.1")
            for k in range(self.depth):
                last, ours = k == self.depth - 1, f"blocks.{k}"
                for own, side in (("", "x_block"), ("text_", "context_block")):
                    theirs, read_only = f"joint_blocks.{k}.{side}", last and own != ""
                    op = f"{ours}.text_attention" if read_only else f"{ours}.{own}attention.op"
                    head = f"{ours}.text_norm.head.affine" if read_only else f"{ours}.{own}head.affine"
                    made += linear(head, f"{theirs}.adaLN_modulation.1")
                    for mine, u in norms:
                        made += weight(f"{op}.{mine}", f"{theirs}.attn.ln_{u}")
                    if read_only:
                        made += linear(f"{op}.qkv", f"{theirs}.attn.qkv")
                    else:
                        made += released_branches(f"{ours}.{own}", theirs)
            return made
        made = [*linear("patches", "pos_embed.proj"), Move("positions", "pos_embed.pos_embed", change=lambda p: p[0])]
        made += combined(pooled=True)
        made += linear("text", "context_embedder") + linear("head", "proj_out")
        made += linear("final.head.affine", "norm_out.linear", swap)
        for k in range(self.depth):
            made += dual_moves(k, last=k == self.depth - 1, qk_norm=self.qk_norm)
        return made


def centred_grid(h: int, w: int, device: torch.device) -> Tensor:
    """(h w, 3): 0, row, column of each token, counted from the middle: -ceil(n / 2) is the first of n."""
    return grid_positions(*(torch.arange(n, device=device) - (n - n // 2) for n in (h, w)))


class QwenImage(nn.Module):
    """Qwen-Image: two streams in every block, conditioned on the timestep alone.

    Rotary positions have the image's origin in its middle and the caption after it on all three axes.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 3584) and mask (B, L)) ->
    (B, 16, H, W); latents are packed 2 x 2 inside. As diffusers computes it; the last block writes a caption stream
    that nothing reads.
    """

    system = "qwen-image"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 3072,
        heads: int = 24,
        depth: int = 60,
        channels: int = 16,
        patch: int = 2,
        text_width: int = 3584,
        axes: tuple[int, ...] = (16, 56, 56),
        theta: float = 10000.0,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d = width
        self.patch, self.channels, self.axes, self.theta, self.depth = patch, channels, axes, theta, depth
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(d, scale=1000.0)
        self.text, two = NormedLinear(text_width, d, eps=1e-6), PerBlock(d, [BRANCH, BRANCH])
        self.trunk = two.trunk()
        self.blocks = nn.ModuleList(
            dual_block(
                two,
                LINEAR,
                attention=SelfAttention(d, heads, qk_norm=True, rope=PrecomputedRoPE()),
                text_attention=SelfAttention(d, heads, qk_norm=True, rope=PrecomputedRoPE()),
                mlp=partial(MLP, d),
                context=mask_and_positions,
            )
            for _ in range(depth)
        )
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        c = self.time(t)
        m = self.trunk(c)
        image = centred_grid(h, w, x.device)
        text = torch.arange(prompt.tokens.shape[1], device=x.device) + max(h // 2, w // 2)
        places = torch.cat([image, text[:, None].expand(-1, 3)])
        condition = Condition(
            c, m, m, mask=with_image(prompt.mask, h * w), positions=turns(places, self.axes, self.theta)[None]
        )
        z = (self.patches(patchify(x, self.patch)), self.text(prompt.tokens))
        for block in self.blocks:
            z = block(z, condition)
        return unpatchify(self.head(self.final(z[0], c)), self.patch, self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise."""
        return self(x, t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """diffusers' layout is the released one."""
        if layout == "original":
            return []
        made = linear("patches", "img_in") + linear("text.out", "txt_in") + weight("text.norm", "txt_norm")
        made += linear("head", "proj_out", channels_last(self.patch))
        made += linear("final.head.affine", "norm_out.linear", swap) + combined(pooled=False)
        for k in range(self.depth):
            made += dual_moves(k, last=False, qk_norm=True, names=("img_mod.1", "txt_mod.1", "img_mlp", "txt_mlp"))
        return made


def combined(*, pooled: bool, guidance: bool = False) -> list[Move]:
    """diffusers' embedders of what c sums."""
    names = [("time", "timestep")] + [("pooled", "text")] * pooled + [("guidance", "guidance")] * guidance
    made = []
    for ours, theirs in names:
        made += two(ours, f"time_text_embed.{theirs}_embedder", "linear_1", "linear_2")
    return made


def dual_moves(
    k: int,
    *,
    last: bool,
    qk_norm: bool,
    names: tuple[str, ...] = ("norm1.linear", "norm1_context.linear", "ff", "ff_context"),
) -> list[Move]:
    """diffusers' block of two streams; `last`: its caption side is only attended to, and gets (scale, shift)."""
    ours, theirs = f"blocks.{k}", f"transformer_blocks.{k}"
    mod, text_mod, ff, text_ff = names
    made = linear(f"{ours}.head.affine", f"{theirs}.{mod}")
    made += attention(f"{ours}.attention.op", f"{theirs}.attn")
    made += feed_forward(f"{ours}.mlp.op", f"{theirs}.{ff}")
    text = f"{ours}.text_attention" if last else f"{ours}.text_attention.op"
    made += rows(f"{text}.qkv", [f"{theirs}.attn.add_{u}_proj" for u in "qkv"])
    if last:
        made += linear(f"{ours}.text_norm.head.affine", f"{theirs}.{text_mod}", swap)
    else:
        made += linear(f"{ours}.text_head.affine", f"{theirs}.{text_mod}")
        made += linear(f"{text}.out", f"{theirs}.attn.to_add_out")
        made += feed_forward(f"{ours}.text_mlp.op", f"{theirs}.{text_ff}")
    for u in "qk" if qk_norm else "":
        made += weight(f"{ours}.attention.op.{u}_norm", f"{theirs}.attn.norm_{u}")
        made += weight(f"{text}.{u}_norm", f"{theirs}.attn.norm_added_{u}")
    return made
