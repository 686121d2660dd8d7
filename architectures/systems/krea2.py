"""Krea 2: one sequence of image and caption, modulated by one map of the timestep with a table of each block."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from architectures.final import FinalTable
from architectures.layers import GatedMLP, SelfAttention, patchify, unpatchify
from architectures.modulation import SharedTable
from architectures.prompt import FeatureBatch, with_image
from architectures.rotary import PrecomputedRoPE
from architectures.sublayer import Condition, joint_mask
from architectures.systems.flux import image_turns
from architectures.systems.mmdit import BRANCH
from architectures.systems.parts import (
    CentredRMSNorm,
    TimeEmbedding,
    TwoLinear,
    check_axes,
    gelu_tanh,
    pre_norm_block,
)
from architectures.systems.weights import LAYOUTS, Move, block_parts, channels_last, linear, swap


def gated_attention(width: int, heads: int, kv_heads: int, rope: nn.Module | None = None) -> SelfAttention:
    """Without biases: queries and keys normed, the output times sigmoid(W_g u) of the input u."""
    made = SelfAttention(width, heads, kv_heads=kv_heads, bias=(False, False), rope=rope, gated=True)
    made.q_norm, made.k_norm = CentredRMSNorm(width // heads), CentredRMSNorm(width // heads)
    return made


class Fusion(nn.Module):
    """A caption's tokens of K layers of a text encoder -> one vector a token.

        k_1 .. k_K <- SA and MLP over the K layers of each token
        y = sum_j a_j k_j
        y <- SA and MLP over all tokens
        W2 gelu(W1 RMS(y) + b1) + b2

    Args:
        layers: K. inputs: I, of a layer. width: D. heads, kv_heads: H. hidden: of SwiGLU. blocks: of each kind.
    """

    role = "prompt"

    def __init__(
        self, layers: int, inputs: int, width: int, *, heads: int, kv_heads: int, hidden: int, blocks: int
    ) -> None:
        super().__init__()
        self.layers = layers

        def made() -> nn.ModuleList:
            return nn.ModuleList(
                pre_norm_block(
                    inputs,
                    CentredRMSNorm,
                    attention=gated_attention(inputs, heads, kv_heads),
                    mlp=GatedMLP(inputs, hidden=hidden, bias=False),
                    context=joint_mask,
                )
                for _ in range(blocks)
            )

        self.of_layers, self.refiners = made(), made()
        self.sum = nn.Linear(layers, 1, bias=False)
        self.norm, self.out = CentredRMSNorm(inputs), TwoLinear(inputs, width, activation=gelu_tanh)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens (B, L, K I), mask (B, L) -> (B, L, D)."""
        each = tokens.unflatten(-1, (self.layers, -1)).flatten(0, 1)  # (B L, K, I)
        for block in self.of_layers:
            each = block(each, Condition())
        y: Tensor = self.sum(each.mT).squeeze(-1).unflatten(0, tokens.shape[:2])  # (B, L, I)
        for block in self.refiners:
            y = block(y, Condition(mask=mask))
        return self.out(self.norm(y))


class Krea2(nn.Module):
    """Krea 2: shifts, scales and gates of block i are W gelu(c) + b + E_i, c = e_t; at the end c + E shifts and scales.

    Every norm is RMS times 1 + w, queries are grouped, and a sigmoid of its input gates each channel of the attention.
    Rotary positions are (0, row, column) of the image's tokens; the caption's are not turned.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 12 * 2560) and mask (B, L)) ->
    (B, 16, H, W); latents are packed 2 x 2 inside. Tokens are hidden states of 12 layers of Qwen3-VL-4B, one after
    another: its pipeline's (B, L, 12, 2560), flattened. A mask may have padding between tokens, as its pipeline's has.
    krea/Krea-2-Raw, 2026.
    """

    system = "krea2"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 6144,
        heads: int = 48,
        kv_heads: int = 12,
        depth: int = 28,
        hidden: int = 16384,
        channels: int = 16,
        patch: int = 2,
        text_width: int = 2560,
        text_layers: int = 12,
        text_heads: int = 20,
        text_kv_heads: int = 20,
        text_hidden: int = 6912,
        text_blocks: int = 2,
        axes: tuple[int, ...] = (32, 48, 48),
        theta: float = 1000.0,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d = width
        self.patch, self.channels, self.axes, self.theta = patch, channels, axes, theta
        self.depth, self.text_blocks = depth, text_blocks
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(d, factor=1000.0, activation=gelu_tanh)
        self.text = Fusion(
            text_layers, text_width, d, heads=text_heads, kv_heads=text_kv_heads, hidden=text_hidden, blocks=text_blocks
        )
        maps = SharedTable(d, [BRANCH, BRANCH])
        maps.activate = False  # gelu in `forward`, where the placement has silu
        self.trunk = maps.trunk()
        self.blocks = nn.ModuleList(
            pre_norm_block(
                d,
                CentredRMSNorm,
                attention=gated_attention(d, heads, kv_heads, PrecomputedRoPE()),
                mlp=GatedMLP(d, hidden=hidden, bias=False),
                head=maps.head(),
                branch=BRANCH,
            )
            for _ in range(depth)
        )
        self.norm, self.final = CentredRMSNorm(d), FinalTable(d)
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        c = self.time(t)
        condition = Condition(
            modulation=self.trunk(gelu_tanh(c)),
            mask=with_image(prompt.mask, h * w),
            positions=image_turns((h, w), prompt.tokens, self.axes, self.theta),
        )
        y = self.text(prompt.tokens, prompt.mask)
        z = torch.cat([self.patches(patchify(x, self.patch)), y], dim=1)
        for block in self.blocks:
            z = block(z, condition)
        out = self.final(self.norm(z[:, : h * w]), c)
        return unpatchify(self.head(out), self.patch, self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise."""
        return self(x, t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        of = LAYOUTS.index(layout)
        made = linear("head", HEAD[of], channels_last(self.patch)) + linear("trunk", TRUNK[of], shift_first)
        made += [Move("final.table.table", FINAL[of], change=swap), Move("text.sum.weight", f"{SUM[of]}.weight")]
        for ours, names in OUTER.items():
            made += linear(ours, names[of])
        made += [Move(f"{ours}.weight", f"{names[of]}.{SCALE[of]}") for ours, names in NORMS.items()]
        for stack, names in STACKS.items():
            for k in range(self.depth if stack == "blocks" else self.text_blocks):
                ours, theirs = f"{stack}.{k}", f"{names[of]}.{k}"
                made += block_parts(ours, theirs, BLOCK, of, bias=False)
                made += [
                    Move(f"{ours}.{own}.weight", f"{theirs}.{n[of]}.{SCALE[of]}") for own, n in BLOCK_NORMS.items()
                ]
                if stack == "blocks":
                    made += [Move(f"{ours}.head.affine.table", f"{theirs}.{TABLE[of]}", change=shift_first)]
        return made


def shift_first(vectors: Tensor) -> Tensor:
    """(scale, shift, gate) -> (shift, scale, gate) of two branches, as rows of one tensor."""
    return vectors.reshape(6, -1)[[1, 0, 2, 4, 3, 5]].reshape(vectors.shape)


# Of each, the released file's name and diffusers'.
SCALE = ("scale", "weight")  # of a norm
HEAD, TRUNK = ("last.linear", "final_layer.linear"), ("tproj.1", "time_mod_proj")
FINAL, TABLE = ("last.modulation.lin", "final_layer.scale_shift_table"), ("mod.lin", "scale_shift_table")
SUM = ("txtfusion.projector", "text_fusion.projector")
OUTER = {
    "patches": ("first", "img_in"),
    "time.up": ("tmlp.0", "time_embed.linear_1"),
    "time.out": ("tmlp.2", "time_embed.linear_2"),
    "text.out.up": ("txtmlp.1", "txt_in.linear_1"),
    "text.out.out": ("txtmlp.3", "txt_in.linear_2"),
}
NORMS = {"text.norm": ("txtmlp.0", "txt_in.norm"), "norm": ("last.norm", "final_layer.norm")}
STACKS = {
    "blocks": ("blocks", "transformer_blocks"),
    "text.of_layers": ("txtfusion.layerwise_blocks", "text_fusion.layerwise_blocks"),
    "text.refiners": ("txtfusion.refiner_blocks", "text_fusion.refiner_blocks"),
}
BLOCK = {
    "attention.op.qkv": ("attn.wq attn.wk attn.wv", "attn.to_q attn.to_k attn.to_v"),
    "attention.op.gate": ("attn.gate", "attn.to_gate"),
    "attention.op.out": ("attn.wo", "attn.to_out.0"),
    "mlp.op.up": ("mlp.gate mlp.up", "ff.gate ff.up"),
    "mlp.op.down": ("mlp.down", "ff.down"),
}
BLOCK_NORMS = {
    "attention.norm": ("prenorm", "norm1"),
    "attention.op.q_norm": ("attn.qknorm.qnorm", "attn.norm_q"),
    "attention.op.k_norm": ("attn.qknorm.knorm", "attn.norm_k"),
    "mlp.norm": ("postnorm", "norm2"),
}
