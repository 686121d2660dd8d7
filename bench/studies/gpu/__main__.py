"""What a GPU gives: rate, memory and MFU of training and sampling, for every scheme at every size, compiled and eager.

    python -m bench.studies.gpu [--config configs/step-gpu.yaml] [--out step.json] [--minutes 8] [--set key=value ...]

For each row: images/s of a training step in the harness, MFU against the peak on paper and against a matrix product
timed on the spot, peak memory, samples/s with guidance, and where a step is short the harness's over a bare loop's of
the same model and over one whose batch is on the device already. Also the card's rates of copying and of feature
extraction. With `--detail` what makes the host wait for the device between two lines of the journal, with its place in
the code, and the kernels that the time goes into with their share.

The file is written after each row; the same command resumes where it stopped, on the same card at the same commit.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.config.load import load
from bench.config.matrix import expand
from bench.config.spec import CellConfig
from bench.data import datasets, prompts
from bench.run.machine import on_device
from bench.store import provenance
from bench.store.files import write_atomic
from bench.studies.gpu import rows, step
from bench.studies.loops import subject_of

Report = dict[str, Any]


def report_of(out: Path, device: torch.device) -> Report:
    """What is there of the same code on the same card, or a new one with the card's ceilings."""
    about = {"command": provenance.command(), **provenance.about(device.type)}
    if out.exists():
        before: Report = json.loads(out.read_text())
        if all(before[key] == about[key] for key in ("commit", "versions")) and (
            before["hardware"].get("gpu") == about["hardware"].get("gpu")
        ):
            before["steps"] = [row for row in before["steps"] if "failed" not in row]
            return before
    side = () if device.type == "cuda" else (256,)
    return {**about, "ceilings": step.ceilings(device, *side) | step.metric_rates(device), "steps": []}


def planned(given: argparse.Namespace) -> list[rows.Row]:
    """The rows, most important first: by scheme in the order of the config, compiled before eager."""
    batches = dict(one.rsplit("=", 1) for one in given.batch)
    cells = expand(load(given.config, given.changes))
    configs = [fitted(c.config, int(batches.get(c.config.backbone.name, c.config.train.batch))) for c in cells]
    order = {scheme: place for place, scheme in enumerate(dict.fromkeys(c.scheme for c in configs))}
    configs.sort(key=lambda config: order[config.scheme])
    return [rows.Row(config, mode) for mode in given.mode for config in configs]


def fitted(config: CellConfig, batch: int) -> CellConfig:
    """The cell on this machine's device, with so many images a step."""
    return replace(config, train=replace(on_device(config.train), batch=batch))


def among(row: rows.Row, reports: list[Report]) -> bool:
    """Whether a row's numbers are there."""
    of_it = [one for one in reports if all(one.get(key) == value for key, value in row.key.items())]
    return any("failed" not in one for one in of_it)


def details(every: list[rows.Row], report: Report, folder: Path, until: float) -> Iterator[Report]:
    """Waits and kernels of each row that has numbers and not these yet, begun before a time on `time.monotonic`."""
    for row in every:
        if among(row, report["steps"]) and not among(row, report.get("details", [])):
            if time.monotonic() >= until:
                return
            yield row.key | detailed(row, folder)


def detailed(row: rows.Row, folder: Path) -> Report:
    """Waits and kernels of a row, by itself."""
    subject = subject_of(row.config, folder, compiled=row.mode == "compiled")
    return {"waits": step.waits(subject, folder), "kernels": step.kernels(subject)}


def main() -> None:
    """`python -m bench.studies.gpu`."""
    given = _arguments()
    every, until = planned(given), time.monotonic() + 60 * given.minutes
    device = torch.device(every[0].config.train.device)
    report = report_of(given.out, device)
    left = [row for row in every if not among(row, report["steps"])]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = datasets.load(datasets.prepare(every[0].config.data, folder))  # once, for all processes
        kind = prompts.prepare(data, every[0].config.prompt, folder).kind
        many: Report = {"steps": given.steps, "workers": given.workers, "samples": not given.training}
        many |= {"gemm": report["ceilings"]["gemm_flops"], "until": until}
        for found in rows.measured(left, kind, folder, **many):
            report["steps"].append(found)
            write_atomic(given.out, json.dumps(report, indent=1) + "\n")
            print(line(found), flush=True)
        if given.detail and device.type == "cuda":
            for found in details(every, report, folder, until):
                report.setdefault("details", []).append(found)
                write_atomic(given.out, json.dumps(report, indent=1) + "\n")
    print(f"{len(report['steps'])} of {len(every)} rows are in {given.out.name}")


def line(row: Report) -> str:
    """A row on a line."""
    head = f"{row['scheme']} {row['backbone']} {row['mode']} batch {row['batch']}"
    if "failed" in row:
        return f"{head}: {row['failed']}"
    memory = row["peak_allocated_bytes" if "peak_allocated_bytes" in row else "peak_resident_bytes"] / 2**30
    beside = f", harness/bare {row['over_bare']:.3f}" if "over_bare" in row else ""
    mfu = f"MFU {row['mfu']:.1%}, " if "mfu" in row else ""
    samples = f"{row['samples_per_second']:,.1f} samples/s, " if "samples_per_second" in row else ""
    return f"{head}: {row['images_per_second']:,.4g} images/s, {mfu}{samples}{memory:.1f} GiB{beside}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/step-gpu.yaml"))
    parser.add_argument("--steps", type=int, default=24, help="of each loop; the first sixth is warm-up")
    parser.add_argument("--out", type=Path, default=Path("step.json"))
    parser.add_argument("--mode", choices=["compiled", "eager"], nargs="+", default=["compiled", "eager"])
    parser.add_argument("--batch", nargs="*", default=["DiT-XL/2=64"], metavar="SIZE=IMAGES", help="fewer at a size")
    parser.add_argument("--workers", type=int, default=max(1, min(8, (os.cpu_count() or 1) // 2)))
    parser.add_argument("--minutes", type=float, default=8.0, help="no longer than this")
    parser.add_argument("--training", action="store_true", help="of training alone: no sampling")
    parser.add_argument("--detail", action="store_true", help="waits and kernels of each row too")
    parser.add_argument("--set", dest="changes", nargs="*", default=[], help="key=value of the matrix")
    return parser.parse_args()


if __name__ == "__main__":
    main()
