"""What a metric is: one table, which every column, direction, margin, section, caveat and claim is read from.

A number of a cell has a flat key on disk, such as `unseen_local_judge1_100`. `Measurement` is that key with its fields:
the metric, what made it (an extractor, a judge, changed words), over how many images, and which subset. The key is
derived of the fields, and `Measurement.parse` is its inverse and the only parser. A new metric is a new row here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from architectures import nearest
from bench.store.result import Result

LOCAL_ATTRIBUTES = ("shape", "colour", "size", "place")  # of each object of a scene
GLOBAL_ATTRIBUTES = ("tone", "time", "texture", "background")  # of the whole scene
ATTRIBUTES = LOCAL_ATTRIBUTES + GLOBAL_ATTRIBUTES
LADDER, MASTERED, UNTIL = "highest_lr", "mastered", "images_to_90"  # of a ladder of rates; by counts and ranks of seeds
SECTIONS = (
    "adherence",
    "dynamics",
    "cost",
    "heldout_loss_by_timestep",
    "excess_by_timestep",
)  # of MLflow's chart page, in a reader's order
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}

Better = Literal["lower", "higher", ""]
MadeBy = Literal["", "extractor", "judge", "swap", "bin"]
_MADE_BY: dict[MadeBy, str] = {  # how the end of a key is written, by what made it
    "": "",
    "extractor": r"_(?P<made_by>\w+)_(?P<count>\d+k?)",
    "judge": r"_(?P<made_by>judge\d+|template)_(?P<count>\d+k?)",
    "swap": r"_(?P<made_by>swap)_(?P<count>\d+k?)",
    "bin": r"(?P<made_by>\d+)",
}
_SUBSET = r"(?:(?P<subset>unseen|real|guidance[\d.]+)_)?"
_OF_A_TASK = re.compile(rf"{_SUBSET}(?P<kind>[a-z]\w*?)_(?P<made_by>template)_(?P<count>\d+k?)")  # any task's attribute


@dataclass(frozen=True)
class Metric:
    """A row of the table of metrics.

    Attributes:
        kind: its name in a key and in a claim. heading: its name for people. unit: written behind the heading.
        better: which direction is; empty where neither is.
        form, scale: how a value is written: `format(value / scale, form)`.
        made_by: what its key says of its making.
        margin: the share of a mean below which a gap is seed noise.
        log: compared on its logarithm, as a factor.
        relative: whether a gap makes sense as a share of a mean; not where zero is chance, nor of a correlation.
        timed: a rate or a time, which depends on what else the machine did.
        exact: equal for all seeds.
        columns: subsets that are columns of the table ("" is the whole). brief: in the README too. minor: not in the
            terminal, last on the page.
        compared: whether `compare` shows it. every_set: measured on unseen prompts and along guidance too.
        section: of MLflow's chart page. front: whether it is beside FID there instead.
        per: scale and name as the denominator of a claim.
    """

    kind: str
    heading: str
    better: Better = ""
    form: str = ".4g"
    scale: float = 1.0
    unit: str = ""
    made_by: MadeBy = ""
    margin: float = 0.0
    log: bool = False
    relative: bool = True
    timed: bool = False
    exact: bool = False
    columns: tuple[str, ...] = ()
    brief: bool = False
    minor: bool = False
    compared: bool = True
    every_set: bool = False
    section: str = "cost"
    front: bool = False
    per: tuple[float, str] | None = None

    def __hash__(self) -> int:
        return hash(self.kind)

    def write(self, value: float) -> str:
        """A value in the metric's unit."""
        return format(value / self.scale, self.form)


def _distance(
    kind: str, heading: str, better: Better, form: str, *, margin: float = 0.0, brief: bool = False
) -> Metric:
    """A metric of images' features."""
    return Metric(
        kind, heading, better, form, made_by="extractor", margin=margin, columns=("",), brief=brief,
        minor=better == "higher", section="quality", front=True,
    )  # fmt: skip


def _judged(
    kind: str, heading: str, better: Better = "higher", *, columns: tuple[str, ...] = (), every_set: bool = False
) -> Metric:
    """A metric of what the judge reads."""
    return Metric(
        kind, heading, better, ".3f", made_by="judge", relative=False, columns=columns, every_set=every_set,
        section="adherence", front=True,
    )  # fmt: skip


def _swapped(kind: str, heading: str, better: Better) -> Metric:
    """A metric of what one changed word changes."""
    return Metric(kind, heading, better, ".3f", made_by="swap", relative=False, section="adherence")


def _dynamics(kind: str, heading: str, better: Better = "", *, relative: bool = True) -> Metric:
    """How a cell learned."""
    return Metric(kind, heading, better, relative=relative, section="dynamics")


MI, GI = 2.0**20, 2.0**30

# In the order of columns. The margin: FID of one and the same model varies by 1 to 2 % from training seed to training
# seed (Dufour, Efros, Perez 2026, arXiv 2606.20536).
METRICS: tuple[Metric, ...] = (
    _distance("kid", "KID", "lower", ",.4f", brief=True),
    _distance("fid", "FID", "lower", ",.1f", margin=0.013),
    _distance("sfid", "sFID", "lower", ",.1f", margin=0.013),
    _distance("inception_score", "Inception score", "higher", ",.1f"),
    _distance("precision", "precision", "higher", ",.3f"),
    _distance("recall", "recall", "higher", ",.3f"),
    _judged("local", "local adherence", columns=("", "unseen"), every_set=True),
    _judged("global", "global adherence", columns=("", "unseen"), every_set=True),
    _judged("control", "adherence", every_set=True),
    _judged("right", "all attributes correct", columns=("",), every_set=True),
    _judged("count", "number of objects"),
    _judged("swapped", "swapped colours", "lower"),
    Metric("score", "score", "higher", ".3f", relative=False, columns=("",), brief=True, section="excess", front=True),
    Metric("excess_error", "excess", "lower", log=True, columns=("",), brief=True, section="excess", front=True),
    *(
        Metric(f"excess_error_{part}", f"excess, {part}", "lower", log=True, section="adherence")
        for part in ("object", "rest")
    ),
    Metric(
        "excess_error_bin", "excess, bin", "lower", made_by="bin", log=True, compared=False,
        section="excess_by_timestep"),
    Metric(UNTIL, "images to 90 %", "lower", ",.0f", log=True, section="adherence"),
    Metric(MASTERED, "mastered", "higher", ".2f", relative=False, section="adherence"),
    *(_judged(name, name) for name in ATTRIBUTES),
    *(_judged(f"raw_{name}", f"raw {name}", "") for name in ATTRIBUTES),
    *(_swapped(f"locality_{name}", f"locality {name}", "higher") for name in ATTRIBUTES),
    *(_swapped(f"change_{name}", f"change {name}", "") for name in ATTRIBUTES),
    Metric("heldout_loss", "validation loss", "lower", ",.4f", columns=("",), brief=True, section="loss", front=True),
    Metric(
        "heldout_loss_bin", "validation loss, bin", "lower", ",.4f", made_by="bin", compared=False,
        section="heldout_loss_by_timestep"),
    Metric(
        "train_images_per_second", "training images/s", "higher", ",.0f", timed=True, columns=("",), brief=True,
        front=True),
    Metric("train_images_per_second_iqr", "training images/s, interquartile range"),
    Metric("train_images_per_second_per_device", "training images/s a device", "higher", timed=True, columns=("",)),
    Metric("train_ms", "training ms an image", "lower", timed=True, compared=False),
    Metric("sample_images_per_second", "sampling images/s", "higher", ",.1f", timed=True, columns=("",), front=True),
    Metric("sample_images_per_second_iqr", "sampling images/s, interquartile range"),
    Metric("sample_images_per_second_per_device", "sampling images/s a device", "higher", ",.1f", timed=True),
    Metric("sample_ms", "sampling ms an image", "lower", timed=True, compared=False),
    Metric(
        "train_peak_resident_bytes", "peak memory (resident)", "lower", ",.0f", MI, "MiB", columns=("",), brief=True,
        front=True, per=(MI, "MiB of peak memory")),
    Metric(
        "train_peak_allocated_bytes", "peak memory (allocated)", "lower", ",.2f", GI, "GiB", columns=("",), brief=True,
        front=True, per=(MI, "MiB of peak memory")),
    Metric("train_peak_resident_bytes_total", "resident, all devices", "lower", ",.0f", MI, "MiB", columns=("",)),
    Metric("train_peak_allocated_bytes_total", "allocated, all devices", "lower", ",.2f", GI, "GiB", columns=("",)),
    Metric(
        "parameters_total", "parameters", "", ",.2f", 1e6, "M", exact=True, columns=("",), front=True,
        per=(1e6, "M parameters")),
    Metric("modulation_share", "modulation share", "", ".1%", unit="%", exact=True, columns=("",), brief=True),
    *(
        Metric(f"parameters_{part}", f"parameters of {part}", "", ",.2f", 1e6, "M", exact=True,
               per=(1e6, f"M parameters of {part}"))
        for part in ("backbone", "modulation", "scheme", "prompt")
    ),
    Metric(
        "macs_forward", "multiply-adds an image", "", ",.3f", 1e9, "GMAC", exact=True, columns=("",), minor=True,
        per=(1e9, "GMAC an image")),
    Metric(
        "flops_train_per_image", "training operations an image", "", ",.3f", 1e9, "GFLOP", exact=True,
        per=(1e9, "training GFLOP an image")),
    Metric("mfu", "MFU", "higher", ".1%", unit="%", timed=True, columns=("",)),
    Metric("mfu_of_gemm", "MFU of a measured product", "higher", ".1%", unit="%", timed=True),
    Metric("train_steady_allocated_bytes", "memory between steps", "lower", ",.2f", GI, "GiB", compared=False),
    Metric("train_allocation_retries", "allocations tried again", "lower", ",.0f", compared=False),
    Metric("train_seconds", "training seconds", "lower", ",.0f", timed=True, compared=False),
    Metric("evaluate_seconds", "seconds of evaluation", "lower", ",.1f", timed=True, compared=False),
    _dynamics("open_first", "how far a block moves the stream before training, the largest"),
    _dynamics("open_last", "how far blocks move the stream at the end"),
    _dynamics("opening_step", "when blocks have half opened, a share of training"),
    _dynamics("opening_order", "rank correlation of depth with when blocks open", relative=False),
    _dynamics("opening_depth", "rank correlation of depth with how far blocks open", relative=False),
    _dynamics("gate_first", "mean |gate| before training"),
    _dynamics("gate_last", "mean |gate| at the end"),
    _dynamics("spikes", "spikes of the training loss", "lower"),
    _dynamics(LADDER, "log10 of the highest learning rate", relative=False),
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """What one number of a cell is.

    Attributes:
        made_by: the extractor's slug, the judge (`judge1`), `swap`, or the number of a bin of timesteps.
        count: of images, 0 where the key says none.
        subset: `unseen`, `real`, `guidance4`, or empty for the held-out prompts.
    """

    metric: Metric
    made_by: str = ""
    count: int = 0
    subset: str = ""

    @classmethod
    def of(cls, kind: str, made_by: str = "", count: int = 0, subset: str = "") -> Measurement:
        """The measurement of a metric of the table.

        Raises:
            KeyError: if the table has no such metric.
        """
        return cls(_by_kind(METRICS)[kind], made_by, count, subset)

    @staticmethod
    @lru_cache(maxsize=1 << 12)
    def parse(key: str) -> Measurement:
        """The inverse of `key`. A key of no metric of the table is a metric of its own, of which nothing is known."""
        for form in _forms(METRICS):
            if found := form.fullmatch(key):
                parts = {name: text or "" for name, text in found.groupdict().items()}
                count = _number(parts.get("count") or "0")
                return Measurement.of(parts["kind"], parts.get("made_by", ""), count, parts["subset"])
        if found := _OF_A_TASK.fullmatch(key):
            own = _judged(found["kind"], found["kind"].replace("_", " "))
            return Measurement(own, found["made_by"], _number(found["count"]), found["subset"] or "")
        return Measurement(Metric(key, key.replace("_", " ")))

    @property
    def key(self) -> str:
        """Its name on disk."""
        made = self.made_by if self.metric.made_by == "bin" else f"_{self.made_by}_{count_name(self.count)}"
        return self.name + (made if self.metric.made_by else "")

    @property
    def name(self) -> str:
        """Its short name, as a claim may write it: kind and subset."""
        return f"{self.subset}_{self.metric.kind}" if self.subset else self.metric.kind

    @property
    def heading(self) -> str:
        """For people: `local adherence, guidance 4 (judge1, 400)`."""
        if self.metric.made_by == "bin":
            return f"{self.metric.heading} {self.made_by}"
        text = self.metric.heading + (f", {self.metric.unit}" if self.metric.unit not in ("", "%") else "")
        text += f", {self.subset.replace('guidance', 'guidance ')}" if self.subset else ""
        return text + (f" ({self.made_by.replace('_', '-')}, {count_name(self.count)})" if self.made_by else "")

    @property
    def better(self) -> Better:
        """Which direction is; of real images neither."""
        return "" if self.subset == "real" else self.metric.better

    @property
    def over_chance(self) -> bool:
        """Whether its zero is what a guess gets: that of all that a judge reads."""
        return self.metric.made_by == "judge"

    @property
    def compared(self) -> bool:
        """Whether a comparison shows it."""
        return bool(self.better) and self.metric.compared

    @property
    def is_column(self) -> bool:
        """Whether it is a column of the table of means."""
        return self.subset in self.metric.columns

    @property
    def section(self) -> str:
        """Its section of MLflow's chart page; empty for what is beside FID."""
        return "" if self.is_column and self.metric.front else self.metric.section

    @property
    def guidance(self) -> float | None:
        """The guidance scale, where it is not the cell's own."""
        return float(self.subset.removeprefix("guidance")) if self.subset.startswith("guidance") else None

    def write(self, value: float) -> str:
        """A value in the metric's unit."""
        return self.metric.write(value)


def _number(name: str) -> int:
    """The inverse of `count_name`."""
    return int(name.rstrip("k")) * (1000 if name.endswith("k") else 1)


def count_name(count: int) -> str:
    """400 -> `400`, 5000 -> `5k`."""
    return f"{count // 1000}k" if count % 1000 == 0 and count else str(count)


@lru_cache(maxsize=4)
def _by_kind(metrics: tuple[Metric, ...]) -> dict[str, Metric]:
    return {metric.kind: metric for metric in metrics}


@lru_cache(maxsize=4)
def _forms(metrics: tuple[Metric, ...]) -> list[re.Pattern[str]]:
    """A pattern of whole keys for each way of making."""
    kinds = {form: [re.escape(one.kind) for one in metrics if one.made_by == form] for form in _MADE_BY}
    return [
        re.compile(f"{_SUBSET}(?P<kind>{'|'.join(known)}){_MADE_BY[form]}") for form, known in kinds.items() if known
    ]


# --- questions to the table -------------------------------------------------------------------------------------------


def measurements(keys: Iterable[str]) -> list[Measurement]:
    """Every key once, in the order of the table, then subset, then key."""
    order = {metric.kind: k for k, metric in enumerate(METRICS)}
    every = [Measurement.parse(key) for key in sorted(set(keys))]
    return sorted(every, key=lambda one: (order.get(one.metric.kind, len(order)), one.subset))


def columns(keys: Iterable[str]) -> list[Measurement]:
    """Those that are columns of the table of means."""
    return [one for one in measurements(keys) if one.is_column]


def of_section(keys: Iterable[str], section: str) -> list[Measurement]:
    """Those of one section of MLflow's chart page; of the empty section those beside FID."""
    return [one for one in measurements(keys) if one.section == section]


def beside_fid(keys: Iterable[str]) -> list[Measurement]:
    """Those that are in no section of MLflow and come first in its run table: the brief ones, then the rest."""
    return sorted(of_section(keys, ""), key=lambda one: not one.metric.brief)


def names() -> list[str]:
    """The short names that a claim may give: kinds, and those measured on unseen prompts."""
    return [metric.kind for metric in METRICS] + [f"unseen_{metric.kind}" for metric in METRICS if metric.every_set]


def known(name: str) -> bool:
    """Whether a cell may have such a metric, by its short or its full name, also at another guidance scale."""
    one = Measurement.parse(name)
    if one.metric in METRICS:
        return one.subset != "real"
    short = re.fullmatch(f"{_SUBSET}(?P<kind>.+)", name)
    metric = _by_kind(METRICS).get(short["kind"]) if short else None
    return metric is not None and short is not None and (not short["subset"] or metric.every_set)


def find(keys: Iterable[str], name: str) -> str:
    """The key that a short name means: `fid` is `fid_efficientnet_lite0_400` where no other FID is there.

    Raises:
        ValueError: if there is none, with the nearest, or more than one.
    """
    keys = sorted(set(keys))
    if name in keys:
        return name
    short = {key: Measurement.parse(key).name for key in keys}
    matches = [key for key in keys if short[key] == name]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise ValueError(f"metric {name!r} is any of {', '.join(matches)}; name one")
    choices = sorted(set(short.values()))
    hint = nearest(name, choices, f": {', '.join(choices)}")
    raise ValueError(f"no metric {name!r}{hint}")


# --- numbers of a result ----------------------------------------------------------------------------------------------


def numbers(result: Result) -> dict[str, float]:
    """All numbers of a result by key, and those derived of them."""
    values = {**result.quality, **result.cost, **result.dynamics}
    for name in ("train", "sample"):
        if values.get(f"{name}_images_per_second"):
            values[f"{name}_ms"] = 1000 / values[f"{name}_images_per_second"]
    if values.get("parameters_total"):
        values["modulation_share"] = values.get("parameters_modulation", 0.0) / values["parameters_total"]
    return values
