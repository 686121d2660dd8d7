"""Training steps of published systems here against diffusers' models of the same size, paired in one run.

    python -m bench.studies.peers [--rounds 8] [--steps 6] [--compile] [--systems flux wan] [--out peers.json]
    python -m bench.studies.peers --device cuda --width 1024 --heads 16 --depth 12 --batch 32 --side 32

Both have the same weights (`load_published`), inputs and AdamW, and take turns (A B A B ...); each round gives one
ratio of median seconds a step, ours over theirs: below 1 ours is faster. On a GPU both run under bf16 autocast. Peak
memory is of a process of its own for each side, on a GPU what a step takes beyond what lies there between two steps.
A benchmark, not a test: read the ratios, these machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import architectures
from bench.config.schema import Train
from bench.store import provenance
from bench.store.files import write_atomic
from bench.studies.peers.pairs import SYSTEMS, Sizes, Step
from bench.studies.peers.recent import RECENT
from bench.training.bare import bare_step
from bench.training.stopwatch import Stopwatch, peak_memory

PAIRS = SYSTEMS | RECENT
TRAIN = Train(lr=1e-5, betas=[0.9, 0.999], weight_decay=0.01)  # AdamW's own


def training(model: nn.Module, output: Step, device: str) -> Callable[[], None]:
    """One step: forward, backward, clipping, AdamW; under bf16 autocast on a GPU."""

    def loss() -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return output().float().square().mean()

    return bare_step(model, loss, TRAIN)


def seconds(step: Callable[[], None], steps: int, device: str) -> float:
    """Median seconds of a step."""
    watch = Stopwatch(torch.device(device))
    for _ in range(steps):
        watch.start()
        step()
        watch.stop()
    return statistics.median(watch.seconds())


def peaks(name: str, sides: list[Callable[[], None]], of: Sizes) -> dict[str, dict[str, float]]:
    """Mebibytes of each side at most: resident in a process of its own, or of a step beyond what is there on a GPU."""
    names = ("ours", "theirs")
    if of.device != "cuda":
        return {"peak_resident_mib": {side: round(_resident(name, side) / 2**20, 1) for side in names}}
    found = {}
    for side, step in zip(names, sides, strict=True):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        found[side] = round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    return {"peak_step_mib": found}


def _resident(name: str, side: str) -> float:
    """Peak resident bytes of a process that takes three training steps of one side."""
    command = [sys.executable, "-m", "bench.studies.peers", *sys.argv[1:], "--peak", name, side]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def measure(name: str, of: Sizes, rounds: int, steps: int, compiled: bool) -> dict[str, Any]:
    """Ratios of one system, with its peaks of memory."""
    pair = PAIRS[name](of)
    pair.ours.to(of.device)
    pair.theirs.to(of.device)
    if name != "dit":  # diffusers' DiT has an embedder in each block
        architectures.load_published(pair.ours, pair.theirs.state_dict())
    if compiled:
        pair.ours.compile()
        pair.theirs.compile()
    sides = [training(pair.ours, pair.our_output, of.device), training(pair.theirs, pair.their_output, of.device)]
    for side in sides:
        seconds(side, 2, of.device)  # warm-up
    times = [_round(sides, steps, turn, of.device) for turn in range(rounds)]
    ratios = [ours / theirs for ours, theirs in times]
    return {
        "ratio_median": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "ours_ms": round(1e3 * statistics.median(ours for ours, _ in times), 2),
        "theirs_ms": round(1e3 * statistics.median(theirs for _, theirs in times), 2),
        **peaks(name, sides, of),
        "parameters": {
            "ours": sum(p.numel() for p in pair.ours.parameters()),
            "theirs": sum(p.numel() for p in pair.theirs.parameters()),
        },
    }


def _round(sides: list[Callable[[], None]], steps: int, turn: int, device: str) -> tuple[float, float]:
    """Seconds a step of ours and theirs; the other begins in every second round."""
    first, second = (seconds(side, steps, device) for side in (sides if turn % 2 == 0 else sides[::-1]))
    return (first, second) if turn % 2 == 0 else (second, first)


def print_peak(name: str, side: str, of: Sizes, compiled: bool) -> None:
    """Takes three training steps of one side, compiled where times are, and prints this process's peak."""
    pair = PAIRS[name](of)
    model, output = (pair.ours, pair.our_output) if side == "ours" else (pair.theirs, pair.their_output)
    del pair
    if compiled:
        model.compile()
    seconds(training(model, output, of.device), 3, of.device)
    print(peak_memory(torch.device(of.device))["peak_resident_bytes"])


def summary(systems: dict[str, Any], of: Sizes, compiled: bool) -> dict[str, Any]:
    """The ratios with where they come from."""
    import diffusers

    about = provenance.about(of.device)
    arithmetic = "bf16 autocast" if of.device == "cuda" else "float32"
    return about | {
        "what": f"median seconds of a training step, ours over diffusers', {arithmetic}, paired and alternating",
        "command": provenance.command(),
        "compile": compiled,
        "sizes": asdict(of),
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
    parser.add_argument("--systems", nargs="+", choices=list(PAIRS), default=list(PAIRS), metavar="SYSTEM")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("SYSTEM", "SIDE"), help="used by the run itself")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=Sizes.device)
    for one in fields(Sizes)[1:]:
        parser.add_argument(f"--{one.name}", type=int, default=one.default)
    given = parser.parse_args()
    provenance.imported()  # now: it may take hours
    of = Sizes(**{one.name: getattr(given, one.name) for one in fields(Sizes)})
    if given.peak:
        name, side = given.peak
        print_peak(name, side, of, given.compile)
        return
    systems = {}
    for name in given.systems:
        systems[name] = measure(name, of, given.rounds, given.steps, given.compile)
        print(f"{name}: ours / theirs {systems[name]['ratio_median']:.3f}", flush=True)
        if given.out:
            text = json.dumps(summary(systems, of, given.compile), indent=2) + "\n"
            write_atomic(given.out, text.encode())
    print(json.dumps(summary(systems, of, given.compile), indent=2))


if __name__ == "__main__":
    main()
