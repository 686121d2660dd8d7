"""A matrix over tasks that cannot be as it is written: one sentence, exit code 2, and nothing started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import PLUGIN, ditbench, matrix_file, planned

import architectures
import architectures.registry
from bench.cli import scaffold
from bench.config import load as config
from bench.data.tasks import registry
from bench.run.plan import plan
from bench.store.folders import Store

DATA: dict[str, Any] = {"source": "task", "task": "scene", "level": "easy", "heldout_count": 32}
SMALL: dict[str, Any] = {
    "variants": ["adaln-zero", "cross-attention"],
    "seeds": [0, 1],
    "train__steps": 2,
    "train__warmup": 1,
    "train__checkpoint_every": 1,
    "evaluate__extractor": "none",
    "evaluate__points": 16,
    "evaluate__samples": 16,
    "evaluate__reference": 16,
    "evaluate__heldout": 16,
}

QUICKSTART = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


@pytest.fixture(autouse=True)
def _none_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_added", {})
    monkeypatch.setattr(architectures.registry, "_registry", type(architectures.registry._registry)())


def claim(metric: str, variant: str = "adaln-zero", rival: str = "cross-attention", **more: Any) -> dict[str, Any]:
    return {"says": "x", "tests": [{"metric": metric, "variant": variant, "beats": rival}], **more}


LONGER = ["adaln-zero", {"scheme": "cross-attention", "train.steps": 4}]
TWO = {"data.task": ["scene", "labels"]}
OF_LABELS = "adaln-zero task=labels", "cross-attention task=labels"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": {"task": "scenee"}}, "unknown task 'scenee' (tasks: scene, bind,"),
        ({"data": {"task": "scenee"}}, "did you mean 'scene'?"),
        ({"axes": {"data.task": ["scene", "bnd"]}}, "unknown task 'bnd'"),
        ({"data": {"level": "midium"}}, "data.level must be one of easy, medium, hard, got 'midium'"),
        ({"axes": {"data.level": ["easy", "hrd"]}}, "data.level must be one of easy, medium, hard, got 'hrd'"),
        ({"data": {"colurs": 3}}, "unknown knob 'colurs' (knobs: side, colours, glyphs); did you mean 'colours'?"),
        ({"data": {"colours": 9}}, "data.task 'scene': colours 9: must be 2 to 6"),
        ({"data": {"colours": "many"}}, "colours 'many': must be a whole number, such as 6"),
        ({"axes": {"data.task": ["scene", "tone"]}, "data": {"glyphs": 3}}, "task 'tone': unknown knob 'glyphs'"),
        ({"train": {"target": "dat"}}, "train.target must be one of velocity, data, got 'dat'"),
        ({"prompt": {"arm": "blnd"}}, "prompt.arm must be one of none, blind, oracle, got 'blnd'"),
        ({"prompt": {"kind": "slot"}}, "prompt.kind must be one of auto, labels, captions, features, slots"),
        (
            {"data": {"task": "labels", "labels": 200000}},
            "800,000 images need 1.3 GiB and the exact denoiser may take 1",
        ),
        ({"claim": claim("glyp")}, "unknown metric 'glyp'; did you mean 'glyph'?"),
        ({"claim": claim("cells")}, "unknown metric 'cells' (attributes of its tasks: colour, glyph, pattern, place, "),
        (
            {"axes": TWO, "claim": claim("glyph", *OF_LABELS)},
            "task 'labels' of adaln-zero task=labels has no attribute",
        ),
        ({"claim": claim("score", "adalnzero")}, "unknown variant 'adalnzero'; did you mean 'adaln-zero'?"),
        ({"tuned": "none.yaml"}, "none.yaml cannot be read"),
        ({"tuned": "tuned.yaml"}, "train.lr is written here and tuned: gives each variant its own; leave out one"),
        ({"variants": LONGER, "claim": claim("score")}, "different budgets, images of training: adaln-zero 16 and"),
        ({"data": {"words": True}, "prompt": {"kind": "slots"}}, "data.words=true gives prompts as text"),
    ],
)
def test_a_matrix_that_cannot_be_is_one_sentence(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "tuned.yaml").write_text("adaln-zero: {train.lr: 0.002}\n")
    changes = {"data": DATA | changes.pop("data", {}), **SMALL, **_nested(changes)}
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        plan(config.load(matrix_file(tmp_path, **changes)), Store(tmp_path / "runs"), command="", progress=print)
    assert len(str(error.value).splitlines()) == 1
    assert not any((tmp_path / "runs" / name).exists() for name in ("cells", "matrices"))
    if "words" not in changes["data"]:
        assert not (tmp_path / "runs/cache/data").exists(), "not even data is prepared"


def _nested(changes: dict[str, Any]) -> dict[str, Any]:
    """`{train: {target: x}}` as `train__target`, over what is there."""
    flat: dict[str, Any] = {}
    for key, value in changes.items():
        within = isinstance(value, dict) and key in ("train", "prompt")
        flat |= {f"{key}__{name}": one for name, one in value.items()} if within else {key: value}
    return flat


@pytest.mark.parametrize(
    ("variants", "sentence"),
    [
        ("[adaln-zer]", "variant 'adaln-zer': unknown scheme 'adaln-zer' .*did you mean 'adaln-zero'"),
        ("[adaln-zero, flx3]", "unknown scheme 'flx3' .*did you mean 'flux3'"),
        ("[{scheme: adaln-zero, gate: zer}]", "variant 'adaln-zero': gate 'zer': choose .*did you mean 'zero'"),
        ("[{scheme: adaln-zero, gat: zero}]", "unknown option 'gat' .*did you mean 'gate'"),
        ("[adaln-zero, aded]", "unknown scheme 'aded' .*did you mean 'added'"),
    ],
)
def test_a_misspelt_scheme_or_option_is_said_before_all_that_it_makes_wrong(
    variants: str, sentence: str, tmp_path: Path
) -> None:
    """Its baseline was, and "did you mean" named the typo; or its rate, or the variants of the claim."""
    (tmp_path / "added.py").write_text(PLUGIN)
    own = [f"plugins=[{tmp_path / 'added.py'}]"] if "aded" in variants else []
    for more in (["tuned=null", "claim=null"], [], ["baseline=adaln-zero"]):
        matrix = config.load(QUICKSTART, [f"variants={variants}", "evaluate.points=16", *own, *more])
        with pytest.raises(config.ConfigError, match=sentence):
            plan(matrix, Store(tmp_path / "runs"), command="", progress=lambda *_: None)


@pytest.mark.parametrize("backbone", [{"name": "DiT-XS/4"}, {"name": "DiT-XS", "patch": 4}])
def test_another_patch_than_the_task_s_is_a_sentence(tmp_path: Path, backbone: dict[str, Any]) -> None:
    given = {**SMALL, "variants": ["adaln-zero"], "data": DATA | {"task": "grain"}, "backbone": backbone}
    with pytest.raises(
        config.ConfigError, match=r"adaln-zero seed=0: backbone.patch 4: task grain has tokens of 2 pixels"
    ):
        planned(tmp_path, **given)


def test_tasks_of_one_matrix_have_tokens_of_their_own_size(tmp_path: Path) -> None:
    axes = {"data.task": ["scene", "grain", "count"]}
    small = {**SMALL, "variants": ["adaln-zero"], "seeds": [0], "backbone__name": "DiT-XS"}
    made, _ = planned(tmp_path, **small, data=DATA, axes=axes)
    assert [cell.spec.config.backbone.patch for cell in made.cells] == [4, 2, 1]


def test_the_command_ends_with_the_code_of_a_user_error(tmp_path: Path) -> None:
    """And of a claim that was edited after its first cell, with what was trained as it was."""
    small = {**SMALL, "variants": ["adaln-zero"], "data": DATA | {"task": "clock"}, "backbone__name": "DiT-XS"}
    for changes, sentence in (
        ({"data": DATA | {"task": "clok"}}, "did you mean 'clock'?"),
        ({"claim": claim("colour", "adaln-zero", "adaln-zero")}, "has no attribute 'colour' (attributes: amplitude)"),
    ):
        if "claim" in changes:
            changes["claim"]["tests"] = [{"metric": "colour", "variant": "adaln-zero", "above": 0.1}]
        matrix_file(tmp_path, **small | changes)
        for more in ((), ("--dry-run",)):
            said = ditbench("run", "tiny.yaml", *more, cwd=tmp_path, code=2)
            assert sentence in said.stderr and len(said.stderr.strip().splitlines()) == 1, said.stderr
            assert not (tmp_path / "runs/cells").exists()

    def above(value: float) -> dict[str, Any]:
        return {"says": "x", "tests": [{"metric": "score", "variant": "adaln-zero", "above": value}]}

    made, store = planned(tmp_path, **small, claim=above(0.5))
    store.cell(made.cells[0].row.cell).result_file.write_text("{}")
    matrix_file(tmp_path, **small, claim=above(0.2))
    said = ditbench("run", "tiny.yaml", cwd=tmp_path, code=2)
    assert "another claim than before, and 1 of its cells" in said.stderr, said.stderr
    assert [path.parent.name for path in store.root.glob("cells/*/result.json")] == [made.cells[0].row.cell]


# --- of a stranger's task ---------------------------------------------------------------------------------------------


def write(folder: Path, more: str = "") -> None:
    scaffold.new_task("my-rows", folder, package=False)
    file = folder / "my_rows.py"
    file.write_text(file.read_text() + more)


def test_a_claim_knows_the_attributes_of_a_plugin_s_task(tmp_path: Path) -> None:
    """The plugin was not imported yet where claims were checked: its task was unknown."""
    write(tmp_path)
    own = {"source": "task", "task": "my-rows", "heldout_count": 32}
    how = {**SMALL, "plugins": ["my_rows.py"], "data": own}
    attributes = [one.name for one in _made(tmp_path).attributes]
    made, _ = planned(tmp_path, **how, claim=claim(attributes[0]))
    assert all(not cell.reason for cell in made.cells)
    with pytest.raises(ValueError, match="has no attribute 'glyph'|unknown metric 'glyph'"):
        planned(tmp_path, **how, claim=claim("glyph"))


def _made(folder: Path) -> Any:
    registry.load_plugin(folder / "my_rows.py")
    made = registry.make("my-rows")
    registry._added.clear()
    return made


@pytest.mark.parametrize("error", ["RuntimeError('DefaultCPUAllocator: not enough memory')", "MemoryError()"])
def test_a_world_that_no_memory_holds_is_one_sentence(error: str, tmp_path: Path) -> None:
    write(tmp_path, f"\n\ndef huge(self):\n    raise {error}\n\n\nMyRows.world = huge\n")
    registry.load_plugin(tmp_path / "my_rows.py")
    with pytest.raises(registry.TaskError, match="task 'my-rows': the latents of its images do not fit in memory"):
        registry.make("my-rows")


def test_a_world_is_refused_by_what_it_really_takes() -> None:
    """No double: torch itself refuses to allocate, and the sentence is ours."""

    class Huge(registry.task_class("clock")):  # type: ignore[misc]
        def world(self) -> torch.Tensor:
            return torch.empty(2**50, 2)

        images = property(lambda self: len(self.world()))

    with pytest.raises(registry.TaskError, match="do not fit in memory; lower a knob"):
        registry._check_memory(Huge(), "clock", {})


ATTRIBUTES = "\n\nMyRows.attributes = property(lambda self: (Attribute({}, 1 / 3),))\n"


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("\ndel MyRows.says\n", "task 'my-rows' has no `says`"),
        ("\nMyRows.levels = {'easy': {}}\n", "task 'my-rows': `levels` has no medium, hard"),
        ("\nMyRows.size = 10\n", "task 'my-rows': size 10 is no multiple of patch 4"),
        (ATTRIBUTES.format("'row', 'lokal', (0,)"), "attribute 'row': its reach is local or global"),
        (ATTRIBUTES.format("'right', 'local', (0,)"), "attribute 'right': use a name of its own"),
        (ATTRIBUTES.format("'recall', 'local', (0,)"), "attribute 'recall': use a name of its own"),
        (ATTRIBUTES.format("'unseen_row', 'local', (0,)"), "attribute 'unseen_row': use a name of its own"),
        (ATTRIBUTES.format("'my row', 'local', (0,)"), "attribute 'my row': use a name of its own"),
        (
            ATTRIBUTES.replace("3)", "3, lower=True)").format("'leaked', 'local', (0,)"),
            "tables read 'leaked' as better where it is higher; leave `lower` out, and count what is right",
        ),
        (
            ATTRIBUTES.format("'swapped', 'local', (0,)"),
            "tables read 'swapped' as better where it is lower; give it another name",
        ),
        (
            "\ndef text(self, words):\n    raise KeyError('boom')\nMyRows.text = text\n",
            "task 'my-rows': KeyError: 'boom'",
        ),
    ],
)
def test_a_task_that_is_none_is_one_sentence_and_no_error_of_ours(more: str, sentence: str, tmp_path: Path) -> None:
    write(tmp_path, "\n" + more)
    own = {"source": "task", "task": "my-rows", "heldout_count": 32}
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        planned(tmp_path, **SMALL, plugins=["my_rows.py"], data=own)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("@register\nclass MyRows: pass\n", "@register needs the task's name: @register('myrows')"),
        ("@register('rows')\nclass Rows: pass\n", "task 'rows' is no subclass of bench.data.tasks.contract.Task"),
        ("@register('bind')\nclass Bind: pass\n", "task 'bind' is the name of a built-in task"),
        ("@register('My Rows')\nclass Bind: pass\n", "use lower-case letters, digits and '-'"),
    ],
)
def test_what_registers_no_task_says_why(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(f"from bench.data.tasks.registry import register\n\n{text}")
    with pytest.raises(architectures.PluginError, match=re.escape(sentence)):
        registry.load_plugin(tmp_path / "own.py")
    assert registry.tasks() == list(registry.NAMES)
