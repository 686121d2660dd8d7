"""What a reader must know of the metrics of a table, in sentences."""

from __future__ import annotations

from collections.abc import Iterable

from bench.store.metrics import measurements

DIMENSIONS = {"inception": 2048, "efficientnet_lite0": 1280}  # of records written before they held it


def caveats(keys: Iterable[str], dimensions: dict[str, int] | None = None) -> list[str]:
    """What a reader must know of the metrics.

    Args:
        keys: of measurements.
        dimensions: extractor's slug -> number of features, as the results say.
    """
    known_dimensions = DIMENSIONS | (dimensions or {})
    text = []
    for one in measurements(keys):
        if one.metric.kind != "fid":
            continue
        dim = known_dimensions.get(one.made_by)
        if dim is None:
            text.append(
                f"FID over {one.count:,} images is biased upward by much where they are fewer than twice its feature "
                "dimensions, whose number is not recorded: compare it only within this table, and read KID first."
            )
        elif one.count < 2 * dim:
            text.append(
                f"FID over {one.count:,} images, fewer than twice its {dim:,} feature dimensions, is biased upward by "
                "much: compare it only within this table, and read KID first."
            )
        if one.made_by != "inception":
            slug = one.made_by.replace("_", "-")
            text.append(f"FID and KID here are made of {slug} features; they are not published FIDs.")
    return text
