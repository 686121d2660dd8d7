"""Text from outside in MLflow, cells that it does not take, a server behind a private certificate."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import shutil
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import _validate_metric_name, _validate_param, _validate_tag
from test_tracking import synthetic

from bench.store.files import write_json
from bench.store.folders import Store
from bench.views import mlflow as tracking
from bench.views.mlflow.cell_run import CellRun
from bench.views.mlflow.words import PARAM, cut, inert, metric_name, metric_names, plain


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: Path) -> Store:
    """Four cells, and a store of MLflow that is initialised already."""
    shutil.copy(empty, tmp_path / "shared.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    return synthetic(tmp_path / "runs")


def client(store: Store) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking.tracking_uri(store))


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=600))
def test_mlflow_takes_any_text(text: str) -> None:
    """Names with `..`, slashes, controls, 600 letters: MLflow refuses them, and the whole sync ended."""
    _validate_metric_name(metric_name(text))
    _validate_param(metric_name(text), plain(text, PARAM))
    _validate_tag("reason", plain(text))
    assert not set(inert(text)) & set("<>[]()*_`|~\\:@={}$/\"'!\x00\x1b\n")


def test_long_texts_that_differ_stay_different() -> None:
    """Two options of 1,000 letters that differ at the end: cut, they would be one group of the run table."""
    assert cut("a" * 900 + "x", PARAM) != cut("a" * 900 + "y", PARAM) and len(cut("a" * 900, PARAM)) == PARAM


def test_names_that_would_become_one_stay_two() -> None:
    """`kid/size=2` and `kid/size-2` are one name in MLflow: one row's mean would be under both."""
    names = metric_names(["kid/size=2", "kid/size-2", "fid"])
    assert len(set(names.values())) == 3 and names["fid"] == "fid"


def test_a_reason_shows_as_text(store: Store) -> None:
    """An error message with HTML and Markdown became a link, an image or a script on the run's page."""
    folder = store.cell(store.rows("made")[3].cell)
    folder.write_state("failed", "<img src=x onerror=alert(1)> ![](http://evil/x.png) [a](b) **b**\x1b[31m\x00")
    folder.log.write_bytes(b"\x00\x1b[31m" + b"x" * 100_000)
    tracking.sync(store, "made")
    experiment = tracking.experiment_id(store, "made")
    run = next(one for one in client(store).search_runs([experiment]) if one.data.tags.get("status") == "failed")
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("**failed**: &#60;img") and not set(note[12:]) & set("<>[]()*!")
    assert "\x00" not in run.data.tags["reason"] and "\x1b" not in run.data.tags["reason"]


def test_one_cell_that_mlflow_refuses_ends_no_sync(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow did not take of one cell ended the sync of all: it is named, and the others are written."""
    curves, calls = CellRun._curves, []

    def refused_once(self: CellRun, entries: Any, **how: Any) -> Any:
        calls.append(self)
        if len(calls) == 1:
            raise MlflowException("refused")
        return curves(self, entries, **how)

    monkeypatch.setattr(CellRun, "_curves", refused_once)
    with pytest.raises(tracking.TrackingError, match="1 of 4 cells, such as scheme-0 seed 0"):
        tracking.sync(store, "made")
    runs = client(store).search_runs([tracking.experiment_id(store, "made")])
    assert sum("ditbench.stamp" in run.data.tags for run in runs) == 3


def test_a_damaged_sample_is_left_out_and_named(store: Store) -> None:
    """A cut image ended the sync."""
    next(store.cell(store.rows("made")[0].cell).samples.glob("*.png")).write_bytes(b"\x89PNG\r\n\x1a\ncut")
    sent = tracking.sync(store, "made")
    assert any("is no image" in note for note in sent.notes) and sent.images == 7


def test_an_unknown_baseline_keeps_no_cell_from_mlflow(store: Store) -> None:
    """A baseline that names no row raised before anything was written."""
    manifest = store.manifest("made")
    manifest["config"]["baseline"] = "nobody"
    write_json(store.matrix_folder("made") / "manifest.json", manifest)
    sent = tracking.sync(store, "made")
    assert "nobody" in sent.notes[0] and "the cells are written" in sent.notes[0] and sent.points > 0


def test_what_did_not_change_costs_no_request(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync of 2,000 cells of which none changed asked some thousand times."""
    tracking.sync(store, "made")
    calls: list[str] = []
    for name in ("log_batch", "get_metric_history", "list_artifacts", "get_run", "set_terminated", "update_run"):
        monkeypatch.setattr(
            f"mlflow.tracking.MlflowClient.{name}", lambda *words, _name=name, **more: calls.append(_name)
        )
    sent = tracking.sync(store, "made")
    assert sent.unchanged == 4 and not calls


class _Secured(BaseHTTPRequestHandler):
    """Answers a search for experiments with none, and keeps who asked."""

    seen: list[str] = []  # noqa: RUF012 (of the test)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append(self.headers.get("Authorization", ""))
        body = json.dumps({}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815 (as http.server names it)

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def secured(tmp_path: Path) -> Any:
    """The address of a server with a certificate that nobody signed, and the certificate's file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = made.add_extension(local, False).add_extension(x509.BasicConstraints(True, None), True)
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*form))
    server = HTTPServer(("127.0.0.1", 0), _Secured)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    _Secured.seen.clear()
    yield f"127.0.0.1:{server.server_port}", certificate
    server.shutdown()


def test_mlflows_own_settings_reach_a_server_with_a_private_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secured: tuple[str, Path]
) -> None:
    """Our own probe refused servers that MLflow reaches: a private authority, no check, a user and password."""
    address, certificate = secured
    store = Store(tmp_path / "runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://{address}")
    with pytest.raises(tracking.TrackingError, match="MLFLOW_TRACKING_SERVER_CERT_PATH"):
        tracking.connect(store)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        tracking.connect(store)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        patch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", "pass-word")
        tracking.connect(store)
    with monkeypatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        patch.setenv("MLFLOW_TRACKING_URI", f"https://me:pass-word@{address}")
        tracking.connect(store)
    basic = "Basic " + base64.b64encode(b"me:pass-word").decode()
    assert _Secured.seen[0] == "" and _Secured.seen[1:] == [basic, basic]
