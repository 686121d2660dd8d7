"""Values as users write them: typed by their key wherever they come from, kept as written, or refused by name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import Option, as_number, as_word
from architectures.options import of
from bench.config.claim import ClaimError, check
from bench.config.load import load, to_yaml
from bench.config.matrix import expand
from bench.config.schema import ConfigError
from bench.config.written import NotPlain, read_yaml

PLAIN = "name: a\nvariants: [adaln]\n"


def matrix(folder: Path, text: str = PLAIN, *overrides: str) -> Any:
    path = folder / "m.yaml"
    path.write_text(text)
    return load(path, list(overrides))


def at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


# --- one typed check for every way in ---------------------------------------------------------------------------------

WRONG = {
    "train.precision": ["fp16", '"16"', "true", "[bf16]"],
    "train.compile": ["yes", "maybe", "1"],
    "train.steps": ["0", "-1", "2.5", "true", "abc", "null", "010", "99999999999", "[1]", "{a: 1}", ".inf"],
    "train.batch": ["8.5", '"many"', ".nan"],
    "train.lr": [".inf", ".nan", "nan", "0", "-1", "true", "1e400", "[0.1]", '"fast"', "null"],
    "train.drop": ["1.5", "-0.1", "1", "true"],
    "train.ema": ["1", "1.5"],
    "train.betas": ["[0.9, .nan]", "[0.9]", "[0.9, 1.0]", "[0.9, true]", "0.9", '"0.9, 0.99"'],
    "train.device": ["gpu", "cuda:0", "true"],
    "train.exact": ["3", "1", "null"],
    "sample.sampler": ["plms", "1", "[heun]"],
    "sample.guidance": [".nan", "-.inf", "true", "strong"],
    "evaluate.sweep": ["[1, .inf]", "[1, true]", "3"],
    "backbone.qk_norm": ["1", "2", "maybe", "[true]"],
    "backbone.width": ["64.5", "true", "0"],
    "backbone.depth": ["100000", "0"],  # would be planned for hours
    "data.seed": ["-1", "1e30", "0.5"],
}
WAYS = ("file", "base", "axis", "command line")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_value_is_refused_by_its_key_whatever_its_way_in(tmp_path: Path, key: str, way: str) -> None:
    """`axes: {train.precision: [fp16]}` ran fp32 under that name: only the file's own keys were typed."""
    group, _, name = key.partition(".")
    for value in WRONG[key]:
        entry = f"{group}: {{{name}: {value}}}\n"
        (tmp_path / "low.yaml").write_text(entry)
        text = {"file": PLAIN + entry, "base": f"base: low.yaml\n{PLAIN}"}.get(way, PLAIN)
        text += f"axes: {{{key}: [{value}]}}\n" if way == "axis" else ""
        with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
            expand(matrix(tmp_path, text, *([f"{key}={value}"] if way == "command line" else [])))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.workers", "-1"),
        ("run.jobs", "0"),
        ("run.timeout", "0"),
        ("run.timeout", ".inf"),
        ("budget.match", "flops"),
        ("budget.to", "[a]"),
        ("seeds", "[-1]"),
        ("seeds", "[1.5]"),
        ("seeds", "[true]"),
        ("seeds", "[99999999999]"),
        ("seeds", "[null]"),
        ("seeds", "3"),
        ("plugins", "mine.py"),
        ("choose", "[train.lr]"),
        ("baseline", "true"),
        ("variants", "adaln"),
    ],
)
def test_keys_that_are_no_axis_are_typed_too(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        matrix(tmp_path, PLAIN, f"{key}={value}")


@pytest.mark.parametrize(
    ("key", "values", "typed"),
    [
        ("train.compile", "[on, off]", ["on", "off"]),
        ("train.compile", "[true, false]", ["on", "off"]),
        ("train.precision", "[32, bf16]", ["32", "bf16"]),
        ("backbone.qk_norm", '["no", yes]', [False, True]),
        ("train.lr", '[1, "1e-3"]', [1.0, 0.001]),
        ("train.steps", "[2.0, 1_000, 1e4]", [2, 1000, 10000]),
        ("backbone.width", "[null, 64]", [None, 64]),
        ("data.subset", "[010, 10, 1e3, 12:30:45, no, none, 2026-01-01, 1.50]", None),
        ("data.label_column", "[007, off]", None),
    ],
)
def test_values_of_an_axis_are_what_their_key_means(tmp_path: Path, key: str, values: str, typed: Any) -> None:
    """`["no"]` switched qk_norm on, and on and off compiled neither."""
    made = expand(matrix(tmp_path, f"{PLAIN}axes: {{{key}: {values}}}"))
    expected = typed or [one.strip() for one in values.strip("[]").split(",")]
    found = [at(cell.config, key) for cell in made]
    assert found == expected == [cell.axes[key] for cell in made]
    assert [type(one) for one in found] == [type(one) for one in expected]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("train.lr", "[1, 1.0]"),
        ("train.lr", "[1e-3, 0.001]"),
        ("train.compile", "[on, true]"),
        ("backbone.qk_norm", "[yes, true]"),
        ("train.precision", '[32, "32"]'),
        ("train.betas", "[[0.9, 0.99], [0.90, 0.990]]"),
    ],
)
def test_two_values_that_are_one_are_refused(tmp_path: Path, key: str, values: str) -> None:
    """They would be one cell, counted as two rows."""
    with pytest.raises(ConfigError, match=rf"axis '{key}'.*are the same value"):
        expand(matrix(tmp_path, f"{PLAIN}axes: {{{key}: {values}}}"))


@pytest.mark.parametrize("axes", ["{train.lr: 0.1}", "{train: {lr: [0.1]}}", "{train.lr: {a: 1}}"])
def test_an_axis_that_is_no_list_is_refused_as_one(tmp_path: Path, axes: str) -> None:
    with pytest.raises(ConfigError, match=r"axes\.train\S* must be a list of values"):
        matrix(tmp_path, f"{PLAIN}axes: {axes}")


# --- text that YAML takes for something else ------------------------------------------------------------------------

SPELT = ["007", "010", "0o7", "0x1F", "1e3", "123e4567", "1.10", "0.50", "1_000", "12:30:45", "2026-01-01", "no", "off"]
SPELT += [
    "on",
    "yes",
    "y",
    "n",
    "none",
    "nan",
    ".inf",
    "-0",
    "+1",
    "=",
    "True",
    "00",
    "1e400",
    "12345678901234567890123",
]


@pytest.mark.parametrize("text", SPELT)
def test_text_stays_as_it_is_written(tmp_path: Path, text: str) -> None:
    """`data.subset: 010` asked for subset 8, revision 123e4567 for `inf`, and `off` for False."""
    assert matrix(tmp_path, f"{PLAIN}data: {{subset: {text}}}").data.subset == text
    assert matrix(tmp_path, PLAIN, f"data.subset={text}", f"baseline={text}").baseline == text


@pytest.mark.parametrize("name", ["007", "1e3", "12-30", "no", "1.10"])
def test_so_does_a_name(tmp_path: Path, name: str) -> None:
    assert matrix(tmp_path, PLAIN, f"name={name}").name == name
    (cell,) = expand(matrix(tmp_path, f"name: a\nvariants: [{{scheme: adaln, name: {name}}}]"))
    assert cell.variant == name


@pytest.mark.parametrize("text", ["true", "false"])
def test_true_where_text_is_meant_is_refused_with_the_way_out(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.subset must be text or null.*write it in quotes"):
        matrix(tmp_path, PLAIN, f"data.subset={text}")
    assert matrix(tmp_path, PLAIN, f"data.subset='{text}'").data.subset == text


@pytest.mark.parametrize("name", ["[x]", "null", "true"])
def test_a_variant_is_named_by_text(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name must be text"):
        expand(matrix(tmp_path, f"name: a\nvariants: [{{scheme: adaln, name: {name}}}]"))


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)


@settings(max_examples=40, deadline=None)
@given(st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)))
def test_what_yaml_writes_is_read_back(value: Any) -> None:
    """Any tree of plain values; a float may come back as the text of it, which a number's key reads."""

    def same(ours: Any, theirs: Any) -> bool:
        if isinstance(theirs, dict):
            return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in theirs)
        if isinstance(theirs, list):
            return len(ours) == len(theirs) and all(map(same, ours, theirs))
        if isinstance(theirs, int | float) and not isinstance(theirs, bool):
            return as_number(ours) == theirs
        return bool(ours == theirs) and type(ours) is type(theirs)

    if "???" not in repr(value):
        assert same(read_yaml(to_yaml({"key": value}))["key"], value)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abn0:[]{}\"'#&*!|>%@`,-? \t\n~é\x00", max_size=40))
def test_any_text_is_read_or_refused_in_a_sentence(text: str) -> None:
    with suppress(NotPlain):
        read_yaml(text)


# --- options of schemes -----------------------------------------------------------------------------------------------


class Scheme:
    """Options of each declared type."""

    def __init__(
        self,
        *,
        tokens: int = 4,
        rate: float = 0.1,
        tied: bool = False,
        label: str = "x",
        rank: int | None = None,
        sizes: tuple[int, ...] = (1, 2),
        kind: Literal["on", "off"] = "on",
        level: Literal[1, 2] = 1,
        gate: Annotated[str, Option("how", ("zero", "gaussian(1e-3)"))] = "zero",
    ) -> None: ...


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        ("tokens", {2: 2, "7": 7, 3.0: 3}, [2.5, True, "x", None, [1], float("nan"), "007"]),
        ("rate", {2: 2.0, "1e-3": 0.001}, [True, "x", None, float("inf"), ".nan"]),
        ("tied", {"no": False, "on": True, "False": False}, [1, 0, "maybe", None, 2.5]),
        ("label", {"b": "b", 1: "1"}, [True, None, ["a"]]),
        ("rank", {None: None, 3: 3}, [2.5, "x", False]),
        ("sizes", {(3,): (3,)}, [3, "12", [2.5], [True]]),
        ("kind", {True: "on", "off": "off"}, ["yes", None, 1]),
        ("level", {2: 2, "1": 1}, [3, True, "x"]),
        ("gate", {"gaussian(0.1)": "gaussian(0.1)"}, ["gaussian(-1)", "one", True, None, ["zero"]]),
    ],
)
def test_an_option_is_of_its_declared_type(option: str, good: dict[Any, Any], bad: list[Any]) -> None:
    """A whole number given 2.5 or true, or a choice that is none, is refused by the option's name."""
    declared = of(Scheme)[option]
    for value, typed in good.items():
        read = declared.check(option, value)
        assert (read, type(read)) == (typed, type(typed))
    for value in bad:
        with pytest.raises(ValueError, match=option):
            declared.check(option, value)
    assert declared.allowed


def test_words_are_mapped_only_to_a_choice_of_that_spelling() -> None:
    assert as_word(True, ("auto", "on", "off")) == "on" and as_word(False, ("no", "layer")) == "no"
    assert as_word(True, ("auto", "32")) is True and as_word("yes", ("on", "off")) == "yes"
    assert as_word("True", ("on", "off")) == "on" and as_word(32, ("32",)) == "32"


@pytest.mark.parametrize(
    ("system", "sizes", "said"),
    [
        ("dit", {"depth": 2.5}, "dit: depth 2.5: must be a whole number"),
        ("dit", {"width": True}, "width True"),
        ("sd3", {"qk_norm": "maybe"}, "qk_norm 'maybe': must be true or false"),
        ("flux", {"axes": [16, 5.5]}, "axes"),
        ("flux", {"theta": ".nan"}, "theta"),
    ],
)
def test_sizes_of_a_published_system_are_typed(system: str, sizes: dict[str, Any], said: str) -> None:
    """`sample-published --size qk_norm=no` would switch it on."""
    import architectures

    with pytest.raises(ValueError, match=said):
        architectures.published(system, **sizes)


def test_guidance_of_a_sample_is_a_number() -> None:
    from bench.views.sample.cells import SampleSettings

    with pytest.raises(ValueError, match="guidance must be a finite number"):
        SampleSettings(guidance=float("nan"))


# --- claims -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"says": "x", "tests": {"a": 1}}, "a list"),
        ({"says": 5, "tests": [1]}, "a sentence"),
        ({"says": "x", "test": []}, "did you mean 'tests'"),
        ({"says": "x", "tests": [{"metric": "fid", "variant": "a", "above": "high"}]}, "above must be a number"),
        ({"says": "x", "tests": [{"metric": "fid", "variant": "a", "above": ".nan"}]}, "above must be a number"),
        ({"says": "x", "tests": [{"metric": "fid", "variant": "a", "above": True}]}, "above must be a number"),
        ({"says": "x", "tests": [{"metric": "fid", "variant": ["a"], "above": 1}]}, "variant must be text"),
        ({"says": "x", "tests": [{"metric": "fid", "variant": "a", "no_worse_than": "a", "within": 5}]}, "a margin"),
    ],
)
def test_a_claim_is_typed(claim: dict[str, Any], said: str) -> None:
    with pytest.raises(ClaimError, match=said):
        check(claim, ["a"], [0, 1])
