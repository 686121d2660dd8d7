"""What a metric is: heading, unit, direction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from architectures import nearest
from bench.store.result import Result

LOCAL_ATTRIBUTES = ("shape", "colour", "size", "place")  # of each object of a scene
GLOBAL_ATTRIBUTES = ("tone", "time", "texture", "background")  # of the whole scene
ATTRIBUTES = LOCAL_ATTRIBUTES + GLOBAL_ATTRIBUTES

# --- columns --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """A number of a cell: its key in the result, its heading, how it is written, and which direction is better."""

    key: str
    heading: str
    write: Callable[[float], str]
    better: str = ""  # lower, higher or nothing


def _fixed(digits: int, unit: float = 1.0) -> Callable[[float], str]:
    return lambda value: f"{value / unit:,.{digits}f}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


# What made a metric, and of how many pictures, stands at the end of its name.
_MADE_OF = (
    re.compile(r"(?P<kind>kid|fid|precision|recall)_(?P<slug>\w+)_(?P<count>\d+k?)"),
    re.compile(r"(?P<kind>[\w.]+?)_(?P<slug>judge\d+|swap)_(?P<count>\d+k?)"),
)
_JUDGED = re.compile(r"(?:(?P<set>unseen|real|guidance[\d.]+)_)?(?P<name>\w+)")
QUALITY: dict[str, Callable[[float], str]] = {
    "kid": _fixed(4),
    "fid": _fixed(1),
    "precision": _fixed(3),
    "recall": _fixed(3),
    "local": _fixed(3),
    "global": _fixed(3),
    "right": _fixed(3),
    "unseen_local": _fixed(3),
    "unseen_global": _fixed(3),
}
LADDER = "highest_lr"  # of a learning-rate ladder, not of a cell
DYNAMICS = {
    "open_first": "how far a block moves the stream before training, the largest",
    "open_last": "how far blocks move the stream at the end",
    "opening_step": "when blocks have half opened, a share of training",
    "opening_order": "rank correlation of depth with when blocks open",
    "opening_depth": "rank correlation of depth with how far blocks open",
    LADDER: "log10 of the highest learning rate",
}
ARROWS = {"lower": " ↓", "higher": " ↑", "": ""}

COST = (
    Column("train_images_per_second", "training images/s", _fixed(0), "higher"),
    Column("sample_images_per_second", "sampling images/s", _fixed(1), "higher"),
    Column("train_peak_resident_bytes", "peak memory MiB (resident)", _fixed(0, 2**20), "lower"),
    Column("train_peak_allocated_bytes", "peak memory GiB (allocated)", _fixed(2, 2**30), "lower"),
    Column("parameters_total", "parameters M", _fixed(2, 1e6)),
    Column("modulation_share", "of it modulation", _percent),
    Column("macs_forward", "GMAC a picture", _fixed(3, 1e9)),
    Column("mfu", "MFU", _percent, "higher"),
)


def quality_columns(names: Iterable[str]) -> list[Column]:
    """KID first, then FID, precision, recall, control, held-out loss; the heading says what made it, and of how many
    pictures."""
    names = sorted(set(names))
    found = [
        Column(name, heading(name), write, direction(name))
        for kind, write in QUALITY.items()
        for name in names
        if name.startswith(f"{kind}_")
    ]
    if "heldout_loss" in names:
        found.append(Column("heldout_loss", "held-out loss", _fixed(4), "lower"))
    return found


def direction(key: str) -> str:
    """`lower` or `higher`, which is better; empty where neither is."""
    known = {column.key: column.better for column in COST}
    if key in known:
        return known[key]
    if key.startswith(("kid_", "fid_", "heldout_loss")) or key in ("train_ms", "sample_ms", "train_seconds", "spikes"):
        return "lower"
    return "higher" if _made_of(key) and not key.startswith(("change_", "real_", "raw_")) else ""


def _made_of(key: str) -> re.Match[str] | None:
    """`kind`, `slug` and `count` of a metric that is made of pictures."""
    return next((found for form in _MADE_OF if (found := form.fullmatch(key))), None)


def heading(key: str) -> str:
    """A metric's name for people: `local control (judge1, 400)`."""
    known = {column.key: column.heading for column in COST} | {"heldout_loss": "held-out loss"}
    known |= {"train_ms": "training ms a picture", "sample_ms": "sampling ms a picture"}
    known |= DYNAMICS
    made = _made_of(key)
    if key in known or not made:
        return known.get(key, key.replace("_", " "))
    kind, slug, count = made["kind"], made["slug"].replace("_", "-"), made["count"]
    judged = _JUDGED.fullmatch(kind) if slug.startswith("judge") else None
    if judged:
        words = {"local": "local control", "global": "global control", "right": "all right"}
        word = words.get(judged["name"], judged["name"].replace("_", " "))
        told = (judged["set"] or "").replace("guidance", "guidance ")
        return f"{word}{', ' + told if told else ''} ({slug}, {count})"
    return f"{kind.upper() if len(kind) == 3 else kind.replace('_', ' ')} ({slug}, {count})"


def over_chance(key: str) -> bool:
    """Whether a metric's zero is what a guess gets: that of all that a judge reads."""
    made = _made_of(key)
    return made is not None and made["slug"].startswith("judge")


def has_shares(key: str) -> bool:
    """Whether a gap is sensibly told as a share of a mean: not of control or locality, whose zero is chance, nor of a
    logarithm or a correlation."""
    made = _made_of(key)
    if key in (LADDER, "opening_order", "opening_depth"):
        return False
    return made is None or not made["slug"].startswith(("judge", "swap"))


def timed(key: str) -> bool:
    """Whether a metric is a rate or a time: it depends on what else the machine did."""
    return key in ("train_ms", "sample_ms", "train_seconds", "mfu") or key.endswith("_images_per_second")


def find(keys: Iterable[str], name: str) -> str:
    """The metric that a short name means: `fid` is `fid_efficientnet_lite0_400` where nothing else begins so.

    Raises:
        ValueError: if there is none, with the nearest, or more than one.
    """
    keys = sorted(set(keys))
    if name in keys:
        return name
    short = {key: made["kind"] for key in keys if (made := _made_of(key))}
    found = [key for key, kind in short.items() if kind == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"metric {name!r} is any of {', '.join(found)}; name one")
    known = sorted({*short.values(), *(key for key in keys if key not in short)})
    hint = nearest(name, known, f": {', '.join(known)}")
    raise ValueError(f"no metric {name!r}{hint}")


def numbers(result: Result) -> dict[str, float]:
    """All numbers of a result, and shares derived of them."""
    found = {**result.quality, **result.cost, **result.dynamics}
    for name in ("train", "sample"):
        if found.get(f"{name}_images_per_second"):
            found[f"{name}_ms"] = 1000 / found[f"{name}_images_per_second"]
    if found.get("parameters_total"):
        found["modulation_share"] = found.get("parameters_modulation", 0.0) / found["parameters_total"]
    return found


def caveats(names: Iterable[str]) -> list[str]:
    """What a reader must know of the metrics, by their names."""
    said = []
    for name in sorted(set(names)):
        kind, _, rest = name.partition("_")
        slug, _, count = rest.rpartition("_")
        number = int(count.rstrip("k")) * (1000 if count.endswith("k") else 1) if count.rstrip("k").isdigit() else 0
        width = {"inception": 2048, "efficientnet_lite0": 1280}.get(slug, 2048)
        if kind == "fid" and number and number < 2 * width:
            said.append(
                f"FID over {number:,} pictures, fewer than twice its {width:,} feature dimensions, is biased upward by "
                "much: compare it only within this table, and read KID first."
            )
        if kind == "fid" and slug != "inception":
            said.append(f"FID and KID here are made of {slug.replace('_', '-')} features; they are not published FIDs.")
    return said
