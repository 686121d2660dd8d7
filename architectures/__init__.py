"""Conditioning schemes of diffusion transformers, interchangeable on one fixed backbone.

    model = architectures.create("adaln-zero", "DiT-S/2", image_size=32, in_channels=3, prompt=architectures.Labels(10))
    velocity = model(x, t, prompt)        # x (B, C, H, W), t (B,) in [0, 1]: 0 is data, 1 is noise

The catalogue of built-in schemes is in `architectures/registry.py`; names are known without importing torch, and
everything that needs torch is imported when it is first touched.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names once more, since type checkers do not run the table; a test compares the two
    from architectures.backbone import DiT as DiT
    from architectures.backbone import create as create
    from architectures.backbone import describe as describe
    from architectures.backbone import fitting as fitting
    from architectures.backbone import parameter_split as parameter_split
    from architectures.backbone import resolve_options as resolve_options
    from architectures.catalogue_page import gallery as gallery
    from architectures.catalogue_page import history as history
    from architectures.catalogue_page import on_backbone as on_backbone
    from architectures.catalogue_page import share as share
    from architectures.catalogue_page import shares as shares
    from architectures.laws import LAWS as LAWS
    from architectures.laws import Verdict as Verdict
    from architectures.laws import check as check
    from architectures.laws import first_violation as first_violation
    from architectures.layers import initialise as initialise
    from architectures.named import NAMED as NAMED
    from architectures.observation import Branch as Branch
    from architectures.observation import InitialStep as InitialStep
    from architectures.observation import Observation as Observation
    from architectures.observation import initial_steps as initial_steps
    from architectures.observation import observe as observe
    from architectures.options import Option as Option
    from architectures.options import as_number as as_number
    from architectures.options import as_truth as as_truth
    from architectures.options import as_word as as_word
    from architectures.options import few as few
    from architectures.options import nearest as nearest
    from architectures.options import options_of as options_of
    from architectures.plugins import PluginError as PluginError
    from architectures.plugins import files_of_module as files_of_module
    from architectures.plugins import guarded as guarded
    from architectures.plugins import plugin_digest as plugin_digest
    from architectures.plugins import plugin_limit as plugin_limit
    from architectures.plugins import top_names as top_names
    from architectures.prompt import Captions as Captions
    from architectures.prompt import FeatureBatch as FeatureBatch
    from architectures.prompt import Features as Features
    from architectures.prompt import Labels as Labels
    from architectures.prompt import PromptKind as PromptKind
    from architectures.prompt import Slots as Slots
    from architectures.prompt import index_prompt as index_prompt
    from architectures.registry import ALIASES as ALIASES
    from architectures.registry import CONTROLS as CONTROLS
    from architectures.registry import UnknownScheme as UnknownScheme
    from architectures.registry import check_name as check_name
    from architectures.registry import is_built_in as is_built_in
    from architectures.registry import load_plugin as load_plugin
    from architectures.registry import origin as origin
    from architectures.registry import plugin_files as plugin_files
    from architectures.registry import register as register
    from architectures.registry import scheme_class as scheme_class
    from architectures.registry import schemes as schemes
    from architectures.scheme import BackboneConfig as BackboneConfig
    from architectures.scheme import Description as Description
    from architectures.scheme import Facts as Facts
    from architectures.scheme import Scheme as Scheme
    from architectures.sources import digest as digest
    from architectures.sources import drop_stale as drop_stale
    from architectures.systems.catalogue import PUBLISHED as PUBLISHED
    from architectures.systems.catalogue import published as published
    from architectures.systems.weights import WeightsError as WeightsError
    from architectures.systems.weights import load_published as load_published
    from architectures.work import multiply_adds as multiply_adds

_NAMES = {
    "registry": (
        "ALIASES",
        "CONTROLS",
        "UnknownScheme",
        "check_name",
        "is_built_in",
        "load_plugin",
        "origin",
        "plugin_files",
        "register",
        "scheme_class",
        "schemes",
    ),
    "named": ("NAMED",),
    "sources": ("digest", "drop_stale"),
    "plugins": ("PluginError", "files_of_module", "guarded", "plugin_digest", "plugin_limit", "top_names"),
    "options": ("Option", "as_number", "as_truth", "as_word", "few", "nearest", "options_of"),
    "layers": ("initialise",),
    "prompt": ("Captions", "FeatureBatch", "Features", "Labels", "PromptKind", "Slots", "index_prompt"),
    "scheme": ("BackboneConfig", "Description", "Facts", "Scheme"),
    "backbone": ("DiT", "create", "describe", "fitting", "parameter_split", "resolve_options"),
    "observation": ("Branch", "InitialStep", "Observation", "initial_steps", "observe"),
    "laws": ("LAWS", "Verdict", "check", "first_violation"),
    "work": ("multiply_adds",),
    "systems.catalogue": ("PUBLISHED", "published"),
    "systems.weights": ("WeightsError", "load_published"),
    "catalogue_page": ("gallery", "history", "on_backbone", "share", "shares"),
}
_HOME = {name: f"architectures.{module}" for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'architectures' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
