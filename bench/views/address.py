"""Where MLflow is, and how that is said: no password of an address or of the environment is ever printed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

from bench.store.folders import Store

BY_CELL, BY_VARIANT = "ditbench", "ditbench-seeds"  # keys of the two views of an experiment's run table
MODE = "workflowType=machine_learning"  # part of an address of MLflow's page: that of training, not of prompts
SECRETS = re.compile(r"PASSW|SECRET|TOKEN|API_?KEY|ACCESS_KEY|PASSPHRASE|CREDENTIAL", re.IGNORECASE)
_USER = re.compile(r"(?<=://)(?!/)[^\s'\"<>]*@")
_QUERY = re.compile(r"([\w-]*(?:passw|pwd|secret|token|key|sig|credential)[\w-]*=)[^&\s'\"]+", re.IGNORECASE)
_HEADER = re.compile(r"\b(Basic|Bearer)\s+[\w+/=.~-]{4,}")
_MEANT = re.compile(r"[?#%]")  # means something in the address of a database
SHORTEST = 4  # characters of a secret that is searched for in a text; shorter ones are parts of words


class TrackingError(ValueError):
    """MLflow cannot be used; the message says why and the way out. The results are on disk all the same."""


def tracking_uri(store: Store) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file beside the results."""
    own = _MEANT.sub(lambda found: quote(found[0]), str(store.root / "mlflow.db"))
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or f"sqlite:///{own}"


def is_server(uri: str) -> bool:
    """Whether it is reached over the network by MLflow's own protocol."""
    return uri.lower().startswith(("http://", "https://"))


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store, or None for any other."""
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0])) if uri.startswith("sqlite:///") else None


def is_own(store: Store, uri: str) -> bool:
    """Whether the store is a file inside the results directory: nobody else writes there."""
    file = sqlite_file(uri)
    return file is not None and file.resolve().is_relative_to(store.root.resolve())


def redacted(text: str) -> str:
    """A text without passwords: those of addresses in it, and those that the environment holds."""
    text = _USER.sub("***@", text)
    text = _HEADER.sub(r"\1 ***", _QUERY.sub(r"\1***", text))
    for secret in sorted(set(_secrets()), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets() -> Iterator[str]:
    """Passwords and tokens of the environment, as they are and as an address spells them."""
    for name, value in os.environ.items():
        if SECRETS.search(name) and len(value) >= SHORTEST and not os.path.exists(value):
            yield value
        if "://" in value and "@" in value:
            password = value.partition("://")[2].rpartition("@")[0].partition(":")[2]
            yield from (one for one in (password, unquote(password)) if len(one) >= SHORTEST)
