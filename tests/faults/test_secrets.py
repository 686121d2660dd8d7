"""No secret reaches a resolved config: it would be in results, reports and MLflow."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from kit import GuardedLaunch
from omegaconf import OmegaConf
from tiny import matrix_file, planned

from bench.config.load import load
from bench.config.schema import ConfigError
from bench.config.secrets import SECRET_NAME, found

SECRET = "hunter2-do-not-log"
PLAIN = "name: a\nvariants: [adaln]\n"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET_TOKEN", "DITBENCH_HUB_TOKEN", "DITBENCH_API_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("DITBENCH_DATA", "/data/images")


def refused(folder: Path, text: str, *overrides: str) -> str:
    (folder / "m.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(folder / "m.yaml", list(overrides))
    assert SECRET not in str(caught.value)
    return str(caught.value)


ATTEMPTS = [
    r'"\x24{oc.env:SECRET_TOKEN}"',
    '"${oc.env:SECRET_TOKEN}"',
    '"${ oc.env : SECRET_TOKEN }"',
    '"${${data.subset}.env:SECRET_TOKEN}"',
    '"${oc.env:${data.revision}}"',
    '"${oc.env:DITBENCH_NONE,${oc.env:SECRET_TOKEN}}"',
    "\"${oc.decode:'${oc.env:SECRET_TOKEN}'}\"",
    '"${oc.create:${oc.env:SECRET_TOKEN}}"',
    '"${oc.env:MLFLOW_TRACKING_PASSWORD}"',
    '"${oc.env:DITBENCH_HUB_TOKEN}"',
    '"${oc.env:DITBENCH_API_KEY}"',
    '"${oc.env:HOME}"',
    '"${mine:SECRET_TOKEN}"',
    '"${oc.env:ditbench_data}"',
]


@pytest.mark.parametrize("value", ATTEMPTS)
def test_a_variable_that_is_not_allowed_is_not_loaded(tmp_path: Path, value: str) -> None:
    r"""The guard read raw text: "\x24{oc.env:...}" and ${${data.subset}.env:...} passed it."""
    OmegaConf.register_resolver("mine", lambda name: os.environ[name], replace=True)
    data = "data: {subset: oc, revision: SECRET_TOKEN}\n"
    said = refused(tmp_path, f"{PLAIN}{data}prompt: {{template: {value}}}")
    assert "prompt.template" in said and ("would be logged" in said or "only oc.env" in said)
    refused(tmp_path, f"{PLAIN}{data}", f"prompt.template={value}")
    refused(tmp_path, f"{PLAIN}{data}axes: {{data.heldout_split: [{value}]}}")
    refused(tmp_path, f"name: a\n{data}variants: [{{scheme: adaln, gate: {value}}}]")
    refused(tmp_path, f"{PLAIN}{data}claim: {{says: {value}, tests: []}}")
    refused(tmp_path, f"{PLAIN}{data}plugins: [{value}]")
    (tmp_path / "low.yaml").write_text(f"{data}prompt: {{template: {value}}}")
    refused(tmp_path, f"base: low.yaml\n{PLAIN}")
    refused(tmp_path, f"base: {value}\n{PLAIN}")


def test_a_variable_whose_value_names_another_loads_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DITBENCH_X", "${oc.env:SECRET_TOKEN}")
    (tmp_path / "m.yaml").write_text(f"{PLAIN}prompt: {{template: '${{oc.env:DITBENCH_X}}'}}")
    with suppress(ConfigError):
        assert SECRET not in repr(load(tmp_path / "m.yaml"))


def test_resolvers_of_others_are_there_again_afterwards(tmp_path: Path) -> None:
    OmegaConf.register_resolver("mine", lambda name: name, replace=True)
    (tmp_path / "m.yaml").write_text(f"{PLAIN}data: {{subset: '${{oc.env:DITBENCH_DATA}}'}}")
    assert load(tmp_path / "m.yaml").data.subset == "/data/images"
    assert OmegaConf.has_resolver("mine") and OmegaConf.create({"a": "${oc.env:HOME,x}"}).a


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.path", "https://user:hunter2-do-not-log@host/images"),
        ("data.path", "https://hunter2-do-not-log@host/images"),
        ("data.path", "s3://key:hunter2-do-not-log@bucket"),
        ("data.path", "https://host/images.tar?X-Amz-Signature=hunter2-do-not-log"),
        ("data.path", "https://host/images.tar?token=hunter2-do-not-log"),
        ("data.revision", "hf_hunter2donotlogabcdefghijklmnop"),
        ("prompt.encoder", "https://oauth2:hunter2-do-not-log@host/t5"),
        ("evaluate.extractor", "ghp_hunter2donotlogabcdefghijklmnop"),
        ("axes", "{data.path: ['https://user:hunter2-do-not-log@host/x']}"),
        ("variants", "[{scheme: adaln, gate: 'https://user:hunter2-do-not-log@host/x'}]"),
    ],
)
def test_a_password_or_token_in_a_value_is_refused_by_its_key(tmp_path: Path, key: str, value: str) -> None:
    said = refused(tmp_path, PLAIN, f"{key}={value}")
    assert key in said and "hunter2" not in said


@pytest.mark.parametrize(
    "text", ["hf://datasets/x@main/train", "a photo of a {} @ home", "org/name", "/home/me@work/data", "sk-1", "key=5"]
)
def test_what_is_no_secret_is_kept(text: str) -> None:
    assert found(text) is None


@pytest.mark.parametrize(
    "name", ["DITBENCH_CIFAR10", "DITBENCH_KEYBOARD", "DITBENCH_ROOT", "DITBENCH_INCEPTION_WEIGHTS"]
)
def test_a_name_that_says_nothing_of_secrets_is_read(name: str) -> None:
    assert not SECRET_NAME.search(name)


def test_nothing_of_a_refused_matrix_is_written(tmp_path: Path) -> None:
    """A secret planted in the matrix; afterwards the whole results directory is searched."""
    for changes in (
        {"prompt__template": "${oc.env:SECRET_TOKEN}"},
        {"prompt__template": f"https://user:{SECRET}@host/"},
        {"data__subset": "oc", "prompt__template": "${${data.subset}.env:SECRET_TOKEN}"},
    ):
        with pytest.raises(ConfigError):
            planned(tmp_path, **changes)
    written = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


@pytest.mark.faults
def test_nothing_of_a_run_holds_a_secret_of_its_environment(tmp_path: Path) -> None:
    """A whole run with MLflow and report, its environment full of secrets; then every file below is searched."""
    matrix_file(tmp_path, train__steps=2, train__warmup=1, data__subset="${oc.env:DITBENCH_DATA}")
    names = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DITBENCH_PASSWORD", "GITHUB_TOKEN", "DATABASE_URL")
    said = GuardedLaunch("run", "tiny.yaml", cwd=tmp_path, **dict.fromkeys(names, SECRET)).ended(0)
    assert SECRET not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in files)
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
