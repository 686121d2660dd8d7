"""Whether this machine can run a benchmark, item by item, each with its remedy. Changes nothing, downloads nothing."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from bench.store.folders import Store

SUPPORTED = ((3, 11), (3, 13))  # Python, first and last
INSTALL = "pip install 'ditbench[track]'"  # of MLflow
SPACE = 5 * 2**30  # bytes that a matrix of some cells takes, amply


@dataclass(frozen=True)
class Finding:
    """One item: `ok`, `note` (works, but know this) or `bad` (fix it), with the remedy."""

    item: str
    state: Literal["ok", "note", "bad"]
    text: str
    remedy: str = ""


def examine(store: Store) -> Iterator[Finding]:
    """Every item in turn; an examination that itself fails is a finding."""
    checks: dict[str, Callable[[Store], Finding]] = {
        "Python": _python,
        "torch": _torch,
        "GPU": _gpu,
        "extractor": _extractor,
        "results directory": _results,
        "MLflow store": _mlflow,
        "disk": _disk,
        "clock": _clock,
        "plugins": _plugins,
    }
    for item, check in checks.items():
        try:
            yield check(store)
        except (Exception, SystemExit) as error:
            yield Finding(item, "bad", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _python(store: Store) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if SUPPORTED[0] <= sys.version_info[:2] <= SUPPORTED[1]:
        return Finding("Python", "ok", version)
    return Finding(
        "Python", "bad", f"{version} is not supported", "create the environment with Python 3.11, 3.12 or 3.13"
    )


def _torch(store: Store) -> Finding:
    import torch

    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        text = f"torch {torch.__version__}, but torchvision does not fit it: {' '.join(str(error).split())[:120]}"
        return Finding("torch", "bad", text, "pip install --upgrade torch torchvision, both from the same place")
    text = f"torch {torch.__version__}, torchvision {torchvision.__version__}, {torch.get_num_threads()} threads"
    return Finding("torch", "ok", text)


def _gpu(store: Store) -> Finding:
    import torch

    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        memory = f"{gpu.total_memory / 2**30:.0f} GiB"
        text = f"{torch.cuda.device_count()} x {gpu.name}, {memory}, CUDA {torch.version.cuda}"
        from bench.measure.cost import peak_flops

        if peak_flops(gpu.name) is None:
            return Finding(
                "GPU", "note", text, "its peak is not known here, so MFU is left out (bench/measure/cost.py, PEAKS)"
            )
        return Finding("GPU", "ok", text)
    if shutil.which("nvidia-smi"):
        remedy = "see `nvidia-smi`: the driver is too old for this torch, or torch was built for the CPU alone"
        return Finding("GPU", "bad", "an NVIDIA driver is here, but torch sees no device", remedy)
    return Finding("GPU", "note", "none: cells run on the CPU in float32", "quickstart and cifar10 are sized for that")


def _extractor(store: Store) -> Finding:
    from bench.measure import metrics

    here = metrics.inception_here()
    metrics.resolve("efficientnet-lite0")  # the offline one: its weights are in a package
    if here is not None:
        return Finding("extractor", "ok", f"inception ({here.name}); offline default efficientnet-lite0")
    return Finding(
        "extractor",
        "note",
        "inception's weights are not here: downloaded at first use; without network, efficientnet-lite0 serves",
        f"for published FIDs without network, put the file here and name it in {metrics.INCEPTION_WEIGHTS}",
    )


def _results(store: Store) -> Finding:
    root = next(path for path in (store.root, *store.root.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        return Finding(
            "results directory", "bad", f"cannot be written ({error.strerror})", "choose another with --root"
        )
    count = len(store.matrices())
    text = f"{count} matrices" if store.root.exists() else "not there yet; `ditbench run` creates it"
    return Finding("results directory", "ok", text)


def _mlflow(store: Store) -> Finding:
    from bench.views.address import TrackingError, is_own, is_server, sqlite_file, tracking_uri
    from bench.views.beside import following, wait

    uri = tracking_uri(store)
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        if find_spec("mlflow") is None:
            return Finding("MLflow store", "note", "mlflow is not installed; runs go without", INSTALL)
        return Finding("MLflow store", "ok", "not there yet; the first run creates it")
    try:
        with following(store) as follower:
            follower.ask("check")
            wait(follower, say=lambda text: None)
    except ModuleNotFoundError as error:
        return Finding("MLflow store", "note", str(error), INSTALL)
    except TrackingError as error:
        return Finding("MLflow store", "bad", str(error), "results stay on disk; `ditbench sync` sends them later")
    what = "a SQLite file" if file is not None else "a server" if is_server(uri) else "a database"
    return Finding("MLflow store", "ok", what + (" beside the results" if is_own(store, uri) else ""))


def _disk(store: Store) -> Finding:
    root = next(path for path in (store.root, *store.root.parents) if path.exists())
    free = shutil.disk_usage(root).free
    text = f"{free / 2**30:.0f} GiB free"
    if free < SPACE:
        return Finding("disk", "bad", text, f"free {SPACE / 2**30:.0f} GiB, or choose another disk with --root")
    return Finding("disk", "ok", text)


def _clock(store: Store) -> Finding:
    newest = max((path.stat().st_mtime for path in store.root.glob("cells/*/status.json")), default=0.0)
    if newest > time.time() + 60 or time.time() < 1_700_000_000:
        return Finding(
            "clock", "bad", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "set it: results carry times"
        )
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))


def _plugins(store: Store) -> Finding:
    import architectures

    broken = []
    for file in filter(None, os.environ.get("DITBENCH_PLUGINS", "").split(os.pathsep)):
        try:
            architectures.load_plugin(file)
        except architectures.PluginError as error:
            broken.append(str(error))
    plugins = [name for name in architectures.schemes() if architectures.origin(name)["kind"] != "built-in"]
    for name in plugins:
        try:
            architectures.describe(name)
        except (Exception, SystemExit) as error:  # a plugin's, of any type
            broken.append(f"{name}: {error}")
    if broken:
        remedy = "fix the file or uninstall the package; other schemes run as before"
        return Finding("plugins", "bad", "; ".join(broken), remedy)
    return Finding("plugins", "ok", ", ".join(plugins) or "none installed")
