"""Less memory for the same step: a batch in parts, and blocks that are computed again in the backward pass."""

from __future__ import annotations

from typing import Any

import lightning
import pytest
import torch
from gaussians import gaussian
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.data import DataLoader

import architectures
from architectures import DiT, laws
from bench.config.schema import Train
from bench.training.compiling import compile_whole
from bench.training.module import CellModule

BATCH = 8


def module(scheme: str, kind: Any, **train: Any) -> CellModule:
    given = Train(batch=BATCH, steps=3, warmup=0, lr=1e-4, drop=0.3, ema=0.5, **train)
    return CellModule(laws.SchemeUnderTest(scheme).random(kind), given, seed=0)


def batch(scheme: str, kind: Any) -> tuple[Tensor, Any]:
    images = torch.randint(256, (BATCH, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return images, laws.SchemeUnderTest(scheme).inputs(kind, BATCH)[2]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize(("scheme", "kind"), [("adaln-zero", laws.CAPTIONS), ("sd3", laws.FEATURES)])
def test_a_batch_in_parts_trains_as_the_whole_to_rounding(scheme: str, kind: Any, size: int) -> None:
    """Three steps of Lightning's loop: losses, norms of gradients and weights; noise is that of the whole batch."""
    found = {}
    for microbatch in (None, size):
        one = module(scheme, kind, microbatch=microbatch)
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False)
        trainer = lightning.Trainer(accelerator="cpu", max_steps=3, max_epochs=-1, **quiet)
        trainer.fit(one, DataLoader([batch(scheme, kind)] * 3, batch_size=None, collate_fn=lambda given: given))
        found[microbatch] = one
    whole, parts = found[None], found[size]
    torch.testing.assert_close(torch.stack(parts.losses), torch.stack(whole.losses), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts.gradient_norm, whole.gradient_norm, rtol=1e-4, atol=1e-6)
    grads = [[p.grad for p in one.model.parameters()] for one in (parts, whole)]
    least = 0.01 * max(float(grad.norm()) for grad in grads[1] if grad is not None)
    for ours, theirs in zip(*grads, strict=True):
        assert ours is not None and theirs is not None
        assert (ours - theirs).norm() <= 1e-4 * max(float(theirs.norm()), least)


def passed(model: DiT, kind: Any) -> tuple[list[Tensor], int]:
    """Gradients of a pass, and the bytes that are kept for its backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    subject = laws.SchemeUnderTest("adaln-zero")
    x, t, prompt = subject.inputs(kind)
    model.zero_grad()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(x, t, prompt)
    (out * gaussian(*out.shape)).sum().backward()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return [p.grad for p in model.parameters() if p.grad is not None], sum(
        v for k, v in kept.items() if k not in weights
    )


@pytest.mark.parametrize("scheme", [s for s in architectures.schemes() if s != "oracle"])
def test_blocks_that_are_computed_again_give_the_same_bits_and_keep_less(scheme: str) -> None:
    model = laws.SchemeUnderTest(scheme).random(laws.CAPTIONS)
    plain, much = passed(model, laws.CAPTIONS)
    model.recompute = True
    found, little = passed(model, laws.CAPTIONS)
    assert len(found) == len(plain) and all(map(torch.equal, found, plain))
    assert little < 0.75 * much


@pytest.mark.thorough
@pytest.mark.parametrize("scheme", ["flux", *(pytest.param(s, marks=pytest.mark.slow) for s in ("adaln-zero", "sd3"))])
def test_they_are_in_the_one_graph_of_a_compiled_model(scheme: str) -> None:
    """FLUX has blocks of two streams and of one."""
    model = laws.SchemeUnderTest(scheme).random(laws.CAPTIONS)
    model.recompute = True
    plain, _ = passed(model, laws.CAPTIONS)
    torch._dynamo.reset()
    compile_whole(model, backend="aot_eager")
    found, _ = passed(model, laws.CAPTIONS)
    torch._dynamo.reset()
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
