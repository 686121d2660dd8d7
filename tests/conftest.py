"""The option `--parity FILE`, what the parity tests measured, as a file; what `make faults` runs; an empty MLflow."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

# As `make test` has it: a process forked beside the threads of OpenMP waits for them for ever (test_devices.py).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's `nohup make test &` hands on both as ignored, and ditbench leaves what is ignored so; the tests send them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


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


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Starts the engine of gradients: once a compiler has pretended a GPU it would start threads for that, and no
    process that a test forks could train (test_devices.py)."""
    import torch

    torch.ones(1, requires_grad=True).sum().backward()


def _kept() -> Iterator[None]:
    """What is registered meanwhile is forgotten: other tests of a worker list every scheme there is."""
    from architectures.registry import _registry

    before = {name: dict(getattr(_registry, name)) for name in ("schemes", "origins", "files")}
    yield
    vars(_registry).update(before)


built_in = pytest.fixture(autouse=True, scope="module", name="built_in")(_kept)
forgotten = pytest.fixture(name="forgotten")(_kept)  # after each test that uses it


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
