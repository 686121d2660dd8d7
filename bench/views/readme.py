"""The newest records in the README and in the list of claims."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from bench.findings.analysis import Analysis, analyse
from bench.findings.claims import ClaimVerdict
from bench.findings.coverage import has_spread
from bench.findings.words import counted
from bench.store.files import write_atomic
from bench.views.claimwords import MASTERED, NOT_MEASURED, READ_AS, all_mastered, found
from bench.views.escape import markdown_line, markdown_text
from bench.views.figures.capability import CAPABILITY
from bench.views.firstfigure import FILE, front_figure, front_record, front_text
from bench.views.frontpage import replace_part
from bench.views.limits import OF_FORMER_TASKS, OF_SMALL_SCENES, outdated
from bench.views.records import load_record, newest_records
from bench.views.text import capability_markdown, claims_markdown, markdown

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
CLAIMS = ("<!-- claims:begin -->", "<!-- claims:end -->")
CLAIMS_FILE = "CLAIMS.md"
HOW = """\
Each is a matrix in `configs/claims/` whose decision rule was committed before it was run; p is corrected by Holm over a
claim's tests. They hold for the size and data of their record, and no further; `ditbench claims` prints the means, and
how many more seeds give 80 % power.
"""
POOLED = """\
Rows are compared with a variance pooled over all rows of a task (Welch's where variances differ), with 95 % intervals.
A gap of an excess error is a factor, of a score or of control a difference. What is learned at once is decided by
exact tests.
"""
WITHIN = """\
p is corrected over the tests of a claim, not over all claims. Some put what an older one left undecided to fresh seeds,
or to a wider margin. A claim is contradicted if one of its tests is.
"""
FORMER = "What tasks that were void could not show"
EASY = """\
The other {claims} are of tasks that every row compared masters (scores of {least:g} or more). What they found are
differences of error, not of capability:
"""
SCORES = (
    "Of tasks: score S. Where levels share a column it has means alone, and the record's figure their intervals; costs "
    "are then of all levels, where the figure has those of one."
)
OLDER = "What {size} on 32 px scenes could not show"
PAIRED = f"""\
{{count}} older claims, on rendered scenes, with differences paired by seed and 95 % intervals. {OF_SMALL_SCENES}
"""


def update_readme(readme: Path, results: Path) -> bool:
    """Writes the newest records between the README's marks, its first figure, and `results/CLAIMS.md`.

    False if the README has no marks, or records are kept elsewhere than below its folder.
    """
    readme, results = readme.parent.resolve() / readme.name, results.resolve()
    if not results.is_relative_to(readme.parent):
        return False
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if BEGIN not in text or END not in text:
        return False
    analyses = newest_analyses(results, readme.parent)
    text = replace_part(text, "results", readme_section(analyses))
    if CLAIMS[0] in text and CLAIMS[1] in text:
        link = (results / CLAIMS_FILE).relative_to(readme.parent).as_posix()
        text = replace_part(text, "claims", claims_line(analyses, link))
    if "<!-- capability:begin -->" in text and (found := front_record(results)):
        text = replace_part(text, "capability", front_text(readme.parent))
        write_atomic(readme.parent / FILE, front_figure(found[1]))
    write_atomic(readme, text)
    write_atomic(results / CLAIMS_FILE, claims_page(newest_analyses(results, results)))
    return True


def newest_analyses(results: Path, root: Path) -> dict[str, Analysis]:
    """The newest record of each matrix, by its folder as seen from `root`."""
    folders = newest_records(results).values()
    return {folder.relative_to(root).as_posix(): analyse(load_record(folder)) for folder in folders}


def claims_line(analyses: dict[str, Analysis], link: str) -> str:
    """How many claims were tested, at what size, and what became of them, the older ones apart; nothing without any.

    Of the newer ones those that are decided are listed, each with a link to its record and what was found; apart those
    on tasks that all rows master.
    """
    newer, former, older = _claims(analyses)
    page = f" ([{link}]({link}))"
    lines = []
    if newer:
        first = f"{counted(len(newer), 'pre-registered claim')} at {_size(newer)}: {_verdicts(newer)}{page}."
        lines.append(f"{first}\n{WITHIN}")
        easy = {where: one for where, one in newer.items() if all_mastered(one)}
        lines += [f"- {line}" for line in _decided({where: one for where, one in newer.items() if where not in easy})]
        if listed := _decided(easy):
            lines += [
                f"\n{EASY.format(claims=counted(len(listed), 'decided claim'), least=MASTERED)}",
                *(f"- {line}" for line in listed),
            ]
        lines.append("")
    if former:
        lines.append(f"{counted(len(former), 'claim')} on tasks that were void then: see {CLAIMS_FILE}.\n")
    if older:
        which = counted(len(older), "older claim" if newer else "pre-registered claim")
        lines.append(
            f"{which} at {_size(older)} on 32 px scenes: {_verdicts(older)}{'' if newer else page}; what is undecided "
            "there, that size could not show."
        )
    return "".join(f"{line}\n" for line in lines)


def _decided(claims: dict[str, Analysis]) -> list[str]:
    """Each decided claim, its verdict, a link and what its tests found that say so."""
    lines = []
    for where, one in claims.items():
        if one.claim is None or one.claim.verdict == "undecided":
            continue
        says = READ_AS.get(one.name, one.claim.says)
        why = markdown_text(found(one, one.claim.verdict))
        link = f"[{markdown_text(says)}]({where}/report.md)"
        lines.append(f"**{one.claim.verdict}** {link}" + (f": {why}" if why else ""))
    return lines


def _claims(analyses: dict[str, Analysis]) -> tuple[dict[str, Analysis], dict[str, Analysis], dict[str, Analysis]]:
    """The records that test a claim; apart those of tasks that were void, and those at the size of the older ones."""
    groups: dict[str, dict[str, Analysis]] = {"": {}, OF_FORMER_TASKS: {}, OF_SMALL_SCENES: {}}
    for where, one in analyses.items():
        if one.claim:
            groups[outdated(one.table.manifest["config"])][where] = one
    newer, former, older = groups.values()
    return newer, former, older


def _verdicts(claims: dict[str, Analysis]) -> str:
    counts = Counter(str(one.claim.verdict) for one in claims.values() if one.claim)
    words = ("supported", "contradicted", "equivalent", "undecided")
    return ", ".join(f"{counts[word]} {word}" for word in words if counts[word] or word != "equivalent")


def _size(claims: dict[str, Analysis]) -> str:
    """`0.1-2 M parameters`, or of less than a million `105-249 thousand parameters`, of all rows."""
    rows = [row for one in claims.values() for row in one.rows]
    totals = [mean for row in rows if (mean := row.mean("parameters_total")) is not None]
    if not totals:
        return "unknown size"
    unit, name = (1e6, "M") if max(totals) >= 1e6 else (1e3, "thousand")
    ends = (min(totals) / unit, max(totals) / unit)
    least, most = (f"{one:.1g}" if one < 1 else f"{one:.0f}" for one in ends)
    return f"{least} {name} parameters" if least == most else f"{least}-{most} {name} parameters"


def claims_page(analyses: dict[str, Analysis]) -> str:
    """What became of every claim of which there is a record, each with a link to its newest, and how it was decided.

    Those of tasks that were void, and those at the size of the older ones, come last, under what they could not show.
    """
    newer, former, older = _claims(analyses)
    parts = [f"# Claims\n\n{HOW}"]
    if newer:
        parts.append(f"{POOLED}\n{claims_markdown(_linked(newer))}")
    if former:
        parts.append(f"## {FORMER}\n\n{OF_FORMER_TASKS}\n\n{claims_markdown(_linked(former))}")
    if older:
        title = OLDER.format(size=_size(older))
        parts.append(f"## {title}\n\n{PAIRED.format(count=len(older))}\n{claims_markdown(_linked(older))}")
    return "\n".join(parts)


def _linked(claims: dict[str, Analysis]) -> list[tuple[ClaimVerdict, str]]:
    """Each claim as it was written before its run, with what its words say beyond what was measured, and a link."""
    linked = []
    for where, one in claims.items():
        if one.claim:
            note = [NOT_MEASURED[one.name]] if one.name in NOT_MEASURED else []
            linked.append((replace(one.claim, caveats=[*one.claim.caveats, *note]), f"{where}/report.md"))
    return linked


def readme_section(analyses: dict[str, Analysis]) -> str:
    """The newest records of the matrices that test no claim: a table where there are seeds to compare, else a link."""
    records = {where: one for where, one in _first_of_tasks(analyses).items() if not one.claim}
    tables = [readme_table(one, where) for where, one in records.items() if has_spread(one.table)]
    single = ", ".join(
        f"[{one.name}]({where}/report.md)" for where, one in records.items() if not has_spread(one.table)
    )
    parts = [*tables, *([f"Fewer than two whole seeds, so nothing is established: {single}.\n"] if single else [])]
    return "\n".join(parts)


def _first_of_tasks(analyses: dict[str, Analysis]) -> dict[str, Analysis]:
    """The records of today's tasks before those of other data and of former tasks; of each, more variants first."""

    def order(item: tuple[str, Analysis]) -> tuple[bool, int]:
        config = item[1].table.manifest["config"]
        return bool(outdated(config)), -len(config["variants"])

    return dict(sorted(analyses.items(), key=order))


def readme_table(analysis: Analysis, where: str) -> str:
    """A record's brief table for the README, with a link to its folder `where`."""
    of_tasks = capability_markdown(analysis)
    notes = [*analysis.row_notes, SCORES] if of_tasks else analysis.notes
    lines = [f"- {markdown_line(note)}" for note in notes]
    lines.append(f"- All columns, samples and the command: [{where}]({where}/report.md)")
    figure = f"![{CAPABILITY.title}]({where}/{CAPABILITY.file})\n\n" if of_tasks else ""
    table = of_tasks or markdown(analysis, brief=True)
    return f"### {markdown_text(analysis.name)}\n\n{figure}{table}\n" + "\n".join(lines) + "\n"
