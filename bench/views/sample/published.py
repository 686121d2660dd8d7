"""Samples of a published system by its released weights, read from safetensors alone, which hold no program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import architectures
from architectures import FeatureBatch
from bench.data.pixels import to_images
from bench.measure.images import png, tile
from bench.measure.sampling import euler, initial_noise
from bench.store.files import write_atomic
from bench.views.sample.cells import SampleSettings
from bench.views.sample.weightfiles import FileError, read

GUIDANCE = 4.0  # of a system that says nothing else


def load(
    system: str,
    path: Path,
    sizes: dict[str, Any],
    *,
    ema: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Any, str]:
    """A published system with the weights of a file, and the file's layout.

    Args:
        system: its name.
        path: a safetensors file, a folder of them, or an index.
        sizes: of the system.
        ema: whether averaged weights are taken, where the file holds both.
        say: called with what was taken off the keys, and what was passed over.

    Raises:
        FileError: for a file that cannot be read.
        ValueError: for a file that is not this system's.
    """
    state = read(path)
    with torch.device("cpu"), parameters_on_meta():
        model: Any = architectures.published(system, **sizes)
    try:
        layout = architectures.load_published(model, state, ema=ema, say=say)
    except architectures.WeightsError as error:
        raise architectures.WeightsError(f"{path}: {error}") from error
    return model.float().eval(), layout


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Models built within have no memory for their parameters; what no file holds, such as positions, is computed."""

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(parameter.to("meta"), parameter.requires_grad)

    handle = register_module_parameter_registration_hook(on_meta)  # type: ignore[arg-type]  # torch says None
    try:
        yield
    finally:
        handle.remove()


def features(path: Path, *, guided: bool = False) -> tuple[FeatureBatch, FeatureBatch]:
    """Encoded prompts of a safetensors file, and the null ones.

    The file holds `tokens` (B, L, W), `mask` (B, L), `pooled` (B, P), and `null_tokens`, `null_mask`, `null_pooled`;
    masks and pooled vectors where the system has them, the null ones where it is guided.

    Raises:
        FileError: if there are no tokens, or none to guide away from.
    """
    state = read(path)
    for name in ("tokens", *(["null_tokens"] if guided else [])):
        if name not in state:
            more = "; or give --guidance 1" if name != "tokens" else ""
            raise FileError(f"{path}: no `{name}`; it holds {', '.join(sorted(state)[:9]) or 'nothing'}{more}")
    tokens = _checked(path, state, "tokens", 3)

    def batch(prefix: str) -> FeatureBatch:
        own = _checked(path, state, f"{prefix}tokens", 3) if f"{prefix}tokens" in state else torch.zeros_like(tokens)
        mask = state[f"{prefix}mask"].bool() if f"{prefix}mask" in state else torch.ones(own.shape[:2]).bool()
        if mask.shape != own.shape[:2]:
            raise FileError(f"{path}: {prefix}mask is {tuple(mask.shape)}, its tokens {tuple(own.shape)}")
        name = f"{prefix}pooled"
        pooled = _checked(path, state, name, 2) if name in state else torch.zeros(len(own), 1)
        if len(own) != len(tokens) or len(pooled) != len(own):
            raise FileError(f"{path}: {name} and {prefix}tokens are not of {len(tokens)} prompts each")
        return FeatureBatch(own, mask, pooled)

    return batch(""), batch("null_")


def _checked(path: Path, state: Mapping[str, Tensor], name: str, axes: int) -> Tensor:
    """A tensor of numbers that a system can take, as float32."""
    tensor = state[name]
    if not tensor.is_floating_point() or tensor.ndim != axes or not tensor.numel():
        kind = str(tensor.dtype).removeprefix("torch.")
        raise FileError(f"{path}: {name} is {kind} of shape {tuple(tensor.shape)}, not {axes} axes of floats")
    if not bool(tensor.float().isfinite().all()):
        raise FileError(f"{path}: {name} holds NaN or infinity")
    return tensor.float()


@torch.inference_mode()
def latents(
    model: Any, prompt: Any, null: Any, shape: Sequence[int], *, count: int, seed: int, steps: int, guidance: float
) -> Tensor:
    """Latents (B * count, C, H, W), the same noise for each prompt; classifier-free guidance where it is not 1.

    Guided here by two passes, not one of both halves: a published system may fill the memory by itself.
    """
    size = len(prompt.tokens) if isinstance(prompt, FeatureBatch) else len(prompt)
    index = torch.arange(size).repeat_interleave(count)
    prompt, null = (architectures.index_prompt(batch, index) for batch in (prompt, null))

    # Not `measure.sampling.guided`: the null prompt is a file's, and two passes halve the memory of models this large.
    def velocity(x: Tensor, t: Tensor, prompt: Any) -> Tensor:
        v: Tensor = model.velocity(x, t, prompt)
        if guidance == 1.0:
            return v
        v_null: Tensor = model.velocity(x, t, null)
        return v_null + guidance * (v - v_null)

    noise = initial_noise(seed, range(count), shape).repeat(size, 1, 1, 1)
    return euler(velocity, noise, prompt, steps)


def write(path: Path, samples: Tensor) -> None:
    """Latents (n, C, H, W) as a safetensors file."""
    from safetensors.torch import save

    write_atomic(path, save({"latents": samples.contiguous()}))


def decode(vae: Path, samples: Tensor) -> Tensor:
    """Images (n, 3, H, W) in [-1, 1] of latents (n, C, H, W), by a local folder of diffusers' AutoencoderKL.

    Raises:
        FileError: if diffusers is not installed or the folder holds no such VAE.
    """
    try:
        from diffusers import AutoencoderKL

        untyped: Any = AutoencoderKL
        model = untyped.from_pretrained(vae, local_files_only=True, use_safetensors=True)
    except Exception as error:  # diffusers' own, of many types
        raise FileError(f"{vae}: no VAE can be loaded ({error})") from error
    with torch.inference_mode():
        images: Tensor = model.decode(samples / model.config.scaling_factor + (model.config.shift_factor or 0)).sample
        return images


@dataclass(frozen=True)
class PublishedRequest:
    """What a published system is conditioned on, and what it generates.

    Attributes:
        labels: class numbers, of a class-conditional system.
        features: a file of encoded prompts, of a text-conditional system.
        size: height and width of the latents.
        vae: a local folder that decodes them; None saves the latents.
        ema: whether averaged weights are taken, where a file holds both.
    """

    labels: list[str]
    features: Path | None
    size: tuple[int, int]
    vae: Path | None
    ema: bool = False


def encode_prompts(system: str, model: Any, request: PublishedRequest, *, guided: bool = False) -> tuple[Any, Any]:
    """Prompts of the system's kind, and as many null ones, which must be there where it is guided.

    Raises:
        ValueError: if there are none of that kind, or a class is out of range.
    """
    if hasattr(model, "prompt_kind"):
        classes = model.prompt_kind.classes
        wrong = [text for text in request.labels if not text.isdigit() or int(text) >= classes]
        if wrong or not request.labels:
            raise ValueError(
                f"{system} is conditioned on classes: give numbers from 0 to {classes - 1}, not {wrong or 'nothing'}"
            )
        return torch.tensor([int(text) for text in request.labels]), model.prompt_kind.null(len(request.labels))
    if request.features is None:
        raise ValueError(
            f"{system} is conditioned on a text encoder's output: give --features FILE (tokens, mask, pooled)"
        )
    return features(request.features, guided=guided)


def sample_published(
    system: str, path: Path, sizes: dict[str, Any], request: PublishedRequest, settings: SampleSettings, out: Path
) -> Path:
    """Samples of a published system: a PNG where a VAE is given, else the latents beside it.

    Raises:
        ValueError: for an unknown system or size, weights or prompts that do not fit, or a file that cannot be read.
    """
    if system not in architectures.PUBLISHED:
        architectures.published(system)  # raises, with the nearest
    model, layout = load(system, path, sizes, ema=request.ema, say=settings.warn)
    settings.warn(f"{path} is {system} in the {layout} layout")
    own = getattr(model, "default_guidance", GUIDANCE)
    guidance = own if settings.guidance is None else settings.guidance
    prompt, null = encode_prompts(system, model, request, guided=guidance != 1)
    samples = latents(
        model,
        prompt,
        null,
        (model.channels, *request.size),
        count=settings.count,
        seed=settings.seed,
        steps=settings.steps or 50,
        guidance=guidance,
    )
    if not bool(samples.isfinite().all()):
        raise ValueError(
            f"the latents of {system} hold NaN or infinity after sampling, so nothing was written: are the prompts, "
            f"--guidance {guidance:g} and the sizes those of these weights?"
        )
    if request.vae is None:
        out = out.with_suffix(".safetensors")
        write(out, samples)
        return out
    write_atomic(out, png(tile(to_images(decode(request.vae, samples)).numpy(), columns=settings.count)))
    return out
