"""FLUX.3: blocks of the image and blocks of the caption, then blocks of both, each with a triple of its own."""

from __future__ import annotations

from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import GatedMLP, LayerNorm
from architectures.modulation import Shared
from architectures.prompt import FeatureBatch
from architectures.streams import prompt_path
from architectures.sublayer import Condition
from architectures.systems.flux import image_after, parallel_block
from architectures.systems.flux2 import joint_turns
from architectures.systems.mmdit import BRANCH
from architectures.systems.parts import TimeEmbedding, check_axes, without_biases
from architectures.systems.weights import LAYOUTS, Move, block_parts, swap, weight


class Flux3(nn.Module):
    """FLUX.3, text to image: four maps of the timestep, the image's at t and the caption's at t = 0.

        c = e_t, c' = e_0
        blocks of x:        b, s, g = M_1 silu(c),  u = LN(x) (1 + s) + b,  x <- x + g (SA(u) + MLP(u))
        blocks of y:        the same of y, by M_2 silu(c')
        blocks of [x ; y]:  the same of both with one attention over both, x by M_3 silu(c) and y by M_4 silu(c')

    Rotary positions are (0, row / 2, column / 2, 0) of the image's tokens and (0, 0, 0, place) of the caption's.

    forward(x (B, 128, h, w), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 20480)) -> (B, 128, h, w). x is latents
    as FLUX.2's VAE gives them, tokens are of eight layers of Qwen3-VL; padding is attended to, and there are no biases.
    What reference images pass through is left out, and so is the second embedder of the model distilled into few steps.
    black-forest-labs/flux-3-image-klein, 2026, as diffusers computes it.
    """

    system = "flux3"
    unused = (r".+\.image_cond\..+", r"repa_projectors\..+")  # reference images; heads of its training alone

    def __init__(
        self,
        *,
        width: int = 3072,
        heads: int = 24,
        early: int = 5,
        joint: int = 28,
        channels: int = 128,
        text_width: int = 20480,
        axes: tuple[int, ...] = (32, 32, 32, 32),
        theta: float = 10000.0,
        spacing: float = 0.5,
    ) -> None:
        super().__init__()
        check_axes(axes, width, heads)
        d, maps = width, Shared(width, [BRANCH])
        self.channels, self.axes, self.theta, self.spacing = channels, axes, theta, spacing
        self.patches = nn.Linear(channels, d)
        self.time = TimeEmbedding(d, factor=1000.0)
        self.text = prompt_path(nn.Linear(text_width, d))
        self.trunks = nn.ModuleList(maps.trunk() for _ in range(4))  # of image and text, apart and then joined

        def made(count: int, *, both: bool = False) -> nn.ModuleList:
            return nn.ModuleList(
                parallel_block(maps, heads, GatedMLP(d, hidden=3 * d), apart=both) for _ in range(count)
            )

        self.image_blocks, self.text_blocks = made(early), prompt_path(made(early))
        self.blocks = made(joint, both=True)
        self.final = FinalNorm(LayerNorm(d), "scale+shift", d)
        self.head = nn.Linear(d, channels)
        without_biases(self)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        h, w = x.shape[-2:]
        c, zero = self.time(t), self.time(t.new_zeros(1))
        image, text, joint, joint_text = (trunk(v) for trunk, v in zip(self.trunks, (c, zero) * 2, strict=True))
        positions = joint_turns((h, w), prompt.tokens, self.axes, self.theta, self.spacing)
        x, y = self.patches(x.flatten(2).mT), self.text(prompt.tokens)
        for block in self.image_blocks:
            x = block(x, Condition(joint=image, positions=positions[:, : h * w]))
        for block in self.text_blocks:
            y = block(y, Condition(joint=text, positions=positions[:, h * w :]))
        condition = Condition(c, joint=joint, tokens=y, positions=positions, prompt=Condition(zero, joint=joint_text))
        out = image_after(self.blocks, x, y, condition)
        return self.head(self.final(out, c)).mT.unflatten(2, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 128, h, w), t in [0, 1], 1 noise."""
        return self(x, t, prompt)

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        of = LAYOUTS.index(layout)
        made = weight("final.head.affine", FINAL[of], (None, swap)[of])
        for ours, names in OUTER.items():
            made += weight(ours, names[of])
        for own, names in STACKS.items():
            for k in range(len(getattr(self, own))):
                block, theirs = f"{own}.{k}", f"{names[of]}.{k}"
                made += block_parts(block, theirs, BLOCK, of, bias=False)
                made += [Move(f"{block}.{ours}.weight", f"{theirs}.{name[of]}") for ours, name in NORMS.items()]
        return made


# Our names, and the released file's and diffusers' for each.
FINAL = ("final_layer.image.adaLN_modulation.1", "norm_out.linear")
OUTER = {
    "patches": ("emb_in.image", "x_embedders.image"),
    "text": ("txt_in", "context_embedder"),
    "time.up": ("time_in.in_layer", "timestep_embedder.linear_1"),
    "time.out": ("time_in.out_layer", "timestep_embedder.linear_2"),
    "trunks.0": ("early_stream_modulations.image.lin", "early_stream_modulations.image.linear"),
    "trunks.1": ("early_stream_modulations.txt.lin", "early_stream_modulations.txt.linear"),
    "trunks.2": ("single_stream_modulations.image.lin", "single_stream_modulations.image.linear"),
    "trunks.3": ("single_stream_modulations.txt.lin", "single_stream_modulations.txt.linear"),
    "head": ("final_layer.image.linear", "proj_out"),
}
STACKS = {
    "image_blocks": ("content_mode_blocks.image", "mode_blocks.image"),
    "text_blocks": ("txt_mode_blocks", "txt_mode_blocks"),
    "blocks": ("single_blocks", "single_transformer_blocks"),
}
BLOCK = {
    "attention.op.qkv": ("q_proj k_proj v_proj", "attn.to_q attn.to_k attn.to_v"),
    "attention.op.out": ("attn_out", "attn.to_out.0"),
    "mlp.op.up": ("mlp_in", "ff.linear_in"),
    "mlp.op.down": ("mlp_out", "ff.linear_out"),
}
NORMS = {
    "attention.op.q_norm": ("norm.query_norm.scale", "attn.norm_q.weight"),
    "attention.op.k_norm": ("norm.key_norm.scale", "attn.norm_k.weight"),
}
