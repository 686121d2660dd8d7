"""What is found, as tables of text: the claim, verdicts, what was tuned, stable, uncertain and equal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.findings import compare, peers
from bench.findings.analysis import Analysis
from bench.store.metrics import Measurement
from bench.views.rates import pairs, rate_text
from bench.views.text import Sheet, written

TUNED_COLUMNS = 6


def sheets(analysis: Analysis) -> tuple[list[Sheet], list[Sheet]]:
    """What a reader wants before the numbers, and what after them.

    Before: the claim, verdicts against the baseline. After: what was tuned, how sure, what was equal.
    """
    before = (_claim(analysis), _verdicts(analysis))
    after = (_tuned(analysis), _stable(analysis), _uncertainty(analysis), _equal(analysis))
    return [sheet for sheet in before if sheet], [sheet for sheet in after if sheet]


def _claim(analysis: Analysis) -> Sheet | None:
    claim = analysis.claim
    if claim is None:
        return None
    rows = [[test.text, test.verdict, test.evidence] for test in claim.tests]
    return Sheet(f"Claim: {claim.verdict}", claim.says, ["test", "verdict", "evidence"], rows, claim.caveats)


def _verdicts(analysis: Analysis) -> Sheet | None:
    base = compare.base_name(analysis.table, analysis.rows)
    headings, rows = compare.verdict_table(base, analysis.verdicts)
    if not rows:
        return None
    everywhere, tasks = peers.of_variant(analysis.table), peers.of_tasks(analysis.table)
    within = ", within a point of the axes" if everywhere else ", within a task" if tasks else ""
    family = ("a column" if tasks else "the whole table") + within
    text = (
        f"▲ better, ▼ worse, · undecided than {base}, and the gap (a share; of prompt adherence, the difference; of an "
        f"excess, the factor): {compare.how(analysis.table)}, 95 % after Holm's correction over {family}; gaps of FID "
        f"under {Measurement.of('fid').metric.margin:.1%} are undecided, being within seed noise."
    )
    reasons = sorted({one.why for row in analysis.verdicts.values() for one in row if one.unlike})
    notes = [f"n/a, no comparison: {'; '.join(reasons)}."] if reasons else []
    return Sheet("Verdicts", text, headings, rows, notes)


def _tuned(analysis: Analysis) -> Sheet | None:
    if not analysis.choices:
        return _tuned_before(analysis)
    axis = analysis.table.manifest["config"]["choose"]
    columns = [column for column in analysis.columns if column.better][:TUNED_COLUMNS]
    rows, notes = [], []
    for one in analysis.choices:
        for name, value, kind in ((one.own_row, one.own, "untuned"), (one.row, one.value, "tuned")):
            if name is not None:
                means = [written(analysis.row(name), column) for column in columns]
                text = f"{value:g}" if isinstance(value, float) else str(value)
                rows.append([f"{one.name}, {kind}", text, *means])
        if one.edge:
            notes.append(f"{one.name} chose an end of the axis, {one.value}: a better value may lie beyond.")
    metric = Measurement.parse(analysis.choices[0].metric).heading
    text = f"{axis} chosen for each variant by the mean {metric} over seeds; compare variants on other seeds."
    return Sheet("Tuned vs untuned", text, ["variant", axis, *(column.heading for column in columns)], rows, notes)


def _tuned_before(analysis: Analysis) -> Sheet | None:
    """Rows that were run at the values tuned on other seeds, and at others."""
    found = pairs(analysis)
    columns = [column for column in analysis.columns if column.better][:TUNED_COLUMNS]
    shown: dict[str, list[str]] = {}
    for tuned, other in found:
        for row, kind in ((tuned, "tuned"), (other, "untuned")):
            shown[row.name] = [f"{row.name}, {kind}", rate_text([row]), *(written(row, column) for column in columns)]
    if not shown:
        return None
    text = "Each variant at the values that it chose on other seeds, beside the same at another."
    headings = ["variant", "learning rate", *(column.heading for column in columns)]
    return Sheet("Tuned vs untuned", text, headings, list(shown.values()), [])


def _stable(analysis: Analysis) -> Sheet | None:
    if not analysis.ladders:
        return None
    rows = []
    for one in analysis.ladders:
        seeds = len(one.highest) + len(one.below)
        top = f" (none of {one.unlost} seeds lost at the top)" if one.unlost == seeds and seeds else ""
        none = f"below {one.rungs[0].value:g}" if seeds else "none"
        low = f" ({len(one.below)} of {seeds} seeds lost at the lowest)" if one.below else ""
        low += f" ({one.unlost} of {seeds} seeds lost at none)" if 0 < one.unlost < seeds else ""
        low += f" ({len(one.unknown)} seeds lack a result)" if one.unknown else ""
        rows.append([one.name, (f"{one.limit:g}{top}" if one.limit else none) + low, str(seeds)])
    text = "The highest learning rate below the first at which training is lost, median over seeds."
    return Sheet("Highest stable learning rate", text, ["variant", "highest rate", "seeds"], rows, [])


def _uncertainty(analysis: Analysis) -> Sheet | None:
    """What the finite number of samples leaves open, beside the noise of seeds."""
    intervals: dict[str, dict[str, list[list[float]]]] = {}
    for cell in analysis.table.done:
        for key, ends in (cell.result.sample_ci if cell.result else {}).items():
            if ends[0] != ends[1]:  # where samples are all alike, their uncertainty is not known
                intervals.setdefault(cell.row.name, {}).setdefault(key, []).append(ends)
    columns = [one for one in analysis.columns if any(one.key in by_key for by_key in intervals.values())]
    if not columns:
        return None
    rows = [
        [name, *(_mean_ends(one, by_key.get(one.key, [])) for one in columns)] for name, by_key in intervals.items()
    ]
    text = (
        "95 % intervals for the finite number of samples alone, means over seeds. That of FID takes the bias of few "
        "samples off once, and so lies below the number in the table of means."
    )
    return Sheet("Sampling uncertainty", text, ["variant", *(one.heading for one in columns)], rows, [])


def _mean_ends(column: Measurement, intervals: Sequence[Sequence[float]]) -> str:
    return " to ".join(column.write(statistics.fmean(side)) for side in zip(*intervals, strict=True))


def _equal(analysis: Analysis) -> Sheet | None:
    if not analysis.fairness:
        return None
    rows = [[one.what, one.verdict, one.detail] for one in analysis.fairness]
    return Sheet("What was equal", "Checked from what the cells really used.", ["what", "", "evidence"], rows, [])
