"""A client of the MLflow store, and its errors as sentences."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlparse

from filelock import FileLock
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from bench.store.folders import Store


class TrackingError(ValueError):
    """MLflow cannot be used; the message says why and the way out. The results are on disk all the same."""


def tracking_uri(store: Store) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file beside the results."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store.root / 'mlflow.db'}"


def connect(store: Store) -> MlflowClient:
    """A client of the store, which is created first if it is a new SQLite file: once, under a lock.

    Raises:
        TrackingError: if the server does not answer, or the file belongs to another MLflow.
    """
    uri = tracking_uri(store)
    if urlparse(uri).scheme in ("http", "https"):
        _check_server(uri)
    store.root.mkdir(parents=True, exist_ok=True)
    with FileLock(store.root / "mlflow.lock"), explained(uri):
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _check_server(uri: str) -> None:
    """One short request: MLflow itself would try for minutes."""
    try:
        urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answers; whether it lets us in, MLflow will say
    except (OSError, ValueError) as error:
        raise TrackingError(
            f"the MLflow server {uri} does not answer ({error}); start it, or unset MLFLOW_TRACKING_URI"
        ) from error


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turns what MLflow raises into a sentence with a way out."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if "out-of-date database schema" in text or "Can't locate revision" in text:
            raise TrackingError(
                f"{uri} was made by another MLflow; back it up and run: mlflow db upgrade {uri}"
            ) from error
        if isinstance(error, MlflowException | OSError) or "sqlalchemy" in type(error).__module__:
            raise TrackingError(f"MLflow at {uri}: {text[:300]}") from error
        raise


def runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    """All live runs of an experiment, the newest first."""
    token = None
    while True:
        page = client.search_runs([experiment], page_token=token)
        yield from page
        token = page.token
        if not token:
            return
