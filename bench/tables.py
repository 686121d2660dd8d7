"""Cells become rows: a mean with its spread over seeds, cost beside quality, failures as rows. Needs no torch."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from architectures import nearest
from bench.result import Result
from bench.store import Row, Status, Store


@dataclass(frozen=True)
class Cell:
    """A cell in a table.

    Attributes:
        result: None while there is none. curves: metric -> step -> value, of the journal.
        grid: pictures of its sample grid as a `.npy` file, or None. grids: the same by step of training.
    """

    row: Row
    status: Status
    reason: str
    result: Result | None
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    grid: Path | None = None
    grids: dict[int, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A matrix's cells with what its manifest says."""

    name: str
    cells: list[Cell]
    manifest: dict[str, Any]

    @property
    def done(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.result is not None]


def collect(store: Store, name: str) -> Table:
    """Reads a matrix from the results directory.

    Raises:
        FileNotFoundError: if no such matrix was planned.
    """
    from bench.journal import curves

    cells = []
    for row in store.rows(name):
        folder = store.cell(row.cell)
        status, reason = folder.status()
        grid = folder.samples / "grid.npy"
        steps = {int(path.stem.removeprefix("step-")): path for path in sorted(folder.samples.glob("step-*.npy"))}
        cells.append(
            Cell(row, status, reason, folder.result(), curves(folder.journal), grid if grid.exists() else None, steps)
        )
    return Table(name, cells, store.manifest(name))


@dataclass(frozen=True)
class Sheet:
    """A table of words for the report: what it says, its rows, and notes under it."""

    title: str
    says: str
    headings: list[str]
    rows: list[list[str]]
    notes: list[str]

    def markdown(self) -> str:
        """The sheet as a section."""
        clean = [[cell.replace("|", "\\|") for cell in row] for row in (self.headings, *self.rows)]
        lines = ["| " + " | ".join(row) + " |" for row in clean]
        lines.insert(1, "|" + "---|" * len(self.headings))
        said = "".join(f"- {note}\n" for note in self.notes)
        return f"## {self.title}\n\n{self.says}\n\n" + "\n".join(lines) + "\n" + (f"\n{said}" if said else "")


# --- columns --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A number of a cell: its key in the result, its heading, how it is written, and which direction is better."""

    key: str
    heading: str
    write: Callable[[float], str]
    better: str = ""  # lower, higher or nothing


def _fixed(digits: int, unit: float = 1.0) -> Callable[[float], str]:
    return lambda value: f"{value / unit:,.{digits}f}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


# What made a metric, and of how many pictures, stands at the end of its name.
_MADE_OF = (
    re.compile(r"(?P<kind>kid|fid|precision|recall)_(?P<slug>\w+)_(?P<count>\d+k?)"),
    re.compile(r"(?P<kind>[\w.]+?)_(?P<slug>judge\d+|swap)_(?P<count>\d+k?)"),
)
_JUDGED = re.compile(r"(?:(?P<set>unseen|real|guidance[\d.]+)_)?(?P<name>\w+)")
QUALITY: dict[str, Callable[[float], str]] = {
    "kid": _fixed(4),
    "fid": _fixed(1),
    "precision": _fixed(3),
    "recall": _fixed(3),
    "local": _fixed(3),
    "global": _fixed(3),
    "right": _fixed(3),
    "unseen_local": _fixed(3),
    "unseen_global": _fixed(3),
}
LADDER = "highest_lr"  # of a learning-rate ladder, not of a cell
DYNAMICS = {
    "open_first": "how far a block moves the stream before training, the largest",
    "open_last": "how far blocks move the stream at the end",
    "opening_step": "when blocks have half opened, a share of training",
    "opening_order": "rank correlation of depth with when blocks open",
    "opening_depth": "rank correlation of depth with how far blocks open",
    LADDER: "log10 of the highest learning rate",
}
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}

COST = (
    Column("train_images_per_second", "training images/s", _fixed(0), "higher"),
    Column("sample_images_per_second", "sampling images/s", _fixed(1), "higher"),
    Column("train_peak_resident_bytes", "peak memory MiB (resident)", _fixed(0, 2**20), "lower"),
    Column("train_peak_allocated_bytes", "peak memory GiB (allocated)", _fixed(2, 2**30), "lower"),
    Column("parameters_total", "parameters M", _fixed(2, 1e6)),
    Column("modulation_share", "of it modulation", _percent),
    Column("macs_forward", "GMAC a picture", _fixed(3, 1e9)),
    Column("mfu", "MFU", _percent, "higher"),
)


def quality_columns(names: Iterable[str]) -> list[Column]:
    """KID first, then FID, precision, recall, control, held-out loss; the heading says what made it, and of how many
    pictures."""
    names = sorted(set(names))
    found = [
        Column(name, heading(name), write, direction(name))
        for kind, write in QUALITY.items()
        for name in names
        if name.startswith(f"{kind}_")
    ]
    if "heldout_loss" in names:
        found.append(Column("heldout_loss", "held-out loss", _fixed(4), "lower"))
    return found


def direction(key: str) -> str:
    """`lower` or `higher`, which is better; empty where neither is."""
    known = {column.key: column.better for column in COST}
    if key in known:
        return known[key]
    if key.startswith(("kid_", "fid_", "heldout_loss")) or key in ("train_ms", "sample_ms", "train_seconds", "spikes"):
        return "lower"
    return "higher" if _made_of(key) and not key.startswith(("change_", "real_", "raw_")) else ""


def _made_of(key: str) -> re.Match[str] | None:
    """`kind`, `slug` and `count` of a metric that is made of pictures."""
    return next((found for form in _MADE_OF if (found := form.fullmatch(key))), None)


def heading(key: str) -> str:
    """A metric's name for people: `local control (judge1, 400)`."""
    known = {column.key: column.heading for column in COST} | {"heldout_loss": "held-out loss"}
    known |= {"train_ms": "training ms a picture", "sample_ms": "sampling ms a picture"}
    known |= DYNAMICS
    made = _made_of(key)
    if key in known or not made:
        return known.get(key, key.replace("_", " "))
    kind, slug, count = made["kind"], made["slug"].replace("_", "-"), made["count"]
    judged = _JUDGED.fullmatch(kind) if slug.startswith("judge") else None
    if judged:
        words = {"local": "local control", "global": "global control", "right": "all right"}
        word = words.get(judged["name"], judged["name"].replace("_", " "))
        told = (judged["set"] or "").replace("guidance", "guidance ")
        return f"{word}{', ' + told if told else ''} ({slug}, {count})"
    return f"{kind.upper() if len(kind) == 3 else kind.replace('_', ' ')} ({slug}, {count})"


def over_chance(key: str) -> bool:
    """Whether a metric's zero is what a guess gets: that of all that a judge reads."""
    made = _made_of(key)
    return made is not None and made["slug"].startswith("judge")


def has_shares(key: str) -> bool:
    """Whether a gap is sensibly told as a share of a mean: not of control or locality, whose zero is chance, nor of a
    logarithm or a correlation."""
    made = _made_of(key)
    if key in (LADDER, "opening_order", "opening_depth"):
        return False
    return made is None or not made["slug"].startswith(("judge", "swap"))


def timed(key: str) -> bool:
    """Whether a metric is a rate or a time: it depends on what else the machine did."""
    return key in ("train_ms", "sample_ms", "train_seconds", "mfu") or key.endswith("_images_per_second")


def find(keys: Iterable[str], name: str) -> str:
    """The metric that a short name means: `fid` is `fid_efficientnet_lite0_400` where nothing else begins so.

    Raises:
        ValueError: if there is none, with the nearest, or more than one.
    """
    keys = sorted(set(keys))
    if name in keys:
        return name
    short = {key: made["kind"] for key in keys if (made := _made_of(key))}
    found = [key for key, kind in short.items() if kind == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"metric {name!r} is any of {', '.join(found)}; name one")
    known = sorted({*short.values(), *(key for key in keys if key not in short)})
    hint = nearest(name, known, f": {', '.join(known)}")
    raise ValueError(f"no metric {name!r}{hint}")


def numbers(result: Result) -> dict[str, float]:
    """All numbers of a result, and shares derived of them."""
    found = {**result.quality, **result.cost, **result.dynamics}
    for name in ("train", "sample"):
        if found.get(f"{name}_images_per_second"):
            found[f"{name}_ms"] = 1000 / found[f"{name}_images_per_second"]
    if found.get("parameters_total"):
        found["modulation_share"] = found.get("parameters_modulation", 0.0) / found["parameters_total"]
    return found


# --- rows over seeds -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """A variant (at one point of the axes) over its seeds.

    Attributes:
        values: key -> a value a finished seed. runs: seed -> the command that measured it.
        planned: number of seeds. ended: how many ended how.
        reasons: of those that have no result.
    """

    name: str
    values: dict[str, list[float]]
    planned: int
    ended: Counter[str]
    reasons: list[str]
    runs: dict[int, str]

    @property
    def complete(self) -> bool:
        return self.ended["done"] == self.planned

    @property
    def seeds(self) -> str:
        """`3`, or `2/3 (1 diverged)`."""
        if self.complete:
            return str(self.planned)
        rest = ", ".join(f"{count} {status}" for status, count in sorted(self.ended.items()) if status != "done")
        return f"{self.ended['done']}/{self.planned} ({rest})"

    def mean(self, key: str) -> float | None:
        return statistics.fmean(self.values[key]) if self.values.get(key) else None

    def interval(self, key: str) -> float | None:
        """Half of the 95 % t-interval of the mean over seeds; None for fewer than two."""
        values = self.values.get(key, [])
        return half_width(values) if len(values) > 1 else None


def half_width(values: Sequence[float], level: float = 0.05) -> float:
    """Half of the (1 - level) t-interval of the mean of two values or more."""
    from scipy.stats import t

    return float(t.ppf(1 - level / 2, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def name_of(row: Row) -> str:
    """A row of the table: the variant, and its point of the axes."""
    return row.variant + "".join(f" {key.rpartition('.')[2]}={value}" for key, value in row.axes.items())


def summaries(table: Table) -> list[Summary]:
    """One for each variant and point of the axes, in the matrix's order."""
    groups: dict[str, list[Cell]] = {}
    for cell in table.cells:
        groups.setdefault(name_of(cell.row), []).append(cell)
    return [_summary(name, cells) for name, cells in groups.items()]


def _summary(name: str, cells: list[Cell]) -> Summary:
    values: dict[str, list[float]] = {}
    for cell in cells:
        for key, value in (numbers(cell.result) if cell.result else {}).items():
            values.setdefault(key, []).append(value)
    ended = Counter(cell.status for cell in cells)
    reasons = [f"seed {cell.row.seed}: {cell.status}: {cell.reason}" for cell in cells if cell.reason]
    runs = {cell.row.seed: str(cell.result.provenance.get("command")) for cell in cells if cell.result}
    return Summary(name, values, len(cells), Counter(ended), reasons, runs)


def columns(rows: list[Summary]) -> list[Column]:
    """The columns that any row can fill."""
    known = {key for row in rows for key in row.values}
    return [*quality_columns(known), *(column for column in COST if column.key in known)]


def best(rows: list[Summary], column: Column) -> str | None:
    """The row that is best by its mean: of those whose every seed finished, if there are two of them with two seeds or
    more and no other shares the place. One seed shows no spread, so nothing is best; nor is any of rates of
    different runs."""
    whole = [row for row in rows if row.complete and row.planned > 1]
    ranked = sorted((mean, row.name) for row in whole if (mean := row.mean(column.key)) is not None)
    if column.better == "higher":
        ranked.reverse()
    apart = timed(column.key) and any(row.runs != whole[0].runs for row in whole)
    if not column.better or apart or len(ranked) < 2 or ranked[0][0] == ranked[1][0]:
        return None
    return ranked[0][1]


def written(row: Summary, column: Column) -> str:
    """A mean with the half width of its interval, or what there is."""
    mean, half = row.mean(column.key), row.interval(column.key)
    if mean is None:
        return ""
    if half is None or (half == 0 and column.key.startswith(("parameters", "macs", "modulation"))):
        return column.write(mean)
    return f"{column.write(mean)} ± {column.write(half)}"


def lines(
    table: Table, leave_out: tuple[str, ...] = (), last: tuple[str, ...] = ()
) -> tuple[list[str], list[list[str]], list[set[int]]]:
    """Headings, cells of text a row, and for each row the columns in which it is best.

    Args:
        leave_out: columns whose keys begin so are not shown. last: those stand at the end.
    """
    rows = summaries(table)
    cols = [column for column in columns(rows) if not column.key.startswith(leave_out or ("\0",))]
    cols.sort(key=lambda column: column.key.startswith(last or ("\0",)))
    headings = ["variant", "seeds", *(column.heading + ARROWS[column.better] for column in cols)]
    marks = [best(rows, column) for column in cols]
    text, top = [], []
    for row in rows:
        text.append([row.name, row.seeds, *(written(row, column) for column in cols)])
        top.append({k + 2 for k, mark in enumerate(marks) if mark == row.name})
    return headings, text, top


def notes(table: Table) -> list[str]:
    """Sentences without which the table could be read wrongly."""
    rows = summaries(table)
    said = []
    if not table.done:
        said.append("No cell has a result yet.")
    elif max((row.planned for row in rows), default=0) == 1:
        said.append("One seed: there is no spread, and differences between rows are not established.")
    else:
        said.append("Mean over seeds ± half the 95 % t-interval of that mean.")
    said += _caveats(key for row in rows for key in row.values)
    said += [f"{row.name}, {reason}" for row in rows for reason in row.reasons]
    if any(best(rows, column) for column in columns(rows)):
        said.append("Bold is the best mean of a column among rows whose every seed finished; read its interval too.")
    return said


def _caveats(names: Iterable[str]) -> list[str]:
    """What a reader must know of the metrics, by their names."""
    said = []
    for name in sorted(set(names)):
        kind, _, rest = name.partition("_")
        slug, _, count = rest.rpartition("_")
        number = int(count.rstrip("k")) * (1000 if count.endswith("k") else 1) if count.rstrip("k").isdigit() else 0
        width = {"inception": 2048, "efficientnet_lite0": 1280}.get(slug, 2048)
        if kind == "fid" and number and number < 2 * width:
            said.append(
                f"FID over {number:,} pictures, fewer than twice its {width:,} feature dimensions, is biased upward by "
                "much: compare it only within this table, and read KID first."
            )
        if kind == "fid" and slug != "inception":
            said.append(f"FID and KID here are made of {slug.replace('_', '-')} features; they are not published FIDs.")
    return said


# --- as text ----------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """The table in Markdown, the best of each column bold."""
    headings, text, top = lines(table)
    out = ["| " + " | ".join(headings) + " |", "|" + "---|" + "---:|" * (len(headings) - 1)]
    for row, marks in zip(text, top, strict=True):
        cells = [f"**{value}**" if k in marks and value else value for k, value in enumerate(row)]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def latex(table: Table) -> str:
    """The table in LaTeX (booktabs), the best of each column bold."""
    headings, text, top = lines(table)
    rows = [
        " & ".join(f"\\textbf{{{_tex(value)}}}" if k in marks and value else _tex(value) for k, value in enumerate(row))
        for row, marks in zip(text, top, strict=True)
    ]
    head = " & ".join(f"\\shortstack{{{_tex(heading)}}}" for heading in headings)
    body = "\n".join(f"{row} \\\\" for row in rows)
    said = "\n".join(f"% {note}" for note in notes(table))
    columns = "l" + "r" * (len(headings) - 1)
    return (
        f"{said}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body}\n"
        "\\bottomrule\n\\end{tabular}\n"
    )


TEX = {"\\": r"\textbackslash{}", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "±": r"$\pm$", "~": r"\textasciitilde{}"}
TEX |= {"^": r"\textasciicircum{}", **{character: "\\" + character for character in "&%$#_{}"}}


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in text)


def terminal(table: Table) -> Any:
    """The table for a terminal (a rich renderable)."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    headings, text, top = lines(table, leave_out=("precision", "recall", "macs"))
    shown = RichTable(title=table.name, title_justify="left")
    for k, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if k == 0 else "right", no_wrap=k == 0, overflow="fold")
    for row, marks in zip(text, top, strict=True):
        shown.add_row(*(Text(value, style="bold" if k in marks else "") for k, value in enumerate(row)))
    return Group(shown, *(Text(f"- {note}") for note in notes(table)))


def as_csv(table: Table) -> str:
    """A row a cell: what it is, how it ended, every number, where it came from."""
    rows = []
    for cell in table.cells:
        row: dict[str, Any] = {
            "cell": cell.row.cell,
            "variant": cell.row.variant,
            "scheme": cell.row.scheme,
            "seed": cell.row.seed,
            **cell.row.axes,
            "backbone": cell.row.backbone,
            "data": cell.row.data,
            "status": cell.status,
            "reason": cell.reason,
        }
        if cell.result:
            row |= {"commit": cell.result.provenance.get("commit", "")} | numbers(cell.result)
        rows.append(row)
    keys = list(dict.fromkeys(key for row in rows for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
