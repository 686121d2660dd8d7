"""MLflow as a view: what is not ours is not touched, and whatever it does, the work continues."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.store.folders import Store

# --- whose runs these are -------------------------------------------------------------------------------------------


def test_a_results_directory_has_one_id_however_many_ask_first(tmp_path: Path) -> None:
    """Two syncs of a new directory start at once. Both must tag what they write with the same id."""
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: Store(tmp_path / "runs").id, range(32)))
    assert len(ids) == 1 and Store(tmp_path / "other").id not in ids


@pytest.mark.parametrize("content", ["", "x", "<html>", "a" * 31])
def test_a_damaged_id_is_named_with_the_way_out(tmp_path: Path, content: str) -> None:
    """The file of the id was cut. Another id in silence would leave the old runs without an owner."""
    (tmp_path / "id").write_text(content)
    with pytest.raises(ValueError, match="ditbench.root"):
        _ = Store(tmp_path).id
