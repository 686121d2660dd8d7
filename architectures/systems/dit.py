from __future__ import annotations

from torch import Tensor, nn

from architectures.backbone import create
from architectures.prompt import Labels
from architectures.scheme import BackboneConfig
from architectures.systems.parts import epsilon_velocity
from architectures.systems.weights import Move, attention, feed_forward, linear, released_branches, two


class DiT(nn.Module):
    """DiT with adaLN-Zero, as released: the scheme `adaln-zero` on its own backbone, epsilon and variance out.

    forward(x (B, 4, H, W), t (B,) steps 0 .. 999, labels (B,)) -> (B, 8, H, W). Peebles and Xie 2023, arXiv 2212.09748.
    """

    system = "dit"

    def __init__(
        self,
        *,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        patch: int = 2,
        image_size: int = 32,
        channels: int = 4,
        out_channels: int = 8,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.prompt_kind, self.channels = Labels(classes), channels
        config = BackboneConfig(width=width, depth=depth, heads=heads, patch=patch)
        self.net = create(
            "adaln-zero", config, image_size=image_size, in_channels=channels, out_channels=out_channels,
            prompt=self.prompt_kind, seed=0,
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        if x.shape[-2:] != (self.net.size, self.net.size):
            raise ValueError(
                f"an image of {tuple(x.shape[-2:])}: this model's positions are for {self.net.size} a side"
            )
        return self.net(x, t.float() / 1000, labels)

    def velocity(self, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        """v (B, 4, H, W) on the straight path, t in [0, 1], 1 noise; prompt: labels."""
        return epsilon_velocity(lambda x_s, steps: self(x_s, steps, prompt), x, t)

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        if layout == "original":
            made = linear("net.patches", "x_embedder.proj") + two("net.time", "t_embedder", "mlp.0", "mlp.2")
            made += [Move("net.prompt.table.weight", "y_embedder.embedding_table.weight")]
            made += linear("net.scheme.final.head.affine", "final_layer.adaLN_modulation.1")
            made += linear("net.head", "final_layer.linear")
            for k in range(len(self.net.blocks)):
                ours, theirs = f"net.blocks.{k}", f"blocks.{k}"
                made += linear(f"{ours}.head.affine", f"{theirs}.adaLN_modulation.1")
                made += released_branches(f"{ours}.", theirs)
            return made
        embed = "transformer_blocks.0.norm1.emb"  # each block has a copy; the first is the one that also feeds the end
        made = linear("net.patches", "pos_embed.proj")
        made += two("net.time", f"{embed}.timestep_embedder", "linear_1", "linear_2")
        made += [Move("net.prompt.table.weight", f"{embed}.class_embedder.embedding_table.weight")]
        made += linear("net.scheme.final.head.affine", "proj_out_1") + linear("net.head", "proj_out_2")
        for k in range(len(self.net.blocks)):
            ours, theirs = f"net.blocks.{k}", f"transformer_blocks.{k}"
            made += linear(f"{ours}.head.affine", f"{theirs}.norm1.linear")
            made += attention(f"{ours}.attention.op", f"{theirs}.attn1")
            made += feed_forward(f"{ours}.mlp.op", f"{theirs}.ff")
        return made

    unused = (r"pos_embed", r"transformer_blocks\.[1-9]\d*\.norm1\.emb\..*")  # positions; copies of the first embedder
