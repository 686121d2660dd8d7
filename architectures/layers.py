"""The parts that every scheme is held to: attention, MLP, norms, positions, time, and how weights are initialised.

Letters: B batch, N image tokens, L prompt tokens, D width, H heads, d = D / H; x tokens, t time, c condition.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures.options import Option, choose

# --- how weights are initialised
# ----------------------------------------------------------------------------------------

Init = Callable[[Tensor, torch.Generator], None]  # fills a tensor in place
M = TypeVar("M", bound=nn.Module)


def zeros(tensor: Tensor, generator: torch.Generator) -> None:
    """All 0."""
    tensor.zero_()


def ones(tensor: Tensor, generator: torch.Generator) -> None:
    """All 1."""
    tensor.fill_(1.0)


def normal(std: float) -> Init:
    """N(0, std^2)."""

    def fill(tensor: Tensor, generator: torch.Generator) -> None:
        tensor.normal_(std=std, generator=generator)

    return fill


def xavier(tensor: Tensor, generator: torch.Generator) -> None:
    """Xavier uniform (Glorot and Bengio 2010)."""
    nn.init.xavier_uniform_(tensor, generator=generator)


def init_with(module: M, **init: Init) -> M:
    """Declares how parameters of `module` are initialised, by name, where that is not the base rule of `initialise`."""
    vars(module)["init"] = {**getattr(module, "init", {}), **init}
    return module


def initialise(model: nn.Module, seed: int) -> nn.Module:
    """Initialises every parameter, each from a generator seeded by (seed, its name).

    So the backbone of two schemes has the same first weights, whatever else either of them adds. The base rule is
    DiT's: Linear weights xavier-uniform, biases zero, norm weights one, tables N(0, 0.02^2); modules that differ say so
    with `init_with`. Filled on the CPU in float32, so that device and dtype change nothing.
    """
    for path, module in model.named_modules():
        init = getattr(module, "init", {})
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                continue
            values = torch.empty(parameter.shape, dtype=torch.float32)
            (init.get(name) or _base_rule(module, name))(values, _generator(seed, f"{path}.{name}"))
            with torch.no_grad():
                parameter.copy_(values)
    return model


def _generator(seed: int, name: str) -> torch.Generator:
    key = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))


def _base_rule(module: nn.Module, name: str) -> Init:
    if name == "bias":
        return zeros
    if isinstance(module, nn.Linear):
        return xavier
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return ones
    return normal(0.02)


# --- norms ----------------------------------------------------------------------------------------------------------


def LayerNorm(width: int) -> nn.LayerNorm:
    """LN(x) without weight or bias, eps 1e-6 (DiT)."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def RMSNorm(width: int, eps: float = 1e-5) -> nn.RMSNorm:
    """x / rms(x) * w with a learned weight w (eps 1e-5, Lumina 2.0)."""
    return nn.RMSNorm(width, eps=eps)


NORM = Option("the norm before each branch: LN without weights, or RMS with one", ("layer", "rms"))


def parse_norm(text: str) -> Callable[[int], nn.Module]:
    """A norm from its name: `layer` or `rms`.

    Raises:
        ValueError: for any other text.
    """
    norms: dict[str, Callable[[int], nn.Module]] = {"layer": LayerNorm, "rms": RMSNorm}
    return norms[choose("norm", text, NORM.choices)[0]]


# --- attention ------------------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v over one sequence.

    Args:
        width: D. heads: H. kv_heads: fewer heads of k and v, each for H / kv_heads heads of q (grouped queries).
        bias: of qkv and of out. qk_norm: RMS-normalise queries and keys, each head with one weight; qk_eps its eps.
        rope: rotates queries and keys; `PrecomputedRoPE()` where positions come with the sequence.
        read_only: `out` is left out: the sequence is only attended to by another one (SD3's last text side).
        gated: what `out` receives is multiplied by sigmoid(W_g x), a gate a channel (Krea 2).
    """

    symbol = "SA"

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        bias: tuple[bool, bool] = (True, True),
        qk_norm: bool = False,
        qk_eps: float = 1e-6,
        rope: nn.Module | None = None,
        read_only: bool = False,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads or heads
        d = width // heads
        self.qkv = nn.Linear(width, (heads + 2 * self.kv_heads) * d, bias=bias[0])
        self.out = nn.Linear(width, width, bias=bias[1]) if not read_only else None
        self.q_norm = RMSNorm(d, eps=qk_eps) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(d, eps=qk_eps) if qk_norm else nn.Identity()
        self.rope = rope or nn.Identity()
        self.gate = nn.Linear(width, width, bias=False) if gated and not read_only else None

    def forward(self, x: Tensor, mask: Tensor | None = None, *where: Tensor) -> Tensor:
        """x (B, N, D), mask (B, N) true where a token is attended to, where: what rope needs -> (B, N, D)."""
        return self.emit(attend(*self.split(x, *where), mask), x)

    def emit(self, a: Tensor, x: Tensor) -> Tensor:
        """What the heads attended to, a (B, N, D), of tokens x (B, N, D), through the gate and out -> (B, N, D)."""
        assert self.out is not None
        return self.out(a if self.gate is None else self.gate(x).sigmoid() * a)

    def split(self, x: Tensor, *where: Tensor, turned: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, N, D) -> q, k, v, each (B, H, N, d), normed and, unless they have no position, rotated."""
        qkv = self.qkv(x).unflatten(-1, (self.heads + 2 * self.kv_heads, -1)).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        if self.kv_heads < self.heads:
            k, v = (u.repeat_interleave(self.heads // self.kv_heads, dim=1) for u in (k, v))
        q, k = self.q_norm(q), self.k_norm(k)
        return (self.rope(q, *where), self.rope(k, *where), v) if turned else (q, k, v)


class CrossAttention(nn.Module):
    """Queries from image tokens, keys and values from prompt tokens: q, kv and out.

    Args:
        width: D. heads: H. context: width of the prompt tokens, D by default. bias: of q and kv. out_bias: of out.
    """

    role, symbol = "prompt", "CA"

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        context: int | None = None,
        bias: bool = True,
        out_bias: bool = True,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=bias)
        self.kv = nn.Linear(context or width, 2 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=out_bias)
        self.q_norm = RMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(width // heads, eps=1e-6) if qk_norm else nn.Identity()

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, N, D), tokens (B, L, D), mask (B, L) true where a token is attended to -> (B, N, D)."""
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, N, d)
        k, v = self.kv(tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, L, d)
        return self.out(attend(self.q_norm(q), self.k_norm(k), v, mask))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v: q (B, H, N, d), k and v (B, H, L, d), mask (B, L) -> (B, N, D).

    On a CPU in float32, whatever its autocast: there attention in bf16 takes several times as long.
    """
    mask = None if mask is None else mask[:, None, None, :]
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            a = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
    else:
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return a.transpose(1, 2).flatten(-2)


# --- MLP ------------------------------------------------------------------------------------------------------------


class MLP(nn.Module):
    """D -> 4D -> D with tanh-GELU (DiT)."""

    symbol = "MLP"

    def __init__(self, width: int, ratio: float = 4.0, *, bias: bool = True, out_bias: bool = True) -> None:
        super().__init__()
        self.up = nn.Linear(width, int(width * ratio), bias=bias)
        self.down = nn.Linear(int(width * ratio), width, bias=bias and out_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class GatedMLP(nn.Module):
    """D -> 2M -> M -> D, a(u) * v (SwiGLU: a = silu; GEGLU: a = gelu); M = 2/3 of 4D keeps the parameters equal."""

    symbol = "MLP"

    def __init__(
        self,
        width: int,
        ratio: float = 4.0,
        *,
        hidden: int | None = None,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = F.silu,
    ) -> None:
        """Two maps into M channels and one back.

        Args:
            width: D.
            ratio: of 4D over D.
            hidden: M itself; else two thirds of ratio D, in whole eights: bf16 matrices of other sizes are not aligned.
            bias: whether the maps have one.
            activation: a.
        """
        super().__init__()
        hidden = hidden or 8 * round(width * ratio / 12)
        self.up = nn.Linear(width, 2 * hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.up(x).chunk(2, dim=-1)
        return self.down(self.activation(u) * v)


MLPS: dict[str, Callable[..., nn.Module]] = {
    "gelu": MLP,
    "swiglu": partial(GatedMLP, activation=F.silu),
    "geglu": partial(GatedMLP, activation=F.gelu),
}

# --- positions and time ---------------------------------------------------------------------------------------------


POSITIONS = ("sincos", "sincos(16)", "random", "learned", "rope")


def fixed_positions(positions: str, width: int, grid: int) -> Tensor:
    """The table (grid * grid, D) of `sincos`, `sincos(BASE)` or `random`.

    Raises:
        ValueError: for any other text.
    """
    name, base = choose("positions", positions, POSITIONS)
    if name == "random":
        return random_positions(width, grid)
    return sincos_positions(width, grid) if base is None else quarter_positions(width, grid, base)


def sincos_positions(width: int, grid: int) -> Tensor:
    """Fixed 2-D sin-cos positions (grid * grid, D), row-major: first half column, second half row (DiT)."""
    return sincos_at(width, torch.arange(grid), torch.arange(grid))


def quarter_positions(width: int, grid: int, base: float) -> Tensor:
    """The same of another base, with angles in quarter turns: the fastest channel turns by pi / 2 a token."""
    steps = math.pi / 2 * torch.arange(grid, dtype=torch.float64)
    return sincos_at(width, steps, steps, base)


def random_positions(width: int, grid: int) -> Tensor:
    """A fixed table (grid * grid, D) of N(0, 1), a function of (width, grid): the same for all seeds and schemes."""
    values = torch.randn(grid**2, width, generator=_generator(0, f"positions {width} {grid}"), device="cpu")
    return torch.empty(grid**2, width).copy_(values)  # on the device that the model is built on


def sincos_at(width: int, rows: Tensor, columns: Tensor, base: float = 10000.0) -> Tensor:
    """Sin-cos positions (h w, D) of a grid with the given coordinates, rows (h,) and columns (w,)."""
    if width % 4:
        raise ValueError(f"sin-cos positions need a width divisible by 4, got {width}")
    frequency = base ** (-torch.arange(width // 4, dtype=torch.float64, device=rows.device) / (width // 4))
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    angles = [p.flatten()[:, None] * frequency for p in (column, row)]
    return torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1).float()


def timestep_sinusoid(t: Tensor, width: int = 256) -> Tensor:
    """t (B,) in [0, 1] -> [cos(1000 t f) | sin(1000 t f)] (B, width), f_i = 10000^(-i / (width / 2)), in float32."""
    return sinusoid(1000.0 * t.float(), width)


def sinusoid(s: Tensor, width: int = 256, scale: float = 1.0) -> Tensor:
    """s (B,) -> [cos(scale s f) | sin(scale s f)] (B, width), f_i = 10000^(-i / (width / 2)), in float32."""
    frequency = torch.exp(-math.log(10000.0) / (width // 2) * torch.arange(width // 2, device=s.device))
    angle = scale * (s.float()[:, None] * frequency)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """e_t = W2 silu(W1 sinusoid(t) + b1) + b2, (B,) -> (B, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = init_with(nn.Linear(256, width), weight=normal(0.02))
        self.out = init_with(nn.Linear(width, width), weight=normal(0.02))

    def forward(self, t: Tensor) -> Tensor:
        return self.out(F.silu(self.up(timestep_sinusoid(t).to(self.up.weight.dtype))))


def patchify(image: Tensor, patch: int) -> Tensor:
    """(B, C, H, W) -> (B, N, C p p), row-major."""
    B, C, height, width = image.shape
    x = image.reshape(B, C, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatchify(x: Tensor, patch: int, channels: int, grid: tuple[int, int] | None = None) -> Tensor:
    """(B, N, p p C) -> (B, C, H, W), square unless the grid is given; the order within a patch is DiT's."""
    grid = grid or (math.isqrt(x.shape[1]), math.isqrt(x.shape[1]))
    x = x.unflatten(1, grid).unflatten(-1, (patch, patch, channels))  # (B, h, w, p, q, C)
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
