"""Names of schemes, and where each comes from: built in, an installed package's entry point, or a plugin file.

Imports no torch, so that a command line can list and check names at once; a scheme's module is imported when it is
first needed.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from architectures import plugins, sources
from architectures.named import NAMED
from architectures.options import nearest
from architectures.plugins import PluginError

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
    "ddt": "architectures.conditioning.ddt:DDT",
    "flux": "architectures.conditioning.flux:Flux",
    "hdm": "architectures.conditioning.hdm:HDM",
    "ldm": "architectures.conditioning.ldm:LDM",
    "lumina2": "architectures.conditioning.lumina2:Lumina2",
    "qwen-image": "architectures.conditioning.qwen_image:QwenImage",
    "sd3": "architectures.conditioning.sd3:SD3",
    "z-image": "architectures.conditioning.z_image:ZImage",
    "static-text": "architectures.conditioning.static_text:StaticText",
    "shared-modulation": "architectures.conditioning.shared_modulation:SharedModulation",
    "registers": "architectures.conditioning.registers:Registers",
    "oracle": "architectures.conditioning.oracle:Oracle",
}


CONTROLS = frozenset({"registers", "oracle"})  # arms that comparisons need, and nobody's published way of conditioning
ALIASES = {name: one.scheme for name, one in NAMED.items()}  # another name -> the scheme's; configs may use either


class UnknownScheme(ValueError):
    """No scheme of that name; the message lists the names and the nearest."""


@dataclass
class _Registry:
    """Schemes registered by plugins while this process runs, with their origins."""

    schemes: dict[str, type[Scheme]] = field(default_factory=dict)
    origins: dict[str, dict[str, str]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)  # of schemes from plugin files
    loading: tuple[dict[str, str], Path] | None = None  # origin and file of the plugin being imported now


_registry = _Registry()


def register(name: str) -> Any:
    """A class decorator that gives a plugin's scheme its name.

    Raises:
        PluginError: if the name is taken, naming both owners, or if it is no slug.
    """

    def add(scheme: type[Scheme]) -> type[Scheme]:
        origin, file = _registry.loading or ({"kind": "module", "name": scheme.__module__}, None)
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
            raise PluginError(f"scheme name {name!r}: use lower-case letters, digits and '-'")
        if name in BUILT_IN or name in ALIASES:
            raise PluginError(f"scheme {name!r} of {_say(origin, file)} is the name of a built-in scheme")
        for other in (*_registry.origins.items(), *((e.name, _entry_origin(e)) for e in _entries())):
            taken = _registry.files.get(name)
            if other[0] == name and (other[1].get("name"), taken) != (origin.get("name"), file):
                raise PluginError(f"scheme {name!r} is given by {_say(other[1], taken)} and by {_say(origin, file)}")
        _registry.schemes[name] = scheme
        _registry.origins[name] = origin
        if file is not None:
            _registry.files[name] = file
        return scheme

    return add


def load_plugin(path: str | Path) -> list[str]:
    """Imports a plugin file, whose `@register` lines add schemes, and returns their names. Twice is once.

    Raises:
        PluginError: naming the file, and its own error of whatever kind: also if it ends the process, or is not done
            after a minute (`DITBENCH_PLUGIN_TIMEOUT`, seconds).
    """
    file, digest = Path(path).expanduser().resolve(), plugins.plugin_digest(path)
    known = [name for name, other in _registry.origins.items() if other.get("sha256") == digest]
    if known and all(_registry.files.get(name) == file for name in known):
        return known
    before = dict(_registry.schemes), dict(_registry.origins), dict(_registry.files)
    _registry.loading = {"kind": "file", "name": file.name, "sha256": digest}, file
    try:
        plugins.import_file(file, path, digest)
    except BaseException:
        _registry.schemes, _registry.origins, _registry.files = before
        raise
    finally:
        _registry.loading = None
    return sorted(name for name, scheme in _registry.schemes.items() if before[0].get(name) is not scheme)


def schemes() -> list[str]:
    """Sorted names of all schemes, each once: built in, of installed packages, of plugin files loaded so far."""
    return sorted({*BUILT_IN, *(entry.name for entry in _entries()), *_registry.schemes})


def canonical(name: str) -> str:
    """The scheme's own name, of an alias; any other name as it is."""
    return ALIASES.get(name, name)


def options_of_name(name: str) -> dict[str, Any]:
    """The options that a name gives its scheme, none of a scheme's own name."""
    return dict(NAMED[name].options) if name in NAMED else {}


def is_built_in(name: str) -> bool:
    """Whether a name or alias is a built-in scheme's."""
    return canonical(name) in BUILT_IN


def check_name(name: str) -> None:
    """Refuses a name that is neither a scheme's nor an alias.

    Raises:
        UnknownScheme: with the schemes and the nearest name.
    """
    if is_built_in(name) or name in _registry.schemes:
        return  # what packages offer takes longer to read than a small model to make
    known = schemes()
    if name not in known:
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
    with plugins.guarded(f"scheme {name!r} of {_say(_entry_origin(entries[0]))}"):
        plugins.fresh(plugin_files(name))
        loaded: type[Scheme] = entries[0].load()
    return loaded


def origin(name: str) -> dict[str, str]:
    """Where a scheme comes from: kind (`built-in`, `package`, `file`, `module`), name, version and digest as known."""
    name = canonical(name)
    if name in BUILT_IN:
        return {"kind": "built-in", "name": BUILT_IN[name].partition(":")[0]}
    if name in _registry.origins:
        found = dict(_registry.origins[name])
        return found if "sha256" in found else found | _digested(plugin_files(name))
    return _entry_origin(_entry(name)) | _digested(plugin_files(name))


def _digested(files: dict[str, Path]) -> dict[str, str]:
    return {"sha256": sources.digest(files)} if files else {}


def plugin_files(name: str) -> dict[str, Path]:
    """The files that a plugin's scheme is made of, by their names; none that cannot be found."""
    name = canonical(name)
    if name in BUILT_IN:
        return {}
    if name in _registry.schemes:
        module, own = _registry.schemes[name].__module__, frozenset[str]()
    else:
        module, own = _entry(name).module, plugins.top_names(_entry(name).dist, _entry(name).module)
    try:
        return plugins.files_of_module(module, own)
    except (ImportError, OSError, ValueError):
        return {}  # a package that cannot be found is reported when it is loaded


def _entry(name: str) -> EntryPoint:
    check_name(name)
    return next(entry for entry in _entries() if entry.name == name)


def _entries() -> list[EntryPoint]:
    return [entry for entry in entry_points(group=GROUP) if entry.name not in {*BUILT_IN, *ALIASES}]


def _entry_origin(entry: EntryPoint) -> dict[str, str]:
    name = entry.dist.name if entry.dist else entry.module
    return {"kind": "package", "name": name, "version": entry.dist.version if entry.dist else "unknown"}


def _say(origin: dict[str, str], file: Path | None = None) -> str:
    return f"{origin['kind']} {file or origin['name']}"
