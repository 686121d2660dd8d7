"""A journal that a crash, a full disk or a bad disk damaged still reads, and its whole lines count."""

from __future__ import annotations

import errno
import functools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.store.disk import DiskError
from bench.store.journal import Journal, Tail, curves, digests, read_journal


def journal_of(path: Path, steps: int = 6) -> list[bytes]:
    """A journal with every kind of line; its lines."""
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for step in range(steps):
        journal.metrics(step, {"loss": 1 / (step + 1), "größe": float(step)})
        journal.digests(step, {"batch": f"{step:08x}"})
    journal.event(steps, "checkpoint", "\u2028 brackets [/red] {")
    journal.image(steps, "samples", "samples/grid.png")
    journal.close()
    return path.read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journals")


@given(cut=st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_a_journal_cut_anywhere_keeps_its_whole_lines_and_takes_more(folder: Path, cut: int) -> None:
    """A kill in mid-write leaves half a line; the next attempt must not be glued to it."""
    path = folder / "cut.jsonl"
    lines = journal_of(path)
    whole = [line for k, line in enumerate(lines) if sum(map(len, lines[: k + 1])) <= cut]
    path.write_bytes(b"".join(lines)[:cut])
    assert len(list(read_journal(path))) >= len(whole)
    before = curves(path).get("loss", {})
    journal = Journal(path, attempt=2)
    journal.metrics(99, {"loss": 0.5})
    journal.close()
    assert curves(path)["loss"] == before | {99: 0.5}


@functools.cache
def whole(path: Path) -> tuple[bytes, dict[str, dict[int, float]], dict[str, dict[int, str]]]:
    """The bytes of a journal, and what is read from them."""
    return b"".join(journal_of(path)), curves(path), digests(path)


@given(
    at=st.integers(0, 2000),
    junk=st.one_of(
        st.binary(min_size=1, max_size=40),
        st.sampled_from([b"[" * 5000, b"\x00" * 600, b"NaN", b"9" * 5000, b"7", b"00"]),
    ),
)
@settings(max_examples=150, deadline=None)
def test_junk_anywhere_is_skipped_and_changes_no_number(folder: Path, at: int, junk: bytes) -> None:
    """Overwritten bytes: a line that was hit is gone, and no other value appears in its place."""
    path = folder / "junk.jsonl"
    content, *true = whole(path)
    path.write_bytes(content[:at] + junk + content[at + len(junk) :])
    for read, all_of_it in zip((curves(path), digests(path)), true, strict=True):
        for name, points in read.items():
            assert points.items() <= all_of_it[name].items()


@pytest.mark.parametrize(
    "line",
    [
        '{"step": [1], "metrics": {"loss": 1}}',
        '{"time": 1, "attempt": 1, "step": 1, "metrics": {"loss": "high"}}',
        '{"time": 1, "attempt": 1, "step": 1, "metrics": [3]}',
        '{"time": 1, "attempt": 1, "step": 1, "metrics": {"loss": NaN}}',
        '{"time": 1, "attempt": 1, "step": 1, "metrics": {"loss": 1e999}}',
        '{"time": 1, "attempt": 1, "step": "2", "metrics": {"loss": 1}}',
        '{"time": 1, "attempt": 1, "step": true, "metrics": {"loss": 1}}',
        '{"time": 1, "attempt": 1, "step": 1, "digests": {"batch": 3}}',
        '{"time": 1, "attempt": 1, "step": 1, "event": {"x": 1}}',
        '{"attempt": 1, "step": 1, "metrics": {"loss": 1}}',
        "[" * 100_000,
        "null",
    ],
)
def test_a_line_that_parses_but_is_none_of_ours_is_skipped(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(line + '\n{"time": 1.5, "attempt": 1, "step": 4, "metrics": {"loss": 2}}\n')
    assert curves(path) == {"loss": {4: 2}} and digests(path) == {}


def test_a_flipped_digit_is_noticed(tmp_path: Path) -> None:
    """A bad disk changes a loss of 0.25 into 0.75: valid JSON, and a wrong number in silence."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.metrics(1, {"loss": 0.25})
    path.write_bytes(path.read_bytes().replace(b"0.25", b"0.75"))
    assert curves(path) == {}


def test_a_tail_reads_each_line_once_and_only_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    tail = Tail(path)
    assert list(tail.entries()) == []
    lines = journal_of(path)
    assert len(list(tail.entries())) == len(lines) and list(tail.entries()) == []
    with open(path, "ab") as file:
        file.write(lines[0][:20])
    assert list(tail.entries()) == []
    with open(path, "ab") as file:
        file.write(lines[0][20:])
    assert len(list(tail.entries())) == 1
    journal_of(path, steps=1)  # another file under the name
    assert len(list(tail.entries())) == 4


def test_a_line_that_did_not_fit_is_not_glued_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in mid-line, then there is room again: what is written after it reads."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    real, room = os.write, [30]

    def write(file: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(file, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr("bench.store.journal.os.write", write)
    with pytest.raises(DiskError, match=r"journal of .* no space left for .*journal.jsonl \(.* free\); make room"):
        journal.metrics(1, {"loss": 0.5})
    room[0] = 10_000
    journal.metrics(2, {"loss": 0.25})
    assert curves(path) == {"loss": {2: 0.25}}


def test_a_journal_that_was_deleted_is_an_error_of_its_cell(tmp_path: Path) -> None:
    """A plugin deletes its cell's folder: lines written from then on would be in no file."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    path.unlink()
    with pytest.raises(DiskError, match="was deleted while the cell ran"):
        journal.event(1, "started")
