"""The readers of configs, journals, results and weights, given files that were cut, mixed and damaged at random.

Each either reads a file or refuses it in one sentence of the kind that it promises: no other exception passes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from synthetic import generate
from tiny import matrix_file

from bench.config.load import load
from bench.config.matrix import expand
from bench.config.schema import ConfigError
from bench.store.journal import Journal, curves, digests, read_journal
from bench.store.result import DamagedResult, Result
from bench.views.sample.published import read

TOKENS = [
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"{",
    b"]",
    b'"',
    b"\x00",
    b"\xff\xfe",
    b"${a}",
    b"!!python/name:os",
    b"&a *a",
]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content after one to six changes: bits flipped, pieces cut out, repeated, moved or overwritten."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        if not data:
            return b""
        at, length = chance.randrange(len(data)), min(chance.choice([1, 2, 8, 64, 1000]), len(data))
        kind = chance.randrange(7)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length]
        elif kind == 3:
            other = chance.randrange(len(data))
            data[at:at] = data[other : other + length]
        elif kind == 4:
            data[at : at + length] = chance.randbytes(length)
        elif kind == 5:
            data[at:at] = chance.choice(TOKENS)
        else:
            del data[at:]
    return bytes(data)


def config_case(folder: Path) -> tuple[Path, Callable[[Path], object], tuple[type[Exception], ...]]:
    path = matrix_file(folder, axes={"train.lr": [1e-3, 3e-3]}, seeds=[0, 1])
    return path, lambda file: expand(load(file, say=lambda text: None)), (ConfigError,)


def journal_case(folder: Path) -> tuple[Path, Callable[[Path], object], tuple[type[Exception], ...]]:
    path = folder / "journal.jsonl"
    journal = Journal(path)
    for step in range(20):
        journal.metrics(step, {"loss": 1 / (step + 1)})
        journal.digests(step, {"batch": f"{step:08x}"})
    journal.close()
    return path, lambda file: (curves(file), digests(file), list(read_journal(file))), ()


def result_case(folder: Path) -> tuple[Path, Callable[[Path], object], tuple[type[Exception], ...]]:
    store = generate(folder / "runs", variants=1, seeds=1)
    path = next((store.root / "cells").glob("*/result.json"))
    return path, Result.read, (DamagedResult,)


def weights_case(folder: Path) -> tuple[Path, Callable[[Path], object], tuple[type[Exception], ...]]:
    path = folder / "weights.safetensors"
    save_file({"a.weight": torch.ones(3, 4), "b.bias": torch.zeros(5, dtype=torch.float16)}, path)
    return path, read, (ValueError,)


CASES = {"configs": config_case, "journals": journal_case, "results": result_case, "weights": weights_case}


def tries(kind: str, folder: Path, chance: random.Random) -> Iterator[bool]:
    """Damages a valid file again and again; yields whether it was read, and lets what may not pass through."""
    path, reads, refusals = CASES[kind](folder)
    content, file = path.read_bytes(), folder / f"damaged{path.suffix}"
    reads(path)
    while True:
        changed = damaged(content, chance)
        file.write_bytes(changed)
        try:
            reads(file)
            said = None
        except refusals as error:
            said = str(error)
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}\nof {kind}: {changed!r:.2000}") from error
        assert said is None or ("Traceback" not in said and 0 < len(said) < 1500), said
        yield said is None


@pytest.mark.parametrize("kind", CASES)
def test_a_few_hundred_damaged_files(tmp_path: Path, kind: str) -> None:
    outcomes = [was_read for was_read, _ in zip(tries(kind, tmp_path, random.Random(0)), range(100), strict=False)]
    assert kind == "journals" or not all(outcomes), "nothing was refused: is anything damaged?"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", CASES)
def test_ten_minutes_of_damaged_files(tmp_path: Path, kind: str) -> None:
    """150 seconds each, from another seed each time; a failure shows the bytes."""
    seed, end, count = time.time_ns(), time.monotonic() + 150, 0
    for _ in tries(kind, tmp_path, random.Random(seed)):
        count += 1
        if time.monotonic() > end:
            break
    print(f"{kind}: {count:,} damaged files, seed {seed}")
