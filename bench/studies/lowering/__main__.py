"""Every scheme at DiT-XL/2 lowered to the code of an H100, on a machine without one: the table.

    python -m bench.studies.lowering [SCHEME ...] [--residual bf16] [--jobs 1] [--out FOLDER]

Traffic is what a block reads and writes in Inductor's kernels, in bytes an element of (B, N, D), at batch 256, 256
tokens, width 1152, bf16: `rule` in kernels that hold norm, modulate, gate or residual, `other` in the rest (GELU,
gradients of biases, layouts). It is the difference of two depths, of models whose training step is compiled whole.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import architectures
from bench.store import provenance
from bench.store.files import write_atomic
from bench.studies.lowering.preload import Unfit, environment

HEAD = (
    "scheme",
    "graph breaks",
    "crossings",
    "attention",
    "rule, forward + backward",
    "other",
    "saved",
    "kernels a block",
    "kernels (configurations)",
    "that spill (bytes at most)",
    "most registers",
    "largest stack",
)


def rows(
    variables: dict[str, str], *words: str, say: Callable[[str], None] = lambda text: None
) -> list[dict[str, Any]]:
    """What a worker process finds, see `bench.studies.lowering.worker`.

    Args:
        variables: of a process that believes in an H100.
        words: of its command line.
        say: called with the name of each scheme that is done.

    Raises:
        RuntimeError: with the last lines of what it said, where it fails.
    """
    command = [sys.executable, "-W", "ignore", "-m", "bench.studies.lowering.worker", *words]
    found = []
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=errors, text=True) as worker:
            assert worker.stdout is not None
            for text in worker.stdout:
                found.append(json.loads(text))
                say(found[-1]["scheme"])
        if worker.returncode:
            errors.seek(0)
            raise RuntimeError("\n".join([f"lowering failed: {' '.join(words)}", *errors.read().splitlines()[-12:]]))
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Markdown, a row a scheme."""
    return "\n".join([f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|", *map(line, found)]) + "\n"


def line(row: dict[str, Any]) -> str:
    """One row of the table; what was not compiled to machine code has a dash there."""
    if row["breaks"]:
        return f"| {row['scheme']} | {row['breaks'][0]} |" + " |" * (len(HEAD) - 2)
    attention = ", ".join(sorted({name.split("dot_product_")[1].split("_")[0] for name in row["compiled_attention"]}))
    forward, backward = row["rule_forward"], row["rule_backward"]
    cells = [
        row["scheme"],
        len(row["breaks"]),
        len(row["crossings"]) + len(row["compiled_crossings"]),
        attention,
        f"{forward} + {backward} = {forward + backward:.1f}",
        f"{row['other_forward'] + row['other_backward']:.1f}",
        row["saved"],
        row["kernels"],
    ]
    return "| " + " | ".join(map(str, cells + machine_cells(row))) + " |"


def machine_cells(row: dict[str, Any]) -> list[Any]:
    """The columns of the machine code."""
    if "configurations" not in row:
        return ["-"] * 4
    return [
        f"{row['compiled_kernels']} ({row['configurations']})",
        f"{len(row['spills'])} ({row['largest_spill']})",
        row["largest_registers"],
        row["largest_stack"],
    ]


def main() -> None:
    """`python -m bench.studies.lowering`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("schemes", nargs="*", default=architectures.schemes())
    parser.add_argument("--residual", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with about 1.5 GB")
    parser.add_argument("--code", action="store_true", help="no machine code: about half the time")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    provenance.imported()  # now: it may take hours
    with tempfile.TemporaryDirectory() as name:
        try:
            variables = environment(Path(name))
        except Unfit as error:
            sys.exit(str(error))
        shares = [given.schemes[start :: given.jobs] for start in range(min(given.jobs, len(given.schemes)))]
        how = "--code" if given.code else "--machine"
        done = itertools.count(1)

        def say(scheme: str) -> None:
            print(f"{scheme}: {next(done)} of {len(given.schemes)}", file=sys.stderr, flush=True)

        with ThreadPoolExecutor(len(shares)) as pool:
            parts = pool.map(lambda share: rows(variables, "--residual", given.residual, how, *share, say=say), shares)
            found = sorted((row for part in parts for row in part), key=lambda row: given.schemes.index(row["scheme"]))
    print(table(found))
    if given.out:
        summary = {
            "what": "schemes at DiT-XL/2's width lowered to sm_90 without a GPU; bytes are an element and a block",
            "command": provenance.command(),
            "triton": version("triton"),
            "residual": given.residual,
            "schemes": found,
            **provenance.about("cpu"),
        }
        write_atomic(given.out / f"lowering-{given.residual}.json", json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
