"""Schemes that lowering must catch: adaLN-Zero that asks for a value, moves a tensor or breaks a graph."""

from __future__ import annotations

import torch
from torch import Tensor

import architectures
from architectures.conditioning.adaln_zero import AdaLNZero
from architectures.parts import Condition, Encoded


@architectures.register("asks")
class Asks(AdaLNZero):
    """The host needs a value before the next operation."""

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        return super().embed(e_t * e_t.mean().item(), prompt)


@architectures.register("moves")
class Moves(AdaLNZero):
    """A tensor goes to the host and back; its gradient does not, for which torch's engine would need a real stream."""

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        return super().embed(e_t + e_t.detach().cpu().to(e_t.device), prompt)


@architectures.register("breaks")
class Breaks(AdaLNZero):
    """A graph that Dynamo cannot take whole."""

    def embed(self, e_t: Tensor, prompt: Encoded) -> Condition:
        torch._dynamo.graph_break()
        return super().embed(e_t, prompt)
