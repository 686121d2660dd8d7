"""The view never stops the work: whatever MLflow does, the run continues, says so once, and prints no password."""

from __future__ import annotations

import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from kit import Launch, also, first
from test_tracking import synthetic

from bench.store.folders import Store
from bench.views import beside
from bench.views.address import TrackingError, is_own, redacted, sqlite_file, tracking_uri
from bench.views.beside import Beside, following, wait

PASSWORD = "s3cret-pw"
HTML = b"<!DOCTYPE html><html><h1>Login [/red]</h1>"


def _reply(status: str, body: bytes = b"", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n".encode() + body


REPLIES = {
    "500": _reply("500 X", b"oops"),
    "page": _reply("200 OK", HTML, "Content-Type: text/html\r\n"),
    "redirect": _reply("302 X", more="Location: /login\r\n"),
    "401": _reply("401 X"),
    "garbage": b"\x00\xff" * 99,
    "closes": b"",
}


def _serve(kind: str, client: socket.socket) -> None:
    with suppress(OSError), client:
        client.recv(65536)
        if kind == "silent":
            time.sleep(600)
        if kind == "drip":
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n{")
            while True:
                client.sendall(b" ")
                time.sleep(0.5)
        client.sendall(REPLIES[kind])


@contextmanager
def odd_server(kind: str) -> Iterator[str]:
    """A server that is no MLflow; its address holds a password."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=_serve, args=(kind, listening.accept()[0]), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://user:{PASSWORD}@127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return synthetic(tmp_path / "runs", variants=1, seeds=1)


def cause(store: Store, silence: float = 30) -> str:
    """The sentence that a sync ends with."""
    with following(store, silence=silence) as follower, pytest.raises(TrackingError) as error:
        follower.ask("sync", name="made")
        wait(follower, say=lambda text: None)
    return str(error.value)


SENTENCES = {
    "500": "does not answer",
    "closes": "does not answer",
    "garbage": "does not answer",
    "page": "not as an MLflow server does",
    "redirect": "not as an MLflow server does",
    "401": "MLFLOW_TRACKING_USERNAME",
    "drip": "no sign of life",
    "silent": "no sign of life",
}


@pytest.mark.faults
@pytest.mark.parametrize("kind", first(SENTENCES, "401", "drip", "silent"))
def test_an_odd_server_is_a_sentence_without_the_password(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A server that drips a byte, answers with a page, a redirect or nothing: each wait has an end and a sentence."""
    with odd_server(kind) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        text = cause(store, silence=6)
    assert SENTENCES[kind] in text and PASSWORD not in text


@pytest.mark.faults
@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("postgresql+pg8000://user:s3cret-pw@127.0.0.1:9/db", "pip install pg8000"),
        ("sqlite:///FOLDER", "cannot be opened"),
        ("http://[::1", "MLflow"),
        *also(
            ("mysql+nothing://user:s3cret-pw@127.0.0.1:9/db", "MLflow at mysql"),
            ("gopher://user:s3cret-pw@x", "MLflow at gopher"),
            ("file:///tmp/nowhere", "maintenance"),
            ("sqlite:///GARBAGE", "cannot be opened"),
        ),
    ],
)
def test_a_store_that_cannot_be_used_is_a_sentence_at_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, sentence: str
) -> None:
    """A missing driver was a traceback, a store that cannot be opened 100 silent seconds: no sign of life for 10."""
    (tmp_path / "garbage").write_bytes(b"garbage" * 999)
    address = address.replace("FOLDER", str(tmp_path)).replace("GARBAGE", str(tmp_path / "garbage"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    text = cause(store, silence=10)
    assert sentence in text and PASSWORD not in text


@pytest.mark.faults
def test_a_locked_store_and_a_held_lock_are_sentences(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program holds the database, or a stopped sync the lock: a run waited for as long as it was held."""
    monkeypatch.setattr("bench.views.mlflow.client.PATIENCE", 1.0)
    from bench.views import mlflow as tracking

    tracking.connect(store)
    with FileLock(store.root / "mlflow-sync.lock"), pytest.raises(TrackingError, match="another ditbench writes"):
        tracking.sync(store, "made")
    holder = sqlite3.connect(store.root / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TrackingError, match="locked"):
        tracking.sync(store, "made")
    holder.rollback()
    tracking.sync(store, "made")


@pytest.mark.faults
def test_a_run_is_not_held_up_and_says_it_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that never answers, as with a silent server: no call of a run waits, one warning, then an end."""
    monkeypatch.setattr(beside, "command", lambda *_: [sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:{PASSWORD}@127.0.0.1:9")
    waits: list[float] = []
    select = beside.select.select
    monkeypatch.setattr(beside.select, "select", lambda *args: (waits.append(args[3]), select(*args))[1])
    monkeypatch.setattr(beside, "EVERY", 0.5)
    monkeypatch.setattr(beside, "IMPATIENT", 3.0)
    said: list[str] = []
    dashboard = Beside(store, "made", warn=said.append, again="ditbench sync made")
    dashboard.follower.silence = 4.0
    while not said:
        dashboard()
        time.sleep(0.1)
    assert waits and not any(waits)
    dashboard.finish(say=lambda text: None)
    assert 0 < max(waits) <= beside.IMPATIENT < dashboard.follower.silence
    assert len(said) == 2 and "the run continues" in said[0] and "`ditbench sync made` brings it up to date" in said[1]
    assert PASSWORD not in " ".join(said)


@pytest.mark.faults
def test_a_run_writes_its_dashboard_and_leaves_no_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual case: the first call starts it, the last sync is whole, and the process is gone."""
    said: list[str] = []
    dashboard = Beside(store, "made", warn=said.append)
    dashboard()
    child = dashboard.follower.child
    dashboard.finish(say=lambda text: None)
    assert not said and child is not None and child.poll() is not None
    from bench.views import mlflow as tracking

    assert tracking.sync(store, "made").unchanged == 1


@pytest.mark.parametrize(("does", "hangs"), [("works", False), ("sleeps", True)])
def test_one_that_works_without_a_word_does_not_hang(
    store: Store, monkeypatch: pytest.MonkeyPatch, does: str, hangs: bool
) -> None:
    """Beside other work its imports took more than SILENCE, and the run said that MLflow hung."""
    busy = "while time.process_time() < 3: pass" if does == "works" else "time.sleep(600)"
    code = f'import time\n{busy}\nprint(\'{{"done": "made"}}\', flush=True)\ntime.sleep(600)'
    monkeypatch.setattr(beside, "command", lambda *_: [sys.executable, "-S", "-c", code])
    with following(store, silence=1) as follower:
        follower.ask("check")
        if hangs:
            with pytest.raises(TrackingError, match="no sign of life for 1 s"):
                follower.answer(600)
        else:
            answer = follower.answer(600)
            assert answer is not None and answer.text == "made"


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, *also(signal.SIGSEGV)])
def test_a_writer_that_dies_is_a_sentence_and_starts_again(store: Store, number: int) -> None:
    """The process that writes to MLflow is killed, stopped or crashes: said, and the next request has a new one."""
    with following(store, silence=6) as follower:
        follower.ask("check")
        assert follower.child is not None
        follower.child.send_signal(number)
        with pytest.raises(TrackingError, match=r"ended by SIG|no sign of life"):
            wait(follower, say=lambda text: None)
        follower.silence = 60
        follower.ask("check")
        assert wait(follower, say=lambda text: None) is not None


@pytest.mark.faults
def test_the_writer_ends_with_the_run(tmp_path: Path, store: Store) -> None:
    """`run` is killed with SIGKILL while its sync hangs: the process that writes is gone within seconds."""
    code = "import sys, pathlib, time; from bench.store.folders import Store; from bench.views.beside import Follower\n"
    code += "follower = Follower(Store(pathlib.Path(sys.argv[1]))); follower.ask('sync', name='made'); time.sleep(99)"
    with odd_server("silent") as address:
        command = [sys.executable, "-c", code, str(store.root)]
        launch = Launch(cwd=tmp_path, command=command, MLFLOW_TRACKING_URI=address)
        launch.wait_for(launch.below)
        time.sleep(4)
        below = launch.below()
        launch.disturb()
        launch.ended()
        assert below and not psutil.wait_procs(below, timeout=60)[1]


def test_what_is_beside_a_timed_run_gives_way_with_its_whole_session(tmp_path: Path) -> None:
    """Of nice 19 in a session of its own it took as much as a cell: .75 of a core beside two busy ones, .15 by this."""
    code = (
        "import os\nfrom bench.views import follower\nfollower.take_what_is_left()\n"
        "print(os.nice(0), follower.SESSION.read_text().split()[-1] if follower.SESSION.exists() else '19')"
    )
    launch = Launch(cwd=tmp_path, command=[sys.executable, "-c", code])
    assert launch.ended(0).split() == ["19", "19"]


def test_no_password_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords in addresses, queries, headers and the environment, in whatever an error quotes."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2-of-env")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:p%40ss-word@host/db")
    texts = (
        "could not connect to http://me:p4ss-word@host:1/x",
        "postgresql://me:p@ss/w0rd@host/db?sslpassword=p4ss-word&x=1",
        "Authorization: Basic bWU6cDRzcy13b3Jk and Bearer p4ss-word.token",
        "wrong password 'hunter2-of-env'",
        "login p@ss-word failed",
        "login p%40ss-word failed",
        "https://p4ss-word@host",
    )
    for text in texts:
        shown = redacted(text)
        assert "***" in shown and not any(part in shown for part in ("p4ss", "w0rd", "ss-word", "hunter2", "bWU6c"))
    assert redacted("cells_done of runs/x: 3") == "cells_done of runs/x: 3"


@pytest.mark.parametrize("name", ["what? 100%25 #1", "a%20b", "русские & 'quotes' @home"])
def test_a_store_in_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`?` begins the options of a database's address: MLflow's store of such a folder lay outside of it."""
    import sqlalchemy

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / name
    uri = tracking_uri(Store(root))
    assert sqlalchemy.make_url(uri).database == str(root / "mlflow.db") == str(sqlite_file(uri))
    assert is_own(Store(root), uri) and redacted(uri) == uri
