"""Training steps of published systems here against diffusers' models of the same size, paired in one run.

    python -m bench.studies.peers [--rounds 8] [--steps 6] [--compile] [--out peers.json]

Both have the same weights (`load_published`), inputs and AdamW, and take turns (A B A B ...); each round gives one
ratio of median seconds a step, ours over theirs: below 1 ours is faster. Peak memory is of a process of its own for
each side. A benchmark, not a test: read the ratios, these machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import architectures
from architectures import FeatureBatch
from bench.config.schema import Train
from bench.store import provenance
from bench.store.files import write_atomic
from bench.training.bare import bare_step
from bench.training.stopwatch import peak_memory

WIDTH, HEADS, DEPTH, BATCH, SIDE, TOKENS, TEXT, POOLED = 256, 4, 6, 8, 16, 32, 64, 64
AXES = (16, 24, 24)
Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Pair:
    """One system twice, with the same weights and inputs: a model of ours and its output, theirs and its output."""

    ours: nn.Module
    our_output: Step
    theirs: nn.Module
    their_output: Step


@dataclass(frozen=True)
class Inputs:
    """What both are given: latents of 4 and of 16 channels, time as a share and as a step, class ids, text features."""

    x4: Tensor
    x16: Tensor
    t: Tensor
    steps: Tensor
    y: Tensor
    text: FeatureBatch


def inputs() -> Inputs:
    """The same at every call."""
    g = torch.Generator().manual_seed(0)
    x4, x16 = (torch.randn(BATCH, c, SIDE, SIDE, generator=g) for c in (4, 16))
    tokens, pooled = torch.randn(BATCH, TOKENS, TEXT, generator=g), torch.randn(BATCH, POOLED, generator=g)
    t, steps = torch.rand(BATCH, generator=g), torch.randint(1000, (BATCH,), generator=g)
    mask = torch.ones(BATCH, TOKENS, dtype=torch.bool)
    return Inputs(x4, x16, t, steps, torch.arange(BATCH), FeatureBatch(tokens, mask, pooled))


def untyped(module: Any) -> Any:
    """A library whose functions carry no types."""
    return module


def heads() -> dict[str, Any]:
    """Attention heads as diffusers names them."""
    return {"num_attention_heads": HEADS, "attention_head_dim": WIDTH // HEADS}


def dit() -> Pair:
    """DiT, of class labels."""
    import diffusers

    at = inputs()
    theirs: Any = untyped(diffusers).DiTTransformer2DModel(
        **heads(), in_channels=4, out_channels=8, num_layers=DEPTH, sample_size=SIDE, num_embeds_ada_norm=10
    )
    ours = architectures.published("dit", width=WIDTH, heads=HEADS, depth=DEPTH, image_size=SIDE, classes=10)
    return Pair(
        ours,
        lambda: ours(at.x4, at.steps, at.y),
        theirs,
        lambda: theirs(at.x4, timestep=at.steps, class_labels=at.y).sample,
    )


def pixart() -> Pair:
    """PixArt-alpha, of text tokens."""
    import diffusers

    at = inputs()
    theirs: Any = untyped(diffusers).PixArtTransformer2DModel(
        **heads(), in_channels=4, out_channels=8, num_layers=DEPTH, cross_attention_dim=WIDTH, sample_size=SIDE,
        caption_channels=TEXT, use_additional_conditions=False,
    )  # fmt: skip
    ours = architectures.published("pixart", width=WIDTH, heads=HEADS, depth=DEPTH, text_width=TEXT, base_grid=8)
    none: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    mask = at.text.mask.float()
    return Pair(
        ours,
        lambda: ours(at.x4, at.steps, at.text),
        theirs,
        lambda: theirs(at.x4, at.text.tokens, at.steps, none, encoder_attention_mask=mask).sample,
    )


def sd3() -> Pair:
    """Stable Diffusion 3, of text tokens and a pooled vector."""
    import diffusers

    at = inputs()
    theirs: Any = untyped(diffusers).SD3Transformer2DModel(
        **heads(), sample_size=SIDE, num_layers=DEPTH, joint_attention_dim=TEXT, caption_projection_dim=WIDTH,
        pooled_projection_dim=POOLED, in_channels=16, out_channels=16, pos_embed_max_size=16,
    )  # fmt: skip
    ours = architectures.published(
        "sd3", depth=DEPTH, width=WIDTH, heads=HEADS, text_width=TEXT, pooled_width=POOLED, max_grid=16, base_grid=8
    )
    return Pair(
        ours,
        lambda: ours(at.x16, 1000 * at.t, at.text),
        theirs,
        lambda: theirs(at.x16, at.text.tokens, at.text.pooled, 1000 * at.t).sample,
    )


def flux() -> Pair:
    """FLUX, of text tokens and a pooled vector."""
    import diffusers
    from diffusers import FluxPipeline

    at = inputs()
    theirs: Any = untyped(diffusers).FluxTransformer2DModel(
        **heads(), in_channels=64, num_layers=2, num_single_layers=4, joint_attention_dim=TEXT,
        pooled_projection_dim=POOLED, axes_dims_rope=AXES,
    )  # fmt: skip
    ours = architectures.published(
        "flux", width=WIDTH, heads=HEADS, dual=2, single=4, text_width=TEXT, pooled_width=POOLED, axes=AXES,
        guidance=False,
    )  # fmt: skip
    pipeline: Any = FluxPipeline
    ids = pipeline._prepare_latent_image_ids(1, SIDE // 2, SIDE // 2, "cpu", torch.float32)
    packed, texts = pipeline._pack_latents(at.x16, *at.x16.shape), torch.zeros(TOKENS, 3)
    return Pair(
        ours,
        lambda: ours(at.x16, at.t, at.text),
        theirs,
        lambda: theirs(packed, at.text.tokens, at.text.pooled, at.t, ids, texts).sample,
    )


SYSTEMS: dict[str, Callable[[], Pair]] = {"dit": dit, "pixart": pixart, "sd3": sd3, "flux": flux}
TRAIN = Train(lr=1e-5, betas=[0.9, 0.999], weight_decay=0.01)  # AdamW's own


def training(model: nn.Module, output: Step) -> Callable[[], None]:
    """One step: forward, backward, clipping, AdamW."""
    return bare_step(model, lambda: output().square().mean(), TRAIN)


def seconds(step: Callable[[], None], steps: int) -> float:
    """Median seconds of a step."""
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak(name: str, side: str) -> float:
    """Peak resident bytes of a process that takes three training steps of one side."""
    command = [sys.executable, "-m", "bench.studies.peers", "--peak", name, side]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def measure(name: str, rounds: int, steps: int, compiled: bool) -> dict[str, Any]:
    """Ratios of one system, with its peaks of memory."""
    pair = SYSTEMS[name]()
    if name != "dit":  # diffusers' DiT has an embedder in each block
        architectures.load_published(pair.ours, pair.theirs.state_dict())
    if compiled:
        pair.ours.compile()
        pair.theirs.compile()
    sides = [training(pair.ours, pair.our_output), training(pair.theirs, pair.their_output)]
    for side in sides:
        seconds(side, 2)  # warm-up
    times = [_round(sides, steps, turn) for turn in range(rounds)]
    ratios = [ours / theirs for ours, theirs in times]
    peaks = {side: peak(name, side) for side in ("ours", "theirs")}
    return {
        "ratio_median": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "ours_ms": round(1e3 * statistics.median(ours for ours, _ in times), 2),
        "theirs_ms": round(1e3 * statistics.median(theirs for _, theirs in times), 2),
        "peak_resident_mib": {side: round(value / 2**20, 1) for side, value in peaks.items()},
        "parameters": {
            "ours": sum(p.numel() for p in pair.ours.parameters()),
            "theirs": sum(p.numel() for p in pair.theirs.parameters()),
        },
    }


def _round(sides: list[Callable[[], None]], steps: int, turn: int) -> tuple[float, float]:
    """Seconds a step of ours and theirs; the other begins in every second round."""
    if turn % 2 == 0:
        ours = seconds(sides[0], steps)
        return ours, seconds(sides[1], steps)
    theirs = seconds(sides[1], steps)
    return seconds(sides[0], steps), theirs


def print_peak(name: str, side: str) -> None:
    """Takes three training steps of one side and prints this process's peak."""
    pair = SYSTEMS[name]()
    model, output = (pair.ours, pair.our_output) if side == "ours" else (pair.theirs, pair.their_output)
    del pair
    seconds(training(model, output), 3)
    print(peak_memory(torch.device("cpu"))["peak_resident_bytes"])


def summary(systems: dict[str, Any], compiled: bool) -> dict[str, Any]:
    """The ratios with where they come from."""
    import diffusers

    about = provenance.about("cpu")
    sizes = {"width": WIDTH, "heads": HEADS, "depth": DEPTH, "batch": BATCH, "latents": SIDE, "tokens": TOKENS}
    return about | {
        "what": "median seconds of a training step, ours over diffusers', float32, paired and alternating",
        "command": "python -m bench.studies.peers " + " ".join(sys.argv[1:]),
        "compile": compiled,
        "sizes": sizes,
        "systems": systems,
        "threads": torch.get_num_threads(),
        "versions": about["versions"] | {"diffusers": diffusers.__version__},
    }


def main() -> None:
    """`python -m bench.studies.peers`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("SYSTEM", "SIDE"), help="used by the run itself")
    given = parser.parse_args()
    if given.peak:
        print_peak(*given.peak)
        return
    systems = {}
    for name in SYSTEMS:
        systems[name] = measure(name, given.rounds, given.steps, given.compile)
        print(f"{name}: ours / theirs {systems[name]['ratio_median']:.3f}", flush=True)
    text = json.dumps(summary(systems, given.compile), indent=2) + "\n"
    if given.out:
        write_atomic(given.out, text.encode())
    print(text)


if __name__ == "__main__":
    main()
