"""Prompt adherence: local against global, by attribute, along guidance, and where a changed word lands."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from bench.findings.analysis import Analysis
from bench.findings.peers import of_tasks
from bench.findings.summary import VariantSummary
from bench.store.metrics import ATTRIBUTES, GLOBAL_ATTRIBUTES, LOCAL_ATTRIBUTES, Measurement, find
from bench.views.figures.style import (
    COLOURS,
    FILLS,
    HATCHES,
    IN_LEGEND,
    FigureSpec,
    Label,
    Plot,
    canvas,
    label_points,
    legend,
    legend_below,
    point_style,
    render,
    style,
)

REAL = "real images"
FAINT = 1 / 20  # of the real images' change: a map below it is pale


def plane(analysis: Analysis) -> Plot | None:
    """Local against global adherence, with what real images reach; of tasks, whose attributes differ, nothing."""
    if of_tasks(analysis.table):
        return None
    rows = analysis.rows
    keys = [_key(rows, kind) for kind in ("global", "local")]
    x_key, y_key = keys
    if x_key is None or y_key is None:
        return None
    figure, axis = canvas(7 if len(rows) > IN_LEGEND else 6.5, 5)
    data: list[dict[str, Any]] = []
    labels = []
    for index, row in enumerate(rows):
        x, y = row.mean(x_key), row.mean(y_key)
        if x is None or y is None:
            continue
        bars = {"xerr": row.interval(x_key), "yerr": row.interval(y_key)}
        axis.errorbar(x, y, **bars, label=row.name, capsize=3, elinewidth=0.8, **point_style(index))
        labels.append(Label(row.name, x, y, point_style(index)["color"]))
        data.append({"variant": row.name, "global": x, "local": y})
        data[-1] |= {"global_ci95": bars["xerr"], "local_ci95": bars["yerr"]}
    real = _real(rows)
    if real is not None:
        axis.plot(*real, marker="*", markersize=14, color="black", linestyle="none", label=REAL)
        labels.append(Label(REAL, *real, "black"))
        data.append({"variant": REAL, "global": real[0], "local": real[1]})
    axis.set_xlabel(f"global adherence ({', '.join(GLOBAL_ATTRIBUTES)})")
    axis.set_ylabel(f"local adherence ({', '.join(LOCAL_ATTRIBUTES)})")
    axis.grid(alpha=0.3)
    if len(labels) > IN_LEGEND:
        label_points(axis, labels)
    else:
        legend(figure, axis)
    return render(figure), data


def _real(rows: list[VariantSummary]) -> tuple[float, float] | None:
    """(global, local) adherence of real images: what a judge's own errors leave."""
    means = []
    for kind in ("real_global", "real_local"):
        key = _key(rows, kind)
        means += [mean for row in rows if key and (mean := row.mean(key)) is not None][:1]
    return (means[0], means[1]) if len(means) == 2 else None


PLANE = FigureSpec(
    "plane.png",
    "Local and global adherence",
    "Accuracy corrected for chance, means over four attributes; bars are 95 % intervals over seeds.",
    plane,
)


def attributes(analysis: Analysis) -> Plot | None:
    """Bars of corrected accuracy, an attribute a group, distinct by hatches too."""
    rows = [row for row in analysis.rows if row.values]
    keys = {name: key for name in ATTRIBUTES if (key := _key(rows, name)) is not None}
    if len(keys) < len(ATTRIBUTES):
        return None
    figure, axis = canvas(max(8.0, 0.11 * len(rows) * len(keys) + 3), 4)
    width = 0.85 / len(rows)
    data = []
    for index, row in enumerate(rows):
        means = [row.mean(key) or 0.0 for key in keys.values()]
        errors = [row.interval(key) or 0.0 for key in keys.values()]
        at = np.arange(len(keys)) + (index - (len(rows) - 1) / 2) * width
        axis.bar(
            at, means, width, yerr=errors, label=row.name, color=FILLS[index % len(FILLS)], edgecolor="black",
            hatch=HATCHES[index % len(HATCHES)], linewidth=0.4, error_kw={"linewidth": 0.8},
        )  # fmt: skip
        data += [
            {"variant": row.name, "attribute": name, "corrected": row.mean(key), "ci95": row.interval(key)}
            for name, key in keys.items()
        ]
    axis.axhline(0, color="black", linewidth=0.8)
    axis.axvline(len(LOCAL_ATTRIBUTES) - 0.5, color="#999999", linewidth=0.8, linestyle=":")
    axis.set_xticks(range(len(keys)), list(keys))
    axis.set(ylabel="adherence (accuracy, corrected for chance)", ylim=(min(0, axis.get_ylim()[0]), 1))
    legend_below(figure, axis)
    return render(figure), data


ATTRIBUTE_BARS = FigureSpec(
    "attributes.png",
    "Prompt adherence by attribute",
    "0 is no better than an image of something else, 1 is always right; left local, right global.",
    attributes,
)


def guidance(analysis: Analysis) -> Plot | None:
    """Local and global adherence against the guidance scale."""
    rows = [row for row in analysis.rows if row.values]
    own = analysis.table.manifest["config"]["sample"]["guidance"]
    scales = {scale for row in rows for key in row.values if (scale := Measurement.parse(key).guidance) is not None}
    if not scales:
        return None
    figure, axes = canvas(9, 4, ncols=2, sharex=True)
    data = []
    for axis, kind in zip(axes, ("local", "global"), strict=True):
        for index, row in enumerate(rows):
            keys = {scale: _key([row], f"guidance{scale:g}_{kind}") for scale in scales} | {own: _key([row], kind)}
            known = sorted((scale, key) for scale, key in keys.items() if key is not None)
            means = [row.mean(key) for _, key in known]
            errors = [row.interval(key) or 0.0 for _, key in known]
            axis.errorbar(
                [s for s, _ in known], means, yerr=errors, label=row.name, capsize=2, elinewidth=0.8, **style(index)
            )
            data += [
                {"variant": row.name, "kind": kind, "guidance": s, "corrected": m}
                for (s, _), m in zip(known, means, strict=True)
            ]
        axis.set(xlabel="guidance scale", ylabel=f"{kind} adherence")
        axis.grid(alpha=0.3)
    legend_below(figure, axes[0])
    return render(figure), data


GUIDANCE = FigureSpec(
    "guidance.png",
    "Prompt adherence by guidance scale",
    "Means over seeds, bars their 95 % intervals.",
    guidance,
)


def swap(analysis: Analysis) -> Plot | None:
    """Heat maps, rows variants and real images, columns attributes.

    Each map by its own largest value, or by `FAINT` of the real images' where it is less: a word that changes nothing
    leaves its map white.
    """
    probes = {name: cell.result.probes for name, cell in analysis.first_cells.items() if cell.result}
    maps = {name: probe["swap"] for name, probe in probes.items() if probe.get("swap")}
    if not maps:
        return None
    real = next((probe["real_swap"] for probe in probes.values() if probe.get("real_swap")), None)
    rows = ({REAL: real} if real else {}) | maps
    means = {row.name: row for row in analysis.rows}
    size = (1.15 * len(ATTRIBUTES) + 1.6, 1.3 * len(rows) + 0.6)
    figure, axes = canvas(*size, nrows=len(rows), ncols=len(ATTRIBUTES), squeeze=False)
    data = []
    for i, (name, by_attribute) in enumerate(rows.items()):
        for j, attribute in enumerate(ATTRIBUTES):
            values = np.asarray(by_attribute[attribute])
            least = FAINT * float(np.max(real[attribute])) if real else 1e-9
            locality = _locality(means, name, attribute)
            _swap_map(axes[i][j], values, least, locality)
            axes[i][j].set_title(attribute if i == 0 else "", fontsize=8)
            data.append({"variant": name, "attribute": attribute, "locality": locality, "largest": float(values.max())})
        axes[i][0].set_ylabel("\n".join(textwrap.wrap(name, 14)), fontsize=8)
    return render(figure), data


def _swap_map(axis: Any, values: np.ndarray, least: float, locality: float | None) -> None:
    axis.imshow(values, cmap="Greys", vmin=0, vmax=max(float(values.max()), least))
    axis.set_xticks([])
    axis.set_yticks([])
    if len(values) == 15:  # centred on the object's cell
        axis.plot([5.5, 8.5, 8.5, 5.5, 5.5], [5.5, 5.5, 8.5, 8.5, 5.5], color=COLOURS[1], linewidth=0.8)
    axis.set_xlabel("" if locality is None else f"{locality:+.2f}", fontsize=7)


def _locality(rows: dict[str, VariantSummary], name: str, attribute: str) -> float | None:
    if name in rows:
        key = _key([rows[name]], f"locality_{attribute}")
        return rows[name].mean(key) if key else None
    for row in rows.values():
        key = _key([row], f"real_locality_{attribute}")
        if key:
            return row.mean(key)
    return None


SWAP = FigureSpec(
    "swap.png",
    "Where a changed word lands",
    "One word of the caption changed, the noise the same: the mean change of the image, darker is more. Local words "
    "are centred on the object's cell (framed). The number is the locality: 1 all inside, 0 as anywhere. Maps of "
    "less than a twentieth of the real change are pale.",
    swap,
)


def _key(rows: list[VariantSummary], name: str) -> str | None:
    """The metric that a short name means, or None."""
    try:
        return find([key for row in rows for key in row.values], name)
    except ValueError:
        return None
