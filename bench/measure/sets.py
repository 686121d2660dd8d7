"""Sets of samples that are measured: kept in parts as they are finished, with the time that each took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.measure import rows
from bench.measure.images import Images
from bench.measure.passes import Pass, rates
from bench.measure.sampling import Batch, Say, initial_noise, sampled_batch
from bench.store.kept import load_array, save_array
from bench.training.digests import weights_digest
from bench.training.model import LoadedCell, places
from bench.training.stopwatch import median_iqr

WARM_UP = 1  # steps of the solver before the first part that is timed


@dataclass(frozen=True)
class SampleSet:
    """A set of samples: sample k from noise k and the prompt of image `indices[k]` of a split.

    Attributes:
        name: of the set, and of its folder.
        split: where prompts come from.
        indices: (n,).
        guidance: None is the cell's own.
    """

    name: str
    split: str
    indices: NDArray[np.int64]
    guidance: float | None = None


def heldout_set(subject: LoadedCell) -> SampleSet:
    """The samples that quality is measured on."""
    return SampleSet("heldout", "heldout", rows.sides(subject.data, subject.config.evaluate).prompts)


def generate_set(
    subject: LoadedCell, request: SampleSet, folder: Path, say: Say, warn: Say = lambda text: None
) -> tuple[Images, list[Pass]]:
    """The samples of a set, uint8 (n, H, W, 3), and how long the pass of each part took, all of them warm.

    Of a task they are x_0, float32 (n, 3, H, W): white grain goes beyond what an image can show.

    Kept in parts as they are finished, so that a cell that dies here resumes. A part that is damaged, or of other
    weights, is generated again.
    """
    count, batch, where = len(request.indices), subject.config.sample.batch, folder / "generated" / request.name
    passes: list[Pass] = []
    whole, warm, weights = np.empty(0, np.uint8), False, weights_digest(subject.model)
    starts, ranks = list(range(0, count, batch)), subject.ranks
    for few in [starts[k : k + ranks.count] for k in range(0, len(starts), ranks.count)]:  # one for each device
        files = {start: where / f"part-{start:06d}.npy" for start in few}
        kept = {start: load_array(file, warn) for start, file in files.items()}
        lacking = [start for start in few if (one := kept[start]) is None or one[1].get("weights") != weights]
        if lacking and not warm:  # also in a cell that resumes here
            short = replace(_part(subject, request, lacking[0]), steps=WARM_UP)
            list(ranks.shared(sampled_batch, subject, [short] * ranks.count))
        given = (_part(subject, request, start) for start in lacking)
        for start, (samples, made) in zip(lacking, ranks.shared(sampled_batch, subject, given), strict=True):
            save_array(files[start], samples, weights=weights, **asdict(made))
            kept[start], warm = (samples, asdict(made)), True
        for start, one in kept.items():
            assert one is not None
            if not passes:  # at once: parts and their copy would be twice the memory
                whole = np.empty((count, *one[0].shape[1:]), one[0].dtype)
            whole[start : start + batch] = one[0]
            passes.append(Pass(**{part.name: one[1][part.name] for part in fields(Pass)}))
            say(f"sampling {request.name} {min(start + batch, count)} of {count}")
    return whole, passes


def sampling_rate(subject: LoadedCell, passes: Sequence[Pass]) -> dict[str, float]:
    """`sample_images_per_second` on all devices, the median over windows of passes, and its interquartile range.

    Args:
        subject: the cell, whose every device makes passes of its own.
        passes: at the cell's own guidance.
    """
    return median_iqr([subject.ranks.count * rate for rate in rates(passes)], "sample_images_per_second")


def _part(subject: LoadedCell, request: SampleSet, start: int) -> Batch:
    """The batch of a set's samples from `start`; of a compiled model it is filled up."""
    config = subject.config
    own = request.indices[start : start + config.sample.batch]
    ((members, count),) = places(len(own), config.sample.batch, config.train)
    noise = initial_noise(config.evaluate.seed, (start + members).tolist(), subject.shape)
    prompt = subject.prompts.rows(request.split, own[members])
    return Batch(prompt, noise, count, request.guidance, exact=subject.data.task is not None)
