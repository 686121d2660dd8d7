"""The report's pictures: quality against cost, control, the same noise side by side, losses, how blocks learn. Needs
no torch.

Readable in black and white and by the colour-blind: every line has its own dash and marker, every axis its unit.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.findings.analysis import VariantSummary, columns, summaries
from bench.findings.ladder import ladders
from bench.store.folders import name_of
from bench.store.metrics import ATTRIBUTES, Measurement, find
from bench.store.table import CellRecord, Table

# Okabe and Ito's colours, told apart by every eye; with dashes and markers also without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 2)))
MARKERS = "osD^vP*X"
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")
QUALITY_COST = "Means over seeds, bars their 95 % intervals; no row is better and cheaper than one on the grey line."
PLANE = "Accuracy corrected for chance, means over four attributes; bars are 95 % intervals over seeds."
ATTRIBUTE_BARS = "0 is no better than a picture of something else, 1 is always right; left local, right global."
SWAP = (
    "One word of the caption changed, the noise the same: the mean change of the picture, darker is more. Local words "
    "are centred on the object's cell (framed). The number is the locality: 1 all inside, 0 as anywhere. Maps of "
    "less than a twentieth of the real change are pale."
)
FAINT = 1 / 20
LADDER = "Median held-out loss over seeds; a cross where most seeds were lost (above twice their lowest, or no number)."
OPENING = "|what a block adds| over |its input|, by depth and step (steps 1, 2, 4, ... then evenly); the first seed."
GATES_TIME = "Mean |gate| of every branch of the trained model, by time: 0 is data, 1 is noise; the first seed."
SCALES_TIME = "Mean |scale| of every branch of the trained model, by time; the first seed."
GRADIENTS = "Norm of every block's gradient before clipping, by depth and step; the first seed."


def style(index: int) -> dict[str, Any]:
    """Colour, dash and marker of line `index`."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 4,
    }


Drawn = tuple[bytes, list[dict[str, Any]]]  # a PNG, and the numbers it shows


@dataclass(frozen=True)
class Figure:
    """A picture of the report.

    Attributes:
        file: name of its PNG. data: the numbers it shows, a row a point; empty for pictures.
    """

    file: str
    title: str
    caption: str
    png: bytes
    data: list[dict[str, Any]]


def plot_all(table: Table, kept: Path | None = None) -> list[Figure]:
    """Draws every figure there is something for.

    Args:
        kept: a record's folder, whose pictures are shown where those they are made of are not there.
    """
    made: list[tuple[str, str, str, Callable[[Table], Drawn | None]]] = [
        ("quality-cost.png", "Quality against cost", QUALITY_COST, quality_cost),
        ("plane.png", "Local and global control", PLANE, plane),
        ("attributes.png", "Control of every attribute", ATTRIBUTE_BARS, attributes),
        ("guidance.png", "Control along guidance", "Means over seeds, bars their 95 % intervals.", guidance),
        ("swap.png", "Where a changed word lands", SWAP, swap),
        ("samples.png", "Samples", "The same prompts and the same noise, a row a variant.", samples),
        ("training.png", "Samples over training", "One prompt, the same noise, after more and more steps.", training),
        ("loss.png", "Training loss", "Mean over windows of steps, the first seed of each variant.", loss),
        ("heldout.png", "Held-out loss by timestep", "Mean over seeds: 0 is data, 1 is noise.", heldout),
        ("ladder.png", "Learning rates", LADDER, ladder),
        ("opening.png", "How far blocks move the stream", OPENING, lambda table: depth_maps(table, "open")),
        ("gates.png", "Gates", "Mean |gate| of every branch over training.", lambda table: depth_maps(table, "gate")),
        ("gates-time.png", "Gates by timestep", GATES_TIME, lambda table: depth_maps(table, "gate", "times")),
        ("scales-time.png", "Scales by timestep", SCALES_TIME, lambda table: depth_maps(table, "scale", "times")),
        ("gradients.png", "Gradients", GRADIENTS, lambda table: depth_maps(table, "gradient")),
        ("parameters.png", "Where the parameters are", "By what they serve; equal but for the scheme.", parameters),
    ]
    shown = []
    for file, title, caption, draw in made:
        drawn = draw(table)
        if drawn is None and kept is not None and (kept / file).is_file():
            drawn = (kept / file).read_bytes(), []
        if drawn is not None:
            shown.append(Figure(file, title, caption, *drawn))
    return shown


def _figure(width: float, height: float, **grid: Any) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained", **grid)


def _legend(figure: Any, axis: Any) -> None:
    """Inside the axis while the lines are few; else beside it, on a figure made as large as it needs."""
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) <= 10:
        axis.legend(fontsize=8)
        return
    columns = -(-len(labels) // 24)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 2.0 * columns, max(height, 4.5))
    figure.legend(handles, labels, loc="outside right upper", ncols=columns, fontsize=6)


def _png(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": "ditbench"})
    plt.close(figure)
    return buffer.getvalue()


def _first_cells(table: Table) -> dict[str, CellRecord]:
    """The first finished seed of each variant, by the row's name."""
    first: dict[str, CellRecord] = {}
    for cell in table.done:
        first.setdefault(name_of(cell.row), cell)
    return first


def samples(table: Table, most: int = 8) -> Drawn | None:
    """Rows variants, columns prompts; the first seed of each variant."""
    grids = {name: cell.grid for name, cell in _first_cells(table).items() if cell.grid is not None}
    if not grids:
        return None
    pictures = {name: np.load(path) for name, path in grids.items()}
    prompts = json.loads(next(iter(grids.values())).with_suffix(".json").read_text())["prompts"]
    count = min(most, *(len(grid) for grid in pictures.values()))
    titles = [textwrap.fill(textwrap.shorten(prompt, 110, placeholder=" ..."), 20) for prompt in prompts[:count]]
    return image_rows(list(pictures), [list(grid[:count]) for grid in pictures.values()], titles), []


def training(table: Table, most: int = 8) -> Drawn | None:
    """Rows variants, columns steps of training; the last prompt's picture, from the same noise each time."""
    found = {name: cell.grids for name, cell in _first_cells(table).items() if len(cell.grids) > 1}
    steps = sorted(set.intersection(*(set(grids) for grids in found.values()))) if found else []
    if len(steps) < 2:
        return None
    steps = [steps[k] for k in np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))]
    rows = [[np.load(grids[step])[-1] for step in steps] for grids in found.values()]
    return image_rows(list(found), rows, [f"step {step:,}" for step in steps], size=8), []


def image_rows(names: list[str], rows: list[list[np.ndarray]], titles: list[str], size: float = 5.5) -> bytes:
    """Pictures in rows under titles, each row with its name. One canvas: many axes would take minutes."""
    height, width, gap = rows[0][0].shape[0], rows[0][0].shape[1], max(1, rows[0][0].shape[0] // 16)
    canvas = np.full((len(rows) * (height + gap) - gap, len(titles) * (width + gap) - gap, 3), 255, np.uint8)
    for i, pictures in enumerate(rows):
        for j, picture in enumerate(pictures):
            y, x = i * (height + gap), j * (width + gap)
            canvas[y : y + height, x : x + width] = picture
    figure, axis = _figure(1.25 * len(titles) + 1.6, 1.25 * len(rows) + 1.0)
    axis.imshow(canvas, interpolation="nearest")
    labels = ["\n".join(textwrap.wrap(name.replace("-", "- "), 14)).replace("- ", "-") for name in names]
    axis.set_yticks([i * (height + gap) + height / 2 for i in range(len(rows))], labels, fontsize=8)
    axis.set_xticks([j * (width + gap) + width / 2 for j in range(len(titles))], titles, fontsize=size)
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    return _png(figure)


def loss(table: Table) -> Drawn | None:
    """Training loss over steps."""
    lines: dict[str, dict[int, float]] = {}
    for cell in table.cells:
        if cell.curves.get("loss"):
            lines.setdefault(name_of(cell.row), cell.curves["loss"])
    if not lines:
        return None
    figure, axis = _figure(7, 4)
    for index, (name, points) in enumerate(lines.items()):
        steps, values = list(points), _smooth(list(points.values()))
        axis.plot(steps, values, label=name, markevery=max(1, len(steps) // 8), **style(index))
    axis.set(
        xlabel="step",
        ylabel="training loss (lower is better)",
        ylim=_robust([v for p in lines.values() for v in p.values()]),
    )
    axis.grid(alpha=0.3)
    _legend(figure, axis)
    return _png(figure), [{"variant": n, "step": k, "loss": v} for n, p in lines.items() for k, v in p.items()]


def _smooth(values: list[float], window: int = 3) -> list[float]:
    return [float(np.mean(values[max(0, k - window + 1) : k + 1])) for k in range(len(values))]


def _robust(values: Iterable[float]) -> tuple[float, float]:
    """Limits that a first steep fall does not squeeze the rest for."""
    found = np.array([value for value in values if np.isfinite(value)])
    return float(found.min() * 0.95), float(np.quantile(found, 0.9) * 1.1)


def heldout(table: Table) -> Drawn | None:
    """Held-out loss by timestep bin."""
    rows = [row for row in summaries(table) if "heldout_loss_bin0" in row.values]
    if not rows:
        return None
    bins = sum(Measurement.parse(key).metric.made_by == "bin" for key in rows[0].values)
    figure, axis = _figure(7, 4)
    places = (np.arange(bins) + 0.5) / bins
    for index, row in enumerate(rows):
        values = [row.mean(f"heldout_loss_bin{k}") for k in range(bins)]
        axis.plot(places, values, label=row.name, **style(index))
    axis.set(xlabel="timestep t (0 data, 1 noise)", ylabel="held-out loss (lower is better)", xlim=(0, 1))
    axis.grid(alpha=0.3)
    _legend(figure, axis)
    data = [
        {"variant": row.name, "t": float(t), "heldout_loss": row.mean(f"heldout_loss_bin{k}")}
        for row in rows
        for k, t in enumerate(places)
    ]
    return _png(figure), data


def quality_cost(table: Table) -> Drawn | None:
    """The first quality column against throughput and parameters."""
    rows = [row for row in summaries(table) if row.values]
    if not rows:
        return None
    quality = columns(rows)[0]
    costs = [
        ("train_images_per_second", "training images/s (more is better)", 1.0),
        ("parameters_total", "parameters, M (fewer is better)", 1e6),
    ]
    figure, axes = _figure(9, 4, ncols=2, sharey=True)
    for axis, (key, label, unit) in zip(axes, costs, strict=True):
        front = _front(rows, key, quality.key, more="more" in label, higher=quality.better == "higher")
        axis.plot([x / unit for x, _ in front], [y for _, y in front], color="#999999", linewidth=1, zorder=0)
        for index, row in enumerate(rows):
            x, y = row.mean(key), row.mean(quality.key)
            if x is None or y is None:
                continue
            look = style(index) | {"linestyle": "none", "markersize": 8}
            axis.errorbar(
                x / unit,
                y,
                xerr=(row.interval(key) or 0) / unit or None,
                yerr=row.interval(quality.key),
                label=row.name,
                capsize=3,
                **look,
            )
        axis.set_xlabel(label)
        axis.margins(0.15)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"{quality.heading} ({quality.better} is better)")
    handles, labels = axes[0].get_legend_handles_labels()
    lines = -(-len(labels) // 4)
    figure.set_size_inches(9, 3.7 + 0.17 * lines)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8 if lines < 4 else 6
    )
    keys = (quality.key, *(key for key, _, _ in costs))
    data = [{"variant": row.name} | {k: row.mean(k) for k in keys} for row in rows]
    data = [told | {f"{k}_ci95": row.interval(k) for k in keys} for told, row in zip(data, rows, strict=True)]
    return _png(figure), data


def _front(
    rows: list[VariantSummary], cost: str, quality: str, *, more: bool, higher: bool
) -> list[tuple[float, float]]:
    """The Pareto front of means: points than which none is better at no higher cost."""
    points = [(row.mean(cost), row.mean(quality)) for row in rows]
    known = sorted(((x, y) for x, y in points if x is not None and y is not None), reverse=more)
    front: list[tuple[float, float]] = []
    for x, y in known:
        if not front or (y > front[-1][1] if higher else y < front[-1][1]):
            front.append((x, y))
    return front


# --- control ----------------------------------------------------------------------------------------------------------


def plane(table: Table) -> Drawn | None:
    """Local control against global control, with what real pictures reach."""
    rows = summaries(table)
    x_key, y_key = (_one(rows, kind) for kind in ("global", "local"))
    if x_key is None or y_key is None:
        return None
    figure, axis = _figure(6.5, 5)
    data = []
    for index, row in enumerate(rows):
        x, y = row.mean(x_key), row.mean(y_key)
        if x is None or y is None:
            continue
        look = style(index) | {"linestyle": "none", "markersize": 8}
        axis.errorbar(x, y, xerr=row.interval(x_key), yerr=row.interval(y_key), label=row.name, capsize=3, **look)
        data.append({"variant": row.name, "global": x, "local": y})
        data[-1] |= {"global_ci95": row.interval(x_key), "local_ci95": row.interval(y_key)}
    ceilings = [_one(rows, kind) for kind in ("real_global", "real_local")]
    if all(ceilings):
        x, y = (next(row.mean(key) for row in rows if row.mean(key) is not None) for key in ceilings if key)
        axis.plot(x, y, marker="*", markersize=14, color="black", linestyle="none", label="real pictures")
        data.append({"variant": "real pictures", "global": x, "local": y})
    axis.set(
        xlabel="global control: tone, time, texture, background", ylabel="local control: shape, colour, size, place"
    )
    axis.grid(alpha=0.3)
    _legend(figure, axis)
    return _png(figure), data


def attributes(table: Table) -> Drawn | None:
    """Bars of corrected accuracy, an attribute a group, told apart by hatches too."""
    rows = [row for row in summaries(table) if row.values]
    keys = {name: key for name in ATTRIBUTES if (key := _one(rows, name)) is not None}
    if len(keys) < len(ATTRIBUTES):
        return None
    figure, axis = _figure(max(8.0, 0.11 * len(rows) * len(keys) + 3), 4)
    width = 0.85 / len(rows)
    data = []
    for index, row in enumerate(rows):
        means = [row.mean(key) or 0.0 for key in keys.values()]
        errors = [row.interval(key) or 0.0 for key in keys.values()]
        at = np.arange(len(keys)) + (index - (len(rows) - 1) / 2) * width
        axis.bar(
            at, means, width, yerr=errors, label=row.name, color=COLOURS[index % len(COLOURS)], edgecolor="black",
            hatch=HATCHES[index % len(HATCHES)], linewidth=0.4, error_kw={"linewidth": 0.8},
        )  # fmt: skip
        data += [
            {"variant": row.name, "attribute": name, "corrected": row.mean(key), "ci95": row.interval(key)}
            for name, key in keys.items()
        ]
    axis.axhline(0, color="black", linewidth=0.8)
    axis.axvline(3.5, color="#999999", linewidth=0.8, linestyle=":")
    axis.set_xticks(range(len(keys)), list(keys))
    axis.set(ylabel="accuracy, corrected for chance", ylim=(min(0, axis.get_ylim()[0]), 1))
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=min(5, len(rows)), fontsize=7)
    return _png(figure), data


def guidance(table: Table) -> Drawn | None:
    """Local and global control against the guidance scale."""
    rows = [row for row in summaries(table) if row.values]
    own = table.manifest["config"]["sample"]["guidance"]
    scales = {scale for row in rows for key in row.values if (scale := Measurement.parse(key).guidance) is not None}
    if not scales:
        return None
    figure, axes = _figure(9, 4, ncols=2, sharex=True)
    data = []
    for axis, kind in zip(axes, ("local", "global"), strict=True):
        for index, row in enumerate(rows):
            keys = {scale: _one([row], f"guidance{scale:g}_{kind}") for scale in scales} | {own: _one([row], kind)}
            known = sorted((scale, key) for scale, key in keys.items() if key is not None)
            means = [row.mean(key) for _, key in known]
            errors = [row.interval(key) or 0.0 for _, key in known]
            axis.errorbar([s for s, _ in known], means, yerr=errors, label=row.name, capsize=2, **style(index))
            data += [
                {"variant": row.name, "kind": kind, "guidance": s, "corrected": m}
                for (s, _), m in zip(known, means, strict=True)
            ]
        axis.set(xlabel="guidance scale", ylabel=f"{kind} control")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(5, len(rows)), fontsize=7)
    return _png(figure), data


def swap(table: Table) -> Drawn | None:
    """Heat maps, rows variants and real pictures, columns attributes; each map by its own largest value, or by `FAINT`
    of the real pictures' where it is less: a word that changes nothing leaves its map white."""
    probes = {name: cell.result.probes for name, cell in _first_cells(table).items() if cell.result}
    maps = {name: told["swap"] for name, told in probes.items() if told.get("swap")}
    if not maps:
        return None
    real = next((told["real_swap"] for told in probes.values() if told.get("real_swap")), None)
    rows = ({"real pictures": real} if real else {}) | maps
    means = {row.name: row for row in summaries(table)}
    figure, axes = _figure(
        1.15 * len(ATTRIBUTES) + 1.6, 1.3 * len(rows) + 0.6, nrows=len(rows), ncols=len(ATTRIBUTES), squeeze=False
    )
    data = []
    for i, (name, one) in enumerate(rows.items()):
        for j, attribute in enumerate(ATTRIBUTES):
            axis, values = axes[i][j], np.asarray(one[attribute])
            least = FAINT * float(np.max(real[attribute])) if real else 1e-9
            axis.imshow(values, cmap="Greys", vmin=0, vmax=max(float(values.max()), least))
            axis.set_xticks([])
            axis.set_yticks([])
            if len(values) == 15:  # centred on the object's cell
                axis.plot([5.5, 8.5, 8.5, 5.5, 5.5], [5.5, 5.5, 8.5, 8.5, 5.5], color=COLOURS[1], linewidth=0.8)
            index = _locality(means, name, attribute)
            axis.set_title(attribute if i == 0 else "", fontsize=8)
            axis.set_xlabel("" if index is None else f"{index:+.2f}", fontsize=7)
            data.append({"variant": name, "attribute": attribute, "locality": index, "largest": float(values.max())})
        axes[i][0].set_ylabel("\n".join(textwrap.wrap(name, 14)), fontsize=8)
    return _png(figure), data


def _locality(rows: dict[str, VariantSummary], name: str, attribute: str) -> float | None:
    if name in rows:
        key = _one([rows[name]], f"locality_{attribute}")
        return rows[name].mean(key) if key else None
    for row in rows.values():
        key = _one([row], f"real_locality_{attribute}")
        if key:
            return row.mean(key)
    return None


def _one(rows: list[VariantSummary], name: str) -> str | None:
    """The metric that a short name means, or None."""
    try:
        return find([key for row in rows for key in row.values], name)
    except ValueError:
        return None


# --- learning ---------------------------------------------------------------------------------------------------------


def ladder(table: Table) -> Drawn | None:
    """Held-out loss against the learning rate, median over seeds; a cross where most seeds were lost."""
    found = ladders(table)
    if not found:
        return None
    figure, axis = _figure(7, 4)
    data = []
    known = [rung.loss for one in found for rung in one.rungs if rung.loss is not None]
    top = 2.2 * min(known) if known else 1.0
    for index, one in enumerate(found):
        held = [(rung.value, rung.loss) for rung in one.rungs if rung.loss is not None and rung.loss <= top]
        axis.plot([x for x, _ in held], [y for _, y in held], label=one.name, **style(index))
        gone = [rung.value for rung in one.rungs if 2 * rung.lost > rung.seeds]
        axis.plot(
            gone,
            [top * (1 - 0.02 * index)] * len(gone),
            color=COLOURS[index % len(COLOURS)],
            marker="x",
            linestyle="none",
        )
        data += [
            {"variant": one.name, "learning_rate": r.value, "heldout_loss": r.loss, "lost": r.lost, "seeds": r.seeds}
            for r in one.rungs
        ]
    axis.set(xscale="log", xlabel="learning rate", ylabel="held-out loss (lower is better)")
    axis.grid(alpha=0.3)
    _legend(figure, axis)
    return _png(figure), data


def depth_maps(table: Table, kind: str, over: str = "dynamics", most: int = 12) -> Drawn | None:
    """Heat maps of depth over training steps (`dynamics`) or over t (`times`), one a variant, on one scale; the first
    seed of each."""
    along, column, mark = {"dynamics": ("steps", "step", "{:,}"), "times": ("t", "t", "{:g}")}[over]
    probes = {name: cell.result.probes.get(over, {}) for name, cell in _first_cells(table).items() if cell.result}
    found = {name: told[kind] for name, told in probes.items() if kind in told}
    if not found:
        return None
    found = dict(list(found.items())[:most])
    columns = min(4, len(found))
    lines = -(-len(found) // columns)
    tall = max(len(one["rows"]) for one in found.values())
    figure, axes = _figure(
        2.9 * columns + 1.2, (0.11 * tall + 1.1) * lines + 0.5, nrows=lines, ncols=columns, squeeze=False
    )
    every = np.concatenate([np.ravel(one["values"]) for one in found.values()])
    top = max(float(np.quantile(every, 0.99)), 1e-9)
    data, shown = [], None
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    for axis, (name, one) in zip(axes.flat, found.items(), strict=False):
        shown = axis.imshow(one["values"], aspect="auto", cmap="cividis", vmin=0, vmax=top, interpolation="nearest")
        axis.set_title(name, fontsize=8)
        marks = np.unique(np.linspace(0, len(one[along]) - 1, 4).round().astype(int))
        axis.set_xticks(marks, [mark.format(one[along][k]) for k in marks], fontsize=6)
        rows = range(0, len(one["rows"]), max(1, len(one["rows"]) // 8))
        axis.set_yticks(list(rows), [one["rows"][k] for k in rows], fontsize=5)
        data += [
            {"variant": name, "row": row, column: at, kind: value}
            for row, values in zip(one["rows"], one["values"], strict=True)
            for at, value in zip(one[along], values, strict=True)
        ]
    figure.colorbar(shown, ax=axes, shrink=0.8)
    return _png(figure), data


def bias(sets: dict[str, Any], least: int) -> bytes:
    """FID over 1 / N with the line to its limit, a panel a set: see `bench/bias.py`."""
    figure, axes = _figure(4.2 * len(sets), 3.6, ncols=len(sets), squeeze=False)
    for axis, (name, one) in zip(axes.flat, sets.items(), strict=True):
        x = [1 / point["n"] for point in one["points"] for _ in point["fid"]]
        y = [value for point in one["points"] for value in point["fid"]]
        end = one["limit"]
        axis.plot(x, y, linestyle="none", marker="o", markersize=4, color=COLOURS[0], label="FID of N against N")
        ends = np.array([0, 1 / least])
        axis.plot(ends, end["fid"] + end["slope"] * ends, color=COLOURS[1], label=f"limit {end['fid']:.1f}")
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set(title=f"against {name}", xlabel="1 / N", ylabel="FID (lower is better)")
        axis.set_xticks([1 / point["n"] for point in one["points"]], [f"1/{point['n']:,}" for point in one["points"]])
        axis.tick_params(axis="x", labelrotation=90, labelsize=6)
        axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    return _png(figure)


def parameters(table: Table) -> Drawn | None:
    """Bars of parameters by what they serve; told apart by hatches too."""
    parts = ("backbone", "modulation", "prompt")
    rows = [row for row in summaries(table) if all(f"parameters_{part}" in row.values for part in parts)]
    if not rows:
        return None
    figure, axis = _figure(7, 0.45 * len(rows) + 1.4)
    left = np.zeros(len(rows))
    for part, colour, hatch in zip(parts, ("#DDDDDD", COLOURS[0], COLOURS[4]), ("", "//", ".."), strict=True):
        widths = np.array([row.values[f"parameters_{part}"][0] / 1e6 for row in rows])
        axis.barh(
            [row.name for row in rows], widths, left=left, color=colour, hatch=hatch, edgecolor="black", label=part
        )
        left += widths
    axis.invert_yaxis()
    axis.set_xlabel("parameters, M")
    axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    keys = [f"parameters_{part}" for part in parts]
    return _png(figure), [{"variant": row.name} | {key: row.values[key][0] for key in keys} for row in rows]
