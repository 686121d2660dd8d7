"""Matrix files that cannot be read: file, line, column and the whole reason, in one sentence."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.config.claim import ClaimError
from bench.config.keys import keys
from bench.config.load import load
from bench.config.matrix import expand
from bench.config.schema import ConfigError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\ntrain:\n  steps: 5\n  steps: 6\n", "line 4, column 3: the key 'steps' is there twice"),
        ("name: a\nname: b\n", "line 2, column 1: the key 'name' is there twice"),
        ("name: a\ntrain:\n\tsteps: 5\n", "line 3, column 1.*indent with spaces, not with a tab"),
        ("name: a\n  train: 5\n", "line 2, column 8: mapping values are not allowed here"),
        ("name: [a\nseeds: [1]\n", r"line 2, column 6.*expected ',' or '\]'"),
        ("name: @a\n", "line 1, column 7.*'@' that cannot start any token"),
        ("name: 'a\n", "line 2, column 1.*unexpected end"),
        ("name: *a\n", "line 1, column 7: found undefined alias"),
        ("name: a\n--- \nname: b\n", "line 2, column 1.*another document"),
        ("name: a\x01b\n", "may not be in YAML"),
        ("name: !!timestamp 2026-01-01\n", "is a date; write it in quotes"),
        ("name: !!python/object/apply:os.system [ls]\n", "line 1, column 7: could not determine a constructor"),
        ("name: a\nx: &x [*x]\n", "levels"),
        ("? [a]\n: 1\n", "line 1, column 3: a key must be text"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"{b}: &{b} [{','.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcde", "bcdef", strict=True)),
            "more than 100,000 values",
        ),
        ("name: ???\n", "no value"),
        ("", "a matrix is a mapping"),
    ],
)
def test_what_is_no_yaml_of_plain_values_names_line_column_and_reason(tmp_path: Path, text: str, said: str) -> None:
    """The line and the reason were cut off: of a duplicate key only `while constructing a mapping` was left."""
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"m\.yaml: .*{said}"):
        load(tmp_path / "m.yaml")


@pytest.mark.parametrize(
    "override",
    [
        "train.lr=@x",
        "name=a: b: c",
        "[=1",
        "train.steps=${",
        "prompt.template={} x",
        "=1",
        "steps",
        "train..steps=5",
        "seeds[0]=5",
    ],
)
def test_an_override_that_cannot_be_read_is_named(tmp_path: Path, override: str) -> None:
    (tmp_path / "m.yaml").write_text("name: a\nvariants: [adaln]\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "m.yaml", [override])
    assert override in str(caught.value) or override.partition("=")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("${train.foo}", "train.steps: Interpolation key 'train.foo' not found"),
        ("${train.steps}", "train.steps: Recursive interpolation"),
        ("${oc.env:DITBENCH_NOT_SET}", "train.steps: the variable DITBENCH_NOT_SET is not set"),
    ],
)
def test_an_interpolation_that_leads_nowhere_names_its_key(tmp_path: Path, value: str, said: str) -> None:
    (tmp_path / "m.yaml").write_text(f"name: a\ntrain: {{steps: '{value}'}}\n")
    with pytest.raises(ConfigError, match=said):
        load(tmp_path / "m.yaml")


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["", "adaln", "007", "1e3", "on", "${train.steps}", "${oc.env:HOME}", "${", "../x", "a" * 300, "train.lr"]
    ),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2)
)
NAMES = [key.name for key in keys()] + ["base", "plugins", "axes", "options.gate", "zzz"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3),
    axes=st.dictionaries(st.sampled_from(NAMES), st.lists(VALUES, max_size=2), max_size=1),
    overrides=st.lists(st.tuples(st.sampled_from(NAMES), st.text(max_size=8)), max_size=2),
)
def test_any_tree_is_a_matrix_or_a_sentence(tmp_path: Path, changes: Any, axes: Any, overrides: Any) -> None:
    """Whatever is in a file or typed: cells, or an error of ours; a name too long for a file ended in a traceback."""
    tree: dict[str, Any] = {"name": "a", "variants": ["adaln"], "axes": axes}
    for key, value in changes.items():
        group, _, name = key.partition(".")
        if name and isinstance(tree.setdefault(group, {}), dict):
            tree[group][name] = value
        else:
            tree[group] = value
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(tree))
    with suppress(ConfigError, ClaimError):
        typed = [f"{key}={text}" for key, text in overrides]
        assert expand(load(tmp_path / "m.yaml", typed, say=lambda text: None))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (r'name: "\ud83d"', "half a character"),
        ("base: " + "a" * 300, "no such file"),
        ("plugins: [" + "a" * 300 + "]", "name is missing"),
    ],
)
def test_halves_of_characters_and_names_too_long_for_a_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load(tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_text(r"name: a" + "\n" + r'prompt: {template: "\ud83d\ude00 {}"}')
    assert load(tmp_path / "m.yaml").prompt.template == "\U0001f600 {}"


def test_a_folder_and_an_unreadable_file_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder, not a matrix file"):
        load(tmp_path)
    (tmp_path / "m.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(ConfigError, match="not a text file in UTF-8"):
        load(tmp_path / "m.yaml")


def test_plugins_are_relative_to_the_file_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`plugins:` was seen from the working directory while `base:` was seen from the file."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    for file in ("configs/beside.py", "here.py", "configs/both.py", "both.py"):
        (tmp_path / file).write_text("")
    said: list[str] = []

    def read(plugins: str, *overrides: str) -> list[str]:
        (tmp_path / "configs/m.yaml").write_text(f"name: a\nplugins: {plugins}\n")
        return load("configs/m.yaml", list(overrides), say=said.append).plugins

    assert read("[beside.py]") == ["configs/beside.py"] and not said
    assert read("[here.py]") == ["here.py"] and "not beside this file" in said.pop()
    assert read("[both.py]") == ["configs/both.py"] and "the one beside the file" in said.pop()
    assert read("[beside.py]", "plugins=[here.py]") == ["here.py"] and not said
