"""A client of the MLflow store, and its errors as sentences."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy
from filelock import FileLock, Timeout
from mlflow.store.db.db_types import MYSQL, POSTGRES
from mlflow.tracking import MlflowClient

from bench.store import disk
from bench.store.files import make_folder
from bench.store.folders import Store
from bench.views.address import TrackingError, is_server, redacted, sqlite_file, tracking_uri

PATIENCE = 15.0  # seconds that a lock of another process, or of SQLite, is waited for
DRIVERS = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient", "pyodbc": "pyodbc"}  # module -> its package
OTHER_VERSION = re.compile(r"out-of-date database schema|Can't locate revision|no such column")
SILENT = re.compile(
    r"Max retries exceeded|Connection ?(refused|reset|aborted)|timed? ?out|Name or service not known|ResponseError|"
    r"could not translate host name|temporary failure in name resolution|failed to resolve host|can't connect to",
    re.I,
)
REFUSED = re.compile(r"password authentication failed|no password supplied|Access denied for user", re.I)
PAGE = re.compile(r"<!doctype html|<html", re.I)
CERTIFICATE = re.compile(r"certificate verify failed|CERTIFICATE_VERIFY|self.signed|hostname mismatch", re.I)
CAUSE = re.compile(
    r"\[Errno -?\d+\] [^)'\"\\]+|Read timed out|too many \d+ error responses|Remote end closed[^)'\"]*|BadStatusLine"
)


def connect(store: Store) -> MlflowClient:
    """A client of the store, which is created first if it is a new SQLite file: once, under a lock.

    Raises:
        TrackingError: if server or database do not answer, or the file belongs to another MLflow.
    """
    uri = tracking_uri(store)
    make_folder(store.root)
    with explained(store), locked(store, "mlflow.lock"):
        file = sqlite_file(uri)
        if file is not None:
            _check_file(file)
        _check_database(uri)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


def _check_file(file: Path) -> None:
    """Opens a SQLite file for an instant: MLflow itself would try for minutes."""
    if not file.exists():
        with disk.writing(file, "MLflow's store"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", uri=True, timeout=PATIENCE)) as opened:
        opened.execute("PRAGMA schema_version").fetchone()
        opened.execute("BEGIN IMMEDIATE")
        opened.rollback()


def _check_database(uri: str) -> None:
    """Connects to a team's database, if it is one, for an instant: MLflow would try ten times, for 100 s."""
    if uri.partition(":")[0].partition("+")[0] not in (POSTGRES, MYSQL):
        return
    engine = sqlalchemy.create_engine(uri, connect_args={"connect_timeout": int(PATIENCE)})
    try:
        engine.connect().close()
    finally:
        engine.dispose()


@contextmanager
def locked(store: Store, name: str) -> Iterator[None]:
    """Holds a lock of the results directory.

    Raises:
        TrackingError: if another process holds it for long.
    """
    try:
        lock = FileLock(store.root / name).acquire(timeout=PATIENCE)
    except Timeout as error:
        raise TrackingError(
            f"another ditbench writes to MLflow from {store.root} (it holds {name}); wait for it, or end it if it "
            "is stopped"
        ) from error
    with lock:
        yield


@contextmanager
def explained(store: Store) -> Iterator[None]:
    """Turns what MLflow and its libraries raise into a sentence with a way out, and without a password."""
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        raise TrackingError(redacted(_sentence(error, store))) from error


def _sentence(error: Exception, store: Store) -> str:
    uri, text = redacted(tracking_uri(store)), " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        package = DRIVERS.get(error.name or "", error.name)
        return f"MLflow at {uri}: the database driver {error.name} is not installed: pip install {package}"
    if OTHER_VERSION.search(text):
        return f"{uri} was made by another MLflow; back it up and run: mlflow db upgrade {uri}"
    refusal = disk.explained(error, store.root)
    if refusal is not None:
        return f"MLflow at {uri}: {refusal}"
    return (
        _of_database(uri, text, store)
        or (_of_server(uri, text) if is_server(tracking_uri(store)) else None)
        or (f"MLflow at {uri}: {type(error).__name__}: {text[:300]}")
    )


def _of_database(uri: str, text: str, store: Store) -> str | None:
    if "database is locked" in text:
        return f"MLflow at {uri}: another process holds the database locked; try again when it has ended"
    if "database or disk is full" in text:
        return f"MLflow at {uri}: no space is left for it; make room, then: ditbench sync"
    if REFUSED.search(text):
        return f"the database {uri} refuses this user or password"
    if not is_server(tracking_uri(store)) and (cause := SILENT.search(text)):
        return f"the database {uri} does not answer ({cause[0].lower()}); start it, or unset MLFLOW_TRACKING_URI"
    file = sqlite_file(tracking_uri(store))
    if file is not None and re.search(r"not a database|malformed|unable to open database|disk I/O error", text):
        return (
            f"MLflow's store {file} cannot be opened ({text[:120]}); move it away, then `ditbench sync` writes it again"
        )
    return None


def _of_server(uri: str, text: str) -> str | None:
    if CERTIFICATE.search(text):
        return (
            f"the certificate of the MLflow server {uri} is not trusted; name its authority in "
            "MLFLOW_TRACKING_SERVER_CERT_PATH (or REQUESTS_CA_BUNDLE)"
        )
    if re.search(r"error code (401|403)|Unauthorized|Forbidden|PERMISSION_DENIED", text):
        return (
            f"the MLflow server {uri} refuses us; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a token"
        )
    if "SSLError" in text:
        return f"the MLflow server {uri} speaks another protocol than https; should its address start with http:// ?"
    if PAGE.search(text) or "redirects" in text or "not in a valid JSON format" in text or "JSONDecodeError" in text:
        return f"{uri} answers with a page, not as an MLflow server does: is the address right, or a login needed?"
    if SILENT.search(text):
        cause = CAUSE.search(text)
        why = cause[0].strip() if cause else text[:200]
        return f"the MLflow server {uri} does not answer ({why}); start it, or unset MLFLOW_TRACKING_URI"
    return None
