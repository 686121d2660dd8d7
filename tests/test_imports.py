"""The rules of the rooms, read from the sources: who may import whom, and one door for each library."""

from __future__ import annotations

import ast
import functools
import os
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from architectures import registry

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "architectures").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])

# Left never imports right.
ARCHITECTURES = [
    "options",
    "rotary",
    "layers",
    "symbols",
    "sublayer",
    "order",
    "modulation",
    "placement",
    "final",
    "backbone_config",
    "sides",
    "sequence",
    "prompt",
    "beside",
    "scheme",
    "streams",
    "sources",
    "plugins",
    "named",
    "registry",
    "backbone",
    "work",
    "observation",
    "laws",
    "systems",
    "catalogue_page",
    "parts",
]
ROOMS = [
    ["store"],
    ["config"],
    ["data"],
    ["training"],
    ["measure", "findings"],
    ["run"],
    ["views"],
    ["cli", "studies"],
]
DOORS = {  # library -> the only modules, or rooms, that import it
    "omegaconf": {"config.load"},
    "pydantic": {"config.keys", "config.check"},
    "pydantic_core": {"config.kinds"},
    "mlflow": {"views.mlflow"},
    "torch_fidelity": {"measure.metrics"},
    "torchmetrics": {"measure"},
    "efficientnet_lite_pytorch": {"measure.metrics"},
    "lightning": {"training", "studies.loops"},  # the second counts what its loop waits for
    "datasets": {"data.reading.hub"},
    "pyarrow": {"data.reading.tables"},
    "transformers": {"data.encoders", "measure.metrics.vision"},
    "huggingface_hub": {"measure.metrics.vision"},
    "safetensors": {"views.sample", "measure.judge", "data.latents", "data.encode"},
    "diffusers": {"views.sample", "studies.peers", "data.vae"},
    "typer": {"cli"},
    "jinja2": {"views.page", "cli.scaffold"},
    "matplotlib": {"views.figures"},
    "ray": {"run.ray_cluster"},
    "submitit": {"run.on_slurm"},
    "psutil": {"store.provenance", "run.processes"},
}
NAME_SCHEMES = ("cli", "studies", "views.frontpage")  # examples, pairs with diffusers, the README's figure
NAME_SCHEMES += ("data.vae",)  # FLUX's autoencoder has its name too
# Read by a command line that must answer at once, and by a report made from a committed record alone.
WITHOUT_TORCH = ("store", "config", "findings", "cli.scaffold")
WITHOUT_TORCH += tuple(f"views.{name}" for name in ("text", "figures", "page", "report", "record", "readme"))


@functools.cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """Modules that a file imports, and whether at its top level."""
    return list(_imports(ast.parse(path.read_text())))


def _imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in top


def module(path: Path) -> str:
    """`bench/measure/metrics/sets.py` -> `measure.metrics.sets`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])


def room(path: Path) -> str:
    """`bench/measure/metrics/sets.py` -> `measure`."""
    return module(path).partition(".")[0]


def within(name: str, rooms: Iterable[str]) -> bool:
    """Whether a module is one of these, or in one of them."""
    return any(name == one or name.startswith(f"{one}.") for one in rooms)


def in_package(name: str) -> list[Path]:
    return [path for path in SOURCES if path.relative_to(ROOT).parts[0] == name]


@pytest.mark.parametrize("path", in_package("architectures"), ids=module)
def test_architectures_needs_torch_and_the_standard_library_alone(path: Path) -> None:
    import sys

    for name, _ in imports(path):
        top = name.partition(".")[0]
        assert top in sys.stdlib_module_names or top in ("torch", "architectures", "__future__"), f"{path.name}: {name}"


@pytest.mark.parametrize("path", in_package("architectures"), ids=module)
def test_order_of_architectures(path: Path) -> None:
    if path.name == "__init__.py":
        return
    for name, top in imports(path):
        parts = name.split(".")
        if parts[0] != "architectures" or not top or (parts[1] == room(path) == "laws"):
            continue
        if room(path) == "systems":
            assert parts[1] != "conditioning", f"{path.name} imports a scheme"
        elif room(path) == "conditioning":
            assert parts[1] != "conditioning", f"{path.name} imports another scheme"
        else:
            assert ARCHITECTURES.index(parts[1]) < ARCHITECTURES.index(room(path)), f"{path.name}: {name}"


@pytest.mark.parametrize("path", in_package("bench"), ids=module)
def test_order_of_bench(path: Path) -> None:
    level = {name: k for k, names in enumerate(ROOMS) for name in names}
    for name, top in imports(path):
        parts = name.split(".")
        if parts[0] == "bench" and top and parts[1] != room(path) and room(path) != "__init__":
            assert level[parts[1]] < level[room(path)], f"{module(path)} imports {name}"


def test_no_module_imports_itself_through_others() -> None:
    known = {f"{path.relative_to(ROOT).parts[0]}.{module(path)}".removesuffix(".__init__"): path for path in SOURCES}
    graph = {
        name: {
            found if found in known else found.rpartition(".")[0]
            for found, top in imports(path)
            if top and {found, found.rpartition(".")[0]} & set(known)
        }
        for name, path in known.items()
    }
    graph = {name: others - {name} for name, others in graph.items()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


@pytest.mark.parametrize("path", in_package("bench"), ids=module)
def test_bench_uses_public_names_and_names_no_scheme(path: Path) -> None:
    import architectures

    for name, _ in imports(path):
        if name.startswith("architectures."):
            assert name.split(".")[1] in architectures.__all__, f"{path.name}: {name}"
    tree = ast.parse(path.read_text())
    schemes = {*registry.BUILT_IN} - {"oracle"}  # which is also the name of an arm
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            assert node.value not in schemes or within(module(path), NAME_SCHEMES), f"{module(path)}: {node.value}"


@pytest.mark.parametrize("library", DOORS)
def test_one_library_one_door(library: str) -> None:
    for path in SOURCES:
        for name, _ in imports(path):
            if name.partition(".")[0] == library:
                assert within(module(path), DOORS[library]), f"{module(path)} imports {library}"


@pytest.mark.parametrize("path", in_package("bench"), ids=module)
def test_what_needs_no_torch_imports_none(path: Path) -> None:
    if within(module(path), WITHOUT_TORCH):
        heavy = ("torch", "pydantic", "mlflow", "lightning", "datasets", "matplotlib", "scipy")
        assert not [n for n, top in imports(path) if top and n.partition(".")[0] in heavy], path.name


def test_planning_imports_no_lightning_and_torch_only_to_count() -> None:
    import subprocess
    import sys

    heavy = ("torch", "lightning", "scipy", "pydantic", "mlflow")
    code = f"import sys, bench.run.plan, bench.run.manifest\nprint([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


HIDING = """
import importlib.metadata as metadata
from importlib.machinery import PathFinder
hidden = {"mlflow", "matplotlib", "tabulate", "transformers", "diffusers", "datasets"}
find, find_distribution = PathFinder.find_spec, metadata.distribution
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else find(name, path, target)
def distribution(name):
    if name in hidden:
        raise metadata.PackageNotFoundError(name)
    return find_distribution(name)
PathFinder.find_spec = staticmethod(find_spec)
metadata.distribution = distribution
"""  # for a process and its children: as if these were not installed


@pytest.mark.faults
def test_a_matrix_runs_without_the_extras(tmp_path: Path) -> None:
    """`pip install ditbench` trains and evaluates; what an extra would add is named with the extra."""
    from tiny import ditbench, matrix_file

    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(HIDING)
    path = os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", str(ROOT))])
    matrix = str(matrix_file(tmp_path, train__steps=2, train__warmup=1))
    done = ditbench("run", matrix, "--no-track", cwd=tmp_path, code=0, PYTHONPATH=path)
    assert "KID" in done.stdout and "pip install 'ditbench[report]'" in done.stdout and "mlflow" not in done.stderr
    again = ditbench("run", matrix, cwd=tmp_path, code=0, PYTHONPATH=path)
    assert again.stderr.count("pip install 'ditbench[track]'") == 1
    assert "pip install 'ditbench[track]'" in ditbench("sync", cwd=tmp_path, code=2, PYTHONPATH=path).stderr
    report = ditbench("report", cwd=tmp_path, code=2, PYTHONPATH=path).stderr
    assert "pip install 'ditbench[report]'" in report and len(report.splitlines()) == 1


def test_data_folders_hold_no_code() -> None:
    """But for the plugin that a matrix names."""
    found = {p for folder in ("configs", "results") for p in (ROOT / folder).rglob("*.py")}
    named = {
        (file.parent / plugin).resolve()
        for file in (ROOT / "configs").rglob("*.yaml")
        for plugin in (yaml.safe_load(file.read_text()).get("plugins") or [])
    }
    assert found <= named


def test_nothing_imports_tests() -> None:
    assert [p.name for p in SOURCES for name, _ in imports(p) if name.partition(".")[0] == "tests"] == []
