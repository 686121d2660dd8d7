"""Quality against cost, validation loss, learning rates, parameters, the bias of FID."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.findings.analysis import Analysis
from bench.findings.compare import together
from bench.findings.summary import VariantSummary
from bench.store.metrics import Measurement, measurements
from bench.views.capability import Capability, capability
from bench.views.figures.style import (
    COLOURS,
    FigureSpec,
    Label,
    Plot,
    canvas,
    label_points,
    legend,
    point_style,
    render,
    style,
)

COSTS = {  # which direction is cheaper
    Measurement.of("train_images_per_second"): "more is better",
    Measurement.of("parameters_total"): "fewer is better",
}


def quality_cost(analysis: Analysis) -> Plot | None:
    """The first quality column against throughput and parameters.

    There is no line along the front: means that differ by seed noise would make one. Rates of another run are hollow.
    Of tasks a point is a scheme, its quality the mean score over tasks.
    """
    table = capability(analysis)
    if table is not None:
        return _of_tasks(table)
    rows = [row for row in analysis.rows if row.values]
    if not rows:
        return None
    base = analysis.row(analysis.baseline)
    quality = analysis.columns[0]
    figure, axes = canvas(12, max(4.0, 0.15 * len(rows) + 1), ncols=2, sharey=True)
    data = [_numbers(row, (quality.key, *(cost.key for cost in COSTS))) for row in rows]
    for axis, (cost, direction) in zip(axes, COSTS.items(), strict=True):
        hollow = _timed_apart(base, rows, cost)
        note = f"\nhollow: timed in another run than {base.name}" if hollow else ""
        axis.set_xlabel(f"{cost.heading} ({direction}){note}")
        _points(axis, rows, cost, quality, hollow)
        for point in data if cost.metric.timed else []:
            point[f"{cost.key}_comparable"] = point["variant"] not in hollow
    axes[0].set_ylabel(f"{quality.heading} ({quality.better} is better)")
    return render(figure), data


def _of_tasks(table: Capability) -> Plot | None:
    """Each scheme's mean score over tasks that are not void against its costs."""
    means = {name: table.mean(name) for name in table.schemes}
    known = {name: mean for name, mean in means.items() if mean is not None}
    costs = [cost for cost in COSTS if any(table.cost(name, cost.key) for name in known)]
    if not known or not costs:
        return None
    figure, axes = canvas(
        5.6 * len(costs), max(3.6, 0.2 * len(known) + 1), ncols=len(costs), squeeze=False, sharey=True
    )
    for axis, cost in zip(axes[0], costs, strict=True):
        note = "" if table.together(cost.key) else "\ntimed in several runs: not to be compared"
        labels = []
        for index, (name, (mean, half)) in enumerate(known.items()):
            value = table.cost(name, cost.key)
            if value is None:
                continue
            look = point_style(index, hollow=bool(note))
            axis.errorbar(value / cost.metric.scale, mean, yerr=half or None, capsize=3, elinewidth=0.8, **look)
            labels.append(Label(name, value / cost.metric.scale, mean, look["color"]))
        axis.set_xlabel(f"{cost.heading} ({COSTS[cost]}){note}")
        axis.margins(0.12)
        axis.grid(alpha=0.3)
        label_points(axis, labels)
    axes[0][0].set_ylabel("mean score over tasks (higher is better)")
    return render(figure), [
        {"variant": name, "score": mean, "score_ci95": half} | {cost.key: table.cost(name, cost.key) for cost in costs}
        for name, (mean, half) in known.items()
    ]


def _points(axis: Any, rows: list[VariantSummary], cost: Measurement, quality: Measurement, hollow: set[str]) -> None:
    labels, unit = [], cost.metric.scale
    for index, row in enumerate(rows):
        x, y = row.mean(cost.key), row.mean(quality.key)
        if x is None or y is None:
            continue
        bars = {"xerr": (row.interval(cost.key) or 0) / unit or None, "yerr": row.interval(quality.key)}
        look = point_style(index, hollow=row.name in hollow)
        axis.errorbar(x / unit, y, **bars, capsize=3, elinewidth=0.8, **look)
        labels.append(Label(row.name, x / unit, y, look["color"]))
    axis.margins(0.12)
    axis.grid(alpha=0.3)
    label_points(axis, labels)


def _timed_apart(base: VariantSummary, rows: list[VariantSummary], cost: Measurement) -> set[str]:
    """Rows whose rate is not comparable with the baseline's, by the rule of `compare`."""
    return {row.name for row in rows if not together([base, row], cost.key)}


def _numbers(row: VariantSummary, keys: tuple[str, ...]) -> dict[str, Any]:
    means: dict[str, Any] = {key: row.mean(key) for key in keys}
    return {"variant": row.name} | means | {f"{key}_ci95": row.interval(key) for key in keys}


QUALITY_COST = FigureSpec(
    "quality-cost.png",
    "Quality against cost",
    "Means over seeds, bars their 95 % intervals; rows whose bars overlap are compared by the verdicts, not by eye.",
    quality_cost,
)


def validation(analysis: Analysis) -> Plot | None:
    """Validation loss by timestep bin."""
    bins = {row.name: _bins(row) for row in analysis.rows}
    rows = [row for row in analysis.rows if bins[row.name]]
    if not rows:
        return None
    figure, axis = canvas(7, 4)
    times = {row.name: [(int(one.made_by) + 0.5) / len(bins[row.name]) for one in bins[row.name]] for row in rows}
    for index, row in enumerate(rows):
        values = [row.mean(one.key) for one in bins[row.name]]
        axis.plot(times[row.name], values, label=row.name, **style(index))
    axis.set(xlabel="timestep t (0 data, 1 noise)", ylabel="validation loss (lower is better)", xlim=(0, 1))
    _log_scale(axis)
    axis.grid(alpha=0.3)
    legend(figure, axis)
    data = [
        {"variant": row.name, "t": t, "heldout_loss": row.mean(one.key)}
        for row in rows
        for t, one in zip(times[row.name], bins[row.name], strict=True)
    ]
    return render(figure), data


def _bins(row: VariantSummary) -> list[Measurement]:
    """Its validation losses by bin of timesteps, in the order of t."""
    return sorted(
        (one for one in measurements(row.values) if one.metric.kind == "heldout_loss_bin"), key=lambda b: int(b.made_by)
    )


def _log_scale(axis: Any) -> None:
    """A logarithmic y-axis with plain numbers: the loss near the data is ten times that near the noise."""
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    low, high = axis.get_ylim()
    if high > 30 * low:  # over more, every minor number would be written over the next
        from matplotlib.ticker import LogLocator

        axis.yaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.tick_params(axis="y", which="minor", labelsize=7)


VALIDATION = FigureSpec(
    "heldout.png", "Validation loss by timestep", "Mean over seeds: 0 is data, 1 is noise.", validation
)


def ladder(analysis: Analysis) -> Plot | None:
    """Validation loss against the learning rate, median over seeds; a cross where most seeds were lost."""
    rows = analysis.ladders
    if not rows:
        return None
    figure, axis = canvas(7, 4)
    data = []
    known = [rung.loss for row in rows for rung in row.rungs if rung.loss is not None]
    top = 2.2 * min(known) if known else 1.0
    for index, row in enumerate(rows):
        held = [(rung.value, rung.loss) for rung in row.rungs if rung.loss is not None and rung.loss <= top]
        axis.plot([x for x, _ in held], [y for _, y in held], label=row.name, **style(index))
        lost = [rung.value for rung in row.rungs if 2 * rung.lost > rung.seeds]
        height = top * (1 - 0.02 * index)
        axis.plot(lost, [height] * len(lost), color=style(index)["color"], marker="x", linestyle="none")
        data += [
            {"variant": row.name, "learning_rate": r.value, "heldout_loss": r.loss, "lost": r.lost, "seeds": r.seeds}
            for r in row.rungs
        ]
    axis.set(xscale="log", xlabel="learning rate", ylabel="validation loss (lower is better)")
    axis.grid(alpha=0.3)
    legend(figure, axis)
    return render(figure), data


LADDER = FigureSpec(
    "ladder.png",
    "Learning rates",
    "Median validation loss over seeds; a cross where most seeds were lost (above twice their lowest, or no number).",
    ladder,
)


def parameters(analysis: Analysis) -> Plot | None:
    """Bars of parameters by what they serve, distinct by hatches too."""
    parts = ("backbone", "modulation", "prompt", "scheme")
    counts = [Measurement.of(f"parameters_{part}") for part in parts]
    keys = [count.key for count in counts]
    rows = [row for row in analysis.rows if all(key in row.values for key in keys[:3])]
    if not rows:
        return None
    figure, axis = canvas(7, 0.45 * len(rows) + 1.4)
    left = np.zeros(len(rows))
    names = [row.name for row in rows]
    for part, count, colour, hatch in zip(
        parts, counts, ("#DDDDDD", COLOURS[0], COLOURS[4], COLOURS[2]), ("", "//", "..", "xx"), strict=True
    ):
        widths = np.array([row.values.get(count.key, [0.0])[0] / count.metric.scale for row in rows])
        if part == "scheme" and not widths.any():  # what a scheme has of its own, which most have not
            continue
        axis.barh(names, widths, left=left, color=colour, hatch=hatch, edgecolor="black", label=part)
        left += widths
    axis.invert_yaxis()
    axis.set_xlabel("parameters, M")
    axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    return render(figure), [
        {"variant": row.name} | {key: row.values.get(key, [0.0])[0] for key in keys} for row in rows
    ]


PARAMETERS = FigureSpec(
    "parameters.png", "Where the parameters are", "By what they serve; equal but for the scheme.", parameters
)


def bias(sets: dict[str, Any], least: int) -> bytes:
    """FID over 1 / N with the line to its limit, a panel a set: see `bench/studies/bias.py`."""
    figure, axes = canvas(4.2 * len(sets), 3.6, ncols=len(sets), squeeze=False)
    for axis, (name, measured) in zip(axes.flat, sets.items(), strict=True):
        points, limit = measured["points"], measured["limit"]
        x = [1 / point["n"] for point in points for _ in point["fid"]]
        y = [value for point in points for value in point["fid"]]
        axis.plot(x, y, linestyle="none", marker="o", markersize=4, color=COLOURS[0], label="FID of N against N")
        ends = np.array([0, 1 / least])
        axis.plot(ends, limit["fid"] + limit["slope"] * ends, color=COLOURS[1], label=f"limit {limit['fid']:.1f}")
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set(title=f"against {name}", xlabel="1 / N", ylabel="FID (lower is better)")
        axis.set_xticks([1 / point["n"] for point in points], [f"1/{point['n']:,}" for point in points])
        axis.tick_params(axis="x", labelrotation=90, labelsize=6)
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return render(figure)
