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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import architectures
from architectures import FeatureBatch
from bench.store import provenance
from bench.store.files import write_atomic
from bench.training.stopwatch import peak_memory

WIDTH, HEADS, DEPTH, BATCH, SIDE, TOKENS, TEXT, POOLED = 256, 4, 6, 8, 16, 32, 64, 64
AXES = (16, 24, 24)
Step = Callable[[], Tensor]


def pair(name: str) -> tuple[nn.Module, Step, nn.Module, Step]:
    """Our model and its output, theirs and its output, with the same weights and inputs."""
    import diffusers

    g = torch.Generator().manual_seed(0)
    x4, x16 = (torch.randn(BATCH, c, SIDE, SIDE, generator=g) for c in (4, 16))
    tokens, pooled = torch.randn(BATCH, TOKENS, TEXT, generator=g), torch.randn(BATCH, POOLED, generator=g)
    mask = torch.ones(BATCH, TOKENS, dtype=torch.bool)
    t, steps, y = torch.rand(BATCH, generator=g), torch.randint(1000, (BATCH,), generator=g), torch.arange(BATCH)
    told = FeatureBatch(tokens, mask, pooled)
    ours: Any
    theirs: Any
    heads: dict[str, Any] = dict(num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS)
    if name == "dit":
        theirs = diffusers.DiTTransformer2DModel(
            **heads, in_channels=4, out_channels=8, num_layers=DEPTH, sample_size=SIDE, num_embeds_ada_norm=10
        )
        ours = architectures.published(name, width=WIDTH, heads=HEADS, depth=DEPTH, image_size=SIDE, classes=10)
        return (
            ours,
            lambda: ours(x4, steps, y),
            theirs,
            lambda: theirs(x4, timestep=steps, class_labels=y).sample,
        )
    if name == "pixart":
        theirs = diffusers.PixArtTransformer2DModel(
            **heads, in_channels=4, out_channels=8, num_layers=DEPTH, cross_attention_dim=WIDTH, sample_size=SIDE,
            caption_channels=TEXT, use_additional_conditions=False,
        )  # fmt: skip
        ours = architectures.published(name, width=WIDTH, heads=HEADS, depth=DEPTH, text_width=TEXT, base_grid=8)
        none: dict[str, Any] = dict(resolution=None, aspect_ratio=None)
        return (
            ours,
            lambda: ours(x4, steps, FeatureBatch(tokens, mask, pooled)),
            theirs,
            lambda: theirs(x4, tokens, steps, none, encoder_attention_mask=mask.float()).sample,
        )
    if name == "sd3":
        theirs = diffusers.SD3Transformer2DModel(
            **heads, sample_size=SIDE, num_layers=DEPTH, joint_attention_dim=TEXT, caption_projection_dim=WIDTH,
            pooled_projection_dim=POOLED, in_channels=16, out_channels=16, pos_embed_max_size=16,
        )  # fmt: skip
        ours = architectures.published(
            name, depth=DEPTH, width=WIDTH, heads=HEADS, text_width=TEXT, pooled_width=POOLED, max_grid=16, base_grid=8
        )
        return (
            ours,
            lambda: ours(x16, 1000 * t, told),
            theirs,
            lambda: theirs(x16, tokens, pooled, 1000 * t).sample,
        )
    from diffusers import FluxPipeline

    theirs = diffusers.FluxTransformer2DModel(
        **heads, in_channels=64, num_layers=2, num_single_layers=4, joint_attention_dim=TEXT,
        pooled_projection_dim=POOLED, axes_dims_rope=AXES,
    )  # fmt: skip
    ours = architectures.published(
        name,
        width=WIDTH,
        heads=HEADS,
        dual=2,
        single=4,
        text_width=TEXT,
        pooled_width=POOLED,
        axes=AXES,
        guidance=False,
    )
    ids, texts = (
        FluxPipeline._prepare_latent_image_ids(1, SIDE // 2, SIDE // 2, "cpu", torch.float32),
        torch.zeros(TOKENS, 3),
    )
    packed = FluxPipeline._pack_latents(x16, *x16.shape)
    return (
        ours,
        lambda: ours(x16, t, told),
        theirs,
        lambda: theirs(packed, tokens, pooled, t, ids, texts).sample,
    )


SYSTEMS = ("dit", "pixart", "sd3", "flux")


def training(model: nn.Module, output: Step) -> Callable[[], None]:
    """One step: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        output().square().mean().backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None], steps: int) -> float:
    taken = []
    for _ in range(steps):
        begin = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def peak(name: str, side: str) -> float:
    """Peak resident bytes of a process that takes three training steps of one side."""
    command = [sys.executable, "-m", "bench.studies.peers", "--peak", name, side]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def measure(name: str, rounds: int, steps: int, compiled: bool) -> dict[str, Any]:
    """Ratios of one system, with its peaks of memory."""
    mine, output, theirs, other = pair(name)
    if name != "dit":  # diffusers' DiT has an embedder in each block
        architectures.load_published(mine, theirs.state_dict())
    if compiled:
        mine.compile()
        theirs.compile()
    a, b = training(mine, output), training(theirs, other)
    seconds(a, 2), seconds(b, 2)  # warm-up
    ratios, ms = [], []
    for turn in range(rounds):
        if turn % 2 == 0:
            x = seconds(a, steps)
            z = seconds(b, steps)
        else:
            z = seconds(b, steps)
            x = seconds(a, steps)
        ratios.append(x / z)
        ms.append((1e3 * x, 1e3 * z))
    peaks = {side: peak(name, side) for side in ("ours", "theirs")}
    return {
        "ratio_median": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "ours_ms": round(statistics.median(x for x, _ in ms), 2),
        "theirs_ms": round(statistics.median(z for _, z in ms), 2),
        "peak_resident_mib": {side: round(value / 2**20, 1) for side, value in peaks.items()},
        "parameters": {
            "ours": sum(p.numel() for p in mine.parameters()),
            "theirs": sum(p.numel() for p in theirs.parameters()),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("SYSTEM", "SIDE"), help="used by the run itself")
    given = parser.parse_args()
    if given.peak:
        name, side = given.peak
        ours, output, theirs, other = pair(name)
        model, out = (ours, output) if side == "ours" else (theirs, other)
        del ours, theirs, output, other
        seconds(training(model, out), 3)
        print(peak_memory(torch.device("cpu"))["peak_resident_bytes"])
        return
    found = {}
    for name in SYSTEMS:
        found[name] = measure(name, given.rounds, given.steps, given.compile)
        print(f"{name}: ours / theirs {found[name]['ratio_median']:.3f}", flush=True)
    sizes = dict(width=WIDTH, heads=HEADS, depth=DEPTH, batch=BATCH, latents=SIDE, tokens=TOKENS)
    import diffusers

    about = provenance.about("cpu")
    summary = about | {
        "what": "median seconds of a training step, ours over diffusers', float32, paired and alternating",
        "command": "python -m bench.studies.peers " + " ".join(sys.argv[1:]),
        "compile": given.compile,
        "sizes": sizes,
        "systems": found,
        "threads": torch.get_num_threads(),
        "versions": about["versions"] | {"diffusers": diffusers.__version__},
    }
    text = json.dumps(summary, indent=2) + "\n"
    if given.out:
        write_atomic(given.out, text.encode())
    print(text)


if __name__ == "__main__":
    main()
