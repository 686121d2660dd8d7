"""MLflow as a view of the results directory: a process of its own writes it in batches. The only door to MLflow.

One experiment a matrix. In it one parent run, which carries aggregates, report and figures of the matrix as it is now
(the latest launch is a tag), and below it one run a cell, which itself carries every key one groups by. Runs are found
again by their tags, so that a second sync changes nothing: of each curve only the steps beyond the highest one already
there are sent, of images those that the run does not hold. A cell of two matrices has a run in each.
"""

from __future__ import annotations

import logging
import os

# Before MLflow is imported, which reads them at once.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a dead server costs seconds, not minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"  # a failure would be a line in a log, and the data gone
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from bench.views.address import BY_CELL, BY_VARIANT, TrackingError, tracking_uri
from bench.views.mlflow.client import connect
from bench.views.mlflow.experiment import experiment_id, sync
from bench.views.mlflow.writer import Synced

for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking", "mlflow"):
    logging.getLogger(name).setLevel(logging.ERROR)

__all__ = ["BY_CELL", "BY_VARIANT", "Synced", "TrackingError", "connect", "experiment_id", "sync", "tracking_uri"]
