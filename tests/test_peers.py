"""The systems that `bench.studies.peers` times are the same model twice."""

from __future__ import annotations

import sys

import pytest
import torch
from gaussians import randomised

import architectures
from bench.studies.peers import __main__ as peers
from bench.studies.peers.pairs import SYSTEMS, Sizes
from bench.studies.peers.recent import RECENT

pytest.importorskip("diffusers")

TINY = Sizes(width=64, heads=2, depth=3, batch=2, side=8, tokens=5, text=12, pooled=6)
LOADED = [name for name in SYSTEMS | RECENT if name != "dit"]  # diffusers' has an embedder in each block


@pytest.mark.parametrize("name", LOADED)
def test_both_sides_compute_the_same(name: str) -> None:
    """From latents as each is given them, so that shapes are those of `Pair`, or theirs packed."""
    pair = (SYSTEMS | RECENT)[name](TINY)
    randomised(pair.theirs)
    apart = pair.our_output().detach()
    architectures.load_published(pair.ours, pair.theirs.state_dict())
    ours, theirs = pair.our_output().detach(), pair.their_output().detach()
    if ours.shape != theirs.shape:  # diffusers' FLUX gives packed tokens
        ours, theirs = ours.flatten().sort().values, theirs.flatten().sort().values
        apart = apart.flatten().sort().values
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert not torch.allclose(apart, theirs, atol=1e-2), "other weights compute the same"


@pytest.mark.parametrize("compiled", [False, True])
def test_a_peak_is_of_a_step_as_it_is_timed(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--compile` on a CPU times were of compiled steps, and peaks of others."""
    words, asked = ["peers", *["--compile"] * compiled, "--peak", "dit", "theirs"], []
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model: asked.append(type(model).__name__))
    monkeypatch.setattr(peers, "seconds", lambda *_: 0.0)
    monkeypatch.setitem(peers.PAIRS, "dit", lambda of: SYSTEMS["dit"](TINY))
    peers.main()
    assert asked == ["DiTTransformer2DModel"] * compiled
