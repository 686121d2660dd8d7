"""The process that writes to MLflow when it is asked: a line of JSON asks, lines of JSON answer.

MLflow is reached from here alone, so whatever it does (wait, hang, crash) ends with this process and nothing else.
It ends when the one that asks is gone: its standard input is closed then.

    {"do": "sync", "root": "/runs", "name": "quickstart", "rebuild": false}
    {"at": "20 of 400 cells"}
    {"done": "400 runs, 12 new points, 0 new images", "notes": [], "experiment": "3"}    or    {"failed": "a sentence"}
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from bench.store.folders import Store
from bench.views.address import redacted

SESSION = Path("/proc/self/autogroup")
BESIDE = "beside"  # argument: a run is timed on this machine, so take what it leaves


def main() -> None:
    """`boot.py bench.views.follower`, as `bench.views.beside` starts it."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    if BESIDE in sys.argv[1:]:
        take_what_is_left()
    asked: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()

    def say(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")

    while True:
        say(**_answer(asked.get(), lambda done, total: say(at=f"{done} of {total} cells")))


def take_what_is_left() -> None:
    """Gives this process, and its session, what others leave of the processors.

    Linux may share them out by session (autogroup), and within one alone by niceness: of nice 19 in its own session
    a process takes as much as a cell. Lowers the weight of the whole session.
    """
    with suppress(OSError):
        os.nice(19)
    with suppress(OSError):
        SESSION.write_text("19")


def _listen(asked: SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        asked.put(json.loads(line))
    os._exit(0)


def _answer(request: dict[str, Any], progress: Callable[[int, int], None]) -> dict[str, Any]:
    try:
        return _done(request, progress)
    except ModuleNotFoundError as error:
        return {"missing": error.name or str(error)}
    except Exception as error:  # of any type: this process is asked again
        if os.environ.get("DITBENCH_DEBUG"):
            print(redacted(traceback.format_exc()), file=sys.stderr)
        known = isinstance(error, ValueError | OSError)
        return {"failed": redacted(str(error) if known else f"{type(error).__name__}: {error}")}


def _done(request: dict[str, Any], progress: Callable[[int, int], None]) -> dict[str, Any]:
    from bench.views import mlflow as tracking

    store = Store(Path(request["root"]))
    if request["do"] == "check":
        tracking.connect(store)
        return {"done": "it answers"}
    if request["do"] == "experiment":
        return {"done": "found", "experiment": tracking.experiment_id(store, request["name"])}
    sent = tracking.sync(store, request["name"], rebuild=request.get("rebuild", False), progress=progress)
    return {"done": str(sent), "notes": sent.notes, "experiment": sent.experiment}
