"""GLM-Image's diffusion decoder: one sequence of image and glyphs, each of which has maps of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import MLP, SelfAttention, patchify, sinusoid, unpatchify
from architectures.modulation import Affine, Head
from architectures.prompt import FeatureBatch
from architectures.rotary import PrecomputedRoPE, rotate_halves
from architectures.sequence import SidedBlock
from architectures.streams import prompt_path
from architectures.sublayer import Condition, Context, SubLayer, mask_and_positions, no_context
from architectures.systems.flux import image_turns
from architectures.systems.mmdit import BRANCH
from architectures.systems.parts import TimeEmbedding, TwoLinear, check_axes, plain_norm
from architectures.systems.weights import Move, attention, channels_last, feed_forward, linear, swap, two


class HalvesRoPE(PrecomputedRoPE):
    """Rotary positions that turn the channels i and i + d/2 of a head."""

    def forward(self, q: Tensor, angles: Tensor) -> Tensor:
        """Rotates queries or keys (B, H, N, d), by cosines and sines (B, N, d/2, 2)."""
        return rotate_halves(q.float(), *angles[:, None].unbind(-1)).to(q.dtype)


class CropEmbedding(TwoLinear):
    """W2 silu(W1 [sinusoid(top) ; of left ; of height ; of width] + b1) + b2: (B, 4) pixels -> (B, D)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__(4 * channels, width)

    def forward(self, x: Tensor) -> Tensor:
        made = sinusoid(x.flatten(), self.up.in_features // 4).unflatten(0, x.shape).flatten(1)
        return super().forward(made.to(self.up.weight.dtype))


class Prior(nn.Module):
    """W2 silu(W1 E[k] + b1) + b2 of tokens k (B, N), where E[-1] = 0: a token that is dropped -> (B, N, D)."""

    role = "prompt"

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.table, self.map = nn.Embedding(count, width), TwoLinear(width, width)

    def forward(self, k: Tensor) -> Tensor:
        return self.map(self.table(k.clamp(min=0)).masked_fill((k < 0)[..., None], 0))


class GLMImage(nn.Module):
    """GLM-Image, text to image: the decoder of the tokens that a language model writes for a caption.

        c = e_t + e_crop,  b1, s1, g1, b2, s2, g2 = W_i silu(c) + b_i,  b1', s1', g1', ... = W_i' silu(c) + b_i'
        x = W patches + prior,  y = the texts to be rendered
        a_x, a_y = Attention([LN(x) (1 + s1) + b1 ; LN(y) (1 + s1') + b1'])
        x <- x + g1 a_x,  y <- y + g1' a_y
        x <- x + g2 MLP(LN(x) (1 + s2) + b2),  y likewise
        b, s = W silu(c) + b,  x = LN(x) (1 + s) + b

    e_t is of the step 1000 t - 1, and c has `cond_width` channels. Rotary positions are (row, column) of the image's
    tokens; the glyphs are not turned.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 1472) and mask (B, L), prior (B, N) of
    0 .. 16383, or -1 where it is dropped, crop (B, 4)) -> (B, 16, H, W). `tokens` are of the texts that the image is to
    show, zero where the mask is false, and attended to there; the rest of the caption enters by the prior alone, one
    token a patch. Without a prior all of it is dropped. `crop` is top, left, height and width in pixels, by default the
    whole image of 8 pixels a latent. Reference images are left out. zai-org/GLM-Image, 2026, as diffusers computes it;
    the last block writes glyphs that nothing reads.
    """

    system = "glm-image"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 4096,
        depth: int = 30,
        heads: int = 32,
        cond_width: int = 512,
        crop_width: int = 256,
        patch: int = 2,
        channels: int = 16,
        text_width: int = 1472,
        codes: int = 16384,
        axes: tuple[int, ...] = (64, 64),
        theta: float = 10000.0,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d = width
        self.patch, self.channels, self.depth, self.axes, self.theta = patch, channels, depth, axes, theta
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = TimeEmbedding(cond_width, channels=cond_width)
        self.crop = CropEmbedding(cond_width, crop_width)
        self.text = prompt_path(TwoLinear(text_width, d, activation=F.gelu))
        self.prior = Prior(codes, d)

        def head() -> Head:
            return Head(Affine(cond_width, 6 * d), [BRANCH.slots] * 2)

        def branch(op: nn.Module, context: Context) -> SubLayer:
            return SubLayer(op=op, norm=plain_norm(d), modulation=BRANCH.modulation, gate=BRANCH.gate, context=context)

        def joint() -> SelfAttention:
            op = SelfAttention(d, heads, rope=HalvesRoPE())
            for name in ("q_norm", "k_norm"):
                op.add_module(name, plain_norm(d // heads))
            return op

        self.blocks = nn.ModuleList(
            SidedBlock(
                head(), attention=branch(joint(), mask_and_positions), mlp=branch(MLP(d), no_context), text_head=head()
            )
            for _ in range(depth)
        )
        self.final = FinalNorm(plain_norm(d), "scale+shift", d, cond_width=cond_width)
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(
        self, x: Tensor, t: Tensor, prompt: FeatureBatch, prior: Tensor | None = None, crop: Tensor | None = None
    ) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        if prior is None:
            prior = torch.full((len(x), h * w), -1, device=x.device)
        if prior.shape != (len(x), h * w):
            raise ValueError(f"a prior of shape {tuple(prior.shape)}: one token a patch is {(len(x), h * w)}")
        if crop is None:
            crop = torch.tensor([[0, 0, *(8 * side for side in x.shape[-2:])]], device=x.device).expand(len(x), 4)
        c = self.time(1000 * t - 1) + self.crop(crop)
        y = self.text(prompt.tokens.masked_fill(~prompt.mask[..., None], 0))
        positions = image_turns((h, w), y, (0, *self.axes), self.theta)
        condition = Condition(c, F.silu(c), tokens=y, positions=positions)
        z = torch.cat([self.patches(patchify(x, self.patch)) + self.prior(prior), y], dim=1)
        for block in self.blocks:
            z = block(z, condition)
        return unpatchify(self.head(self.final(z[:, : h * w], c)), self.patch, self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise, of the whole image without a prior, as its null pass is."""
        return self(x, t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """diffusers' layout is the released one."""
        if layout == "original":
            return []
        made = linear("patches", "image_projector.proj") + linear("head", "proj_out", channels_last(self.patch))
        made += linear("final.head.affine", "norm_out.linear", swap)
        for ours, theirs in (("time", "timestep_embedder"), ("crop", "condition_embedder")):
            made += two(ours, f"time_condition_embed.{theirs}", "linear_1", "linear_2")
        for ours, theirs in (("text", "glyph_projector"), ("prior.map", "prior_projector")):
            made += two(ours, f"{theirs}.net", "0.proj", "2")
        made += [Move("prior.table.weight", "prior_token_embedding.weight")]
        for k in range(self.depth):
            ours, theirs = f"blocks.{k}", f"transformer_blocks.{k}"
            made += linear(f"{ours}.head.affine", f"{theirs}.norm1.linear", every_other(0))
            made += linear(f"{ours}.text_head.affine", f"{theirs}.norm1.linear", every_other(1))
            made += attention(f"{ours}.attention.op", f"{theirs}.attn1")
            made += feed_forward(f"{ours}.mlp.op", f"{theirs}.ff")
        return made


def every_other(first: int) -> Callable[[Tensor], Tensor]:
    """Rows of one side's six vectors, of twelve: those of the image and of the glyphs alternate."""
    return lambda tensor: tensor.unflatten(0, (12, -1))[first::2].flatten(0, 1)
