"""The fixed Diffusion Transformer. A scheme decides how time and prompt enter; nothing else differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from architectures.beside import with_layer
from architectures.final import FinalNorm
from architectures.layers import TimestepEmbedding, fixed_positions, init_with, initialise, patchify, unpatchify, zeros
from architectures.order import make_parallel
from architectures.prompt import Encoded, PromptKind, length_of, of_length
from architectures.registry import options_of_name, origin, scheme_class
from architectures.scheme import BackboneConfig, Description, Scheme
from architectures.sublayer import Condition, Equations, SubLayer


class DiT(nn.Module):
    """Velocity field v(x, t, prompt): patchify, blocks, unpatchify; the output Linear is initialised to zero.

    Args:
        scheme: how conditions enter.
        prompt: what a prompt is.
        in_channels, out_channels: of the image.

    Attributes:
        residual: dtype of the streams between blocks, equal for every scheme: `fp32`, that of the parameters, or
            `bf16`, that of the arithmetic, which autocast sets.
        recompute: whether blocks are computed again in the backward pass, and keep no activations for it.
    """

    residual: Literal["fp32", "bf16"] = "fp32"
    recompute: bool = False

    def __init__(self, scheme: Scheme, prompt: PromptKind, in_channels: int, out_channels: int) -> None:
        super().__init__()
        config = scheme.backbone
        self.patch, self.out_channels, self.size = config.patch, out_channels, scheme.grid * config.patch
        self.prompt_kind = prompt
        self.patches = nn.Linear(in_channels * config.patch**2, config.width)
        self.time = NoTime(config.width) if scheme.facts.time == "none" else TimestepEmbedding(config.width)
        self.prompt = prompt.encoder(config.width, scheme.parts_read)
        self.scheme = scheme
        self.blocks = nn.ModuleList(scheme.block(index) for index in range(config.depth))
        for block in self.blocks if config.parallel else ():
            make_parallel(block)
        self.head = init_with(nn.Linear(config.width, config.patch**2 * out_channels), weight=zeros)
        self.positions: Tensor
        if config.positions == "learned":  # N(0, 0.02^2), the base rule for tables, as in ViT (arXiv 2010.11929)
            self.positions = nn.Parameter(torch.empty(scheme.grid**2, config.width))
        elif config.positions != "rope":
            table = fixed_positions(config.positions, config.width, scheme.grid)
            self.register_buffer("positions", table, persistent=False)

    def forward(self, x: Tensor, t: Tensor, prompt: Any) -> Tensor:
        """Velocity (B, C_out, H, W) of x (B, C, H, W) at t (B,) in [0, 1] (0 data, 1 noise).

        The prompt is of its kind, or what `encode` made of it.
        """
        x = self.patches(patchify(x, self.patch))  # (B, N, D)
        dtype = self.patches.weight.dtype if self.residual == "fp32" else x.dtype
        if hasattr(self, "positions"):
            x = x + self.positions
        encoded = prompt if isinstance(prompt, Encoded) else self.read(prompt)
        e_t = self.time(t)
        c = self.scheme.embed(e_t, encoded)  # once a pass
        if self.scheme.facts.time == "added":
            x = x.to(self.patches.weight.dtype) + e_t[:, None]
        given = [c._replace(kept=kept) for kept in encoded.kept] or [c] * len(self.blocks)
        h = stream(self.scheme.enter(x.to(dtype), given[0]), dtype)
        for index, own in enumerate(given):
            h = self.step(index, h, own)
        x = self.scheme.leave(h, c)  # (B, N, D), normalised
        return unpatchify(self.head(x), self.patch, self.out_channels)

    def step(self, index: int, h: Any, c: Condition) -> Any:
        """What block `index` makes of h."""
        h, block = self.scheme.join(index, h, c), self.blocks[index]
        return again(block, h, c) if self.recompute and torch.is_grad_enabled() else block(h, c)

    def condition(self, t: Tensor, prompt: Any) -> Condition:
        """What every block receives of t (B,) and a prompt."""
        return self.scheme.embed(self.time(t), prompt if isinstance(prompt, Encoded) else self.read(prompt))

    def read(self, prompt: Any) -> Encoded:
        """An encoded prompt, with the embedding of t = 0 where the scheme needs it."""
        encoded: Encoded = self.prompt(prompt)
        if self.scheme.prompt_time == "zero":
            encoded = encoded._replace(at_zero=self.time(self.patches.weight.new_zeros(1)))
        return encoded

    def encode(self, prompt: Any, guidance: float = 0.0) -> Encoded:
        """An encoded prompt, which `forward` takes too: a sampler needs it once.

        Where the prompt's side depends on neither image nor t it has passed the blocks: what is kept of it are its keys
        and values.

        Args:
            prompt: of its kind.
            guidance: w of modulation guidance (arXiv 2602.09268): the pooled prompt p becomes p + w (p - null).
        """
        encoded = self.read(prompt)
        if guidance:
            null = self.read(self.prompt_kind.null(1, self.patches.weight.device)).pooled
            encoded = encoded._replace(pooled=encoded.pooled + guidance * (encoded.pooled - null))
        if not self.scheme.prompt_alone:
            return encoded
        weight, kept = self.patches.weight, []
        c = self.condition(weight.new_zeros(len(encoded.tokens)), encoded)  # of any t: none reaches the prompt
        assert c.tokens is not None
        low = self.residual == "bf16" and torch.is_autocast_enabled(weight.device.type)
        y = c.tokens.to(torch.get_autocast_dtype(weight.device.type) if low else weight.dtype)
        for index, block in enumerate(self.blocks):
            y, own = block.keep(with_layer(index, y, c), c)  # type: ignore[operator]
            kept.append(own)
        return encoded._replace(kept=tuple(kept))

    def parameter_split(self) -> dict[str, int]:
        """Trainable parameters by what they serve, see `parameter_split`."""
        return parameter_split(self)


class NoTime(nn.Module):
    """e_t = 0, (B,) -> (B, D): of a model that is not conditioned on t."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        return t.new_zeros(len(t), self.width)


def stream(h: Any, dtype: torch.dtype) -> Any:
    """What blocks pass on, one stream or several, in one dtype: a prompt's tokens come in that of their encoder."""
    return h.to(dtype) if isinstance(h, Tensor) else tuple(part.to(dtype) for part in h)


def again(block: nn.Module, h: Any, c: Any) -> Any:
    """A block whose activations are not kept: the backward pass computes them again, to the same bits."""
    streams = h if isinstance(h, tuple) else (h,)

    def run(*parts: Tensor) -> Any:
        return block(parts if isinstance(h, tuple) else parts[0], c)

    return checkpoint(run, *streams, use_reentrant=False, preserve_rng_state=False)


ROLES = ("backbone", "modulation", "prompt", "scheme")


def parameter_split(model: nn.Module) -> dict[str, int]:
    """Trainable parameters by what they serve, with their `total`.

    `backbone` is what is held fixed, `modulation` makes shift, scale and gate, `prompt` is its encoder, cross-attention
    and stream, and `scheme` whatever else a scheme adds.
    """
    split, roles = dict.fromkeys(ROLES, 0), parameter_roles(model)
    for name, parameter in model.named_parameters():
        split[roles[name]] += parameter.numel() if parameter.requires_grad else 0
    return split | {"total": sum(split.values())}


def parameter_roles(model: nn.Module) -> dict[str, str]:
    """What each parameter of a model serves, by its name.

    The outermost module that declares a `role` decides. What a scheme holds without one is `scheme`, but for what its
    factories return (`self_attention()`, `mlp()`) and the norms of its sub-layers and before the output: these are the
    backbone's.

    Raises:
        ValueError: for a declared role of another name.
    """
    if not isinstance(model, DiT):
        return dict(_roles(model, None, "backbone"))
    roles = {name: "backbone" for name, _ in model.named_parameters(recurse=False)}  # positions that are learned
    for name, child in model.named_children():
        roles |= dict(_roles(child, None, "scheme" if name in ("scheme", "blocks") else "backbone", f"{name}."))
    return roles


def _roles(module: nn.Module, declared: str | None, otherwise: str, path: str = "") -> Iterator[tuple[str, str]]:
    """Name and role of each parameter: as declared further out, or here, or else `otherwise`."""
    declared = declared or getattr(module, "role", None)
    if declared not in (None, *ROLES):
        raise ValueError(f"{type(module).__name__}.role {declared!r}: choose {', '.join(ROLES)}")
    for name, _ in module.named_parameters(recurse=False):
        yield f"{path}{name}", declared or otherwise
    norms = isinstance(module, SubLayer | FinalNorm)
    for name, child in module.named_children():
        norm = norms and isinstance(child, nn.LayerNorm | nn.RMSNorm)
        yield from _roles(child, declared, "backbone" if norm else otherwise, f"{path}{name}.")


def create(
    scheme: str,
    backbone: str | BackboneConfig,
    *,
    image_size: int,
    in_channels: int,
    out_channels: int | None = None,
    prompt: PromptKind,
    seed: int | None = None,
    **options: Any,
) -> DiT:
    """The fixed backbone with one scheme.

    Args:
        scheme: a registered name, see `schemes()`.
        backbone: `DiT-S/2` and so on, or a `BackboneConfig`.
        image_size: pixels (or latents) a side; the patch must divide it.
        in_channels: of the image.
        out_channels: of the output, the same by default.
        prompt: `Labels`, `Captions`, `Slots` or `Features`.
        seed: of the initial weights, each generated from (seed, its name); None takes torch's initial seed.
        options: the scheme's own, see `describe(scheme).options`.

    Raises:
        ValueError: for an unknown scheme, backbone or option, or for sizes that do not fit, in one sentence.
    """
    kind = scheme_class(scheme)
    config = BackboneConfig.named(backbone) if isinstance(backbone, str) else backbone
    try:
        built = kind(config, image_size, **resolve_options(scheme, options))
        refuse_length(built, prompt)
        model = DiT(built, prompt, in_channels, in_channels if out_channels is None else out_channels)
    except ValueError as error:
        raise ValueError(f"scheme {scheme!r}: {error}") from error
    initialise(model, torch.initial_seed() if seed is None else seed)
    return model


def refuse_length(scheme: Scheme, prompt: PromptKind) -> None:
    """Refuses a prompt of another length than a scheme's facts demand.

    Raises:
        ValueError: with both lengths and the way out.
    """
    length, tokens = length_of(prompt), scheme.grid**2
    if scheme.facts.length == "tokens" and length != tokens:
        raise ValueError(
            f"it needs a prompt token for each of the image's {tokens}, and this prompt has {length}; "
            "tasks have such prompts with prompt.arm=oracle"
        )


def fitting(scheme: str, prompt: PromptKind, tokens: int) -> PromptKind:
    """The kind of prompt, of `tokens` tokens where the scheme's facts tie its length to the image's."""
    return of_length(prompt, tokens) if scheme_class(scheme).facts.length == "tokens" else prompt


def describe(name: str) -> Description:
    """A scheme's equations, facts, options with their defaults, and origin.

    Raises:
        ValueError: if there is no such scheme or its plugin cannot be imported.
    """
    kind, own = scheme_class(name), options_of_name(name)
    options = {key: replace(one, default=own.get(key, one.default)) for key, one in kind.options().items()}
    with torch.device("meta"):  # nothing is allocated
        scheme = kind(TINY, 16, **own)
        blocks = [scheme.block(index) for index in range(TINY.depth)]
    computed = dict.fromkeys("\n".join(b.equations()) for b in blocks if isinstance(b, Equations))
    facts = scheme.facts if own else kind.facts
    return Description(name, kind.__doc__ or "", facts, options, origin(name), tuple(computed))


TINY = BackboneConfig(width=32, depth=3, heads=2, patch=4)


def resolve_options(scheme: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of a scheme with their values: the given ones over those of its name, these over its defaults.

    Raises:
        ValueError: for an unknown scheme or option, with the choices and the nearest.
    """
    return scheme_class(scheme).resolve(options_of_name(scheme) | options)
