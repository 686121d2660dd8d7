"""Names of schemes, and where each comes from: built in, an installed package's entry point, or a plugin file.

Imports no torch, so that a command line can list and check names at once; a scheme's module is imported when it is
first needed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from architectures.options import nearest

if TYPE_CHECKING:
    from architectures.scheme import Scheme

GROUP = "ditbench.schemes"

BUILT_IN = {
    "in-context": "architectures.conditioning.in_context:InContext",
    "cross-attention": "architectures.conditioning.cross_attention:CrossAttentionScheme",
    "adaln": "architectures.conditioning.adaln:AdaLN",
    "adaln-zero": "architectures.conditioning.adaln_zero:AdaLNZero",
    "adaln-zero-cross": "architectures.conditioning.adaln_zero_cross:AdaLNZeroCross",
    "shift-free": "architectures.conditioning.shift_free:ShiftFree",
    "flux": "architectures.conditioning.flux:Flux",
    "hdm": "architectures.conditioning.hdm:HDM",
    "ldm": "architectures.conditioning.ldm:LDM",
    "lumina2": "architectures.conditioning.lumina2:Lumina2",
    "qwen-image": "architectures.conditioning.qwen_image:QwenImage",
    "sd3": "architectures.conditioning.sd3:SD3",
    "z-image": "architectures.conditioning.z_image:ZImage",
    "shared-modulation": "architectures.conditioning.shared_modulation:SharedModulation",
}


ALIASES = {"pixart": "shared-modulation"}  # another name -> the scheme's; configs and records may use either


class UnknownScheme(ValueError):
    """No scheme of that name; the message lists the names and the nearest."""


class PluginError(ValueError):
    """A plugin that cannot be imported, or that takes a name already taken."""


@dataclass
class _Registry:
    """Schemes registered by plugins while this process runs, with their origins."""

    schemes: dict[str, type[Scheme]] = field(default_factory=dict)
    origins: dict[str, dict[str, str]] = field(default_factory=dict)
    loading: dict[str, str] | None = None  # origin of the plugin file being imported now


_registry = _Registry()


def register(name: str) -> Any:
    """A class decorator that gives a plugin's scheme its name.

    Raises:
        PluginError: if the name is taken, naming both owners, or if it is no slug.
    """

    def add(scheme: type[Scheme]) -> type[Scheme]:
        origin = _registry.loading or {"kind": "module", "name": scheme.__module__}
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
            raise PluginError(f"scheme name {name!r}: use lower-case letters, digits and '-'")
        if name in BUILT_IN or name in ALIASES:
            raise PluginError(f"scheme {name!r} of {_say(origin)} is the name of a built-in scheme")
        for other in (*_registry.origins.items(), *((e.name, _entry_origin(e)) for e in _entries())):
            if other[0] == name and other[1].get("name") != origin.get("name"):
                raise PluginError(f"scheme {name!r} is given by {_say(other[1])} and by {_say(origin)}")
        _registry.schemes[name] = scheme
        _registry.origins[name] = origin
        return scheme

    return add


def load_plugin(path: str | Path) -> list[str]:
    """Imports a plugin file, whose `@register` lines add schemes, and returns their names. Twice is once.

    Raises:
        PluginError: naming the file and its own error.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise PluginError(f"plugin {path}: no such file")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    origin = {"kind": "file", "name": file.name, "sha256": digest}
    known = [name for name, other in _registry.origins.items() if other.get("sha256") == digest]
    if known:
        return known
    module_name = f"ditbench_plugin_{digest[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    before, _registry.loading = set(_registry.schemes), origin
    try:
        spec.loader.exec_module(module)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"plugin {path}: {type(error).__name__}: {error}") from error
    finally:
        _registry.loading = None
    return sorted(set(_registry.schemes) - before)


def schemes() -> list[str]:
    """Sorted names of all schemes, each once: built in, of installed packages, of plugin files loaded so far."""
    return sorted({*BUILT_IN, *(entry.name for entry in _entries()), *_registry.schemes})


def canonical(name: str) -> str:
    """The scheme's own name, of an alias; any other name as it is."""
    return ALIASES.get(name, name)


def check_name(name: str) -> None:
    """Refuses a name that is neither a scheme's nor an alias.

    Raises:
        UnknownScheme: with the schemes and the nearest name.
    """
    known = schemes()
    if canonical(name) not in known:
        hint = nearest(name, [*known, *ALIASES])
        raise UnknownScheme(f"unknown scheme {name!r} (schemes: {', '.join(known)}){hint}")


def scheme_class(name: str) -> type[Scheme]:
    """The class of a scheme, imported now if it was not.

    Raises:
        UnknownScheme: if there is none.
        PluginError: if the package that offers it cannot be imported, naming it and its error.
    """
    check_name(name)
    name = canonical(name)
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        cls: type[Scheme] = getattr(importlib.import_module(module), attribute)
        return cls
    if name in _registry.schemes:
        return _registry.schemes[name]
    entries = [entry for entry in _entries() if entry.name == name]
    if len({entry.value for entry in entries}) > 1:
        raise PluginError(f"scheme {name!r} is given by {' and by '.join(_say(_entry_origin(e)) for e in entries)}")
    try:
        loaded: type[Scheme] = entries[0].load()
        return loaded
    except Exception as error:
        raise PluginError(
            f"scheme {name!r} of {_say(_entry_origin(entries[0]))}: {type(error).__name__}: {error}"
        ) from error


def origin(name: str) -> dict[str, str]:
    """Where a scheme comes from: kind (`built-in`, `package`, `file`, `module`), name, version and digest as known."""
    name = canonical(name)
    if name in BUILT_IN:
        return {"kind": "built-in", "name": BUILT_IN[name].partition(":")[0]}
    if name in _registry.origins:
        return dict(_registry.origins[name])
    entry = next(entry for entry in _entries() if entry.name == name)
    result = _entry_origin(entry)
    try:
        spec = importlib.util.find_spec(entry.module)
        if spec is not None and spec.origin:
            result["sha256"] = hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
    except (ImportError, OSError, ValueError):
        pass  # a package that cannot be found is reported when it is loaded
    return result


def _entries() -> list[EntryPoint]:
    return [entry for entry in entry_points(group=GROUP) if entry.name not in {*BUILT_IN, *ALIASES}]


def _entry_origin(entry: EntryPoint) -> dict[str, str]:
    name = entry.dist.name if entry.dist else entry.module
    return {"kind": "package", "name": name, "version": entry.dist.version if entry.dist else "unknown"}


def _say(origin: dict[str, str]) -> str:
    return f"{origin['kind']} {origin['name']}"
