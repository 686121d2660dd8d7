"""How a diffusion transformer is told what to draw: interchangeable conditioning schemes on one fixed backbone.

    model = architectures.create("adaln-zero", "DiT-S/2", image_size=32, in_channels=3, prompt=architectures.Labels(10))
    velocity = model(x, t, prompt)        # x (B, C, H, W), t (B,) in [0, 1]: 0 is data, 1 is noise

The catalogue of built-in schemes stands in `architectures/registry.py`; names are known without importing torch, and
everything that needs torch is imported when it is first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from architectures.registry import PluginError, UnknownScheme, check_name, load_plugin, origin, register, schemes

if TYPE_CHECKING:
    from architectures.backbone import DiT, create, describe, parameter_split, resolve_options
    from architectures.gallery import gallery, shares
    from architectures.laws import LAWS, Verdict, check, first_violation
    from architectures.layers import initialise
    from architectures.observation import Branch, InitialStep, Observation, initial_steps, observe
    from architectures.options import Option, nearest
    from architectures.prompt import Captions, FeatureBatch, Features, Labels, PromptKind, index_prompt
    from architectures.scheme import BackboneConfig, Description, Facts, Scheme
    from architectures.systems.catalogue import PUBLISHED, published
    from architectures.systems.weights import WeightsError, load_published

_LAZY = {
    "architectures.backbone": ("DiT", "create", "describe", "parameter_split", "resolve_options"),
    "architectures.gallery": ("gallery", "shares"),
    "architectures.laws": ("LAWS", "Verdict", "check", "first_violation"),
    "architectures.layers": ("initialise",),
    "architectures.observation": ("Branch", "InitialStep", "Observation", "initial_steps", "observe"),
    "architectures.options": ("Option", "nearest"),
    "architectures.prompt": ("Captions", "FeatureBatch", "Features", "Labels", "PromptKind", "index_prompt"),
    "architectures.systems.catalogue": ("PUBLISHED", "published"),
    "architectures.systems.weights": ("WeightsError", "load_published"),
    "architectures.scheme": ("BackboneConfig", "Description", "Facts", "Scheme"),
    "architectures.registry": ("scheme_class",),
}
_HOME = {name: module for module, names in _LAZY.items() for name in names}

__all__ = [
    "BackboneConfig",
    "InitialStep",
    "Branch",
    "Captions",
    "Description",
    "DiT",
    "Facts",
    "FeatureBatch",
    "Features",
    "LAWS",
    "PUBLISHED",
    "Labels",
    "Observation",
    "Option",
    "PluginError",
    "PromptKind",
    "Scheme",
    "UnknownScheme",
    "Verdict",
    "WeightsError",
    "initial_steps",
    "check",
    "check_name",
    "create",
    "describe",
    "gallery",
    "index_prompt",
    "initialise",
    "load_plugin",
    "load_published",
    "nearest",
    "observe",
    "origin",
    "parameter_split",
    "published",
    "register",
    "resolve_options",
    "schemes",
    "shares",
    "first_violation",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'architectures' has no attribute {name!r}")
