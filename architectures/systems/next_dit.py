"""Lumina-Image 2.0 and Z-Image: refiners of image and caption, then one sequence of both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from architectures.final import FinalNorm
from architectures.layers import LayerNorm, patchify, unpatchify
from architectures.prompt import FeatureBatch, with_image
from architectures.sublayer import Condition
from architectures.systems.parts import (
    NormedLinear,
    Sandwich,
    TimeEmbedding,
    check_axes,
    grid_positions,
    lengths,
    too_long,
    turns,
)
from architectures.systems.weights import Move, channels_first, linear, rows, two, weight


class NextDiT(nn.Module):
    """What both have: embedders, refiners, blocks, an output that is scaled.

    Args:
        width: D. depth, refiners: blocks of each kind. heads, kv_heads: H. hidden: of SwiGLU. cond_width: channels of
        c. axes, limits: channels and positions of each rotary axis.
    """

    def __init__(self, time: nn.Module, **s: Any) -> None:
        super().__init__()
        check_axes(s["axes"], s["width"], s["heads"])
        self.sizes, d, r = s, s["width"], s["cond_width"]
        self.patch, self.channels = s["patch"], s["channels"]
        self.patches = nn.Linear(s["channels"] * s["patch"] ** 2, d)
        self.time = time
        self.text = NormedLinear(s["text_width"], d, eps=1e-5)

        def made(count: int, cond_width: int | None = r) -> nn.ModuleList:
            parts = (d, s["heads"], s["kv_heads"], s["hidden"], s["qk_eps"])
            return nn.ModuleList(Sandwich(*parts, cond_width) for _ in range(count))

        self.image_refiners, self.text_refiners = made(s["refiners"]), made(s["refiners"], None)
        self.blocks = made(s["depth"])
        self.final = FinalNorm(LayerNorm(d), "scale", d, cond_width=r)
        self.head = nn.Linear(d, s["patch"] ** 2 * s["channels"])

    def check(self, *asked: int) -> None:
        """Refuses more caption tokens, rows or columns than the rotary positions of their axis.

        Raises:
            ValueError: with both numbers.
        """
        for what, number, limit in zip(("caption tokens", "rows", "columns"), asked, self.sizes["limits"], strict=True):
            too_long(what, number, limit)

    def run(
        self, x: Tensor, y: Tensor, c: Tensor, m: Tensor, seen: Tensor, places: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """x (B, N, D) and y (B, L, D) through refiners and blocks; seen (B, L), places (B, N + L, 3)."""
        N = x.shape[1]
        angles = turns(places, self.sizes["axes"], self.sizes["theta"])
        for block in self.text_refiners:
            y = block(y, Condition(mask=seen, positions=angles[:, N:]))
        for block in self.image_refiners:
            x = block(x, Condition(modulation=m, positions=angles[:, :N]))
        mask = with_image(seen, N)
        z = torch.cat([x, y], dim=1)
        for block in self.blocks:
            z = block(z, Condition(modulation=m, mask=mask, positions=angles))
        z = self.final(z[:, : size[0] * size[1]], c)
        return unpatchify(self.head(z), self.patch, self.channels, size)

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """v (B, 16, H, W), t in [0, 1], 1 noise: the model's own time and output run the other way."""
        return -self(x, 1 - t, prompt)

    def block_moves(self, names: dict[str, str], *, fused: bool, modulation: str, plain_norm: str) -> list[Move]:
        """All blocks and refiners; `names` are theirs of a block's parts, `plain_norm` the first norm of a refiner."""
        made = []
        stacks = [("blocks", "layers", self.sizes["depth"], True)]
        stacks += [("image_refiners", "noise_refiner", self.sizes["refiners"], True)]
        stacks += [("text_refiners", "context_refiner", self.sizes["refiners"], False)]
        for own, other, count, modulated in stacks:
            for k in range(count):
                ours, theirs = f"{own}.{k}", f"{other}.{k}"
                attention = f"{theirs}.{names['attention']}"
                qkv = ["qkv"] if fused else ["to_q", "to_k", "to_v"]
                made += rows(f"{ours}.attention.op.qkv", [f"{attention}.{u}" for u in qkv], bias=False)
                made += weight(f"{ours}.attention.op.out", f"{attention}.{names['out']}")
                for u in "qk":
                    made += weight(f"{ours}.attention.op.{u}_norm", f"{attention}.{names['norm'].format(u)}")
                w1, w2, w3 = (f"{theirs}.feed_forward.{names['w']}{n}" for n in (1, 2, 3))
                made += rows(f"{ours}.mlp.op.up", [w1, w3], bias=False) + weight(f"{ours}.mlp.op.down", w2)
                made += weight(f"{ours}.attention.norm", f"{theirs}.{names['norm1'] if modulated else plain_norm}")
                made += weight(f"{ours}.attention.post", f"{theirs}.{names['norm2']}")
                made += weight(f"{ours}.mlp.norm", f"{theirs}.ffn_norm1")
                made += weight(f"{ours}.mlp.post", f"{theirs}.ffn_norm2")
                if modulated:
                    made += linear(f"{ours}.head.affine", f"{theirs}.{modulation}")
        return made


def image_places(h: int, w: int, *, after: Tensor) -> Tensor:
    """Positions (B, h w, 3) of image tokens: after the caption, (B,), row, column."""
    places = grid_positions(torch.arange(h, device=after.device), torch.arange(w, device=after.device))
    places = places.repeat(len(after), 1, 1)
    places[..., 0] = after[:, None]
    return places


def joint_places(h: int, w: int, length: int, *, count: Tensor) -> Tensor:
    """Positions (B, h w + length, 3): (count, row, column) of the image, (place, 0, 0) of captions of `count` (B,)."""
    image = image_places(h, w, after=count)
    text = image.new_zeros(len(count), length, 3)
    text[..., 0] = torch.arange(length, device=count.device)
    return torch.cat([image, text], dim=1)


ORIGINAL = dict(
    attention="attention", out="out", norm="{}_norm", w="w", norm1="attention_norm1", norm2="attention_norm2"
)


class Lumina2(NextDiT):
    """Lumina-Image 2.0 (Unified Next-DiT): grouped queries; the image's positions begin where its caption ends.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 0 noise, 1 data, prompt of tokens (B, L, 2304) and mask (B, L)) ->
    (B, 16, H, W). The time is not multiplied by 1000. Qin et al. 2025 (arXiv 2503.21758).
    """

    system = "lumina2"
    unused = (r"norm_final\.weight",)  # made and never used

    def __init__(
        self,
        *,
        width: int = 2304,
        depth: int = 26,
        refiners: int = 2,
        heads: int = 24,
        kv_heads: int = 8,
        hidden: int | None = None,
        patch: int = 2,
        channels: int = 16,
        text_width: int = 2304,
        axes: tuple[int, ...] = (32, 32, 32),
        limits: tuple[int, ...] = (300, 512, 512),
        theta: float = 10000.0,
    ) -> None:
        r = min(width, 1024)
        super().__init__(
            TimeEmbedding(r), width=width, depth=depth, refiners=refiners, heads=heads, kv_heads=kv_heads,
            hidden=hidden or 256 * -(-4 * width // 256), patch=patch, channels=channels, text_width=text_width,
            axes=axes, limits=limits, theta=theta, cond_width=r, qk_eps=1e-6,
        )  # fmt: skip

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        count = lengths(prompt.mask)  # (B,)
        self.check(int(count.max()) + 1, h, w)
        c = self.time(t)
        places = joint_places(h, w, prompt.tokens.shape[1], count=count)
        x = self.patches(patchify(x, self.patch))
        return self.run(x, self.text(prompt.tokens), c, nn.functional.silu(c), prompt.mask, places, (h, w))

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) or diffusers' (`diffusers`) becomes these parameters."""
        made = linear("patches", "x_embedder", channels_first(self.patch))
        if layout == "original":
            made += two("time", "t_embedder", "mlp.0", "mlp.2")
            made += weight("text.norm", "cap_embedder.0") + linear("text.out", "cap_embedder.1")
            made += linear("final.head.affine", "final_layer.adaLN_modulation.1") + linear("head", "final_layer.linear")
            return made + self.block_moves(
                ORIGINAL, fused=True, modulation="adaLN_modulation.1", plain_norm="attention_norm1"
            )
        both = "time_caption_embed"
        made += two("time", f"{both}.timestep_embedder", "linear_1", "linear_2")
        made += weight("text.norm", f"{both}.caption_embedder.0") + linear("text.out", f"{both}.caption_embedder.1")
        made += linear("final.head.affine", "norm_out.linear_1") + linear("head", "norm_out.linear_2")
        names = dict(attention="attn", out="to_out.0", norm="norm_{}", w="linear_", norm1="norm1.norm", norm2="norm2")
        return made + self.block_moves(names, fused=False, modulation="norm1.linear", plain_norm="norm1")


class ZImage(NextDiT):
    """Z-Image (S3-DiT): c has 256 channels, theta is 256.

    Image and caption are each filled up to a multiple of 32 with a learned token, which is attended to.

    forward(x (B, 16, H, W), t (B,) in [0, 1], 0 noise, 1 data, prompt of tokens (B, L, 2560) and mask (B, L)) ->
    (B, 16, H, W). Z-Image team 2025 (arXiv 2511.22699). The released files have diffusers' layout; `original` is the
    single file with fused queries, keys and values.
    """

    system = "z-image"
    unused = (r"norm_final\.weight",)

    def __init__(
        self,
        *,
        width: int = 3840,
        depth: int = 30,
        refiners: int = 2,
        heads: int = 30,
        hidden: int | None = None,
        patch: int = 2,
        channels: int = 16,
        text_width: int = 2560,
        axes: tuple[int, ...] = (32, 48, 48),
        limits: tuple[int, ...] = (1024, 512, 512),
        theta: float = 256.0,
        multiple: int = 32,
    ) -> None:
        r = min(width, 256)
        super().__init__(
            TimeEmbedding(r, 1024, factor=1000.0), width=width, depth=depth, refiners=refiners, heads=heads,
            kv_heads=heads, hidden=hidden or int(width / 3 * 8), patch=patch, channels=channels, text_width=text_width,
            axes=axes, limits=limits, theta=theta, cond_width=r, qk_eps=1e-5,
        )  # fmt: skip
        self.multiple = multiple
        self.image_filler = nn.Parameter(torch.zeros(width))
        self.text_filler = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        (h, w), m = (side // self.patch for side in x.shape[-2:]), self.multiple
        count = lengths(prompt.mask)  # (B,)
        filled = -(-count // m) * m
        L = int(filled.max())
        self.check(L + 2, h, w)
        c = self.time(t)
        x = self.patches(patchify(x, self.patch))
        x = torch.cat([x, self.image_filler.expand(len(x), -x.shape[1] % m, -1)], dim=1)
        index = torch.arange(L, device=x.device)
        y = self.text(nn.functional.pad(prompt.tokens[:, :L], (0, 0, 0, max(0, L - prompt.tokens.shape[1]))))
        y = torch.where((index < count[:, None])[..., None], y, self.text_filler)
        image = image_places(h, w, after=filled + 1)
        image = nn.functional.pad(image, (0, 0, 0, x.shape[1] - h * w))
        text = image.new_zeros(len(x), L, 3)
        text[..., 0] = 1 + index
        places, seen = torch.cat([image, text], dim=1), index < filled[:, None]
        return self.run(x, y, c, c, seen, places, (h, w))

    def moves(self, layout: str) -> list[Move]:
        """How the single file (`original`) or diffusers' and the release's (`diffusers`) becomes these parameters."""
        original = layout == "original"
        at = "" if original else f"all_@.{self.patch}-1"
        patches, final = (at.replace("@", name) or name for name in ("x_embedder", "final_layer"))
        made = linear("patches", patches, channels_first(self.patch))
        made += two("time", "t_embedder", "mlp.0", "mlp.2")
        made += weight("text.norm", "cap_embedder.0") + linear("text.out", "cap_embedder.1")
        made += linear("final.head.affine", f"{final}.adaLN_modulation.1") + linear("head", f"{final}.linear")
        made += [Move("image_filler", "x_pad_token"), Move("text_filler", "cap_pad_token")]
        released = ORIGINAL | dict(out="to_out.0", norm="norm_{}")
        return made + self.block_moves(
            ORIGINAL if original else released,
            fused=original,
            modulation="adaLN_modulation.0",
            plain_norm="attention_norm1",
        )
