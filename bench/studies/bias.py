"""How FID depends on the number of images, shown once, with its limit for endlessly many.

    python -m bench.studies.bias [--most 6400] [--repeats 3] [--out FOLDER]

FID of N images lies above its limit by about c / N (Chong and Forsyth, arXiv 1911.07023), so that it is a line over
1 / N, and where the line ends is the limit. Both sides hold N scenes here: against other real scenes the truth is 0, so
that one sees what N images make of it; against scenes with noise it is not known. KID of the same samples has no bias.
The line is fitted from twice the extractor's dimensions on: with fewer images a covariance lacks rank.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data import scenes
from bench.measure import metrics
from bench.store import provenance
from bench.store.files import write_atomic
from bench.store.metrics import Measurement
from bench.store.seeds import derive
from bench.views.figures import quality as figures

SIZE, NOISE = 32, 20.0  # side of an image; standard deviation of the noise, of 255 levels
SHARES = (1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # of the images there are


def scene_images(split: str, count: int) -> NDArray[Any]:
    """Real scenes, uint8 (count, S, S, 3)."""
    return scenes.generate(count, SIZE, seed=0, split=split).images


def noisy(images: NDArray[Any]) -> NDArray[Any]:
    """The same with noise."""
    noise = np.random.default_rng(derive("bias", "noise")).normal(0, NOISE, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def along(a: NDArray[Any], b: NDArray[Any], repeats: int) -> list[dict[str, Any]]:
    """FID and KID of N against N features, for more and more N; `repeats` times each (once where N is all)."""
    points = []
    for count in dict.fromkeys(int(share * len(a)) for share in SHARES):
        values = []
        for k in range(repeats if count < len(a) else 1):
            rng = np.random.default_rng(derive("bias", count, k))
            sides = [side[rng.permutation(len(side))[:count]] for side in (a, b)]
            values.append(metrics.set_metrics(*sides, slug="x"))
        fids, kids = ([one[Measurement.of(name, "x", count).key] for one in values] for name in ("fid", "kid"))
        points.append({"n": count, "fid": fids, "kid": kids})
    return points


def limit(points: list[dict[str, Any]], least: int) -> dict[str, float]:
    """FID at 1 / N = 0 by the line through all subsets of `least` images and more, with its standard error.

    Raises:
        ValueError: where fewer than three numbers of images are that large.
    """
    from scipy.stats import linregress

    used = [one for one in points if one["n"] >= least]
    if len(used) < 3:
        raise ValueError(f"a line needs three numbers of images from {least:,} on, got {len(used)}; raise --most")
    x = [1 / one["n"] for one in used for _ in one["fid"]]
    line = linregress(x, [value for one in used for value in one["fid"]])
    return {"fid": line.intercept, "error": line.intercept_stderr, "slope": line.slope, "r2": line.rvalue**2}


def main() -> None:
    """`python -m bench.studies.bias`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=6400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--extractor", default="efficientnet-lite0")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    provenance.imported()  # now: it may take hours
    extractor = metrics.resolve(given.extractor)
    real, other = (scene_images(split, given.most) for split in ("heldout", "train"))
    sides = [extractor.features(images) for images in (real, other, noisy(other))]
    least = 2 * sides[0].shape[1]
    sets: dict[str, dict[str, Any]] = {}
    for name, features in (("other real scenes", sides[1]), (f"scenes with noise of {NOISE:g} levels", sides[2])):
        points = along(sides[0], features, given.repeats)
        sets[name] = {"points": points, "limit": limit(points, least)}
        print(f"real scenes against {name}\n{'N':>7}{'FID':>10}{'KID':>10}")
        for one in points:
            print(f"{one['n']:>7,}{statistics.fmean(one['fid']):>10.1f}{statistics.fmean(one['kid']):>10.4f}")
        end = sets[name]["limit"]
        print(f"  limit{end['fid']:>10.1f} +- {end['error']:.1f} (line from N = {least:,}, r2 {end['r2']:.3f})\n")
    if given.out:
        summary = {
            "what": "FID and KID of N against N images, and the limit of FID by a line over 1 / N",
            "command": "python -m bench.studies.bias " + " ".join(sys.argv[1:]),
            "extractor": {"name": extractor.name, "digest": extractor.digest, "dimensions": sides[0].shape[1]},
            "fitted_from": least,
            "sets": sets,
            "seeds": {"data": 0},
            **provenance.about("cpu"),
        }
        write_atomic(given.out / "bias.json", (json.dumps(summary, indent=1) + "\n").encode())
        write_atomic(given.out / "bias.png", figures.bias(sets, least))


if __name__ == "__main__":
    main()
