"""All that a scheme of one's own is built of: the stable API for authors of plugins.

from architectures.parts import Block, Condition, Facts, LayerNorm, Scheme, SubLayer, register
"""

from __future__ import annotations

from architectures.final import FinalNorm, FinalTable
from architectures.layers import (
    MLP,
    NORM,
    CrossAttention,
    GatedMLP,
    LayerNorm,
    RMSNorm,
    SelfAttention,
    attend,
    init_with,
    normal,
    ones,
    parse_norm,
    xavier,
    zeros,
)
from architectures.modulation import Head, Placement, SharedMLP
from architectures.options import Option
from architectures.placement import HEAD, parse_placement
from architectures.prompt import Encoded, with_time
from architectures.registry import register
from architectures.rotary import RoPE
from architectures.scheme import SIGNALS, BackboneConfig, Facts, Scheme
from architectures.streams import DualBlock, JoinedBlock, LastDualBlock, dual_block, prompt_path
from architectures.sublayer import (
    GATE,
    MODULATION,
    PLAIN,
    Adaptive,
    Block,
    Condition,
    Gate,
    SubLayer,
    Vectors,
    carry_input,
    carry_modulated,
    joint_mask,
    modulate,
    no_context,
    parse_gate,
    prompt_tokens,
)

__all__ = [
    "GATE",
    "HEAD",
    "MLP",
    "MODULATION",
    "NORM",
    "PLAIN",
    "SIGNALS",
    "Adaptive",
    "BackboneConfig",
    "Block",
    "Condition",
    "CrossAttention",
    "DualBlock",
    "Encoded",
    "Facts",
    "FinalNorm",
    "FinalTable",
    "Gate",
    "GatedMLP",
    "Head",
    "JoinedBlock",
    "LastDualBlock",
    "LayerNorm",
    "Option",
    "Placement",
    "RMSNorm",
    "RoPE",
    "Scheme",
    "SelfAttention",
    "SharedMLP",
    "SubLayer",
    "Vectors",
    "attend",
    "carry_input",
    "carry_modulated",
    "dual_block",
    "init_with",
    "joint_mask",
    "modulate",
    "no_context",
    "normal",
    "ones",
    "parse_gate",
    "parse_norm",
    "parse_placement",
    "prompt_path",
    "prompt_tokens",
    "register",
    "with_time",
    "xavier",
    "zeros",
]
