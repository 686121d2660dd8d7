"""The newest records in the README."""

from __future__ import annotations

from pathlib import Path

from bench.findings import claims
from bench.store.files import write_atomic
from bench.store.table import Table
from bench.views.record import load_record
from bench.views.text import markdown, notes


def readme_table(table: Table, where: str) -> str:
    """A record's table for the README, with a link to its folder `where`."""
    said = [f"- {note}" for note in notes(table)]
    said.append(f"- Record, figures and command: [{where}]({where}/report.md)")
    return "\n".join([f"### {table.name}", "", markdown(table), *said, "", f"![Samples]({where}/samples.png)", ""])


BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
CLAIMS = ("<!-- claims:begin -->", "<!-- claims:end -->")


def update_readme(readme: Path, results: Path) -> bool:
    """Writes the newest record of each matrix between the README's two marks; False if it has none."""
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if BEGIN not in text or END not in text:
        return False
    tables = newest_tables(results, readme.parent)
    text = _between(text, (BEGIN, END), readme_section(tables))
    if CLAIMS[0] in text and CLAIMS[1] in text:
        text = _between(text, CLAIMS, claims_section(tables))
    write_atomic(readme, text)
    return True


def _between(text: str, marks: tuple[str, str], content: str) -> str:
    before, _, rest = text.partition(marks[0])
    return f"{before}{marks[0]}\n{content}{marks[1]}{rest.partition(marks[1])[2]}"


def newest_tables(results: Path, root: Path) -> dict[str, Table]:
    """The newest record of each matrix, by its folder as seen from `root`."""
    return {folder.relative_to(root).as_posix(): load_record(folder) for folder in claims.newest(results).values()}


def claims_section(tables: dict[str, Table]) -> str:
    """What became of every claim of which there is a record, each with a link to its newest, and in a sentence how
    that was decided."""
    told = []
    for where, table in tables.items():
        verdict = claims.decide(table)
        if verdict:
            told.append((verdict, f"{where}/report.md"))
    if not told:
        return ""
    how = (
        "Each is a matrix in `configs/claims/` whose decision rule was committed before it was run; differences are\n"
        "paired by seed with 95 % intervals, and p corrected by Holm over a claim's tests. They hold for the size and\n"
        "data of their record, and no further; `ditbench claims` prints the means, and how many more seeds would\n"
        "decide.\n"
    )
    return f"## Claims\n\n{how}\n{claims.markdown(told)}"


def readme_section(tables: dict[str, Table]) -> str:
    """The newest record of each matrix that tests no claim, as the README shows it."""
    shown = [readme_table(table, where) for where, table in tables.items() if not table.manifest["config"].get("claim")]
    if not shown:
        return ""
    return "\n".join(["## Results", "", *shown])
