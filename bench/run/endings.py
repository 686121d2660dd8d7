"""How a cell ended: a status and one sentence, whatever its code, a plugin, a signal or the disk did."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from bench.config.spec import CellSpec, subject
from bench.store.disk import DiskError, explained
from bench.store.folders import CellFolder, Status
from bench.training.callback import Diverged
from bench.training.signals import STOP, Stopped, sentence


class RankLost(RuntimeError):
    """Another rank of the cell died.

    Attributes:
        status: how it ended, and so the cell.
    """

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason

    def __str__(self) -> str:
        return self.reason


def classified(work: Callable[[], None], folder: CellFolder) -> tuple[Status, str]:
    """Runs `work`; a status and a sentence, which names a plugin's scheme where its code may have failed."""
    process = os.getpid()
    try:
        return _ended(work, folder)
    finally:
        if os.getpid() != process:  # a plugin forked, and its copy of the cell came here too
            os._exit(1)


def _ended(work: Callable[[], None], folder: CellFolder) -> tuple[Status, str]:
    try:
        work()
        return "done", ""
    except (Stopped, KeyboardInterrupt) as error:
        return "killed", str(error) or "interrupted; run again to resume"
    except Diverged as error:
        return "diverged", str(error)
    except RankLost as error:
        return error.status, str(error)
    except torch.OutOfMemoryError as error:
        return "oom", " ".join(str(error).split())[:300]
    except BaseException as error:  # SystemExit too: a plugin's `sys.exit` is an error of its cell
        return _failed(error, folder)


def _failed(error: BaseException, folder: CellFolder) -> tuple[Status, str]:
    if STOP.number is not None:  # a library made another error of the signal
        return "killed", sentence(STOP.number)
    refusal = explained(error, folder.path)
    if refusal is not None:
        if not isinstance(error, DiskError):
            traceback.print_exc()
        return "failed", refusal
    traceback.print_exc()
    text = " ".join(str(error).split())[:300]
    if isinstance(error, Exception):
        return "failed", f"{type(error).__name__}: {text}" + (f" ({who})" if (who := author(folder)) else "")
    return "failed", f"{author(folder) or 'its code'} ended the process by {type(error).__name__}({text})"


def author(folder: CellFolder) -> str:
    """A cell's scheme with the plugin that it comes from, or nothing if it is a built-in one."""
    with suppress(ValueError):
        spec = CellSpec.read(folder)
        if spec.plugins:
            return f"{subject(spec.config)} of plugin {', '.join(Path(file).name for file in spec.plugins)}"
    return ""
