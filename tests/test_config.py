"""What the user writes is typed and complete, or refused in a sentence that names key, origin and choices."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import ditbench

from bench.config.keys import keys, markdown
from bench.config.load import load, to_yaml
from bench.config.matrix import row_names
from bench.config.schema import ConfigError, Train, as_dict
from bench.run.checks import check_names
from bench.run.machine import on_device


def written(folder: Path, text: str) -> Path:
    path = folder / "m.yaml"
    path.write_text(text)
    return path


def test_defaults_then_file_then_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\nvariants: [adaln]\ntrain: {steps: 5, lr: 0.1}")
    loaded = load(path, ["train.steps=7", "seeds=[1,2]"])
    assert (loaded.train.steps, loaded.train.lr, loaded.train.batch, loaded.seeds) == (7, 0.1, 256, [1, 2])


def test_a_base_lies_under_the_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "low.yaml").write_text("seeds: [1]\ntrain: {steps: 3, batch: 8, lr: 0.5}")
    (tmp_path / "base" / "high.yaml").write_text("base: low.yaml\ntrain: {steps: 4}")
    loaded = load(written(tmp_path, "base: base/high.yaml\nname: a\nseeds: [2, 3]\ntrain: {batch: 9}"), ["train.lr=1"])
    assert (loaded.train.steps, loaded.train.batch, loaded.train.lr, loaded.seeds) == (4, 9, 1.0, [2, 3])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: m.yaml\nname: a", "m.yaml is a base of itself"),
        ("base: lov.yaml\nname: a", "m.yaml: base: .*lov.yaml: no such file; did you mean .*low.yaml"),
        ("base: [low.yaml]\nname: a", "base names one file"),
        ("base: odd.yaml\nname: a", "odd.yaml: unknown key 'seed'; did you mean 'seeds'"),
    ],
)
def test_a_base_that_cannot_be_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("seeds: [1]")
    (tmp_path / "odd.yaml").write_text("seed: 1")
    with pytest.raises(ConfigError, match=words):
        load(written(tmp_path, text))


def test_written_out_and_read_again_is_the_same(tmp_path: Path) -> None:
    loaded = load(written(tmp_path, "name: a\nvariants: [adaln, {scheme: adaln-zero, gate: one, name: b}]"))
    assert load(written(tmp_path, to_yaml(as_dict(loaded)))) == loaded


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("name: a\ntrain: {step: 5}", [], ["train.step", "did you mean 'steps'", "m.yaml"]),
        ("name: a\nvariant: [x]", [], ["'variant'", "did you mean 'variants'"]),
        ("name: a", ["train.stepz=4"], ["train.stepz", "on the command line", "did you mean 'steps'"]),
        ("name: a\ntrain: {steps: abc}", [], ["m.yaml: train.steps must be a whole number above 0", "abc"]),
        ("name: a\ntrain: {precision: fp8}", [], ["train.precision", "fp8", "bf16"]),
        ("name: a\ntrain: 5", [], ["train must be a mapping of keys", "5"]),
        ("name: a\nvariants: {adaln: 1}", [], ["variants must be a list"]),
        ("name: a\nseeds: [x]", [], ["seeds must be a list of whole numbers", "x"]),
        ("name: a", ["train.steps=-4"], ["train.steps", "above 0", "-4"]),
        ("name: a\ntrain: {drop: 1.5}", [], ["train.drop", "[0, 1)"]),
        ("name: a\ntrain: {betas: [0.9]}", [], ["train.betas", "two numbers"]),
        ("name: a\ntrain: {steps: true}", [], ["train.steps must be a whole number", "True"]),
        ("name: a\ntrain: {lr: .nan}", [], ["train.lr must be a number above 0", "nan"]),
        (
            "name: a\ntrain: {steps: 2}",
            ["train.steps=0"],
            ["'train.steps=0' on the command line: train.steps", "above 0"],
        ),
        ("name: a\ndata: {objects: 4}", [], ["data.objects must be a whole number from 1 to 3, got 4"]),
        (
            "name: a\naxes: {train.betas: [[0.9, 0.95], [0.9, 0.99]]}\nchoose: train.betas",
            [],
            ["m.yaml: choose 'train.betas': its values are lists; numbers, words and switches can be chosen"],
        ),
        ("name: a\nchoose: train.lr", [], ["m.yaml: choose 'train.lr' is no axis of this matrix (axes: none)"]),
        ("name: a", ["foo"], ["'foo'", "key=value"]),
        ("name: ../a", [], ["'../a'", "lower-case"]),
        ("name: a..b", [], ["'a..b'"]),
        ("train: {}", [], ["m.yaml: name is missing"]),
        ("- a", [], ["mapping"]),
        ("name: a\nname: b", [], ["not YAML"]),
        ("name: a\nx: !!python/object/apply:os.system [ls]", [], ["not YAML of plain values", "constructor"]),
        ("name: a\ndata: {path: '${oc.env:HOME}'}", [], ["HOME", "DITBENCH_"]),
        ("name: a\ndata: {path: '${oc.create:x}'}", [], ["only oc.env"]),
        ("name: a\ndata: {source: huggingface}", [], ["data.path is needed"]),
    ],
)
def test_refused(tmp_path: Path, text: str, overrides: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), overrides)
    for part in said:
        assert part in str(caught.value)


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text("name: a")
    with pytest.raises(ConfigError, match="did you mean .*quickstart.yaml"):
        load(tmp_path / "quickstrt.yaml")


def test_a_folder_names_its_matrix_files_and_no_hidden_file_is_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run configs` was answered by ".pre-commit-config.yaml"."""
    monkeypatch.chdir(tmp_path)
    Path(".pre-commit-config.yaml").write_text("name: a")
    Path("configs").mkdir()
    with pytest.raises(ConfigError, match="configs: a folder, not a matrix file, and there is no YAML file in it$"):
        load("configs")
    for name in "abcdefg":
        Path(f"configs/{name}.yaml").write_text("name: a")
    with pytest.raises(ConfigError, match="its files: configs/a.yaml, .*, configs/e.yaml and 2 more$"):
        load("configs")
    with pytest.raises(ConfigError, match="pre-commit-configs.yaml: no such file$"):
        load("pre-commit-configs.yaml")


def test_a_huge_file_and_a_binary_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text("#" * 1_100_000)
    with pytest.raises(ConfigError, match="1,100,000 bytes"):
        load(tmp_path / "big.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a text file"):
        load(tmp_path / "binary.yaml")


def test_environment_only_where_it_may_be_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DITBENCH_CIFAR10", "somewhere")
    text = "name: a\ndata: {source: huggingface, path: '${oc.env:DITBENCH_CIFAR10,null}'}"
    assert load(written(tmp_path, text)).data.path == "somewhere"


CONFIGS = Path(__file__).parent.parent / "configs"
MATRICES = sorted(
    {*CONFIGS.rglob("*.yaml")} - {*CONFIGS.glob("base/*"), *CONFIGS.glob("rules/*"), *CONFIGS.glob("tuned/*")}
)


@pytest.mark.parametrize("path", MATRICES, ids=lambda p: p.name)
def test_every_shipped_config_loads_and_names_its_own_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those, too, whose data are not here, which nothing plans: a baseline that is no row was found by nobody."""
    monkeypatch.setenv("DITBENCH_CIFAR10", "somewhere")
    matrix = load(path)
    assert matrix.variants
    check_names(matrix, row_names(matrix))


def test_a_low_stream_in_high_arithmetic_is_refused() -> None:
    low = Train(device="cpu", residual="bf16")
    with pytest.raises(ConfigError, match="train.residual bf16: the arithmetic is 32; choose train.precision=bf16"):
        on_device(low)
    assert on_device(replace(low, precision="bf16")).residual == "bf16"


# --- keys carry their meaning -----------------------------------------------------------------------------------------

README = CONFIGS / "README.md"


def test_every_key_has_a_type_and_a_meaning() -> None:
    for key in keys():
        assert key.meaning.endswith(".") and key.type != "a value", key.name
    assert {key.name for key in keys()} >= {"name", "train.lr", "evaluate.sweep", "run.jobs", "budget.match"}
    types = {key.name: key.type for key in keys()}
    assert types["train.betas"] == "a list of two numbers in [0, 1)"
    assert types["backbone.width"] == "a whole number above 0 or null"


def test_the_table_of_keys_is_the_committed_one() -> None:
    """DITBENCH_UPDATE=1 writes it again."""
    begin, end = "<!-- keys -->\n", "<!-- /keys -->"
    head, _, rest = README.read_text().partition(begin)
    table, _, tail = rest.partition(end)
    current = "\n" + markdown() + "\n"
    if os.environ.get("DITBENCH_UPDATE"):
        README.write_text(head + begin + current + end + tail)
        table = current
    assert table == current


def test_each_key_is_one_row_of_its_table_and_each_matrix_is_listed() -> None:
    """A meaning of two lines broke the table, and matrices were missing from the list."""
    rows = [line for line in markdown().splitlines() if line.startswith("| `")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(key.name for key in keys())
    assert all(row.endswith(" |") for row in rows)
    listed = README.read_text()
    assert [path.name for path in CONFIGS.glob("*.yaml") if f"`{path.name}`" not in listed] == []


def test_config_prints_keys(tmp_path: Path) -> None:
    out = ditbench("config", "train", cwd=tmp_path, code=0).stdout
    assert "train.lr" in out and "Learning rate" in out and "sample.steps" not in out
    rows = json.loads(ditbench("config", "--json", cwd=tmp_path, code=0).stdout)
    assert rows[0] == {"key": "name", "type": "text", "required": True, "meaning": rows[0]["meaning"]}
    assert "did you mean 'train'" in ditbench("config", "trian", cwd=tmp_path, code=2).stderr
