"""What the cases of MLflow share."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.store.folders import Store


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initialised store: MLflow takes seconds to make one."""
    from bench.views import mlflow as tracking

    store = Store(tmp_path_factory.mktemp("empty"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.connect(store)
    return store.root / "mlflow.db"
