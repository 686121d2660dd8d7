"""HDM: a cross-U transformer whose blocks share one modulation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures.layers import GatedMLP, RMSNorm, SelfAttention, attend, patchify, sinusoid, unpatchify
from architectures.modulation import SharedHead, SharedMLP
from architectures.prompt import FeatureBatch
from architectures.rotary import rotate
from architectures.streams import prompt_path
from architectures.sublayer import (
    Block,
    Condition,
    Context,
    SubLayer,
    carry_modulated,
    mask_and_positions,
    no_context,
    parse_gate,
)
from architectures.systems.parts import TwoLinear
from architectures.systems.weights import Move, linear, two, weight


class LearnedRoPE(nn.Module):
    """Rotary angles exp(f) p, f learned for each head, channel pair and axis; exp(f) is pi at first, as released."""

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.full((heads, head_width // 4, 2), math.log(math.pi)))

    def forward(self, q: Tensor, positions: Tensor) -> Tensor:
        """Rotates q (B, H, N, d) by positions (B, N, 2)."""
        angle = (positions[:, None, :, None] * self.frequencies.exp()[:, None]).flatten(-2)  # (B, H, N, d/2)
        return rotate(q, angle.cos(), angle.sin())


class Across(nn.Module):
    """Cross-attention from the sequence to an earlier state of itself, both rotated by the same positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.rope = LearnedRoPE(heads, width // heads)

    def forward(self, x: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        """Tokens x (B, N, D) attend to `tokens` (B, N, D) -> (B, N, D)."""
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y: Tensor = self.out(attend(self.rope(q, positions), self.rope(k, positions), v, None))
        return y


def earlier_tokens(c: Condition) -> tuple[Tensor | None, Tensor | None]:
    """For an op that attends to an earlier state of the sequence."""
    return c.tokens, c.positions


class HDM(nn.Module):
    """HDM (XUT): encoder blocks, then decoder levels whose first block attends to the encoder's last output.

    One modulation for all blocks of a kind; the modulated stream replaces the stream; no norm before the output.

    forward(x (B, 4, H, W), t (B,) in [0, 1], 1 noise, prompt of tokens (B, L, 1024), aspect (B,) width over height) ->
    (B, 4, H, W). KohakuBlueleaf/HDM as its code computes it, at rest: TREAD, which drops image tokens between the outer
    blocks while training, is left out.
    """

    system = "hdm"
    unused = ()

    def __init__(
        self,
        *,
        width: int = 1024,
        heads: int = 16,
        hidden: int = 3072,
        before: int = 1,
        encoder: int = 4,
        decoder: int = 4,
        decoder_blocks: int = 3,
        after: int = 3,
        patch: int = 2,
        channels: int = 4,
        text_width: int = 1024,
    ) -> None:
        super().__init__()
        d = self.width = width
        self.patch, self.channels, self.decoder_blocks = patch, channels, decoder_blocks
        self.patches = nn.Linear(channels * patch**2, d)
        self.time = nn.Linear(d, d)
        self.aspect = TwoLinear(1, d, activation=F.mish)
        self.text = prompt_path(nn.Linear(text_width, d))
        self.attention_head, self.cross_head, self.mlp_head = (SharedMLP(d, 3) for _ in range(3))
        gate = parse_gate("one+zero")

        def branch(op: nn.Module, context: Context) -> SubLayer:
            norm = RMSNorm(d, 1e-6)
            return SubLayer(
                op=op, norm=norm, modulation="scale+shift", gate=gate, context=context, carry=carry_modulated
            )

        def block(across: bool = False) -> Block:
            own = SelfAttention(d, heads, bias=(False, True), rope=LearnedRoPE(heads, d // heads))
            parts = {"attention": branch(own, mask_and_positions)}
            if across:
                parts["cross"] = branch(Across(d, heads), earlier_tokens)
            parts["mlp"] = branch(GatedMLP(d, hidden=hidden), no_context)
            return Block(SharedHead(3), **parts)

        self.before = nn.ModuleList(block() for _ in range(before))
        self.encoder = nn.ModuleList(block() for _ in range(encoder))
        self.decoder = nn.ModuleList(block(k % decoder_blocks == 0) for k in range(decoder * decoder_blocks))
        self.after = nn.ModuleList(block() for _ in range(after))
        self.head = nn.Linear(d, patch**2 * channels)

    def forward(self, x: Tensor, t: Tensor, prompt: FeatureBatch, aspect: Tensor | None = None) -> Tensor:
        h, w = (side // self.patch for side in x.shape[-2:])
        c = F.mish(self.time(sinusoid(1000.0 * t.float(), self.width)))
        if aspect is not None:
            c = c + self.aspect(aspect[:, None])
        a, b, m = self.attention_head(c), self.cross_head(c), self.mlp_head(c)
        y = self.text(prompt.tokens)
        image, text = centres(h, w, x.device), torch.zeros(y.shape[1], 2, device=x.device)
        places = torch.cat([image, text])[None]
        plain = Condition(modulation=(a, m), positions=places)
        z = torch.cat([self.patches(patchify(x, self.patch)), y], dim=1)
        for block in (*self.before, *self.encoder):
            z = block(z, plain)
        across = Condition(modulation=(a, b, m), tokens=z, positions=places)
        for block in self.decoder:
            z = block(z, across if hasattr(block, "cross") else plain)
        for block in self.after:
            z = block(z, plain)
        return unpatchify(self.head(z[:, : h * w]), self.patch, self.channels, (h, w))

    def velocity(self, x: Tensor, t: Tensor, prompt: FeatureBatch) -> Tensor:
        """Velocity (B, 4, H, W), t in [0, 1], 1 noise."""
        v: Tensor = self(x, t, prompt, torch.full_like(t, x.shape[-1] / x.shape[-2]))
        return v

    def moves(self, layout: str) -> list[Move]:
        """How the released file (`original`) becomes these parameters; diffusers has no HDM."""
        if layout != "original":
            return []
        moves = linear("patches", "in_patch.proj") + linear("time", "time_emb.proj.0")
        moves += two("aspect", "addon_info_embs_proj", "0", "2") + linear("text", "ctx_proj")
        for ours, theirs in (("attention_head", "attn"), ("cross_head", "xattn"), ("mlp_head", "ffw")):
            head = f"shared_adaln_{theirs}"
            moves += linear(f"{ours}.norm", f"{head}.0") + two(ours, head, "1", "3")
        for ours, theirs, across in self._blocks():
            moves += released_block(ours, theirs, across)
        return moves + linear("head", "out_patch.proj")

    def _blocks(self) -> Iterator[tuple[str, str, bool]]:
        """Our name of each block, the released one, and whether it has cross-attention."""
        for k in range(len(self.before)):
            yield f"before.{k}", f"prev_tread_trns.blocks.{k}", False
        for k in range(len(self.encoder)):
            yield f"encoder.{k}", f"backbone.enc_blocks.{k}.0", False
        for k in range(len(self.decoder)):
            level, place = divmod(k, self.decoder_blocks)
            yield f"decoder.{k}", f"backbone.dec_blocks.{level}.{place}", place == 0
        for k in range(len(self.after)):
            yield f"after.{k}", f"post_tread_trns.blocks.{k}", False


def released_block(ours: str, theirs: str, across: bool) -> list[Move]:
    """A block of the released file."""
    moves = attention_moves(f"{ours}.attention", f"{theirs}.attn", ("qkv",))
    if across:
        moves += attention_moves(f"{ours}.cross", f"{theirs}.xattn", ("q", "kv"))
    moves += linear(f"{ours}.mlp.op.up", f"{theirs}.mlp.w12") + linear(f"{ours}.mlp.op.down", f"{theirs}.mlp.w3")
    return moves + weight(f"{ours}.mlp.norm", f"{theirs}.mlp_pre_norm.norm")


def attention_moves(ours: str, theirs: str, projections: tuple[str, ...]) -> list[Move]:
    """Attention with its norm and learned frequencies; the projections have no bias."""
    moves = [move for part in projections for move in weight(f"{ours}.op.{part}", f"{theirs}.{part}")]
    moves += linear(f"{ours}.op.out", f"{theirs}.out")
    moves += [Move(f"{ours}.op.rope.frequencies", f"{theirs}.rope.freqs")]
    return moves + weight(f"{ours}.norm", f"{theirs}_pre_norm.norm")


def centres(h: int, w: int, device: torch.device) -> Tensor:
    """Middles of the tokens (h w, 2), the longer side of the image spanning [-1, 1]."""
    rows, columns = (torch.arange(n, device=device) * 2 + 1 - n for n in (h, w))
    row, column = torch.meshgrid(rows / max(h, w), columns / max(h, w), indexing="ij")
    return torch.stack([row, column], dim=-1).flatten(0, 1)
