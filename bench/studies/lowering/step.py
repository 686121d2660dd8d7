"""A cell's training step on fake tensors of a pretended device, and where it makes the host wait."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import architectures
from architectures import BackboneConfig, Captions
from bench.config.schema import Train
from bench.training.module import CellModule

DEVICE = torch.device("cuda:0")
BACKBONE, BATCH, SIDE, CHANNELS = "DiT-XL/2", 256, 32, 4  # latents of 256 pixels: 256 tokens
TOKENS, WIDTH = (SIDE // 2) ** 2, BackboneConfig.named(BACKBONE).width
PROMPT = Captions(60, 24, 1)
VALUES = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}  # of operations that need one on the host
Residual = Literal["fp32", "bf16"]


def fake() -> FakeTensorMode:
    """Under it tensors have shapes, types and a device, and no values."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class FakeCell(CellModule):
    """A cell's module whose parameters are on the device from the first: fake ones cannot be moved."""

    @property
    def device(self) -> torch.device:
        """The pretended one."""
        return DEVICE


def cell(scheme: str, depth: int, residual: Residual = "fp32") -> FakeCell:
    """A scheme at DiT-XL/2's width, to be made and used under `fake`, trained in bf16 as cells on a GPU are."""
    kind = architectures.fitting(scheme, PROMPT, TOKENS)
    config = BackboneConfig.named(BACKBONE, depth=depth)
    with DEVICE:
        model = architectures.create(scheme, config, image_size=SIDE, in_channels=CHANNELS, prompt=kind, seed=0)
    train = Train(batch=BATCH, device="cuda", precision="bf16", residual=residual)
    model.residual = train.residual
    return FakeCell(model, train, seed=0)


def loss(module: FakeCell) -> Tensor:
    """A step's loss in the arithmetic that Lightning's `bf16-mixed` sets."""
    images = torch.empty(BATCH, SIDE, SIDE, CHANNELS, dtype=torch.uint8, device=DEVICE)
    prompt = module.model.prompt_kind.null(BATCH, DEVICE)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        return module.training_step((images, prompt), 0)


def train(module: FakeCell, optimizer: torch.optim.Optimizer) -> None:
    """A whole step in Lightning's order: loss, gradients, clipping, AdamW, average."""

    def closure() -> Tensor:
        found = loss(module)
        torch.autograd.backward(found)
        module.configure_gradient_clipping(optimizer)
        return found

    module.optimizer_step(0, 0, optimizer, closure)


class Crossings(TorchDispatchMode):
    """Lists operations for which the host waits, each with its place in the code, and the kernels that attend.

    Attributes:
        found: operations that give the host a value, or a tensor of what is on the device.
        attention: names of the operations that compute attention, forward and backward.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []
        self.attention: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _devices((args, kwargs))
        if DEVICE.type in given and VALUES & set(func.tags):
            self._note(func)
        result = func(*args, **(kwargs or {}))
        if DEVICE.type in given and "cpu" in _devices(result):
            self._note(func)
        if "attention" in str(func):
            self.attention.add(func.overloadpacket.__name__)
        return result

    def _note(self, func: Any) -> None:
        inside = str(Path(torch.__file__).parent)
        frames = [frame for frame in traceback.extract_stack()[:-2] if not frame.filename.startswith(inside)]
        places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames[-4:])]
        self.found.append(f"{func}: " + " < ".join(places))


def _devices(tree: Any) -> set[str]:
    return {leaf.device.type for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}


def crossings(scheme: str, depth: int = 2, steps: int = 2) -> Crossings:
    """What crosses from device to host in the first steps of training; the first of them is observed."""
    with fake():
        module = cell(scheme, depth)
        optimizer, spy = module.configure_optimizers(), Crossings()
        try:
            with spy:
                for _ in range(steps):
                    train(module, optimizer)
        except DataDependentOutputException:  # a fake tensor has no value to give: the step ends there
            assert spy.found
    return spy
