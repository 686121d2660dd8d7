"""FLUX.2: FLUX's blocks without biases, modulated by three maps of the timestep that all of them share."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import GatedMLP, LayerNorm
from architectures.modulation import Shared
from architectures.prompt import FeatureBatch
from architectures.streams import prompt_path
from architectures.sublayer import Condition
from architectures.systems.flux import blocks, image_after
from architectures.systems.mmdit import BRANCH
from architectures.systems.parts import TimeEmbedding, check_axes, grid_positions, turns, without_biases
from architectures.systems.weights import LAYOUTS, Move, block_parts, cut, swap, weight


class Flux2(nn.Module):
    """FLUX.2: c = e_t + e_guidance; M_image, M_text and M_joint of silu(c) are the same in every block of their kind.

    Rotary positions are (0, row, column, 0) of the image's tokens and (0, 0, 0, place) of the caption's.

    forward(x (B, 128, h, w), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 15360), guidance (B,) for dev) ->
    (B, 128, h, w). x is latents of 32 channels, packed 2 x 2 and normalised, as its VAE gives them. It has no pooled
    caption, no mask of captions and no biases. black-forest-labs/flux2, 2025.
    """

    system = "flux2"
    unused = ()
    default_guidance = 1.0  # a sampler's: dev is guided by what it is conditioned on, the others are distilled

    def __init__(
        self,
        *,
        width: int = 6144,
        heads: int = 48,
        dual: int = 8,
        single: int = 48,
        channels: int = 128,
        text_width: int = 15360,
        axes: tuple[int, ...] = (32, 32, 32, 32),
        theta: float = 2000.0,
        guidance: bool = True,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d = self.width = width
        self.channels, self.axes, self.theta, self.dual, self.single = channels, axes, theta, dual, single
        self.patches = nn.Linear(channels, d)
        self.time = TimeEmbedding(d, factor=1000.0)
        self.guidance = TimeEmbedding(d, factor=1000.0) if guidance else None
        self.text = prompt_path(nn.Linear(text_width, d))
        two, one = Shared(d, [BRANCH, BRANCH]), Shared(d, [BRANCH])
        self.trunks = nn.ModuleList([two.trunk(), two.trunk(), one.trunk()])  # of image, of text, of both joined
        mlp = partial(GatedMLP, d, hidden=3 * d)
        self.blocks = blocks(
            two,
            one,
            dual=dual,
            single=single,
            heads=heads,
            mlp=mlp,
            joint_mlp=mlp,
        )
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)
        self.head = nn.Linear(d, channels)
        without_biases(self)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch, guidance: Tensor | None = None) -> Tensor:
        h, w = x.shape[-2:]
        c = self.time(t)
        if self.guidance is not None:
            if guidance is None:
                raise ValueError("FLUX.2 dev is conditioned on a guidance scale; klein (guidance=False) is not")
            c = c + self.guidance(guidance)
        image, text, joint = (trunk(c) for trunk in self.trunks)
        positions = joint_turns((h, w), prompt.tokens, self.axes, self.theta)
        condition = Condition(c, image, text, joint, positions=positions)
        out = image_after(self.blocks, self.patches(x.flatten(2).mT), self.text(prompt.tokens), condition)
        return self.head(self.final(out, c)).mT.unflatten(2, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 128, h, w), t in [0, 1], 1 noise; dev is conditioned on a guidance of 4."""
        return self(x, t, prompt, torch.full_like(t, 4.0))

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        of, d = LAYOUTS.index(layout), self.width
        scale = ("scale", "weight")[of]
        made = weight("final.head.affine", FINAL[of], (None, swap)[of])
        for ours, names in OUTER.items():
            if self.guidance is not None or not ours.startswith("guidance"):
                made += weight(ours, names[of])
        for k in range(self.dual):
            block, theirs = f"blocks.{k}", f"{('double_blocks', 'transformer_blocks')[of]}.{k}"
            made += block_parts(block, theirs, DUAL, of, bias=False)
            made += [Move(f"{block}.{ours}.weight", f"{theirs}.{n[of]}.{scale}") for ours, n in DUAL_NORMS.items()]
        for k in range(self.single):
            block, theirs = f"blocks.{self.dual + k}", f"{('single_blocks', 'single_transformer_blocks')[of]}.{k}"
            into, out = (f"{theirs}.{names[of]}" for names in FUSED)
            made += weight(f"{block}.attention.op.qkv", into, cut(0, 3 * d))
            made += weight(f"{block}.mlp.op.up", into, cut(3 * d, 9 * d))
            made += weight(f"{block}.attention.op.out", out, cut(0, d, axis=1))
            made += weight(f"{block}.mlp.op.down", out, cut(d, 4 * d, axis=1))
            made += [Move(f"{block}.{ours}.weight", f"{theirs}.{n[of]}.{scale}") for ours, n in SINGLE_NORMS.items()]
        return made


def joint_turns(
    size: tuple[int, int], text: Tensor, axes: tuple[int, ...], theta: float, spacing: float = 1.0
) -> Tensor:
    """Rotary angles (1, N + L, d/2, 2) of an image's tokens and a caption's.

    Args:
        size: h and w; a token's place is (0, row, column, 0).
        text: (B, L, I); a token's place is (0, 0, 0, its number).
        axes: channels of each.
        theta: of the frequencies.
        spacing: of rows and columns.
    """
    grid = grid_positions(*(spacing * torch.arange(side, device=text.device) for side in size))
    caption = torch.arange(text.shape[1], device=text.device)[:, None]
    return turns(torch.cat([F.pad(grid, (0, 1)), F.pad(caption, (3, 0))]), axes, theta)[None]


# Our names, and the released file's and diffusers' for each.
FINAL = ("final_layer.adaLN_modulation.1", "norm_out.linear")
OUTER = {
    "patches": ("img_in", "x_embedder"),
    "text": ("txt_in", "context_embedder"),
    "time.up": ("time_in.in_layer", "time_guidance_embed.timestep_embedder.linear_1"),
    "time.out": ("time_in.out_layer", "time_guidance_embed.timestep_embedder.linear_2"),
    "guidance.up": ("guidance_in.in_layer", "time_guidance_embed.guidance_embedder.linear_1"),
    "guidance.out": ("guidance_in.out_layer", "time_guidance_embed.guidance_embedder.linear_2"),
    "trunks.0": ("double_stream_modulation_img.lin", "double_stream_modulation_img.linear"),
    "trunks.1": ("double_stream_modulation_txt.lin", "double_stream_modulation_txt.linear"),
    "trunks.2": ("single_stream_modulation.lin", "single_stream_modulation.linear"),
    "head": ("final_layer.linear", "proj_out"),
}
DUAL = {
    "attention.op.qkv": ("img_attn.qkv", "attn.to_q attn.to_k attn.to_v"),
    "attention.op.out": ("img_attn.proj", "attn.to_out.0"),
    "mlp.op.up": ("img_mlp.0", "ff.linear_in"),
    "mlp.op.down": ("img_mlp.2", "ff.linear_out"),
    "text_attention.op.qkv": ("txt_attn.qkv", "attn.add_q_proj attn.add_k_proj attn.add_v_proj"),
    "text_attention.op.out": ("txt_attn.proj", "attn.to_add_out"),
    "text_mlp.op.up": ("txt_mlp.0", "ff_context.linear_in"),
    "text_mlp.op.down": ("txt_mlp.2", "ff_context.linear_out"),
}
DUAL_NORMS = {
    "attention.op.q_norm": ("img_attn.norm.query_norm", "attn.norm_q"),
    "attention.op.k_norm": ("img_attn.norm.key_norm", "attn.norm_k"),
    "text_attention.op.q_norm": ("txt_attn.norm.query_norm", "attn.norm_added_q"),
    "text_attention.op.k_norm": ("txt_attn.norm.key_norm", "attn.norm_added_k"),
}
FUSED = (("linear1", "attn.to_qkv_mlp_proj"), ("linear2", "attn.to_out"))  # what attention and MLP receive, and give
SINGLE_NORMS = {
    "attention.op.q_norm": ("norm.query_norm", "attn.norm_q"),
    "attention.op.k_norm": ("norm.key_norm", "attn.norm_k"),
}
