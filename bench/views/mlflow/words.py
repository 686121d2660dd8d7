"""Text from outside as MLflow takes it: names, values and notes that neither break a call nor act on the page."""

from __future__ import annotations

import hashlib
import re

NAME, PARAM, TAG = 250, 500, 5000  # characters; the shortest limits of the versions that serve
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_MARKUP = re.compile(r"[&<>\[\]()!*_`#|~\\:@={}$/\"']")


def metric_name(key: str) -> str:
    """A name that MLflow takes: `=` and the like become a dash, parts that are not of a path are left out."""
    name = "".join(c if c.isalnum() or c in "_-./: " else "-" for c in key)
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return cut("/".join(parts) or "-", NAME)


def metric_names(keys: list[str]) -> dict[str, str]:
    """Key -> its name; keys whose names would be one get a digest."""
    names = {key: metric_name(key) for key in keys}
    taken = list(names.values())
    return {key: name if taken.count(name) == 1 else _marked(name, key, NAME) for key, name in names.items()}


def plain(text: str, length: int = TAG) -> str:
    """Text without control characters, cut to what MLflow holds."""
    return cut(_CONTROL.sub("?", text.encode(errors="replace").decode()), length)


def cut(text: str, length: int) -> str:
    """The text, or its beginning with a digest of the whole: two long ones that differ stay different."""
    return text if len(text) <= length else _marked(text, text, length)


def _marked(name: str, key: str, length: int) -> str:
    mark = "-cut-" + hashlib.sha256(key.encode(errors="replace")).hexdigest()[:8]
    return name[: length - len(mark)].rstrip("/. ") + mark


def inert(text: str) -> str:
    """Text as Markdown that shows it letter by letter: no markup, link, image or HTML of it acts."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", " ".join(plain(text).split()))
