"""Files of tensors, safetensors alone, which hold no program; and drawing with a published system's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import architectures
from architectures import FeatureBatch
from bench.measure.images import png, tile
from bench.measure.sampling import SAMPLERS, initial_noise
from bench.store.files import write_atomic
from bench.training.flow import to_images
from bench.views.sample.cells import SampleSettings


class FileError(ValueError):
    """A file that is no safetensors file, or not whole; the sentence names it."""


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of all in a folder. Nothing in a file is ever executed.

    Raises:
        FileError: if it is missing, truncated, or of another format, such as a pickle.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileError(f"{path}: no safetensors file there")
    state: dict[str, Tensor] = {}
    for file in files:
        begin = file.open("rb").read(16)
        if begin[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
            raise FileError(f"{file}: a pickle, which could run anything; convert it to safetensors first")
        try:
            state |= load_file(file)
        except (SafetensorError, OSError) as error:
            raise FileError(f"{file}: not a whole safetensors file ({error})") from error
    return state


def load(system: str, path: Path, sizes: dict[str, Any]) -> tuple[Any, str]:
    """A published system with the weights of a file, and the file's layout.

    Raises:
        FileError, ValueError: for a file that cannot be read, or that is not this system's.
    """
    state = read(path)
    with torch.device("meta"):
        model = architectures.published(system, **sizes)
    layout = architectures.load_published(model, state)
    with torch.device("cpu"):  # what a file does not hold, such as positions, is computed
        whole = architectures.published(system, **sizes) if any(b.is_meta for b in model.buffers()) else model
    if whole is not model:
        whole.load_state_dict(model.state_dict(), assign=True)
    return whole.float().eval(), layout


def features(path: Path) -> tuple[FeatureBatch, FeatureBatch]:
    """Encoded prompts of a safetensors file: `tokens` (B, L, W), `mask` (B, L), `pooled` (B, P), and the null prompt's
    `null_tokens`, `null_mask`, `null_pooled`; masks and pooled vectors where the system has them.

    Raises:
        FileError: if there are no tokens.
    """
    state = read(path)
    if "tokens" not in state:
        raise FileError(f"{path}: no `tokens`; it holds {', '.join(sorted(state)) or 'nothing'}")

    def batch(begin: str) -> FeatureBatch:
        tokens = state.get(f"{begin}tokens", torch.zeros_like(state["tokens"]))
        mask = state.get(f"{begin}mask", torch.ones(tokens.shape[:2])).bool()
        return FeatureBatch(tokens, mask, state.get(f"{begin}pooled", torch.zeros(len(tokens), 1)))

    return batch(""), batch("null_")


@torch.inference_mode()
def latents(
    model: Any, prompt: Any, null: Any, shape: Sequence[int], *, count: int, seed: int, steps: int, guidance: float
) -> Tensor:
    """Latents (B count, C, H, W), the same noise for each prompt; classifier-free guidance where it is not 1."""
    size = len(prompt[0]) if isinstance(prompt, FeatureBatch) else len(prompt)
    index = torch.arange(size).repeat_interleave(count)
    prompt, null = (architectures.index_prompt(one, index) for one in (prompt, null))

    def velocity(x: Tensor, t: Tensor, told: Any) -> Tensor:
        v = model.velocity(x, t, told)
        if guidance == 1.0:
            return v
        v_null = model.velocity(x, t, null)
        return v_null + guidance * (v - v_null)

    noise = initial_noise(seed, range(count), shape).repeat(size, 1, 1, 1)
    return SAMPLERS["euler"](velocity, noise, prompt, steps)


def write(path: Path, drawn: Tensor) -> None:
    """The latents as a safetensors file."""
    from safetensors.torch import save_file

    save_file({"latents": drawn.contiguous()}, path)


def decode(vae: Path, drawn: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] of latents, by a local folder of diffusers' AutoencoderKL.

    Raises:
        FileError: if diffusers is not installed or the folder holds no such VAE.
    """
    try:
        from diffusers import AutoencoderKL

        model = AutoencoderKL.from_pretrained(vae, local_files_only=True, use_safetensors=True)
    except (ImportError, OSError, ValueError) as error:
        raise FileError(f"{vae}: no VAE can be loaded ({error})") from error
    with torch.inference_mode():
        return model.decode(drawn / model.config.scaling_factor + (model.config.shift_factor or 0)).sample


@dataclass(frozen=True)
class PublishedRequest:
    """What is to be drawn with a published system.

    Attributes:
        labels: class numbers, where it draws classes. features: a file of encoded prompts, where it is told by text.
        size: latents, height and width. vae: a local folder that decodes them; None saves the latents.
    """

    labels: list[str]
    features: Path | None
    size: tuple[int, int]
    vae: Path | None


def encode_prompts(system: str, model: Any, asked: PublishedRequest) -> tuple[Any, Any]:
    """Prompts of the system's kind, and as many null ones.

    Raises:
        ValueError: if there are none of that kind, or a class is out of range.
    """
    if hasattr(model, "prompt_kind"):
        classes = model.prompt_kind.classes
        wrong = [text for text in asked.labels if not text.isdigit() or int(text) >= classes]
        if wrong or not asked.labels:
            raise ValueError(f"{system} draws classes: give numbers from 0 to {classes - 1}, not {wrong or 'nothing'}")
        return torch.tensor([int(text) for text in asked.labels]), model.prompt_kind.null(len(asked.labels))
    if asked.features is None:
        raise ValueError(f"{system} is told by a text encoder's output: give --features FILE (tokens, mask, pooled)")
    return features(asked.features)


def sample_published(
    system: str, path: Path, sizes: dict[str, Any], asked: PublishedRequest, how: SampleSettings, out: Path
) -> Path:
    """Draws with a published system's weights: a PNG where a VAE is given, else the latents beside it.

    Raises:
        ValueError: for an unknown system or size, weights or prompts that do not fit, or a file that cannot be read.
    """
    if system not in architectures.PUBLISHED:
        architectures.published(system)  # says so, with the nearest
    model, layout = load(system, path, sizes)
    how.warn(f"{path} is {system} in the {layout} layout")
    prompt, null = encode_prompts(system, model, asked)
    guidance = 4.0 if how.guidance is None else how.guidance
    drawn = latents(
        model,
        prompt,
        null,
        (model.channels, *asked.size),
        count=how.count,
        seed=how.seed,
        steps=how.steps or 50,
        guidance=guidance,
    )
    if asked.vae is None:
        out = out.with_suffix(".safetensors")
        write(out, drawn)
        return out
    write_atomic(out, png(tile(to_images(decode(asked.vae, drawn)).numpy(), columns=how.count)))
    return out
