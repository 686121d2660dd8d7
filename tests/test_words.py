"""The field's words in every tracked text: code, help, messages, configs, documentation. See the glossary."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("*.py", "*.md", "*.yaml", "*.j2", "*.jinja", "*.toml", "*.txt")
TAGLINE = "How should a diffusion transformer be told what to draw?"  # stays once, in the README
VERBATIM = "## What is fair here, and what is not"  # of the README: kept word for word

# What no text may use, what the field says instead, and a line that it is found in. Names are read word by word:
# `told` is in `told_y` and in `self.told`, not in `stolid`.
FORBIDDEN = (
    ("told", "conditioned on, modulated by, given, or what it is: provenance, metadata", "each told by its own head"),
    ("tell|tells", "show, say, distinguish", "one head that tells each its shift"),
    ("hear|hears", "set, receive", "what c hears"),
    ("anew", "again", "they are made anew"),
    ("picture|pictures", "image (real), sample (generated)", "FID of 400 pictures"),
    ("left away", "left out", "weights are left away here"),
    ("to be had|can be had", "available", "inception if to be had"),
    ("without a word", "without a message", "it ended without a word"),
    ("goes on|go on|went on", "resumes, continues", "the same command goes on"),
    ("mend|mends|mended", "fix", "how to mend it"),
    ("a lean|leaned", "trend", "a lean of three seeds"),
    ("what seeds make|seeds alone make", "seed noise", "the 1.3 % that seeds alone make"),
    ("a look|looked at|looks at the|look_share", "probe, observed", "a look at the dynamics"),
    ("tokens ask|asks time|asks the prompt|tokens answer", "queries; keys and values", "image tokens ask"),
    (
        r"begins? (?:at|from|with|as|otherwise)|(?:weights?|gates?|heads?|blocks?) begins?",
        "is initialised",
        "the gates begin at zero",
    ),
    ("all right", "all attributes correct", "all right (judge1, 400)"),
    ("of it modulation", "modulation share", "| of it modulation |"),
    ("how one knows", "evidence", "| how one knows |"),
    ("How far up the learning rate", "Highest stable learning rate", "## How far up the learning rate goes"),
    ("Untuned and tuned", "Tuned vs untuned", "## Untuned and tuned"),
    ("What so few", "Sampling uncertainty", "## What so few pictures leave open"),
    ("local control|global control|control of every", "prompt adherence", "local control (judge1, 400)"),
    ("held-out loss|heldout loss", "validation loss (the key heldout_loss stays)", "the held-out loss by timestep"),
    ("shelf", "section", "_shelf(key)"),
    ("draw|draws|drew|drawn|drawing", "sample noise, generate, plot, render, initialise", "draw a grid"),
    ("stand|stands", "is", "what stands in a config"),
    ("Keeper", "CellCallback", "class Keeper"),
    (r"class Order\b|Order\(", "CellSpec", "Order(config, digests)"),
    (r"def middle\b|(?<!\.)middle\(", "median_iqr", "middle(rates)"),
    (r"Feed|feeds? MLflow|MLflow is fed|not fed", "RunWriter, sync, write", "class _Feed"),
)


def pattern(words: str) -> re.Pattern[str]:
    """The words where they are whole, in prose and in names, also across a line's end."""
    spaced = words.replace(" ", r"\s+")
    return re.compile(rf"(?<![A-Za-z])(?:{spaced})(?!(?<=[A-Za-z])[a-z])", re.IGNORECASE if words.islower() else 0)


def allowed(text: str, name: str) -> str:
    """The text without what is kept on purpose, its lines where they were."""
    if name == "README.md":
        text = text.replace(TAGLINE, "", 1)
        before, mark, rest = text.partition(VERBATIM)
        kept, _, after = rest.partition("\n## ")
        text = before + mark + "\n" * kept.count("\n") + "\n## " + after
    if name == "bench/measure/sampling.py":  # a key on disk
        text = text.replace('"drawn"', "")
    if name.startswith("configs/claims/"):  # a hypothesis stays as it was written before the run
        text = re.sub(r"^(\s*says:).*$", r"\1", text, flags=re.MULTILINE)
    return text


def texts() -> Iterator[tuple[str, str]]:
    """Every tracked text but records (of which CLAIMS.md quotes the hypotheses), the history and this file."""
    listed = subprocess.run(["git", "ls-files", *KINDS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        if name in ("CHANGELOG.md", "results/CLAIMS.md", "tests/test_words.py") or not (ROOT / name).is_file():
            continue
        if name.startswith("results/") and name.count("/") > 1:
            continue
        yield name, allowed((ROOT / name).read_text(), name)


@pytest.fixture(scope="module")
def corpus() -> list[tuple[str, str]]:
    return list(texts())


@pytest.mark.parametrize(("words", "instead"), [one[:2] for one in FORBIDDEN], ids=[one[0] for one in FORBIDDEN])
def test_no_text_uses_it(words: str, instead: str, corpus: list[tuple[str, str]]) -> None:
    places = [
        f"{name}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]}"
        for name, text in corpus
        for found in pattern(words).finditer(text)
    ]
    shown = "\n".join(places[:20])
    assert not places, f"{len(places)} times; write {instead}\n{shown}"


@pytest.mark.parametrize(("words", "line"), [(one[0], one[2]) for one in FORBIDDEN], ids=[one[0] for one in FORBIDDEN])
def test_it_would_be_found(words: str, line: str) -> None:
    assert pattern(words).search(line)


def test_names_are_read_word_by_word() -> None:
    told = pattern("told")
    assert all(told.search(name) for name in ("told_y", "self.told", "Told", "_TOLD", "text_told"))
    assert not any(told.search(name) for name in ("stolid", "retold", "toldo"))
    assert pattern("held-out loss").search("the held-out\n    loss")
    assert not pattern("heldout loss").search("the key heldout_loss")


def test_what_is_kept_on_purpose_is_not_searched() -> None:
    text = f"# x\n\n{TAGLINE}\n\n{VERBATIM}\n\npictures\n\n## y\n\npictures, {TAGLINE}\n"
    assert pattern("picture|pictures").findall(allowed(text, "README.md")) == ["pictures"]
    assert pattern("told").findall(allowed(text, "README.md")) == ["told"]
    assert allowed("says: pictures\nmetric: fid", "configs/claims/x.yaml") == "says:\nmetric: fid"
