"""The newest records in the README and in the list of claims."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bench.findings.analysis import Analysis, analyse
from bench.store.files import write_atomic
from bench.views.escape import markdown_line, markdown_text
from bench.views.frontpage import replace_part
from bench.views.records import load_record, newest_records
from bench.views.text import claims_markdown, markdown

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
CLAIMS = ("<!-- claims:begin -->", "<!-- claims:end -->")
CLAIMS_FILE = "CLAIMS.md"
HOW = """\
Each is a matrix in `configs/claims/` whose decision rule was committed before it was run; differences are paired by
seed with 95 % intervals, and p corrected by Holm over a claim's tests. They hold for the size and data of their record,
and no further; `ditbench claims` prints the means, and how many more seeds give 80 % power.
"""


def update_readme(readme: Path, results: Path) -> bool:
    """Writes the newest record of each matrix between the README's marks, and `results/CLAIMS.md`.

    False if the README has no marks.
    """
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if BEGIN not in text or END not in text:
        return False
    analyses = newest_analyses(results, readme.parent)
    text = replace_part(text, "results", readme_section(analyses))
    if CLAIMS[0] in text and CLAIMS[1] in text:
        link = (results / CLAIMS_FILE).relative_to(readme.parent).as_posix()
        text = replace_part(text, "claims", claims_line(analyses, link))
    write_atomic(readme, text)
    write_atomic(results / CLAIMS_FILE, claims_page(newest_analyses(results, results)))
    return True


def newest_analyses(results: Path, root: Path) -> dict[str, Analysis]:
    """The newest record of each matrix, by its folder as seen from `root`."""
    folders = newest_records(results).values()
    return {folder.relative_to(root).as_posix(): analyse(load_record(folder)) for folder in folders}


def claims_line(analyses: dict[str, Analysis], link: str) -> str:
    """In one line, how many claims were tested, at what size, and what became of them; nothing without any."""
    claims = [one for one in analyses.values() if one.claim]
    if not claims:
        return ""
    counts = Counter(str(one.claim.verdict) for one in claims if one.claim)
    words = ("supported", "contradicted", "equivalent", "undecided")
    verdicts = ", ".join(
        f"{counts[verdict]} {verdict}" for verdict in words if counts[verdict] or verdict != "equivalent"
    )
    return f"{len(claims)} pre-registered claims at {_size(claims)}: {verdicts} ([{link}]({link})).\n"


def _size(analyses: list[Analysis]) -> str:
    """`1-2 M parameters`, of all rows."""
    totals = [mean / 1e6 for one in analyses for row in one.rows if (mean := row.mean("parameters_total")) is not None]
    if not totals:
        return "unknown size"
    least, most = round(min(totals)), round(max(totals))
    return f"{least} M parameters" if least == most else f"{least}-{most} M parameters"


def claims_page(analyses: dict[str, Analysis]) -> str:
    """What became of every claim of which there is a record, each with a link to its newest, and how it was decided."""
    verdicts = [(one.claim, f"{where}/report.md") for where, one in analyses.items() if one.claim]
    return f"# Claims\n\n{HOW}\n{claims_markdown(verdicts)}"


def readme_section(analyses: dict[str, Analysis]) -> str:
    """The newest records of the matrices that test no claim: a table where there are seeds to compare, else a link."""
    records = {where: one for where, one in analyses.items() if not one.claim}
    tables = [readme_table(one, where) for where, one in records.items() if _spread(one)]
    single = ", ".join(f"[{one.name}]({where}/report.md)" for where, one in records.items() if not _spread(one))
    parts = [*tables, *([f"One seed each, so nothing is established: {single}.\n"] if single else [])]
    return "\n".join(parts)


def _spread(analysis: Analysis) -> bool:
    """Whether a record has two seeds or more of any row."""
    return any(row.planned > 1 for row in analysis.rows)


def readme_table(analysis: Analysis, where: str) -> str:
    """A record's brief table for the README, with a link to its folder `where`."""
    lines = [f"- {markdown_line(note)}" for note in analysis.notes]
    lines.append(f"- All columns, samples and the command: [{where}]({where}/report.md)")
    return f"### {markdown_text(analysis.name)}\n\n{markdown(analysis, brief=True)}\n" + "\n".join(lines) + "\n"
