"""Names of schemes and where they come from: built in, from a file, from an installed package."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import architectures
from architectures import PluginError, UnknownScheme, parts, register, registry

EXAMPLE = Path(__file__).parent / "example_plugin"
FILE = """
from architectures import register
from architectures.conditioning.adaln import AdaLN

@register("{name}")
class Mine(AdaLN):
    '''adaLN under another name.'''
"""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    before = dict(registry._registry.schemes), dict(registry._registry.origins)
    yield
    registry._registry.schemes, registry._registry.origins = before


def plugin(folder: Path, name: str, file: str = "mine.py") -> Path:
    path = folder / file
    path.write_text(FILE.format(name=name))
    return path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example package as pip would lay it out, on sys.path."""
    site = tmp_path / "site"
    info = site / "ditbench_film-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ditbench-film\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[ditbench.schemes]\nfilm = ditbench_film:FiLM\n")
    (site / "ditbench_film.py").write_text((EXAMPLE / "ditbench_film.py").read_text())
    monkeypatch.syspath_prepend(str(site))
    return site


def runs(name: str) -> bool:
    model = architectures.create(name, "DiT-XS/8", image_size=16, in_channels=3, prompt=architectures.Labels(3), seed=0)
    return model(torch.zeros(2, 3, 16, 16), torch.rand(2), torch.tensor([0, 1])).shape == (2, 3, 16, 16)


def test_names_are_known_without_torch() -> None:
    code = "import sys, architectures; print(architectures.schemes(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "adaln-zero" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_every_public_name_stays_what_it_is_once_all_modules_are_imported() -> None:
    """A submodule that is imported becomes an attribute of its package, and hides a function of its name."""
    before = {name: getattr(architectures, name) for name in architectures.__all__}
    for module in pkgutil.walk_packages(architectures.__path__, "architectures."):
        importlib.import_module(module.name)
    assert {name for name in before if getattr(architectures, name) is not before[name]} == set()
    assert callable(architectures.gallery)


def imported(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each `from module import name` in a source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def test_type_checkers_see_the_public_names_where_the_table_has_them() -> None:
    source = Path(architectures.__file__).read_text()
    seen = {name: module for module, name in imported(source) if module.startswith("architectures")}
    assert seen == architectures._HOME


def plugins(folder: Path) -> Iterator[Path]:
    """Sources of plugins: the example, what the scaffold writes, and the guide's smallest scheme."""
    from bench.cli import scaffold

    yield EXAMPLE / "ditbench_film.py"
    yield from scaffold.new_scheme("my-gate", folder, package=False)
    yield from scaffold.new_scheme("my-gate", folder / "package", package=True)
    (code,) = re.findall(
        r"```python\n(.*?)```", (EXAMPLE.parents[1] / "architectures/README.md").read_text(), re.DOTALL
    )
    (folder / "guide.py").write_text(code)
    yield folder / "guide.py"


def test_a_plugin_imports_the_stable_names_alone(tmp_path: Path) -> None:
    pairs = [name for file in plugins(tmp_path) if file.suffix == ".py" for name in imported(file.read_text())]
    ours = {(module, name) for module, name in pairs if module.partition(".")[0] in ("architectures", "bench")}
    assert {module for module, _ in ours} == {"architectures", "architectures.parts"}
    assert {name for module, name in ours if module == "architectures.parts"} <= set(parts.__all__)
    assert {name for module, name in ours if module == "architectures"} <= {*architectures.__all__, "laws"}


def test_parts_are_what_the_modules_define_and_nothing_is_left_out_of_all() -> None:
    names = {name for module, name in imported(Path(parts.__file__).read_text()) if module != "__future__"}
    assert names == set(parts.__all__)
    assert all(getattr(parts, name) is not None for name in names)


def test_every_built_in_is_where_the_catalogue_says() -> None:
    for name in registry.BUILT_IN:
        described = architectures.describe(name)
        assert described.origin["kind"] == "built-in"
        assert described.facts.source
        assert "<-" in described.equations


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    with pytest.raises(UnknownScheme, match="'adaln_zero'.*cross-attention.*did you mean 'adaln-zero'"):
        runs("adaln_zero")


def test_an_alias_is_the_scheme_and_is_listed_once() -> None:
    assert "shared-modulation" in architectures.schemes()
    assert "pixart" not in architectures.schemes()
    assert architectures.scheme_class("pixart") is architectures.scheme_class("shared-modulation")
    assert architectures.origin("pixart") == architectures.origin("shared-modulation")
    assert architectures.describe("pixart").facts == architectures.describe("shared-modulation").facts
    assert architectures.shares("pixart") == architectures.shares("shared-modulation") != {}
    assert runs("pixart")
    page = architectures.gallery()
    assert page.count("### shared-modulation") == 1
    assert "### pixart" not in page
    assert "also `pixart`" in page
    with pytest.raises(UnknownScheme, match="did you mean 'pixart'"):
        architectures.check_name("pixrt")
    with pytest.raises(PluginError, match="'pixart'.*built-in"):
        register("pixart")(architectures.scheme_class("adaln"))


def test_an_alias_begins_with_the_same_weights() -> None:
    one, other = (
        architectures.create(name, "DiT-XS/8", image_size=16, in_channels=3, prompt=architectures.Labels(3), seed=0)
        for name in ("pixart", "shared-modulation")
    )
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.thorough
@pytest.mark.parametrize("name", architectures.NAMED)
def test_a_name_is_its_scheme_with_its_options(name: str) -> None:
    one = architectures.NAMED[name]
    own, other = (
        architectures.create(scheme, "DiT-XS/8", image_size=16, in_channels=3, prompt=architectures.Labels(3), **given)
        for scheme, given in ((name, {"seed": 0}), (one.scheme, one.options | {"seed": 0}))
    )
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), other.parameters(), strict=True))
    described = architectures.describe(name)
    assert {key: described.options[key].default for key in one.options} == one.options
    assert f"`{name}` | `{one.conditioning}`" in architectures.gallery()
    assert one.options.items() <= architectures.resolve_options(name, {}).items()


def test_a_name_of_a_published_system_is_conditioned_as_it_is() -> None:
    both = architectures.NAMED.keys() & architectures.PUBLISHED.keys()
    named = {name: architectures.NAMED[name].conditioning.replace("512", "5120") for name in both}
    assert named == {name: architectures.PUBLISHED[name].conditioning for name in both} and {"flux2", "chroma"} <= both


def test_a_name_s_blocks_compute_what_its_options_say() -> None:
    assert any("a_y = Attention(LN(y)" in block for block in architectures.describe("qwen-image-2.1").computed)


def test_an_option_beside_a_name_is_over_its_own() -> None:
    assert architectures.resolve_options("flux2", {"head": "per-block"})["head"] == "per-block"
    with pytest.raises(ValueError, match="unknown option 'heads'.*did you mean 'head'"):
        architectures.resolve_options("flux2", {"heads": "shared"})


def test_a_plugin_file(tmp_path: Path) -> None:
    path = plugin(tmp_path, "mine")
    assert architectures.load_plugin(path) == ["mine"] == architectures.load_plugin(path)
    assert "mine" in architectures.schemes()
    assert runs("mine")
    origin = architectures.origin("mine")
    assert origin["kind"] == "file"
    assert origin["name"] == "mine.py"
    assert len(origin["sha256"]) == 64


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError.*nothing_of_that_name"),
        ("def broken(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        (FILE.format(name="adaln-zero"), "'adaln-zero'.*built-in"),
        (FILE.format(name="Not A Slug"), "'Not A Slug'.*lower-case"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(PluginError, match=said):
        architectures.load_plugin(tmp_path / "bad.py")
    with pytest.raises(PluginError, match="no such file"):
        architectures.load_plugin(tmp_path / "absent.py")


def test_two_plugins_of_one_name_are_both_named(tmp_path: Path) -> None:
    architectures.load_plugin(plugin(tmp_path, "mine", "one.py"))
    other = tmp_path / "two.py"
    other.write_text(FILE.format(name="mine") + "# another file\n")
    with pytest.raises(PluginError, match=r"'mine'.*one\.py.*two\.py"):
        architectures.load_plugin(other)


def test_an_installed_package(installed: Path) -> None:
    assert "film" in architectures.schemes()
    assert runs("film")
    origin = architectures.origin("film")
    assert (origin["kind"], origin["name"], origin["version"]) == ("package", "ditbench-film", "0.1.0")
    assert len(origin["sha256"]) == 64
    assert architectures.describe("film").facts.modulation_parameters == "2*d*d + 2*d"


def test_a_file_may_not_take_an_installed_package_s_name(installed: Path, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="'film'.*ditbench-film.*mine.py"):
        architectures.load_plugin(plugin(tmp_path, "film"))


def test_a_package_that_cannot_be_imported_is_named(installed: Path) -> None:
    (installed / "ditbench_film.py").write_text("import nothing_of_that_name")
    sys.modules.pop("ditbench_film", None)
    with pytest.raises(PluginError, match="'film'.*ditbench-film.*nothing_of_that_name"):
        runs("film")
    assert runs("adaln"), "the others are not touched"


@pytest.mark.slow
def test_the_example_is_installed_by_pip_and_runs_in_a_matrix(tmp_path: Path) -> None:
    """pip install --target, as a user's package; its cell carries distribution, version and digest."""
    from tiny import ditbench, matrix_file

    from bench.store.folders import Store

    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site")]
    subprocess.run([*words, str(EXAMPLE)], check=True, timeout=250)
    path = matrix_file(tmp_path, variants=["adaln", "film"], train__steps=4)
    found = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    ditbench("run", str(path), "--no-track", cwd=tmp_path, code=0, PYTHONPATH=found)
    store = Store(tmp_path / "runs")
    result = store.cell(store.rows("tiny")[1].cell).result()
    assert result is not None
    assert result.provenance["scheme"]["origin"]["version"] == "0.1.0"
