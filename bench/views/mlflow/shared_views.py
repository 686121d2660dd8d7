"""Two shared views of MLflow's run table, and its chart page, in the form that MLflow's own Share button writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient

from bench.findings.summary import VariantSummary
from bench.store.metrics import SECTIONS as METRIC_SECTIONS
from bench.store.metrics import beside_fid
from bench.store.table import Table
from bench.views.address import BY_CELL, BY_VARIANT, MODE
from bench.views.mlflow.cell_run import SAMPLES
from bench.views.mlflow.words import inert, metric_name

KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"  # a tag by which the page opens for training
LONGEST = 5000  # characters of an experiment's tag, in the versions that take the fewest


def write_views(
    client: MlflowClient, experiment: Experiment, table: Table, rows: list[VariantSummary], parent: str,
    names: Mapping[str, str],
) -> None:  # fmt: skip
    """The views and the links to them as tags of the experiment; only what changed.

    Args:
        client: of the store.
        experiment: whose tags are set.
        table: the matrix's cells.
        rows: what they say together.
        parent: id of the parent's run, which holds the report.
        names: key on disk -> short name.
    """
    view = _run_table(rows, names) | _charts(table)
    axes = dict.fromkeys(axis for cell in table.cells for axis in cell.row.axes)
    keys = [{"mode": "param", "groupByData": key} for key in ("variant", *map(metric_name, axes))]  # means over seeds
    grouped = view | {"groupBy": {"aggregateFunction": "average", "groupByKeys": keys}}
    tags = {
        f"mlflow.sharedViewState.{BY_CELL}": json.dumps(view),
        f"mlflow.sharedViewState.{BY_VARIANT}": json.dumps(grouped),
        "mlflow.note.content": _note(table.name, f"#/experiments/{experiment.experiment_id}/runs", parent),
    }
    if KIND not in experiment.tags:  # whoever chose another mode keeps it
        tags[KIND] = TRAINING
    for key, text in tags.items():
        if experiment.tags.get(key) != text and len(text) <= LONGEST:
            client.set_experiment_tag(experiment.experiment_id, key, text)


def _note(name: str, here: str, parent: str) -> str:
    return (
        f"ditbench matrix **{inert(name)}**: [by cell]({here}?{MODE}&viewStateShareKey={BY_CELL}), "
        f"[by variant]({here}?{MODE}&viewStateShareKey={BY_VARIANT}), "
        f"[curves and samples]({here}?{MODE}&viewStateShareKey={BY_CELL}&compareRunsMode=CHART), "
        f"[report]({here}/{parent}/artifacts/report/report.html?{MODE})"
    )


def _run_table(rows: list[VariantSummary], names: Mapping[str, str]) -> dict[str, Any]:
    """The columns that a reader of a benchmark wants first, KID and FID before all, of the cells' runs.

    Sorted by variant, since MLflow folds runs into their parent when it sorts by date.
    """
    shown = beside_fid(key for row in rows for key in row.values)
    shown.sort(key=lambda measurement: measurement.metric.section != "quality" or measurement.metric.minor)
    shorts = [metric_name(names.get(measurement.key, measurement.key)) for measurement in shown]
    columns = ["params.`variant`", "params.`seed`", "tags.`status`", *(f"metrics.`{name}`" for name in shorts)]
    return {
        "selectedColumns": columns,
        "columnOrder": columns,
        "orderByKey": "params.`variant`",
        "orderByAsc": True,
        "runsHiddenMode": "FIRST_20_RUNS",
        "hideEmptyCharts": True,
        "searchFilter": "tags.kind = 'cell'",
    }


SECTIONS = {  # of the chart page, in a reader's order, and whether unfolded
    "Model metrics": True,
    "images": True,  # of the rates: MLflow takes the part of a name before a slash for a section
    SAMPLES: True,
    "train": True,
    **dict.fromkeys(METRIC_SECTIONS, False),
    "System metrics": False,
}


def _charts(table: Table) -> dict[str, Any]:
    """The sections of the chart page, and the samples at the last step.

    MLflow adds a chart of each metric to the section that prefixes its name.
    """
    shown = {"isReordered": False, "deleted": False, "isGenerated": True}
    samples = {
        "uuid": "ditbench-samples",
        "type": "IMAGE",
        "imageKeys": [f"{SAMPLES}/samples"],
        "deleted": False,
        "metricSectionId": f"ditbench-{SAMPLES}",
        "isGenerated": True,
        "runsCountToCompare": 10,
        "step": table.manifest["config"]["train"]["steps"],
    }
    return {
        "compareRunCharts": [samples],
        "compareRunSections": [
            {"uuid": f"ditbench-{name}", "name": name, "display": unfolded} | shown
            for name, unfolded in SECTIONS.items()
        ],
        "isAccordionReordered": True,
    }
