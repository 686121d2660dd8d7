"""What the numbers of a matrix cannot say, in sentences that README, report and record share. Imports no torch."""

from __future__ import annotations

from typing import Any

from bench.findings.analysis import Analysis
from bench.findings.peers import of_tasks

OF_TASKS = (
    "Each number is a capability within a budget: these steps, this width, small images made for one question. None "
    "says that a scheme is better.",
    "Rankings of small models often do not carry over to large ones, to other data or to other metrics "
    "(Tay et al. 2022; between ImageNet and text-to-image, rank correlations of -.38 to -.58 are reported).",
    "A task tests one ability. It is void, and says nothing, if a model that is given the answer fails or one that "
    "never sees the prompt succeeds; one that every scheme masters, or none, ranks nobody.",
)
OF_SMALL_SCENES = (
    "At this size no scheme learns to place an object: DiT's sin-cos positions hardly separate the tokens of a small "
    "grid, and a velocity target does not pass through so small a width. What is undecided here, this size could not "
    "show."
)
OF_FORMER_TASKS = (
    "`grain`, `clock` and `count` had tokens of 4 x 4 px then, and not even the oracle came to a score of .9: by the "
    "suite's own rule they were void. They have been cut smaller since, and what is asked here was put to fresh seeds."
)
FORMER_TASKS = {"grain", "clock", "count"}  # whose tokens are smaller now, so that no backbone of 4 px fits them
NARROW = 128  # width up to which that was seen


def limits(analysis: Analysis) -> list[str]:
    """The sentences that hold for a matrix; none where nothing special does."""
    could_not = outdated(analysis.table.manifest["config"])
    return [*(OF_TASKS if of_tasks(analysis.table) else ()), *([could_not] if could_not else ())]


def outdated(config: dict[str, Any]) -> str:
    """What a matrix could not show, of those that have been asked again since, as a sentence; else empty."""
    return OF_SMALL_SCENES if small_scenes(config) else OF_FORMER_TASKS if former_tasks(config) else ""


def small_scenes(config: dict[str, Any]) -> bool:
    """Whether a matrix is of scenes at the size of the older claims, with their positions and target."""
    backbone, data, train = (config.get(group) or {} for group in ("backbone", "data", "train"))
    plain = backbone.get("positions", "sincos") == "sincos" and train.get("target", "velocity") == "velocity"
    return plain and data.get("source", "scenes") == "scenes" and 0 < (backbone.get("width") or 0) <= NARROW


def former_tasks(config: dict[str, Any]) -> bool:
    """Whether a matrix has a task as it was when it was void."""
    named = (config.get("axes") or {}).get("data.task") or [(config.get("data") or {}).get("task")]
    return str((config.get("backbone") or {}).get("name")).endswith("/4") and not FORMER_TASKS.isdisjoint(named)
