"""The option `--parity FILE`, what the parity tests measured, as a file; what `make faults` runs; an empty MLflow."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path

import pytest
from filelock import FileLock


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", type=Path, help="write the largest differences from diffusers into this file")


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = session.config.getoption("--parity")
    if file is not None:
        import parity_log

        words = " ".join(str(word) for word in session.config.invocation_params.args)
        parity_log.write(file, f"python -m pytest {words}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever is in `faults/` and `field/` is a case, also what is quick."""
    here = Path(__file__).parent
    for item in items:
        if item.path.parent in (here / "faults", here / "field") or item.get_closest_marker("faults"):
            item.add_marker("case")


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised store: MLflow takes seconds to make one, so the processes of a run make it once."""
    from bench.store.folders import Store
    from bench.views import mlflow as tracking

    base = tmp_path_factory.getbasetemp()
    store = Store((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "empty-mlflow")
    with pytest.MonkeyPatch.context() as patch, FileLock(store.root.with_suffix(".lock")):
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        if not store.root.exists():
            tracking.connect(Store(store.root.with_suffix(".new")))
            store.root.with_suffix(".new").rename(store.root)
    return store.root / "mlflow.db"


@functools.cache
def _read(group: str, _: tuple[tuple[str, int], ...]) -> EntryPoints:
    return entry_points(group=group)


def _remembered(*, group: str) -> EntryPoints:
    """What installed packages offer; read again where a folder of the path is another or has changed."""
    folders = tuple((name, os.stat(name).st_mtime_ns) for name in sys.path if os.path.isdir(name))
    return _read(group, folders)


@pytest.fixture(scope="session", autouse=True)
def installed_packages_are_read_once() -> Iterator[None]:
    """Two thirds of the time of making a small model went into reading what is installed, and tests make thousands."""
    from architectures import registry as schemes
    from bench.data.tasks import registry as tasks

    with pytest.MonkeyPatch.context() as patch:
        for module in (schemes, tasks):
            patch.setattr(module, "entry_points", _remembered)
        yield
